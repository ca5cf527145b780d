// A thread that writes a run's logs, so that training doesn't wait for them.

#ifndef GRAPNEL_LOGGERS_LOG_THREAD_H_
#define GRAPNEL_LOGGERS_LOG_THREAD_H_

#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "grapnel/loggers/run_log.h"

namespace grapnel {

// Does what it is given, one after the other, in the order it came in, within a
// tenth of a second or so: it looks every 50 ms while there is anything, so
// that giving it something wakes nobody. The thread starts with the first work;
// where the system has no thread to give, the caller does the work. Takes no
// signals but those of its own faults. Safe to use from many threads.
class LogThread {
 public:
  LogThread() = default;
  LogThread(const LogThread&) = delete;
  LogThread& operator=(const LogThread&) = delete;

  // Does what is left.
  ~LogThread();

  // Waits only where more than 1000 are waiting already, behind a disk or a
  // terminal that is stuck. From the thread itself: does it at once. What
  // `work` throws is dropped, with a line in GRAPNEL_LOG.
  void Post(std::function<void()> work);

  // Returns when all that was posted before is done. From the thread itself: at
  // once.
  void Drain();

 private:
  // Both with the mutex held.
  bool OnThread() const { return std::this_thread::get_id() == id_; }
  bool Start();  // False if the system has no thread to give.

  void Loop();

  // std::mutex rather than absl::Mutex, which the thread sanitizer can't see
  // into where Abseil is the system's.
  std::mutex mutex_;
  std::thread thread_ ABSL_GUARDED_BY(mutex_);
  std::thread::id id_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::function<void()>> queue_ ABSL_GUARDED_BY(mutex_);
  bool busy_ ABSL_GUARDED_BY(mutex_) = false;   // With what isn't in queue_.
  bool idle_ ABSL_GUARDED_BY(mutex_) = false;   // It sleeps until it is woken.
  bool hurry_ ABSL_GUARDED_BY(mutex_) = false;  // Somebody waits for it.
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  std::condition_variable work_;   // For the thread.
  std::condition_variable space_;  // For those who wait for it.
};

// A log whose lines go to `log` by way of `thread`. Both outlive it.
class ThreadedRunLog : public RunLog {
 public:
  ThreadedRunLog(RunLog& log, LogThread& thread) : log_(log), thread_(thread) {}

  void Write(Level level, absl::string_view message) override;
  void Warning(absl::string_view message) override;

  // All that was posted to the thread too, records for example.
  absl::Status Flush() override;

  void SetStatusLine(absl::string_view text) override;
  int StatusColumns() override { return log_.StatusColumns(); }

 private:
  RunLog& log_;
  LogThread& thread_;
};

}  // namespace grapnel

#endif  // GRAPNEL_LOGGERS_LOG_THREAD_H_
