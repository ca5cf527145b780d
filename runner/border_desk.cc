#include "grapnel/runner/border_desk.h"

#include <algorithm>
#include <cstddef>

namespace grapnel {

BorderDesk::Outcome BorderDesk::Do(const Work& work) {
  std::unique_lock<std::mutex> lock(mutex_);
  if (!closed_ && IsMine()) {
    lock.unlock();
    return work(Moment::kHook) ? Outcome::kDone : Outcome::kNotNow;
  }
  Request request{&work};
  if (!closed_ && !IsFree()) {
    requests_.push_back(&request);
    waiting_.store(true, std::memory_order_relaxed);
    changed_.wait(lock, [&] { return request.done || closed_ || IsFree(); });
    if (request.done) return Outcome::kDone;
    requests_.erase(std::find(requests_.begin(), requests_.end(), &request));
    waiting_.store(!requests_.empty(), std::memory_order_relaxed);
  }
  if (closed_) return Outcome::kClosed;
  holder_ = std::this_thread::get_id();
  depth_ = 1;
  lock.unlock();
  work(Moment::kBorder);
  EndCall();
  return Outcome::kDone;
}

void BorderDesk::BeginCall() {
  std::unique_lock<std::mutex> lock(mutex_);
  if (!IsMine()) {
    ++calls_waiting_;
    changed_.wait(lock, [this] { return depth_ == 0; });
    --calls_waiting_;
    holder_ = std::this_thread::get_id();
  }
  ++depth_;
}

void BorderDesk::EndCall() {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (--depth_ == 0) changed_.notify_all();
}

void BorderDesk::Serve(Moment moment) {
  std::unique_lock<std::mutex> lock(mutex_);
  // Those that come meanwhile are the next border's, so that this one ends.
  size_t next = 0;
  for (size_t left = requests_.size(); left > 0; --left) {
    Request* const request = requests_[next];
    lock.unlock();
    const bool done = (*request->work)(moment);
    lock.lock();
    if (!done) {
      ++next;
      continue;
    }
    request->done = true;
    requests_.erase(requests_.begin() + static_cast<std::ptrdiff_t>(next));
  }
  waiting_.store(!requests_.empty(), std::memory_order_relaxed);
  changed_.notify_all();
}

void BorderDesk::Close() {
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait(lock, [this] { return depth_ == 0; });
  closed_ = true;
  changed_.notify_all();
}

}  // namespace grapnel
