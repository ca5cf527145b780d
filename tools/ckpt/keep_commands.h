// grapnel ckpt gc, pin and repair-last: which checkpoints stay, and where a run
// goes on.

#ifndef GRAPNEL_TOOLS_CKPT_KEEP_COMMANDS_H_
#define GRAPNEL_TOOLS_CKPT_KEEP_COMMANDS_H_

#include <ostream>

#include "absl/status/statusor.h"
#include "grapnel/io/env.h"
#include "grapnel/tools/ckpt/ckpt_command.h"
#include "grapnel/tools/exit_code.h"

namespace grapnel {

// Each does what `command`, of its verb, asks for, and prints it to `out`. An
// error names the path; kAborted, saying who, if a training has the folder.

// kRunFailed if something can't be deleted now.
absl::StatusOr<ExitCode> CollectGarbage(const CkptCommand& command,
                                        io::Env& env, std::ostream& out);
absl::StatusOr<ExitCode> PinCheckpoints(const CkptCommand& command,
                                        io::Env& env, std::ostream& out);

// kBadCheckpoint if there is no good one.
absl::StatusOr<ExitCode> RepairLastCheckpoint(const CkptCommand& command,
                                              io::Env& env, std::ostream& out);

}  // namespace grapnel

#endif  // GRAPNEL_TOOLS_CKPT_KEEP_COMMANDS_H_
