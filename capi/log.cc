#include "grapnel/base/log.h"

#include <type_traits>

#include "grapnel/grapnel.h"

static_assert(std::is_same_v<grapnel_log_callback, grapnel::LogSink>);
static_assert(GRAPNEL_INFO == static_cast<int>(grapnel::LogSeverity::INFO_));
static_assert(GRAPNEL_WARNING ==
              static_cast<int>(grapnel::LogSeverity::WARNING_));
static_assert(GRAPNEL_ERROR == static_cast<int>(grapnel::LogSeverity::ERROR_));

void grapnel_set_log_callback(grapnel_log_callback callback, void* user_data) {
  grapnel::SetLogSink(callback, user_data);
}
