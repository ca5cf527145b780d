// Datasets of callbacks, and of tensors.

#ifndef GRAPNEL_CAPI_DATASET_CALLBACKS_H_
#define GRAPNEL_CAPI_DATASET_CALLBACKS_H_

#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "grapnel/capi/callbacks.h"
#include "grapnel/capi/handles.h"
#include "grapnel/data/dataset.h"
#include "grapnel/data/sample.h"
#include "grapnel/grapnel.h"

namespace grapnel::capi {

// kInvalidArgument for callbacks that aren't as grapnel.h says.
absl::StatusOr<Made<std::unique_ptr<Dataset>>> MakeDataset(
    const grapnel_dataset_callbacks* callbacks, void* user_data);

// What a callback gave for a sample: "input", "target" and extras.
// kInvalidArgument, naming the tensor, if one isn't on the CPU, or there is no
// "input".
absl::Status ReadSample(grapnel_tensors& given, Sample* sample);

// The rows of tensors. kInvalidArgument, naming the tensor, if one isn't on the
// CPU or hasn't as many rows as the others, or there is no "input".
absl::StatusOr<std::unique_ptr<Dataset>> MakeDataset(
    const grapnel_tensors& tensors);

}  // namespace grapnel::capi

#endif  // GRAPNEL_CAPI_DATASET_CALLBACKS_H_
