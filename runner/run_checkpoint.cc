#include "grapnel/runner/run_checkpoint.h"

#include <algorithm>
#include <utility>

#include "ATen/ops/from_blob.h"
#include "absl/strings/str_cat.h"
#include "c10/core/GradMode.h"
#include "google/protobuf/message.h"
#include "grapnel/base/checked_message.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/io/checkpoint_manifest.pb.h"
#include "grapnel/optim/optim_wrapper.pb.h"
#include "grapnel/optim/schedulers/scheduler_replay.h"
#include "grapnel/runner/rank_agreement.h"
#include "grapnel/runner/rank_windows.h"
#include "grapnel/runner/run_sections.h"
#include "grapnel/runner/run_state.pb.h"
#include "grapnel/runner/saved_settings.h"

namespace grapnel {
namespace {

using ::grapnel::runner::v1::HookState;
using ::grapnel::runner::v1::RankState;
using ::grapnel::runner::v1::RunState;

constexpr char kState[] = "state";

absl::Status CaptureHooks(const HookList& hooks, RunState* state,
                          TensorMap* tensors) {
  for (const ScheduledHook& scheduled : hooks.hooks()) {
    Hook& hook = *scheduled.hook;
    HookState* hook_state = state->add_hooks();
    hook_state->set_name(std::string(hook.name()));
    if (const auto* message = hook.mutable_state()) {
      GRAPNEL_RETURN_IF_ERROR(
          WithContext(SerializeChecked(*message).status(),
                      absl::StrCat("hook \"", hook.name(), "\": its state")));
      hook_state->mutable_state()->PackFrom(*message);
    }
    TensorMap own;
    const absl::Status saved = CatchAsStatus([&]() -> absl::Status {
      GRAPNEL_RETURN_IF_ERROR(hook.SaveState(hook_state->mutable_bytes()));
      return hook.state_tensors(&own);
    });
    GRAPNEL_RETURN_IF_ERROR(
        WithContext(saved, absl::StrCat("hook \"", hook.name(), "\"")));
    for (const NamedTensor& tensor : own) {
      GRAPNEL_RETURN_IF_ERROR(tensors->Add(
          absl::StrCat(hook.name(), "/", tensor.name), tensor.tensor));
    }
  }
  return absl::OkStatus();
}

absl::Status RestoreHookTensors(const TensorMap& saved, Hook& hook) {
  TensorMap own;
  GRAPNEL_RETURN_IF_ERROR(hook.state_tensors(&own));
  for (const NamedTensor& tensor : own) {
    const at::Tensor* source =
        saved.Find(absl::StrCat(hook.name(), "/", tensor.name));
    if (source == nullptr) {
      return absl::DataLossError(absl::StrCat("tensor \"", tensor.name,
                                              "\" is not in the checkpoint"));
    }
    if (source->sizes() != tensor.tensor.sizes()) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor \"", tensor.name, "\" has another shape"));
    }
    GRAPNEL_RETURN_IF_ERROR(CatchAsStatus([&] {
      c10::NoGradGuard no_grad;
      tensor.tensor.copy_(*source);
      return absl::OkStatus();
    }));
  }
  return absl::OkStatus();
}

absl::Status RestoreHookMessage(const HookState& saved, Hook& hook) {
  google::protobuf::Message* state = hook.mutable_state();
  if (state != nullptr && saved.has_state() && !saved.state().UnpackTo(state)) {
    return absl::DataLossError(
        absl::StrCat("its state is a ", saved.state().type_url(), " and not a ",
                     state->GetTypeName()));
  }
  return absl::OkStatus();
}

absl::Status RestoreHook(const HookState& saved, const TensorMap& tensors,
                         Hook& hook) {
  GRAPNEL_RETURN_IF_ERROR(RestoreHookMessage(saved, hook));
  GRAPNEL_RETURN_IF_ERROR(RestoreHookTensors(tensors, hook));
  return CatchAsStatus([&] { return hook.LoadState(saved.bytes()); });
}

