// What most transforms take.

#ifndef GRAPNEL_DATA_FLOAT_IMAGE_H_
#define GRAPNEL_DATA_FLOAT_IMAGE_H_

#include "ATen/core/Tensor.h"
#include "absl/status/statusor.h"
#include "grapnel/data/sample.h"

namespace grapnel {

// The sample's input if it is float32 (C, H, W), H and W >= 1, on the CPU; a
// copy if it isn't contiguous. Not to be written to. Else kInvalidArgument,
// which names dtype and shape.
absl::StatusOr<at::Tensor> FloatImage(const Sample& sample);

}  // namespace grapnel

#endif  // GRAPNEL_DATA_FLOAT_IMAGE_H_
