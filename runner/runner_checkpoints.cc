// What a Runner goes on from, and what it writes for a run to go on from.

#include <cstdint>
#include <cstdlib>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "ATen/Parallel.h"
#include "ATen/Version.h"
#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"
#include "grapnel/base/clock.h"
#include "grapnel/base/device.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/utf8.h"
#include "grapnel/base/version.h"
#include "grapnel/data/data_loader.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/checkpoint_manifest.pb.h"
#include "grapnel/io/env.h"
#include "grapnel/io/manifest_codec.h"
#include "grapnel/models/model.h"
#include "grapnel/optim/optim_wrapper.h"
#include "grapnel/optim/param_scheduler.h"
#include "grapnel/optim/schedulers/scheduler_replay.h"
#include "grapnel/runner/load_options.h"
#include "grapnel/runner/message_hub.h"
#include "grapnel/runner/mode.h"
#include "grapnel/runner/rank_agreement.h"
#include "grapnel/runner/rank_buffers.h"
#include "grapnel/runner/run_checkpoint.h"
#include "grapnel/runner/run_context.h"
#include "grapnel/runner/run_progress.h"
#include "grapnel/runner/run_state.pb.h"
#include "grapnel/runner/runner_config.pb.h"
#include "grapnel/runner/train_plan.h"
#include "runner/runner_impl.h"