absl::Status RestoreHooks(const RunState& state, const TensorMap& tensors,
                          const HookList& hooks,
                          std::vector<std::string>* warnings) {
  for (const ScheduledHook& scheduled : hooks.hooks()) {
    Hook& hook = *scheduled.hook;
    const HookState* saved = nullptr;
    for (const HookState& candidate : state.hooks()) {
      if (candidate.name() == hook.name()) saved = &candidate;
    }
    if (saved == nullptr) {
      warnings->push_back(
          absl::StrCat("hook \"", hook.name(),
                       "\" is not in the checkpoint: it starts from scratch"));
      GRAPNEL_RETURN_IF_ERROR(
          WithContext(CatchAsStatus([&] { return hook.LoadState(""); }),
                      absl::StrCat("hook \"", hook.name(), "\"")));
      continue;
    }
    GRAPNEL_RETURN_IF_ERROR(
        WithContext(RestoreHook(*saved, tensors, hook),
                    absl::StrCat("hook \"", hook.name(), "\"")));
  }
  for (const HookState& saved : state.hooks()) {
    bool found = false;
    for (const ScheduledHook& scheduled : hooks.hooks()) {
      found = found || scheduled.hook->name() == saved.name();
    }
    if (!found && (saved.has_state() || !saved.bytes().empty())) {
      warnings->push_back(absl::StrCat(
          "hook \"", saved.name(),
          "\" of the checkpoint is not in this run: its state is dropped"));
    }
  }
  return absl::OkStatus();
}

// Adds what is each rank's own to `*state`, which has this rank's, and makes
// `*gradients` those of all on rank 0, and none on the others. `saved`: whether
// this rank's are there.
absl::Status GatherRanks(ProcessGroup& group, const absl::Status& saved,
                         RunState* state, TensorMap* gradients) {
  RankState mine;
  *mine.mutable_rng() = state->rng();
  if (state->data().has_stream())
    *mine.mutable_stream() = state->data().stream();
  if (state->has_optim_wrapper()) {
    SaveRankWindows(state->optim_wrapper(), &mine);
  }
  GRAPNEL_ASSIGN_OR_RETURN(const std::vector<std::string> ranks,
                           GatherIfOk(group, saved, mine.SerializeAsString()));
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    if (!state->add_ranks()->ParseFromString(ranks[rank])) {
      return absl::InternalError(
          absl::StrCat("rank ", rank, ": its state can't be read"));
    }
  }
  if (!state->has_optim_wrapper()) return absl::OkStatus();
  GRAPNEL_ASSIGN_OR_RETURN(const std::vector<TensorMap> all,
                           GatherTensors(group, *gradients));
  GRAPNEL_ASSIGN_OR_RETURN(*gradients, JoinRankGradients(all));
  return absl::OkStatus();
}

// Where there are other ranks now, theirs one after another again and again.
const runner::v1::RngState& RngOf(const RunState& state, int rank) {
  if (state.ranks().empty()) return state.rng();
  return state.ranks(rank % state.ranks_size()).rng();
}

}  // namespace

absl::StatusOr<io::CheckpointContents> CaptureRun(
    const RunParts& parts, int64_t seed, const runner::v1::DataPosition& data) {
  io::CheckpointContents contents;
  RunState state;
  state.set_seed(seed);
  *state.mutable_data() = data;
  TensorMap model, optimizer, gradients, hooks;
  const auto save_own = [&]() -> absl::Status {
    GRAPNEL_RETURN_IF_ERROR(parts.generators.Save(state.mutable_rng()));
    GRAPNEL_ASSIGN_OR_RETURN(model, ModelState(*parts.model));
    if (parts.optim_wrapper == nullptr) return absl::OkStatus();
    return parts.optim_wrapper->SaveState(state.mutable_optim_wrapper(),
                                          &optimizer, &gradients);
  };
  const absl::Status saved = save_own();
  if (parts.group->world_size() == 1) {
    GRAPNEL_RETURN_IF_ERROR(saved);
  } else {
    GRAPNEL_RETURN_IF_ERROR(
        GatherRanks(*parts.group, saved, &state, &gradients));
  }

  for (const auto& scheduler : parts.param_schedulers) {
    GRAPNEL_RETURN_IF_ERROR(scheduler->SaveState(state.add_param_schedulers()));
  }
  parts.message_hub->SaveState(state.mutable_message_hub());
  GRAPNEL_RETURN_IF_ERROR(CaptureHooks(*parts.hooks, &state, &hooks));

  contents.sections.emplace_back(kModelSection, std::move(model));
  if (parts.optim_wrapper != nullptr) {
    contents.sections.emplace_back(kOptimizerSection, std::move(optimizer));
  }
  if (!gradients.empty()) {
    contents.sections.emplace_back(kGradientsSection, std::move(gradients));
  }
  if (!hooks.empty())
    contents.sections.emplace_back(kHooksSection, std::move(hooks));
  auto blob = SerializeChecked(state);
  if (!blob.ok()) return WithContext(blob.status(), "state");
  contents.blobs.emplace_back(kState, *std::move(blob));
  return contents;
}

