// A straight line between two factors of the value: a warm-up.

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

class LinearScheduler final : public WindowedScheduler {
 public:
  using Config = optim::v1::LinearSchedulerConfig;

  static absl::StatusOr<std::unique_ptr<LinearScheduler>> Create(
      Config config, ParamGroups& groups, const RunLength& length) {
    if (!config.has_start_factor()) config.set_start_factor(1.0 / 3);
    if (!config.has_end_factor()) config.set_end_factor(1);
    const double start = config.start_factor();
    const double end = config.end_factor();
    GRAPNEL_RETURN_IF_ERROR(CheckField(start >= 0 && start <= 1, "start_factor",
                                       "in [0, 1]", start));
    GRAPNEL_RETURN_IF_ERROR(
        CheckField(end >= 0 && end <= 1, "end_factor", "in [0, 1]", end));
    GRAPNEL_ASSIGN_OR_RETURN(SchedulerWindow window,
                             SchedulerWindow::Create(&config, length));
    GRAPNEL_ASSIGN_OR_RETURN(int64_t last_step, window.LastStep());
    if (last_step == 0) {
      // No room for both factors: the second one comes at `end`.
      window.AddStep();
      last_step = 1;
    }
    auto scheduler = absl::WrapUnique(
        new LinearScheduler(std::move(window), config, last_step));
    GRAPNEL_RETURN_IF_ERROR(scheduler->Bind(groups));
    return scheduler;
  }

 private:
  LinearScheduler(SchedulerWindow window, const Config& config,
                  int64_t last_step)
      : WindowedScheduler(std::move(window), config),
        start_(config.start_factor()),
        end_(config.end_factor()),
        last_t_(static_cast<double>(last_step)) {}

  // The order of operations is MMEngine's: tests/golden compares every bit.
  double Next(int64_t t, int group, double value, double base) const override {
    if (t == 0) return value * start_;
    const double done =
        last_t_ * start_ + static_cast<double>(t - 1) * (end_ - start_);
    // From a start of 0 there is no factor to the next value.
    if (done == 0) return base * end_ * static_cast<double>(t) / last_t_;
    return value * (1 + (end_ - start_) / done);
  }

  const double start_;
  const double end_;
  const double last_t_;
};

GRAPNEL_REGISTER(ParamSchedulerRegistry, LinearScheduler);

}  // namespace
}  // namespace grapnel
