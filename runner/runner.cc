#include "grapnel/runner/runner.h"

#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "ATen/Context.h"
#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "c10/core/GradMode.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/base/utf8.h"
#include "grapnel/data/data_loader.h"
#include "grapnel/models/log_vars.h"
#include "grapnel/models/model.h"
#include "grapnel/optim/autocast.h"
#include "grapnel/optim/optim_wrapper.h"
#include "grapnel/runner/message_hub.h"
#include "grapnel/runner/message_hub.pb.h"
#include "grapnel/runner/run_context.h"
#include "grapnel/runner/runner_impl.h"
#include "grapnel/runner/train_plan.h"

namespace grapnel {

// The mount points of an evaluation, of one mode.
struct EvalPoints {
  Mode mode;
  Stage before, before_epoch, before_iter, after_iter, after_epoch, after;
  absl::Status (Hook::*call_before)(RunContext&);
  absl::Status (Hook::*call_before_epoch)(RunContext&);
  absl::Status (Hook::*call_before_iter)(RunContext&, const IterInfo&);
  absl::Status (Hook::*call_after_iter)(RunContext&, const IterInfo&,
                                        const Predictions&);
  absl::Status (Hook::*call_after_epoch)(RunContext&, const Metrics&);
  absl::Status (Hook::*call_after)(RunContext&);
};

namespace {

using ::grapnel::runner::v1::RunnerConfig;

// Where a status carries its ErrorOrigin.
constexpr char kOriginUrl[] = "grapnel.dev/error_origin";

absl::Status WithOrigin(absl::Status status, ErrorOrigin origin) {
  if (!status.ok()) {
    status.SetPayload(kOriginUrl,
                      absl::Cord(absl::StrCat(static_cast<int>(origin))));
  }
  return status;
}

// Metrics make up their names: they go into checkpoints, records and logs.
void MakeUtf8(Metrics* metrics) {
  for (auto& [name, value] : *metrics) {
    name = EscapeToUtf8(name);
    if (auto* text = std::get_if<std::string>(&value)) {
      *text = EscapeToUtf8(*text);
    }
  }
}

// Restores what a call may change of LibTorch's process-wide settings.
class DeterminismGuard {
 public:
  explicit DeterminismGuard(bool deterministic)
      : previous_(at::globalContext().deterministicAlgorithms()),
        previous_warn_only_(
            at::globalContext().deterministicAlgorithmsWarnOnly()) {
    if (deterministic) {
      at::globalContext().setDeterministicAlgorithms(true, false);
    }
  }
  DeterminismGuard(const DeterminismGuard&) = delete;
  DeterminismGuard& operator=(const DeterminismGuard&) = delete;
  ~DeterminismGuard() {
    at::globalContext().setDeterministicAlgorithms(previous_,
                                                   previous_warn_only_);
  }

