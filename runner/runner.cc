#include "grapnel/runner/runner.h"

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "c10/core/DeviceGuard.h"
#include "c10/core/GradMode.h"
#include "grapnel/base/device.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/base/utf8.h"
#include "grapnel/data/data_loader.h"
#include "grapnel/data/stream_loader.h"
#include "grapnel/models/find_tensor.h"
#include "grapnel/models/load_tensors.h"
#include "grapnel/models/log_vars.h"
#include "grapnel/models/model.h"
#include "grapnel/optim/autocast.h"
#include "grapnel/optim/optim_wrapper.h"
#include "grapnel/runner/border_desk.h"
#include "grapnel/runner/message_hub.h"
#include "grapnel/runner/rank_agreement.h"
#include "grapnel/runner/rank_exchange.pb.h"
#include "grapnel/runner/run_checkpoint.h"
#include "grapnel/runner/run_context.h"
#include "grapnel/runner/torch_loan.h"
#include "grapnel/runner/train_plan.h"
#include "grapnel/runner/validation_snapshot.h"
#include "runner/runner_impl.h"

namespace grapnel {

// The mount points of an evaluation, of one mode.
struct EvalPoints {
  Mode mode;
  decltype(points::kBeforeVal) before;
  decltype(points::kBeforeValEpoch) before_epoch;
  decltype(points::kBeforeValIter) before_iter;
  decltype(points::kAfterValIter) after_iter;
  decltype(points::kAfterValEpoch) after_epoch;
  decltype(points::kAfterVal) after;
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

constexpr EvalPoints kValPoints = {Mode::kVal,
                                   points::kBeforeVal,
                                   points::kBeforeValEpoch,
                                   points::kBeforeValIter,
                                   points::kAfterValIter,
                                   points::kAfterValEpoch,
                                   points::kAfterVal};
constexpr EvalPoints kTestPoints = {Mode::kTest,
                                    points::kBeforeTest,
                                    points::kBeforeTestEpoch,
                                    points::kBeforeTestIter,
                                    points::kAfterTestIter,
                                    points::kAfterTestEpoch,
                                    points::kAfterTest};

}  // namespace

// -------------------------------------------------------------------- a run

template <typename F>
absl::Status RunnerImpl::Run(Mode mode, F&& body) {
  return Guarded([&]() -> absl::Status {
    const bool was_stopped = stop_requested();
    mode_ = mode;
    absl::Status status = CatchAsStatus([&]() -> absl::Status {
      GRAPNEL_RETURN_IF_ERROR(BeginRun());
      return body();
    });
    EndRun(mode, &status);
    // A training that comes later was not meant.
    if (!was_stopped) ForgetStop();
    return status;
  });
}

template <typename F>
absl::Status RunnerImpl::Guarded(F&& body) {
  // Before all else: it waits for a predictor that is copying weights.
  const BorderDesk::Call call(desk_.get());
  GRAPNEL_RETURN_IF_ERROR(broken_);
  const TorchThreadScope thread;
  const DeterministicScope deterministic(deterministic_);
  // For what asks LibTorch for the current device.
  const c10::OptionalDeviceGuard current_device(ToGuard(device_));
  const PausingClock::Running running(&run_clock_);
  return body();
}

absl::Status RunnerImpl::BeginRun() {
  RunContext& run = *this;
  cut_ = Cut::kNone;
  if (!set_up_) {
    broken_ = hooks_.Call(points::kSetup, run);
    GRAPNEL_RETURN_IF_ERROR(broken_);
    set_up_ = true;
  }
  begun_ = true;
  GRAPNEL_RETURN_IF_ERROR(hooks_.Call(points::kBeforeRun, run));
  if (loaded_) return absl::OkStatus();
  const absl::Status status = WithOrigin(Load(), ErrorOrigin::kCheckpoint);
  if (!status.ok() && !may_load_again_) broken_ = status;
  GRAPNEL_RETURN_IF_ERROR(status);
  loaded_ = true;
  return absl::OkStatus();
}

void RunnerImpl::EndRun(Mode mode, absl::Status* status) {
  if (!status->ok()) Fail(*status);
  training_ = false;
  saves_allowed_ = false;
  mode_ = mode;
  if (std::exchange(begun_, false)) CallAfterRun(status);
  if (records_ != nullptr) {
    LogLater([this, status = *status] { records_->NoteOutcome(status); });
  }
  log_->SetStatusLine("");      // Nothing is going on now.
  log_->Flush().IgnoreError();  // It has reported what went wrong by itself.
}

void RunnerImpl::Fail(const absl::Status& status) {
  const bool cut = cut_ != Cut::kNone;  // The hooks have heard of that.
  if (!cut || !absl::IsCancelled(status)) log_->Error(status.message());
  if (cut) return;
  // Those that wait for this rank needn't wait any more.
  process_group().ReportFailure(status);
  TellOfError(status);
}

void RunnerImpl::TellOfError(const absl::Status& status) {
  hooks_.CallOnError(*this, status);
  if (!before_validation_.has_value()) return;
  const absl::Status restored = before_validation_->Restore(&hub_);
  if (!restored.ok()) {
    log_->Error(absl::StrCat("what a validation had changed is not put back: ",
                             restored.message()));
  }
  before_validation_.reset();
}

void RunnerImpl::CallAfterRun(absl::Status* status) {
  const bool failed = !status->ok();
  status->Update(CallAll(points::kAfterRun));
  if (!failed && !status->ok()) TellOfError(*status);
}

absl::Status RunnerImpl::Refuse(absl::string_view why) {
  log_->Error(why);
  return WithOrigin(absl::FailedPreconditionError(why), ErrorOrigin::kRequest);
}

absl::Status RunnerImpl::Train() {
  bool more = true;
  return CatchAsStatus([&] { return Advance(/*to_the_end=*/true, &more); });
}

absl::StatusOr<bool> RunnerImpl::Step() {
  bool more = true;
  GRAPNEL_RETURN_IF_ERROR(
      CatchAsStatus([&] { return Advance(/*to_the_end=*/false, &more); }));
  return more;
}

absl::StatusOr<bool> RunnerImpl::TrainUntil(absl::Time deadline) {
  bool more = true;
  deadline_ = deadline;
  const absl::Status status =
      CatchAsStatus([&] { return Advance(/*to_the_end=*/true, &more); });
  deadline_.reset();
  GRAPNEL_RETURN_IF_ERROR(status);
  return more;
}

absl::Status RunnerImpl::Advance(bool to_the_end, bool* more) {
  if (!plan_) {
    return Refuse(options_.for_training
                      ? "can't train: train_dataloader, train_cfg and "
                        "optim_wrapper are not set"
                      : "can't train: the runner was made with "
                        "for_training: false");
  }
  // Of a call before: between them another run may have the folders.
  if (!in_training_) {
    bool locked_now = false;
    const absl::Status locked = OnAllRanks([&]() -> absl::Status {
      if (lock_ != nullptr || !is_master()) return absl::OkStatus();
      locked_now = true;
      return LockFolders();
    });
    if (!locked.ok()) log_->Error(locked.message());
    GRAPNEL_RETURN_IF_ERROR(locked);
    if (locked_now) {
      for (const std::string& warning : lock_->warnings()) {
        log_->Warning(warning);
      }
    }
  }
  bool ends = true;
  const absl::Status status = CatchAsStatus([&]() -> absl::Status {
    return Guarded([&]() -> absl::Status {
      absl::Status status = CatchAsStatus([&]() -> absl::Status {
        const c10::AutoGradMode with_grad(true);
        if (!in_training_) GRAPNEL_RETURN_IF_ERROR(BeginTraining());
        GRAPNEL_RETURN_IF_ERROR(AdvanceInLoop(to_the_end, more));
        return *more ? absl::OkStatus() : EndTraining();
      });
      ends = !status.ok() || !*more || cut_ == Cut::kDeadline;
      if (ends) EndRun(Mode::kTrain, &status);
      return status;
    });
  });
  if (!ends) return status;
  in_training_ = false;
  if (lock_ != nullptr) lock_->Keep();
  lock_.reset();
  return status;
}

absl::Status RunnerImpl::AdvanceInLoop(bool to_the_end, bool* more) {
  do {
    GRAPNEL_RETURN_IF_ERROR(AgreeOnStop());
    // An interrupt lets one iteration be done, so that a run that is started
    // and interrupted again and again comes to its end.
    const Cut cut = CutDue();
    absl::Status status = cut == Cut::kStop || cut == Cut::kDeadline
                              ? CutShort(cut)
                          : plan_->by_epoch() ? StepOfEpochs(more)
                                              : StepOfIters(more);
    // Asked for behind the last iteration, as at an epoch's end.
    if (status.ok() && !*more && CutDue() == Cut::kStop && !progress_.done()) {
      status = CutShort(Cut::kStop);
    }
    if (absl::IsCancelled(status)) {
      // What was wanted, and came out well.
      if (cut_ == Cut::kDeadline) return absl::OkStatus();
      if (cut_ == Cut::kStop) {
        *more = false;
        return absl::OkStatus();
      }
    }
    GRAPNEL_RETURN_IF_ERROR(status);
  } while (*more && to_the_end);
  return absl::OkStatus();
}

template <typename F>
absl::Status RunnerImpl::Between(Mode mode, F&& body) {
  return Guarded([&]() -> absl::Status {
    GRAPNEL_ASSIGN_OR_RETURN(
        const ValidationSnapshot before,
        ValidationSnapshot::Take(hub_, hooks_, generators_));
    const auto metrics = latest_metrics_;
    const int64_t metrics_iter = metrics_iter_;
    const bool model_training = model_->training();
    training_ = false;
    mode_ = mode;
    absl::Status status = CatchAsStatus(body);
    // The hooks have heard of an interrupt.
    if (!status.ok() && std::exchange(cut_, Cut::kNone) == Cut::kNone) {
      log_->Error(status.message());
      hooks_.CallOnError(*this, status);
    }
    status.Update(before.Restore(&hub_));
    latest_metrics_ = metrics;
    metrics_iter_ = metrics_iter;
    training_ = true;
    mode_ = Mode::kTrain;
    status.Update(SetTraining(model_training));
    return status;
  });
}

absl::StatusOr<Metrics> RunnerImpl::RunEvaluation(const EvalPoints& points,
                                                  absl::string_view missing) {
  Metrics metrics;
  GRAPNEL_RETURN_IF_ERROR(CatchAsStatus([&]() -> absl::Status {
    if (dataloader(points.mode) == nullptr) return Refuse(missing);
    const auto body = [&]() -> absl::Status {
      GRAPNEL_ASSIGN_OR_RETURN(metrics, Evaluate(points));
      return absl::OkStatus();
    };
    return in_training_ ? Between(points.mode, body) : Run(points.mode, body);
  }));
  return metrics;
}

absl::StatusOr<Metrics> RunnerImpl::Val() {
  return RunEvaluation(
      kValPoints,
      "can't validate: val_dataloader and val_evaluator are not set");
}

absl::StatusOr<Metrics> RunnerImpl::Test() {
  return RunEvaluation(
      kTestPoints,
      "can't test: test_dataloader and test_evaluator are not set");
}

absl::Status RunnerImpl::Export(const std::string& path) {
  const auto body = [&]() -> absl::Status {
    RunContext& run = *this;
    GRAPNEL_RETURN_IF_ERROR(hooks_.Call(points::kBeforeExport, run));
    GRAPNEL_RETURN_IF_ERROR(
        CatchAsStatus([&] { return model_->Export(path); }));
    log_->Info(absl::StrCat("Model exported to ", path));
    return hooks_.Call(points::kAfterExport, run);
  };
  return CatchAsStatus([&] {
    return in_training_ ? Between(Mode::kTest, body) : Run(Mode::kTest, body);
  });
}

absl::Status RunnerImpl::Save(const std::string& name) {
  return CatchAsStatus([&]() -> absl::Status {
    GRAPNEL_RETURN_IF_ERROR(CheckSaveName(name));
    if (!in_training_) {
      return Refuse("can't save: no training is going on, between two steps");
    }
    return Guarded([&]() -> absl::Status {
      WaitingSave save;
      save.id = ++num_saves_;
      save.request.name = name;
      save.request.dir = checkpoint_dir_;
      bool published = false;
      const absl::Status status =
          CatchAsStatus([&] { return SaveNow(save, &published); });
      if (!status.ok()) log_->Error(status.message());
      return status;
    });
  });
}

absl::StatusOr<at::Tensor> RunnerImpl::GetTensor(absl::string_view name) {
  const BorderDesk::Call call(desk_.get());
  GRAPNEL_ASSIGN_OR_RETURN(const NamedTensor found, FindTensor(*model_, name));
  at::Tensor copy;
  GRAPNEL_RETURN_IF_ERROR(CatchAsStatus([&] {
    copy = found.tensor.detach().clone();
    return absl::OkStatus();
  }));
  return copy;
}

absl::Status RunnerImpl::SetTensor(absl::string_view name,
                                   const at::Tensor& value) {
  const BorderDesk::Call call(desk_.get());
  GRAPNEL_ASSIGN_OR_RETURN(const NamedTensor found, FindTensor(*model_, name));
  if (!loaded_ && !checkpoint_path_.empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat("tensor \"", name, "\": is loaded from ", checkpoint_path_,
                     " when the run begins: set it after that"));
  }
  TensorMap one;
  GRAPNEL_RETURN_IF_ERROR(one.Add(found.name, value));
  return LoadTensors(one, /*strict=*/true, {found}, /*report=*/nullptr);
}

