#include "grapnel/base/log.h"

#include <glog/logging.h>  // Nowhere else: see base/log.h.

#include <condition_variable>
#include <cstdio>
#include <mutex>
#include <new>
#include <string>

#include "grapnel/base/utf8.h"

namespace grapnel {
namespace {

// How many calls of sinks this thread is in.
thread_local int sink_depth = 0;

// The sink, and who is in it.
class SinkSlot {
 public:
  // Never destroyed: threads may log while the process ends.
  static SinkSlot& Get() {
    static SinkSlot& slot = *new SinkSlot;
    return slot;
  }

  void Set(LogSink sink, void* data) {
    if (sink_depth > 0) {
      // Waiting would be for oneself, and for others who wait likewise.
      const std::lock_guard<std::mutex> lock(mu_);
      sink_ = sink;
      data_ = data;
      return;
    }
    // One at a time, so that all calls that are counted under the other parity
    // have ended.
    const std::lock_guard<std::mutex> setting(setting_mu_);
    std::unique_lock<std::mutex> lock(mu_);
    sink_ = sink;
    data_ = data;
    const int before = parity_;
    parity_ = 1 - before;
    idle_.wait(lock, [&] { return running_[before] == 0; });
  }

  // False if there is no sink.
  bool Send(int severity, const std::string& text) {
    std::unique_lock<std::mutex> lock(mu_);
    if (sink_ == nullptr) return false;
    if (sink_depth > 0) return true;
    const LogSink sink = sink_;
    void* const data = data_;
    const int parity = parity_;
    ++running_[parity];
    lock.unlock();
    ++sink_depth;
    sink(data, severity, text.data(), text.size());
    --sink_depth;
    lock.lock();
    if (--running_[parity] == 0) idle_.notify_all();
    return true;
  }

 private:
  std::mutex setting_mu_;
  std::mutex mu_;
  std::condition_variable idle_;
  LogSink sink_ = nullptr;
  void* data_ = nullptr;
  // Calls that began before the last Set that waited, and since, in turn.
  int parity_ = 0;
  int running_[2] = {0, 0};
};

}  // namespace

void SetLogSink(LogSink sink, void* data) { SinkSlot::Get().Set(sink, data); }

void InitLogging(const char* argv0) {
  if (google::IsGoogleLoggingInitialized()) return;
  FLAGS_logtostderr = true;
  google::InitGoogleLogging(argv0);
}

namespace internal_log {

static_assert(static_cast<int>(LogSeverity::INFO_) == google::GLOG_INFO, "");
static_assert(static_cast<int>(LogSeverity::FATAL_) == google::GLOG_FATAL, "");

bool VlogIsOn(int level) { return level <= FLAGS_v; }

// Where glog itself would complain first that nobody has set it up.
class StderrSink final : public google::LogSink {
 public:
  void send(google::LogSeverity severity, const char*, const char* base_name,
            int line, const google::LogMessageTime& time, const char* message,
            size_t size) override {
    const std::string text =
        ToString(severity, base_name, line, time, message, size) + "\n";
    std::fwrite(text.data(), 1, text.size(), stderr);
  }
};

Message::~Message() {
  const int severity = static_cast<int>(severity_);
  if (severity_ != LogSeverity::FATAL_) {
    try {
      std::string text = EscapeToUtf8(stream_.str());
      if (!text.empty() && text.back() == '\n') text.pop_back();
      if (SinkSlot::Get().Send(severity, text)) return;
    } catch (const std::bad_alloc&) {
      return;  // No memory for a message: it is lost, and nothing else.
    }
  }
  // Only glog's own way ends the process.
  if (severity_ == LogSeverity::FATAL_ ||
      google::IsGoogleLoggingInitialized()) {
    google::LogMessage(file_, line_, severity).stream() << stream_.str();
    return;
  }
  StderrSink sink;
  google::LogMessage(file_, line_, severity, &sink,
                     /*also_send_to_log=*/false)
          .stream()
      << stream_.str();
}

}  // namespace internal_log
}  // namespace grapnel
