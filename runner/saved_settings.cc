#include "grapnel/runner/saved_settings.h"

#include <memory>
#include <set>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/optim/optim_wrapper.h"
#include "grapnel/optim/optim_wrapper.pb.h"
#include "grapnel/optim/optimizer.pb.h"
#include "grapnel/runner/config_file.h"
#include "grapnel/runner/runner_config.pb.h"

namespace grapnel {
namespace {

using ::grapnel::optim::v1::OptimizerState;
using ::grapnel::optim::v1::OptimWrapperState;
using ::grapnel::runner::v1::RunnerConfig;

// With the storage of the model's, and those requiring a gradient that did when
// the state was saved: the optimizer that is made of them never steps.
std::vector<NamedTensor> ParamsOf(const OptimWrapperState& state,
                                  const std::vector<NamedTensor>& params) {
  std::set<std::string> names;
  const auto add = [&](const OptimizerState& optimizer) {
    for (const OptimizerState::Group& group : optimizer.groups()) {
      names.insert(group.params().begin(), group.params().end());
    }
  };
  add(state.optimizer());
  for (const auto& member : state.optimizers()) add(member.state().optimizer());
  std::vector<NamedTensor> then;
  for (const NamedTensor& param : params) {
    at::Tensor tensor = param.tensor.detach();
    tensor.requires_grad_(names.count(param.name) > 0);
    then.push_back({param.name, std::move(tensor)});
  }
  return then;
}

absl::StatusOr<OptimWrapperState> ConfiguredState(
    const std::string& config_text, int64_t batch_size,
    const std::vector<NamedTensor>& params) {
  GRAPNEL_ASSIGN_OR_RETURN(
      const RunnerConfig config,
      ParseRunnerConfig(config_text, ConfigFormat::kText, "config"));
  GRAPNEL_ASSIGN_OR_RETURN(
      const std::unique_ptr<OptimWrapper> wrapper,
      OptimWrapper::Create(config.optim_wrapper(), params));
  if (config.auto_scale_lr().enable()) {
    GRAPNEL_RETURN_IF_ERROR(wrapper->ScaleLr(
        static_cast<double>(batch_size) /
        static_cast<double>(config.auto_scale_lr().base_batch_size())));
  }
  OptimWrapperState state;
  TensorMap tensors, gradients;
  GRAPNEL_RETURN_IF_ERROR(wrapper->SaveState(&state, &tensors, &gradients));
  return state;
}

// From one optimizer's state to that of the same parameters.
void CopyConfigured(const OptimWrapperState& from, OptimWrapperState* to) {
  *to->mutable_base_configured() = from.base_configured();
  for (OptimizerState::Group& group :
       *to->mutable_optimizer()->mutable_groups()) {
    for (const OptimizerState::Group& other : from.optimizer().groups()) {
      // A group's parameters share what is configured.
      if (group.params_size() > 0 && other.params_size() > 0 &&
          std::set<std::string>(group.params().begin(), group.params().end()) ==
              std::set<std::string>(other.params().begin(),
                                    other.params().end())) {
        *group.mutable_configured() = other.configured();
      }
    }
  }
}

bool SaysConfigured(const OptimWrapperState& state) {
  for (const OptimizerState::Group& group : state.optimizer().groups()) {
    if (!group.configured().empty()) return true;
  }
  for (const auto& member : state.optimizers()) {
    if (SaysConfigured(member.state())) return true;
  }
  return false;
}

}  // namespace

void AddConfiguredOptions(const std::string& config_text, int64_t batch_size,
                          const std::vector<NamedTensor>& params,
                          OptimWrapperState* state) {
  if (SaysConfigured(*state)) return;
  absl::StatusOr<OptimWrapperState> configured;
  const absl::Status status = CatchAsStatus([&] {
    configured =
        ConfiguredState(config_text, batch_size, ParamsOf(*state, params));
    return configured.status();
  });
  if (!status.ok()) return;  // LoadState says that it isn't known.
  CopyConfigured(*configured, state);
  for (auto& member : *state->mutable_optimizers()) {
    for (const auto& other : configured->optimizers()) {
      if (other.name() == member.name()) {
        CopyConfigured(other.state(), member.mutable_state());
      }
    }
  }
}

}  // namespace grapnel
