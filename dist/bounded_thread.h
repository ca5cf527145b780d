// Calls that may never return.

#ifndef GRAPNEL_DIST_BOUNDED_THREAD_H_
#define GRAPNEL_DIST_BOUNDED_THREAD_H_

#include <atomic>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace grapnel {

// A thread that runs one call after another for threads that can't wait for
// ever: c10d's store has no limit of its own for a peer that is stopped. Safe
// to use from many threads.
class BoundedThread {
 public:
  // `name`: at most 15 characters. kResourceExhausted if there is no thread.
  static absl::StatusOr<std::unique_ptr<BoundedThread>> Start(
      const std::string& name);

  // Leaves a call that is late to itself.
  ~BoundedThread();

  BoundedThread(const BoundedThread&) = delete;
  BoundedThread& operator=(const BoundedThread&) = delete;

  // What `call` returns or, as a status, throws. kDeadlineExceeded if it isn't
  // done within `limit`, kCancelled once `interrupt`, which may be null, isn't
  // 0: it goes on by itself then, so that it has to own what it uses, and every
  // later Run fails at once. `call` must not be empty.
  absl::Status Run(std::function<absl::Status()> call, absl::Duration limit,
                   const std::atomic<int>* interrupt = nullptr);

 private:
  struct State;

  explicit BoundedThread(std::shared_ptr<State> state);

  const std::shared_ptr<State> state_;  // The thread's too.
};

}  // namespace grapnel

#endif  // GRAPNEL_DIST_BOUNDED_THREAD_H_
