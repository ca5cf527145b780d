// grapnel ckpt: looks after checkpoints.

#ifndef GRAPNEL_TOOLS_CKPT_CKPT_H_
#define GRAPNEL_TOOLS_CKPT_CKPT_H_

#include <ostream>
#include <string>
#include <vector>

#include "grapnel/io/env.h"
#include "grapnel/tools/exit_code.h"

namespace grapnel {

// Whether `args`, which follow "ckpt", are of a command that makes a file or a
// directory: of these an InterruptibleEnv leaves nothing half-made.
bool MakesFiles(const std::vector<std::string>& args);

// Does what `args` ask for. Results go to `out`, an error goes to `err`, in one
// line. kRunFailed if `out` doesn't take them all, or `env` was interrupted.
ExitCode RunCkpt(const std::vector<std::string>& args, io::Env& env,
                 std::ostream& out, std::ostream& err);

}  // namespace grapnel

#endif  // GRAPNEL_TOOLS_CKPT_CKPT_H_
