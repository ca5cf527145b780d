// Metrics of callbacks.

#ifndef GRAPNEL_CAPI_METRIC_CALLBACKS_H_
#define GRAPNEL_CAPI_METRIC_CALLBACKS_H_

#include <memory>

#include "absl/status/statusor.h"
#include "grapnel/capi/callbacks.h"
#include "grapnel/grapnel.h"
#include "grapnel/models/metric.h"

namespace grapnel::capi {

// kInvalidArgument for callbacks that aren't as grapnel.h says.
absl::StatusOr<Made<std::unique_ptr<Metric>>> MakeMetric(
    const grapnel_metric_callbacks* callbacks, void* user_data);

}  // namespace grapnel::capi

#endif  // GRAPNEL_CAPI_METRIC_CALLBACKS_H_
