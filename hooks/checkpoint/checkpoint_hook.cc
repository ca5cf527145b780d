#include "grapnel/hooks/checkpoint/checkpoint_hook.h"

#include <algorithm>
#include <cstddef>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"
#include "grapnel/base/clock.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/dist/process_group.h"
#include "grapnel/hooks/checkpoint/best_checkpoints.h"
#include "grapnel/hooks/checkpoint/checkpoint_copy.h"
#include "grapnel/hooks/checkpoint/publish_checkpoint.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/env.h"
#include "grapnel/io/retention.h"
#include "grapnel/loggers/run_log.h"
#include "grapnel/runner/hook_registry.h"
#include "grapnel/runner/out_dir.h"
#include "grapnel/runner/rank_agreement.h"

namespace grapnel {
using hooks::v1::BestCheckpoint;

// ------------------------------------------------------------------- set-up

absl::StatusOr<std::unique_ptr<CheckpointHook>> CheckpointHook::Create(
    const Config& config) {
  GRAPNEL_RETURN_IF_ERROR(CheckCheckpointConfig(config));
  std::vector<Indicator> indicators;
  for (int i = 0; i < config.save_best_size(); ++i) {
    if (config.save_best(i) == kAutoIndicator) continue;
    GRAPNEL_ASSIGN_OR_RETURN(Indicator indicator,
                             MakeIndicator(config, i, config.save_best(i)));
    indicators.push_back(std::move(indicator));
  }
  return absl::WrapUnique(new CheckpointHook(config, std::move(indicators)));
}

CheckpointHook::CheckpointHook(const Config& config,
                               std::vector<Indicator> indicators)
    : config_(WithDefaultOptions(config)),
      auto_(config.save_best_size() > 0 && indicators.empty()),
      indicators_(std::move(indicators)),
      iter_saves_(config_.interval_minutes() > 0 ? IterSaves::kByClockToo
                  : config_.by_epoch()           ? IterSaves::kNone
                                                 : IterSaves::kByCount) {}

absl::Status CheckpointHook::AfterRestore(
    RunContext& run, const io::CheckpointContents& contents) {
  if (run.resumed_from().empty()) return absl::OkStatus();
  run_uuid_ = contents.manifest().run_uuid();
  TakeOver(run);
  return absl::OkStatus();
}

absl::Status CheckpointHook::BeforeTrain(RunContext& run) {
  // One that was given in code: the run knows only what its config says.
  if (config_.has_out_dir() &&
      !IsSamePath(
          RunFolderIn(config_.out_dir(), run.base_dir(), run.work_dir()),
          run.checkpoint_dir())) {
    return absl::InvalidArgumentError(
        "out_dir: must be set in the configuration, default_hooks { checkpoint "
        "{ out_dir } }: all of a run looks for its checkpoints there");
  }
  run.log().Info(
      absl::StrCat("Checkpoints will be saved to ", run.checkpoint_dir(), "."));
  if (config_.save_best_size() > 0 && run.dataloader(Mode::kVal) == nullptr) {
    run.log().Warning(
        "save_best: there is no validation, so there will be no best one");
  }
  for (Indicator& indicator : indicators_) {
    if (!indicator.warning.empty()) run.log().Warning(indicator.warning);
    indicator.warning.clear();
  }
  if (config_.by_epoch() && !run.by_epoch() &&
      (config_.interval() > 0 || config_.save_best_size() > 0)) {
    run.log().Warning(
        "by_epoch: is true, and a run by iteration is one epoch: there will be "
        "no checkpoint before its end, and one name for all best ones");
  }
  CheckBest(run);
  GRAPNEL_RETURN_IF_ERROR(FindAuto(run));
  for (const Indicator& indicator : indicators_) {
    SortBest(indicator, state_.mutable_best());
  }
  // What a call before has asked for and could not write replaces nothing yet.
  if (being_saved_.empty()) DeleteSurplusBest(run);
  if (config_.interval_minutes() > 0) NoteTime(run);
  at_epochs_end_ = false;
  described_.clear();  // Of a call before; the folder may have changed.
  const auto& kept = state_.kept();
  const bool waits =
      !kept.empty() && !run.env().FileExists(PathOf(run, *kept.rbegin()));
  DeleteOld(run, kept.size() - (waits ? 1 : 0));
  return absl::OkStatus();
}

void CheckpointHook::TakeOver(RunContext& run) {
  absl::string_view resumed_from = run.resumed_from();
  while (absl::ConsumeSuffix(&resumed_from, "/")) {
  }
  last_path_ = std::string(resumed_from);
  state_.clear_last_count();
  const std::string name = io::Basename(resumed_from);
  const std::string here = PathOf(run, name);
  if (here != resumed_from &&
      !io::IsSameCheckpoint(run.env(), here, run.resumed_from())) {
    // What the other folder's run made is not ours to delete here.
    state_.clear_kept();
    state_.clear_last();
    for (BestCheckpoint& best : *state_.mutable_best()) best.clear_name();
    return;
  }
  auto newer = ReadBestCheckpoints(run.env(), run.checkpoint_dir(), run_uuid_);
  if (absl::IsNotFound(newer.status())) {  // Where it was before.
    newer = ReadBestCheckpoints(run.env(), run.work_dir(), run_uuid_);
  }
  if (newer.ok()) {
    *state_.mutable_best() = *std::move(newer);
  } else if (!absl::IsNotFound(newer.status())) {
    run.log().Warning(newer.status().message());
  }
  if (name == state_.last()) {
    state_.set_last_count(CountOf(run));
  }
  if (config_.max_keep_ckpts() <= 0) return;
  const auto resumed = io::ReadManifest(run.env(), here);
  if (resumed.ok()) FindKept(run, *resumed);
}

void CheckpointHook::FindKept(RunContext& run,
                              const io::v1::CheckpointManifest& resumed) {
  const std::vector<io::RunCheckpoint> found =
      io::ListRunCheckpoints(run.env(), {run.checkpoint_dir(), run.work_dir()},
                             run_uuid_, [this](absl::string_view name) {
                               return IsKept(name) || IsPeriodicName(name);
                             });
  const io::RunCheckpoint newest = io::DescribeCheckpoint(resumed);
  state_.clear_kept();
  for (const io::RunCheckpoint& checkpoint : found) {
    // A newer one is of what the run gave up when it went back; its name comes
    // again.
    if (newest < checkpoint || IsKept(checkpoint.name)) continue;
    state_.add_kept(checkpoint.name);
  }
}

bool CheckpointHook::IsPeriodicName(absl::string_view name) const {
  const std::string& tmpl = config_.filename_tmpl();
  const size_t at = tmpl.find("{}");
  const std::pair<absl::string_view, absl::string_view> forms[] = {
      {absl::string_view(tmpl).substr(0, at),
       absl::string_view(tmpl).substr(at + 2)},
      // Of an interrupt, or by the default of before.
      {"epoch_", ""},
      {"iter_", ""}};
  for (const auto& [prefix, suffix] : forms) {
    absl::string_view number = name;
    if (absl::ConsumePrefix(&number, prefix) &&
        absl::ConsumeSuffix(&number, suffix) && !number.empty() &&
        std::all_of(number.begin(), number.end(), [](char c) {
          return absl::ascii_isdigit(static_cast<unsigned char>(c));
        })) {
      return true;
    }
  }
  return false;
}

void CheckpointHook::CheckBest(RunContext& run) {
  BestCheckpointList checked;
  best_paths_.clear();
  for (BestCheckpoint& best : *state_.mutable_best()) {
    if (!best.name().empty() && !IsBeingSaved(best.name())) {
      const auto manifest =
          io::ReadManifest(run.env(), PathOf(run, best.name()));
      // Missing if the run was killed then, or if it was deleted by hand.
      if (!manifest.ok() && !absl::IsNotFound(manifest.status())) {
        run.log().Warning(absl::StrCat("save_best: passed over ",
                                       manifest.status().message()));
      }
      if (!manifest.ok() || manifest->run_uuid() != run_uuid_) continue;
      best_paths_[best.name()] = PathOf(run, best.name());
      const auto score = manifest->metrics().find(best.indicator());
      if (score != manifest->metrics().end()) best.set_score(score->second);
    }
    *checked.Add() = std::move(best);
  }
  *state_.mutable_best() = std::move(checked);
}

absl::Status CheckpointHook::FindAuto(RunContext& run) {
  if (!auto_ || !indicators_.empty() || state_.best().empty()) {
    return absl::OkStatus();
  }
  const std::string& name = state_.best(0).indicator();
  for (const BestCheckpoint& best : state_.best()) {
    if (best.indicator() != name) return absl::OkStatus();  // Not known.
  }
  return SetAuto(run, name);
}

absl::Status CheckpointHook::SetAuto(RunContext& run, const std::string& name) {
  GRAPNEL_ASSIGN_OR_RETURN(Indicator indicator,
                           MakeIndicator(config_, 0, name));
  if (!indicator.warning.empty()) run.log().Warning(indicator.warning);
  indicators_.push_back(std::move(indicator));
  return absl::OkStatus();
}

// ------------------------------------------------------ periodic checkpoints

absl::Status CheckpointHook::AfterTrainIter(RunContext& run,
                                            const IterInfo& info,
                                            const LogVars&) {
  if (iter_saves_ == IterSaves::kNone) return absl::OkStatus();
  if (iter_saves_ == IterSaves::kByClockToo) return SaveIfTime(run, info);
  return IsIterDue(run) ? Save(run, run.iter() + 1) : absl::OkStatus();
}

bool CheckpointHook::IsIterDue(const RunContext& run) const {
  const int64_t count = run.iter() + 1;
  return EveryN(count, config_.interval(), config_.save_begin()) ||
         (config_.save_last() && count == run.max_iters());
}

absl::Status CheckpointHook::SaveIfTime(RunContext& run, const IterInfo& info) {
  GRAPNEL_ASSIGN_OR_RETURN(const bool is_time, IsTimeToSave(run));
  if (!config_.by_epoch()) {
    return IsIterDue(run) || is_time ? Save(run, run.iter() + 1)
                                     : absl::OkStatus();
  }
  if (!is_time) return absl::OkStatus();
  // The epoch is done in a moment: then it is saved as that.
  at_epochs_end_ = run.by_epoch() && info.batch_idx + 1 >= info.num_batches;
  return at_epochs_end_ ? absl::OkStatus()
                        : Save(run, run.iter() + 1, /*in_epoch=*/true);
}

absl::Status CheckpointHook::AfterTrainEpoch(RunContext& run) {
  if (!config_.by_epoch()) return absl::OkStatus();
  const int64_t count = run.epoch() + 1;
  if (EveryN(count, config_.interval(), config_.save_begin()) ||
      (config_.save_last() && count == run.max_epochs()) ||
      std::exchange(at_epochs_end_, false)) {
    return Save(run, count);
  }
  return absl::OkStatus();
}

absl::Status CheckpointHook::AfterTrain(RunContext& run) {
  publish_ = config_.published_keys_size() > 0;
  if (run.stop_reason().empty() || !config_.save_last()) {
    return absl::OkStatus();
  }
  // One that is stopped at once is saved before this.
  if (saved_iter_ == run.iter()) return absl::OkStatus();
  const int64_t count = CountOf(run);
  return count == state_.last_count() ? absl::OkStatus() : Save(run, count);
}

int64_t CheckpointHook::CountOf(const RunContext& run) const {
  if (!config_.by_epoch()) return run.iter();
  // An iteration-based loop has one epoch.
  return run.by_epoch() ? run.epoch() : 1;
}

std::string CheckpointHook::NameOf(int64_t count) const {
  return absl::StrReplaceAll(config_.filename_tmpl(),
                             {{"{}", absl::StrCat(count)}});
}

absl::Status CheckpointHook::Save(RunContext& run, int64_t count,
                                  bool in_epoch) {
  at_epochs_end_ = false;
  const bool is_epoch = config_.by_epoch() && !in_epoch;
  run.log().Info(absl::StrCat("Saving checkpoint at ", count, " ",
                              is_epoch ? "epochs" : "iterations"));
  SaveRequest request;
  request.name = in_epoch ? absl::StrCat("iter_", count) : NameOf(count);
  request.dir = run.checkpoint_dir();
  request.optimizer = config_.save_optimizer();
  request.param_schedulers = config_.save_param_scheduler();
  // Before it is written, so that the checkpoint knows of itself; the newest is
  // last.
  if (config_.max_keep_ckpts() > 0) {
    auto& kept = *state_.mutable_kept();
    kept.erase(std::remove(kept.begin(), kept.end(), request.name), kept.end());
    *kept.Add() = request.name;
  }
  state_.set_last(request.name);
  if (!in_epoch) state_.set_last_count(count);
  return run.Save(std::move(request));
}

void CheckpointHook::NoteTime(const RunContext& run) {
  saved_nanos_ = run.clock().NowNanos();
  told_iter_ = run.iter();
  told_nanos_ = saved_nanos_;
  next_telling_iter_ = 0;
}

absl::StatusOr<bool> CheckpointHook::IsTimeToSave(RunContext& run) {
  const double interval = 60e9 * config_.interval_minutes();
  ProcessGroup& group = run.process_group();
  if (group.world_size() == 1) {
    const int64_t now = run.clock().NowNanos();
    return static_cast<double>(now - saved_nanos_) >= interval;
  }
  if (run.iter() < next_telling_iter_) return false;
  // The first rank's clock counts. It tells the others often enough to be in
  // time, and seldom enough to cost nothing.
  constexpr double kBetweenNanos = 1e9;
  constexpr int64_t kMostIters = 1000;
  const int64_t now = run.clock().NowNanos();
  const double left = interval - static_cast<double>(now - saved_nanos_);
  const int64_t iters = run.iter() - told_iter_;
  const int64_t nanos = now - told_nanos_;
  int64_t until_next = left <= 0 ? 0 : 1;
  if (left > 0 && iters > 0 && nanos > 0) {
    const double per_nano =
        static_cast<double>(iters) / static_cast<double>(nanos);
    until_next = static_cast<int64_t>(
        std::clamp(per_nano * std::max(left / 2, kBetweenNanos), 1.0,
                   static_cast<double>(kMostIters)));
  }
  GRAPNEL_ASSIGN_OR_RETURN(const std::string told,
                           FromMaster(group, absl::StrCat(until_next)));
  GRAPNEL_RET_CHECK(absl::SimpleAtoi(told, &until_next));
  told_iter_ = run.iter();
  told_nanos_ = now;
  next_telling_iter_ = run.iter() + until_next;
  return until_next == 0;
}

bool CheckpointHook::IsKept(absl::string_view name) const {
  const auto& kept = state_.kept();
  return std::find(kept.begin(), kept.end(), name) != kept.end();
}

void CheckpointHook::DeleteOld(RunContext& run, int64_t num_written) {
  DeleteRemains(run);
  if (config_.max_keep_ckpts() <= 0) return;
  auto& kept = *state_.mutable_kept();
  for (const std::string& name : ToDelete(run, num_written)) {
    if (!Delete(run, name)) continue;
    described_.erase(name);
    kept.erase(std::find(kept.begin(), kept.end(), name));
  }
}

std::vector<std::string> CheckpointHook::ToDelete(RunContext& run,
                                                  int64_t num_written) {
  const auto& kept = state_.kept();
  std::vector<std::string> names;
  if (!run.is_master()) {  // Doesn't see them; its list is not saved.
    const int64_t surplus = num_written - config_.max_keep_ckpts();
    for (int64_t i = 0; i < surplus; ++i) names.push_back(kept[i]);
    return names;
  }
  std::vector<io::RunCheckpoint> checkpoints;
  for (int64_t i = 0; i < num_written; ++i) {
    const auto checkpoint = Describe(run, kept[i]);
    if (checkpoint.ok()) {
      checkpoints.push_back(*checkpoint);
    } else if (absl::IsNotFound(checkpoint.status()) ||
               absl::IsDataLoss(checkpoint.status()) ||
               absl::IsFailedPrecondition(checkpoint.status())) {
      names.push_back(kept[i]);
    }
  }
  io::RetentionRules rules;
  rules.newest = config_.max_keep_ckpts();
  rules.every = config_.keep_every();
  rules.by_epoch = config_.by_epoch();
  rules.per = absl::Minutes(config_.keep_minutes());
  for (const io::RetentionVerdict& verdict :
       io::DecideRetention(checkpoints, rules)) {
    const std::string& name = verdict.checkpoint.name;
    // A pin may come and go while it is there.
    if (verdict.reasons.empty() &&
        !io::IsPinned(run.env(), PathOf(run, name))) {
      names.push_back(name);
    }
  }
  return names;
}

absl::StatusOr<io::RunCheckpoint> CheckpointHook::Describe(
    RunContext& run, const std::string& name) {
  const std::string path = PathOf(run, name);
  const auto known = described_.find(name);
  if (known != described_.end() && run.env().FileExists(path)) {
    return known->second;
  }
  GRAPNEL_ASSIGN_OR_RETURN(const io::v1::CheckpointManifest manifest,
                           io::ReadManifest(run.env(), path));
  if (manifest.run_uuid() != run_uuid_) {
    return absl::FailedPreconditionError("another run made it");
  }
  return described_[name] = io::DescribeCheckpoint(manifest);
}

// out_dir may be new; and one of an interrupt was once in work_dir, wherever
// the others were.
std::string CheckpointHook::PathOf(RunContext& run,
                                   const std::string& name) const {
  const std::string path = io::JoinPath(run.checkpoint_dir(), name);
  const std::string other = io::JoinPath(run.work_dir(), name);
  return !run.env().FileExists(path) && run.env().FileExists(other) ? other
                                                                    : path;
}

bool CheckpointHook::Delete(RunContext& run, const std::string& name) {
  if (!run.is_master()) return true;
  if (io::Basename(name) != name) return true;  // Not from here.
  const std::string path = PathOf(run, name);
  const absl::Status deleted =
      io::DeleteRunCheckpoint(run.env(), path, run_uuid_);
  if (deleted.ok()) return true;
  if (absl::IsFailedPrecondition(deleted)) {
    // Since it was looked at: its turn comes if it is no longer pinned.
    if (io::IsPinned(run.env(), path) && Describe(run, name).ok()) return false;
    run.log().Warning(
        absl::StrCat(path, " isn't deleted: ", deleted.message()));
    return true;
  }
  // The run is as good as it was, and the reason may go away.
  if (undeletable_.insert(name).second) {
    run.log().Warning(absl::StrCat(path,
                                   " can't be deleted now: ", deleted.message(),
                                   "; it is tried again at the next save"));
  }
  remains_ = true;
  return false;
}

void CheckpointHook::DeleteRemains(RunContext& run) {
  if (!remains_) return;
  // Nobody else writes here. What went wrong has been said.
  std::vector<std::string> undeleted;
  bool all = true;
  for (const std::string& dir : {run.checkpoint_dir(), run.work_dir()}) {
    all = io::RemoveLeftovers(run.env(), dir, &undeleted).ok() && all;
  }
  remains_ = !all || !undeleted.empty();
}

absl::Status CheckpointHook::BeforeSaveCheckpoint(
    RunContext& run, io::CheckpointContents& contents) {
  run_uuid_ = contents.manifest().run_uuid();
  // It shares the tensors with the run, which stands still until it is written.
  if (config_.also_write_size() > 0 && run.is_master()) contents_ = contents;
  // What it says and isn't written, for a kill may come in between, is found
  // missing by the run that resumes; what was written and isn't said would be
  // left for ever.
  return best_changed_ ? WriteBest(run) : absl::OkStatus();
}

absl::Status CheckpointHook::AfterSaveCheckpoint(RunContext& run,
                                                 const SavedCheckpoint& saved) {
  described_.erase(saved.name);
  const auto best = being_saved_.find(saved.id);
  if (saved.is_last || best != being_saved_.end()) WriteCopies(run, saved);
  contents_.reset();
  if (best != being_saved_.end()) {
    run.log().Info(best->second.message);
    being_saved_.erase(best);
    best_paths_[saved.name] = saved.path;
    DeleteSurplusBest(run);
    if (best_changed_) GRAPNEL_RETURN_IF_ERROR(WriteBest(run));
  }
  if (!saved.is_last) return absl::OkStatus();
  last_path_ = saved.path;
  saved_iter_ = run.iter();
  if (config_.interval_minutes() > 0) NoteTime(run);
  state_.set_last(saved.name);
  if (config_.max_keep_ckpts() > 0 && !IsKept(saved.name)) {
    state_.add_kept(saved.name);
  }
  DeleteOld(run, state_.kept_size());
  return absl::OkStatus();
}

// ---------------------------------------------------------- best checkpoints

absl::Status CheckpointHook::AfterValEpoch(RunContext& run,
                                           const Metrics& metrics) {
  if (!run.training()) return absl::OkStatus();
  metrics_iter_ = run.iter();
  metrics_ = metrics;
  if (config_.save_best_size() == 0) return absl::OkStatus();
  if (metrics.empty()) {
    run.log().Warning("save_best: the validation gave no metrics");
    return absl::OkStatus();
  }
  if (auto_ && indicators_.empty()) {
    GRAPNEL_RETURN_IF_ERROR(SetAuto(run, metrics.front().first));
  }
  std::vector<double> scores;  // All are there before any is recorded.
  for (const Indicator& indicator : indicators_) {
    GRAPNEL_ASSIGN_OR_RETURN(const double score,
                             ScoreOf(metrics, indicator.name));
    scores.push_back(score);
  }
  const int64_t count = config_.by_epoch() ? run.epoch() : run.iter();
  for (size_t i = 0; i < indicators_.size(); ++i) {
    const Indicator& indicator = indicators_[i];
    SaveRequest request;
    request.name = absl::StrCat(kBestPrefix, IndicatorFileName(indicator.name),
                                "_", NameOf(count));
    const std::optional<int> place =
        AddBest(indicator, scores[i], request.name, config_.keep_best(),
                state_.mutable_best());
    if (!place) continue;
    best_changed_ = true;
    BeingSaved best;
    best.name = request.name;
    best.message = absl::StrFormat(
        "The %sbest checkpoint with %0.4f %s at %d %s is saved to %s.",
        *place == 0 ? "" : absl::StrCat("number ", *place + 1, " "), scores[i],
        indicator.name, count, config_.by_epoch() ? "epoch" : "iter",
        request.name);
    request.update_last_checkpoint = false;
    request.dir = run.checkpoint_dir();
    request.optimizer = config_.save_best_optimizer();
    request.param_schedulers = config_.save_best_optimizer();
    GRAPNEL_ASSIGN_OR_RETURN(const int64_t id,
                             run.RequestSave(std::move(request)));
    being_saved_[id] = std::move(best);
  }
  return absl::OkStatus();
}

bool CheckpointHook::IsBeingSaved(absl::string_view name) const {
  return std::any_of(
      being_saved_.begin(), being_saved_.end(),
      [name](const auto& save) { return save.second.name == name; });
}

std::vector<std::string> CheckpointHook::best_metrics() const {
  std::vector<std::string> names;
  for (const Indicator& indicator : indicators_) {
    names.push_back(indicator.name);
  }
  return names;
}

std::optional<CheckpointHook::Best> CheckpointHook::best_checkpoint(
    absl::string_view metric) const {
  for (const BestCheckpoint& record : state_.best()) {
    if (record.indicator() != metric) continue;
    if (record.name().empty()) return Best{"", record.score()};
    // One that is only asked for: the one before is still there.
    const auto path = best_paths_.find(record.name());
    if (path == best_paths_.end() || IsBeingSaved(record.name())) continue;
    return Best{path->second, record.score()};
  }
  return std::nullopt;
}

void CheckpointHook::DeleteSurplusBest(RunContext& run) {
  for (const Indicator& indicator : indicators_) {
    int64_t count = 0;
    auto& best = *state_.mutable_best();
    for (auto record = best.begin(); record != best.end();) {
      if (record->indicator() != indicator.name ||
          ++count <= config_.keep_best()) {
        ++record;
        continue;
      }
      const std::string name = record->name();
      if (!name.empty() && io::IsPinned(run.env(), PathOf(run, name))) {
        ++record;  // Its turn comes if it is no longer pinned.
        continue;
      }
      // "": another folder's.
      if (!name.empty() && !Delete(run, name)) {
        ++record;
        continue;
      }
      record = best.erase(record);
      best_paths_.erase(name);
      best_changed_ = true;
      if (name.empty()) continue;
      run.log().Info(
          absl::StrCat("The previous best checkpoint ", name, " is removed"));
    }
  }
}

absl::Status CheckpointHook::WriteBest(RunContext& run) {
  best_changed_ = false;
  if (!run.is_master()) return absl::OkStatus();
  const absl::Status written = WriteBestFile(run);
  best_changed_ = !written.ok();
  return written;
}

absl::Status CheckpointHook::WriteBestFile(RunContext& run) {
  // The first thing there may be.
  GRAPNEL_RETURN_IF_ERROR(run.env().CreateDir(run.checkpoint_dir()));
  GRAPNEL_RETURN_IF_ERROR(WriteBestCheckpoints(run.env(), run.checkpoint_dir(),
                                               run_uuid_, state_.best()));
  return absl::OkStatus();
}

// ----------------------------------------------------- files beside them

void CheckpointHook::WriteCopies(RunContext& run,
                                 const SavedCheckpoint& saved) {
  if (!contents_.has_value()) return;  // Another rank writes them.
  for (const std::string& format : config_.also_write()) {
    std::vector<std::string> warnings;
    const absl::Status written = WriteCheckpointCopy(
        run.env(), saved.path, format, *contents_, &warnings);
    if (written.ok()) {
      for (const std::string& warning : warnings) {
        // Numbers differ from save to save.
        std::string kind = absl::StrCat(format, " ", warning);
        kind.erase(
            std::remove_if(kind.begin(), kind.end(), absl::ascii_isdigit),
            kind.end());
        if (!copy_warnings_.insert(std::move(kind)).second) continue;
        run.log().Warning(absl::StrCat("also_write: ", saved.path, ".", format,
                                       ": ", warning));
      }
      continue;
    }
    // The run is as good as it was.
    run.log().Warning(absl::StrCat("also_write: ", written.message(), "; ",
                                   saved.path, " itself is written"));
  }
}

// --------------------------------------------------------------- publishing

// A run that could not save its end has nothing to publish yet.
void CheckpointHook::OnError(RunContext&, const absl::Status&) {
  failed_ = true;
  contents_.reset();  // Its memory.
}

// Not in AfterTrain: what is asked for there is written after it.
absl::Status CheckpointHook::AfterRun(RunContext& run) {
  // Kept for the call that goes on.
  if (!publish_ || std::exchange(failed_, false)) return absl::OkStatus();
  publish_ = false;
  if (config_.save_last() && !state_.last().empty()) {
    GRAPNEL_RETURN_IF_ERROR(Publish(run, state_.last()));
  }
  for (const Indicator& indicator : indicators_) {
    const auto best =
        std::find_if(state_.best().begin(), state_.best().end(),
                     [&](const BestCheckpoint& record) {
                       return record.indicator() == indicator.name;
                     });
    if (best == state_.best().end() || best->name().empty()) {
      run.log().Warning(absl::StrCat("published_keys: there is no best \"",
                                     indicator.name, "\" to publish"));
      continue;
    }
    GRAPNEL_RETURN_IF_ERROR(Publish(run, best->name()));
  }
  return absl::OkStatus();
}

absl::Status CheckpointHook::Publish(RunContext& run, const std::string& name) {
  if (!run.is_master()) return absl::OkStatus();
  PublishRequest request;
  request.path = PathOf(run, name);
  request.dir = run.checkpoint_dir();
  request.keys = &config_.published_keys();
  request.metrics = &metrics_;
  request.metrics_iter = metrics_iter_;
  return WithContext(PublishCheckpoint(run.env(), request, run.log()),
                     "published_keys");
}

GRAPNEL_REGISTER_HOOK(CheckpointHook);

}  // namespace grapnel
