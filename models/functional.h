// LibTorch's functions of layers and losses, without its headers for them: see
// base/tensor_ops.h.

#ifndef GRAPNEL_MODELS_FUNCTIONAL_H_
#define GRAPNEL_MODELS_FUNCTIONAL_H_

#include <cstdint>
#include <optional>
#include <tuple>

#include "ATen/core/Generator.h"
#include "ATen/core/Tensor.h"
#include "absl/strings/string_view.h"

namespace grapnel {

// Every function is the call of at:: that has its name, with the same arguments
// and errors.
namespace functional {

at::Tensor relu(const at::Tensor& input);
at::Tensor& relu_(at::Tensor& input);
at::Tensor sigmoid(const at::Tensor& input);
at::Tensor silu(const at::Tensor& input);
at::Tensor tanh(const at::Tensor& input);
at::Tensor elu(const at::Tensor& input, const at::Scalar& alpha);
at::Tensor leaky_relu(const at::Tensor& input,
                      const at::Scalar& negative_slope);
at::Tensor gelu(const at::Tensor& input, absl::string_view approximate);
at::Tensor softmax(const at::Tensor& input, int64_t dim);

at::Tensor linear(const at::Tensor& input, const at::Tensor& weight,
                  const at::Tensor& bias = {});
at::Tensor embedding(const at::Tensor& weight, const at::Tensor& indices);
at::Tensor conv1d(const at::Tensor& input, const at::Tensor& weight,
                  const at::Tensor& bias, at::IntArrayRef stride,
                  at::IntArrayRef padding, at::IntArrayRef dilation,
                  int64_t groups);
at::Tensor conv2d(const at::Tensor& input, const at::Tensor& weight,
                  const at::Tensor& bias, at::IntArrayRef stride,
                  at::IntArrayRef padding, at::IntArrayRef dilation,
                  int64_t groups);
at::Tensor conv_transpose2d(const at::Tensor& input, const at::Tensor& weight,
                            const at::Tensor& bias, at::IntArrayRef stride,
                            at::IntArrayRef padding,
                            at::IntArrayRef output_padding, int64_t groups,
                            at::IntArrayRef dilation);

at::Tensor max_pool1d(const at::Tensor& input, at::IntArrayRef kernel_size,
                      at::IntArrayRef stride, at::IntArrayRef padding,
                      at::IntArrayRef dilation, bool ceil_mode);
at::Tensor max_pool2d(const at::Tensor& input, at::IntArrayRef kernel_size,
                      at::IntArrayRef stride, at::IntArrayRef padding,
                      at::IntArrayRef dilation, bool ceil_mode);
at::Tensor avg_pool1d(const at::Tensor& input, at::IntArrayRef kernel_size,
                      at::IntArrayRef stride, at::IntArrayRef padding,
                      bool ceil_mode, bool count_include_pad);
at::Tensor avg_pool2d(const at::Tensor& input, at::IntArrayRef kernel_size,
                      at::IntArrayRef stride, at::IntArrayRef padding,
                      bool ceil_mode, bool count_include_pad);
at::Tensor adaptive_avg_pool1d(const at::Tensor& input,
                               at::IntArrayRef output_size);
at::Tensor adaptive_avg_pool2d(const at::Tensor& input,
                               at::IntArrayRef output_size);

at::Tensor batch_norm(const at::Tensor& input, const at::Tensor& weight,
                      const at::Tensor& bias, const at::Tensor& running_mean,
                      const at::Tensor& running_var, bool training,
                      double momentum, double eps, bool cudnn_enabled);
std::tuple<at::Tensor, at::Tensor> batch_norm_update_stats(
    const at::Tensor& input, const at::Tensor& running_mean,
    const at::Tensor& running_var, double momentum);
at::Tensor layer_norm(const at::Tensor& input, at::IntArrayRef normalized_shape,
                      const at::Tensor& weight, const at::Tensor& bias,
                      double eps);
at::Tensor group_norm(const at::Tensor& input, int64_t num_groups,
                      const at::Tensor& weight, const at::Tensor& bias,
                      double eps);

// These draw from `generator`, one of the input's device, what at:: draws from
// the default one; on the CPU and on CUDA to the bit. An undefined one is the
// default. LibTorch throws if it is another device's.
at::Tensor dropout(const at::Tensor& input, double p, bool train,
                   const at::Generator& generator);
at::Tensor feature_dropout(const at::Tensor& input, double p, bool train,
                           const at::Generator& generator);

at::Tensor cross_entropy_loss(const at::Tensor& input, const at::Tensor& target,
                              const at::Tensor& weight, int64_t reduction,
                              int64_t ignore_index, double label_smoothing);
at::Tensor mse_loss(const at::Tensor& input, const at::Tensor& target,
                    int64_t reduction);
at::Tensor l1_loss(const at::Tensor& input, const at::Tensor& target,
                   int64_t reduction);
at::Tensor smooth_l1_loss(const at::Tensor& input, const at::Tensor& target,
                          int64_t reduction, double beta);
at::Tensor binary_cross_entropy_with_logits(const at::Tensor& input,
                                            const at::Tensor& target,
                                            const at::Tensor& weight,
                                            const at::Tensor& pos_weight,
                                            int64_t reduction);

}  // namespace functional
}  // namespace grapnel

#endif  // GRAPNEL_MODELS_FUNCTIONAL_H_
