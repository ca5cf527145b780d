// Parameters as PyTorch's layers start with them.

#ifndef GRAPNEL_MODELS_LAYERS_DEFAULT_INIT_H_
#define GRAPNEL_MODELS_LAYERS_DEFAULT_INIT_H_

#include <cmath>
#include <cstdint>

#include "ATen/core/Generator.h"
#include "ATen/core/Tensor.h"

namespace grapnel {

// Fills the parameters of a linear or convolutional layer as torch.nn.Linear
// and torch.nn.Conv2d do, drawing as often from the generator: weight,
// (out, in, ...), uniformly with Kaiming's bound for a slope of sqrt(5), then
// bias, (out) or undefined, uniformly within 1 / sqrt(fan in).
inline void InitWeightAndBias(at::Tensor weight, at::Tensor bias,
                              const at::Generator& generator) {
  int64_t fan_in = weight.size(1);
  for (int64_t dim = 2; dim < weight.dim(); ++dim) fan_in *= weight.size(dim);

  // In PyTorch's order of operations, so that the bits are the same.
  const double slope = std::sqrt(5.0);
  const double gain = std::sqrt(2.0 / (1 + slope * slope));
  const double deviation = gain / std::sqrt(static_cast<double>(fan_in));
  const double bound = std::sqrt(3.0) * deviation;
  weight.uniform_(-bound, bound, generator);

  if (bias.defined()) {
    const double bias_bound = 1 / std::sqrt(static_cast<double>(fan_in));
    bias.uniform_(-bias_bound, bias_bound, generator);
  }
}

}  // namespace grapnel

#endif  // GRAPNEL_MODELS_LAYERS_DEFAULT_INIT_H_
