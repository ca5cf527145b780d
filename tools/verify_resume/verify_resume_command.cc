#include "grapnel/tools/verify_resume/verify_resume_command.h"

#include <limits.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <iostream>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/suggestion.h"
#include "grapnel/tools/command_line.h"
#include "grapnel/tools/exit_code.h"
#include "grapnel/tools/flag_values.h"
#include "grapnel/tools/handle_signal.h"
#include "grapnel/tools/text_table.h"
#include "grapnel/tools/verify_resume/resume_trace.h"

namespace grapnel {

const char kVerifyResumeHelp[] =
    R"(grapnel verify-resume trains a configuration without an interruption, then
kills it (SIGKILL) and resumes it, also inside saves and validations, and
compares: batches, losses, weights, optimizer, averages, generators, the
message hub, records. It names what differs first, and the likely owner.

  grapnel verify-resume CONFIG [FLAG]... [flags of grapnel train]

  --kills N        how often it is killed; 5 if not given
  --kill-seed N    of what is killed when; drawn and printed if not given
  --iters N        train only N iterations, or the epochs that hold them
  --save-every N   save after every N iterations; as configured if not given,
                   about 8 times in a run if the configuration saves none
  --work-dir DIR   where the runs' folder is made: a directory; TMPDIR or /tmp
                   if not given
  --keep           don't delete that folder; it stays where something differs
  --json           the result as one JSON object on stdout

The configuration's own work_dir isn't touched. --seed, --device, --threads,
--cfg-options and --load-from are as for grapnel train.
Exit codes: 0 all equal, 1 different, 2 bad command line, configuration or data
files, 5 could not be tested, 128 + N signal N. Only 1 leaves the folder.
)";

namespace {

absl::Status SetPositive(absl::string_view value, int64_t* field) {
  if (!absl::SimpleAtoi(value, field) || *field < 1 || *field > 1000000000) {
    return absl::InvalidArgumentError(absl::StrCat(
        "must be an integer in 1..1000000000, is \"", value, "\""));
  }
  return absl::OkStatus();
}

absl::Status SetKills(absl::string_view value, VerifyResumeCommand* command) {
  int64_t kills;
  GRAPNEL_RETURN_IF_ERROR(SetPositive(value, &kills));
  command->options.kills = static_cast<int>(kills);
  return absl::OkStatus();
}

absl::Status SetKillSeed(absl::string_view value,
                         VerifyResumeCommand* command) {
  if (absl::SimpleAtoi(value, &command->options.kill_seed.emplace())) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("must be an integer >= 0, is \"", value, "\""));
}

absl::Status SetIters(absl::string_view value, VerifyResumeCommand* command) {
  return SetPositive(value, &command->options.iters.emplace());
}

absl::Status SetSaveEvery(absl::string_view value,
                          VerifyResumeCommand* command) {
  return SetPositive(value, &command->options.save_every.emplace());
}

absl::Status SetWorkDir(absl::string_view value, VerifyResumeCommand* command) {
  if (value.empty()) return absl::InvalidArgumentError("is empty");
  command->options.dir = std::string(value);
  return absl::OkStatus();
}

absl::Status SetKeep(absl::string_view, VerifyResumeCommand* command) {
  command->options.keep = true;
  return absl::OkStatus();
}

absl::Status SetJson(absl::string_view, VerifyResumeCommand* command) {
  command->json = true;
  return absl::OkStatus();
}

struct Flag {
  const char* name;
  bool has_value;
  absl::Status (*set)(absl::string_view value, VerifyResumeCommand* command);
};

constexpr Flag kFlags[] = {
    {"iters", true, SetIters},     {"json", false, SetJson},
    {"keep", false, SetKeep},      {"kill-seed", true, SetKillSeed},
    {"kills", true, SetKills},     {"save-every", true, SetSaveEvery},
    {"work-dir", true, SetWorkDir}};

// Null for one of train's.
absl::StatusOr<const Flag*> FindFlag(absl::string_view typed) {
  const std::string name = absl::StrReplaceAll(typed, {{"_", "-"}});
  std::vector<std::string> names = FlagNames();
  const bool of_train = std::count(names.begin(), names.end(), name) > 0;
  for (const Flag& flag : kFlags) {
    if (name == flag.name) return &flag;
    names.push_back(flag.name);
  }
  // "--" is for train to refuse.
  if (of_train || name.empty()) return nullptr;
  const std::string closest = ClosestName(name, names);
  return absl::InvalidArgumentError(absl::StrCat(
      "unknown flag --", typed,
      closest.empty() ? "" : absl::StrCat("; did you mean --", closest, "?")));
}

