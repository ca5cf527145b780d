// What `grapnel launch` was asked to do.

#ifndef GRAPNEL_TOOLS_LAUNCH_LAUNCH_COMMAND_H_
#define GRAPNEL_TOOLS_LAUNCH_LAUNCH_COMMAND_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "grapnel/tools/launch/launcher.h"

namespace grapnel {

// Fits a terminal of 24 lines by 80 columns.
extern const char kLaunchHelp[];

struct LaunchCommand {
  bool help = false;  // Nothing else was read.
  // All but what ranks run and how they go on.
  LaunchOptions options;
  std::optional<std::string> program;
  // Behind the flags: of `program`, or of grapnel. Not empty without `program`.
  std::vector<std::string> args;
};

// Reads the arguments that follow "launch". Flags may have dashes or
// underscores, and "=" or a space before their value; they end at "--", or at
// the first argument that isn't one. kInvalidArgument names the flag and the
// value.
absl::StatusOr<LaunchCommand> ParseLaunchCommand(
    const std::vector<std::string>& args);

}  // namespace grapnel

#endif  // GRAPNEL_TOOLS_LAUNCH_LAUNCH_COMMAND_H_
