#include <cstddef>
#include <string>

#include "ATen/autocast_mode.h"
#include "ATen/core/Tensor.h"
#include "ATen/core/dispatch/Dispatcher.h"
#include "ATen/core/ivalue.h"
#include "ATen/core/stack.h"
#include "absl/container/flat_hash_set.h"
#include "c10/core/DispatchKey.h"
#include "c10/core/ScalarType.h"
#include "c10/core/impl/LocalDispatchKeySet.h"
#include "grapnel/tests/device/fake_operators.h"
#include "grapnel/tests/device/fake_streams.h"
#include "torch/library.h"

namespace grapnel {
namespace internal_fake_device {
namespace {

// Of the operators that autocast knows on the CPU, those that it runs in the
// lower type, and those that take the widest of their arguments' types. All
// others run in float32.
bool IsLowered(const std::string& name) {
  static const auto* const names = new absl::flat_hash_set<std::string>{
      "aten::_addmm_activation",
      "aten::_convolution",
      "aten::_native_multi_head_attention",
      "aten::addbmm",
      "aten::addmm",
      "aten::baddbmm",
      "aten::bmm",
      "aten::conv1d",
      "aten::conv2d",
      "aten::conv3d",
      "aten::conv_tbc",
      "aten::conv_transpose1d",
      "aten::conv_transpose2d",
      "aten::conv_transpose3d",
      "aten::linalg_vecdot",
      "aten::linear",
      "aten::matmul",
      "aten::mkldnn_rnn_layer",
      "aten::mm",
      "aten::prelu",
      "aten::scaled_dot_product_attention",
  };
  return names->contains(name);
}

bool IsPromoted(const std::string& name) {
  return name == "aten::cat" || name == "aten::stack" ||
         name == "aten::index_copy";
}

// Calls `f` with each tensor among an operator's arguments, and replaces it by
// what that returns.
template <typename F>
void ForEachTensor(torch::jit::Stack* stack, size_t num_arguments, F&& f) {
  for (size_t i = stack->size() - num_arguments; i < stack->size(); ++i) {
    c10::IValue& value = (*stack)[i];
    if (value.isTensor()) {
      value = f(value.toTensor());
    } else if (value.isTensorList()) {
      c10::List<at::Tensor> tensors;
      for (const at::Tensor& tensor : value.toTensorVector()) {
        tensors.push_back(f(tensor));
      }
      value = tensors;
    }
  }
}

void CastAndRun(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(
      c10::DispatchKey::AutocastPrivateUse1);
  const std::string& name = op.schema().name();
  const size_t num_arguments = op.schema().arguments().size();
  const c10::ScalarType lower = at::autocast::get_autocast_dtype(kType);
  c10::ScalarType type =
      IsLowered(name) || IsPromoted(name) ? lower : at::kFloat;
  if (IsPromoted(name)) {
    ForEachTensor(stack, num_arguments, [&type](const at::Tensor& tensor) {
      if (tensor.defined() && tensor.is_floating_point()) {
        type = c10::promoteTypes(type, tensor.scalar_type());
      }
      return tensor;
    });
  }
  ForEachTensor(stack, num_arguments, [type](const at::Tensor& tensor) {
    return at::autocast::cached_cast(type, tensor, kType);
  });
  op.callBoxed(stack);
}

}  // namespace

void RegisterAutocast() {
  static auto* const fallback = new torch::Library(
      torch::Library::IMPL, "_", c10::DispatchKey::AutocastPrivateUse1,
      __FILE__, __LINE__);
  fallback->fallback(torch::CppFunction::makeFallthrough());

  static auto* const aten = new torch::Library(
      torch::Library::IMPL, "aten", c10::DispatchKey::AutocastPrivateUse1,
      __FILE__, __LINE__);
  for (const c10::OperatorName& name :
       c10::Dispatcher::singleton().getAllOpNames()) {
    const auto op = c10::Dispatcher::singleton().findOp(name);
    if (!op.has_value() ||
        !op->hasKernelForDispatchKey(c10::DispatchKey::AutocastCPU)) {
      continue;
    }
    aten->impl(c10::toString(name).c_str(),
               torch::CppFunction::makeFromBoxedFunction<&CastAndRun>());
  }
}

}  // namespace internal_fake_device
}  // namespace grapnel
