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
#include "c10/core/Allocator.h"
#include "c10/core/Device.h"

namespace grapnel {

// Memory of the host that a device reads without the host's help.
struct PinnedMemory {
  // Of the device's backend; null: it has none, and plain memory stands for it.
  c10::Allocator* allocator = nullptr;

  // The device that must be the thread's current one while it allocates, or it
  // may claim memory of another.
  c10::Device device = c10::DeviceType::CPU;
};

// While it lives, NewTensor on this thread takes that memory: for the batch,
// not for the samples that it is made of.
class PinnedMemoryScope {
 public:
  // Throws what LibTorch throws if there is no such device.
  explicit PinnedMemoryScope(const PinnedMemory& memory);
  ~PinnedMemoryScope();
  PinnedMemoryScope(const PinnedMemoryScope&) = delete;
  PinnedMemoryScope& operator=(const PinnedMemoryScope&) = delete;

 private:
  const bool pins_;
  c10::Device device_before_ = c10::DeviceType::CPU;
  c10::Allocator* allocator_before_ = nullptr;
};

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
