#include "grapnel/base/log.h"

#include <glog/logging.h>  // Nowhere else: see base/log.h.

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

Message::~Message() {
  google::LogMessage(file_, line_, static_cast<int>(severity_)).stream()
      << stream_.str();
}

}  // namespace internal_log
}  // namespace grapnel
