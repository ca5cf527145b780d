// A runner's options, until there is a runner.

#ifndef GRAPNEL_CAPI_RUNNER_OPTIONS_H_
#define GRAPNEL_CAPI_RUNNER_OPTIONS_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "grapnel/capi/guard.h"
#include "grapnel/grapnel.h"
#include "grapnel/runner/runner.h"
#include "grapnel/runner/runner_config.pb.h"

struct grapnel_runner_options : grapnel::capi::Counted {
  // What was set, with the overrides so far.
  grapnel::runner::v1::RunnerConfig config;
  // Applied to a config that is set later, too.
  std::vector<std::string> overrides;
  grapnel::RunnerOptions core;
  grapnel_log_callback log_callback = nullptr;
  void* log_data = nullptr;
  bool used_up = false;
};

namespace grapnel::capi {

// kInvalidArgument if it is null, kFailedPrecondition if it is used up.
absl::Status CheckOptions(const grapnel_runner_options* options);

}  // namespace grapnel::capi

#endif  // GRAPNEL_CAPI_RUNNER_OPTIONS_H_
