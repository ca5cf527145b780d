#ifndef GRAPNEL_HOOKS_PARAM_SCHEDULER_PARAM_SCHEDULER_HOOK_H_
#define GRAPNEL_HOOKS_PARAM_SCHEDULER_PARAM_SCHEDULER_HOOK_H_

#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "grapnel/hooks/param_scheduler/param_scheduler_hook.pb.h"
#include "grapnel/models/metric_value.h"
#include "grapnel/runner/hook.h"

namespace grapnel {

// Steps the run's parameter schedulers, in their order: those that count
// iterations after every iteration, whether the optimizer stepped or not, those
// that count epochs after every epoch. Those with a monitor get their metric
// from every validation of the training; kNotFound if it isn't there.
class ParamSchedulerHook final : public Hook {
 public:
  using Config = hooks::v1::ParamSchedulerHookConfig;

  static absl::StatusOr<std::unique_ptr<ParamSchedulerHook>> Create(
      const Config& config);

  absl::string_view name() const override { return "param_scheduler"; }

  // After the logger: a line shows the rate that its iteration was made with.
  Priority priority() const override { return Priority::kLow; }

  absl::Status Setup(RunContext& run) override;
  absl::Status AfterTrainIter(RunContext& run, const IterInfo& info,
                              const LogVars& log_vars) override;
  absl::Status AfterTrainEpoch(RunContext& run) override;
  absl::Status AfterValEpoch(RunContext& run, const Metrics& metrics) override;

 private:
  ParamSchedulerHook() = default;

  std::vector<ParamScheduler*> by_iter_;
  std::vector<ParamScheduler*> by_epoch_;
  std::vector<ParamScheduler*> by_metric_;
};

}  // namespace grapnel

#endif  // GRAPNEL_HOOKS_PARAM_SCHEDULER_PARAM_SCHEDULER_HOOK_H_
