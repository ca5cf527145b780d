// Checkpoints of a training loop that somebody has written by hand, without a
// Runner. examples/hand_written_loop is such a loop.
//
// Example:
//
//   io::Env& env = io::Env::Posix();
//   torch::nn::Linear net(3, 1);
//   auto adamw = std::make_shared<torch::optim::AdamW>(net->parameters());
//   GRAPNEL_ASSIGN_OR_RETURN(
//       const std::unique_ptr<Optimizer> optimizer,
//       WrapTorchOptimizer(adamw, NamedParameters(*net)));
//   LoopParts loop;
//   loop.parameters = NamedParameters(*net);
//   loop.optimizer = optimizer.get();
//   net(torch::rand({8, 3})).square().mean().backward();
//   adamw->step();
//   GRAPNEL_ASSIGN_OR_RETURN(io::CheckpointContents contents,
//                            CaptureLoop(loop, /*iter=*/1, /*max_iters=*/9));
//   GRAPNEL_RETURN_IF_ERROR(
//       io::WriteCheckpoint(env, "work_dir", "iter_1", contents));
//
//   // In the next process, with a net and an optimizer as new:
//   GRAPNEL_ASSIGN_OR_RETURN(contents,
//                            io::ReadCheckpoint(env, "work_dir/iter_1"));
//   std::vector<std::string> warnings;
//   GRAPNEL_ASSIGN_OR_RETURN(
//       const int64_t iter,
//       RestoreLoop(contents, loop, /*max_iters=*/9, &warnings));
//   GRAPNEL_RET_CHECK(iter == 1 && warnings.empty());

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