namespace grapnel {
namespace {

using ::grapnel::io::v1::Progress;

// Tells whether two points of a run are the same.
std::string ProgressKey(const RunProgress& progress) {
  return absl::StrCat(progress.epoch(), "/", progress.iter_in_epoch(), "/",
                      progress.iter(), "/", progress.validation_pending());
}

ResumePoint PointOf(const RunProgress& progress, const Progress& saved,
                    const runner::v1::RunState& state) {
  ResumePoint point;
  point.epochs = saved.epoch();
  point.iters = saved.iter();
  if (state.data().by_epoch()) point.epoch_length = progress.num_batches();
  point.options_restored = state.has_optim_wrapper();
  for (const io::v1::EpochLength& length : progress.whole_epochs()) {
    point.lengths.push_back(
        {length.epoch(), length.iter(), length.num_batches()});
  }
  point.converted = progress.converted_steps();
  point.saved_converted = progress.converted_steps_before();
  point.length = {progress.max_epochs(), progress.max_iters(),
                  progress.num_batches()};
  point.saved_length = {saved.max_epochs(), saved.max_iters(),
                        state.data().num_batches()};
  return point;
}

// Of what a version of before would read wrongly.
void AddRequiredFeatures(const io::CheckpointContents& contents,
                         io::v1::CheckpointManifest* manifest) {
  for (const io::v1::EpochLength& length :
       manifest->progress().epoch_lengths()) {
    if (length.samples() == 0) continue;
    manifest->add_required_features(std::string(io::kEpochParts));
    break;
  }
  if (manifest->world_size() > 1 &&
      contents.FindSection("gradients") != nullptr) {
    manifest->add_required_features(std::string(io::kRankWindows));
  }
}

}  // namespace

// ------------------------------------------------------------------ loading

absl::Status RunnerImpl::Load() {
  if (plan_) optim_wrapper_->InitializeCounts(0, max_iters());
  if (checkpoint_path_.empty()) {
    for (const auto& scheduler : schedulers_) scheduler->Apply();
    return absl::OkStatus();
  }
  RunContext& run = *this;
  if (resume_) {
    resumed_from_ = checkpoint_path_;
  } else if (!config_->load_from().empty()) {
    std::vector<std::string> warnings;
    GRAPNEL_RETURN_IF_ERROR(
        WithContext(load_rules_.Apply(&checkpoint_, &warnings),
                    absl::StrCat(checkpoint_path_, ": load_options")));
    load_rules_ = LoadRules();  // They count once.
    for (const std::string& warning : warnings) {
      log_->Warning(absl::StrCat("load_options: ", warning));
    }
  }
  GRAPNEL_RETURN_IF_ERROR(
      hooks_.Call(points::kAfterLoadCheckpoint, run, checkpoint_));
  GRAPNEL_RETURN_IF_ERROR(
      WithContext(resume_ ? Resume() : LoadWeights(), checkpoint_path_));
  const io::CheckpointContents& restored = checkpoint_;
  GRAPNEL_RETURN_IF_ERROR(WithContext(
      hooks_.Call(points::kAfterRestore, run, restored), checkpoint_path_));
  checkpoint_ = io::CheckpointContents();  // Its memory.
  checkpoint_state_.Clear();
  return absl::OkStatus();
}

absl::Status RunnerImpl::LoadWeights() {
  const TensorMap* weights = checkpoint_.FindSection("model");
  if (weights == nullptr) {
    return absl::InvalidArgumentError("there is no section \"model\"");
  }
  std::vector<std::string> report;
  // Numbers of weights that were never loaded look like any others.
  const auto& options = config_->load_options();
  const bool strict =
      options.has_strict() ? options.strict() : mode_ != Mode::kTrain;
  const absl::Status status =
      LoadModelState(*weights, strict, *model_, &report);
  // A training that comes after this evaluation takes what fits.
  may_load_again_ = !status.ok() && strict && plan_.has_value();
  GRAPNEL_RETURN_IF_ERROR(status);
  for (const std::string& line : report) log_->Warning(line);
  for (const auto& scheduler : schedulers_) scheduler->Apply();
  log_->Info(absl::StrCat("Load checkpoint from ", checkpoint_path_));
  return absl::OkStatus();
}

absl::Status RunnerImpl::Resume() {
  const runner::v1::RunState& state = checkpoint_state_;
  const io::v1::CheckpointManifest& manifest = checkpoint_.manifest();
  const Progress& saved = manifest.progress();
  if (manifest.num_threads() != at::get_num_threads() ||
      manifest.cpu_capability() != at::get_cpu_capability() ||
      manifest.libtorch_version() != kLibTorchVersion) {
    log_->Warning(absl::StrCat(
        "resume: the checkpoint was made by LibTorch ",
        manifest.libtorch_version(), " with ", manifest.num_threads(),
        " threads and ", manifest.cpu_capability(), ", this run has ",
        kLibTorchVersion, ", ", at::get_num_threads(), " and ",
        at::get_cpu_capability(), ": it will not be the same to the bit"));
  }
  const std::string saved_device =
      manifest.device().empty() ? "cpu" : manifest.device();
  if (saved_device != DeviceKind(device_)) {
    log_->Warning(
        absl::StrCat("resume: the checkpoint was made on ", saved_device,
                     ", this run is on ", device_.str(),
                     ": it will not be the same to the bit",
                     generators_.device().defined()
                         ? ", and what is drawn there begins with the seed"
                         : ""));
  }
  std::vector<std::string> warnings;
  GRAPNEL_RETURN_IF_ERROR(
      RestoreRun(checkpoint_, state,
                 {model_.get(), optim_wrapper_.get(), schedulers_, &hub_,
                  &hooks_, generators_, &process_group()},
                 PointOf(progress_, saved, state), &warnings));
  GRAPNEL_RETURN_IF_ERROR(
      LoadRankBuffers(checkpoint_, process_group(), model_->buffers()));
  for (const std::string& warning : warnings) {
    log_->Warning(absl::StrCat("resume: ", warning));
  }
  if (manifest.world_size() != num_ranks()) WarnOfOtherRanks();
  ForgetWhatOptimizersDoNotGive();
  if (saved.validation_pending() && dataloader(Mode::kVal) == nullptr) {
    log_->Warning(
        "resume: a validation was due, and this run has no val_dataloader");
  }
  ShowProgress();
  // Without its state it would count from 0.
  if (!state.has_optim_wrapper()) {
    optim_wrapper_->InitializeCounts(iter(), max_iters());
  }
  if (dataloader(Mode::kVal) == nullptr) {
    progress_.set_validation_pending(false);
  }
  run_uuid_ = manifest.run_uuid();
  parent_uuid_ = manifest.checkpoint_uuid();
  last_saved_ = ProgressKey(progress_);
  // Those of older versions may be of another validation.
  if (!saved.validation_pending() &&
      (saved.epoch_lengths_size() > 0 || state.data().has_stream())) {
    latest_metrics_.insert(manifest.metrics().begin(),
                           manifest.metrics().end());
    metrics_iter_ = iter();
  }
  log_->Info(absl::StrCat("resumed epoch: ", epoch(), ", iter: ", iter()));
  if (progress_.done())
    log_->Info("the run is complete: nothing is left to do");
  return absl::OkStatus();
}

void RunnerImpl::WarnOfOtherRanks() {
  const int ranks = checkpoint_.manifest().world_size();
  const int64_t before = checkpoint_state_.data().batch_size() * ranks;
  const int64_t now =
      config_->train_dataloader().batch_size() * int64_t{num_ranks()};
  const std::string iteration =
      before == now
          ? absl::StrCat("the ", now,
                         " samples of an iteration are shared out anew")
          : absl::StrCat("an iteration is of ", now, " samples in place of ",
                         before);
  log_->Warning(absl::StrCat(
      "resume: the checkpoint was made by ", ranks,
      ranks == 1 ? " rank" : " ranks", ", this run has ", num_ranks(),
      ": it goes on behind the last sample, but will not be the ",
      "same to the bit: ", iteration, ", ranks draw other random numbers"));
}

void RunnerImpl::ForgetWhatOptimizersDoNotGive() {
  constexpr char kTrain[] = "train/";
  std::set<std::string> given;
  for (const auto& [name, rate] : optim_wrapper_->logged_lrs()) {
    given.insert(absl::StrCat(kTrain, name));
  }
  for (const StepHistories& histories : step_histories_) {
    if (histories.clips) given.insert(histories.grad_norm->name());
    if (histories.loss_scale != nullptr) {
      given.insert(histories.loss_scale->name());
    }
  }
  std::vector<std::string> gone;
  for (const HistoryBuffer* history : hub_.scalars()) {
    absl::string_view name = history->name();
    if (given.count(history->name()) > 0 ||
        !absl::ConsumePrefix(&name, kTrain)) {
      continue;
    }
    // Of one of several optimizers: "<its name>.lr".
    name = name.substr(name.find('.') + 1);
    if (name == "lr" || name == "base_lr" || name == "grad_norm" ||
        name == "loss_scale") {
      gone.push_back(history->name());
    }
  }
  for (const std::string& name : gone) hub_.ForgetScalar(name);
}

runner::v1::DataPosition RunnerImpl::CurrentDataPosition() {
  runner::v1::DataPosition position;
  position.set_batch_size(config_->train_dataloader().batch_size());
  position.set_world_size(num_ranks());
  position.set_by_epoch(by_epoch());
  if (stream_ != nullptr) {
    *position.mutable_stream() = stream_position_;
    return position;
  }
  const DataLoader& loader = *dataloader(Mode::kTrain);
  position.set_dataset_size(loader.dataset().size());
  position.set_infinite(loader.infinite());
  position.set_num_batches(loader.num_batches());
  position.set_shuffle(config_->train_dataloader().sampler().shuffle());
  return position;
}

std::string RunnerImpl::NearestBorder() const {
  const Progress& here = checkpoint_.manifest().progress();
  const std::string dir = io::Dirname(checkpoint_path_);
  std::string nearest;
  int64_t least = 0;
  const auto names = env_->ListDir(dir.empty() ? "." : dir);
  if (!names.ok()) return "";  // It is of help only.
  for (const std::string& name : *names) {
    const std::string path = io::JoinPath(dir, name);
    const auto manifest = io::ReadManifest(*env_, path);
    if (!manifest.ok() || manifest->partial() ||
        manifest->run_uuid() != checkpoint_.manifest().run_uuid() ||
        !RunProgress::AtBorder(manifest->progress(),
                               checkpoint_state_.data())) {
      continue;
    }
    const int64_t distance =
        std::abs(manifest->progress().iter() - here.iter());
    if (!nearest.empty() && distance >= least) continue;
    nearest = path;
    least = distance;
  }
  return nearest;
}

// ------------------------------------------------------------------- saving

absl::Status RunnerImpl::CheckSaveName(const std::string& name) {
  if (io::IsCheckpointName(name)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "a checkpoint's name must be 1 to 200 printable ASCII characters "
      "without \"/\", and not begin with \".\", is \"",
      EscapeToUtf8(name), "\""));
}

