#include "grapnel/hooks/runtime_info/runtime_info_hook.h"

#include <variant>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "grapnel/base/version.h"
#include "grapnel/models/log_vars.h"
#include "grapnel/models/model.h"
#include "grapnel/optim/optim_wrapper.h"
#include "grapnel/runner/hook_registry.h"

namespace grapnel {
namespace {

constexpr char kLoopStage[] = "loop_stage";

void WriteMetrics(RunContext& run, Mode mode, const Metrics& metrics) {
  MessageHub& hub = run.message_hub();
  for (const auto& [name, value] : metrics) {
    const std::string key = absl::StrCat(ModeName(mode), "/", name);
    if (const auto* integer = std::get_if<int64_t>(&value)) {
      hub.Scalar(key).Add(static_cast<double>(*integer));
    } else if (const auto* number = std::get_if<double>(&value)) {
      hub.Scalar(key).Add(*number);
    } else {
      hub.SetInfo(key, std::get<std::string>(value));
    }
  }
}

// What "loop_stage" is between the loops of an evaluation.
void LeaveEvaluation(RunContext& run) {
  if (run.training()) {
    run.message_hub().SetInfo(kLoopStage, std::string("train"));
  } else {
    run.message_hub().RemoveInfo(kLoopStage);
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<RuntimeInfoHook>> RuntimeInfoHook::Create(
    const Config&) {
  return absl::WrapUnique(new RuntimeInfoHook());
}

absl::Status RuntimeInfoHook::Setup(RunContext& run) {
  iter_ = &run.message_hub().InfoSlot("iter");
  if (run.optim_wrapper() == nullptr) return absl::OkStatus();
  for (const auto& [name, rate] : run.optim_wrapper()->logged_lrs()) {
    rates_.emplace_back(
        rate, &run.message_hub().Scalar(absl::StrCat("train/", name)));
  }
  return absl::OkStatus();
}

absl::Status RuntimeInfoHook::BeforeRun(RunContext& run) {
  MessageHub& hub = run.message_hub();
  // Of this process: a checkpoint's are not taken over.
  hub.SetInfo("experiment_name", run.experiment_name(), /*resumable=*/false);
  hub.SetInfo("seed", run.seed(), /*resumable=*/false);
  hub.SetInfo("grapnel_version", std::string(kGrapnelVersion),
              /*resumable=*/false);
  return absl::OkStatus();
}

absl::Status RuntimeInfoHook::BeforeTrain(RunContext& run) {
  MessageHub& hub = run.message_hub();
  hub.SetInfo(kLoopStage, std::string("train"));
  hub.SetInfo("epoch", run.epoch());
  hub.SetInfo("iter", run.iter());
  hub.SetInfo("max_epochs", run.max_epochs());
  hub.SetInfo("max_iters", run.max_iters());
  return absl::OkStatus();
}

absl::Status RuntimeInfoHook::BeforeTrainEpoch(RunContext& run) {
  run.message_hub().SetInfo("epoch", run.epoch());
  return absl::OkStatus();
}

absl::Status RuntimeInfoHook::BeforeTrainIter(RunContext& run,
                                              const IterInfo&) {
  *iter_ = run.iter();
  for (const auto& [rate, history] : rates_) history->Add(*rate);
  return absl::OkStatus();
}

absl::Status RuntimeInfoHook::AfterTrainIter(RunContext& run, const IterInfo&,
                                             const LogVars& log_vars) {
  for (size_t i = 0; i < log_vars.size(); ++i) {
    const NamedTensor& var = log_vars[i];
    if (i == log_vars_.size()) log_vars_.emplace_back();
    auto& [name, history] = log_vars_[i];
    if (history == nullptr || name != var.name) {
      name = var.name;
      history = &run.message_hub().Scalar(absl::StrCat("train/", name));
    }
    history->Add(var.tensor);
  }
  return absl::OkStatus();
}

absl::Status RuntimeInfoHook::AfterTrain(RunContext& run) {
  run.message_hub().RemoveInfo(kLoopStage);
  return absl::OkStatus();
}

absl::Status RuntimeInfoHook::BeforeVal(RunContext& run) {
  run.message_hub().SetInfo(kLoopStage, std::string("val"));
  return absl::OkStatus();
}

absl::Status RuntimeInfoHook::AfterValIter(RunContext& run, const IterInfo&,
                                           const Predictions& predictions) {
  for (const NamedTensor& loss : predictions.losses) {
    run.message_hub().Scalar(absl::StrCat("val/", loss.name)).Add(loss.tensor);
  }
  return absl::OkStatus();
}

absl::Status RuntimeInfoHook::AfterValEpoch(RunContext& run,
                                            const Metrics& metrics) {
  WriteMetrics(run, Mode::kVal, metrics);
  return absl::OkStatus();
}

absl::Status RuntimeInfoHook::AfterVal(RunContext& run) {
  LeaveEvaluation(run);
  return absl::OkStatus();
}

absl::Status RuntimeInfoHook::BeforeTest(RunContext& run) {
  run.message_hub().SetInfo(kLoopStage, std::string("test"));
  return absl::OkStatus();
}

absl::Status RuntimeInfoHook::AfterTestEpoch(RunContext& run,
                                             const Metrics& metrics) {
  WriteMetrics(run, Mode::kTest, metrics);
  return absl::OkStatus();
}

absl::Status RuntimeInfoHook::AfterTest(RunContext& run) {
  LeaveEvaluation(run);
  return absl::OkStatus();
}

GRAPNEL_REGISTER_HOOK(RuntimeInfoHook);

}  // namespace grapnel
