// Memory for tensors that are about to be filled from a file.

#ifndef GRAPNEL_IO_TENSOR_MEMORY_H_
#define GRAPNEL_IO_TENSOR_MEMORY_H_

#include <cstdint>

#include "ATen/core/Tensor.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "c10/core/ScalarType.h"
#include "c10/core/Storage.h"

namespace grapnel {
namespace io {

// A storage of `num_bytes` on the CPU, not initialized. A large one asks for
// huge pages: the first touch of small ones costs more than a copy of the data.
// kResourceExhausted if there is no memory for it.
absl::StatusOr<c10::Storage> NewTensorMemory(int64_t num_bytes);

// A contiguous tensor in such memory. `shape` has no negative size, and its
// bytes are at most 2^63 - 1.
absl::StatusOr<at::Tensor> NewTensor(absl::Span<const int64_t> shape,
                                     c10::ScalarType dtype);

}  // namespace io
}  // namespace grapnel

#endif  // GRAPNEL_IO_TENSOR_MEMORY_H_
