// Optimizers: what changes parameters by their gradients.
//
// To add one: derive from Optimizer, give it a config message, a static
// Create(const Config&, std::vector<ParamGroup>), include optimizer.pb.h for
// the state, and GRAPNEL_REGISTER it with OptimizerRegistry in a
// grapnel_registered() target. optimizers/sgd.cc is the file to imitate. Any
// torch::optim::Optimizer works too: optimizers/torch_optimizer.h.

#ifndef GRAPNEL_OPTIM_OPTIMIZER_H_
#define GRAPNEL_OPTIM_OPTIMIZER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "grapnel/base/registry.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/optim/param_groups.h"

namespace grapnel::optim::v1 {
class OptimizerState;
}  // namespace grapnel::optim::v1

namespace grapnel {

// Parameters that share options. Multipliers apply to the configured values.
struct ParamGroup {
  std::vector<NamedTensor> params;  // Leaves that require a gradient.
  double lr_mult = 1;
  double decay_mult = 1;
};

// Thread-compatible. Never writes a tensor while autograd records.
class Optimizer : public ParamGroups {
 public:
  // As in Python's torch.optim: "SGD", "Adam", "AdamW".
  virtual absl::string_view type() const = 0;

  virtual const std::vector<NamedTensor>& params(int group) const = 0;

  // One step with the gradients that the parameters have; a parameter without
  // one stays as it is. Allocates nothing after the first call.
  virtual absl::Status Step() = 0;

  // As Step, if `overflow`, a float32 scalar on the parameters' device, turns
  // out to be 0 there; if not, parameters and slots stay as they are. Waits for
  // no device. Only if can_step_unless(); the default is kUnimplemented.
  virtual absl::Status StepUnless(const at::Tensor& /*overflow*/) {
    return absl::UnimplementedError("can't step unless there is an overflow");
  }
  virtual bool can_step_unless() const { return false; }

  // Drops the gradients (undefined, not zero).
  virtual void ZeroGrad() = 0;

  // Appends the slots, named "<parameter>/<slot>" with torch.optim's names of
  // slots ("weight/exp_avg", "weight/step"), to `*tensors`, and the options of
  // the groups, with their parameters' names, to `*state`.
  virtual absl::Status SaveState(optim::v1::OptimizerState* state,
                                 TensorMap* tensors) const = 0;

  // Takes over what SaveState gave, also of other groups or settings. What a
  // parameter has is found by its name and copied into the existing storage. A
  // parameter that the state doesn't know starts from scratch, as does a slot
  // that none of its parameters has; what this optimizer has no use for is
  // left. An option of a group is taken over if all parameters of the group
  // that the state knows had one value of it, and stays as it is otherwise. On
  // an error nothing was changed.
  //   kInvalidArgument: another type, a missing or misshapen slot; names it.
  virtual absl::Status LoadState(const optim::v1::OptimizerState& state,
                                 const TensorMap& tensors) = 0;
};

struct OptimizerTraits {
  using Product = std::unique_ptr<Optimizer>;
  static constexpr char kWhat[] = "optimizer";
};
using OptimizerRegistry = Registry<OptimizerTraits, std::vector<ParamGroup>>;

}  // namespace grapnel

#endif  // GRAPNEL_OPTIM_OPTIMIZER_H_
