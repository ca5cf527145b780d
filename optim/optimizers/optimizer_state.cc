#include "grapnel/optim/optimizers/optimizer_state.h"

#include <algorithm>
#include <cmath>
#include <sstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "grapnel/base/check_field.h"
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

absl::Status CheckOptions(const OptimizerState::Group& group) {
  for (const auto& [name, value] : group.options()) {
    GRAPNEL_RETURN_IF_ERROR(
        CheckField(std::isfinite(value), name, "finite", value));
  }
  for (const auto& [name, value] : group.configured()) {
    GRAPNEL_RETURN_IF_ERROR(CheckField(std::isfinite(value),
                                       absl::StrCat("configured: ", name),
                                       "finite", value));
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

absl::flat_hash_map<absl::string_view, const OptimizerState::Group*>
GroupsByParam(const OptimizerState& state) {
  absl::flat_hash_map<absl::string_view, const OptimizerState::Group*> groups;
  for (const OptimizerState::Group& group : state.groups()) {
    for (const std::string& param : group.params()) groups[param] = &group;
  }
  return groups;
}

void LoadOptions(const OptimizerState& state,
                 const std::vector<StateGroup>& groups) {
  const auto saved_groups = GroupsByParam(state);
  for (const StateGroup& group : groups) {
    for (const OptionRef& option : group.options) {
      absl::flat_hash_set<double> values;
      for (const NamedTensor& param : group.params) {
        const auto saved = saved_groups.find(param.name);
        if (saved == saved_groups.end()) continue;
        const auto value = saved->second->options().find(option.name);
        if (value != saved->second->options().end()) {
          values.insert(value->second);
        }
      }
      if (values.size() == 1) *option.value = *values.begin();
    }
  }
}

absl::StatusOr<SlotReader> SlotReader::Create(absl::string_view type,
                                              const OptimizerState& state,
                                              const TensorMap& tensors) {
  if (state.type() != type) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the state is of optimizer ", state.type(), ", this is ", type,
        ": start from it with load_from, or keep the old optimizer"));
  }
  SlotReader reader(tensors);
  const bool listed =
      std::any_of(state.groups().begin(), state.groups().end(),
                  [](const auto& group) { return group.slots_size() > 0; });
  absl::flat_hash_set<absl::string_view> params;
  for (int i = 0; i < state.groups_size(); ++i) {
    const OptimizerState::Group& group = state.groups(i);
    GRAPNEL_RETURN_IF_ERROR(
        WithContext(CheckOptions(group), absl::StrCat("groups[", i, "]")));
    // States of before slots were listed: what any parameter has.
    if (listed || i == 0) {
      reader.slots_.push_back(
          std::make_unique<absl::flat_hash_set<std::string>>(
              group.slots().begin(), group.slots().end()));
    }
    for (const std::string& param : group.params()) {
      if (!params.insert(param).second) {
        return absl::InvalidArgumentError(
            absl::StrCat("parameter \"", param, "\" is there twice"));
      }
      reader.slots_of_[param] = reader.slots_.back().get();
    }
    for (const std::string& param : group.without_slots()) {
      reader.slots_of_.erase(param);
    }
  }
  for (const NamedTensor& tensor : tensors) {
    const size_t slash = std::min(tensor.name.rfind('/'), tensor.name.size());
    const std::string slot =
        tensor.name.substr(std::min(slash + 1, tensor.name.size()));
    const auto known = reader.slots_of_.find(tensor.name.substr(0, slash));
    if (known != reader.slots_of_.end() && !listed) {
      reader.slots_.front()->insert(slot);
    }
    if (known == reader.slots_of_.end() || !known->second->contains(slot)) {
      return absl::InvalidArgumentError(
          absl::StrCat("there is a slot \"", tensor.name,
                       "\", which the state doesn't know"));
    }
  }
  return reader;
}

bool SlotReader::HasSlots(absl::string_view param) const {
  return slots_of_.contains(param);
}

bool SlotReader::Knows(absl::string_view param, absl::string_view slot) const {
  const auto known = slots_of_.find(param);
  return known != slots_of_.end() && known->second->contains(slot);
}

absl::StatusOr<at::Tensor> SlotReader::Find(absl::string_view param,
                                            absl::string_view slot) const {
  const std::string name = SlotName(param, slot);
  const at::Tensor* tensor = tensors_->Find(name);
  if (tensor == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("slot \"", name, "\" is missing in the state"));
  }
  return *tensor;
}

absl::StatusOr<at::Tensor> SlotReader::Read(const NamedTensor& param,
                                            absl::string_view slot) const {
  GRAPNEL_ASSIGN_OR_RETURN(at::Tensor tensor, Find(param.name, slot));
  if (tensor.sizes() != param.tensor.sizes() ||
      tensor.scalar_type() != param.tensor.scalar_type()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "slot \"", SlotName(param.name, slot), "\" is ", DescribeTensor(tensor),
        ", must be ", DescribeTensor(param.tensor)));
  }
  return tensor;
}

absl::StatusOr<double> SlotReader::ReadStep(absl::string_view param) const {
  GRAPNEL_ASSIGN_OR_RETURN(const at::Tensor tensor, Find(param, "step"));
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

}  // namespace grapnel