 private:
  const bool previous_;
  const bool previous_warn_only_;
};

constexpr EvalPoints kValPoints = {Mode::kVal,
                                   Stage::kBeforeVal,
                                   Stage::kBeforeValEpoch,
                                   Stage::kBeforeValIter,
                                   Stage::kAfterValIter,
                                   Stage::kAfterValEpoch,
                                   Stage::kAfterVal,
                                   &Hook::BeforeVal,
                                   &Hook::BeforeValEpoch,
                                   &Hook::BeforeValIter,
                                   &Hook::AfterValIter,
                                   &Hook::AfterValEpoch,
                                   &Hook::AfterVal};
constexpr EvalPoints kTestPoints = {Mode::kTest,
                                    Stage::kBeforeTest,
                                    Stage::kBeforeTestEpoch,
                                    Stage::kBeforeTestIter,
                                    Stage::kAfterTestIter,
                                    Stage::kAfterTestEpoch,
                                    Stage::kAfterTest,
                                    &Hook::BeforeTest,
                                    &Hook::BeforeTestEpoch,
                                    &Hook::BeforeTestIter,
                                    &Hook::AfterTestIter,
                                    &Hook::AfterTestEpoch,
                                    &Hook::AfterTest};

}  // namespace

// -------------------------------------------------------------------- a run

template <typename F>
absl::Status RunnerImpl::Run(Mode mode, F&& body) {
  GRAPNEL_RETURN_IF_ERROR(broken_);
  const DeterminismGuard determinism(config_.randomness().deterministic());
  mode_ = mode;
  interrupted_ = false;
  RunContext& run = *this;
  const auto steps = [&]() -> absl::Status {
    if (!set_up_) {
      broken_ = hooks_.Call(Stage::kSetup, &Hook::Setup, run);
      GRAPNEL_RETURN_IF_ERROR(broken_);
      set_up_ = true;
    }
    GRAPNEL_RETURN_IF_ERROR(
        hooks_.Call(Stage::kBeforeRun, &Hook::BeforeRun, run));
    if (!loaded_) {
      broken_ = WithOrigin(Load(), ErrorOrigin::kCheckpoint);
      GRAPNEL_RETURN_IF_ERROR(broken_);
      loaded_ = true;
    }
    GRAPNEL_RETURN_IF_ERROR(body());
    return hooks_.Call(Stage::kAfterRun, &Hook::AfterRun, run);
  };
  const absl::Status status = steps();
  if (!status.ok() && !(interrupted_ && absl::IsCancelled(status))) {
    log_->Error(status.message());
  }
  if (!status.ok() && !interrupted_) hooks_.CallOnError(run, status);
  training_ = false;
  saves_allowed_ = false;
  save_requests_.clear();
  LogLater([this, status] { records_->NoteOutcome(status); });
  log_->SetStatusLine("");      // Nothing is going on now.
  log_->Flush().IgnoreError();  // It has reported what went wrong by itself.
  return status;
}

absl::Status RunnerImpl::Refuse(absl::string_view why) {
  log_->Error(why);
  return WithOrigin(absl::FailedPreconditionError(why), ErrorOrigin::kRequest);
}

absl::Status RunnerImpl::Train() {
  if (!plan_) {
    return Refuse(options_.for_training
                      ? "can't train: train_dataloader, train_cfg and "
                        "optim_wrapper are not set"
                      : "can't train: the runner was made with for_training: "
                        "false");
  }
  // Of a call before: between them another run may have the folders.
  if (lock_ == nullptr) GRAPNEL_RETURN_IF_ERROR(LockFolders());
  const absl::Status status = Run(Mode::kTrain, [this]() -> absl::Status {
    RunContext& run = *this;
    training_ = true;
    const c10::AutoGradMode with_grad(true);
    GRAPNEL_RETURN_IF_ERROR(
        hooks_.Call(Stage::kBeforeTrain, &Hook::BeforeTrain, run));
    GRAPNEL_RETURN_IF_ERROR(plan_->by_epoch() ? TrainEpochs() : TrainIters());
    GRAPNEL_RETURN_IF_ERROR(
        CallAllowingSaves(Stage::kAfterTrain, &Hook::AfterTrain, run));
    GRAPNEL_RETURN_IF_ERROR(FlushSaves(progress_));
    training_ = false;
    return absl::OkStatus();
  });
  if (lock_ != nullptr) lock_->Keep();
  lock_.reset();
  return status;
}

absl::StatusOr<Metrics> RunnerImpl::Val() {
  if (dataloader(Mode::kVal) == nullptr) {
    return Refuse(
        "can't validate: val_dataloader and val_evaluator are not set");
  }
  Metrics metrics;
  GRAPNEL_RETURN_IF_ERROR(Run(Mode::kVal, [&]() -> absl::Status {
    GRAPNEL_ASSIGN_OR_RETURN(metrics, Evaluate(kValPoints));
    return absl::OkStatus();
  }));
  return metrics;
}

absl::StatusOr<Metrics> RunnerImpl::Test() {
  if (dataloader(Mode::kTest) == nullptr) {
    return Refuse("can't test: test_dataloader and test_evaluator are not set");
  }
  Metrics metrics;
  GRAPNEL_RETURN_IF_ERROR(Run(Mode::kTest, [&]() -> absl::Status {
    GRAPNEL_ASSIGN_OR_RETURN(metrics, Evaluate(kTestPoints));
    return absl::OkStatus();
  }));
  return metrics;
}

absl::Status RunnerImpl::Export(const std::string& path) {
  return Run(Mode::kTest, [&]() -> absl::Status {
    RunContext& run = *this;
    GRAPNEL_RETURN_IF_ERROR(
        hooks_.Call(Stage::kBeforeExport, &Hook::BeforeExport, run));
    GRAPNEL_RETURN_IF_ERROR(
        CatchAsStatus([&] { return model_->Export(path); }));
    log_->Info(absl::StrCat("Model exported to ", path));
    return hooks_.Call(Stage::kAfterExport, &Hook::AfterExport, run);
  });
}

// -------------------------------------------------------------------- loops

absl::Status RunnerImpl::TrainEpochs() {
  RunContext& run = *this;
  DataLoader& loader = *dataloader(Mode::kTrain);
  IterInfo info;
  info.batch = &batch_;

  GRAPNEL_RETURN_IF_ERROR(ValidateIfPending());
  while (!progress_.done() && stop_reason_.empty()) {
    info.num_batches = progress_.epoch_length();
    // An epoch that is gone on with keeps what its histories hold.
    if (progress_.iter_in_epoch() == 0) hub_.BeginEpoch(Mode::kTrain);
    GRAPNEL_RETURN_IF_ERROR(
        hooks_.Call(Stage::kBeforeTrainEpoch, &Hook::BeforeTrainEpoch, run));
    GRAPNEL_RETURN_IF_ERROR(SetTraining(true));
    // One that is complete may have had more batches than there are now.
    if (iter_in_epoch() < info.num_batches) {
      loader.Seek(sampler_epoch_, iter_in_epoch());
    }
    while (iter_in_epoch() < info.num_batches) {
      GRAPNEL_RETURN_IF_ERROR(
          WithOrigin(loader.Next(&batch_), ErrorOrigin::kData));
      info.batch_idx = iter_in_epoch();
      GRAPNEL_RETURN_IF_ERROR(TrainIter(info));
      if (!save_requests_.empty()) {
        RunProgress next = progress_;
        next.CountIter(batch_.size());
        GRAPNEL_RETURN_IF_ERROR(FlushSaves(next));
      }
      progress_.CountIter(batch_.size());
      if (interrupt_requested()) return StopInterrupted();
    }
    GRAPNEL_RETURN_IF_ERROR(CallAllowingSaves(Stage::kAfterTrainEpoch,
                                              &Hook::AfterTrainEpoch, run));
    RunProgress next = progress_;
    next.EndEpoch();
    next.set_validation_pending(dataloader(Mode::kVal) != nullptr &&
                                plan_->ValidationDue(next.epoch()));
    GRAPNEL_RETURN_IF_ERROR(FlushSaves(next));
    progress_ = next;
    GRAPNEL_RETURN_IF_ERROR(ValidateIfPending());
  }
  return absl::OkStatus();
}

absl::Status RunnerImpl::TrainIters() {
  RunContext& run = *this;
  // Its end is not done twice.
  if (progress_.loop_ended() &&
      (iter() >= max_iters() || !stop_reason_.empty())) {
    return absl::OkStatus();
  }
  progress_.BeginLoop();
  DataLoader& loader = *dataloader(Mode::kTrain);
  IterInfo info;
  info.num_batches = progress_.num_batches();
  info.batch = &batch_;

  if (iter() == 0) hub_.BeginEpoch(Mode::kTrain);
  GRAPNEL_RETURN_IF_ERROR(
      hooks_.Call(Stage::kBeforeTrainEpoch, &Hook::BeforeTrainEpoch, run));
  GRAPNEL_RETURN_IF_ERROR(ValidateIfPending());
  // A finite sampler is gone through again and again, one pass an epoch of its
  // own.
  const auto seek = [&] {
    const RunProgress::DataPlace place = progress_.place();
    loader.Seek(place.epoch + (loader.infinite() ? 0 : sampler_epoch_),
                place.batch);
  };
  seek();
  while (iter() < max_iters() && stop_reason_.empty()) {
    // Validation leaves it in evaluation mode.
    if (!model_->training()) GRAPNEL_RETURN_IF_ERROR(SetTraining(true));
    absl::Status status = loader.Next(&batch_);
    if (absl::IsOutOfRange(status)) {
      seek();
      status = loader.Next(&batch_);
    }
    GRAPNEL_RETURN_IF_ERROR(WithOrigin(status, ErrorOrigin::kData));
    info.batch_idx = iter();
    GRAPNEL_RETURN_IF_ERROR(TrainIter(info));
    const bool pending =
        dataloader(Mode::kVal) != nullptr && plan_->ValidationDue(iter() + 1);
    if (!save_requests_.empty()) {
      RunProgress next = progress_;
      next.CountIter(batch_.size());
      next.set_validation_pending(pending);
      GRAPNEL_RETURN_IF_ERROR(FlushSaves(next));
    }
    progress_.CountIter(batch_.size());
    progress_.set_validation_pending(pending);
    if (interrupt_requested()) return StopInterrupted();
    GRAPNEL_RETURN_IF_ERROR(ValidateIfPending());
  }
  GRAPNEL_RETURN_IF_ERROR(
      CallAllowingSaves(Stage::kAfterTrainEpoch, &Hook::AfterTrainEpoch, run));
  progress_.EndEpoch();
  return FlushSaves(progress_);
}

absl::Status RunnerImpl::TrainIter(const IterInfo& info) {
  RunContext& run = *this;
  GRAPNEL_RETURN_IF_ERROR(
      hooks_.Call(Stage::kBeforeTrainIter, &Hook::BeforeTrainIter, run, info));
  log_vars_.Clear();
  absl::Status status = CatchAsStatus([this] {
    return model_->TrainStep(batch_, *optim_wrapper_, &log_vars_);
  });
  if (!status.ok()) {
    return WithContext(status, absl::StrCat("training iteration ", iter() + 1));
  }
  return CallAllowingSaves(Stage::kAfterTrainIter, &Hook::AfterTrainIter, run,
                           info, log_vars_);
}

absl::Status RunnerImpl::ValidateIfPending() {
  if (!progress_.validation_pending()) return absl::OkStatus();
  return Evaluate(kValPoints).status();
}

absl::StatusOr<Metrics> RunnerImpl::Evaluate(const EvalPoints& points) {
  RunContext& run = *this;
  DataLoader& loader = *dataloader(points.mode);
  Evaluator& evaluator = *evaluators_[static_cast<int>(points.mode)];
  const Mode outer_mode = mode_;
  // What an interrupt goes back to: the run that goes on evaluates anew.
  runner::v1::MessageHubState before;
  if (training_ && options_.interrupt != nullptr) hub_.SaveState(&before);
  mode_ = points.mode;
  hub_.BeginEpoch(points.mode);
  IterInfo info;
  info.num_batches = loader.num_batches();
  info.batch = &batch_;

  GRAPNEL_RETURN_IF_ERROR(hooks_.Call(points.before, points.call_before, run));
  GRAPNEL_RETURN_IF_ERROR(
      hooks_.Call(points.before_epoch, points.call_before_epoch, run));
  GRAPNEL_RETURN_IF_ERROR(SetTraining(false));
  GRAPNEL_RETURN_IF_ERROR(CatchAsStatus([&] {
    evaluator.Reset({ModeName(points.mode), training_, epoch(), iter()});
    return absl::OkStatus();
  }));
  loader.Seek(0, 0);
  for (info.batch_idx = 0; info.batch_idx < info.num_batches;
       ++info.batch_idx) {
    GRAPNEL_RETURN_IF_ERROR(
        WithOrigin(loader.Next(&batch_), ErrorOrigin::kData));
    const c10::NoGradGuard no_grad;
    GRAPNEL_RETURN_IF_ERROR(
        hooks_.Call(points.before_iter, points.call_before_iter, run, info));
    predictions_.losses.Clear();
    predictions_.losses.set_wants_weights(true);
    absl::Status status = CatchAsStatus([this] {
      const AutocastScope autocast(autocast_);
      return model_->ValStep(batch_, &predictions_);
    });
    if (status.ok()) {
      status = CatchAsStatus(
          [&] { return evaluator.Process(predictions_, batch_); });
    }
    if (!status.ok()) {
      return WithContext(status, absl::StrCat(ModeName(points.mode), " batch ",
                                              info.batch_idx + 1));
    }
    GRAPNEL_RETURN_IF_ERROR(hooks_.Call(
        points.after_iter, points.call_after_iter, run, info, predictions_));
    if (interrupt_requested()) {
      if (training_) GRAPNEL_RETURN_IF_ERROR(hub_.LoadState(before));
      mode_ = outer_mode;
      return StopInterrupted();
    }
  }
  Metrics metrics;
  std::vector<std::string> notes;
  GRAPNEL_RETURN_IF_ERROR(CatchAsStatus([&]() -> absl::Status {
    GRAPNEL_ASSIGN_OR_RETURN(metrics,
                             evaluator.Compute(ModeName(points.mode), &notes));
    return absl::OkStatus();
  }));
  for (const std::string& note : notes) log_->Warning(note);
  MakeUtf8(&metrics);
  if (points.mode == Mode::kVal) {
    latest_metrics_.clear();
    metrics_iter_ = iter();
    for (const auto& [name, value] : metrics) {
      if (const double* number = std::get_if<double>(&value)) {
        latest_metrics_[name] = *number;
      } else if (const int64_t* integer = std::get_if<int64_t>(&value)) {
        latest_metrics_[name] = static_cast<double>(*integer);
      }
    }
  }
  saves_allowed_ = training_;
  const absl::Status status =
      hooks_.Call(points.after_epoch, points.call_after_epoch, run, metrics);
  saves_allowed_ = false;
  GRAPNEL_RETURN_IF_ERROR(status);
  if (training_) {
    RunProgress next = progress_;
    next.set_validation_pending(false);
    GRAPNEL_RETURN_IF_ERROR(FlushSaves(next));
    progress_ = next;
  }
  GRAPNEL_RETURN_IF_ERROR(hooks_.Call(points.after, points.call_after, run));
  mode_ = outer_mode;
  return metrics;
}

absl::Status RunnerImpl::BeforeOptimizerStep() {
  RunContext& run = *this;
  return hooks_.Call(Stage::kBeforeOptimizerStep, &Hook::BeforeOptimizerStep,
                     run);
}

absl::Status RunnerImpl::AfterOptimizerStep(const StepResult& result) {
  if (result.stepped) progress_.CountUpdate();
  const StepHistories& histories = step_histories_[result.optimizer];
  if (result.grad_norm.defined()) histories.grad_norm->Add(result.grad_norm);
  if (histories.loss_scale != nullptr) histories.loss_scale->Add(result.scale);
  RunContext& run = *this;
  return hooks_.Call(Stage::kAfterOptimizerStep, &Hook::AfterOptimizerStep, run,
                     result);
}

void RunnerImpl::RequestStop(absl::string_view reason) {
  if (!stop_reason_.empty()) return;
  stop_reason_ = reason.empty() ? "a hook asked for it" : std::string(reason);
  log_->Info(absl::StrCat("stopping: ", stop_reason_));
}

absl::StatusOr<std::unique_ptr<Runner>> Runner::Create(
    const RunnerConfig& config, RunnerOptions options) {
  auto runner = std::make_unique<RunnerImpl>(std::move(options));
  // Of what users register, anything may throw.
  GRAPNEL_RETURN_IF_ERROR(CatchAsStatus([&] { return runner->Init(config); }));
  return runner;
}

ErrorOrigin OriginOf(const absl::Status& status) {
  const absl::optional<absl::Cord> payload = status.GetPayload(kOriginUrl);
  if (!payload.has_value()) return ErrorOrigin::kOther;
  for (const ErrorOrigin origin :
       {ErrorOrigin::kRequest, ErrorOrigin::kData, ErrorOrigin::kCheckpoint}) {
    if (*payload == absl::StrCat(static_cast<int>(origin))) return origin;
  }
  return ErrorOrigin::kOther;
}

}  // namespace grapnel
