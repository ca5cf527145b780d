// A factor whenever a metric has stopped getting better.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
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

using ::grapnel::optim::v1::ParamSchedulerState;
using ::grapnel::optim::v1::ReduceOnPlateauSchedulerConfig;
using ::grapnel::optim::v1::ReduceOnPlateauState;

void FillInDefaults(ReduceOnPlateauSchedulerConfig* config) {
  if (!config->has_monitor()) config->set_monitor("loss");
  if (!config->has_rule()) config->set_rule("less");
  if (!config->has_factor()) config->set_factor(0.1);
  if (!config->has_patience()) config->set_patience(10);
  if (!config->has_threshold()) config->set_threshold(1e-4);
  if (!config->has_threshold_rule()) config->set_threshold_rule("rel");
  config->set_cooldown(config->cooldown());
  if (config->min_value().empty()) config->add_min_value(0);
  if (!config->has_eps()) config->set_eps(1e-8);
}

absl::Status CheckSettings(const ReduceOnPlateauSchedulerConfig& config) {
  if (config.monitor().empty()) {
    return absl::InvalidArgumentError("monitor: must not be empty");
  }
  GRAPNEL_RETURN_IF_ERROR(
      CheckOneOf("rule", config.rule(), {"less", "greater"}));
  GRAPNEL_RETURN_IF_ERROR(
      CheckField(config.factor() >= 0 && config.factor() < 1, "factor",
                 "in [0, 1)", config.factor()));
  GRAPNEL_RETURN_IF_ERROR(CheckField(config.patience() >= 0, "patience", ">= 0",
                                     config.patience()));
  GRAPNEL_RETURN_IF_ERROR(
      CheckField(std::isfinite(config.threshold()) && config.threshold() >= 0,
                 "threshold", "finite and >= 0", config.threshold()));
  GRAPNEL_RETURN_IF_ERROR(
      CheckOneOf("threshold_rule", config.threshold_rule(), {"rel", "abs"}));
  GRAPNEL_RETURN_IF_ERROR(CheckField(config.cooldown() >= 0, "cooldown", ">= 0",
                                     config.cooldown()));
  for (const double value : config.min_value()) {
    GRAPNEL_RETURN_IF_ERROR(
        CheckField(std::isfinite(value), "min_value", "finite", value));
  }
  return CheckField(std::isfinite(config.eps()) && config.eps() >= 0, "eps",
                    "finite and >= 0", config.eps());
}

class ReduceOnPlateauScheduler final : public WindowedScheduler {
 public:
  using Config = ReduceOnPlateauSchedulerConfig;

  static absl::StatusOr<std::unique_ptr<ReduceOnPlateauScheduler>> Create(
      Config config, ParamGroups& groups, const RunLength& length) {
    FillInDefaults(&config);
    GRAPNEL_RETURN_IF_ERROR(CheckSettings(config));
    SchedulerWindow::Fields fields;
    fields.begin = config.begin();
    // Not the run's: the last validation counts for a run that is extended.
    fields.end = config.has_end() ? config.end() : SchedulerWindow::kOpen;
    if (config.has_param_name()) fields.param_name = config.param_name();
    GRAPNEL_ASSIGN_OR_RETURN(SchedulerWindow window,
                             SchedulerWindow::Create(fields, length));
    config.set_begin(window.begin());
    config.set_param_name(window.param_name());
    GRAPNEL_ASSIGN_OR_RETURN(
        std::vector<double> floors,
        ValuesByGroup("min_value", config.min_value(), groups));
    auto scheduler = absl::WrapUnique(new ReduceOnPlateauScheduler(
        std::move(window), std::move(config), std::move(floors)));
    GRAPNEL_RETURN_IF_ERROR(scheduler->Bind(groups));
    return scheduler;
  }

  const std::string* monitor() const override { return &config_.monitor(); }

 private:
  ReduceOnPlateauScheduler(SchedulerWindow window, Config config,
                           std::vector<double> floors)
      : WindowedScheduler(std::move(window), config),
        config_(std::move(config)),
        less_(config_.rule() == "less"),
        relative_(config_.threshold_rule() == "rel"),
        floors_(std::move(floors)) {}

  double NoneYet() const {
    constexpr double kInfinity = std::numeric_limits<double>::infinity();
    return less_ ? kInfinity : -kInfinity;
  }

  bool IsBetter(double metric) const {
    if (!std::isfinite(metric)) return false;
    // None yet, or what an older version took for one.
    if (!std::isfinite(best_)) return true;
    const double sign = less_ ? -1 : 1;
    const double margin = sign * config_.threshold();
    const double bar = relative_ ? best_ * (1 + margin) : best_ + margin;
    return less_ ? metric < bar : metric > bar;
  }

  bool Observe(double metric) override {
    if (IsBetter(metric)) {
      best_ = metric;
      num_bad_ = 0;
    } else {
      ++num_bad_;
    }
    if (cooldown_left_ > 0) {
      --cooldown_left_;
      num_bad_ = 0;
    }
    if (num_bad_ <= config_.patience()) return false;
    cooldown_left_ = config_.cooldown();
    num_bad_ = 0;
    return true;
  }

  double Next(int64_t t, int group, double value, double base) const override {
    const double reduced = std::max(value * config_.factor(), floors_[group]);
    return value - reduced > config_.eps() ? reduced : value;
  }

  void SaveExtra(ParamSchedulerState* state) const override {
    ReduceOnPlateauState& own = *state->mutable_reduce_on_plateau();
    own.set_monitor(config_.monitor());
    own.set_rule(config_.rule());
    own.set_best(best_);
    own.set_num_bad(num_bad_);
    own.set_cooldown_left(cooldown_left_);
  }

  absl::Status LoadExtra(const ParamSchedulerState& state) override {
    if (!state.has_reduce_on_plateau()) {
      return absl::InvalidArgumentError(
          "reduce_on_plateau: is missing in the state");
    }
    const ReduceOnPlateauState& own = state.reduce_on_plateau();
    GRAPNEL_RETURN_IF_ERROR(
        CheckField(!std::isnan(own.best()), "best", "a number", own.best()));
    GRAPNEL_RETURN_IF_ERROR(
        CheckField(own.num_bad() >= 0, "num_bad", ">= 0", own.num_bad()));
    GRAPNEL_RETURN_IF_ERROR(CheckField(own.cooldown_left() >= 0,
                                       "cooldown_left", ">= 0",
                                       own.cooldown_left()));
    // Numbers of another metric, or the wrong way round, say nothing here.
    const bool comparable =
        own.monitor() == config_.monitor() && own.rule() == config_.rule();
    best_ = comparable ? own.best() : NoneYet();
    num_bad_ = comparable ? own.num_bad() : 0;
    cooldown_left_ = own.cooldown_left();
    return absl::OkStatus();
  }

  const Config config_;
  const bool less_;
  const bool relative_;
  const std::vector<double> floors_;  // One a group.
  double best_ = NoneYet();
  int64_t num_bad_ = 0;  // Validations since the best, in a row.
  int64_t cooldown_left_ = 0;
};

GRAPNEL_REGISTER(ParamSchedulerRegistry, ReduceOnPlateauScheduler);

}  // namespace
}  // namespace grapnel
