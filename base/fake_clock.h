// A clock for tests: time passes when somebody looks.

#ifndef GRAPNEL_BASE_FAKE_CLOCK_H_
#define GRAPNEL_BASE_FAKE_CLOCK_H_

#include <atomic>
#include <cstdint>

#include "absl/time/civil_time.h"
#include "grapnel/base/clock.h"

namespace grapnel {

// Each NowNanos() comes `step` after the one before. The time of day stands
// still at 2026-01-02 03:04:05, local time.
class FakeClock : public Clock {
 public:
  explicit FakeClock(absl::Duration step = absl::ZeroDuration())
      : step_(absl::ToInt64Nanoseconds(step)) {}

  int64_t NowNanos() const override { return now_ += step_; }
  absl::Time WallTime() const override { return wall; }

  void Advance(absl::Duration by) { now_ += absl::ToInt64Nanoseconds(by); }

  absl::Time wall = absl::FromCivil(absl::CivilSecond(2026, 1, 2, 3, 4, 5),
                                    absl::LocalTimeZone());

 private:
  const int64_t step_;
  mutable std::atomic<int64_t> now_{0};
};

}  // namespace grapnel

#endif  // GRAPNEL_BASE_FAKE_CLOCK_H_
