#include "grapnel/base/clock.h"

#include <chrono>

#include "absl/time/clock.h"

namespace grapnel {
namespace {

class SystemClock final : public Clock {
 public:
  int64_t NowNanos() const override {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(
               std::chrono::steady_clock::now().time_since_epoch())
        .count();
  }
  absl::Time WallTime() const override { return absl::Now(); }
};

}  // namespace

const Clock& Clock::System() {
  static const Clock& clock = *new SystemClock;
  return clock;
}

}  // namespace grapnel
