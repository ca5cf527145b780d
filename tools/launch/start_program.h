// Starts a program beside this one.

#ifndef GRAPNEL_TOOLS_LAUNCH_START_PROGRAM_H_
#define GRAPNEL_TOOLS_LAUNCH_START_PROGRAM_H_

#include <signal.h>
#include <sys/types.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace grapnel {

// What a process gets back of the signals before it runs its program: those
// that the process which starts it blocks or ignores.
struct SignalState {
  sigset_t mask;
  std::vector<std::pair<int, struct sigaction>> actions;
};

struct ProgramOptions {
  std::vector<std::string> command;      // A path, or a name of PATH's.
  std::vector<std::string> environment;  // NAME=VALUE: all that it has.
  int fds[3] = {0, 1, 2};                // Standard input, output and error.
  bool own_group = false;                // Of processes.
  const SignalState* signals = nullptr;
};

// Returns the process, which the system kills when the calling thread ends and
// which the caller waits for. kFailedPrecondition names the program if it can't
// be run; then nothing is left to wait for.
absl::StatusOr<pid_t> StartProgram(ProgramOptions options);

}  // namespace grapnel

#endif  // GRAPNEL_TOOLS_LAUNCH_START_PROGRAM_H_
