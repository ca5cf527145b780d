#include "grapnel/base/log.h"

#include <glog/logging.h>  // Nowhere else: see base/log.h.

#include <cstdio>
#include <string>

namespace grapnel {

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
