// What saving and loading have in common among optimizers.

#ifndef GRAPNEL_OPTIM_OPTIMIZERS_OPTIMIZER_STATE_H_
#define GRAPNEL_OPTIM_OPTIMIZERS_OPTIMIZER_STATE_H_

#include <memory>
#include <string>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/optim/optimizer.pb.h"

namespace grapnel {

// A numeric option of a group and where it lies.
struct OptionRef {
  std::string name;
  double* value;
};

// A group's half of a state. `params` is a copy that shares the tensors.
struct StateGroup {
  std::vector<NamedTensor> params;
  std::vector<OptionRef> options;
};

// The option called `name`, or null. "momentum" finds "beta1" where there is no
// momentum, as ParamGroups::option() promises.
double* FindOption(const std::vector<OptionRef>& options,
                   absl::string_view name);

// "<param>/<slot>".
std::string SlotName(absl::string_view param, absl::string_view slot);

// Fills in all of `*state` but slots and without_slots.
void SaveGroups(absl::string_view type, const std::vector<StateGroup>& groups,
                optim::v1::OptimizerState* state);

// Writes the options of `state`, which a SlotReader accepted, as
// Optimizer::LoadState says.
void LoadOptions(const optim::v1::OptimizerState& state,
                 const std::vector<StateGroup>& groups);

// The group of each parameter that the state knows, by name.
absl::flat_hash_map<absl::string_view, const optim::v1::OptimizerState::Group*>
GroupsByParam(const optim::v1::OptimizerState& state);

// Reads slots out of a state, checked: read all before changing anything.
class SlotReader {
 public:
  // kInvalidArgument if `state` isn't one of an optimizer of that type, or it
  // and `tensors` contradict each other. The last two outlive the reader.
  static absl::StatusOr<SlotReader> Create(
      absl::string_view type, const optim::v1::OptimizerState& state,
      const TensorMap& tensors);

  // False if the parameter never had a gradient, or isn't in the state.
  bool HasSlots(absl::string_view param) const;

  // Whether the parameter's group had such a slot. If not, it comes with a
  // setting that was another then.
  bool Knows(absl::string_view param, absl::string_view slot) const;

  // A slot of the parameter's shape and dtype. kInvalidArgument if it is
  // missing or another.
  absl::StatusOr<at::Tensor> Read(const NamedTensor& param,
                                  absl::string_view slot) const;

  // The slot "step", a scalar of any dtype. Waits for its device.
  absl::StatusOr<double> ReadStep(absl::string_view param) const;

 private:
  explicit SlotReader(const TensorMap& tensors) : tensors_(&tensors) {}

  absl::StatusOr<at::Tensor> Find(absl::string_view param,
                                  absl::string_view slot) const;

  const TensorMap* tensors_;
  // Of the parameters that have slots: their last components.
  absl::flat_hash_map<std::string, const absl::flat_hash_set<std::string>*>
      slots_of_;
  std::vector<std::unique_ptr<absl::flat_hash_set<std::string>>> slots_;
};

}  // namespace grapnel

#endif  // GRAPNEL_OPTIM_OPTIMIZERS_OPTIMIZER_STATE_H_
