// LibTorch's operations on lists of tensors, without its headers for them: see
// base/tensor_ops.h.

#ifndef GRAPNEL_OPTIM_FOREACH_OPS_H_
#define GRAPNEL_OPTIM_FOREACH_OPS_H_

#include <optional>
#include <vector>

#include "ATen/core/Tensor.h"

namespace grapnel {

// Every function is the call of at:: that has its name behind an underscore,
// with the same arguments, defaults and errors.
namespace ops {

void foreach_add_(at::TensorList self, const at::Scalar& scalar);
void foreach_add_(at::TensorList self, at::TensorList other,
                  const at::Scalar& alpha);
std::vector<at::Tensor> foreach_sub(at::TensorList self, at::TensorList other);
void foreach_mul_(at::TensorList self, const at::Scalar& scalar);
void foreach_mul_(at::TensorList self, const at::Tensor& other);
void foreach_lerp_(at::TensorList self, at::TensorList other,
                   const at::Scalar& weight);
void foreach_clamp_min_(at::TensorList self, const at::Scalar& scalar);
void foreach_clamp_max_(at::TensorList self, const at::Scalar& scalar);
std::vector<at::Tensor> foreach_norm(at::TensorList self,
                                     const at::Scalar& ord);
void amp_foreach_non_finite_check_and_unscale_(at::TensorList self,
                                               at::Tensor& found_inf,
                                               const at::Tensor& inv_scale);

void fused_sgd_(at::TensorList self, at::TensorList grads,
                at::TensorList momentum_buffer_list, double weight_decay,
                double momentum, double lr, double dampening, bool nesterov,
                bool maximize, bool is_first_step,
                const std::optional<at::Tensor>& grad_scale = {},
                const std::optional<at::Tensor>& found_inf = {});
void fused_adam_(at::TensorList self, at::TensorList grads,
                 at::TensorList exp_avgs, at::TensorList exp_avg_sqs,
                 at::TensorList max_exp_avg_sqs, at::TensorList state_steps,
                 double lr, double beta1, double beta2, double weight_decay,
                 double eps, bool amsgrad, bool maximize,
                 const std::optional<at::Tensor>& grad_scale = {},
                 const std::optional<at::Tensor>& found_inf = {});
void fused_adamw_(at::TensorList self, at::TensorList grads,
                  at::TensorList exp_avgs, at::TensorList exp_avg_sqs,
                  at::TensorList max_exp_avg_sqs, at::TensorList state_steps,
                  double lr, double beta1, double beta2, double weight_decay,
                  double eps, bool amsgrad, bool maximize,
                  const std::optional<at::Tensor>& grad_scale = {},
                  const std::optional<at::Tensor>& found_inf = {});

}  // namespace ops
}  // namespace grapnel

#endif  // GRAPNEL_OPTIM_FOREACH_OPS_H_
