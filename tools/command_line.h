// What the grapnel command was asked to do.

#ifndef GRAPNEL_TOOLS_COMMAND_LINE_H_
#define GRAPNEL_TOOLS_COMMAND_LINE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "grapnel/models/metric.h"
#include "grapnel/tools/exit_code.h"

namespace grapnel::runner::v1 {
class RunnerConfig;
}  // namespace grapnel::runner::v1

namespace grapnel {

namespace io {
class Env;
}  // namespace io

// Fits a terminal of 24 lines by 80 columns.
extern const char kHelp[];

struct CommandLine {
  enum class Verb {
    kTrain,
    kTest,
    kExport,
    kCheck,
    kConfig,
    kLaunch,
    kCkpt,
    kHelp,
    kVersion
  };

  Verb verb = Verb::kHelp;
  std::string config;  // Path. Set for all but launch, ckpt, help and version.
  std::vector<std::string> launch;  // What follows launch, which comes first.
  std::vector<std::string> ckpt;    // The same of ckpt.
  std::optional<std::string> work_dir;
  std::optional<bool> resume;
  std::optional<std::string> load_from;  // Of --load-from, or of --resume=PATH.
  std::vector<std::string> cfg_options;  // In their order.
  std::optional<std::string> output;     // Set for export, and only there.
  std::optional<std::string> device;
  std::optional<int64_t> seed;
  std::optional<int> threads;
  std::optional<absl::Duration> wait_for_lock;  // >= 0. For train alone.
  std::optional<bool> strict;                   // False for --no-strict.
};

// Reads the arguments that follow the program's name. Flags may stand anywhere,
// with dashes or underscores, and with "=" or a space before their value.
// kInvalidArgument names the argument, or its number if it isn't UTF-8.
absl::StatusOr<CommandLine> ParseCommandLine(
    const std::vector<std::string>& args);

// Names of the flags that it reads: "seed".
std::vector<std::string> FlagNames();

// `args`, which ParseCommandLine reads, to go on from the newest checkpoint in
// the work dir, whatever they begin with.
absl::StatusOr<std::vector<std::string>> ArgsToGoOn(
    const std::vector<std::string>& args);

// The configuration that `command` means: its file, then --cfg-options, then
// the other flags. Paths on the command line, and the default work_dir, start
// at `current_dir`, those in the file at its folder; they come out absolute if
// `current_dir` is, so that the result is the same run from anywhere. For test
// and export, says which checkpoint is meant: the one that was named, else the
// newest in work_dir, else the file's load_from; it's kNotFound if there is
// none. The file's load_options are for that load_from alone.
absl::StatusOr<runner::v1::RunnerConfig> ResolveConfig(
    const CommandLine& command, io::Env& env, absl::string_view current_dir);

// For an error of ParseCommandLine, ResolveConfig, Runner::Create or
// Rehearsal::Create, when nothing was trained yet.
ExitCode ExitCodeAtStart(const absl::Status& status);

// For an error of a Runner's Train, Test or Export, or of a Rehearsal's Run.
ExitCode ExitCodeOfRun(const absl::Status& status);

// One JSON object in one line; numbers with full precision, NaN and infinities
// as null.
std::string MetricsToJson(const Metrics& metrics);

}  // namespace grapnel

#endif  // GRAPNEL_TOOLS_COMMAND_LINE_H_
