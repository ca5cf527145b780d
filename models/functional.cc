#include "grapnel/models/functional.h"

#include <cstddef>
#include <tuple>
#include <vector>

#include "ATen/ops/_fused_dropout.h"
#include "ATen/ops/adaptive_avg_pool1d.h"
#include "ATen/ops/adaptive_avg_pool2d.h"
#include "ATen/ops/avg_pool1d.h"
#include "ATen/ops/avg_pool2d.h"
#include "ATen/ops/batch_norm.h"
#include "ATen/ops/batch_norm_update_stats.h"
#include "ATen/ops/binary_cross_entropy_with_logits.h"
#include "ATen/ops/conv1d.h"
#include "ATen/ops/conv2d.h"
#include "ATen/ops/conv_transpose2d.h"
#include "ATen/ops/cross_entropy_loss.h"
#include "ATen/ops/dropout.h"
#include "ATen/ops/elu.h"
#include "ATen/ops/embedding.h"
#include "ATen/ops/empty.h"
#include "ATen/ops/empty_like.h"
#include "ATen/ops/feature_dropout.h"
#include "ATen/ops/gelu.h"
#include "ATen/ops/group_norm.h"
#include "ATen/ops/l1_loss.h"
#include "ATen/ops/layer_norm.h"
#include "ATen/ops/leaky_relu.h"
#include "ATen/ops/linear.h"
#include "ATen/ops/max_pool1d.h"
#include "ATen/ops/max_pool2d.h"
#include "ATen/ops/mse_loss.h"
#include "ATen/ops/relu.h"
#include "ATen/ops/sigmoid.h"
#include "ATen/ops/silu.h"
#include "ATen/ops/smooth_l1_loss.h"
#include "ATen/ops/softmax.h"
#include "ATen/ops/tanh.h"

