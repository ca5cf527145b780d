// What other threads want done with a run while it stands still.

#ifndef GRAPNEL_RUNNER_BORDER_DESK_H_
#define GRAPNEL_RUNNER_BORDER_DESK_H_

#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"

namespace grapnel {

// Between calls of a runner the thread that asks does it itself, and a call
// that begins meanwhile waits. During a call the thread that makes it does it,
// where it passes a border. Safe to use from many threads.
class BorderDesk {
 public:
  enum class Moment {
    kBorder,      // No iteration is under way.
    kEvaluation,  // Behind a batch of an evaluation.
    kHook,        // Anywhere in a call: its own thread asks.
  };

  // Returns false if it can't be done at that moment, which it can at kBorder.
  // Doesn't throw, and doesn't ask the desk for anything.
  using Work = std::function<bool(Moment)>;

  enum class Outcome {
    kDone,
    kNotNow,  // Of kHook: waiting would be for ever.
    kClosed,
  };

  // Returns when it is done: at once, or else at a border or at the end of the
  // call that is going on.
  Outcome Do(const Work& work);

  // While it lives the runner's state is this thread's. Those of one thread
  // nest; that of another thread waits.
  class Call {
   public:
    explicit Call(BorderDesk* desk) : desk_(desk) { desk_->BeginCall(); }
    Call(const Call&) = delete;
    Call& operator=(const Call&) = delete;
    ~Call() { desk_->EndCall(); }

   private:
    BorderDesk* const desk_;
  };

  // Within a call: does what waits. Costs a load if nothing does.
  void AtBorder() { Pass(Moment::kBorder); }
  void AtEvaluationBorder() { Pass(Moment::kEvaluation); }

  // From now on Do gives kClosed. What is being done is done first.
  void Close();

 private:
  struct Request {
    const Work* work;
    bool done = false;
  };

  void BeginCall();
  void EndCall();
  void Pass(Moment moment) {
    if (waiting_.load(std::memory_order_relaxed)) Serve(moment);
  }
  void Serve(Moment moment);

  bool IsMine() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return depth_ > 0 && holder_ == std::this_thread::get_id();
  }
  // Calls go before those who ask between them, or these could keep the run
  // from going on.
  bool IsFree() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return depth_ == 0 && calls_waiting_ == 0;
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::thread::id holder_ ABSL_GUARDED_BY(mutex_);
  int depth_ ABSL_GUARDED_BY(mutex_) = 0;  // Of the holder's calls.
  int calls_waiting_ ABSL_GUARDED_BY(mutex_) = 0;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  // On the stacks of those who wait.
  std::vector<Request*> requests_ ABSL_GUARDED_BY(mutex_);
  std::atomic<bool> waiting_{false};  // There are requests.
};

}  // namespace grapnel

#endif  // GRAPNEL_RUNNER_BORDER_DESK_H_
