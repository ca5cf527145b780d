// grapnel ckpt export --training and import --training: a whole training, to
// Python and from there.

#ifndef GRAPNEL_TOOLS_CKPT_TRAINING_COMMANDS_H_
#define GRAPNEL_TOOLS_CKPT_TRAINING_COMMANDS_H_

#include <ostream>

#include "absl/status/statusor.h"
#include "grapnel/io/env.h"
#include "grapnel/tools/ckpt/ckpt_command.h"
#include "grapnel/tools/exit_code.h"

namespace grapnel {

// Each does what `command`, of its verb, asks for, and prints it to `out`, with
// what could not be taken along. What is written comes into being as a whole
// or, after an error, not at all; nothing is replaced. An error names the path.
absl::StatusOr<ExitCode> ExportTraining(const CkptCommand& command,
                                        io::Env& env, std::ostream& out);
absl::StatusOr<ExitCode> ImportTraining(const CkptCommand& command,
                                        io::Env& env, std::ostream& out);

}  // namespace grapnel

#endif  // GRAPNEL_TOOLS_CKPT_TRAINING_COMMANDS_H_