absl::StatusOr<int64_t> RunnerImpl::RequestSave(SaveRequest request) {
  if (!saves_allowed_) {
    return absl::FailedPreconditionError(
        "a checkpoint can be asked for at AfterTrainIter, AfterTrainEpoch, "
        "AfterTrain and, in training, AfterValEpoch");
  }
  GRAPNEL_RETURN_IF_ERROR(CheckSaveName(request.name));
  if (request.dir.empty()) request.dir = checkpoint_dir_;
  if (absl::StartsWith(work_dir_, "/") && !absl::StartsWith(request.dir, "/")) {
    GRAPNEL_ASSIGN_OR_RETURN(const std::string current, env_->CurrentDir());
    if (current.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("dir: \"", request.dir, "\" must be absolute, as \"",
                       work_dir_, "\" is"));
    }
    request.dir = io::JoinPath(current, request.dir);
  }
  for (auto& [id, waiting] : waiting_saves_) {
    if (waiting.name != request.name || waiting.dir != request.dir) continue;
    waiting.update_last_checkpoint |= request.update_last_checkpoint;
    waiting.optimizer |= request.optimizer;
    waiting.param_schedulers |= request.param_schedulers;
    return id;
  }
  waiting_saves_.push_back({++num_saves_, std::move(request)});
  return num_saves_;
}

