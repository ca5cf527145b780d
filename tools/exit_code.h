// What the grapnel command returns.

#ifndef GRAPNEL_TOOLS_EXIT_CODE_H_
#define GRAPNEL_TOOLS_EXIT_CODE_H_

namespace grapnel {

// What a process that ran a command returns. A signal's is 128 and its number.
enum ExitCode : int {
  kDone = 0,       // Also: stopped by a hook, as configured.
  kRunFailed = 1,  // Also: ckpt diff or verify-resume found a difference.
  kBadInput = 2,   // Command line, configuration, data files or work dir.
  kBadData = 3,    // A sample could not be read while the run was going on.
  kBadCheckpoint = 4,
  // By verify-resume: the machine failed it, or the run fails anyway. Of its
  // runs: the machine failed it.
  kNotTested = 5,
};

}  // namespace grapnel

#endif  // GRAPNEL_TOOLS_EXIT_CODE_H_
