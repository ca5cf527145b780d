#include "grapnel/tools/verify_resume/verify_resume_command.h"

#include <limits.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <optional>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "grapnel/base/status_macros.h"

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
  --work-dir DIR   where the runs are, in a folder that is made; TMPDIR, /tmp
  --keep           don't delete that folder; it stays where something differs
  --json           the result as one JSON object on stdout

The configuration's own work_dir isn't touched. --seed, --device, --threads,
--cfg-options and --load-from are as for grapnel train.
Exit codes: 0 all equal, 1 different, 2 bad command line or configuration.
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

const Flag* FindFlag(absl::string_view typed) {
  const std::string name = absl::StrReplaceAll(typed, {{"_", "-"}});
  for (const Flag& flag : kFlags) {
    if (name == flag.name) return &flag;
  }
  return nullptr;
}

std::string DefaultDir() {
  const char* const dir = std::getenv("TMPDIR");
  return dir != nullptr && *dir != '\0' ? dir : "/tmp";
}

}  // namespace

absl::StatusOr<VerifyResumeCommand> ParseVerifyResumeCommand(
    const std::vector<std::string>& args) {
  VerifyResumeCommand command;
  std::vector<const Flag*> seen;
  for (size_t next = 0; next < args.size();) {
    const std::string& arg = args[next++];
    if (arg == "-h" || arg == "--help") {
      command.help = true;
      return command;
    }
    absl::string_view name = arg;
    std::optional<absl::string_view> value;
    const bool dashes = absl::ConsumePrefix(&name, "--");
    const size_t equals = name.find('=');
    if (dashes && equals != absl::string_view::npos) {
      value = name.substr(equals + 1);
      name = name.substr(0, equals);
    }
    const Flag* const flag = dashes ? FindFlag(name) : nullptr;
    if (flag == nullptr) {
      command.options.train_args.push_back(arg);
      continue;
    }
    const std::string shown = absl::StrCat("--", flag->name);
    for (const Flag* other : seen) {
      if (other == flag) {
        return absl::InvalidArgumentError(absl::StrCat(shown, ": given twice"));
      }
    }
    seen.push_back(flag);
    if (!flag->has_value && value.has_value()) {
      return absl::InvalidArgumentError(absl::StrCat(shown, " takes no value"));
    }
    if (flag->has_value && !value.has_value()) {
      if (next == args.size() || absl::StartsWith(args[next], "--")) {
        return absl::InvalidArgumentError(
            absl::StrCat(shown, " needs a value"));
      }
      value = args[next++];
    }
    GRAPNEL_RETURN_IF_ERROR(
        WithContext(flag->set(value.value_or(""), &command), shown));
  }
  if (command.options.dir.empty()) command.options.dir = DefaultDir();
  return command;
}

int RunVerifyResume(const std::vector<std::string>& args) {
  constexpr int kEqual = 0, kDifferent = 1, kBadInput = 2;
  const auto refuse = [](const absl::Status& status) {
    std::cerr << "grapnel: verify-resume: " << status.message() << std::endl;
    return kBadInput;
  };
  absl::StatusOr<VerifyResumeCommand> command = ParseVerifyResumeCommand(args);
  if (!command.ok()) return refuse(command.status());
  if (command->help) {
    std::cout << kVerifyResumeHelp << std::flush;
    return std::cout.good() ? kEqual : kDifferent;
  }
  char self[PATH_MAX] = {};
  if (readlink("/proc/self/exe", self, sizeof(self) - 1) < 0) {
    return refuse(absl::ErrnoToStatus(errno, "/proc/self/exe"));
  }
  command->options.program = self;
  const bool json = command->json;
  command->options.progress = [json](const std::string& line) {
    (json ? std::cerr : std::cout) << line << std::endl;
  };
  const absl::StatusOr<VerifyResumeReport> report =
      VerifyResume(command->options);
  if (!report.ok()) return refuse(report.status());
  std::cout << (json ? ReportJson(*report) : ReportText(*report)) << std::flush;
  if (!std::cout.good()) return kDifferent;
  return report->verdict == VerifyResumeReport::Verdict::kEqual ? kEqual
                                                                : kDifferent;
}

}  // namespace grapnel
