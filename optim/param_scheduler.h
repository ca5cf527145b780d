// Schedules of learning rates and other numbers of an optimizer.

#ifndef GRAPNEL_OPTIM_PARAM_SCHEDULER_H_
#define GRAPNEL_OPTIM_PARAM_SCHEDULER_H_

#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "grapnel/base/registry.h"
#include "grapnel/optim/param_groups.h"

namespace grapnel::optim::v1 {
class ParamSchedulerState;
}  // namespace grapnel::optim::v1

namespace grapnel {

// How long the run is, for an unset `end`, and an epoch in iterations. -1: not
// known.
struct RunLength {
  int64_t max_epochs = -1;
  int64_t max_iters = -1;
  int64_t epoch_length = -1;
};

// The steps at which a scheduler acts: begin <= step < end.
struct StepRange {
  static constexpr int64_t kOpen = std::numeric_limits<int64_t>::max();

  int64_t begin = 0;
  int64_t end = kOpen;
};

// Changes one option of every parameter group, step by step, each time from its
// current value. So schedulers of one option chain: each acts on what those
// before it left.
//
// Construction writes nothing: it notes the option's values as the base values,
// so construct all schedulers before applying the first. Apply() writes the
// value of step 0, Step() those of the steps after it. Usable without a runner,
// on any ParamGroups. Thread-compatible.
//
// To add one, derive from WindowedScheduler; schedulers/linear.cc is the file
// to imitate.
//
// Example:
//
//   torch::nn::Linear net(3, 1);
//   auto sgd = std::make_shared<torch::optim::SGD>(
//       net->parameters(), torch::optim::SGDOptions(0.1));
//   GRAPNEL_ASSIGN_OR_RETURN(const std::unique_ptr<Optimizer> optimizer,
//                            WrapTorchOptimizer(sgd, NamedParameters(*net)));
//   optim::v1::ParamSchedulerConfig config;
//   config.mutable_step()->set_step_size(10);  // Of //optim/schedulers:step.
//   config.mutable_step()->set_gamma(0.5);
//   config.mutable_step()->set_by_epoch(false);
//   GRAPNEL_ASSIGN_OR_RETURN(
//       const std::unique_ptr<ParamScheduler> scheduler,
//       ParamSchedulerRegistry::Create(config, *optimizer, RunLength()));
//   scheduler->Apply();
//   for (int iter = 0; iter < 10; ++iter) {
//     net(torch::rand({8, 3})).square().mean().backward();
//     GRAPNEL_RETURN_IF_ERROR(optimizer->Step());
//     optimizer->ZeroGrad();
//     scheduler->Step();
//   }
//   GRAPNEL_RET_CHECK(*optimizer->option(0, "lr") == 0.05);
class ParamScheduler {
 public:
  virtual ~ParamScheduler() = default;

  // The option: "lr", ...
  virtual const std::string& param_name() const = 0;

  // Which of several optimizers has the option; "" if there is one. States are
  // told apart by it.
  const std::string& optimizer() const { return optimizer_; }
  void set_optimizer(std::string name) { optimizer_ = std::move(name); }

  // True if Step is to be called after every epoch, else after every iteration.
  virtual bool by_epoch() const = 0;

  // True if Step is to be called after every iteration but its range is
  // configured in epochs: if their length changes, so does the step it is at.
  virtual bool converted() const { return false; }

  virtual StepRange range() const { return {}; }

  // Where the option's values are, one for each group, as ParamGroups::option
  // has them. Empty if the scheduler doesn't tell.
  virtual absl::Span<double* const> values() const { return {}; }

  // Writes step 0. Call before training, schedulers of one option in their
  // order. Does nothing if step 0 is done, by an earlier call or in the state
  // that LoadState took.
  virtual void Apply() = 0;

  virtual void Step() = 0;

  // Steps taken, not counting Apply.
  virtual int64_t num_steps() const = 0;

  // The name of the metric that moves the option, or null if steps do. With a
  // monitor, steps only count.
  virtual const std::string* monitor() const { return nullptr; }

  // Takes the monitor's value from a validation, after the Step of the epoch
  // that it follows. `iter`: iterations done by then, -1 if it isn't known.
  virtual void StepMetric(double value, int64_t iter) {}
  void StepMetric(double value) { StepMetric(value, -1); }

  // The state is without the option's value, which is the optimizer's.
  // LoadState checks the type and the option's name, not the settings: from
  // there on this object's own hold (schedulers/scheduler_replay.h makes up for
  // differences). kInvalidArgument if it is of another kind; nothing was
  // changed then.
  virtual absl::Status SaveState(
      optim::v1::ParamSchedulerState* state) const = 0;
  virtual absl::Status LoadState(
      const optim::v1::ParamSchedulerState& state) = 0;

  // For a replay: goes back to before Apply and sets the option to
  // `base_values`, one for each group, which become the base values. What it
  // has learned from metrics stays. kInvalidArgument if they are not finite, or
  // not as many as groups; nothing was changed then.
  virtual absl::Status Rewind(absl::Span<const double> base_values) = 0;

  // For a replay of one with a monitor: repeats the changes that metrics made,
  // up to the step that it is at. `iters`: iterations done by then.
  virtual void RedoMetricSteps(int64_t iters) {}

 private:
  std::string optimizer_;
};

// The end of the run in the scheduler's steps; -1 if it isn't known.
inline int64_t EndOfRun(const RunLength& length,
                        const ParamScheduler& scheduler) {
  if (scheduler.by_epoch()) return length.max_epochs;
  if (!scheduler.converted()) return length.max_iters;
  int64_t end = 0;
  if (length.max_epochs < 0 ||
      __builtin_mul_overflow(length.max_epochs, length.epoch_length, &end)) {
    return -1;
  }
  return end;
}

struct ParamSchedulerTraits {
  using Product = std::unique_ptr<ParamScheduler>;
  static constexpr char kWhat[] = "param_scheduler";
};

// `groups` outlives the scheduler.
using ParamSchedulerRegistry =
    Registry<ParamSchedulerTraits, ParamGroups&, const RunLength&>;

}  // namespace grapnel

#endif  // GRAPNEL_OPTIM_PARAM_SCHEDULER_H_
