// The grapnel command.

#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ATen/Parallel.h"
#include "ATen/Version.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "google/protobuf/message.h"
#include "grapnel/base/heap.h"
#include "grapnel/base/log.h"
#include "grapnel/base/version.h"
#include "grapnel/dist/place.h"
#include "grapnel/dist/process_group.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/env.h"
#include "grapnel/runner/config_file.h"
#include "grapnel/runner/rehearsal.h"
#include "grapnel/runner/run_context.h"
#include "grapnel/runner/run_folders.h"
#include "grapnel/runner/runner.h"
#include "grapnel/runner/runner_config.pb.h"
#include "grapnel/tools/ckpt/ckpt.h"
#include "grapnel/tools/ckpt/interruptible_env.h"
#include "grapnel/tools/command_line.h"
#include "grapnel/tools/exit_code.h"
#include "grapnel/tools/handle_signal.h"
#include "grapnel/tools/launch/launch_command.h"
#include "grapnel/tools/launch/launcher.h"
#include "grapnel/tools/report_table.h"
#include "grapnel/tools/verify_resume/verify_resume_command.h"

namespace grapnel {
namespace {

using Verb = CommandLine::Verb;

// The signal that asked the run to stop, the first one; 0 if none did.
std::atomic<int> interrupt{0};
static_assert(std::atomic<int>::is_always_lock_free, "for a signal handler");

// A second one is meant: stop at once. But who has a launcher is told twice
// where the system tells every process of a job, or a terminal's keys do, and
// the launcher passes it on; that kills those that take too long.
bool second_is_meant = true;

void OnSignal(int signal) {
  int none = 0;
  if (interrupt.compare_exchange_strong(none, signal)) return;
  // When a terminal is closed the system says so, and the shell again.
  if (second_is_meant && signal != SIGHUP) _exit(128 + signal);
}

// `launcher`: RunnerConfig.launcher.
void HandleSignals(const std::string& launcher) {
  const absl::StatusOr<Launcher> parsed = ParseLauncher(launcher);
  if (parsed.ok() && *parsed != Launcher::kNone) {
    const absl::StatusOr<Place> place = FindPlace(*parsed);
    second_is_meant = !place.ok() || place->launcher == Launcher::kNone;
  }
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    HandleSignal(signal, &OnSignal);
  }
}

// The next file that is opened gets the number of a stream that isn't open, and
// then what is meant for the stream.
void OpenStandardStreams() {
  int fd;
  do {
    fd = open("/dev/null", O_RDWR);
  } while (fd >= 0 && fd <= STDERR_FILENO);
  close(fd);
}

int Report(const absl::Status& status, int exit_code) {
  std::cerr << "grapnel: " << status.message() << std::endl;
  return exit_code;
}

// What a command returns that has printed its result.
int Printed() {
  if (std::cout.good()) return kDone;
  std::cerr << "grapnel: the output can't be written" << std::endl;
  return kRunFailed;
}

std::string Version() {
  // 3021012 is 3.21.12.
  constexpr int kProtobuf = GOOGLE_PROTOBUF_VERSION;
  return absl::StrCat("grapnel ", kGrapnelVersion, " (LibTorch ",
                      kLibTorchVersion, ", protobuf ", kProtobuf / 1000000, ".",
                      kProtobuf / 1000 % 1000, ".", kProtobuf % 1000, ", ",
                      at::get_cpu_capability(), ")");
}

int Train(Runner& runner) {
  const absl::Status status = runner.Train();
  if (status.ok()) return kDone;
  const int signal = interrupt.load();
  if (absl::IsCancelled(status) && signal == 0 &&
      runner.context().process_group().world_size() > 1) {
    // The run was stopped, and not this process of it.
    std::cerr << "grapnel: stopped with another rank; --resume goes on"
              << std::endl;
    return 128 + SIGTERM;
  }
  if (absl::IsCancelled(status) && signal != 0) {
    std::cerr << "grapnel: stopped by signal " << signal << " ("
              << strsignal(signal) << "); --resume goes on" << std::endl;
    return 128 + signal;
  }
  // The run's log has said why.
  return ExitCodeForVerifier(status, ExitCodeOfRun(status));
}

int Test(Runner& runner) {
  const absl::StatusOr<Metrics> metrics = runner.Test();
  if (metrics.ok()) {
    std::cout << MetricsToJson(*metrics) << std::endl;
    return Printed();
  }
  return ExitCodeOfRun(metrics.status());
}

// That a folder could be made, or written to if it is there: what a rehearsal,
// which writes nothing, doesn't find out.
absl::Status CheckFolder(std::string path, const char* field) {
  struct stat info;
  const std::string shown = path;
  while (lstat(path.c_str(), &info) != 0) {
    if (errno != ENOENT) {
      return absl::ErrnoToStatus(errno, absl::StrCat(field, ": ", shown));
    }
    path = io::Dirname(path);
    if (path.empty()) path = ".";
  }
  if (stat(path.c_str(), &info) == 0 && !S_ISDIR(info.st_mode)) {
    return absl::InvalidArgumentError(
        absl::StrCat(field, ": ", path, " is not a directory"));
  }
  if (access(path.c_str(), W_OK | X_OK) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat(field, ": ", path));
  }
  return absl::OkStatus();
}

