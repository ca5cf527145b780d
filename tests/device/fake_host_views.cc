#include "grapnel/tests/device/fake_host_views.h"

#include <cstring>
#include <optional>
#include <utility>

#include "ATen/EmptyTensor.h"
#include "c10/core/Allocator.h"
#include "c10/core/CPUAllocator.h"
#include "c10/core/DispatchKeySet.h"
#include "c10/core/TensorImpl.h"
#include "c10/util/Exception.h"
#include "grapnel/tests/device/fake_memory.h"
#include "grapnel/tests/device/fake_streams.h"

namespace grapnel {
namespace internal_fake_device {
namespace {

void CheckStrided(const at::Tensor& tensor) {
  TORCH_CHECK(tensor.layout() == at::kStrided,
              "fake device: it has strided tensors only, is ", tensor.layout());
}

// As `form` is of the view of `tensor`.
at::Tensor ViewOf(const at::Tensor& tensor, const at::Tensor& form) {
  at::Tensor view = at::detail::make_tensor<c10::TensorImpl>(
      c10::TensorImpl::VIEW, c10::Storage(tensor.storage()), tensor.key_set(),
      tensor.dtype());
  view.unsafeGetTensorImpl()->set_sizes_and_strides(
      form.sizes(), form.strides(), form.storage_offset());
  return view;
}

void* Base(const c10::Storage& storage) { return storage.data_ptr().get(); }

}  // namespace

at::Tensor EmptyOnDevice(at::IntArrayRef sizes, at::IntArrayRef strides,
                         at::ScalarType type, c10::Device device) {
  const OnDevice on(device.index());
  return at::detail::empty_strided_generic(
      sizes, strides, c10::GetAllocator(kType),
      c10::DispatchKeySet(c10::DispatchKey::PrivateUse1), type);
}

HostViews::~HostViews() {
  if (work_ == nullptr) return;
  for (const Opened& opened : opened_) CloseBlock(opened.base);
}

const c10::Storage& HostViews::Open(const c10::Storage& storage) {
  for (const Opened& opened : opened_) {
    if (opened.storage.is_alias_of(storage)) return opened.view;
  }
  void* const base = Base(storage);
  if (work_ != nullptr) {
    work_->Reads(base);
    OpenBlock(base);
  }
  // With the CPU's allocator: an operator that needs more takes other memory,
  // and Resize() brings it back.
  c10::Storage view(c10::Storage::use_byte_size_t(), storage.nbytes(),
                    c10::DataPtr(base, c10::Device(c10::DeviceType::CPU)),
                    c10::GetCPUAllocator(), /*resizable=*/true);
  opened_.push_back({storage, std::move(view), base});
  return opened_.back().view;
}

at::Tensor HostViews::ToWrite(const at::Tensor& tensor) {
  if (tensor.defined() && tensor.device().type() == kType) {
    work_->Writes(Base(tensor.storage()));
  }
  return Of(tensor);
}

at::Tensor HostViews::Of(const at::Tensor& tensor) {
  if (!tensor.defined() || tensor.device().type() != kType) return tensor;
  CheckStrided(tensor);
  for (const Seen& seen : seen_) {
    if (seen.tensor.is_same(tensor)) return seen.view;
  }
  at::Tensor view = at::detail::make_tensor<c10::TensorImpl>(
      c10::Storage(Open(tensor.storage())),
      c10::DispatchKeySet(c10::DispatchKey::CPU), tensor.dtype());
  view.unsafeGetTensorImpl()->set_sizes_and_strides(
      tensor.sizes(), tensor.strides(), tensor.storage_offset());
  seen_.push_back({tensor, view});
  return view;
}

void HostViews::Resize() {
  for (Opened& opened : opened_) {
    if (Base(opened.view) == opened.base) continue;
    CloseBlock(opened.base);
    opened.base = nullptr;
    ResizeStorage(opened.storage, opened.view.nbytes());
    opened.base = Base(opened.storage);
    OpenBlock(opened.base);
    if (opened.base == nullptr) continue;
    std::memcpy(opened.base, Base(opened.view), opened.view.nbytes());
  }
  for (const Seen& seen : seen_) {
    if (seen.view.sizes() == seen.tensor.sizes() &&
        seen.view.strides() == seen.tensor.strides()) {
      continue;
    }
    seen.tensor.unsafeGetTensorImpl()->set_sizes_and_strides(
        seen.view.sizes(), seen.view.strides(), seen.view.storage_offset());
  }
}

at::Tensor HostViews::ToDevice(const at::Tensor& result, c10::Device device) {
  if (!result.defined() || result.device().type() == kType) return result;
  CheckStrided(result);
  for (const Seen& seen : seen_) {
    if (seen.view.is_same(result)) return seen.tensor;
  }
  for (const Seen& seen : seen_) {
    if (!seen.view.storage().is_alias_of(result.storage())) continue;
    if (seen.view.scalar_type() != result.scalar_type()) continue;
    return ViewOf(seen.tensor, result);
  }
  const at::Tensor dense =
      result.is_non_overlapping_and_dense() ? result : result.contiguous();
  at::Tensor there = EmptyOnDevice(dense.sizes(), dense.strides(),
                                   dense.scalar_type(), device);
  if (void* const base = Base(there.storage())) {
    work_->Writes(base);
    OpenBlock(base);
    std::memcpy(base, dense.const_data_ptr(), dense.nbytes());
    CloseBlock(base);
  }
  return there;
}

}  // namespace internal_fake_device
}  // namespace grapnel
