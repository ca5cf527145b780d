#include "grapnel/runner/validation_snapshot.h"

#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "c10/core/GradMode.h"
#include "google/protobuf/message.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/runner/message_hub.pb.h"
#include "grapnel/runner/run_state.pb.h"
#include "grapnel/runner/stage.h"

namespace grapnel {

absl::StatusOr<ValidationSnapshot> ValidationSnapshot::Take(
    const MessageHub& hub, const HookList& hooks, RunGenerators generators) {
  ValidationSnapshot snapshot;
  snapshot.hub_ = std::make_shared<runner::v1::MessageHubState>();
  hub.SaveState(snapshot.hub_.get());
  const c10::NoGradGuard no_grad;
  for (const ScheduledHook& scheduled : hooks.hooks()) {
    SavedHook saved{scheduled.hook.get(), nullptr, "", {}};
    const absl::Status status = CatchAsStatus([&]() -> absl::Status {
      if (const auto* state = saved.hook->mutable_state()) {
        saved.state.reset(state->New());
        saved.state->CopyFrom(*state);
      }
      GRAPNEL_RETURN_IF_ERROR(saved.hook->SaveState(&saved.bytes));
      if (scheduled.stages.Has(Stage::kOnError)) return absl::OkStatus();
      TensorMap own;
      GRAPNEL_RETURN_IF_ERROR(saved.hook->state_tensors(&own));
      for (const NamedTensor& tensor : own) {
        GRAPNEL_RETURN_IF_ERROR(
            saved.tensors.Add(tensor.name, tensor.tensor.clone()));
      }
      return absl::OkStatus();
    });
    if (!status.ok()) {
      return WithContext(status,
                         absl::StrCat("hook \"", saved.hook->name(), "\""));
    }
    snapshot.hooks_.push_back(std::move(saved));
  }
  snapshot.generator_states_ = std::make_shared<runner::v1::RngState>();
  GRAPNEL_RETURN_IF_ERROR(generators.Save(snapshot.generator_states_.get()));
  snapshot.generators_ = std::move(generators);
  return snapshot;
}

absl::Status ValidationSnapshot::Restore(MessageHub* hub) const {
  // All of it, whatever fails: training may go on.
  absl::Status first = hub->LoadState(*hub_);
  const c10::NoGradGuard no_grad;
  for (const SavedHook& saved : hooks_) {
    const absl::Status status = CatchAsStatus([&]() -> absl::Status {
      if (saved.state != nullptr) {
        saved.hook->mutable_state()->CopyFrom(*saved.state);
      }
      if (!saved.tensors.empty()) {
        TensorMap own;
        GRAPNEL_RETURN_IF_ERROR(saved.hook->state_tensors(&own));
        for (const NamedTensor& tensor : own) {
          const at::Tensor* const before = saved.tensors.Find(tensor.name);
          if (before != nullptr) tensor.tensor.copy_(*before);
        }
      }
      return saved.hook->LoadState(saved.bytes);  // Also of none.
    });
    if (!status.ok()) {
      first.Update(WithContext(
          status, absl::StrCat("hook \"", saved.hook->name(), "\"")));
    }
  }
  first.Update(generators_.Load(*generator_states_));
  return first;
}

}  // namespace grapnel
