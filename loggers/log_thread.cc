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
      // Somebody is in the thread's place, as below.
      while (busy_ && !thread_.joinable()) space_.Wait(&mutex_);
      if (thread_.joinable() || Start()) {
        while (queue_.size() >= kMostWaiting) {
          hurry_ = true;
          work_.Signal();
          space_.Wait(&mutex_);
        }
        queue_.push_back(std::move(work));
        if (idle_) work_.Signal();
        return;
      }
      busy_ = true;
      id_ = std::this_thread::get_id();
      mutex_.Unlock();
      Do(work);
      mutex_.Lock();
      busy_ = false;
      id_ = std::thread::id();
      space_.SignalAll();
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

bool LogThread::Start() {
  // A new thread has its maker's mask: signals are for the process's others.
  // Not those of a fault, which whoever reports crashes waits for.
  sigset_t mask, old;
  sigfillset(&mask);
  for (const int fault : {SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGTRAP}) {
    sigdelset(&mask, fault);
  }
  pthread_sigmask(SIG_SETMASK, &mask, &old);
  const absl::Status status = CatchAsStatus([this] {
    thread_ = std::thread([this] { Loop(); });
    return absl::OkStatus();
  });
  pthread_sigmask(SIG_SETMASK, &old, nullptr);
  if (!status.ok()) return false;
  id_ = thread_.get_id();
  pthread_setname_np(thread_.native_handle(), "grapnel-log");
  return true;
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
    for (const std::function<void()>& work : batch) Do(work);
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
