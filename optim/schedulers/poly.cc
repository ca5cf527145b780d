// A power of a straight line down to a floor.

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

class PolyScheduler final : public WindowedScheduler {
 public:
  using Config = optim::v1::PolySchedulerConfig;

  static absl::StatusOr<std::unique_ptr<PolyScheduler>> Create(
      Config config, ParamGroups& groups, const RunLength& length) {
    config.set_eta_min(config.eta_min());
    if (!config.has_power()) config.set_power(1);
    GRAPNEL_RETURN_IF_ERROR(CheckField(std::isfinite(config.eta_min()),
                                       "eta_min", "finite", config.eta_min()));
    GRAPNEL_RETURN_IF_ERROR(
        CheckField(std::isfinite(config.power()) && config.power() > 0, "power",
                   "finite and > 0", config.power()));
    GRAPNEL_ASSIGN_OR_RETURN(SchedulerWindow window,
                             SchedulerWindow::Create(&config, length));
    GRAPNEL_ASSIGN_OR_RETURN(const int64_t last_step, window.LastStep());
    auto scheduler = absl::WrapUnique(
        new PolyScheduler(std::move(window), config, last_step));
    GRAPNEL_RETURN_IF_ERROR(scheduler->Bind(groups));
    return scheduler;
  }

 private:
  PolyScheduler(SchedulerWindow window, const Config& config, int64_t last_step)
      : WindowedScheduler(std::move(window), config),
        floor_(config.eta_min()),
        power_(config.power()),
        last_t_(last_step) {}

  // The order of operations is MMEngine's: tests/golden compares every bit.
  void Prepare(int64_t t) override {
    if (t == 0) return;
    factor_ = std::pow(1 - 1 / static_cast<double>(last_t_ - t + 1), power_);
  }

  double Next(int64_t t, int group, double value, double base) const override {
    return t == 0 ? value : (value - floor_) * factor_ + floor_;
  }

  const double floor_;
  const double power_;
  const int64_t last_t_;
  double factor_ = 1;  // Of the step that was prepared.
};

GRAPNEL_REGISTER(ParamSchedulerRegistry, PolyScheduler);

}  // namespace
}  // namespace grapnel
