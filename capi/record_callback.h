// A run's records that a callback gets.

#ifndef GRAPNEL_CAPI_RECORD_CALLBACK_H_
#define GRAPNEL_CAPI_RECORD_CALLBACK_H_

#include <memory>

#include "grapnel/grapnel.h"
#include "grapnel/loggers/log_backend.h"

namespace grapnel::capi {

std::unique_ptr<LogBackend> MakeRecordBackend(grapnel_record_callback callback,
                                              void* user_data);

}  // namespace grapnel::capi

#endif  // GRAPNEL_CAPI_RECORD_CALLBACK_H_
