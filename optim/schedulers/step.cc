// A factor every so many steps, at each of a list of steps, or at every step.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/memory/memory.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "grapnel/base/check_field.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/optim/param_groups.h"
#include "grapnel/optim/param_scheduler.h"
#include "grapnel/optim/param_scheduler.pb.h"
#include "grapnel/optim/schedulers/windowed_scheduler.h"

namespace grapnel {
namespace {

absl::Status CheckGamma(double gamma) {
  return CheckField(std::isfinite(gamma) && gamma >= 0, "gamma",
                    "finite and >= 0", gamma);
}

class StepScheduler final : public WindowedScheduler {
 public:
  using Config = optim::v1::StepSchedulerConfig;

  static absl::StatusOr<std::unique_ptr<StepScheduler>> Create(
      Config config, ParamGroups& groups, const RunLength& length) {
    if (!config.has_gamma()) config.set_gamma(0.1);
    GRAPNEL_RETURN_IF_ERROR(CheckGamma(config.gamma()));
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

class MultiStepScheduler final : public WindowedScheduler {
 public:
  using Config = optim::v1::MultiStepSchedulerConfig;

  static absl::StatusOr<std::unique_ptr<MultiStepScheduler>> Create(
      Config config, ParamGroups& groups, const RunLength& length) {
    if (!config.has_gamma()) config.set_gamma(0.1);
    GRAPNEL_RETURN_IF_ERROR(CheckGamma(config.gamma()));
    GRAPNEL_RETURN_IF_ERROR(
        CheckSet(config.milestones_size() > 0, "milestones"));
    GRAPNEL_ASSIGN_OR_RETURN(SchedulerWindow window,
                             SchedulerWindow::Create(&config, length));
    for (int64_t& milestone : *config.mutable_milestones()) {
      GRAPNEL_ASSIGN_OR_RETURN(
          milestone, window.Convert("milestones", milestone, /*least=*/0));
    }
    auto scheduler =
        absl::WrapUnique(new MultiStepScheduler(std::move(window), config));
    GRAPNEL_RETURN_IF_ERROR(scheduler->Bind(groups));
    return scheduler;
  }

 private:
  MultiStepScheduler(SchedulerWindow window, const Config& config)
      : WindowedScheduler(std::move(window), config),
        gamma_(config.gamma()),
        milestones_(config.milestones().begin(), config.milestones().end()) {
    std::sort(milestones_.begin(), milestones_.end());
  }

  void Prepare(int64_t t) override {
    const auto [first, last] =
        std::equal_range(milestones_.begin(), milestones_.end(), t);
    factor_ =
        first == last ? 1 : std::pow(gamma_, static_cast<double>(last - first));
  }

  double Next(int64_t t, int group, double value, double base) const override {
    return value * factor_;
  }

  const double gamma_;
  std::vector<int64_t> milestones_;  // In order.
  double factor_ = 1;                // Of the step that was prepared.
};

GRAPNEL_REGISTER(ParamSchedulerRegistry, MultiStepScheduler);

class ExponentialScheduler final : public WindowedScheduler {
 public:
  using Config = optim::v1::ExponentialSchedulerConfig;

  static absl::StatusOr<std::unique_ptr<ExponentialScheduler>> Create(
      Config config, ParamGroups& groups, const RunLength& length) {
    GRAPNEL_RETURN_IF_ERROR(CheckSet(config.has_gamma(), "gamma"));
    GRAPNEL_RETURN_IF_ERROR(CheckGamma(config.gamma()));
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
