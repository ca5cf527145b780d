// Optimizers over ATen's fused kernels.
//
// An optimizer is a rule: which options and slots it has and which kernel it
// calls. sgd.cc is the example.

#ifndef GRAPNEL_OPTIM_OPTIMIZERS_FUSED_OPTIMIZER_H_
#define GRAPNEL_OPTIM_OPTIMIZERS_FUSED_OPTIMIZER_H_

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/statusor.h"
#include "grapnel/optim/optimizer.h"

namespace grapnel {

// The tensors for one call of a kernel: parameters of one group, device and
// dtype that have a gradient. All lists but `slots` have one entry a parameter.
struct FusedBatch {
  std::vector<at::Tensor> params;
  std::vector<at::Tensor> grads;               // Strides as the parameters'.
  std::vector<std::vector<at::Tensor>> slots;  // A list for each of the rule's.
  std::vector<at::Tensor> steps;  // float32 scalars; empty unless counted.
  bool first_step = false;        // These parameters' first: slots are zero.

  // A float32 scalar on their device: if it isn't 0, the kernel changes
  // nothing. Undefined: there is no such condition.
  at::Tensor overflow;

  // Set to false by a call that leaves the slots alone. A first step is then
  // still to come.
  bool slots_used = true;
};

// As kernels take it.
inline std::optional<at::Tensor> OverflowOf(const FusedBatch& batch) {
  if (!batch.overflow.defined()) return std::nullopt;
  return batch.overflow;
}

struct FusedRule {
  std::string type;  // Optimizer::type().

  // Names and configured values. "lr" and "weight_decay" are multiplied by the
  // groups' lr_mult and decay_mult.
  std::vector<std::pair<std::string, double>> options;

  // Tensors like the parameter that are kept for it.
  std::vector<std::string> slots;

  // Whether there is a slot "step": how many steps the parameter took, this one
  // included.
  bool counts_steps = false;

  // Whether, with these options, a later step with slots that are still zero is
  // another one than a first one. Then FusedBatch::overflow isn't for a first
  // step. Unset: it never is.
  std::function<bool(const std::vector<double>& options)> first_step_differs;

  // Calls the kernel. `options` in the order above. Autograd is off.
  std::function<void(const std::vector<double>& options, FusedBatch& batch)>
      apply;
};

// kInvalidArgument, naming the parameter: two of one name, not floating, not a
// leaf that requires a gradient, or overlapping or with gaps in memory, which
// the kernels don't see.
absl::StatusOr<std::unique_ptr<Optimizer>> MakeFusedOptimizer(
    FusedRule rule, std::vector<ParamGroup> groups);

}  // namespace grapnel

#endif  // GRAPNEL_OPTIM_OPTIMIZERS_FUSED_OPTIMIZER_H_
