// The interface through which a run is observed and steered.
//
// To add a hook: one folder under hooks/ with its config message, a class that
// derives from Hook, and GRAPNEL_REGISTER_HOOK (runner/hook_registry.h) in a
// grapnel_hook() target. hooks/iter_timer is the folder to imitate.

#ifndef GRAPNEL_RUNNER_HOOK_H_
#define GRAPNEL_RUNNER_HOOK_H_

#include <cstdint>
#include <string>
#include <type_traits>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "grapnel/models/metric_value.h"
#include "grapnel/runner/mode.h"
#include "grapnel/runner/run_context.h"
#include "grapnel/runner/stage.h"

namespace google {
namespace protobuf {
class Message;
}  // namespace protobuf
}  // namespace google

namespace grapnel {

class LogVars;
class TensorMap;
struct Batch;
struct Predictions;
struct StepResult;

namespace io {
struct CheckpointContents;
}  // namespace io

// Order of hooks at a mount point: lower runs first, equals in the order of
// their registration. Any number in 0..100; these have names.
enum class Priority : int {
  kHighest = 0,
  kVeryHigh = 10,
  kHigh = 30,
  kAboveNormal = 40,
  kNormal = 50,
  kBelowNormal = 60,
  kLow = 70,
  kVeryLow = 90,
  kLowest = 100,
};

// One iteration of a loop.
struct IterInfo {
  int64_t batch_idx = 0;    // 0-based; iteration-based training: the iteration.
  int64_t num_batches = 0;  // Of the loop's data, in one pass; 0 of a stream.
  const Batch* batch = nullptr;  // Never null.

  bool end_of_epoch() const { return batch_idx + 1 == num_batches; }
};

// A checkpoint that is on the disk.
struct SavedCheckpoint {
  int64_t id = 0;        // What RunContext::RequestSave gave.
  std::string name;      // "epoch_5"
  std::string path;      // work_dir/epoch_5, or elsewhere: SaveRequest::dir
  bool is_last = false;  // work_dir/last_checkpoint names it now.
};

// Code that runs at fixed points of a run: see stage.h for when.
//
// A subclass overrides the points it cares for; only those are called. An error
// returned from one ends the runner's call with that error, with the hook's
// name and the point in front. If Train() is called again, it goes on from
// there: what was done isn't done twice, and of AfterTrainIter,
// AfterTrainEpoch, AfterValEpoch, AfterVal and AfterTrain it calls only the
// hooks that were still to come. All calls come from the thread that called the
// runner, one after the other, so a hook needs no locks for its own members.
//
// A hook that overrides a generic point (BeforeEpoch, AfterEpoch, BeforeIter,
// AfterIter) runs there in every mode; overriding the point of one mode as well
// replaces it in that mode.
class Hook {
 public:
  virtual ~Hook() = default;

  // Unique among the hooks of a run, and stable: it keys the hook's state in
  // checkpoints. Lower snake case.
  virtual absl::string_view name() const = 0;

  virtual Priority priority() const { return Priority::kNormal; }

  // What the hook must remember across a restart: a message, null if there is
  // none, and tensors by name, which share the hook's storage. The runner saves
  // both in every checkpoint. On resume it parses the message and copies the
  // tensors back right after AfterLoadCheckpoint.
  //
  // A validation in training that is cut short, by an interrupt or an error, is
  // repeated later, so the runner puts the message and the bytes of SaveState
  // back to what they were before. It does so with the tensors too, unless the
  // hook overrides OnError: then the hook puts them back there itself.
  virtual google::protobuf::Message* mutable_state() { return nullptr; }
  virtual absl::Status state_tensors(TensorMap*) { return absl::OkStatus(); }

  // The same for what is no message, or can fail: bytes of the hook's own
  // making. LoadState gets them back after message and tensors are there, and
  // "" if the checkpoint has none of this hook; it is also the place to check
  // those two. Both are called for a validation in training too, which is taken
  // back if it is cut short, and for an evaluation between two steps. An error
  // is that of the save, the resume or the evaluation.
  virtual absl::Status SaveState(std::string* /*bytes*/) {
    return absl::OkStatus();
  }
  virtual absl::Status LoadState(const std::string& /*bytes*/) {
    return absl::OkStatus();
  }