// -------------------------------------------------------------------- loops

absl::Status RunnerImpl::BeginTraining() {
  RunContext& run = *this;
  mode_ = Mode::kTrain;
  in_epoch_ = false;
  agreement_due_ = true;
  agreed_cut_ = Cut::kNone;
  GRAPNEL_RETURN_IF_ERROR(BeginRun());
  in_training_ = true;
  training_ = true;
  GRAPNEL_RETURN_IF_ERROR(hooks_.Call(points::kBeforeTrain, run));
  GRAPNEL_RETURN_IF_ERROR(ShareHookStates(process_group(), hooks_));
  return FinishCutStage();
}

absl::Status RunnerImpl::EndTraining() {
  GRAPNEL_RETURN_IF_ERROR(CallRest(points::kAfterTrain));
  GRAPNEL_RETURN_IF_ERROR(EndPoint());
  cut_stage_.reset();
  return absl::OkStatus();
}

absl::Status RunnerImpl::FinishCutStage() {
  // Of a stage that is over, what could not be saved.
  if (!cut_stage_.has_value()) return EndPoint();
  switch (*cut_stage_) {
    case Stage::kAfterTrainIter:
      return FinishTrainIter();
    case Stage::kAfterTrainEpoch:
      return FinishTrainEpoch();
    case Stage::kAfterValEpoch:
    case Stage::kAfterVal:
      mode_ = Mode::kVal;
      return FinishValidation();
    default:
      return absl::OkStatus();  // AfterTrain's turn comes by itself.
  }
}