// Check and config: what train would refuse is refused, and nothing is written.
int Check(const CommandLine& command, const runner::v1::RunnerConfig& config,
          RunnerOptions options) {
  const RunFolders folders =
      FoldersOf(config, options.base_dir, options.config_name);
  for (const auto& [path, field] :
       {std::pair(folders.work_dir, "work_dir"),
        std::pair(folders.checkpoint_dir, "out_dir")}) {
    const absl::Status status = CheckFolder(path, field);
    if (!status.ok()) return Report(status, ExitCodeAtStart(status));
  }
  const absl::StatusOr<std::unique_ptr<Rehearsal>> rehearsal =
      Rehearsal::Create(config, std::move(options));
  if (!rehearsal.ok()) {
    return Report(rehearsal.status(), ExitCodeAtStart(rehearsal.status()));
  }
  if (command.verb == Verb::kConfig) {
    std::cout << PrintRunnerConfig(config) << std::flush;
    return Printed();
  }
  const absl::StatusOr<RehearsalReport> report = (*rehearsal)->Run();
  for (const std::string& warning : (*rehearsal)->warnings()) {
    std::cerr << "grapnel: warning: " << warning << std::endl;
  }
  if (!report.ok()) {
    return Report(report.status(), ExitCodeOfRun(report.status()));
  }
  std::cout << ReportTable(*report) << std::flush;
  return Printed();
}

// What tells a checkpoint from any other, and from what was there before it;
// "" if there is none.
std::string NewestCheckpoint(io::Env& env, const RunFolders& folders) {
  const absl::StatusOr<std::string> path = io::FindLatestCheckpoint(
      env, folders.work_dir, nullptr, {}, folders.checkpoint_dir);
  if (!path.ok()) return "";
  return absl::StrCat(
      *path, "\n",
      io::ReadFile(env, io::JoinPath(*path, "manifest.pb")).value_or(""));
}

int LaunchRanks(const std::vector<std::string>& args) {
  absl::StatusOr<LaunchCommand> launch = ParseLaunchCommand(args);
  if (!launch.ok()) return Report(launch.status(), kBadInput);
  if (launch->help) {
    std::cout << kLaunchHelp << std::flush;
    return Printed();
  }
  LaunchOptions& options = launch->options;
  if (launch->program.has_value()) {
    options.command = launch->args;
    options.command.insert(options.command.begin(), *launch->program);
    return Launch(options);
  }

  // What is wrong with it is said once, not by each rank.
  const absl::StatusOr<CommandLine> command = ParseCommandLine(launch->args);
  if (!command.ok()) {
    const std::string& first = launch->args[0];
    if (!absl::StrContains(first, '/')) {
      return Report(command.status(), kBadInput);
    }
    return Report(absl::InvalidArgumentError(absl::StrCat(
                      "\"", first, "\" is no command of grapnel: a program is ",
                      "launched by --program ", first, " -- ARG ...")),
                  kBadInput);
  }
  if (command->verb != Verb::kTrain && command->verb != Verb::kTest) {
    return Report(
        absl::InvalidArgumentError(absl::StrCat(
            "launch is for train and test, and not for ", launch->args[0])),
        kBadInput);
  }
  io::Env& env = io::Env::Posix();
  const absl::StatusOr<std::string> current_dir = env.CurrentDir();
  if (!current_dir.ok()) return Report(current_dir.status(), kBadInput);
  CommandLine read = *command;
  // Other nodes may not see the work dir, where a test looks for a checkpoint.
  if (options.node_rank > 0) read.verb = Verb::kTrain;
  const absl::StatusOr<runner::v1::RunnerConfig> config =
      ResolveConfig(read, env, *current_dir);
  if (!config.ok()) {
    return Report(config.status(), ExitCodeAtStart(config.status()));
  }

  char self[PATH_MAX] = {};
  if (readlink("/proc/self/exe", self, sizeof(self) - 1) < 0) {
    return Report(absl::ErrnoToStatus(errno, "/proc/self/exe"), kRunFailed);
  }
  std::vector<std::string> ranks = launch->args;
  if (options.nnodes * options.nproc_per_node > 1 && !config->has_launcher()) {
    ranks.insert(ranks.end(), {"--cfg-options", "launcher=auto"});
  }
  const absl::StatusOr<std::vector<std::string>> going_on = ArgsToGoOn(ranks);
  if (!going_on.ok()) return Report(going_on.status(), kBadInput);
  options.command = ranks;
  options.command.insert(options.command.begin(), self);
  options.resume_command = *going_on;
  options.resume_command.insert(options.resume_command.begin(), self);
  options.final_exit_codes = {kBadInput, kBadCheckpoint};
  if (command->verb == Verb::kTrain) {
    // Where it began anew, or from elsewhere, what was in the work dir before
    // isn't this run's.
    const RunFolders folders = FoldersOf(*config, io::Dirname(command->config),
                                         ConfigName(command->config));
    const bool goes_on = config->resume() && config->load_from().empty();
    const std::string before = goes_on ? "" : NewestCheckpoint(env, folders);
    options.can_resume = [&env, folders, before] {
      const std::string newest = NewestCheckpoint(env, folders);
      return !newest.empty() && newest != before;
    };
  }
  return Launch(options);
}

