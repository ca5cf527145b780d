// grapnel ckpt ls, show and du: what is there.

#ifndef GRAPNEL_TOOLS_CKPT_INSPECT_COMMANDS_H_
#define GRAPNEL_TOOLS_CKPT_INSPECT_COMMANDS_H_

#include <ostream>

#include "absl/status/statusor.h"
#include "grapnel/io/env.h"
#include "grapnel/tools/ckpt/ckpt_command.h"
#include "grapnel/tools/exit_code.h"

namespace grapnel {

// Each does what `command`, of its verb, asks for, and prints it to `out`. They
// change nothing. Returns the exit code; an error names the path.
absl::StatusOr<ExitCode> ListCheckpoints(const CkptCommand& command,
                                         io::Env& env, std::ostream& out);
absl::StatusOr<ExitCode> ShowCheckpoint(const CkptCommand& command,
                                        io::Env& env, std::ostream& out);
absl::StatusOr<ExitCode> ShowDiskUse(const CkptCommand& command, io::Env& env,
                                     std::ostream& out);

}  // namespace grapnel

#endif  // GRAPNEL_TOOLS_CKPT_INSPECT_COMMANDS_H_