absl::Status RunnerImpl::StepOfEpochs(bool* more) {
  DataLoader& loader = *dataloader(Mode::kTrain);
  // An epoch that has begun is brought to its end.
  const auto goes_on = [this] {
    return (progress_.iter_in_epoch() > 0 || !MustStop()) && !progress_.done();
  };
  if (!in_epoch_) {
    if (progress_.validation_pending()) {
      GRAPNEL_RETURN_IF_ERROR(ValidateIfPending());
      agreement_due_ = true;
      GRAPNEL_RETURN_IF_ERROR(AgreeOnStop());
    }
    *more = goes_on();
    if (!*more) return absl::OkStatus();
    GRAPNEL_RETURN_IF_ERROR(BeginTrainEpoch());
  }
  if (iter_in_epoch() < train_iter_.num_batches) {
    GRAPNEL_RETURN_IF_ERROR(
        WithOrigin(loader.Next(&train_batch_), ErrorOrigin::kData));
    train_iter_.batch_idx = iter_in_epoch();
    GRAPNEL_RETURN_IF_ERROR(TrainIter());
    if (const Cut cut = CutDue(); cut != Cut::kNone) return CutShort(cut);
  }
  if (iter_in_epoch() < train_iter_.num_batches) return absl::OkStatus();
  in_epoch_ = false;
  GRAPNEL_RETURN_IF_ERROR(FinishTrainEpoch());
  GRAPNEL_RETURN_IF_ERROR(ValidateIfPending());
  agreement_due_ = true;
  GRAPNEL_RETURN_IF_ERROR(AgreeOnStop());
  *more = goes_on();
  return absl::OkStatus();
}

