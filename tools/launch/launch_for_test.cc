// grapnel launch without LibTorch, for programs that tests name.

#include <unistd.h>

#include <cstdlib>
#include <iostream>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "grapnel/tools/launch/launch_command.h"
#include "grapnel/tools/launch/launcher.h"

int main(int argc, char** argv) {
  absl::StatusOr<grapnel::LaunchCommand> command = grapnel::ParseLaunchCommand(
      std::vector<std::string>(argv + 1, argv + argc));
  if (!command.ok() || !command->program.has_value()) {
    std::cerr << "grapnel: " << command.status().message() << std::endl;
    return 2;
  }
  grapnel::LaunchOptions& options = command->options;
  options.command = command->args;
  options.command.insert(options.command.begin(), *command->program);
  options.resume_command = options.command;
  options.resume_command.push_back("--resume");
  options.can_resume = [] { return access("checkpoint", F_OK) == 0; };
  options.final_exit_codes = {2, 4};
  for (const auto& [name, field] :
       {std::pair("JOIN_TIMEOUT", &options.join_timeout),
        std::pair("SILENCE_TIMEOUT", &options.silence_timeout)}) {
    const char* const value = getenv(name);
    if (value != nullptr && !absl::ParseDuration(value, field)) return 2;
  }
  return grapnel::Launch(options);
}
