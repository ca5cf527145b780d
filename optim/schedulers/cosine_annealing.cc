// Halves of a cosine: down to a floor, up again, or each from its own start.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/memory/memory.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "grapnel/base/check_field.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/optim/param_groups.h"
#include "grapnel/optim/param_scheduler.h"
#include "grapnel/optim/param_scheduler.pb.h"
#include "grapnel/optim/schedulers/cosine.h"
#include "grapnel/optim/schedulers/windowed_scheduler.h"

namespace grapnel {
namespace {

template <typename Config>
absl::Status CheckFloor(const Config& config) {
  if (config.has_eta_min() && config.has_eta_min_ratio()) {
    return absl::InvalidArgumentError(
        "eta_min_ratio: can't be set together with eta_min");
  }
  GRAPNEL_RETURN_IF_ERROR(CheckField(std::isfinite(config.eta_min()), "eta_min",
                                     "finite", config.eta_min()));
  return CheckField(std::isfinite(config.eta_min_ratio()), "eta_min_ratio",
                    "finite", config.eta_min_ratio());
}

class CosineAnnealingScheduler final : public WindowedScheduler {
 public:
  using Config = optim::v1::CosineAnnealingSchedulerConfig;

  static absl::StatusOr<std::unique_ptr<CosineAnnealingScheduler>> Create(
      Config config, ParamGroups& groups, const RunLength& length) {
    GRAPNEL_RETURN_IF_ERROR(CheckFloor(config));
    if (!config.has_eta_min_ratio()) config.set_eta_min(config.eta_min());
    GRAPNEL_ASSIGN_OR_RETURN(SchedulerWindow window,
                             SchedulerWindow::Create(&config, length));
    if (config.has_t_max()) {
      GRAPNEL_ASSIGN_OR_RETURN(const int64_t t_max,
                               window.Convert("t_max", config.t_max()));
      config.set_t_max(t_max);
    } else {
      GRAPNEL_ASSIGN_OR_RETURN(const int64_t last_step, window.LastStep());
      config.set_t_max(last_step + 1);
    }
    auto scheduler = absl::WrapUnique(
        new CosineAnnealingScheduler(std::move(window), config));
    GRAPNEL_RETURN_IF_ERROR(scheduler->Bind(groups));
    return scheduler;
  }

 private:
  CosineAnnealingScheduler(SchedulerWindow window, const Config& config)
      : WindowedScheduler(std::move(window), config),
        t_max_(config.t_max()),
        floor_is_ratio_(config.has_eta_min_ratio()),
        floor_(floor_is_ratio_ ? config.eta_min_ratio() : config.eta_min()) {}

  // The order of operations is MMEngine's: tests/golden compares every bit.
  void Prepare(int64_t t) override {
    const double t_max = static_cast<double>(t_max_);
    at_bottom_ = (t - 1) % t_max_ == 0 && (t - 1) / t_max_ % 2 == 1;
    if (at_bottom_) {
      rise_ = 1 - std::cos(kPi / t_max);
      return;
    }
    ratio_ = CosineRatio(t, t_max);
  }

  double Next(int64_t t, int group, double value, double base) const override {
    if (t == 0) return value;
    const double floor = floor_is_ratio_ ? base * floor_ : floor_;
    if (at_bottom_) return value + (base - floor) * rise_ / 2;
    return ratio_ * (value - floor) + floor;
  }

  const int64_t t_max_;
  const bool floor_is_ratio_;
  const double floor_;

  // Of the step that was prepared.
  bool at_bottom_ = false;  // The last one was: no factor leads up from there.
  double rise_ = 0;
  double ratio_ = 1;
};

GRAPNEL_REGISTER(ParamSchedulerRegistry, CosineAnnealingScheduler);

absl::Status CheckSettings(
    const optim::v1::CosineRestartSchedulerConfig& config) {
  GRAPNEL_RETURN_IF_ERROR(CheckSet(config.periods_size() > 0, "periods"));
  if (config.restart_weights_size() != config.periods_size()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "restart_weights: must have as many values as periods, which has ",
        config.periods_size(), ", has ", config.restart_weights_size()));
  }
  for (const double weight : config.restart_weights()) {
    GRAPNEL_RETURN_IF_ERROR(CheckField(std::isfinite(weight) && weight >= 0,
                                       "restart_weights", "finite and >= 0",
                                       weight));
  }
  if (!config.has_eta_min() && !config.has_eta_min_ratio()) {
    return absl::InvalidArgumentError("eta_min: must be set, or eta_min_ratio");
  }
  return CheckFloor(config);
}

class CosineRestartScheduler final : public WindowedScheduler {
 public:
  using Config = optim::v1::CosineRestartSchedulerConfig;

  static absl::StatusOr<std::unique_ptr<CosineRestartScheduler>> Create(
      Config config, ParamGroups& groups, const RunLength& length) {
    if (config.restart_weights().empty()) config.add_restart_weights(1);
    GRAPNEL_RETURN_IF_ERROR(CheckSettings(config));
    GRAPNEL_ASSIGN_OR_RETURN(SchedulerWindow window,
                             SchedulerWindow::Create(&config, length));
    std::vector<int64_t> ends;
    int64_t end = 0;
    for (int64_t& period : *config.mutable_periods()) {
      GRAPNEL_ASSIGN_OR_RETURN(period, window.Convert("periods", period));
      if (__builtin_add_overflow(end, period, &end)) {
        return absl::InvalidArgumentError("periods: their sum is too large");
      }
      ends.push_back(end);
    }
    auto scheduler = absl::WrapUnique(
        new CosineRestartScheduler(std::move(window), config, std::move(ends)));
    GRAPNEL_RETURN_IF_ERROR(scheduler->Bind(groups));
    return scheduler;
  }

 private:
  CosineRestartScheduler(SchedulerWindow window, const Config& config,
                         std::vector<int64_t> ends)
      : WindowedScheduler(std::move(window), config),
        ends_(std::move(ends)),
        weights_(config.restart_weights().begin(),
                 config.restart_weights().end()),
        floor_is_ratio_(config.has_eta_min_ratio()),
        floor_(floor_is_ratio_ ? config.eta_min_ratio() : config.eta_min()) {}

  // The order of operations is MMEngine's: tests/golden compares every bit.
  void Prepare(int64_t t) override {
    const auto end = std::upper_bound(ends_.begin(), ends_.end(), t);
    over_ = end == ends_.end();
    if (over_) return;
    const int64_t begin = end == ends_.begin() ? 0 : *(end - 1);
    step_ = t - begin;
    weight_ = weights_[end - ends_.begin()];
    ratio_ = CosineRatio(step_, static_cast<double>(*end - begin));
  }

  double Next(int64_t t, int group, double value, double base) const override {
    if (over_) return value;
    if (step_ == 0) return base * weight_;
    const double floor = floor_is_ratio_ ? base * floor_ : floor_;
    return ratio_ * (value - floor) + floor;
  }

  const std::vector<int64_t> ends_;  // Of the periods, in steps of the window.
  const std::vector<double> weights_;
  const bool floor_is_ratio_;
  const double floor_;

  // Of the step that was prepared.
  bool over_ = false;  // All periods are.
  int64_t step_ = 0;   // Inside the period.
  double weight_ = 1;
  double ratio_ = 1;
};

GRAPNEL_REGISTER(ParamSchedulerRegistry, CosineRestartScheduler);

}  // namespace
}  // namespace grapnel