absl::Status RunnerImpl::BeginTrainEpoch() {
  RunContext& run = *this;
  train_iter_.num_batches = progress_.epoch_length();
  // An epoch that is gone on with keeps what its histories hold.
  if (progress_.iter_in_epoch() == 0) hub_.BeginEpoch(Mode::kTrain);
  GRAPNEL_RETURN_IF_ERROR(hooks_.Call(points::kBeforeTrainEpoch, run));
  GRAPNEL_RETURN_IF_ERROR(SetTraining(true));
  // One that is complete may have had more batches than there are now.
  if (iter_in_epoch() < train_iter_.num_batches) {
    const RunProgress::DataPlace place = progress_.place();
    dataloader(Mode::kTrain)
        ->SeekBehind(sampler_epoch_, place.samples, place.batch);
  }
  in_epoch_ = true;
  return absl::OkStatus();
}

absl::Status RunnerImpl::StepOfIters(bool* more) {
  const auto goes_on = [this] { return !MustStop() && iter() < max_iters(); };
  if (!in_epoch_) {
    // Its end is not done twice.
    *more = goes_on() || !progress_.loop_ended();
    if (!*more) return absl::OkStatus();
    GRAPNEL_RETURN_IF_ERROR(BeginTrainLoop());
  }
  if (goes_on()) {
    // Validation leaves it in evaluation mode.
    if (!model_->training()) GRAPNEL_RETURN_IF_ERROR(SetTraining(true));
    GRAPNEL_RETURN_IF_ERROR(WithOrigin(NextTrainBatch(), ErrorOrigin::kData));
    train_iter_.batch_idx = iter();
    GRAPNEL_RETURN_IF_ERROR(TrainIter());
    if (const Cut cut = CutDue(); cut != Cut::kNone) return CutShort(cut);
    if (progress_.validation_pending()) {
      GRAPNEL_RETURN_IF_ERROR(ValidateIfPending());
      agreement_due_ = true;
      GRAPNEL_RETURN_IF_ERROR(AgreeOnStop());
    }
  }
  *more = goes_on();
  if (*more) return absl::OkStatus();
  in_epoch_ = false;
  return FinishTrainEpoch();
}

