// Where a run's time comes from.

#ifndef GRAPNEL_BASE_CLOCK_H_
#define GRAPNEL_BASE_CLOCK_H_

#include <cstdint>

#include "absl/time/time.h"

namespace grapnel {

// Safe to use from many threads.
class Clock {
 public:
  virtual ~Clock() = default;

  // Nanoseconds since some fixed point. Never goes back.
  virtual int64_t NowNanos() const = 0;

  // The time of day, for names and log lines.
  virtual absl::Time WallTime() const = 0;

  // The system's. Never destroyed.
  static const Clock& System();
};

}  // namespace grapnel

#endif  // GRAPNEL_BASE_CLOCK_H_
