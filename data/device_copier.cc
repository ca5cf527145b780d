#include "grapnel/data/device_copier.h"

#include <cstddef>
#include <cstring>
#include <string>
#include <utility>

#include "ATen/Context.h"
#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "c10/core/Allocator.h"
#include "c10/core/CachingDeviceAllocator.h"
#include "c10/core/GradMode.h"
#include "c10/core/StreamGuard.h"
#include "c10/core/TensorImpl.h"
#include "c10/core/impl/DeviceGuardImplInterface.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/base/torch_status.h"

namespace grapnel {
namespace {

// Calls `f` with each tensor of the batch that is defined, in the same order
// each time. Errors name the tensor.
template <typename F>
absl::Status ForEachTensor(Batch& batch, F&& f) {
  const auto call = [&](at::Tensor& tensor) {
    return tensor.defined() ? CatchAsStatus([&] { return f(tensor); })
                            : absl::OkStatus();
  };
  absl::Status status = call(batch.inputs);
  if (!status.ok()) return WithContext(std::move(status), "inputs");
  status = call(batch.targets);
  if (!status.ok()) return WithContext(std::move(status), "targets");
  for (NamedTensor& extra : batch.extras) {
    status = call(extra.tensor);
    if (!status.ok()) {
      return WithContext(std::move(status),
                         absl::StrCat("extras: ", extra.name));
    }
  }
  return absl::OkStatus();
}

// Whether its bytes can be copied as they lie.
bool IsPlain(const at::Tensor& tensor) {
  return tensor.device().is_cpu() && tensor.layout() == at::kStrided &&
         !tensor.is_quantized() && !tensor.is_conj() && !tensor.is_neg();
}

// The end of an epoch is kOutOfRange, and no failure may be taken for it.
absl::Status Failed(absl::Status status, absl::string_view what,
                    c10::Device device) {
  if (status.code() == absl::StatusCode::kOutOfRange) {
    status = absl::InternalError(status.message());
  }
  return WithContext(std::move(status),
                     absl::StrCat("batch: ", what, " ", device.str()));
}

void SwapTensors(Batch& a, Batch& b) {
  std::swap(a.inputs, b.inputs);
  std::swap(a.targets, b.targets);
  std::swap(a.extras, b.extras);
}

// In the memory of the thread's scope, with the same strides if each element is
// there once.
at::Tensor CopyOnHost(const at::Tensor& tensor) {
  if (tensor.is_contiguous() || !tensor.is_non_overlapping_and_dense()) {
    at::Tensor copy = NewTensor(tensor.sizes(), tensor.scalar_type());
    CopyElements(tensor, copy.mutable_data_ptr());
    return copy;
  }
  at::Tensor copy = NewTensor({tensor.numel()}, tensor.scalar_type());
  std::memcpy(copy.mutable_data_ptr(), tensor.const_data_ptr(),
              tensor.nbytes());
  copy.unsafeGetTensorImpl()->set_sizes_and_strides(tensor.sizes(),
                                                    tensor.strides());
  return copy;
}

}  // namespace

absl::StatusOr<std::unique_ptr<DeviceCopier>> DeviceCopier::Create(
    c10::Device device) {
  if (device.is_cpu()) return nullptr;
  if (!c10::impl::hasDeviceGuardImpl(device.type())) {
    return absl::FailedPreconditionError(
        absl::StrCat("device: ", device.str(),
                     ": the LibTorch in the program knows no such device"));
  }
  std::unique_ptr<DeviceCopier> copier;
  absl::Status status = CatchAsStatus([&] {
    if (!device.has_index()) {
      device = c10::impl::VirtualGuardImpl(device.type()).getDevice();
    }
    copier = absl::WrapUnique(new DeviceCopier(device));
    copier->Probe();
    return absl::OkStatus();
  });
  if (!status.ok()) {
    return WithContext(std::move(status),
                       absl::StrCat("device: ", device.str()));
  }
  return copier;
}

DeviceCopier::DeviceCopier(c10::Device device)
    : device_(device), guard_(device.type()) {}

DeviceCopier::~DeviceCopier() {
  Forget();
  for (const Source& source : sources_) {
    // If the device fails, what it reads no longer matters.
    CatchAsStatus([&] {
      source.copied.synchronize();
      return absl::OkStatus();
    }).IgnoreError();
  }
}

void DeviceCopier::Probe() {
  at::globalContext().lazyInitDevice(device_.type());
  memory_.device = device_;
  CatchAsStatus([&] {
    memory_.allocator =
        at::globalContext().getPinnedMemoryAllocator(device_.type());
    return absl::OkStatus();
  }).IgnoreError();  // There is none, and memory_ says so.
  has_events_ = CatchAsStatus([&] {
                  used_up_.emplace(device_.type());
                  used_up_->record(guard_.getStream(device_));
                  used_up_->query();
                  return absl::OkStatus();
                }).ok();
  if (!has_events_ || memory_.allocator == nullptr) return;
  CatchAsStatus([&] {
    side_ = guard_.getStreamFromGlobalPool(device_);
    return absl::OkStatus();
  }).IgnoreError();  // As above.
}

absl::Status DeviceCopier::Pin(Batch* batch) const {
  if (memory_.allocator == nullptr) return absl::OkStatus();
  absl::Status status = ForEachTensor(*batch, [&](at::Tensor& tensor) {
    if (!IsPlain(tensor) || tensor.numel() == 0 ||
        at::globalContext().isPinnedPtr(tensor.storage().data(),
                                        device_.type())) {
      return absl::OkStatus();
    }
    const PinnedMemoryScope scope(memory_);
    tensor = CopyOnHost(tensor);
    return absl::OkStatus();
  });
  return status.ok() ? status
                     : Failed(std::move(status), "pinned for", device_);
}

void DeviceCopier::LaunchAhead(Batch* batch) {
  if (!side_.has_value()) return;
  CatchAsStatus([&]() -> absl::Status {
    const c10::Stream current = guard_.getStream(device_);
    GRAPNEL_RETURN_IF_ERROR(Copy(current, *side_, batch));
    ahead_ = current;
    return absl::OkStatus();
  }).IgnoreError();  // Deliver says what is wrong, if it still is.
}

absl::Status DeviceCopier::Deliver(Batch* batch) {
  absl::Status status = CatchAsStatus([&]() -> absl::Status {
    const c10::Stream current = guard_.getStream(device_);
    if (!ahead_.has_value()) return Copy(current, current, batch);
    const c10::Event& copied = sources_.back().copied;
    copied.block(*ahead_);
    if (current != *ahead_) {
      copied.block(current);
      GRAPNEL_RETURN_IF_ERROR(ForEachTensor(*batch, [&](at::Tensor& tensor) {
        RecordUse(tensor, current);
        return absl::OkStatus();
      }));
    }
    ahead_.reset();
    return absl::OkStatus();
  });
  return status.ok() ? status : Failed(std::move(status), "to", device_);
}

void DeviceCopier::Forget() {
  if (!ahead_.has_value()) return;
  // Whoever gets the memory next, on that stream, writes after the copy.
  CatchAsStatus([&] {
    sources_.back().copied.block(*ahead_);
    return absl::OkStatus();
  }).IgnoreError();
  ahead_.reset();
}

absl::Status DeviceCopier::Copy(const c10::Stream& current,
                                const c10::Stream& stream, Batch* batch) {
  const c10::NoGradGuard no_grad;
  DropEndedSources();
  Batch copy;
  copy.inputs = batch->inputs;
  copy.targets = batch->targets;
  copy.extras = batch->extras;
  if (!has_events_) {
    std::vector<at::Tensor> sources;
    GRAPNEL_RETURN_IF_ERROR(CopyTensors(current, stream, &sources, &copy));
    SwapTensors(*batch, copy);
    return absl::OkStatus();
  }
  sources_.push_back(NewSource());
  Source& source = sources_.back();
  absl::Status status = CopyTensors(current, stream, &source.tensors, &copy);
  source.copied.record(stream);
  if (!status.ok()) {
    // Some may be on their way, into memory that goes back to `current`.
    source.copied.block(current);
    return status;
  }
  SwapTensors(*batch, copy);
  return absl::OkStatus();
}

absl::Status DeviceCopier::CopyTensors(const c10::Stream& current,
                                       const c10::Stream& stream,
                                       std::vector<at::Tensor>* sources,
                                       Batch* copy) {
  GRAPNEL_RETURN_IF_ERROR(ForEachTensor(*copy, [&](at::Tensor& tensor) {
    sources->push_back(tensor);
    // A dataset's own batch may be sparse, or on the device already.
    tensor = IsPlain(tensor)
                 ? ops::empty_like(tensor, at::TensorOptions().device(device_))
                 : tensor.to(device_);
    return absl::OkStatus();
  }));
  const bool waits = !has_events_ || memory_.allocator == nullptr;
  if (stream != current) {
    used_up_->record(current);
    used_up_->block(stream);
  }
  const c10::StreamGuard on(stream);
  size_t i = 0;
  return ForEachTensor(*copy, [&](at::Tensor& tensor) {
    const at::Tensor& source = (*sources)[i++];
    if (IsPlain(source)) tensor.copy_(source, !waits);
    return absl::OkStatus();
  });
}

DeviceCopier::Source DeviceCopier::NewSource() {
  if (spare_sources_.empty()) return {{}, c10::Event(device_.type())};
  Source source = std::move(spare_sources_.back());
  spare_sources_.pop_back();
  return source;
}

void DeviceCopier::DropEndedSources() {
  while (!sources_.empty() && sources_.front().copied.query()) {
    spare_sources_.push_back(std::move(sources_.front()));
    sources_.pop_front();
    spare_sources_.back().tensors.clear();
  }
}

void DeviceCopier::RecordUse(const at::Tensor& tensor,
                             const c10::Stream& stream) const {
  const c10::DataPtr& memory = tensor.storage().data_ptr();
  auto* const allocator =
      dynamic_cast<c10::DeviceAllocator*>(c10::GetAllocator(device_.type()));
  if (allocator != nullptr) {
    allocator->recordStream(memory, stream);
  } else {
    guard_.recordDataPtrOnStream(memory, stream);
  }
}

}  // namespace grapnel
