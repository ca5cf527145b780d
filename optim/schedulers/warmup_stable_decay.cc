// The three phases of language models' training.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <utility>

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

using ::grapnel::optim::v1::WarmupStableDecaySchedulerConfig;

class WarmupStableDecayScheduler final : public WindowedScheduler {
 public:
  using Config = WarmupStableDecaySchedulerConfig;

  static absl::StatusOr<std::unique_ptr<WarmupStableDecayScheduler>> Create(
      Config config, ParamGroups& groups, const RunLength& length) {
    if (!config.has_decay_type()) config.set_decay_type("1-sqrt");
    config.set_min_ratio(config.min_ratio());
    GRAPNEL_RETURN_IF_ERROR(CheckOneOf("decay_type", config.decay_type(),
                                       {"linear", "cosine", "1-sqrt"}));
    GRAPNEL_RETURN_IF_ERROR(
        CheckField(config.min_ratio() >= 0 && config.min_ratio() <= 1,
                   "min_ratio", "in [0, 1]", config.min_ratio()));
    GRAPNEL_ASSIGN_OR_RETURN(SchedulerWindow window,
                             SchedulerWindow::Create(&config, length));
    GRAPNEL_ASSIGN_OR_RETURN(const int64_t last_step, window.LastStep());
    const int64_t num_steps = last_step + 1;
    GRAPNEL_ASSIGN_OR_RETURN(
        const int64_t warmup,
        window.Convert("warmup_steps", config.warmup_steps(), /*least=*/0));
    int64_t decay = std::max<int64_t>(num_steps / 5, 1);
    if (config.has_decay_steps()) {
      GRAPNEL_ASSIGN_OR_RETURN(
          decay, window.Convert("decay_steps", config.decay_steps()));
    }
    if (warmup > num_steps - decay && window.reached()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "decay_steps: must be <= end - begin - warmup_steps, which is ",
          num_steps - warmup, " steps, is ", decay));
    }
    config.set_warmup_steps(warmup);
    config.set_decay_steps(decay);
    auto scheduler = absl::WrapUnique(
        new WarmupStableDecayScheduler(std::move(window), config, num_steps));
    GRAPNEL_RETURN_IF_ERROR(scheduler->Bind(groups));
    return scheduler;
  }

 private:
  WarmupStableDecayScheduler(SchedulerWindow window, const Config& config,
                             int64_t num_steps)
      : WindowedScheduler(std::move(window), config),
        warmup_(config.warmup_steps()),
        decay_steps_(config.decay_steps()),
        decay_begin_(num_steps - decay_steps_),
        linear_(config.decay_type() == "linear"),
        cosine_(config.decay_type() == "cosine"),
        min_ratio_(config.min_ratio()) {}

  // The value at step `t` as a part of the base value.
  double Factor(int64_t t) const {
    if (t < warmup_) {
      return static_cast<double>(t + 1) / static_cast<double>(warmup_);
    }
    if (t < decay_begin_) return 1;
    const double done = static_cast<double>(t - decay_begin_) /
                        static_cast<double>(decay_steps_);
    const double left = linear_   ? 1 - done
                        : cosine_ ? (1 + std::cos(kPi * done)) / 2
                                  : 1 - std::sqrt(done);
    return min_ratio_ + (1 - min_ratio_) * left;
  }

  void Prepare(int64_t t) override {
    const double before = t == 0 ? 1 : Factor(t - 1);
    // Rounding makes it 0 at the end of a cosine of 10^9 steps.
    ratio_ = before == 0 ? 0 : Factor(t) / before;
  }

  double Next(int64_t t, int group, double value, double base) const override {
    return value * ratio_;
  }

  const int64_t warmup_;
  const int64_t decay_steps_;
  const int64_t decay_begin_;
  const bool linear_;  // Neither: by the square root.
  const bool cosine_;
  const double min_ratio_;
  double ratio_ = 1;  // Of the step that was prepared.
};

GRAPNEL_REGISTER(ParamSchedulerRegistry, WarmupStableDecayScheduler);

}  // namespace
}  // namespace grapnel
