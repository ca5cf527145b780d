// Parameters as PyTorch's layers start with them.

#ifndef GRAPNEL_MODELS_LAYERS_DEFAULT_INIT_H_
#define GRAPNEL_MODELS_LAYERS_DEFAULT_INIT_H_

#include "ATen/core/Tensor.h"

namespace grapnel {

// Fills the parameters of a linear or convolutional layer as torch.nn.Linear
// and torch.nn.Conv2d do, drawing as often from the default generator: weight,
// (out, in, ...), uniformly with Kaiming's bound for a slope of sqrt(5), then
// bias, (out) or undefined, uniformly within 1 / sqrt(fan in).
void InitWeightAndBias(at::Tensor weight, at::Tensor bias);

}  // namespace grapnel

#endif  // GRAPNEL_MODELS_LAYERS_DEFAULT_INIT_H_
