// Checkpoints of a training loop that somebody has written by hand, without a
// Runner. examples/hand_written_loop is such a loop.

#ifndef GRAPNEL_RUNNER_LOOP_CHECKPOINT_H_
#define GRAPNEL_RUNNER_LOOP_CHECKPOINT_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/optim/param_scheduler.h"

namespace grapnel {

class AveragedModel;
class Optimizer;

// What the next iterations depend on, besides LibTorch's default generator.
// Nothing is owned; what the loop doesn't have is left out.
struct LoopParts {
  std::vector<NamedTensor> parameters, buffers;
  Optimizer* optimizer = nullptr;
  absl::Span<const std::unique_ptr<ParamScheduler>> schedulers;
  AveragedModel* average = nullptr;
};

// All of it, and the generator's state, after `iter` iterations of `max_iters`.
// Tensors share storage with the loop: write them before it goes on. The rest
// of the manifest is the caller's to fill in. kInvalidArgument, naming the
// field, for names that aren't UTF-8: they could not be read back.
absl::StatusOr<io::CheckpointContents> CaptureLoop(const LoopParts& parts,
                                                   int64_t iter,
                                                   int64_t max_iters);

// Puts everything back, and returns how many iterations are done. Where
// schedules are others than they were, or the run another length, the rates are
// what they would be had they been so from the beginning: `*warnings`, not
// null, says so. kInvalidArgument, and nothing has changed, for a checkpoint of
// something else or of another model; other errors leave the loop half
// restored.
absl::StatusOr<int64_t> RestoreLoop(const io::CheckpointContents& contents,
                                    const LoopParts& parts, int64_t max_iters,
                                    std::vector<std::string>* warnings);

}  // namespace grapnel

#endif  // GRAPNEL_RUNNER_LOOP_CHECKPOINT_H_