absl::Status RunnerImpl::BeginTrainLoop() {
  RunContext& run = *this;
  progress_.BeginLoop();
  train_iter_.num_batches = progress_.num_batches();
  if (iter() == 0) hub_.BeginEpoch(Mode::kTrain);
  GRAPNEL_RETURN_IF_ERROR(hooks_.Call(points::kBeforeTrainEpoch, run));
  GRAPNEL_RETURN_IF_ERROR(ValidateIfPending());
  GRAPNEL_RETURN_IF_ERROR(WithOrigin(SeekToPlace(), ErrorOrigin::kData));
  in_epoch_ = true;
  return absl::OkStatus();
}

absl::Status RunnerImpl::SeekToPlace() {
  // It may have given a batch that came to nothing.
  if (stream_ != nullptr) return stream_->Seek(stream_position_);
  // A finite sampler is gone through again and again, one pass an epoch of its
  // own.
  DataLoader& loader = *dataloader(Mode::kTrain);
  const RunProgress::DataPlace place = progress_.place();
  loader.SeekBehind(place.epoch + (loader.infinite() ? 0 : sampler_epoch_),
                    place.samples, place.batch);
  return absl::OkStatus();
}

absl::Status RunnerImpl::NextTrainBatch() {
  if (stream_ != nullptr) return stream_->Next(&train_batch_);
  DataLoader& loader = *dataloader(Mode::kTrain);
  const absl::Status status = loader.Next(&train_batch_);
  if (!absl::IsOutOfRange(status)) return status;
  GRAPNEL_RETURN_IF_ERROR(SeekToPlace());
  return loader.Next(&train_batch_);
}

