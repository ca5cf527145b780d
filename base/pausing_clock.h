// A clock that can stand still.

#ifndef GRAPNEL_BASE_PAUSING_CLOCK_H_
#define GRAPNEL_BASE_PAUSING_CLOCK_H_

#include <atomic>
#include <cstdint>

#include "absl/time/time.h"
#include "grapnel/base/clock.h"

namespace grapnel {

// Goes as another one does while a Running lives, and stands still else. The
// time of day is always the other's. Safe to use from many threads, but for
// set_base and Running, which are for one thread at a time.
class PausingClock final : public Clock {
 public:
  // Not owned.
  void set_base(const Clock* base) { base_ = base; }

  int64_t NowNanos() const override {
    const int64_t stood = stood_nanos_.load(std::memory_order_relaxed);
    return stood >= 0 ? stood
                      : base_->NowNanos() -
                            paused_nanos_.load(std::memory_order_relaxed);
  }
  absl::Time WallTime() const override { return base_->WallTime(); }

  class Running {
   public:
    explicit Running(PausingClock* clock) : clock_(clock) {
      clock_->paused_nanos_ = clock_->base_->NowNanos() - clock_->stood_nanos_;
      clock_->stood_nanos_ = -1;
    }
    ~Running() { clock_->stood_nanos_ = clock_->NowNanos(); }

    Running(const Running&) = delete;
    Running& operator=(const Running&) = delete;

   private:
    PausingClock* const clock_;
  };

 private:
  const Clock* base_ = &Clock::System();
  std::atomic<int64_t> stood_nanos_{0};  // What it shows; < 0 while it goes.
  std::atomic<int64_t> paused_nanos_{0};
};

}  // namespace grapnel

#endif  // GRAPNEL_BASE_PAUSING_CLOCK_H_