  // The weights that evaluations see in place of the model's own, of a hook
  // that lends it others then, as hooks/ema does: all of its parameters and
  // buffers by name, as they are now, also while they are lent. They may share
  // the run's storage. Such a hook saves them in a section of its own name.
  // Adds nothing if there are none; not called before BeforeRun.
  virtual absl::Status evaluated_weights(TensorMap*) {
    return absl::OkStatus();
  }

  // Once per runner, when model, data and optimizer are there, before anything
  // else: look up what the other points need.
  virtual absl::Status Setup(RunContext&) { return absl::OkStatus(); }

  virtual absl::Status BeforeRun(RunContext&) { return absl::OkStatus(); }
  // Also called after an error or an interrupt, after OnError, and if another
  // hook's AfterRun failed: the first error is the one that counts.
  virtual absl::Status AfterRun(RunContext&) { return absl::OkStatus(); }

  // Before the run takes anything from the checkpoint: it gets what the hooks
  // leave in it.
  virtual absl::Status AfterLoadCheckpoint(RunContext&,
                                           io::CheckpointContents&) {
    return absl::OkStatus();
  }

  // The run has taken all that it wants of the checkpoint: weights, counters
  // and hooks' states, or, with load_from, the model's weights alone. Once for
  // each AfterLoadCheckpoint that came to something, and never where nothing is
  // loaded. The contents are gone afterwards. An error leaves a run that is
  // half restored: the runner is of no use any more.
  virtual absl::Status AfterRestore(RunContext&,
                                    const io::CheckpointContents&) {
    return absl::OkStatus();
  }

  // The checkpoint is complete, and is written as the hooks leave it.
  virtual absl::Status BeforeSaveCheckpoint(RunContext&,
                                            io::CheckpointContents&) {
    return absl::OkStatus();
  }
  virtual absl::Status AfterSaveCheckpoint(RunContext&,
                                           const SavedCheckpoint&) {
    return absl::OkStatus();
  }

  virtual absl::Status BeforeTrain(RunContext&) { return absl::OkStatus(); }
  virtual absl::Status AfterTrain(RunContext&) { return absl::OkStatus(); }
  virtual absl::Status BeforeTrainEpoch(RunContext& run) {
    return BeforeEpoch(run, Mode::kTrain);
  }
  virtual absl::Status AfterTrainEpoch(RunContext& run) {
    return AfterEpoch(run, Mode::kTrain);
  }
  virtual absl::Status BeforeTrainIter(RunContext& run, const IterInfo& info) {
    return BeforeIter(run, Mode::kTrain, info);
  }
  // log_vars: what the model's training step gave to log, still as tensors.
  virtual absl::Status AfterTrainIter(RunContext& run, const IterInfo& info,
                                      const LogVars& log_vars) {
    return AfterIter(run, Mode::kTrain, info);
  }

  // Gradients are complete and not yet clipped.
  virtual absl::Status BeforeOptimizerStep(RunContext&) {
    return absl::OkStatus();
  }
  // An error ends the run once Model::TrainStep has returned: the step is made.
  virtual absl::Status AfterOptimizerStep(RunContext&, const StepResult&) {
    return absl::OkStatus();
  }

  virtual absl::Status BeforeVal(RunContext&) { return absl::OkStatus(); }
  virtual absl::Status AfterVal(RunContext&) { return absl::OkStatus(); }
  virtual absl::Status BeforeValEpoch(RunContext& run) {
    return BeforeEpoch(run, Mode::kVal);
  }
  virtual absl::Status AfterValEpoch(RunContext& run, const Metrics&) {
    return AfterEpoch(run, Mode::kVal);
  }
  virtual absl::Status BeforeValIter(RunContext& run, const IterInfo& info) {
    return BeforeIter(run, Mode::kVal, info);
  }
  virtual absl::Status AfterValIter(RunContext& run, const IterInfo& info,
                                    const Predictions&) {
    return AfterIter(run, Mode::kVal, info);
  }

