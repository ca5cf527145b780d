#include "grapnel/loggers/log_thread.h"

#include <chrono>
#include <cstddef>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "grapnel/base/log.h"
#include "grapnel/base/thread.h"
#include "grapnel/base/torch_status.h"

namespace grapnel {
namespace {

constexpr size_t kMostWaiting = 1000;
constexpr std::chrono::milliseconds kPause(50);

void Do(const std::function<void()>& work) {
  const absl::Status status = CatchAsStatus([&] {
    work();
    return absl::OkStatus();
  });
  if (!status.ok()) {
    GRAPNEL_LOG(WARNING) << "log thread: " << status.message();
  }
}

}  // namespace

LogThread::~LogThread() {
  std::thread thread;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
    work_.notify_one();
    thread = std::move(thread_);
  }
  if (thread.joinable()) thread.join();
}

void LogThread::Post(std::function<void()> work) {
  {
    std::unique_lock<std::mutex> lock(mutex_);
    if (!OnThread()) {
      // Somebody is in the thread's place, as below.
      while (busy_ && !thread_.joinable()) space_.wait(lock);
      if (thread_.joinable() || Start()) {
        while (queue_.size() >= kMostWaiting) {
          hurry_ = true;
          work_.notify_one();
          space_.wait(lock);
        }
        queue_.push_back(std::move(work));
        if (idle_) work_.notify_one();
        return;
      }
      busy_ = true;
      id_ = std::this_thread::get_id();
      lock.unlock();
      Do(work);
      lock.lock();
      busy_ = false;
      id_ = std::thread::id();
      space_.notify_all();
      return;
    }
  }
  work();
}

void LogThread::Drain() {
  std::unique_lock<std::mutex> lock(mutex_);
  if (OnThread()) return;
  while (busy_ || !queue_.empty()) {
    hurry_ = true;
    work_.notify_one();
    space_.wait(lock);
  }
}

bool LogThread::Start() {
  absl::StatusOr<std::thread> thread =
      StartThread("grapnel-log", [this] { Loop(); });
  if (!thread.ok()) return false;
  thread_ = *std::move(thread);
  id_ = thread_.get_id();
  return true;
}

void LogThread::Loop() {
  std::vector<std::function<void()>> batch;
  std::unique_lock<std::mutex> lock(mutex_);
  while (true) {
    while (queue_.empty() && !stop_) {
      idle_ = true;
      work_.wait(lock);
      idle_ = false;
    }
    if (queue_.empty()) return;
    batch.swap(queue_);
    busy_ = true;
    hurry_ = false;
    lock.unlock();
    for (const std::function<void()>& work : batch) Do(work);
    batch.clear();  // Keeps its memory.
    lock.lock();
    busy_ = false;
    space_.notify_all();
    if (!hurry_ && !stop_) work_.wait_for(lock, kPause);
  }
}

void ThreadedRunLog::Write(Level level, absl::string_view message) {
  thread_.Post(
      [this, level, text = std::string(message)] { log_.Write(level, text); });
}

void ThreadedRunLog::Warning(absl::string_view message) {
  thread_.Post([this, text = std::string(message)] { log_.Warning(text); });
}

void ThreadedRunLog::SetStatusLine(absl::string_view text) {
  thread_.Post([this, text = std::string(text)] { log_.SetStatusLine(text); });
}

absl::Status ThreadedRunLog::Flush() {
  thread_.Drain();
  return log_.Flush();
}

}  // namespace grapnel
