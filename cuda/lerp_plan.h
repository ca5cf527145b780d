// From tensors to the chunks that the kernel is started with. Runs on the host
// and looks at no element, so that it serves, and is tested with, tensors of
// any device.

#ifndef GRAPNEL_CUDA_LERP_PLAN_H_
#define GRAPNEL_CUDA_LERP_PLAN_H_

#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "grapnel/cuda/lerp_chunk.h"
#include "grapnel/cuda/lerp_pair.h"

namespace grapnel {

// What one launch does: all chunks of the pairs of these two types.
struct LerpLaunch {
  at::ScalarType dst_type;
  at::ScalarType src_type;
  std::vector<LerpChunk> chunks;
};

// OK if PlanLerp takes a list of this pair alone, but for its memory's overlap.
absl::Status CheckLerpPair(const LerpPair& pair);

// Launches that together cover every element of `dst` of every pair once, in
// the order that their types first occur in. Empty tensors need none.
//
// kInvalidArgument, naming the pair, if
//   a tensor is undefined, not strided, or of another type than float32,
//     float64, float16 and bfloat16
//   they are not all on one device
//   a pair differs in shape, or in how its elements lie in memory; each must
//     fill its memory without gaps (contiguous, channels last, transposed)
//   the memory of a `dst` overlaps that of another tensor: blocks run in no
//     particular order
absl::StatusOr<std::vector<LerpLaunch>> PlanLerp(
    absl::Span<const LerpPair> pairs);

}  // namespace grapnel

#endif  // GRAPNEL_CUDA_LERP_PLAN_H_
