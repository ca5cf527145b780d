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
#include "absl/strings/string_view.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/optim/autocast.h"
#include "grapnel/optim/optimizer.h"
#include "grapnel/optim/param_groups.h"

namespace grapnel::optim::v1 {
class OptimWrapperConfig;
class OptimWrapperState;
}  // namespace grapnel::optim::v1

namespace grapnel {

class GradientReducer;

// What an optimizer step came to.
struct StepResult {
  // False if the step was left out: by SkipStep, because the gradients of a
  // scaled loss were infinite or NaN, or because nothing in its window counts.
  // With a fixed loss scale on a device it may be true even if they were: then
  // nobody has waited for it, and the device leaves the weights as they are.
  bool stepped = false;

  // Norm of all gradients before clipping, a scalar tensor that nobody has
  // waited for; undefined unless clip_grad is set to clip by norm and the step
  // was made.
  at::Tensor grad_norm;

  double scale = 1;  // The loss was multiplied by this.

  int optimizer = 0;  // Which of several, by its place in the config.
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
// the run, which holds what is left, as in MMEngine. Windows go across epochs.
// The half-filled window is part of the state, gradients included. A run that
// is resumed with another length, or other windows, goes on with the one that
// was half filled; if that holds as many already, its next Update ends it. With
// accumulate_by: SAMPLES the mean is over the samples of the window instead,
// however the batches cut them up: means count by their weights.
//
// With amp, FLOAT16, the loss is scaled on its way back and the gradients are
// unscaled before anybody looks at them: a BeforeOptimizerStep, clip_grad.
//
// Several optimizers are one OptimWrapper, whose Get has that of each.
//
// Thread-compatible.
//
// Example:
//
//   torch::nn::Linear net(3, 1);
//   optim::v1::OptimWrapperConfig config;
//   // Of //optim/optimizers:sgd.
//   config.mutable_optimizer()->mutable_sgd()->set_lr(0.1);
//   config.mutable_clip_grad()->set_max_norm(1);
//   config.set_accumulative_counts(2);
//   GRAPNEL_ASSIGN_OR_RETURN(
//       const std::unique_ptr<OptimWrapper> optimizer,
//       OptimWrapper::Create(config, NamedParameters(*net)));
//   for (int i = 0; i < 4; ++i) {  // Two steps.
//     const at::Tensor loss = net(torch::rand({8, 3})).square().mean();
//     GRAPNEL_RETURN_IF_ERROR(optimizer->Update(loss));
//   }
class OptimWrapper {
 public:
  // `params` are the model's parameters with their names; those that don't
  // require a gradient are left out. paramwise_cfg makes the groups. Errors
  // name the field: "optimizer: adamw: lr: must be finite and >= 0, is -1".
  // Schedules in the config are for the caller to make.
  static absl::StatusOr<std::unique_ptr<OptimWrapper>> Create(
      const optim::v1::OptimWrapperConfig& config,
      const std::vector<NamedTensor>& params);

  // Around an optimizer made by the caller; `config.optimizer` and
  // `config.optimizers` must be unset.
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
  // autograd knows; kInvalidArgument, and nothing was done, if it isn't.
  // kFailedPrecondition for error_if_nonfinite, and for several optimizers,
  // which are updated one by one. Other errors: what LibTorch's backward or the
  // observer gives. If it comes before the step is made, the Update doesn't
  // count: the window's gradients are there to be looked at, unclipped, until
  // the next BeginStep or Update, which begins a new window.
  //
  // `weight`: what `loss` was divided by to be a mean, the number of samples or
  // whatever the model counts by; finite and >= 0 with accumulate_by: SAMPLES,
  // else not looked at. With 0 nothing goes backward, and a window of
  // only those is left out as by SkipStep, without a BeforeOptimizerStep.
  virtual absl::Status Update(const at::Tensor& loss, double weight) = 0;
  absl::Status Update(const at::Tensor& loss) { return Update(loss, 1); }

  // Update for gradients that somebody else has computed: of the mean loss of
  // the batch, by the parameters' names, with their shapes, dtypes and devices.
  // They are copied. A parameter without one gets what a loss that it isn't
  // part of would give it: nothing. All else is as with the loss whose
  // gradients these are. Of a window of one batch the result has the same bits;
  // of several each gradient is divided where a loss would be, which differs by
  // rounding.
  //
  // kInvalidArgument, naming the tensor, and nothing was done, if one doesn't
  // fit or no parameter has its name; kFailedPrecondition with amp, FLOAT16:
  // whoever computes them must scale the loss.
  virtual absl::Status UpdateFromGradients(const TensorMap& gradients,
                                           double weight) = 0;
  absl::Status UpdateFromGradients(const TensorMap& gradients) {
    return UpdateFromGradients(gradients, 1);
  }

  // Whether Update looks at the weight, or one of several optimizers' does.
  virtual bool wants_weight() const { return false; }

  // What forward passes are to be computed in:
  //   AutocastScope scope(optim.autocast());
  // around them, losses included. Model::TrainStep does it.
  virtual const Autocast& autocast() const = 0;

