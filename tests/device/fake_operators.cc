#include "grapnel/tests/device/fake_operators.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "ATen/EmptyTensor.h"
#include "ATen/core/LegacyTypeDispatch.h"
#include "ATen/core/Tensor.h"
#include "ATen/core/dispatch/Dispatcher.h"
#include "ATen/core/enum_tag.h"
#include "ATen/core/function_schema.h"
#include "ATen/core/ivalue.h"
#include "ATen/core/stack.h"
#include "ATen/native/Resize.h"
#include "ATen/ops/_local_scalar_dense_ops.h"
#include "ATen/ops/convolution_backward_ops.h"
#include "ATen/ops/convolution_ops.h"
#include "ATen/ops/empty_like_ops.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "c10/core/Allocator.h"
#include "c10/core/DispatchKeySet.h"
#include "c10/core/Stream.h"
#include "c10/core/impl/LocalDispatchKeySet.h"
#include "grapnel/tests/device/fake_copies.h"
#include "grapnel/tests/device/fake_generator.h"
#include "grapnel/tests/device/fake_host_views.h"
#include "grapnel/tests/device/fake_memory.h"
#include "grapnel/tests/device/fake_order.h"
#include "grapnel/tests/device/fake_streams.h"
#include "torch/library.h"

namespace grapnel {
namespace internal_fake_device {
namespace {

using SymInts = c10::SymIntArrayRef;

bool IsHere(const at::Tensor& tensor) {
  return tensor.defined() && tensor.device().type() == kType;
}

// A kernel of the CPU is called for the device's, which stands below autograd
// and autocast.
class AsAKernel {
  const at::AutoDispatchBelowADInplaceOrView below_autograd_;
  const c10::impl::ExcludeDispatchKeyGuard below_autocast_{
      c10::autocast_dispatch_keyset};
};

// One call of an operator that has no kernel here: its arguments are replaced
// by the CPU's on the stack, its results by the device's.
class Call {
 public:
  Call(const c10::OperatorHandle& op, torch::jit::Stack* stack)
      : op_(op),
        schema_(op.schema()),
        stack_(*stack),
        first_(stack->size() - op.schema().arguments().size()) {}

  void Run() {
    FindDevice();
    if (IsView()) {
      views_.emplace(nullptr);
    } else {
      work_.emplace(device_->index(), name());
      work_->Start();
      views_.emplace(&*work_);
    }
    CountReads();
    for (size_t i = 0; i < schema_.arguments().size(); ++i) Replace(i);
    {
      const AsAKernel as_a_kernel;
      op_.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), &stack_);
      views_->Resize();
      const size_t results = stack_.size() - first_;
      for (size_t i = 0; i < results; ++i) Return(&stack_[first_ + i]);
    }
    if (is_read_) work_->Wait();
  }

 private:
  const std::string& name() const { return schema_.name(); }

  // Whether it gives another view of its argument, and does nothing else.
  bool IsView() const {
    return !schema_.returns().empty() &&
           schema_.returns()[0].alias_info() != nullptr &&
           !schema_.returns()[0].alias_info()->isWrite();
  }

  // Where it runs: where its tensors are.
  void FindDevice() {
    const auto see = [this](c10::Device device) {
      if (device.type() != kType) return;
      if (!device.has_index()) device.set_index(CurrentDevice());
      TORCH_CHECK(!device_.has_value() || *device_ == device,
                  "Expected all tensors to be on the same device, but found at "
                  "least two devices, ",
                  *device_, " and ", device, "! (", name(), ")");
      device_ = device;
    };
    const auto see_tensor = [&see](const at::Tensor& tensor) {
      if (tensor.defined()) see(tensor.device());
    };
    for (size_t i = 0; i < schema_.arguments().size(); ++i) {
      const c10::IValue& value = stack_[first_ + i];
      if (value.isTensor()) {
        see_tensor(value.toTensor());
      } else if (value.isTensorList()) {
        for (const at::Tensor& tensor : value.toTensorVector()) {
          see_tensor(tensor);
        }
      } else if (value.isOptionalTensorList()) {
        for (const auto& tensor : value.toOptionalTensorVector()) {
          if (tensor.has_value()) see_tensor(*tensor);
        }
      } else if (value.isDevice()) {
        see(value.toDevice());
      }
    }
    TORCH_CHECK(device_.has_value(), "fake device: ", name(),
                " has a generator, but no tensor there");
    TORCH_CHECK(!op_.hasTag(at::Tag::nondeterministic_seeded) ||
                    std::any_of(schema_.arguments().begin(),
                                schema_.arguments().end(), &IsGenerator),
                "fake device: ", name(), " draws from the CPU's generator");
  }

