#include "grapnel/models/script_tensors.h"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "ATen/core/Dict.h"
#include "ATen/core/List.h"
#include "ATen/core/ivalue.h"
#include "c10/core/GradMode.h"
#include "c10/core/ScalarType.h"
#include "c10/core/StorageImpl.h"
#include "torch/csrc/jit/api/module.h"

namespace grapnel {
namespace {

// Calls a function for each tensor, with what it gives taking its place.
class Replacer {
 public:
  using Function = std::function<at::Tensor(const at::Tensor&)>;

  explicit Replacer(Function function) : function_(std::move(function)) {}

  void ReplaceIn(const torch::jit::Module& module) {
    Replaced(c10::IValue(module._ivalue()));
  }

 private:
  // What takes the place of `value`: another one for a tensor, or a tuple with
  // one in it, else `value` itself, changed.
  c10::IValue Replaced(const c10::IValue& value) {
    if (value.isTensor()) {
      const at::Tensor& tensor = value.toTensor();
      return tensor.defined() ? function_(tensor) : tensor;
    }
    if (value.isTuple()) return ReplacedTuple(value);
    if (value.isObject() || value.isList() || value.isGenericDict()) {
      // They can hold themselves.
      if (!seen_.insert(value.internalToPointer()).second) return value;
    }
    if (value.isObject()) {
      c10::ivalue::Object& object = value.toObjectRef();
      for (size_t i = 0; i < object.slots().size(); ++i) {
        object.setSlot(i, Replaced(object.getSlot(i)));
      }
    } else if (value.isList()) {
      const c10::List<c10::IValue> list = value.toList();
      for (size_t i = 0; i < list.size(); ++i) list.set(i, Replaced(list[i]));
    } else if (value.isGenericDict()) {
      for (const auto& entry : value.toGenericDict()) {
        entry.setValue(Replaced(entry.value()));
      }
    }
    return value;
  }

  c10::IValue ReplacedTuple(const c10::IValue& value) {
    const c10::ivalue::Tuple& tuple = value.toTupleRef();
    std::vector<c10::IValue> elements;
    bool others = false;
    for (const c10::IValue& element : tuple.elements()) {
      elements.push_back(Replaced(element));
      others = others || !elements.back().is(element);
    }
    if (!others) return value;
    return c10::ivalue::Tuple::createNamed(std::move(elements), tuple.type());
  }

  const Function function_;
  std::unordered_set<const void*> seen_;
};

// Copies tensors to a device, a memory that several have once.
class Copier {
 public:
  explicit Copier(c10::Device device) : device_(device) {}

  at::Tensor Copied(const at::Tensor& tensor) {
    at::Tensor copy;
    if (tensor.layout() == at::kStrided && !tensor.is_quantized()) {
      // Not a view to autograd, which would forbid some writes.
      copy = Memory(tensor)
                 .as_strided(tensor.sizes(), tensor.strides(),
                             tensor.storage_offset())
                 .variable_data();
    } else {
      copy = tensor.to(device_);
    }
    copy.set_requires_grad(tensor.requires_grad());
    return copy;
  }

 private:
  // All of the tensor's memory, in one dimension, on the device.
  const at::Tensor& Memory(const at::Tensor& tensor) {
    at::Tensor& memory = memories_[{tensor.storage().unsafeGetStorageImpl(),
                                    tensor.scalar_type()}];
    if (!memory.defined()) {
      const auto size = static_cast<int64_t>(tensor.storage().nbytes() /
                                             tensor.element_size());
      memory = tensor.as_strided({size}, {1}, 0).to(device_);
    }
    return memory;
  }

  const c10::Device device_;
  std::map<std::pair<const c10::StorageImpl*, at::ScalarType>, at::Tensor>
      memories_;
};

}  // namespace

ScriptTensors::ScriptTensors(const torch::jit::Module& module,
                             c10::Device device) {
  const c10::AutoGradMode no_grad(false);
  Copier copier(device);
  Replacer([&](const at::Tensor& tensor) {
    if (tensor.device() != device) {
      at::Tensor& copy = partners_[tensor.unsafeGetTensorImpl()];
      if (!copy.defined()) copy = copier.Copied(tensor);
    }
    return tensor;
  }).ReplaceIn(module);
}

void ScriptTensors::Swap(const torch::jit::Module& module) {
  if (partners_.empty()) return;
  std::unordered_map<const c10::TensorImpl*, at::Tensor> back;
  Replacer([&](const at::Tensor& tensor) {
    const auto partner = partners_.find(tensor.unsafeGetTensorImpl());
    if (partner == partners_.end()) return tensor;
    back[partner->second.unsafeGetTensorImpl()] = tensor;
    return partner->second;
  }).ReplaceIn(module);
  partners_ = std::move(back);
}

}  // namespace grapnel
