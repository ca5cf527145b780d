// From a loss to changed parameters.

#ifndef GRAPNEL_OPTIM_OPTIM_WRAPPER_H_
#define GRAPNEL_OPTIM_OPTIM_WRAPPER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/optim/optim_wrapper.pb.h"
#include "grapnel/optim/optimizer.h"

namespace grapnel {

// What an optimizer step came to.
struct StepResult {
  bool stepped = false;  // False if the step was skipped.

  // Norm of all gradients before clipping, a scalar tensor that nobody has
  // waited for; undefined unless clip_grad is set to clip by norm.
  at::Tensor grad_norm;

  double scale = 1;  // The loss was multiplied by this.
};

// Hears of the optimizer's steps. The runner turns them into hooks' mount
// points; optim/ knows no hooks.
class StepObserver {
 public:
  virtual ~StepObserver() = default;
  virtual absl::Status BeforeOptimizerStep() = 0;
  virtual absl::Status AfterOptimizerStep(const StepResult& result) = 0;
};

// Accumulates gradients, clips them, steps the optimizer and counts.
//
// With accumulative_counts: n, every n-th Update steps. The loss is divided by
// the number of Updates in its window, which is n but for the last window of
// the run, which holds what is left (parity.md 5.8). Windows go across epochs.
// The half-filled window is part of the state, gradients included. A run that
// is resumed with another length goes on from the last step: with whole
// windows, up to its own last one.
//
// Thread-compatible.
class OptimWrapper {
 public:
  // `params` are the model's parameters with their names; those that don't
  // require a gradient are left out. paramwise_cfg makes the groups. Errors
  // name the field: "optimizer: adamw: lr: must be finite and >= 0, is -1".
  static absl::StatusOr<std::unique_ptr<OptimWrapper>> Create(
      const optim::v1::OptimWrapperConfig& config,
      const std::vector<NamedTensor>& params);

  // Around an optimizer made by the caller; `config.optimizer` must be unset.
  static absl::StatusOr<std::unique_ptr<OptimWrapper>> Create(
      const optim::v1::OptimWrapperConfig& config,
      std::unique_ptr<Optimizer> optimizer);

  virtual ~OptimWrapper() = default;

  // Drops the gradients of a step that was made. Model::TrainStep calls it
  // before its forward pass, so that they are gone when activations need the
  // memory; if nobody does, Update does. Until then hooks may look at them.
  virtual void BeginStep() = 0;

  // Backward and, if due: the observer's BeforeOptimizerStep, clip, step,
  // AfterOptimizerStep. `loss`: a floating tensor of one element that
  // autograd knows; kInvalidArgument if it isn't. Other errors: what LibTorch's
  // backward or the observer gives, kFailedPrecondition for error_if_nonfinite:
  // the gradients are then there unclipped, and the Update doesn't count.
  virtual absl::Status Update(const at::Tensor& loss) = 0;

  // Sets where the run is: `iter` Updates are done of `max_iters`, which is -1
  // if it isn't known. Called before training, and before LoadState, which
  // alone knows where the last step was: without it windows start at multiples
  // of accumulative_counts.
  virtual void InitializeCounts(int64_t iter, int64_t max_iters) = 0;

  // Not owned; null for none.
  virtual void set_step_observer(StepObserver* observer) = 0;

  virtual Optimizer& optimizer() = 0;
  const Optimizer& optimizer() const {
    return const_cast<OptimWrapper*>(this)->optimizer();
  }

  // The groups that schedulers move: the optimizer's and, if it has more than
  // one, a last one that has the configured options and no parameters, so that
  // the log can show the rate without any group's multiplier. An optimizer made
  // by the caller has no such last group: what it was configured with isn't
  // known.
  virtual ParamGroups& scheduled_groups() = 0;

  // Rates to log, by name: "lr" of the first group, and "base_lr" before it if
  // there is a base group. Pointers as ParamGroups::option's. Stable.
  virtual const std::vector<std::pair<std::string, const double*>>& logged_lrs()
      const = 0;

  // Updates (calls) since the last step, or since gradients were dropped.
  virtual int64_t accumulated() const = 0;
  virtual int64_t accumulative_counts() const = 0;

  // Multiplies every group's "lr", the base group's too, by `factor`, finite
  // and > 0: automatic scaling by batch size. Before schedulers are made.
  // kFailedPrecondition after the first Update or LoadState.
  virtual absl::Status ScaleLr(double factor) = 0;

  // State: the optimizer's, the counters, the base group, and the gradients of
  // a half-filled window, named by parameter, in `*gradients`. SaveState shares
  // the storage of what goes on changing. LoadState on a half-filled window of
  // another accumulative_counts drops its gradients with a warning; on an error
  // nothing was changed.
  virtual absl::Status SaveState(optim::v1::OptimWrapperState* state,
                                 TensorMap* optimizer_tensors,
                                 TensorMap* gradients) const = 0;
  virtual absl::Status LoadState(const optim::v1::OptimWrapperState& state,
                                 const TensorMap& optimizer_tensors,
                                 const TensorMap& gradients) = 0;
};

}  // namespace grapnel

#endif  // GRAPNEL_OPTIM_OPTIM_WRAPPER_H_
