// A run's log that a callback gets.

#ifndef GRAPNEL_CAPI_CALLBACK_RUN_LOG_H_
#define GRAPNEL_CAPI_CALLBACK_RUN_LOG_H_

#include <memory>

#include "grapnel/grapnel.h"
#include "grapnel/loggers/run_log.h"

namespace grapnel::capi {

// Hands the lines from `level` on to `callback`, one after the other, as UTF-8,
// and those of all levels to `terminal`, if it isn't null.
std::unique_ptr<RunLog> MakeRunLog(grapnel_log_callback callback,
                                   void* user_data, RunLog::Level level,
                                   std::unique_ptr<RunLog> terminal);

}  // namespace grapnel::capi

#endif  // GRAPNEL_CAPI_CALLBACK_RUN_LOG_H_