absl::Status RunnerImpl::CutShort(Cut cut) {
  cut_ = cut;
  std::string why = cut == Cut::kInterrupt ? "interrupted"
                    : cut == Cut::kStop    ? "stopped"
                                           : "the deadline is past";
  if (num_ranks() > 1 && agreed_cut_rank_ != process_group().rank()) {
    absl::StrAppend(&why, " on rank ", agreed_cut_rank_);
  }
  MustStop();  // Logs the reason of a stop.
  const absl::Status cancelled = absl::CancelledError(why);
  TellOfError(cancelled);
  if (training_ && progress_.iter() > 0 &&
      last_saved_ != ProgressKey(progress_)) {
    WaitingSave save;
    save.id = ++num_saves_;
    save.request.dir = checkpoint_dir_;
    save.request.name = plan_->by_epoch() && progress_.iter_in_epoch() == 0
                            ? absl::StrCat("epoch_", epoch())
                            : absl::StrCat("iter_", iter());
    log_->Info(absl::StrCat(why, ": saving ", save.request.name));
    bool published = false;
    const absl::Status saved = SaveNow(save, &published);
    // kCancelled means that the run was cut short and is saved.
    if (absl::IsCancelled(saved)) return absl::AbortedError(saved.message());
    GRAPNEL_RETURN_IF_ERROR(saved);
  }
  return cancelled;
}

absl::Status RunnerImpl::WriteWaitingSaves() {
  while (!waiting_saves_.empty()) {
    bool published = false;
    const absl::Status status = SaveNow(waiting_saves_.front(), &published);
    // A folder that could not be written may be so later; what is wrong in
    // itself stays so.
    if (!status.ok() && !published && !absl::IsInvalidArgument(status)) {
      return status;
    }
    waiting_saves_.erase(waiting_saves_.begin());
    GRAPNEL_RETURN_IF_ERROR(status);
  }
  return absl::OkStatus();
}

