#include "grapnel/optim/configured_options.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "google/protobuf/map.h"
#include "grapnel/base/check_field.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/optim/optim_wrapper.pb.h"
#include "grapnel/optim/optimizer.pb.h"
#include "grapnel/optim/optimizers/optimizer_state.h"

namespace grapnel {
namespace {

using ::grapnel::optim::v1::OptimizerState;
using ::grapnel::optim::v1::OptimWrapperState;

using Options = ::google::protobuf::Map<std::string, double>;

OptimizerState StateOf(const Optimizer& optimizer) {
  OptimizerState state;
  TensorMap tensors;
  if (!optimizer.SaveState(&state, &tensors).ok()) state.Clear();
  return state;
}

std::string Text(double value) { return absl::StrFormat("%.12g", value); }

std::string Text(const std::set<double>& values) {
  if (values.empty()) return "none";
  return absl::StrJoin(values, " and ", [](std::string* out, double value) {
    out->append(Text(value));
  });
}

// What the state says of one option of those parameters that a group has now.
struct Saved {
  std::set<double> configured;
  std::set<double> current;
  bool all_configured = true;  // It is known of each.

  void Add(const Options& configured_options, const Options& current_options,
           const std::string& name) {
    const auto value = current_options.find(name);
    if (value == current_options.end()) return;
    current.insert(value->second);
    const auto then = configured_options.find(name);
    if (then == configured_options.end()) {
      all_configured = false;
    } else {
      configured.insert(then->second);
    }
  }
};

// Puts one option right. Appends to `*changes` what somebody configured
// otherwise.
void RestoreOption(const std::string& name, double configured,
                   const Saved& saved, const std::string& group, double* value,
                   RestoredOptions* options,
                   std::vector<std::string>* changes) {
  const bool one_value = saved.current.size() == 1;
  if (!saved.all_configured) options->configured_known = false;
  if (one_value &&
      (!saved.all_configured || (saved.configured.size() == 1 &&
                                 *saved.configured.begin() == configured))) {
    *value = *saved.current.begin();
    return;
  }
  *value = configured;
  options->reset.push_back(value);
  // Of a group of new parameters there is nothing to say.
  const std::set<double>& before =
      saved.configured.size() == 1 && *saved.configured.begin() == configured
          ? saved.current
          : saved.configured;
  changes->push_back(
      absl::StrCat(name, group, ": ", Text(before), " -> ", Text(configured)));
}

// " of group 1 (\"body.weight\", ...)"; "" if there is only one.
std::string GroupText(const Optimizer& optimizer, int group) {
  if (optimizer.num_groups() == 1) return "";
  const std::vector<NamedTensor>& params = optimizer.params(group);
  return absl::StrCat(" of group ", group, " (\"",
                      params.empty() ? "" : params.front().name, "\"",
                      params.size() > 1 ? ", ...)" : ")");
}

}  // namespace

ConfiguredOptions::ConfiguredOptions(const Optimizer& optimizer,
                                     const Optimizer* base) {
  const auto values = [](const OptimizerState::Group& group) {
    return Values(group.options().begin(), group.options().end());
  };
  const OptimizerState state = StateOf(optimizer);
  for (const OptimizerState::Group& group : state.groups()) {
    groups_.push_back(values(group));
  }
  groups_.resize(optimizer.num_groups());
  if (base == nullptr) return;
  const OptimizerState base_state = StateOf(*base);
  if (base_state.groups_size() > 0) base_ = values(base_state.groups(0));
}

void ConfiguredOptions::ScaleLr(double factor) {
  for (Values& group : groups_) {
    const auto lr = group.find("lr");
    if (lr != group.end()) lr->second *= factor;
  }
  const auto lr = base_.find("lr");
  if (lr != base_.end()) lr->second *= factor;
}

void ConfiguredOptions::Save(OptimWrapperState* state) const {
  OptimizerState& optimizer = *state->mutable_optimizer();
  const int num_groups = std::min<int>(optimizer.groups_size(), groups_.size());
  for (int i = 0; i < num_groups; ++i) {
    Options& configured = *optimizer.mutable_groups(i)->mutable_configured();
    for (const auto& [name, value] : groups_[i]) configured[name] = value;
  }
  for (const auto& [name, value] : base_) {
    (*state->mutable_base_configured())[name] = value;
  }
}

absl::Status ConfiguredOptions::Check(const OptimWrapperState& state) const {
  if (state.base_options().empty()) return absl::OkStatus();
  for (const auto& [field, options] :
       {std::pair("base_options", &state.base_options()),
        std::pair("base_configured", &state.base_configured())}) {
    for (const auto& [name, value] : *options) {
      GRAPNEL_RETURN_IF_ERROR(CheckField(std::isfinite(value),
                                         absl::StrCat(field, ": ", name),
                                         "finite", value));
    }
  }
  for (const OptimizerState::Group& group : state.optimizer().groups()) {
    for (const auto& [name, value] : group.options()) {
      if (state.base_options().contains(name)) continue;
      return absl::InvalidArgumentError(
          absl::StrCat("base_options: ", name, " is missing"));
    }
  }
  return absl::OkStatus();
}

void ConfiguredOptions::Restore(const OptimWrapperState& state,
                                Optimizer& optimizer, Optimizer* base,
                                RestoredOptions* options,
                                std::vector<std::string>* notes) const {
  const auto saved_groups = GroupsByParam(state.optimizer());
  std::vector<std::string> changes;
  std::set<std::string> gone;        // Options.
  options->configured_known = true;  // Until one isn't.
  options->same_groups =
      state.optimizer().groups_size() == optimizer.num_groups() &&
      state.base_options().empty() == (base == nullptr);
  size_t num_known = 0;
  int64_t num_new = 0;
  for (int i = 0; i < optimizer.num_groups(); ++i) {
    std::vector<const OptimizerState::Group*> known;
    for (const NamedTensor& param : optimizer.params(i)) {
      const auto saved = saved_groups.find(param.name);
      if (saved != saved_groups.end()) known.push_back(saved->second);
    }
    num_known += known.size();
    options->same_groups &=
        known.size() == optimizer.params(i).size() &&
        i < state.optimizer().groups_size() &&
        state.optimizer().groups(i).params_size() ==
            static_cast<int>(known.size()) &&
        std::all_of(known.begin(), known.end(), [&](const auto* group) {
          return group == &state.optimizer().groups(i);
        });
    num_new += optimizer.params(i).size() - known.size();
    for (const auto& [name, configured] : groups_[i]) {
      double* const value = optimizer.option(i, name);
      if (value == nullptr) continue;
      Saved saved;
      for (const OptimizerState::Group* group : known) {
        saved.Add(group->configured(), group->options(), name);
      }
      std::vector<std::string> unsaid;
      RestoreOption(name, configured, saved, GroupText(optimizer, i), value,
                    options, known.empty() ? &unsaid : &changes);
    }
    for (const OptimizerState::Group* group : known) {
      for (const auto& [name, value] : group->options()) {
        if (groups_[i].count(name) == 0 && !groups_[i].empty() &&
            gone.insert(name).second) {
          changes.push_back(absl::StrCat(name, ": ", Text(value), " -> none"));
        }
      }
    }
  }
  if (base != nullptr) {
    for (const auto& [name, configured] : base_) {
      double* const value = base->option(0, name);
      if (value == nullptr) continue;
      Saved saved;
      if (state.base_options().empty() &&
          state.optimizer().groups_size() == 1) {
        // What has one group has no base group: it was the one.
        const OptimizerState::Group& only = state.optimizer().groups(0);
        saved.Add(only.configured(), only.options(), name);
      } else {
        saved.Add(state.base_configured(), state.base_options(), name);
      }
      std::vector<std::string> unsaid;
      RestoreOption(name, configured, saved, " of the base group", value,
                    options, state.base_options().empty() ? &unsaid : &changes);
    }
  }
  if (num_new > 0) {
    changes.push_back(absl::StrCat(num_new, " parameters came"));
  }
  if (saved_groups.size() > num_known) {
    changes.push_back(
        absl::StrCat(saved_groups.size() - num_known, " parameters went"));
  }
  if (!changes.empty()) notes->push_back(absl::StrJoin(changes, "; "));
  if (!options->configured_known) {
    notes->push_back(
        "what was configured when the checkpoint was saved isn't known: "
        "options keep the values that they had come to");
  }
}

}  // namespace grapnel
