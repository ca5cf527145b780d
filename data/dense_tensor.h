// CPU tensors as plain memory.
//
// Samples are made, changed and stacked by plain loops on one thread:
// LibTorch's operators would start a pool of threads for every loader worker,
// and cost more to call than a small sample to copy.

#ifndef GRAPNEL_DATA_DENSE_TENSOR_H_
#define GRAPNEL_DATA_DENSE_TENSOR_H_

#include <string>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"

namespace grapnel {

// A new contiguous CPU tensor, not initialized. As at::empty, without the
// dispatcher. Throws what LibTorch throws when there is no memory.
at::Tensor NewTensor(at::IntArrayRef sizes, at::ScalarType dtype);

// kInvalidArgument unless `tensor` is defined, on the CPU, and its elements lie
// where its strides say.
absl::Status CheckPlain(const at::Tensor& tensor);

// Writes the elements of `tensor`, which is plain, to `to` in row-major order.
void CopyElements(const at::Tensor& tensor, void* to);

// `tensor`, which is plain, itself if it is contiguous, else a contiguous copy.
at::Tensor Dense(const at::Tensor& tensor);

// "float32 (3, 28, 28)", or "undefined".
std::string Describe(const at::Tensor& tensor);

}  // namespace grapnel

#endif  // GRAPNEL_DATA_DENSE_TENSOR_H_
