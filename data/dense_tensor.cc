#include "grapnel/data/dense_tensor.h"

#include <cstdint>
#include <cstring>
#include <optional>
#include <utility>

#include "ATen/EmptyTensor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "c10/core/DispatchKeySet.h"
#include "c10/core/ScalarType.h"
#include "c10/core/impl/VirtualGuardImpl.h"

namespace grapnel {
namespace {

// Of the innermost PinnedMemoryScope.
thread_local c10::Allocator* pinned_allocator = nullptr;

// Copies one subarray and returns the end of what was written. `item` is the
// size of an element in bytes.
char* CopyStrided(const char* from, at::IntArrayRef sizes,
                  at::IntArrayRef strides, int64_t item, char* to) {
  if (sizes.empty()) {
    std::memcpy(to, from, item);
    return to + item;
  }
  if (sizes.size() == 1 && strides[0] == 1) {
    std::memcpy(to, from, sizes[0] * item);
    return to + sizes[0] * item;
  }
  for (int64_t i = 0; i < sizes[0]; ++i) {
    to = CopyStrided(from + i * strides[0] * item, sizes.slice(1),
                     strides.slice(1), item, to);
  }
  return to;
}

}  // namespace

PinnedMemoryScope::PinnedMemoryScope(const PinnedMemory& memory)
    : pins_(memory.allocator != nullptr) {
  if (!pins_) return;
  device_before_ = c10::impl::VirtualGuardImpl(memory.device.type())
                       .exchangeDevice(memory.device);
  allocator_before_ = std::exchange(pinned_allocator, memory.allocator);
}

PinnedMemoryScope::~PinnedMemoryScope() {
  if (!pins_) return;
  pinned_allocator = allocator_before_;
  c10::impl::VirtualGuardImpl(device_before_.type())
      .uncheckedSetDevice(device_before_);
}

at::Tensor NewTensor(at::IntArrayRef sizes, at::ScalarType dtype) {
  if (pinned_allocator == nullptr) {
    return at::Tensor(at::detail::empty_cpu(sizes, dtype));
  }
  // Not empty_cpu's pinned memory, which is of one device for all of them.
  return at::Tensor(at::detail::empty_generic(
      sizes, pinned_allocator, c10::DispatchKeySet(c10::DispatchKey::CPU),
      dtype, /*memory_format_opt=*/std::nullopt));
}

absl::Status CheckPlain(const at::Tensor& tensor) {
  if (!tensor.defined()) {
    return absl::InvalidArgumentError("must be defined");
  }
  if (!tensor.device().is_cpu()) {
    return absl::InvalidArgumentError(
        absl::StrCat("must be on the CPU, is on ", tensor.device().str()));
  }
  if (tensor.layout() != at::kStrided || tensor.is_quantized() ||
      tensor.is_conj() || tensor.is_neg()) {
    return absl::InvalidArgumentError(
        absl::StrCat("must be an ordinary dense tensor, is a sparse, "
                     "quantized or lazily conjugated one, ",
                     Describe(tensor)));
  }
  return absl::OkStatus();
}

void CopyElements(const at::Tensor& tensor, void* to) {
  if (tensor.numel() == 0) return;
  if (tensor.is_contiguous()) {
    std::memcpy(to, tensor.const_data_ptr(), tensor.nbytes());
    return;
  }
  CopyStrided(static_cast<const char*>(tensor.const_data_ptr()), tensor.sizes(),
              tensor.strides(), tensor.element_size(), static_cast<char*>(to));
}

at::Tensor Dense(const at::Tensor& tensor) {
  if (tensor.is_contiguous()) return tensor;
  at::Tensor copy = NewTensor(tensor.sizes(), tensor.scalar_type());
  CopyElements(tensor, copy.mutable_data_ptr());
  return copy;
}

std::string Describe(const at::Tensor& tensor) {
  if (!tensor.defined()) return "undefined";
  return absl::StrCat(c10::getDtypeNames(tensor.scalar_type()).first, " (",
                      absl::StrJoin(tensor.sizes(), ", "), ")");
}

}  // namespace grapnel
