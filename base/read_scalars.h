// Numbers out of tensors.

#ifndef GRAPNEL_BASE_READ_SCALARS_H_
#define GRAPNEL_BASE_READ_SCALARS_H_

#include <vector>

#include "ATen/core/Tensor.h"

namespace grapnel {

// The values of tensors of one real number each, in their order. Waits for each
// device that some are on once, not for each tensor. Throws what LibTorch
// throws.
std::vector<double> ReadScalars(const std::vector<at::Tensor>& scalars);

}  // namespace grapnel

#endif  // GRAPNEL_BASE_READ_SCALARS_H_