  void Replace(size_t i) {
    const c10::Argument& argument = schema_.arguments()[i];
    c10::IValue& value = stack_[first_ + i];
    if (value.isTensor()) {
      value = View(value.toTensor(), argument, /*listed=*/false);
    } else if (value.isTensorList()) {
      c10::List<at::Tensor> views;
      for (const at::Tensor& tensor : value.toTensorVector()) {
        views.push_back(View(tensor, argument, /*listed=*/true));
      }
      value = std::move(views);
    } else if (value.isOptionalTensorList()) {
      c10::List<std::optional<at::Tensor>> views;
      for (const auto& tensor : value.toOptionalTensorVector()) {
        views.push_back(tensor.has_value() ? std::make_optional(Index(*tensor))
                                           : std::nullopt);
      }
      value = std::move(views);
    } else if (value.isDevice()) {
      value = c10::Device(c10::DeviceType::CPU);
    } else if (IsGenerator(argument)) {
      generator_.emplace(value.isNone() ? at::Generator() : value.toGenerator(),
                         *device_);
      value = generator_->get();
    }
  }

  static bool IsGenerator(const c10::Argument& argument) {
    const c10::TypePtr type = argument.type();
    const auto* const optional = type->castRaw<c10::OptionalType>();
    return (optional != nullptr ? optional->getElementType() : type)->kind() ==
           c10::TypeKind::GeneratorType;
  }

  at::Tensor View(const at::Tensor& tensor, const c10::Argument& argument,
                  bool listed) {
    if (tensor.defined() && !IsHere(tensor)) {
      // A number goes to a kernel by value. What a kernel reads or writes in
      // memory has to be its device's.
      const bool is_number = tensor.dim() == 0 && !listed &&
                             !IsWritten(argument) &&
                             !absl::StartsWith(name(), "aten::_fused_") &&
                             !absl::StartsWith(name(), "aten::_amp_");
      TORCH_CHECK(is_number,
                  "Expected all tensors to be on the same device, but found at "
                  "least two devices, ",
                  *device_, " and ", tensor.device(), "! (argument \"",
                  argument.name(), "\" of ", name(), ")");
      return tensor;
    }
    return IsWritten(argument) ? views_->ToWrite(tensor) : views_->Of(tensor);
  }

  // LibTorch moves indices by itself.
  at::Tensor Index(const at::Tensor& tensor) {
    if (tensor.defined() && !IsHere(tensor)) {
      CountCopy(Direction::kToDevice, tensor, name());
    }
    return views_->Of(tensor);
  }

  static bool IsWritten(const c10::Argument& argument) {
    return argument.alias_info() != nullptr && argument.alias_info()->isWrite();
  }

  static bool IsMask(const c10::IValue& value) {
    if (!value.isOptionalTensorList()) return false;
    for (const auto& tensor : value.toOptionalTensorVector()) {
      if (tensor.has_value() && tensor->defined() &&
          (tensor->scalar_type() == at::kBool ||
           tensor->scalar_type() == at::kByte)) {
        return true;
      }
    }
    return false;
  }

  // What the host can't go on without: values, and sizes that depend on them.
  void CountReads() {
    const bool has_indices = absl::StartsWith(name(), "aten::index") ||
                             absl::StartsWith(name(), "aten::_index_put_impl");
    is_read_ = op_.hasTag(at::Tag::data_dependent_output) ||
               (!has_indices && op_.hasTag(at::Tag::dynamic_output_shape));
    for (size_t i = 0; i < schema_.arguments().size(); ++i) {
      is_read_ |= IsMask(stack_[first_ + i]);
    }
    if (!is_read_) return;
    for (size_t i = 0; i < schema_.arguments().size(); ++i) {
      const c10::IValue& value = stack_[first_ + i];
      if (!value.isTensor()) continue;
      CountCopy(Direction::kToHost, value.toTensor(), name());
      return;
    }
  }

