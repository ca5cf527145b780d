// What runs are made of, in the C API's handles.

#ifndef GRAPNEL_CAPI_FILL_HANDLES_H_
#define GRAPNEL_CAPI_FILL_HANDLES_H_

#include "absl/status/status.h"
#include "grapnel/capi/handles.h"
#include "grapnel/data/sample.h"
#include "grapnel/models/log_vars.h"
#include "grapnel/models/metric_value.h"
#include "grapnel/models/model.h"

namespace grapnel::capi {

// Each replaces what is in the handle; tensors are shared. kAlreadyExists if a
// name is there twice.

// "input", "target" if there is one, and the extras.
absl::Status FillTensors(const Batch& batch, grapnel_tensors* tensors);

// "output", if there is one, and the losses.
absl::Status FillTensors(const Predictions& predictions,
                         grapnel_tensors* tensors);

// NaN for what isn't one real number. Waits for the device.
absl::Status FillScalars(const LogVars& log_vars, grapnel_scalars* scalars);

// Texts are left out.
absl::Status FillScalars(const Metrics& metrics, grapnel_scalars* scalars);

}  // namespace grapnel::capi

#endif  // GRAPNEL_CAPI_FILL_HANDLES_H_
