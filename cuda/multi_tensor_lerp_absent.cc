// In place of multi_tensor_lerp.cc, where there is no --config=cuda.

#include "grapnel/cuda/multi_tensor_lerp.h"

namespace grapnel {

bool MultiTensorLerp::IsBuiltIn() { return false; }

bool MultiTensorLerp::Takes(const LerpPair& pair) { return false; }

absl::StatusOr<std::unique_ptr<MultiTensorLerp>> MultiTensorLerp::Create(
    std::vector<LerpPair> pairs) {
  return absl::UnimplementedError(
      "built without CUDA kernels: build with --config=cuda");
}

}  // namespace grapnel
