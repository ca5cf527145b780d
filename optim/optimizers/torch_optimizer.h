// Any torch::optim::Optimizer as an Optimizer.

#ifndef GRAPNEL_OPTIM_OPTIMIZERS_TORCH_OPTIMIZER_H_
#define GRAPNEL_OPTIM_OPTIMIZERS_TORCH_OPTIMIZER_H_

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/optim/optimizer.h"

namespace torch {
namespace optim {
class Optimizer;
}  // namespace optim
}  // namespace torch

namespace grapnel {

// Wraps `optimizer`, which is shared with the caller and must get no further
// groups or parameters. `params`: the names of its parameters; it may hold
// others.
//
// SGD, Adam, AdamW, RMSprop and Adagrad have options (their fields, beta1 and
// beta2 for betas) and state under torch.optim's names. Any other steps, has no
// options, and answers SaveState and LoadState with kUnimplemented.
//   kInvalidArgument: null, a parameter without a name, or LBFGS, whose step
//     needs a closure.
absl::StatusOr<std::unique_ptr<Optimizer>> WrapTorchOptimizer(
    std::shared_ptr<torch::optim::Optimizer> optimizer,
    std::vector<NamedTensor> params);

}  // namespace grapnel

#endif  // GRAPNEL_OPTIM_OPTIMIZERS_TORCH_OPTIMIZER_H_
