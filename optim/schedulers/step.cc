// A factor every so many steps.

#include <cmath>
#include <cstdint>
#include <memory>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/status/statusor.h"
#include "grapnel/base/check_field.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/optim/param_groups.h"
#include "grapnel/optim/param_scheduler.h"
#include "grapnel/optim/param_scheduler.pb.h"
#include "grapnel/optim/schedulers/windowed_scheduler.h"

namespace grapnel {
namespace {

class StepScheduler final : public WindowedScheduler {
 public:
  using Config = optim::v1::StepSchedulerConfig;

  static absl::StatusOr<std::unique_ptr<StepScheduler>> Create(
      Config config, ParamGroups& groups, const RunLength& length) {
    if (!config.has_gamma()) config.set_gamma(0.1);
    GRAPNEL_RETURN_IF_ERROR(
        CheckField(std::isfinite(config.gamma()) && config.gamma() >= 0,
                   "gamma", "finite and >= 0", config.gamma()));
    GRAPNEL_RETURN_IF_ERROR(CheckSet(config.has_step_size(), "step_size"));
    GRAPNEL_ASSIGN_OR_RETURN(SchedulerWindow window,
                             SchedulerWindow::Create(&config, length));
    GRAPNEL_ASSIGN_OR_RETURN(const int64_t step_size,
                             window.Convert("step_size", config.step_size()));
    config.set_step_size(step_size);
    auto scheduler =
        absl::WrapUnique(new StepScheduler(std::move(window), config));
    GRAPNEL_RETURN_IF_ERROR(scheduler->Bind(groups));
    return scheduler;
  }

 private:
  StepScheduler(SchedulerWindow window, const Config& config)
      : WindowedScheduler(std::move(window), config),
        step_size_(config.step_size()),
        gamma_(config.gamma()) {}

  double Next(int64_t t, int group, double value, double base) const override {
    return t > 0 && t % step_size_ == 0 ? value * gamma_ : value;
  }

  const int64_t step_size_;
  const double gamma_;
};

GRAPNEL_REGISTER(ParamSchedulerRegistry, StepScheduler);

}  // namespace
}  // namespace grapnel
