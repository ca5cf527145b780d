// The tensors that a TorchScript module holds, on another device.

#ifndef GRAPNEL_MODELS_SCRIPT_TENSORS_H_
#define GRAPNEL_MODELS_SCRIPT_TENSORS_H_

#include <unordered_map>

#include "ATen/core/Tensor.h"
#include "c10/core/Device.h"

namespace torch::jit {
struct Module;
}  // namespace torch::jit

namespace grapnel {

// Copies of a module's tensors, and their exchange for the originals: of
// parameters, buffers and other attributes, in its submodules and in lists,
// dictionaries, tuples and objects too. LibTorch's Module::to takes the first
// two alone, and not to every kind of device. Constants in the code stay where
// they are. Thread-compatible.
class ScriptTensors {
 public:
  // Copies those that aren't on `device` to it. What shares memory goes on
  // sharing it; strides, offsets and requires_grad are the same. The module
  // isn't changed. May throw.
  ScriptTensors(const torch::jit::Module& module, c10::Device device);

  // Puts each copy in its tensor's place, or, the next time, back. `module` is
  // the one of the constructor, with no other tensors than then.
  void Swap(const torch::jit::Module& module);

 private:
  // From a tensor in the module to the one that is to take its place. Holds
  // none that is in the module: what is held once is written otherwise to a
  // file.
  std::unordered_map<const c10::TensorImpl*, at::Tensor> partners_;
};

}  // namespace grapnel

#endif  // GRAPNEL_MODELS_SCRIPT_TENSORS_H_