absl::Status RunnerImpl::SaveNow(const WaitingSave& waiting, bool* published) {
  const auto save = [&]() -> absl::Status {
    CapturedSave save;
    GRAPNEL_RETURN_IF_ERROR(OnAllRanks([&]() -> absl::Status {
      GRAPNEL_ASSIGN_OR_RETURN(save, Capture(waiting));
      return absl::OkStatus();
    }));
    GRAPNEL_RETURN_IF_ERROR(OnAllRanks(
        [&] { return is_master() ? Publish(save) : absl::OkStatus(); }));
    *published = true;
    return NotifyOfSave(save);
  };
  return WithContext(save(),
                     absl::StrCat("checkpoint \"", waiting.request.name, "\""));
}

absl::StatusOr<CapturedSave> RunnerImpl::Capture(const WaitingSave& waiting) {
  const SaveRequest& request = waiting.request;
  RunParts parts = {model_.get(), optim_wrapper_.get(), schedulers_,     &hub_,
                    &hooks_,      generators_,          &process_group()};
  if (!request.optimizer) parts.optim_wrapper = nullptr;
  if (!request.param_schedulers) parts.param_schedulers = {};
  CapturedSave save;
  save.dir = request.dir;
  save.checkpoint.id = waiting.id;
  save.checkpoint.name = request.name;
  save.checkpoint.path = io::JoinPath(request.dir, request.name);
  save.checkpoint.is_last = request.update_last_checkpoint;
  save.progress_key = ProgressKey(progress_);
  // What one rank's hooks fail with comes before the others ask for more.
  GRAPNEL_RETURN_IF_ERROR(OnAllRanks([&]() -> absl::Status {
    GRAPNEL_ASSIGN_OR_RETURN(save.contents,
                             CaptureRun(parts, seed_, CurrentDataPosition()));
    return absl::OkStatus();
  }));
  GRAPNEL_RETURN_IF_ERROR(
      AddRankBuffers(process_group(), model_->buffers(), &save.contents));
  io::v1::CheckpointManifest& manifest = save.contents.manifest();
  *manifest.mutable_progress() = progress_.state();
  manifest.set_run_uuid(run_uuid_);
  manifest.set_parent_uuid(parent_uuid_);
  manifest.set_created_unix_nanos(absl::ToUnixNanos(clock_->WallTime()));
  manifest.set_producer(absl::StrCat("grapnel ", kGrapnelVersion));
  manifest.set_libtorch_version(kLibTorchVersion);
  manifest.set_cpu_capability(at::get_cpu_capability());
  manifest.set_num_threads(at::get_num_threads());
  if (!device_.is_cpu()) manifest.set_device(DeviceKind(device_));
  manifest.set_world_size(num_ranks());
  AddRequiredFeatures(save.contents, &manifest);
  manifest.set_config(config_text_);
  manifest.mutable_input_shape()->Assign(input_shape_.begin(),
                                         input_shape_.end());
  TensorMap evaluated;
  GRAPNEL_RETURN_IF_ERROR(
      EvaluatedWeights(&evaluated, manifest.mutable_evaluated_section()));
  if (metrics_iter_ == progress_.iter()) {
    manifest.mutable_metrics()->insert(latest_metrics_.begin(),
                                       latest_metrics_.end());
  }
  RunContext& run = *this;
  GRAPNEL_RETURN_IF_ERROR(
      hooks_.Call(points::kBeforeSaveCheckpoint, run, save.contents));
  return save;
}

absl::Status RunnerImpl::Publish(const CapturedSave& save) const {
  log_->Flush().IgnoreError();  // It has reported what went wrong by itself.
  GRAPNEL_RETURN_IF_ERROR(io::WriteCheckpoint(
      *env_, save.dir, save.checkpoint.name, save.contents));
  if (!save.checkpoint.is_last) return absl::OkStatus();
  return io::WriteLastCheckpoint(*env_, work_dir_, save.checkpoint.path);
}

absl::Status RunnerImpl::NotifyOfSave(const CapturedSave& save) {
  if (save.checkpoint.is_last) last_saved_ = save.progress_key;
  // It is there: each hook that looks after checkpoints must know.
  return CallAll(points::kAfterSaveCheckpoint, save.checkpoint);
}

}  // namespace grapnel
