// A factor at every step.

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

class ExponentialScheduler final : public WindowedScheduler {
 public:
  using Config = optim::v1::ExponentialSchedulerConfig;

  static absl::StatusOr<std::unique_ptr<ExponentialScheduler>> Create(
      Config config, ParamGroups& groups, const RunLength& length) {
    GRAPNEL_RETURN_IF_ERROR(CheckSet(config.has_gamma(), "gamma"));
    GRAPNEL_RETURN_IF_ERROR(
        CheckField(std::isfinite(config.gamma()) && config.gamma() >= 0,
                   "gamma", "finite and >= 0", config.gamma()));
    GRAPNEL_ASSIGN_OR_RETURN(SchedulerWindow window,
                             SchedulerWindow::Create(&config, length));
    auto scheduler =
        absl::WrapUnique(new ExponentialScheduler(std::move(window), config));
    GRAPNEL_RETURN_IF_ERROR(scheduler->Bind(groups));
    return scheduler;
  }

 private:
  ExponentialScheduler(SchedulerWindow window, const Config& config)
      : WindowedScheduler(std::move(window), config), gamma_(config.gamma()) {}

  double Next(int64_t t, int group, double value, double base) const override {
    return t == 0 ? value : value * gamma_;
  }

  const double gamma_;
};

GRAPNEL_REGISTER(ParamSchedulerRegistry, ExponentialScheduler);

}  // namespace
}  // namespace grapnel
