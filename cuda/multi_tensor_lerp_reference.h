// What the kernel has to compute, as a plain loop on the CPU.

#ifndef GRAPNEL_CUDA_MULTI_TENSOR_LERP_REFERENCE_H_
#define GRAPNEL_CUDA_MULTI_TENSOR_LERP_REFERENCE_H_

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "grapnel/cuda/lerp_pair.h"

namespace grapnel {

// Moves each `dst` towards its `src`, with a fused multiply-add in float32, or
// in float64 if either tensor is float64, rounded once to the type of `dst`.
//
// With both of one type these are the bits of dst.lerp_(src, weight), or of
// dst.add_(src - dst, weight) for float32 and float64, on a CPU with AVX2 or
// AVX-512. kInvalidArgument for pairs that PlanLerp
// (lerp_plan.h) refuses, and for tensors that are not on the CPU.
absl::Status ReferenceLerp(absl::Span<const LerpPair> pairs, double weight,
                           LerpForm form = LerpForm::kLerp);

}  // namespace grapnel

#endif  // GRAPNEL_CUDA_MULTI_TENSOR_LERP_REFERENCE_H_