namespace grapnel {
namespace functional {
namespace {

// Whether `generator` makes a difference.
bool DrawsOtherwise(const at::Tensor& input, double p, bool train,
                    const at::Generator& generator) {
  return generator.defined() && train && p > 0 && p < 1 && input.numel() > 0;
}

// LibTorch's dropout, in its order of operations: at:: takes no generator.
at::Tensor Masked(const at::Tensor& input, double p, at::Tensor mask,
                  const at::Generator& generator) {
  mask.bernoulli_(1 - p, generator);
  mask.div_(1 - p);
  return input.mul(mask);
}

}  // namespace

at::Tensor relu(const at::Tensor& input) { return at::relu(input); }
at::Tensor& relu_(at::Tensor& input) { return at::relu_(input); }
at::Tensor sigmoid(const at::Tensor& input) { return at::sigmoid(input); }
at::Tensor silu(const at::Tensor& input) { return at::silu(input); }
at::Tensor tanh(const at::Tensor& input) { return at::tanh(input); }
at::Tensor elu(const at::Tensor& input, const at::Scalar& alpha) {
  return at::elu(input, alpha);
}
at::Tensor leaky_relu(const at::Tensor& input,
                      const at::Scalar& negative_slope) {
  return at::leaky_relu(input, negative_slope);
}
at::Tensor gelu(const at::Tensor& input, absl::string_view approximate) {
  return at::gelu(input, {approximate.data(), approximate.size()});
}
at::Tensor softmax(const at::Tensor& input, int64_t dim) {
  return at::softmax(input, dim);
}
at::Tensor linear(const at::Tensor& input, const at::Tensor& weight,
                  const at::Tensor& bias) {
  return at::linear(input, weight, bias);
}
at::Tensor embedding(const at::Tensor& weight, const at::Tensor& indices) {
  return at::embedding(weight, indices);
}
at::Tensor conv1d(const at::Tensor& input, const at::Tensor& weight,
                  const at::Tensor& bias, at::IntArrayRef stride,
                  at::IntArrayRef padding, at::IntArrayRef dilation,
                  int64_t groups) {
  return at::conv1d(input, weight, bias, stride, padding, dilation, groups);
}
at::Tensor conv2d(const at::Tensor& input, const at::Tensor& weight,
                  const at::Tensor& bias, at::IntArrayRef stride,
                  at::IntArrayRef padding, at::IntArrayRef dilation,
                  int64_t groups) {
  return at::conv2d(input, weight, bias, stride, padding, dilation, groups);
}
at::Tensor conv_transpose2d(const at::Tensor& input, const at::Tensor& weight,
                            const at::Tensor& bias, at::IntArrayRef stride,
                            at::IntArrayRef padding,
                            at::IntArrayRef output_padding, int64_t groups,
                            at::IntArrayRef dilation) {
  return at::conv_transpose2d(input, weight, bias, stride, padding,
                              output_padding, groups, dilation);
}
at::Tensor max_pool1d(const at::Tensor& input, at::IntArrayRef kernel_size,
                      at::IntArrayRef stride, at::IntArrayRef padding,
                      at::IntArrayRef dilation, bool ceil_mode) {
  return at::max_pool1d(input, kernel_size, stride, padding, dilation,
                        ceil_mode);
}
at::Tensor max_pool2d(const at::Tensor& input, at::IntArrayRef kernel_size,
                      at::IntArrayRef stride, at::IntArrayRef padding,
                      at::IntArrayRef dilation, bool ceil_mode) {
  return at::max_pool2d(input, kernel_size, stride, padding, dilation,
                        ceil_mode);
}
at::Tensor avg_pool1d(const at::Tensor& input, at::IntArrayRef kernel_size,
                      at::IntArrayRef stride, at::IntArrayRef padding,
                      bool ceil_mode, bool count_include_pad) {
  return at::avg_pool1d(input, kernel_size, stride, padding, ceil_mode,
                        count_include_pad);
}
at::Tensor avg_pool2d(const at::Tensor& input, at::IntArrayRef kernel_size,
                      at::IntArrayRef stride, at::IntArrayRef padding,
                      bool ceil_mode, bool count_include_pad) {
  return at::avg_pool2d(input, kernel_size, stride, padding, ceil_mode,
                        count_include_pad);
}
at::Tensor adaptive_avg_pool1d(const at::Tensor& input,
                               at::IntArrayRef output_size) {
  return at::adaptive_avg_pool1d(input, output_size);
}
at::Tensor adaptive_avg_pool2d(const at::Tensor& input,
                               at::IntArrayRef output_size) {
  return at::adaptive_avg_pool2d(input, output_size);
}
at::Tensor batch_norm(const at::Tensor& input, const at::Tensor& weight,
                      const at::Tensor& bias, const at::Tensor& running_mean,
                      const at::Tensor& running_var, bool training,
                      double momentum, double eps, bool cudnn_enabled) {
  return at::batch_norm(input, weight, bias, running_mean, running_var,
                        training, momentum, eps, cudnn_enabled);
}
std::tuple<at::Tensor, at::Tensor> batch_norm_update_stats(
    const at::Tensor& input, const at::Tensor& running_mean,
    const at::Tensor& running_var, double momentum) {
  return at::batch_norm_update_stats(input, running_mean, running_var,
                                     momentum);
}
at::Tensor layer_norm(const at::Tensor& input, at::IntArrayRef normalized_shape,
                      const at::Tensor& weight, const at::Tensor& bias,
                      double eps) {
  return at::layer_norm(input, normalized_shape, weight, bias, eps);
}
at::Tensor group_norm(const at::Tensor& input, int64_t num_groups,
                      const at::Tensor& weight, const at::Tensor& bias,
                      double eps) {
  return at::group_norm(input, num_groups, weight, bias, eps);
}
at::Tensor dropout(const at::Tensor& input, double p, bool train,
                   const at::Generator& generator) {
  if (!DrawsOtherwise(input, p, train, generator)) {
    return at::dropout(input, p, train);
  }
  // The kernel that at::dropout uses there, which takes what is kept.
  if (input.is_cuda()) {
    return std::get<0>(at::_fused_dropout(input, 1 - p, generator));
  }
  return Masked(input, p, at::empty_like(input), generator);
}
at::Tensor feature_dropout(const at::Tensor& input, double p, bool train,
                           const at::Generator& generator) {
  // It refuses what has no channels.
  if (input.dim() < 2 || !DrawsOtherwise(input, p, train, generator)) {
    return at::feature_dropout(input, p, train);
  }
  std::vector<int64_t> shape(static_cast<size_t>(input.dim()), 1);
  shape[0] = input.size(0);
  shape[1] = input.size(1);
  return Masked(input, p, at::empty(shape, input.options()), generator);
}
at::Tensor cross_entropy_loss(const at::Tensor& input, const at::Tensor& target,
                              const at::Tensor& weight, int64_t reduction,
                              int64_t ignore_index, double label_smoothing) {
  return at::cross_entropy_loss(input, target, weight, reduction, ignore_index,
                                label_smoothing);
}
at::Tensor mse_loss(const at::Tensor& input, const at::Tensor& target,
                    int64_t reduction) {
  return at::mse_loss(input, target, reduction);
}
at::Tensor l1_loss(const at::Tensor& input, const at::Tensor& target,
                   int64_t reduction) {
  return at::l1_loss(input, target, reduction);
}
at::Tensor smooth_l1_loss(const at::Tensor& input, const at::Tensor& target,
                          int64_t reduction, double beta) {
  return at::smooth_l1_loss(input, target, reduction, beta);
}
at::Tensor binary_cross_entropy_with_logits(const at::Tensor& input,
                                            const at::Tensor& target,
                                            const at::Tensor& weight,
                                            const at::Tensor& pos_weight,
                                            int64_t reduction) {
  return at::binary_cross_entropy_with_logits(input, target, weight, pos_weight,
                                              reduction);
}

}  // namespace functional
}  // namespace grapnel
