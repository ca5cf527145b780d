// Between a run's parts and a checkpoint's contents.
//
//   section "model"      parameters and buffers, named as in the model
//   section "optimizer"  slots, "<parameter>/<slot>"; may be left out
//   section "gradients"  of a half-filled accumulation window, by parameter;
//                        here and in "optimizer", of several optimizers,
//                        "<optimizer>/" comes first; here, of several ranks,
//                        "rank_<rank>/" before that
//   section "hooks"      tensors of hooks, "<hook>/<tensor>"
//   section "rank_buffers"  of other ranks than the first; see rank_buffers.h
//   section "ema", ...   averages of the model, as hooks/ema adds them
//   blob "state"         grapnel.runner.v1.RunState

#ifndef GRAPNEL_RUNNER_RUN_CHECKPOINT_H_
#define GRAPNEL_RUNNER_RUN_CHECKPOINT_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "grapnel/dist/process_group.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/models/model.h"
#include "grapnel/optim/optim_wrapper.h"
#include "grapnel/optim/param_scheduler.h"
#include "grapnel/optim/schedulers/scheduler_replay.h"
#include "grapnel/runner/hook_list.h"
#include "grapnel/runner/message_hub.h"
#include "grapnel/runner/run_generators.h"

namespace grapnel::runner::v1 {
class DataPosition;
class RunState;
}  // namespace grapnel::runner::v1

namespace grapnel {

// Not owned; none is null, but that what CaptureRun is to leave out may be
// missing: optim_wrapper and param_schedulers.
struct RunParts {
  Model* model;
  OptimWrapper* optim_wrapper;
  absl::Span<const std::unique_ptr<ParamScheduler>> param_schedulers;
  MessageHub* message_hub;
  const HookList* hooks;
  RunGenerators generators;
  ProcessGroup* group;
};

// Everything that changes as the run goes on, the generators included. Tensors
// share storage with the run: write them before it goes on. The manifest is the
// caller's to fill in. kInvalidArgument, naming it, for state that ReadRunState
// couldn't read back. A collective: rank 0 has the gradients of all, and the
// others have none.
absl::StatusOr<io::CheckpointContents> CaptureRun(
    const RunParts& parts, int64_t seed, const runner::v1::DataPosition& data);

absl::StatusOr<runner::v1::RunState> ReadRunState(
    const io::CheckpointContents& contents);

// Rank 0's Hook::mutable_state of each hook, on every rank: what a hook found
// in files that only rank 0 sees. A collective; with one rank it does nothing.
absl::Status ShareHookStates(ProcessGroup& group, const HookList& hooks);

// Puts everything back, the generators last. `point`: where the run goes on.
// What the checkpoint and the run don't have in common, other than weights, is
// left and named in `*warnings`, and so is what is configured otherwise;
// weights must be the same set. Weights are checked before anything is changed.
absl::Status RestoreRun(const io::CheckpointContents& contents,
                        const runner::v1::RunState& state,
                        const RunParts& parts, const ResumePoint& point,
                        std::vector<std::string>* warnings);

}  // namespace grapnel

#endif  // GRAPNEL_RUNNER_RUN_CHECKPOINT_H_