  virtual absl::Status BeforeTest(RunContext&) { return absl::OkStatus(); }
  virtual absl::Status AfterTest(RunContext&) { return absl::OkStatus(); }
  virtual absl::Status BeforeTestEpoch(RunContext& run) {
    return BeforeEpoch(run, Mode::kTest);
  }
  virtual absl::Status AfterTestEpoch(RunContext& run, const Metrics&) {
    return AfterEpoch(run, Mode::kTest);
  }
  virtual absl::Status BeforeTestIter(RunContext& run, const IterInfo& info) {
    return BeforeIter(run, Mode::kTest, info);
  }
  virtual absl::Status AfterTestIter(RunContext& run, const IterInfo& info,
                                     const Predictions&) {
    return AfterIter(run, Mode::kTest, info);
  }

  // Before and after the model is written to a file of its own format. Users of
  // the file get what the model holds in between.
  virtual absl::Status BeforeExport(RunContext&) { return absl::OkStatus(); }
  virtual absl::Status AfterExport(RunContext&) { return absl::OkStatus(); }

  // The run failed with `error`, which cannot be changed. Called for every
  // hook. kCancelled: it was interrupted, stopped at once, or its deadline is
  // past.
  virtual void OnError(RunContext&, const absl::Status& error) {}

  // Generic points, for all modes.
  virtual absl::Status BeforeEpoch(RunContext&, Mode) {
    return absl::OkStatus();
  }
  virtual absl::Status AfterEpoch(RunContext&, Mode) {
    return absl::OkStatus();
  }
  virtual absl::Status BeforeIter(RunContext&, Mode, const IterInfo&) {
    return absl::OkStatus();
  }
  virtual absl::Status AfterIter(RunContext&, Mode, const IterInfo&) {
    return absl::OkStatus();
  }
};

// A mount point: its stage, and the function of Hook that is called there.
template <typename F>
struct MountPoint {
  Stage stage;
  F call;
};

// points::kBeforeTrain and all the others.
namespace points {
#define GRAPNEL_MOUNT_POINT(point, snake_name, generic)            \
  inline constexpr MountPoint<decltype(&Hook::point)> k##point = { \
      Stage::k##point, &Hook::point};
GRAPNEL_FOR_EACH_STAGE(GRAPNEL_MOUNT_POINT)
#undef GRAPNEL_MOUNT_POINT
}  // namespace points

namespace internal_hook {

// The class that declares a member function, and its parameters and result.
template <typename F>
struct Member;
template <typename R, typename C, typename... A>
struct Member<R (C::*)(A...)> {
  using Class = C;
  using Signature = R(A...);
};
template <typename R, typename C, typename... A>
struct Member<R (C::*)(A...) noexcept> : Member<R (C::*)(A...)> {};

template <typename F, typename Base>
inline constexpr bool kSameSignature =
    std::is_same_v<typename Member<F>::Signature,
                   typename Member<Base>::Signature>;

// True if the point was overridden: it is then a member of another class than
// Hook.
template <typename F, typename Base>
constexpr bool Overridden(F, Base) {
  static_assert(kSameSignature<F, Base>,
                "a function with a mount point's name has other parameters: "
                "nothing would call it");
  return !std::is_same_v<typename Member<F>::Class, Hook>;
}

}  // namespace internal_hook

// The mount points where an H does anything, known at compile time. The points
// that H overrides must be public.
template <typename H>
constexpr StageMask OverriddenStages() {
  using internal_hook::Overridden;
  StageMask mask;
#define GRAPNEL_ADD_STAGE(point, snake_name, generic) \
  if (Overridden(&H::point, &Hook::point) ||          \
      Overridden(&H::generic, &Hook::generic)) {      \
    mask.Add(Stage::k##point);                        \
  }
  GRAPNEL_FOR_EACH_STAGE(GRAPNEL_ADD_STAGE)
#undef GRAPNEL_ADD_STAGE
  return mask;
}

}  // namespace grapnel

#endif  // GRAPNEL_RUNNER_HOOK_H_
