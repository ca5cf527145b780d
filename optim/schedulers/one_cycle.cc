// Up to a peak, and down to almost nothing.

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

using ::grapnel::optim::v1::OneCycleSchedulerConfig;

// Between two of a cycle's points; the last step of it is a real number.
struct Phase {
  double last_step;
  std::vector<double> from;  // One a group.
  std::vector<double> to;
};

void FillInDefaults(OneCycleSchedulerConfig* config) {
  if (!config->has_pct_start()) config->set_pct_start(0.3);
  if (!config->has_anneal_strategy()) {
    config->set_anneal_strategy("cos");
  }
  if (!config->has_div_factor()) config->set_div_factor(25);
  if (!config->has_final_div_factor()) config->set_final_div_factor(1e4);
  config->set_three_phase(config->three_phase());
}

absl::Status CheckSettings(const OneCycleSchedulerConfig& config) {
  GRAPNEL_RETURN_IF_ERROR(CheckSet(config.eta_max_size() > 0, "eta_max"));
  for (const double eta_max : config.eta_max()) {
    GRAPNEL_RETURN_IF_ERROR(CheckField(std::isfinite(eta_max) && eta_max > 0,
                                       "eta_max", "finite and > 0", eta_max));
  }
  const double pct_start = config.pct_start();
  GRAPNEL_RETURN_IF_ERROR(CheckField(pct_start >= 0 && pct_start <= 1,
                                     "pct_start", "in [0, 1]", pct_start));
  GRAPNEL_RETURN_IF_ERROR(CheckOneOf(
      "anneal_strategy", config.anneal_strategy(), {"cos", "linear"}));
  const double div = config.div_factor();
  GRAPNEL_RETURN_IF_ERROR(CheckField(std::isfinite(div) && div > 0,
                                     "div_factor", "finite and > 0", div));
  const double final_div = config.final_div_factor();
  return CheckField(std::isfinite(final_div) && final_div > 0,
                    "final_div_factor", "finite and > 0", final_div);
}

// The order of operations is MMEngine's: tests/golden compares every bit.
std::vector<Phase> MakePhases(const OneCycleSchedulerConfig& config,
                              const std::vector<double>& peak) {
  std::vector<double> first, last;
  for (const double value : peak) {
    first.push_back(value / config.div_factor());
    last.push_back(first.back() / config.final_div_factor());
  }
  const double total = static_cast<double>(config.total_steps());
  const double top = config.pct_start() * total - 1;
  if (!config.three_phase()) {
    return {{top, first, peak}, {total - 1, peak, last}};
  }
  const double foot = 2 * config.pct_start() * total - 2;
  return {{top, first, peak}, {foot, peak, first}, {total - 1, first, last}};
}

class OneCycleScheduler final : public WindowedScheduler {
 public:
  using Config = OneCycleSchedulerConfig;

  static absl::StatusOr<std::unique_ptr<OneCycleScheduler>> Create(
      Config config, ParamGroups& groups, const RunLength& length) {
    FillInDefaults(&config);
    GRAPNEL_RETURN_IF_ERROR(CheckSettings(config));
    if (config.has_total_steps() && !config.has_end()) {
      // The cycle's end closes the window: nothing is beyond it.
      int64_t end = 0;
      if (config.total_steps() < 1 ||
          __builtin_add_overflow(config.begin(), config.total_steps(), &end)) {
        return absl::InvalidArgumentError(
            absl::StrCat("total_steps: must be >= 1, and not too large, is ",
                         config.total_steps()));
      }
      config.set_end(end);
    }
    GRAPNEL_ASSIGN_OR_RETURN(SchedulerWindow window,
                             SchedulerWindow::Create(&config, length));
    if (window.param_name() != "lr") {
      return absl::InvalidArgumentError(absl::StrCat(
          "param_name: must be \"lr\", is \"", window.param_name(), "\""));
    }
    GRAPNEL_ASSIGN_OR_RETURN(const int64_t last_step, window.LastStep());
    int64_t total_steps = last_step + 1;
    if (config.has_total_steps()) {
      GRAPNEL_ASSIGN_OR_RETURN(
          total_steps, window.Convert("total_steps", config.total_steps()));
    }
    if (total_steps <= last_step) {
      return absl::InvalidArgumentError(
          absl::StrCat("total_steps: must be >= end - begin, which is ",
                       last_step + 1, " steps, is ", total_steps));
    }
    config.set_total_steps(total_steps);
    GRAPNEL_ASSIGN_OR_RETURN(
        const std::vector<double> peak,
        ValuesByGroup("eta_max", config.eta_max(), groups));
    auto scheduler = absl::WrapUnique(new OneCycleScheduler(
        std::move(window), config, MakePhases(config, peak)));
    GRAPNEL_RETURN_IF_ERROR(scheduler->Bind(groups));
    return scheduler;
  }

 private:
  OneCycleScheduler(SchedulerWindow window, const Config& config,
                    std::vector<Phase> phases)
      : WindowedScheduler(std::move(window), config),
        cosine_(config.anneal_strategy() == "cos"),
        phases_(std::move(phases)) {}

  void Prepare(int64_t t) override {
    const double step = static_cast<double>(t);
    double start = 0;
    phase_ = phases_.data();
    while (step > phase_->last_step && phase_ != &phases_.back()) {
      start = phase_->last_step;
      ++phase_;
    }
    // A phase without a length has reached its end.
    const double length = phase_->last_step - start;
    const double done = length == 0 ? 1 : (step - start) / length;
    weight_ = cosine_ ? 1 + std::cos(kPi * done) : done;
  }

  double Next(int64_t t, int group, double value, double base) const override {
    const double from = phase_->from[group];
    const double to = phase_->to[group];
    if (cosine_) return to + (from - to) / 2 * weight_;
    return from + weight_ * (to - from);
  }

  const bool cosine_;
  const std::vector<Phase> phases_;

  // Of the step that was prepared.
  const Phase* phase_ = nullptr;
  double weight_ = 0;
};

GRAPNEL_REGISTER(ParamSchedulerRegistry, OneCycleScheduler);

}  // namespace
}  // namespace grapnel
