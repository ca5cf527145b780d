// Down with the square root of the steps, after a warm-up.

#include <cmath>
#include <cstdint>
#include <memory>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/status/statusor.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/optim/param_groups.h"
#include "grapnel/optim/param_scheduler.h"
#include "grapnel/optim/param_scheduler.pb.h"
#include "grapnel/optim/schedulers/windowed_scheduler.h"

namespace grapnel {
namespace {

class InverseSqrtScheduler final : public WindowedScheduler {
 public:
  using Config = optim::v1::InverseSqrtSchedulerConfig;

  static absl::StatusOr<std::unique_ptr<InverseSqrtScheduler>> Create(
      Config config, ParamGroups& groups, const RunLength& length) {
    constexpr int64_t kDefaultTimescale = 10000;
    GRAPNEL_ASSIGN_OR_RETURN(SchedulerWindow window,
                             SchedulerWindow::Create(&config, length));
    GRAPNEL_ASSIGN_OR_RETURN(
        const int64_t warmup,
        window.Convert("warmup_steps", config.warmup_steps(), /*least=*/0));
    int64_t timescale = warmup > 0 ? warmup : kDefaultTimescale;
    if (config.has_timescale()) {
      GRAPNEL_ASSIGN_OR_RETURN(timescale,
                               window.Convert("timescale", config.timescale()));
    }
    config.set_warmup_steps(warmup);
    config.set_timescale(timescale);
    auto scheduler =
        absl::WrapUnique(new InverseSqrtScheduler(std::move(window), config));
    GRAPNEL_RETURN_IF_ERROR(scheduler->Bind(groups));
    return scheduler;
  }

 private:
  InverseSqrtScheduler(SchedulerWindow window, const Config& config)
      : WindowedScheduler(std::move(window), config),
        warmup_(config.warmup_steps()),
        timescale_(static_cast<double>(config.timescale())) {}

  // The value at step `t` as a part of the base value. Never 0.
  double Factor(int64_t t) const {
    if (t < warmup_) {
      return static_cast<double>(t + 1) / static_cast<double>(warmup_);
    }
    const int64_t first = warmup_ > 0 ? warmup_ - 1 : 0;  // At the base value.
    return std::sqrt(timescale_ /
                     (timescale_ + static_cast<double>(t - first)));
  }

  void Prepare(int64_t t) override {
    ratio_ = t == 0 ? Factor(0) : Factor(t) / Factor(t - 1);
  }

  double Next(int64_t t, int group, double value, double base) const override {
    return value * ratio_;
  }

  const int64_t warmup_;
  const double timescale_;
  double ratio_ = 1;  // Of the step that was prepared.
};

GRAPNEL_REGISTER(ParamSchedulerRegistry, InverseSqrtScheduler);

}  // namespace
}  // namespace grapnel
