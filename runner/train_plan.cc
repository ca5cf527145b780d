#include "grapnel/runner/train_plan.h"

#include "absl/strings/str_cat.h"
#include "grapnel/runner/runner_config.pb.h"

namespace grapnel {
namespace {

constexpr int64_t kDefaultEpochInterval = 1;
constexpr int64_t kDefaultIterInterval = 1000;

absl::Status AtLeast(absl::string_view field, int64_t value, int64_t least) {
  if (value >= least) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(field, ": must be >= ", least, ", is ", value));
}

}  // namespace

absl::StatusOr<TrainPlan> TrainPlan::Create(
    const runner::v1::TrainConfig& config) {
  TrainPlan plan;
  plan.by_epoch_ = !config.has_by_epoch() || config.by_epoch();
  const char* const total = plan.by_epoch_ ? "max_epochs" : "max_iters";
  if (plan.by_epoch_ ? config.has_max_iters() : config.has_max_epochs()) {
    return absl::InvalidArgumentError(absl::StrCat(
        plan.by_epoch_ ? "max_iters" : "max_epochs",
        ": must be unset with by_epoch: ", plan.by_epoch_ ? "true" : "false",
        "; set ", total));
  }
  if (plan.by_epoch_ ? !config.has_max_epochs() : !config.has_max_iters()) {
    return absl::InvalidArgumentError(absl::StrCat(total, ": must be set"));
  }
  plan.total_ = plan.by_epoch_ ? config.max_epochs() : config.max_iters();
  if (auto s = AtLeast(total, plan.total_, 1); !s.ok()) return s;

  if (config.has_val_begin()) plan.val_begin_ = config.val_begin();
  if (auto s = AtLeast("val_begin", plan.val_begin_, 0); !s.ok()) return s;

  const int64_t interval = config.has_val_interval() ? config.val_interval()
                           : plan.by_epoch_          ? kDefaultEpochInterval
                                                     : kDefaultIterInterval;
  if (auto s = AtLeast("val_interval", interval, 1); !s.ok()) return s;
  plan.intervals_.emplace_back(0, interval);
  for (int i = 0; i < config.dynamic_intervals_size(); ++i) {
    const auto& dynamic = config.dynamic_intervals(i);
    const std::string field = absl::StrCat("dynamic_intervals[", i, "]: ");
    if (auto s = AtLeast(field + "milestone", dynamic.milestone(),
                         plan.intervals_.back().first + 1);
        !s.ok()) {
      return s;
    }
    if (auto s = AtLeast(field + "interval", dynamic.interval(), 1); !s.ok()) {
      return s;
    }
    plan.intervals_.emplace_back(dynamic.milestone(), dynamic.interval());
  }
  return plan;
}

bool TrainPlan::ValidationDue(int64_t count) const {
  if (count < val_begin_) return false;
  if (count == total_) return true;
  int64_t interval = 1;
  for (const auto& [first, value] : intervals_) {
    if (first <= count) interval = value;
  }
  return count % interval == 0;
}

}  // namespace grapnel
