// What saving and loading have in common among optimizers.

#ifndef GRAPNEL_OPTIM_OPTIMIZERS_OPTIMIZER_STATE_H_
#define GRAPNEL_OPTIM_OPTIMIZERS_OPTIMIZER_STATE_H_

#include <string>
#include <vector>

#include "ATen/core/Tensor.h"
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

// Fills in all of `*state` but without_slots.
void SaveGroups(absl::string_view type, const std::vector<StateGroup>& groups,
                optim::v1::OptimizerState* state);

// Writes the options of `state`, which a SlotReader accepted.
void LoadOptions(const optim::v1::OptimizerState& state,
                 const std::vector<StateGroup>& groups);

// Reads slots out of a state, checked. The order: Create, reading all of it,
// CheckNoneLeft, and only then changing anything.
class SlotReader {
 public:
  // kInvalidArgument if `state` isn't one of an optimizer of that type with
  // such groups. All arguments outlive the reader.
  static absl::StatusOr<SlotReader> Create(
      absl::string_view type, const std::vector<StateGroup>& groups,
      const optim::v1::OptimizerState& state, const TensorMap& tensors);

  // False if the parameter never had a gradient.
  bool HasSlots(absl::string_view param) const;

  // A slot of the parameter's shape and dtype.
  absl::StatusOr<at::Tensor> Read(const NamedTensor& param,
                                  absl::string_view slot);

  // The slot "step", a scalar of any dtype. Waits for its device.
  absl::StatusOr<double> ReadStep(absl::string_view param);

  // kInvalidArgument if a tensor wasn't read: it belongs to something that this
  // optimizer doesn't have, such as amsgrad's maximum.
  absl::Status CheckNoneLeft() const;

 private:
  explicit SlotReader(const TensorMap& tensors) : tensors_(&tensors) {}

  absl::StatusOr<at::Tensor> Take(absl::string_view param,
                                  absl::string_view slot);

  const TensorMap* tensors_;
  absl::flat_hash_set<std::string> without_slots_;
  absl::flat_hash_set<std::string> taken_;
};

}  // namespace grapnel

#endif  // GRAPNEL_OPTIM_OPTIMIZERS_OPTIMIZER_STATE_H_
