// A tensor of an averaged model, and the tensor that it averages.

#ifndef GRAPNEL_CUDA_LERP_PAIR_H_
#define GRAPNEL_CUDA_LERP_PAIR_H_

#include "ATen/core/Tensor.h"

namespace grapnel {

// `dst` is moved towards `src`: dst += weight * (src - dst).
struct LerpPair {
  at::Tensor dst;
  at::Tensor src;
};

// How the sum is rounded.
enum class LerpForm {
  // As at::lerp_, from the nearer end, so that weight 1 gives `src`:
  // src + (weight - 1) * (src - dst) if |weight| >= 0.5.
  kLerp,
  // As dst.add_(src - dst, weight).
  kAdd,
};

}  // namespace grapnel

#endif  // GRAPNEL_CUDA_LERP_PAIR_H_
