// The tensors of a torch::nn::Module by name, as the rest of Grapnel takes
// them.
//
// Example:
//
//   torch::nn::Sequential net(torch::nn::Linear(3, 2),
//                             torch::nn::BatchNorm1d(2));
//   const std::vector<NamedTensor> parameters = NamedParameters(*net);
//   GRAPNEL_RET_CHECK(parameters[0].name == "0.weight");
//   GRAPNEL_RET_CHECK(parameters[0].tensor.is_same(net->parameters()[0]));
//   GRAPNEL_RET_CHECK(NamedBuffers(*net)[0].name == "1.running_mean");

#ifndef GRAPNEL_MODELS_NN_TENSORS_H_
#define GRAPNEL_MODELS_NN_TENSORS_H_

#include <vector>

#include "grapnel/base/tensor_map.h"

namespace torch::nn {
class Module;
}  // namespace torch::nn

namespace grapnel {

// In the order of the module, which they share storage with. A tensor that the
// module has under two names is there once, under the first; one that is a
// parameter as well is no buffer.
std::vector<NamedTensor> NamedParameters(const torch::nn::Module& module);
std::vector<NamedTensor> NamedBuffers(const torch::nn::Module& module);

}  // namespace grapnel

#endif  // GRAPNEL_MODELS_NN_TENSORS_H_