int Ckpt(const std::vector<std::string>& args, io::Env& env) {
  // Who only reads or deletes is ended by a signal as any process is.
  if (!MakesFiles(args)) return RunCkpt(args, env, std::cout, std::cerr);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    HandleSignal(signal, &OnSignal);
  }
  InterruptibleEnv stoppable(env, [] { return interrupt.load() != 0; });
  const int exit_code = RunCkpt(args, stoppable, std::cout, std::cerr);
  const int signal = interrupt.load();
  return exit_code == kDone || signal == 0 ? exit_code : 128 + signal;
}

int Main(const std::vector<std::string>& args) {
  // Under `bazel run` the paths that a user types start where the user is.
  const char* const user_dir = getenv("BUILD_WORKING_DIRECTORY");
  if (user_dir != nullptr && chdir(user_dir) != 0) {
    return Report(absl::ErrnoToStatus(errno, user_dir), kBadInput);
  }
  if (!args.empty() && args[0] == "verify-resume") {
    return RunVerifyResume({args.begin() + 1, args.end()});
  }
  const absl::StatusOr<CommandLine> command = ParseCommandLine(args);
  if (!command.ok()) return Report(command.status(), kBadInput);
  if (command->verb == Verb::kHelp) {
    std::cout << kHelp << std::flush;
    return Printed();
  }
  if (command->verb == Verb::kVersion) {
    std::cout << Version() << std::endl;
    return Printed();
  }
  if (command->verb == Verb::kLaunch) return LaunchRanks(command->launch);
  io::Env& env = io::Env::Posix();
  if (command->verb == Verb::kCkpt) {
    return Ckpt(command->ckpt, env);
  }
  const absl::StatusOr<std::string> current_dir = env.CurrentDir();
  if (!current_dir.ok()) return Report(current_dir.status(), kBadInput);
  const absl::StatusOr<runner::v1::RunnerConfig> config =
      ResolveConfig(*command, env, *current_dir);
  if (!config.ok()) {
    return Report(
        config.status(),
        ExitCodeForVerifier(config.status(), ExitCodeAtStart(config.status())));
  }

  if (command->threads.has_value()) at::set_num_threads(*command->threads);
  RunnerOptions options;
  options.base_dir = io::Dirname(command->config);
  options.config_name = ConfigName(command->config);
  options.for_training =
      command->verb != Verb::kTest && command->verb != Verb::kExport;
  options.terminal_fd = STDERR_FILENO;
  options.env = &env;
  if (command->verb == Verb::kCheck || command->verb == Verb::kConfig) {
    return Check(*command, *config, std::move(options));
  }
  options.interrupt = &interrupt;
  options.wait_for_lock = command->wait_for_lock.value_or(absl::ZeroDuration());
  // A test has nothing to save: a signal ends it as it ends any process.
  if (options.for_training) HandleSignals(config->launcher());
  const absl::StatusOr<std::unique_ptr<Runner>> runner =
      Runner::Create(*config, std::move(options));
  if (!runner.ok()) {
    const int signal = interrupt.load();
    return Report(runner.status(),
                  absl::IsCancelled(runner.status()) && signal != 0
                      ? 128 + signal
                      : ExitCodeForVerifier(runner.status(),
                                            ExitCodeAtStart(runner.status())));
  }
  switch (command->verb) {
    case Verb::kTrain:
      return Train(**runner);
    case Verb::kExport:
      return ExitCodeOfRun(
          (*runner)->Export(io::JoinPath(*current_dir, *command->output)));
    default:
      return Test(**runner);
  }
}

}  // namespace
}  // namespace grapnel

int main(int argc, char** argv) {
  grapnel::KeepFreedMemory();
  grapnel::OpenStandardStreams();
  grapnel::InitLogging(argv[0]);
  return grapnel::Main(std::vector<std::string>(argv + 1, argv + argc));
}
