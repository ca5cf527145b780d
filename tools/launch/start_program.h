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
  // A path, or a name in the PATH of this process, and the arguments.
  std::vector<std::string> command;
  std::vector<std::string> environment;  // NAME=VALUE: all that it has.
  // Standard input, output and error: each above 2, or its own number and not
  // O_CLOEXEC.
  int fds[3] = {0, 1, 2};
  bool own_group = false;                // Of processes.
  const SignalState* signals = nullptr;  // Null: this process's.
};

// Returns the process, which the system kills when the calling thread ends and
// which the caller waits for. Errors name the program, and nothing is left to
// wait for then: kFailedPrecondition if it isn't there, or is none that may be
// run; others are the system's, which has no process to give, for example.
absl::StatusOr<pid_t> StartProgram(ProgramOptions options);

}  // namespace grapnel

#endif  // GRAPNEL_TOOLS_LAUNCH_START_PROGRAM_H_