absl::Status ShareHookStates(ProcessGroup& group, const HookList& hooks) {
  if (group.world_size() == 1) return absl::OkStatus();
  RunState state;
  absl::Status status;
  if (IsMaster(group)) {
    TensorMap unused;
    status = CaptureHooks(hooks, &state, &unused);
  }
  GRAPNEL_ASSIGN_OR_RETURN(
      const std::vector<std::string> all,
      GatherIfOk(group, status, state.SerializeAsString()));
  if (!IsMaster(group)) {
    GRAPNEL_RET_CHECK(state.ParseFromString(all.front()));
    for (const ScheduledHook& scheduled : hooks.hooks()) {
      for (const HookState& saved : state.hooks()) {
        if (saved.name() != scheduled.hook->name()) continue;
        status.Update(WithContext(RestoreHookMessage(saved, *scheduled.hook),
                                  absl::StrCat("hook \"", saved.name(), "\"")));
      }
    }
  }
  return AgreeOnStatus(group, status);
}

absl::StatusOr<RunState> ReadRunState(const io::CheckpointContents& contents) {
  const std::string* blob = contents.FindBlob(kState);
  RunState state;
  if (blob == nullptr || !state.ParseFromString(*blob)) {
    return absl::DataLossError("state.pb: is missing or not a RunState");
  }
  return state;
}

absl::Status RestoreRun(const io::CheckpointContents& contents,
                        const RunState& state, const RunParts& parts,
                        const ResumePoint& point,
                        std::vector<std::string>* warnings) {
  const TensorMap none;
  const auto section = [&](absl::string_view name) -> const TensorMap& {
    const TensorMap* found = contents.FindSection(name);
    return found == nullptr ? none : *found;
  };
  GRAPNEL_RETURN_IF_ERROR(
      WithContext(LoadModelState(section(kModelSection), /*strict=*/true,
                                 *parts.model, nullptr),
                  "model"));
  RestoredOptions options;
  if (state.has_optim_wrapper()) {
    optim::v1::OptimWrapperState saved = state.optim_wrapper();
    AddConfiguredOptions(contents.manifest().config(),
                         state.data().batch_size() *
                             std::max<int64_t>(state.data().world_size(), 1),
                         parts.model->parameters(), &saved);
    TensorMap gradients = section(kGradientsSection);
    GRAPNEL_RETURN_IF_ERROR(RestoreRankWindows(state, parts.group->rank(),
                                               parts.group->world_size(),
                                               &saved, &gradients, warnings));
    std::vector<std::string> notes;
    GRAPNEL_RETURN_IF_ERROR(WithContext(
        parts.optim_wrapper->LoadState(saved, section(kOptimizerSection),
                                       gradients, &options, &notes),
        "optim_wrapper"));
    for (const std::string& note : notes) {
      warnings->push_back(absl::StrCat("optim_wrapper: ", note));
    }
  } else {
    warnings->push_back(
        "the checkpoint was saved without its optimizer, which starts from "
        "scratch");
    options.configured_known = true;
  }
  GRAPNEL_RETURN_IF_ERROR(RestoreSchedulers(parts.param_schedulers,
                                            state.param_schedulers(), point,
                                            options, warnings));
  GRAPNEL_RETURN_IF_ERROR(WithContext(
      parts.message_hub->LoadState(state.message_hub()), "message_hub"));
  const int64_t kept = parts.message_hub->ShortWindow();
  if (kept >= 0) {
    warnings->push_back(absl::StrCat(
        "log_processor: window_size: the checkpoint kept ", kept,
        " values of what has a larger window now: statistics are of what there "
        "is until more have come"));
  }
  GRAPNEL_RETURN_IF_ERROR(
      RestoreHooks(state, section(kHooksSection), *parts.hooks, warnings));
  return parts.generators.Load(RngOf(state, parts.group->rank()));
}

}  // namespace grapnel
