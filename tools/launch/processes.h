// Processes below this one.

#ifndef GRAPNEL_TOOLS_LAUNCH_PROCESSES_H_
#define GRAPNEL_TOOLS_LAUNCH_PROCESSES_H_

#include <sys/types.h>

#include <string>
#include <vector>

#include "absl/time/time.h"

namespace grapnel {

// Those whose parent this process is, also those that ended and were not waited
// for.
std::vector<pid_t> Children();

// Kills the children of this process, and theirs, which it has to adopt
// (PR_SET_CHILD_SUBREAPER), until there are none but `spared`; waits for them.
// Returns those that are still there after `timeout`: the system couldn't end
// them.
std::vector<pid_t> KillDescendants(const std::vector<pid_t>& spared,
                                   absl::Duration timeout);

// Of what waitpid reports: the code, or 128 and the number of the signal.
int ExitCodeOfStatus(int wait_status);

// "failed with exit code 3", "was killed by signal 9 (Killed)".
std::string HowItEnded(int wait_status);

}  // namespace grapnel

#endif  // GRAPNEL_TOOLS_LAUNCH_PROCESSES_H_
