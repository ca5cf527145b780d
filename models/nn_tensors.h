// The tensors of a torch::nn::Module by name, as the rest of Grapnel takes
// them.

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