absl::Status RunnerImpl::TrainIter() {
  RunContext& run = *this;
  GRAPNEL_RETURN_IF_ERROR(
      hooks_.Call(points::kBeforeTrainIter, run, train_iter_));
  log_vars_.Clear();
  const int64_t windows = windows_;
  const int64_t accumulated = optim_wrapper_->accumulated();
  absl::Status status = CallModel([this] {
    return model_->TrainStep(train_batch_, *optim_wrapper_, &log_vars_);
  });
  if (!step_error_.ok()) {
    status = std::exchange(step_error_, absl::OkStatus());
  }
  if (!status.ok()) {
    const int64_t now = optim_wrapper_->accumulated();
    if (windows_ == windows && now < accumulated) {
      log_->Warning(absl::StrCat("the gradients of ", accumulated,
                                 " iterations that waited for a step are "
                                 "dropped"));
    }
    // The weights, or the gradients that wait, have this batch.
    if (windows_ != windows || now > accumulated) {
      BeginStage(Stage::kAfterTrainIter);
    }
    return WithContext(status, absl::StrCat("training iteration ", iter() + 1));
  }
  return FinishTrainIter();
}

template <typename F, typename... A>
absl::Status RunnerImpl::CallRest(MountPoint<F> point, A&... args) {
  if (cut_stage_ != point.stage) BeginStage(point.stage);
  saves_allowed_ = point.stage != Stage::kAfterVal;
  RunContext& run = *this;
  absl::Status status = hooks_.CallFrom(&next_hook_, point, run, args...);
  saves_allowed_ = false;
  return status;
}

absl::Status RunnerImpl::FinishTrainIter() {
  GRAPNEL_RETURN_IF_ERROR(
      CallRest(points::kAfterTrainIter, train_iter_, log_vars_));
  progress_.CountIter(train_batch_.size() * num_ranks());
  if (stream_ != nullptr) {
    stream_position_ = stream_->position();
    progress_.SetStreamPlace(stream_position_.pass(),
                             stream_position_.samples());
  }
  if (!plan_->by_epoch()) {
    progress_.set_validation_pending(dataloader(Mode::kVal) != nullptr &&
                                     plan_->ValidationDue(progress_.iter()));
  }
  cut_stage_.reset();
  GRAPNEL_RETURN_IF_ERROR(EndPoint());
  desk_->AtBorder();
  return absl::OkStatus();
}

absl::Status RunnerImpl::FinishTrainEpoch() {
  GRAPNEL_RETURN_IF_ERROR(CallRest(points::kAfterTrainEpoch));
  progress_.EndEpoch();
  if (plan_->by_epoch()) {
    progress_.set_validation_pending(dataloader(Mode::kVal) != nullptr &&
                                     plan_->ValidationDue(progress_.epoch()));
  }
  cut_stage_.reset();
  return EndPoint();
}

absl::Status RunnerImpl::ValidateIfPending() {
  if (!progress_.validation_pending()) return absl::OkStatus();
  return Evaluate(kValPoints).status();
}

absl::Status RunnerImpl::FinishValidation() {
  if (cut_stage_ != Stage::kAfterVal) {
    GRAPNEL_RETURN_IF_ERROR(CallRest(points::kAfterValEpoch, val_metrics_));
    progress_.set_validation_pending(false);
    BeginStage(Stage::kAfterVal);
  }
  GRAPNEL_RETURN_IF_ERROR(EndPoint());
  GRAPNEL_RETURN_IF_ERROR(CallRest(points::kAfterVal));
  cut_stage_.reset();
  mode_ = Mode::kTrain;
  return absl::OkStatus();
}

