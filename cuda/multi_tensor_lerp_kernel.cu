#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "grapnel/cuda/multi_tensor_lerp_kernel.h"
#include "grapnel/cuda/multi_tensor_lerp_thread.h"

namespace grapnel {
namespace {

using internal_multi_tensor_lerp::Formula;
using internal_multi_tensor_lerp::kThreads;
using internal_multi_tensor_lerp::Math;
using internal_multi_tensor_lerp::UpdateAsThread;

// One block a chunk.
template <typename Dst, typename Src>
__global__ void __launch_bounds__(kThreads)
    LerpKernel(const LerpChunk* chunks, Formula<Math<Dst, Src>> formula) {
  // A copy: else what is stored might be the chunk itself, and it is read
  // again.
  const LerpChunk chunk = chunks[blockIdx.x];
  UpdateAsThread<Dst, Src>(chunk, threadIdx.x, formula);
}

struct Launch {
  const LerpChunk* chunks;
  unsigned int num_chunks;
  double weight;
  bool always_from_dst;
  cudaStream_t stream;

  template <typename Dst, typename Src>
  void Start() const {
    LerpKernel<Dst, Src><<<num_chunks, kThreads, 0, stream>>>(
        chunks, Formula<Math<Dst, Src>>(weight, always_from_dst));
  }

  template <typename Dst>
  void StartWithDst(LerpType src_type) const {
    switch (src_type) {
      case LerpType::kFloat:
        return Start<Dst, float>();
      case LerpType::kDouble:
        return Start<Dst, double>();
      case LerpType::kHalf:
        return Start<Dst, __half>();
      case LerpType::kBFloat16:
        return Start<Dst, __nv_bfloat16>();
    }
  }

  void StartWithTypes(LerpType dst_type, LerpType src_type) const {
    switch (dst_type) {
      case LerpType::kFloat:
        return StartWithDst<float>(src_type);
      case LerpType::kDouble:
        return StartWithDst<double>(src_type);
      case LerpType::kHalf:
        return StartWithDst<__half>(src_type);
      case LerpType::kBFloat16:
        return StartWithDst<__nv_bfloat16>(src_type);
    }
  }
};

}  // namespace

cudaError_t LaunchMultiTensorLerp(LerpType dst_type, LerpType src_type,
                                  const LerpChunk* chunks, int64_t num_chunks,
                                  double weight, bool always_from_dst,
                                  cudaStream_t stream) {
  // The grid's limit: 2^31 - 1 chunks are 1.7e13 elements.
  if (num_chunks < 1 || num_chunks > INT32_MAX) return cudaErrorInvalidValue;
  Launch{chunks, static_cast<unsigned int>(num_chunks), weight, always_from_dst,
         stream}
      .StartWithTypes(dst_type, src_type);
  return cudaGetLastError();
}

}  // namespace grapnel
