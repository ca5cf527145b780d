// grapnel ckpt verify and diff: whether it is as it should be.

#ifndef GRAPNEL_TOOLS_CKPT_COMPARE_COMMANDS_H_
#define GRAPNEL_TOOLS_CKPT_COMPARE_COMMANDS_H_

#include <ostream>

#include "absl/status/statusor.h"
#include "grapnel/io/env.h"
#include "grapnel/tools/ckpt/ckpt_command.h"
#include "grapnel/tools/exit_code.h"

namespace grapnel {

// Each does what `command`, of its verb, asks for, and prints it to `out`. They
// change nothing. An error names the path.

// kBadCheckpoint if anything is damaged.
absl::StatusOr<ExitCode> VerifyCheckpoints(const CkptCommand& command,
                                           io::Env& env, std::ostream& out);

// kDone if they are equal, kRunFailed if not.
absl::StatusOr<ExitCode> DiffCheckpoints(const CkptCommand& command,
                                         io::Env& env, std::ostream& out);

}  // namespace grapnel

#endif  // GRAPNEL_TOOLS_CKPT_COMPARE_COMMANDS_H_