absl::StatusOr<Metrics> RunnerImpl::Evaluate(const EvalPoints& points) {
  RunContext& run = *this;
  DataLoader& loader = *dataloader(points.mode);
  Evaluator& evaluator = *evaluators_[static_cast<int>(points.mode)];
  const Mode outer_mode = mode_;
  if (training_) {
    GRAPNEL_ASSIGN_OR_RETURN(
        before_validation_,
        ValidationSnapshot::Take(hub_, hooks_, generators_));
  }
  mode_ = points.mode;
  hub_.BeginEpoch(points.mode);
  IterInfo info;
  info.num_batches = loader.num_batches();
  info.batch = &eval_batch_;

  GRAPNEL_RETURN_IF_ERROR(hooks_.Call(points.before, run));
  GRAPNEL_RETURN_IF_ERROR(hooks_.Call(points.before_epoch, run));
  GRAPNEL_RETURN_IF_ERROR(SetTraining(false));
  GRAPNEL_RETURN_IF_ERROR(CatchAsStatus([&] {
    evaluator.Reset({ModeName(points.mode), training_, epoch(), iter()});
    return absl::OkStatus();
  }));
  loader.Seek(0, 0);
  for (info.batch_idx = 0; info.batch_idx < info.num_batches;
       ++info.batch_idx) {
    GRAPNEL_RETURN_IF_ERROR(
        WithOrigin(loader.Next(&eval_batch_), ErrorOrigin::kData));
    const c10::NoGradGuard no_grad;
    GRAPNEL_RETURN_IF_ERROR(hooks_.Call(points.before_iter, run, info));
    predictions_.losses.Clear();
    predictions_.losses.set_wants_weights(true);
    absl::Status status = CallModel([this] {
      const AutocastScope autocast(autocast_);
      return model_->ValStep(eval_batch_, &predictions_);
    });
    if (status.ok()) {
      status = CatchAsStatus(
          [&] { return evaluator.Process(predictions_, eval_batch_); });
    }
    if (!status.ok()) {
      return WithContext(status, absl::StrCat(ModeName(points.mode), " batch ",
                                              info.batch_idx + 1));
    }
    GRAPNEL_RETURN_IF_ERROR(
        hooks_.Call(points.after_iter, run, info, predictions_));
    desk_->AtEvaluationBorder();
    if (const Cut cut = CutDue(); cut != Cut::kNone) {
      mode_ = outer_mode;
      return CutShort(cut);
    }
  }
  Metrics metrics;
  std::vector<std::string> notes;
  GRAPNEL_RETURN_IF_ERROR(CatchAsStatus([&]() -> absl::Status {
    GRAPNEL_RETURN_IF_ERROR(evaluator.Gather(process_group()));
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
      if (const auto number = AsNumber(value)) latest_metrics_[name] = *number;
    }
  }
  before_validation_.reset();  // From here on it is done.
  if (training_) {
    val_metrics_ = metrics;
    GRAPNEL_RETURN_IF_ERROR(FinishValidation());
    return metrics;
  }
  GRAPNEL_RETURN_IF_ERROR(hooks_.Call(points.after_epoch, run, metrics));
  GRAPNEL_RETURN_IF_ERROR(hooks_.Call(points.after, run));
  mode_ = outer_mode;
  return metrics;
}

absl::Status RunnerImpl::BeforeOptimizerStep() {
  RunContext& run = *this;
  return hooks_.Call(points::kBeforeOptimizerStep, run);
}

absl::Status RunnerImpl::AfterOptimizerStep(const StepResult& result) {
  ++windows_;
  if (result.stepped) {
    progress_.CountUpdate();
    seen_.updates = progress_.updates();
  }
  StepHistories& histories = step_histories_[result.optimizer];
  if (result.grad_norm.defined()) histories.grad_norm->Add(result.grad_norm);
  if (histories.loss_scale != nullptr) {
    histories.loss_scale->Add(result.scale);
    if (std::exchange(histories.last_scale, result.scale) >= 1 &&
        result.scale < 1) {
      log_->Warning(absl::StrCat(
          "optim_wrapper: amp: the loss scale fell to ", result.scale,
          ": the gradients are infinite or NaN whatever it is"));
    }
  }
  RunContext& run = *this;
  // The step is made: the model goes on with its own, and the run ends then.
  step_error_.Update(hooks_.Call(points::kAfterOptimizerStep, run, result));
  return absl::OkStatus();
}

// ----------------------------------------------------------------- stopping

void RunnerImpl::RequestStop(absl::string_view reason, StopAt at) {
  const StopLevel level =
      at == StopAt::kNow ? StopLevel::kNow : StopLevel::kAfterEpoch;
  const std::lock_guard<std::mutex> lock(stop_mutex_);
  if (stop_.load(std::memory_order_relaxed) >= level) return;
  stop_reason_ = reason.empty() ? "it was asked for" : EscapeToUtf8(reason);
  stop_.store(level, std::memory_order_release);
}

std::string RunnerImpl::stop_reason() const {
  if (!stop_requested()) return "";
  const std::lock_guard<std::mutex> lock(stop_mutex_);
  return stop_reason_;
}

bool RunnerImpl::MustStop() {
  if (num_ranks() > 1 ? !agreed_stop_ : !stop_requested()) return false;
  if (!std::exchange(stop_logged_, true)) {
    log_->Info(absl::StrCat("stopping: ", stop_reason()));
  }
  return true;
}

absl::Status RunnerImpl::AskAboutStop() {
  runner::v1::RankStop mine;
  mine.set_cut(static_cast<int>(OwnCut()));
  mine.set_stop(stop_requested());
  mine.set_reason(stop_reason());
  // Often enough for the grace period of a job that is told to end, and seldom
  // enough to cost nothing. By the first rank's clock.
  constexpr int64_t kBetweenNanos = 1'000'000'000;
  constexpr int64_t kMostIters = 1000;
  const int64_t now = clock_->NowNanos();
  const int64_t iters = iter() - agreed_iter_;
  const int64_t nanos = now - agreed_nanos_;
  mine.set_iters_until_next(
      iters > 0 && nanos > 0
          ? std::clamp<int64_t>(iters * kBetweenNanos / nanos, 1, kMostIters)
          : 1);
  GRAPNEL_ASSIGN_OR_RETURN(
      const std::vector<std::string> all,
      GatherIfOk(process_group(), absl::OkStatus(), mine.SerializeAsString()));
  int cut = 0;
  for (size_t rank = 0; rank < all.size(); ++rank) {
    runner::v1::RankStop theirs;
    GRAPNEL_RET_CHECK(theirs.ParseFromString(all[rank]));
    if (rank == 0) next_agreement_ = iter() + theirs.iters_until_next();
    // An interrupt counts more than a stop, and that more than a deadline.
    if (theirs.cut() != 0 && (cut == 0 || theirs.cut() < cut)) {
      cut = theirs.cut();
      agreed_cut_rank_ = static_cast<int>(rank);
    }
    if (!theirs.stop()) continue;
    agreed_stop_ = true;
    if (!stop_requested()) {
      RequestStop(absl::StrCat("rank ", rank, ": ", theirs.reason()),
                  StopAt::kAfterEpoch);
    }
  }
  agreed_cut_ = static_cast<Cut>(cut);
  agreement_due_ = false;
  agreed_iter_ = iter();
  agreed_nanos_ = now;
  return absl::OkStatus();
}

void RunnerImpl::ForgetStop() {
  const std::lock_guard<std::mutex> lock(stop_mutex_);
  stop_.store(StopLevel::kNone, std::memory_order_release);
  stop_reason_.clear();
  stop_logged_ = false;
}

absl::StatusOr<std::unique_ptr<Runner>> Runner::Create(
    const RunnerConfig& config, RunnerOptions options) {
  std::unique_ptr<RunnerImpl> runner;
  // Of what users register, anything may throw.
  GRAPNEL_RETURN_IF_ERROR(CatchAsStatus([&] {
    runner = std::make_unique<RunnerImpl>(std::move(options));
    return runner->Init(config);
  }));
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
