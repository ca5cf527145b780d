// What the C API's runner is.

#ifndef GRAPNEL_CAPI_RUNNER_HANDLE_H_
#define GRAPNEL_CAPI_RUNNER_HANDLE_H_

#include <atomic>
#include <memory>

#include "grapnel/capi/guard.h"
#include "grapnel/grapnel.h"
#include "grapnel/loggers/run_log.h"
#include "grapnel/runner/runner.h"

struct grapnel_runner : grapnel::capi::Counted {
  std::unique_ptr<grapnel::RunLog> log;  // Of the runner, or null.
  std::unique_ptr<grapnel::Runner> runner;
  // A call on it is going on. What may be called any time doesn't look.
  mutable std::atomic<bool> busy{false};
};

#endif  // GRAPNEL_CAPI_RUNNER_HANDLE_H_