  // The one of that name, of several optimizers. Owned by this. kNotFound if
  // there is none or this is one optimizer, which has no name. A loss that
  // passes through another one's parameters leaves gradients there too: detach
  // them, or let them not require a gradient meanwhile. A loss that several are
  // to learn from goes to one of them, and the others step with what it left
  // them by UpdateFromGradients({}); of several ranks, by SAMPLES, in windows
  // of one Update only.
  virtual absl::StatusOr<OptimWrapper*> Get(absl::string_view name) = 0;

  // From StepObserver::BeforeOptimizerStep: leaves out the step that is due.
  // Its window ends all the same, its gradients are dropped, AfterOptimizerStep
  // hears of it with stepped = false. Elsewhere it does nothing.
  virtual void SkipStep() = 0;

  // Sets where the run is: `iter` Updates are done of `max_iters`, which is -1
  // if it isn't known. Called before training, and before LoadState, which
  // alone knows where the last step was: without it windows start at multiples
  // of accumulative_counts.
  virtual void InitializeCounts(int64_t iter, int64_t max_iters) = 0;

  // Not owned; null for none.
  virtual void set_step_observer(StepObserver* observer) = 0;

  // Of several ranks: what makes gradients those of all of them, which happens
  // in the last Update of each window. With accumulate_by: SAMPLES the mean is
  // over the samples of all ranks' windows, of which one may hold nothing, as a
  // rank's last Update may; a small collective adds the weights up. All ranks
  // call Update, or all UpdateFromGradients. Not owned, and before the first
  // BeginStep.
  //
  // kFailedPrecondition, which is the default, for several optimizers: each has
  // one of its own parameters, by Get. The others' gradients that a loss leaves
  // are each rank's own until that optimizer's window ends, and are averaged
  // then with the rest of it, as if one process had left them.
  virtual absl::Status SetGradientReducer(GradientReducer* reducer);

  // Null if there are several: Get has each.
  virtual Optimizer* optimizer() = 0;

  // The groups that schedulers move: the optimizer's and, if it has more than
  // one, a last one that has the configured options and no parameters, so that
  // the log can show the rate without any group's multiplier. An optimizer made
  // by the caller has no such last group: what it was configured with isn't
  // known. Of several optimizers: those of the first, and so on.
  virtual ParamGroups& scheduled_groups() = 0;

  // Rates to log, by name: "lr" of the first group, and "base_lr" before it if
  // there is a base group; of several optimizers "<name>.lr" and so on.
  // Pointers as ParamGroups::option's. Stable.
  virtual const std::vector<std::pair<std::string, const double*>>& logged_lrs()
      const = 0;

  // Updates (calls) since the last step, or since gradients were dropped. Both
  // the largest, of several optimizers.
  virtual int64_t accumulated() const = 0;
  virtual int64_t accumulative_counts() const = 0;

  // Multiplies every group's "lr", the base group's too, by `factor`, finite
  // and > 0: automatic scaling by batch size, which is part of what is
  // configured. Before schedulers are made. kFailedPrecondition after the first
  // Update or LoadState.
  virtual absl::Status ScaleLr(double factor) = 0;

  // State: the optimizer's, the counters, the base group, the loss scale, and
  // the gradients of a half-filled window, named by parameter, in `*gradients`.
  // SaveState shares the storage of what goes on changing.
  //
  // LoadState takes over what is configured now as it was then, and what is
  // configured otherwise from the configuration. Option by option: a group
  // whose parameters (those that the state knows) share one value that was
  // configured, equal to the present one, and one value that it had come to,
  // keeps the latter; else the option is reset, listed in `*options`, and has
  // the configured value. The base group likewise. Of parameters that are gone,
  // slots and gradients are dropped; new ones start over. What has changed is
  // said in `*notes`. A half-filled window of another accumulate_by is dropped.
  // On an error nothing was changed, but for the optimizers, of several, that
  // come before the one whose state is bad.
  virtual absl::Status SaveState(optim::v1::OptimWrapperState* state,
                                 TensorMap* optimizer_tensors,
                                 TensorMap* gradients) const = 0;
  virtual absl::Status LoadState(const optim::v1::OptimWrapperState& state,
                                 const TensorMap& optimizer_tensors,
                                 const TensorMap& gradients,
                                 RestoredOptions* options,
                                 std::vector<std::string>* notes) = 0;
  absl::Status LoadState(const optim::v1::OptimWrapperState& state,
                         const TensorMap& optimizer_tensors,
                         const TensorMap& gradients) {
    RestoredOptions options;
    std::vector<std::string> notes;
    return LoadState(state, optimizer_tensors, gradients, &options, &notes);
  }

 private:
  // For config.optimizers; in optim_wrapper_set.cc.
  static absl::StatusOr<std::unique_ptr<OptimWrapper>> CreateSet(
      const optim::v1::OptimWrapperConfig& config,
      const std::vector<NamedTensor>& params);
};

}  // namespace grapnel

#endif  // GRAPNEL_OPTIM_OPTIM_WRAPPER_H_
