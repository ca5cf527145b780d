#include "grapnel/models/nn_tensors.h"

#include <set>

#include "torch/nn/module.h"

namespace grapnel {

std::vector<NamedTensor> NamedParameters(const torch::nn::Module& module) {
  std::vector<NamedTensor> parameters;
  std::set<const void*> seen;
  for (const auto& item : module.named_parameters()) {
    if (!seen.insert(item.value().unsafeGetTensorImpl()).second) continue;
    parameters.push_back({item.key(), item.value()});
  }
  return parameters;
}

std::vector<NamedTensor> NamedBuffers(const torch::nn::Module& module) {
  std::set<const void*> seen;
  for (const at::Tensor& parameter : module.parameters()) {
    seen.insert(parameter.unsafeGetTensorImpl());
  }
  std::vector<NamedTensor> buffers;
  for (const auto& item : module.named_buffers()) {
    if (!seen.insert(item.value().unsafeGetTensorImpl()).second) continue;
    buffers.push_back({item.key(), item.value()});
  }
  return buffers;
}

}  // namespace grapnel
