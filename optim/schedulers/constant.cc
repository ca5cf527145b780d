// A factor for the length of the window.

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

class ConstantScheduler final : public WindowedScheduler {
 public:
  using Config = optim::v1::ConstantSchedulerConfig;

  static absl::StatusOr<std::unique_ptr<ConstantScheduler>> Create(
      Config config, ParamGroups& groups, const RunLength& length) {
    if (!config.has_factor()) config.set_factor(1.0 / 3);
    GRAPNEL_RETURN_IF_ERROR(
        CheckField(config.factor() >= 0 && config.factor() <= 1, "factor",
                   "in [0, 1]", config.factor()));
    GRAPNEL_ASSIGN_OR_RETURN(SchedulerWindow window,
                             SchedulerWindow::Create(&config, length));
    auto scheduler =
        absl::WrapUnique(new ConstantScheduler(std::move(window), config));
    GRAPNEL_RETURN_IF_ERROR(scheduler->Bind(groups));
    return scheduler;
  }

 private:
  ConstantScheduler(SchedulerWindow window, const Config& config)
      : WindowedScheduler(window, config),
        factor_(config.factor()),
        last_t_(window.end() - window.begin() - 1) {}

  double Next(int64_t t, int group, double value, double base) const override {
    if (last_t_ == 0) return value;  // It would begin and end in one step.
    if (t == 0) return value * factor_;
    if (t != last_t_) return value;
    // A product as upstream's, whose last bit a quotient doesn't have.
    return factor_ == 0 ? base : value * (1.0 / factor_);
  }

  const double factor_;
  const int64_t last_t_;
};

GRAPNEL_REGISTER(ParamSchedulerRegistry, ConstantScheduler);

}  // namespace
}  // namespace grapnel
