#include "grapnel/loggers/log_thread.h"

#include <pthread.h>
#include <signal.h>

#include <cstddef>
#include <string>
#include <utility>

#include "absl/time/time.h"
#include "grapnel/base/log.h"
#include "grapnel/base/torch_status.h"

namespace grapnel {
namespace {

constexpr size_t kMostWaiting = 1000;
constexpr absl::Duration kPause = absl::Milliseconds(50);

}  // namespace

LogThread::~LogThread() {
  std::thread thread;
  {
    absl::MutexLock lock(&mutex_);
    stop_ = true;
    work_.Signal();
    thread = std::move(thread_);
  }
  if (thread.joinable()) thread.join();
}

void LogThread::Post(std::function<void()> work) {
  {
    absl::MutexLock lock(&mutex_);
    if (!OnThread()) {
      if (!thread_.joinable()) Start();
      while (queue_.size() >= kMostWaiting) {
        hurry_ = true;
        work_.Signal();
        space_.Wait(&mutex_);
      }
      queue_.push_back(std::move(work));
      if (idle_) work_.Signal();
      return;
    }
  }
  work();
}

void LogThread::Drain() {
  absl::MutexLock lock(&mutex_);
  if (OnThread()) return;
  while (busy_ || !queue_.empty()) {
    hurry_ = true;
    work_.Signal();
    space_.Wait(&mutex_);
  }
}

void LogThread::Start() {
  // A new thread has its maker's mask: signals are for the process's others.
  sigset_t all, old;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &old);
  thread_ = std::thread([this] { Loop(); });
  pthread_sigmask(SIG_SETMASK, &old, nullptr);
  id_ = thread_.get_id();
  pthread_setname_np(thread_.native_handle(), "grapnel-log");
}

void LogThread::Loop() {
  std::vector<std::function<void()>> batch;
  absl::MutexLock lock(&mutex_);
  while (true) {
    while (queue_.empty() && !stop_) {
      idle_ = true;
      work_.Wait(&mutex_);
      idle_ = false;
    }
    if (queue_.empty()) return;
    batch.swap(queue_);
    busy_ = true;
    hurry_ = false;
    mutex_.Unlock();
    for (std::function<void()>& work : batch) {
      const absl::Status status = CatchAsStatus([&] {
        work();
        return absl::OkStatus();
      });
      if (!status.ok()) {
        GRAPNEL_LOG(WARNING) << "log thread: " << status.message();
      }
    }
    batch.clear();  // Keeps its memory.
    mutex_.Lock();
    busy_ = false;
    space_.SignalAll();
    if (!hurry_ && !stop_) work_.WaitWithTimeout(&mutex_, kPause);
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