std::string DefaultDir() {
  const char* const dir = std::getenv("TMPDIR");
  return dir != nullptr && *dir != '\0' ? dir : "/tmp";
}

// The first signal that asked it to stop; 0 if none did.
std::atomic<int> interrupt{0};
static_assert(std::atomic<int>::is_always_lock_free, "for a signal handler");

void OnSignal(int signal) {
  int none = 0;
  if (interrupt.compare_exchange_strong(none, signal)) return;
  // A second one is meant: at once. But the system may say twice that a
  // terminal was closed, and says with each line that a pipe was.
  if (signal == SIGINT || signal == SIGTERM) _exit(128 + signal);
}

// Lines, in which nothing is obeyed by a terminal.
std::string PrintableLines(absl::string_view text) {
  std::vector<std::string> lines;
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    lines.push_back(Printable(line));
  }
  return absl::StrJoin(lines, "\n");
}

int Refuse(const absl::Status& status, int exit_code) {
  std::cerr << "grapnel: verify-resume: " << PrintableLines(status.message())
            << std::endl;
  return exit_code;
}

}  // namespace

absl::StatusOr<VerifyResumeCommand> ParseVerifyResumeCommand(
    const std::vector<std::string>& args) {
  VerifyResumeCommand command;
  FlagValues values(args);
  for (size_t next = 0; next < args.size();) {
    const std::string& arg = args[next++];
    if (arg == "-h" || arg == "--help") {
      command.help = true;
      return command;
    }
    absl::string_view name = arg;
    const bool dashes = absl::ConsumePrefix(&name, "--");
    const TypedFlag typed = SplitFlag(name);
    const Flag* flag = nullptr;
    if (dashes) {
      GRAPNEL_ASSIGN_OR_RETURN(flag, FindFlag(typed.name));
    }
    if (flag == nullptr) {
      command.options.train_args.push_back(arg);
      continue;
    }
    GRAPNEL_ASSIGN_OR_RETURN(
        const absl::string_view value,
        values.Take(flag->name, flag->has_value, typed, &next));
    GRAPNEL_RETURN_IF_ERROR(WithContext(flag->set(value, &command),
                                        absl::StrCat("--", flag->name)));
  }
  if (command.options.dir.empty()) command.options.dir = DefaultDir();
  return command;
}

int RunVerifyResume(const std::vector<std::string>& args) {
  absl::StatusOr<VerifyResumeCommand> command = ParseVerifyResumeCommand(args);
  if (!command.ok()) return Refuse(command.status(), kBadInput);
  if (command->help) {
    std::cout << kVerifyResumeHelp << std::flush;
    return std::cout.good() ? kDone : kNotTested;
  }
  char self[PATH_MAX] = {};
  if (readlink("/proc/self/exe", self, sizeof(self) - 1) < 0) {
    return Refuse(absl::ErrnoToStatus(errno, "/proc/self/exe"), kNotTested);
  }
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGPIPE}) {
    HandleSignal(signal, &OnSignal);
  }
  command->options.program = self;
  command->options.interrupt = &interrupt;
  const bool json = command->json;
  command->options.progress = [json](const std::string& line) {
    (json ? std::cerr : std::cout) << Printable(line) << std::endl;
  };
  const absl::StatusOr<VerifyResumeReport> report =
      VerifyResume(command->options);
  const int signal = interrupt.load();
  if (absl::IsCancelled(report.status()) && signal != 0) {
    std::cerr << "grapnel: verify-resume: stopped by signal " << signal << " ("
              << strsignal(signal) << ")" << std::endl;
    return 128 + signal;
  }
  if (!report.ok()) {
    return Refuse(report.status(), absl::IsInvalidArgument(report.status())
                                       ? kBadInput
                                       : kNotTested);
  }
  std::cout << (json ? ReportJson(*report)
                     : PrintableLines(ReportText(*report)))
            << std::flush;
  if (!std::cout.good()) {
    return interrupt.load() != 0 ? 128 + interrupt.load() : kNotTested;
  }
  return report->verdict == VerifyResumeReport::Verdict::kEqual ? kDone
                                                                : kRunFailed;
}

int ExitCodeForVerifier(const absl::Status& status, int exit_code) {
  return std::getenv(kRunVariable) != nullptr &&
                 (absl::IsResourceExhausted(status) ||
                  absl::IsUnavailable(status))
             ? kNotTested
             : exit_code;
}

}  // namespace grapnel
