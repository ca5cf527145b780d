#include "grapnel/models/sync_batch_norm.h"

#include <cstdint>
#include <optional>
#include <tuple>
#include <vector>

#include "absl/status/status.h"
#include "c10/core/GradMode.h"
#include "c10/util/Exception.h"
#include "grapnel/base/status_exception.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/models/functional.h"
#include "torch/csrc/autograd/custom_function.h"

namespace grapnel {
namespace {

using ::torch::autograd::AutogradContext;
using ::torch::autograd::variable_list;

// Of one channel each: (C); the count is of no dimensions. Tensors, so that
// nobody waits for a device.
struct Moments {
  at::Tensor mean;
  at::Tensor var;    // Of all values: divided by their count.
  at::Tensor count;  // Of values per channel.
};

void Sum(ProcessGroup& group, const at::Tensor& tensor) {
  ThrowIfError(WithContext(group.AllReduce(tensor, ReduceOp::kSum),
                           "synchronizing batch norm"));
}

// What batch norm computes in: halves are too coarse.
at::Tensor Computable(const at::Tensor& tensor) {
  return tensor.scalar_type() == at::kHalf ||
                 tensor.scalar_type() == at::kBFloat16
             ? tensor.to(at::kFloat)
             : tensor;
}

// All dimensions but the channels'.
std::vector<int64_t> ReducedDims(const at::Tensor& input) {
  std::vector<int64_t> dims = {0};
  for (int64_t dim = 2; dim < input.dim(); ++dim) dims.push_back(dim);
  return dims;
}

// `values`, (C), as it goes with (N, C, ...).
at::Tensor PerChannel(const at::Tensor& values, const at::Tensor& input) {
  std::vector<int64_t> shape(static_cast<size_t>(input.dim()), 1);
  shape[1] = values.size(0);
  return values.view(shape);
}

// Every rank's mean, variance and count in a row of its own. Their sums would
// be shorter, but a variance from sums is a difference of large numbers.
Moments GatherMoments(const at::Tensor& input, ProcessGroup& group) {
  const int64_t channels = input.size(1);
  const auto [mean, var] = functional::batch_norm_update_stats(
      input, /*running_mean=*/{}, /*running_var=*/{}, /*momentum=*/0);
  const at::Tensor rows =
      ops::zeros({group.world_size(), 2 * channels + 1}, mean.options());
  const at::Tensor own = rows.select(0, group.rank());
  own.narrow(0, 0, channels).copy_(mean);
  own.narrow(0, channels, channels).copy_(var);
  own.narrow(0, 2 * channels, 1).fill_(input.numel() / channels);
  Sum(group, rows);

  // By differences from the first rank's mean, which are small.
  const at::Tensor means = rows.narrow(1, 0, channels);
  const at::Tensor vars = rows.narrow(1, channels, channels);
  const at::Tensor counts = rows.narrow(1, 2 * channels, 1);
  Moments all;
  all.count = counts.sum();
  const at::Tensor first = means.select(0, 0);
  const at::Tensor shifts = means.sub(first);
  const at::Tensor shift = shifts.mul(counts).sum(0).div_(all.count);
  all.mean = first.add(shift);
  all.var = shifts.sub(shift).square_().add_(vars).mul_(counts).sum(0).div_(
      all.count);
  return all;
}

class Normalize : public torch::autograd::Function<Normalize> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& input,
                            const std::optional<at::Tensor>& weight,
                            const std::optional<at::Tensor>& bias,
                            const at::Tensor& mean, const at::Tensor& var,
                            const at::Tensor& count, double eps,
                            int64_t group) {
    context->save_for_backward(
        {input, weight.value_or(at::Tensor()), mean, var, count});
    context->saved_data["eps"] = eps;
    context->saved_data["group"] = group;
    // LibTorch's kernel for the statistics of others.
    return functional::batch_norm(
        input, weight.value_or(at::Tensor()), bias.value_or(at::Tensor()), mean,
        var, /*training=*/false, /*momentum=*/0, eps, /*cudnn_enabled=*/true);
  }

  static variable_list backward(AutogradContext* context,
                                const variable_list& above) {
    // What is computed here has no derivative: it is a collective.
    const c10::AutoGradMode no_grad(false);
    const variable_list saved = context->get_saved_variables();
    const at::Tensor& weight = saved[1];
    const at::Tensor input = Computable(saved[0]);
    const at::Tensor gradient = Computable(above[0]);
    const at::Tensor inverse_deviation =
        saved[3].add(context->saved_data["eps"].toDouble()).rsqrt_();
    const std::vector<int64_t> dims = ReducedDims(input);

    at::Tensor centered = input.sub(PerChannel(saved[2], input));
    const at::Tensor sums = ops::stack(
        {gradient.sum(dims), gradient.mul(centered).sum(dims)});  // (2, C)
    variable_list gradients(8);
    if (weight.defined()) {
      gradients[1] = sums[1].mul(inverse_deviation);
      gradients[2] = sums[0].clone();
    }
    if (!context->needs_input_grad(0)) return gradients;

    Sum(GroupOf(context), sums);
    const at::Tensor means = sums.div_(saved[4]);
    const at::Tensor slope = inverse_deviation.square().mul_(means[1]).neg_();
    const at::Tensor scale =
        weight.defined() ? inverse_deviation.mul(weight) : inverse_deviation;
    gradients[0] = centered.mul_(PerChannel(slope, input))
                       .add_(gradient)
                       .sub_(PerChannel(means[0], input))
                       .mul_(PerChannel(scale, input))
                       .to(saved[0].scalar_type());
    return gradients;
  }

  // A context keeps LibTorch's values only.
  static int64_t ToNumber(ProcessGroup& group) {
    return reinterpret_cast<int64_t>(&group);
  }

 private:
  static ProcessGroup& GroupOf(AutogradContext* context) {
    return *reinterpret_cast<ProcessGroup*>(
        context->saved_data["group"].toInt());
  }
};

}  // namespace

at::Tensor BatchNormOverRanks(const at::Tensor& input, const at::Tensor& weight,
                              const at::Tensor& bias,
                              const at::Tensor& running_mean,
                              const at::Tensor& running_var, double momentum,
                              double eps, ProcessGroup& group) {
  TORCH_CHECK_VALUE(input.dim() >= 2 && input.numel() > 0,
                    "batch norm needs a value per channel in training: input "
                    "is ",
                    input.sizes());
  TORCH_CHECK_VALUE(group.world_size() > 1 || input.numel() > input.size(1),
                    "batch norm needs more than one value per channel in "
                    "training: input is ",
                    input.sizes());
  Moments moments;
  {
    const c10::AutoGradMode no_grad(false);
    moments = GatherMoments(Computable(input.detach()), group);
    if (running_mean.defined()) {
      running_mean.mul_(1 - momentum).add_(moments.mean, momentum);
      // The unbiased one, as LibTorch has it.
      running_var.mul_(1 - momentum)
          .add_(moments.var.mul(moments.count).div_(moments.count.sub(1)),
                momentum);
    }
  }
  return Normalize::apply(input, std::optional<at::Tensor>(weight),
                          std::optional<at::Tensor>(bias), moments.mean,
                          moments.var, moments.count, eps,
                          Normalize::ToNumber(group));
}

}  // namespace grapnel
