// grapnel ckpt export, import and average: weights out, in, and together.

#ifndef GRAPNEL_TOOLS_CKPT_CONVERT_COMMANDS_H_
#define GRAPNEL_TOOLS_CKPT_CONVERT_COMMANDS_H_

#include <ostream>

#include "absl/status/statusor.h"
#include "grapnel/io/env.h"
#include "grapnel/tools/ckpt/ckpt_command.h"
#include "grapnel/tools/exit_code.h"

namespace grapnel {

// Each does what `command`, of its verb, asks for, and prints it to `out`. What
// is written comes into being as a whole or, after an error, not at all;
// nothing is replaced. An error names the path.
absl::StatusOr<ExitCode> ExportWeights(const CkptCommand& command, io::Env& env,
                                       std::ostream& out);
absl::StatusOr<ExitCode> ImportWeights(const CkptCommand& command, io::Env& env,
                                       std::ostream& out);
absl::StatusOr<ExitCode> AverageCheckpoints(const CkptCommand& command,
                                            io::Env& env, std::ostream& out);

}  // namespace grapnel

#endif  // GRAPNEL_TOOLS_CKPT_CONVERT_COMMANDS_H_