  void Return(c10::IValue* value) {
    if (value->isTensor()) {
      *value = views_->ToDevice(value->toTensor(), *device_);
    } else if (value->isTensorList()) {
      c10::List<at::Tensor> results;
      for (const at::Tensor& tensor : value->toTensorVector()) {
        results.push_back(views_->ToDevice(tensor, *device_));
      }
      *value = std::move(results);
    }
  }

  const c10::OperatorHandle& op_;
  const c10::FunctionSchema& schema_;
  torch::jit::Stack& stack_;
  const size_t first_;
  std::optional<c10::Device> device_;
  std::optional<Work> work_;
  std::optional<HostViews> views_;
  std::optional<CpuGenerator> generator_;
  bool is_read_ = false;  // By the host.
};

void RunOnCpu(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  Call(op, stack).Run();
}

c10::DeviceIndex IndexOf(std::optional<c10::Device> device) {
  return device.has_value() ? device->index() : c10::DeviceIndex{-1};
}

at::Tensor Empty(SymInts sizes, std::optional<at::ScalarType> type,
                 std::optional<at::Layout>, std::optional<c10::Device> device,
                 std::optional<bool>, std::optional<at::MemoryFormat> format) {
  const OnDevice on(IndexOf(device));
  return at::detail::empty_generic(
      C10_AS_INTARRAYREF_SLOW(sizes), c10::GetAllocator(kType),
      c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
      c10::dtype_or_default(type), format);
}

at::Tensor EmptyStrided(SymInts sizes, SymInts strides,
                        std::optional<at::ScalarType> type,
                        std::optional<at::Layout>,
                        std::optional<c10::Device> device,
                        std::optional<bool>) {
  return EmptyOnDevice(
      C10_AS_INTARRAYREF_SLOW(sizes), C10_AS_INTARRAYREF_SLOW(strides),
      c10::dtype_or_default(type), c10::Device(kType, IndexOf(device)));
}

const at::Tensor& Resize(const at::Tensor& self, SymInts sizes,
                         std::optional<at::MemoryFormat> format) {
  c10::TensorImpl* const impl = self.unsafeGetTensorImpl();
  impl->set_sizes_contiguous(C10_AS_INTARRAYREF_SLOW(sizes));
  if (format.has_value()) impl->empty_tensor_restride(*format);
  const size_t needed = at::detail::computeStorageNbytes(
      self.sizes(), self.strides(), self.element_size(), self.storage_offset());
  if (needed > self.storage().nbytes()) ResizeStorage(self.storage(), needed);
  return self;
}

at::Tensor& SetStorage(at::Tensor& self, c10::Storage storage,
                       c10::SymInt offset, SymInts sizes, SymInts strides) {
  at::native::checkSetStorage(self, std::move(storage), offset.expect_int(),
                              C10_AS_INTARRAYREF_SLOW(sizes),
                              C10_AS_INTARRAYREF_SLOW(strides));
  c10::TensorImpl* const impl = self.unsafeGetTensorImpl();
  impl->set_storage_offset(offset.expect_int());
  if (strides.data() == nullptr) {
    impl->set_sizes_contiguous(C10_AS_INTARRAYREF_SLOW(sizes));
  } else {
    impl->set_sizes_and_strides(C10_AS_INTARRAYREF_SLOW(sizes),
                                C10_AS_INTARRAYREF_SLOW(strides));
  }
  return self;
}

at::Tensor& SetToTensor(at::Tensor& self, const at::Tensor& source) {
  if (self.is_same(source)) return self;
  return SetStorage(self, source.storage(), source.storage_offset(),
                    source.sym_sizes(), source.sym_strides());
}

at::Tensor& SetToWholeStorage(at::Tensor& self, c10::Storage storage) {
  const c10::SymInt size =
      static_cast<int64_t>(storage.nbytes() / self.element_size());
  return SetStorage(self, std::move(storage), 0, SymInts(size), {});
}

at::Tensor& SetToNothing(at::Tensor& self) {
  const OnDevice on(self.device().index());
  c10::Storage nothing(c10::Storage::use_byte_size_t(), 0,
                       c10::GetAllocator(kType), /*resizable=*/true);
  return SetStorage(self, std::move(nothing), 0, SymInts(c10::SymInt(0)), {});
}

// A tensor of the host with the form of `form`, and the values of `from`.
at::Tensor Staged(const at::Tensor& from, const at::Tensor& form) {
  at::Tensor staged = at::detail::empty_strided_cpu(
      form.sizes(), form.strides(), form.scalar_type());
  staged.copy_(from);
  return staged;
}

void CopyToDevice(const at::Tensor& from, const at::Tensor& to,
                  bool non_blocking) {
  CountCopy(Direction::kToDevice, from, "");
  Work work(to.device().index(), "a copy to the device");
  HostViews views(&work);
  at::Tensor there = views.ToWrite(to);
  const bool is_pinned = IsPinned(from.storage().data());
  // The driver copies what isn't pinned to its own pages first, when what was
  // launched before is done.
  if (non_blocking && !is_pinned) work.Wait();
  if (!non_blocking || !to.is_non_overlapping_and_dense()) {
    work.Start();
    there.copy_(from);
    return work.Wait();
  }
  const void* const base = to.storage().data_ptr().get();
  if (is_pinned && from.scalar_type() == to.scalar_type() &&
      from.sizes() == to.sizes() && from.strides() == to.strides()) {
    work.CopyPinned(there.mutable_data_ptr(), base, from.const_data_ptr(),
                    from.nbytes());
  } else {
    work.CopyOwned(there.mutable_data_ptr(), base, Staged(from, there));
  }
}

void CopyToHost(const at::Tensor& from, const at::Tensor& to,
                bool non_blocking) {
  CountCopy(Direction::kToHost, from, "");
  Work work(from.device().index(), "a copy to the host");
  work.Start();
  HostViews views(&work);
  const at::Tensor here = views.Of(from);
  if (non_blocking && IsPinned(to.storage().data()) &&
      to.is_non_overlapping_and_dense()) {
    return work.CopyToPinned(to.mutable_data_ptr(), Staged(here, to));
  }
  to.copy_(here);
  work.Wait();
}

void CopyOnDevice(const at::Tensor& from, const at::Tensor& to) {
  // Between two devices, both streams wait for each other.
  const c10::DeviceIndex other = from.device().index();
  const c10::DeviceIndex index = to.device().index();
  ComeAfter(CurrentStream(index), ClockOf(CurrentStream(other)));
  {
    Work work(index, "a copy on the device");
    work.Start();
    HostViews views(&work);
    views.ToWrite(to).copy_(views.Of(from));
  }
  ComeAfter(CurrentStream(other), ClockOf(CurrentStream(index)));
}

at::Tensor CopyFrom(const at::Tensor& from, const at::Tensor& to,
                    bool non_blocking) {
  const AsAKernel as_a_kernel;
  if (from.numel() == 0 || to.numel() == 0) {
    // Nothing to copy.
  } else if (!IsHere(from)) {
    CopyToDevice(from, to, non_blocking);
  } else if (!IsHere(to)) {
    CopyToHost(from, to, non_blocking);
  } else {
    CopyOnDevice(from, to);
  }
  return to;
}

at::Tensor CopyFromAndResize(const at::Tensor& from, const at::Tensor& to) {
  to.resize_(from.sizes());
  return CopyFrom(from, to, false);
}

at::Scalar Item(const at::Tensor& self) {
  CountCopy(Direction::kToHost, self, "item");
  const AsAKernel as_a_kernel;
  Work work(self.device().index(), "item");
  work.Start();
  work.Wait();
  HostViews views(&work);
  return at::_ops::_local_scalar_dense::call(views.Of(self));
}

at::Tensor Convolution(const at::Tensor& input, const at::Tensor& weight,
                       const std::optional<at::Tensor>& bias, SymInts stride,
                       SymInts padding, SymInts dilation, bool transposed,
                       SymInts output_padding, c10::SymInt groups) {
  const AsAKernel as_a_kernel;
  Work work(input.device().index(), "convolution");
  work.Start();
  HostViews views(&work);
  return views.ToDevice(
      at::_ops::convolution::call(
          views.Of(input), views.Of(weight),
          bias.has_value() ? std::make_optional(views.Of(*bias)) : std::nullopt,
          stride, padding, dilation, transposed, output_padding,
          std::move(groups)),
      input.device());
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> ConvolutionBackward(
    const at::Tensor& grad, const at::Tensor& input, const at::Tensor& weight,
    SymInts stride, SymInts padding, SymInts dilation, bool transposed,
    SymInts output_padding, c10::SymInt groups, std::array<bool, 3> mask) {
  const AsAKernel as_a_kernel;
  Work work(input.device().index(), "convolution_backward");
  work.Start();
  HostViews views(&work);
  const c10::SymInt bias_size = grad.sym_size(1);
  auto [of_input, of_weight, of_bias] = at::_ops::convolution_backward::call(
      views.Of(grad), views.Of(input), views.Of(weight), SymInts(bias_size),
      stride, padding, dilation, transposed, output_padding, std::move(groups),
      mask);
  const c10::Device device = input.device();
  return {views.ToDevice(of_input, device), views.ToDevice(of_weight, device),
          views.ToDevice(of_bias, device)};
}

// As the CPU's dropout, which is composed of others and has other bits than the
// CPU's kernel for this.
std::tuple<at::Tensor, at::Tensor> NativeDropout(const at::Tensor& input,
                                                 double p,
                                                 std::optional<bool> train) {
  at::Tensor kept = at::_ops::empty_like::call(input, {}, {}, {}, {}, {});
  if (!train.value_or(true) || p == 0) {
    return {input.clone(), kept.fill_(1).to(at::kBool)};
  }
  kept.bernoulli_(1 - p);
  at::Tensor mask = kept.to(at::kBool);
  return {p == 1 ? input.mul(kept) : input.mul(kept.div_(1 - p)),
          std::move(mask)};
}

at::Tensor NativeDropoutBackward(const at::Tensor& grad, const at::Tensor& mask,
                                 double scale) {
  const at::Tensor kept = mask.to(grad.scalar_type());
  return grad.mul(scale == 0 ? kept : kept.div(1 / scale));
}

void RecordStream(at::Tensor& self, c10::Stream stream) {
  BlockIsRecorded(self.storage().data_ptr().get(), stream);
}

}  // namespace

void RegisterOperators() {
  static auto* const fallback =
      new torch::Library(torch::Library::IMPL, "_",
                         c10::DispatchKey::PrivateUse1, __FILE__, __LINE__);
  fallback->fallback(torch::CppFunction::makeFromBoxedFunction<&RunOnCpu>());

  static auto* const aten =
      new torch::Library(torch::Library::IMPL, "aten",
                         c10::DispatchKey::PrivateUse1, __FILE__, __LINE__);
  // LibTorch composes these of others where a backend has no kernel, and would
  // not come to the fallback.
  for (const c10::OperatorName& name :
       c10::Dispatcher::singleton().getAllOpNames()) {
    const auto op = c10::Dispatcher::singleton().findOp(name);
    if (!absl::StartsWith(name.name, "aten::") || !op.has_value() ||
        !op->hasKernelForDispatchKey(c10::DispatchKey::CPU)) {
      continue;
    }
    if (op->hasKernelForDispatchKey(
            c10::DispatchKey::CompositeExplicitAutograd) ||
        op->hasKernelForDispatchKey(
            c10::DispatchKey::CompositeExplicitAutogradNonFunctional) ||
        op->hasKernelForDispatchKey(
            c10::DispatchKey::CompositeImplicitAutograd)) {
      aten->impl(c10::toString(name).c_str(),
                 torch::CppFunction::makeFromBoxedFunction<&RunOnCpu>());
    }
  }
  aten->impl("empty.memory_format", &Empty);
  aten->impl("empty_strided", &EmptyStrided);
  aten->impl("resize_", &Resize);
  aten->impl("set_.source_Storage_storage_offset", &SetStorage);
  aten->impl("set_.source_Storage", &SetToWholeStorage);
  aten->impl("set_.source_Tensor", &SetToTensor);
  aten->impl("set_", &SetToNothing);
  aten->impl("_copy_from", &CopyFrom);
  aten->impl("_copy_from_and_resize", &CopyFromAndResize);
  aten->impl("_local_scalar_dense", &Item);
  aten->impl("convolution_overrideable", &Convolution);
  aten->impl("convolution_backward_overrideable", &ConvolutionBackward);
  aten->impl("native_dropout", &NativeDropout);
  aten->impl("native_dropout_backward", &NativeDropoutBackward);
  aten->impl("record_stream", &RecordStream);
}

}  // namespace internal_fake_device
}  // namespace grapnel
