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
//
// Example:
//
//   torch::nn::Linear net(3, 1);
//   auto adamw = std::make_shared<torch::optim::AdamW>(
//       net->parameters(), torch::optim::AdamWOptions(0.01));
//   GRAPNEL_ASSIGN_OR_RETURN(
//       const std::unique_ptr<Optimizer> optimizer,
//       WrapTorchOptimizer(adamw, NamedParameters(*net)));
//   *optimizer->option(0, "lr") = 0.005;
//   net(torch::rand({8, 3})).square().mean().backward();
//   adamw->step();  // At that rate.
//   optim::v1::OptimizerState state;
//   TensorMap slots;
//   GRAPNEL_RETURN_IF_ERROR(optimizer->SaveState(&state, &slots));
//   GRAPNEL_RET_CHECK(slots.Find("weight/exp_avg") != nullptr);
absl::StatusOr<std::unique_ptr<Optimizer>> WrapTorchOptimizer(
    std::shared_ptr<torch::optim::Optimizer> optimizer,
    std::vector<NamedTensor> params);

}  // namespace grapnel

#endif  // GRAPNEL_OPTIM_OPTIMIZERS_TORCH_OPTIMIZER_H_
