#include "grapnel/optim/foreach_ops.h"

#include "ATen/ops/_amp_foreach_non_finite_check_and_unscale.h"
#include "ATen/ops/_foreach_add.h"
#include "ATen/ops/_foreach_clamp_max.h"
#include "ATen/ops/_foreach_clamp_min.h"
#include "ATen/ops/_foreach_lerp.h"
#include "ATen/ops/_foreach_mul.h"
#include "ATen/ops/_foreach_norm.h"
#include "ATen/ops/_foreach_sub.h"
#include "ATen/ops/_fused_adam.h"
#include "ATen/ops/_fused_adamw.h"
#include "ATen/ops/_fused_sgd.h"

namespace grapnel {
namespace ops {

void foreach_add_(at::TensorList self, const at::Scalar& scalar) {
  at::_foreach_add_(self, scalar);
}
void foreach_add_(at::TensorList self, at::TensorList other,
                  const at::Scalar& alpha) {
  at::_foreach_add_(self, other, alpha);
}
std::vector<at::Tensor> foreach_sub(at::TensorList self, at::TensorList other) {
  return at::_foreach_sub(self, other);
}
void foreach_mul_(at::TensorList self, const at::Scalar& scalar) {
  at::_foreach_mul_(self, scalar);
}
void foreach_mul_(at::TensorList self, const at::Tensor& other) {
  at::_foreach_mul_(self, other);
}
void foreach_lerp_(at::TensorList self, at::TensorList other,
                   const at::Scalar& weight) {
  at::_foreach_lerp_(self, other, weight);
}
void foreach_clamp_min_(at::TensorList self, const at::Scalar& scalar) {
  at::_foreach_clamp_min_(self, scalar);
}
void foreach_clamp_max_(at::TensorList self, const at::Scalar& scalar) {
  at::_foreach_clamp_max_(self, scalar);
}
std::vector<at::Tensor> foreach_norm(at::TensorList self,
                                     const at::Scalar& ord) {
  return at::_foreach_norm(self, ord);
}
void amp_foreach_non_finite_check_and_unscale_(at::TensorList self,
                                               at::Tensor& found_inf,
                                               const at::Tensor& inv_scale) {
  at::_amp_foreach_non_finite_check_and_unscale_(self, found_inf, inv_scale);
}
void fused_sgd_(at::TensorList self, at::TensorList grads,
                at::TensorList momentum_buffer_list, double weight_decay,
                double momentum, double lr, double dampening, bool nesterov,
                bool maximize, bool is_first_step,
                const std::optional<at::Tensor>& grad_scale,
                const std::optional<at::Tensor>& found_inf) {
  at::_fused_sgd_(self, grads, momentum_buffer_list, weight_decay, momentum, lr,
                  dampening, nesterov, maximize, is_first_step, grad_scale,
                  found_inf);
}
void fused_adam_(at::TensorList self, at::TensorList grads,
                 at::TensorList exp_avgs, at::TensorList exp_avg_sqs,
                 at::TensorList max_exp_avg_sqs, at::TensorList state_steps,
                 double lr, double beta1, double beta2, double weight_decay,
                 double eps, bool amsgrad, bool maximize,
                 const std::optional<at::Tensor>& grad_scale,
                 const std::optional<at::Tensor>& found_inf) {
  at::_fused_adam_(self, grads, exp_avgs, exp_avg_sqs, max_exp_avg_sqs,
                   state_steps, lr, beta1, beta2, weight_decay, eps, amsgrad,
                   maximize, grad_scale, found_inf);
}
void fused_adamw_(at::TensorList self, at::TensorList grads,
                  at::TensorList exp_avgs, at::TensorList exp_avg_sqs,
                  at::TensorList max_exp_avg_sqs, at::TensorList state_steps,
                  double lr, double beta1, double beta2, double weight_decay,
                  double eps, bool amsgrad, bool maximize,
                  const std::optional<at::Tensor>& grad_scale,
                  const std::optional<at::Tensor>& found_inf) {
  at::_fused_adamw_(self, grads, exp_avgs, exp_avg_sqs, max_exp_avg_sqs,
                    state_steps, lr, beta1, beta2, weight_decay, eps, amsgrad,
                    maximize, grad_scale, found_inf);
}

}  // namespace ops
}  // namespace grapnel
