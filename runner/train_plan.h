// How long training goes on, and when it stops to validate.

#ifndef GRAPNEL_RUNNER_TRAIN_PLAN_H_
#define GRAPNEL_RUNNER_TRAIN_PLAN_H_

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace grapnel::runner::v1 {
class TrainConfig;
}  // namespace grapnel::runner::v1

namespace grapnel {

// A checked TrainConfig. Immutable.
class TrainPlan {
 public:
  // Errors name the field.
  static absl::StatusOr<TrainPlan> Create(
      const runner::v1::TrainConfig& config);

  bool by_epoch() const { return by_epoch_; }

  // Epochs or iterations in all.
  int64_t total() const { return total_; }

  // True if validation is due once `count` epochs, or iterations, are complete:
  // from val_begin on, at multiples of the interval in force at `count`, and at
  // the end.
  bool ValidationDue(int64_t count) const;

  // Whether there is one in a run of `total` epochs or iterations.
  bool AnyValidation(int64_t total) const { return val_begin_ <= total; }

 private:
  TrainPlan() = default;

  bool by_epoch_ = true;
  int64_t total_ = 0;
  int64_t val_begin_ = 1;
  // (first count, interval), ascending; the first one begins at 0.
  std::vector<std::pair<int64_t, int64_t>> intervals_;
};

}  // namespace grapnel

#endif  // GRAPNEL_RUNNER_TRAIN_PLAN_H_
