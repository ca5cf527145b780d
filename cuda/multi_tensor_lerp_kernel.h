// Starts the kernel. No LibTorch here: nvcc takes 10 s longer for its headers.

#ifndef GRAPNEL_CUDA_MULTI_TENSOR_LERP_KERNEL_H_
#define GRAPNEL_CUDA_MULTI_TENSOR_LERP_KERNEL_H_

#include <cuda_runtime_api.h>

#include <cstdint>

#include "grapnel/cuda/lerp_chunk.h"

namespace grapnel {

enum class LerpType { kFloat, kDouble, kHalf, kBFloat16 };

// Adds the kernel to `stream` of the current device and returns without waiting
// for it. `chunks` is memory of that device, valid until the kernel has run;
// `num_chunks` is at least 1; `always_from_dst`: as LerpForm::kAdd.
cudaError_t LaunchMultiTensorLerp(LerpType dst_type, LerpType src_type,
                                  const LerpChunk* chunks, int64_t num_chunks,
                                  double weight, bool always_from_dst,
                                  cudaStream_t stream);

}  // namespace grapnel

#endif  // GRAPNEL_CUDA_MULTI_TENSOR_LERP_KERNEL_H_
