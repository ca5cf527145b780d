#include "grapnel/optim/optimizers/optimizer_state.h"

#include <cmath>
#include <sstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/torch_status.h"

namespace grapnel {
namespace {

using ::grapnel::optim::v1::OptimizerState;

std::string DescribeTensor(const at::Tensor& tensor) {
  std::ostringstream text;
  text << tensor.scalar_type() << tensor.sizes();
  return text.str();
}

absl::Status CheckGroup(const StateGroup& group,
                        const OptimizerState::Group& saved) {
  if (saved.params_size() != static_cast<int>(group.params.size())) {
    return absl::InvalidArgumentError(absl::StrCat(
        "has ", saved.params_size(), " parameters in the state and ",
        group.params.size(), " here"));
  }
  const absl::flat_hash_set<std::string> names(saved.params().begin(),
                                               saved.params().end());
  for (const NamedTensor& param : group.params) {
    if (!names.contains(param.name)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "parameter \"", param.name, "\" isn't in the state's group"));
    }
  }
  for (const OptionRef& option : group.options) {
    const auto found = saved.options().find(option.name);
    if (found == saved.options().end()) {
      return absl::InvalidArgumentError(
          absl::StrCat(option.name, ": is missing in the state"));
    }
    if (!std::isfinite(found->second)) {
      return absl::InvalidArgumentError(
          absl::StrCat(option.name, ": must be finite, is ", found->second));
    }
  }
  if (saved.options_size() != static_cast<int>(group.options.size())) {
    for (const auto& [name, value] : saved.options()) {
      bool known = false;
      for (const OptionRef& option : group.options) {
        known = known || option.name == name;
      }
      if (!known) {
        return absl::InvalidArgumentError(absl::StrCat(
            name, ": the optimizer has no such option, the state has"));
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace

double* FindOption(const std::vector<OptionRef>& options,
                   absl::string_view name) {
  for (const OptionRef& option : options) {
    if (option.name == name) return option.value;
  }
  return name == "momentum" ? FindOption(options, "beta1") : nullptr;
}

std::string SlotName(absl::string_view param, absl::string_view slot) {
  return absl::StrCat(param, "/", slot);
}

void SaveGroups(absl::string_view type, const std::vector<StateGroup>& groups,
                OptimizerState* state) {
  state->set_type(std::string(type));
  for (const StateGroup& group : groups) {
    OptimizerState::Group* saved = state->add_groups();
    for (const NamedTensor& param : group.params) {
      saved->add_params(param.name);
    }
    for (const OptionRef& option : group.options) {
      (*saved->mutable_options())[option.name] = *option.value;
    }
  }
}

void LoadOptions(const OptimizerState& state,
                 const std::vector<StateGroup>& groups) {
  for (size_t i = 0; i < groups.size(); ++i) {
    for (const OptionRef& option : groups[i].options) {
      *option.value = state.groups(i).options().at(option.name);
    }
  }
}

absl::StatusOr<SlotReader> SlotReader::Create(
    absl::string_view type, const std::vector<StateGroup>& groups,
    const OptimizerState& state, const TensorMap& tensors) {
  if (state.type() != type) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the state is of optimizer ", state.type(), ", this is ", type));
  }
  if (state.groups_size() != static_cast<int>(groups.size())) {
    return absl::InvalidArgumentError(
        absl::StrCat("the state has ", state.groups_size(),
                     " parameter groups, the optimizer has ", groups.size()));
  }
  SlotReader reader(tensors);
  for (size_t i = 0; i < groups.size(); ++i) {
    GRAPNEL_RETURN_IF_ERROR(WithContext(CheckGroup(groups[i], state.groups(i)),
                                        absl::StrCat("groups[", i, "]")));
    for (const std::string& name : state.groups(i).without_slots()) {
      reader.without_slots_.insert(name);
    }
  }
  return reader;
}

bool SlotReader::HasSlots(absl::string_view param) const {
  return !without_slots_.contains(param);
}

absl::StatusOr<at::Tensor> SlotReader::Take(absl::string_view param,
                                            absl::string_view slot) {
  std::string name = SlotName(param, slot);
  const at::Tensor* tensor = tensors_->Find(name);
  if (tensor == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("slot \"", name, "\" is missing in the state"));
  }
  taken_.insert(std::move(name));
  return *tensor;
}

absl::StatusOr<at::Tensor> SlotReader::Read(const NamedTensor& param,
                                            absl::string_view slot) {
  GRAPNEL_ASSIGN_OR_RETURN(at::Tensor tensor, Take(param.name, slot));
  if (tensor.sizes() != param.tensor.sizes() ||
      tensor.scalar_type() != param.tensor.scalar_type()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "slot \"", SlotName(param.name, slot), "\" is ", DescribeTensor(tensor),
        ", must be ", DescribeTensor(param.tensor)));
  }
  return tensor;
}

absl::StatusOr<double> SlotReader::ReadStep(absl::string_view param) {
  GRAPNEL_ASSIGN_OR_RETURN(at::Tensor tensor, Take(param, "step"));
  double step = -1;
  if (tensor.numel() == 1) {
    GRAPNEL_RETURN_IF_ERROR(CatchAsStatus([&] {
      step = tensor.item().toDouble();
      return absl::OkStatus();
    }));
  }
  if (!(step >= 0 && std::floor(step) == step && step <= 0x1p53)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "slot \"", SlotName(param, "step"),
        "\" must be one whole number >= 0, is ", DescribeTensor(tensor),
        tensor.numel() == 1 ? absl::StrCat(" ", step) : ""));
  }
  return step;
}

absl::Status SlotReader::CheckNoneLeft() const {
  for (const NamedTensor& entry : *tensors_) {
    if (!taken_.contains(entry.name)) {
      return absl::InvalidArgumentError(
          absl::StrCat("the state has a slot \"", entry.name,
                       "\", the optimizer as configured has none"));
    }
  }
  return absl::OkStatus();
}

}  // namespace grapnel
