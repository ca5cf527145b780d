// A checkpoint once more, as one file for other programs.

#ifndef GRAPNEL_HOOKS_CHECKPOINT_CHECKPOINT_COPY_H_
#define GRAPNEL_HOOKS_CHECKPOINT_CHECKPOINT_COPY_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/env.h"

namespace grapnel {

// Writes what is at `checkpoint` to the file beside it,
// "<checkpoint>.<format>", which goes when it goes (io/run_checkpoints.h).
// `format` is one of also_write in checkpoint_hook.proto. What the format has
// no place for is added to `*warnings`, not null. After an error there is no
// new file, and one of before stands. kAlreadyExists if there is a file of that
// name that was not made so: it stays.
absl::Status WriteCheckpointCopy(io::Env& env, const std::string& checkpoint,
                                 const std::string& format,
                                 const io::CheckpointContents& contents,
                                 std::vector<std::string>* warnings);

}  // namespace grapnel

#endif  // GRAPNEL_HOOKS_CHECKPOINT_CHECKPOINT_COPY_H_
