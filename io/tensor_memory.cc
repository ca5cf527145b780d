#include "grapnel/io/tensor_memory.h"

#include <sys/mman.h>

#include <cstddef>
#include <cstdlib>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "c10/core/Allocator.h"
#include "c10/core/CPUAllocator.h"
#include "c10/core/Device.h"
#include "c10/core/DispatchKeySet.h"
#include "c10/core/ScalarTypeToTypeMeta.h"
#include "c10/core/TensorImpl.h"
#include "c10/util/intrusive_ptr.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/torch_status.h"

namespace grapnel {
namespace io {
namespace {

constexpr size_t kAlignment = 64;  // LibTorch's own.
constexpr size_t kHugePageSize = 2 << 20;

}  // namespace

absl::StatusOr<c10::Storage> NewTensorMemory(int64_t num_bytes) {
  const auto size = static_cast<size_t>(num_bytes);
  const bool is_large = size >= 2 * kHugePageSize;
  void* memory = nullptr;
  if (size > 0 &&
      ::posix_memalign(&memory, is_large ? kHugePageSize : kAlignment, size) !=
          0) {
    return absl::ResourceExhaustedError(
        absl::StrCat("no memory for ", num_bytes, " bytes"));
  }
  if (is_large) {
    // Whole pages only, so that no more is used than asked for. A kernel
    // without them does without.
    ::madvise(memory, size / kHugePageSize * kHugePageSize, MADV_HUGEPAGE);
  }
  c10::DataPtr data(memory, memory, &std::free, c10::Device(c10::kCPU));
  c10::Storage storage;
  const absl::Status status = CatchAsStatus([&] {
    storage = c10::Storage(c10::Storage::use_byte_size_t(), size,
                           std::move(data), c10::GetCPUAllocator(),
                           /*resizable=*/true);
    return absl::OkStatus();
  });
  if (!status.ok()) return status;
  return storage;
}

absl::StatusOr<at::Tensor> NewTensor(absl::Span<const int64_t> shape,
                                     c10::ScalarType dtype) {
  auto num_bytes = static_cast<int64_t>(c10::elementSize(dtype));
  for (const int64_t size : shape) num_bytes *= size;
  GRAPNEL_ASSIGN_OR_RETURN(c10::Storage storage, NewTensorMemory(num_bytes));
  at::Tensor tensor;
  const absl::Status status = CatchAsStatus([&] {
    auto impl = c10::make_intrusive<c10::TensorImpl>(
        std::move(storage), c10::DispatchKeySet(c10::DispatchKey::CPU),
        c10::scalarTypeToTypeMeta(dtype));
    impl->set_sizes_contiguous({shape.data(), shape.size()});
    tensor = at::Tensor(std::move(impl));
    return absl::OkStatus();
  });
  if (!status.ok()) return status;
  return tensor;
}

}  // namespace io
}  // namespace grapnel
