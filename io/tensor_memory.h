// Memory for tensors that are about to be filled from a file.

#ifndef GRAPNEL_IO_TENSOR_MEMORY_H_
#define GRAPNEL_IO_TENSOR_MEMORY_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "c10/core/Storage.h"

namespace grapnel {
namespace io {

// A storage of `num_bytes` on the CPU, not initialized. A large one asks for
// huge pages: the first touch of small ones costs more than a copy of the data.
// kResourceExhausted if there is no memory for it.
absl::StatusOr<c10::Storage> NewTensorMemory(int64_t num_bytes);

}  // namespace io
}  // namespace grapnel

#endif  // GRAPNEL_IO_TENSOR_MEMORY_H_
