#ifndef GRAPNEL_HOOKS_CHECKPOINT_CHECKPOINT_HOOK_H_
#define GRAPNEL_HOOKS_CHECKPOINT_CHECKPOINT_HOOK_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "grapnel/hooks/checkpoint/checkpoint_config.h"
#include "grapnel/hooks/checkpoint/checkpoint_hook.pb.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/checkpoint_manifest.pb.h"
#include "grapnel/io/run_checkpoints.h"
#include "grapnel/models/metric_value.h"
#include "grapnel/runner/hook.h"

namespace grapnel {

// Asks for checkpoints, epoch_5 or iter_500, at intervals and at the end of
// training, and deletes old ones when there are too many. After a validation in
// training also for best_<metric>_epoch_5, if it was better than before.
//
// An old checkpoint is deleted only when a newer one is on the disk, and only
// if its manifest says that this run, or one that it continues, made it, and it
// isn't pinned. A run
// that resumes finds them in its folder, whatever was configured when they were
// made. One that can't be deleted is warned of, and tried again at the next
// save.
//
// The scores to beat, and whose checkpoints to delete then, are in every
// checkpoint and, from the moment a new best is written, in the file
// best_checkpoints beside them: a run that resumes from an older checkpoint
// knows them.
class CheckpointHook final : public Hook {
 public:
  using Config = hooks::v1::CheckpointHookConfig;

  // kInvalidArgument, naming the field, for a config that breaks a rule stated
  // in checkpoint_hook.proto.
  static absl::StatusOr<std::unique_ptr<CheckpointHook>> Create(
      const Config& config);

  absl::string_view name() const override { return "checkpoint"; }

  // After the hooks that change what is saved.
  Priority priority() const override { return Priority::kVeryLow; }

  google::protobuf::Message* mutable_state() override { return &state_; }

  // For the host program, in training and after it; also of what a run that is
  // resumed has found.

  // Path of the newest checkpoint that is on the disk, which is what
  // last_checkpoint names: periodic, of a stop or of an interrupt. "" if none.
  const std::string& last_checkpoint() const { return last_path_; }

  struct Best {
    std::string path;  // "" if it is in the folder of the run of before.
    double value;
  };
  // The best checkpoint on the disk by a metric of save_best; with "auto" by
  // the one that it has become. Unset if there is none yet.
  std::optional<Best> best_checkpoint(absl::string_view metric) const;

  // The metrics of save_best; empty with "auto" until the first validation.
  std::vector<std::string> best_metrics() const;

  absl::Status AfterRestore(RunContext& run,
                            const io::CheckpointContents& contents) override;
  absl::Status BeforeTrain(RunContext& run) override;
  absl::Status AfterTrainIter(RunContext& run, const IterInfo& info,
                              const LogVars& log_vars) override;
  absl::Status AfterTrainEpoch(RunContext& run) override;

  // kNotFound if the validation has no such metric; kInvalidArgument if it is a
  // text, or, of "auto", if its name doesn't tell which values are better.
  absl::Status AfterValEpoch(RunContext& run, const Metrics& metrics) override;

  absl::Status BeforeSaveCheckpoint(RunContext& run,
                                    io::CheckpointContents& contents) override;
  absl::Status AfterSaveCheckpoint(RunContext& run,
                                   const SavedCheckpoint& saved) override;
  absl::Status AfterTrain(RunContext& run) override;
  absl::Status AfterRun(RunContext& run) override;
  void OnError(RunContext& run, const absl::Status& error) override;

 private:
  CheckpointHook(const Config& config, std::vector<Indicator> indicators);

  // Makes what the checkpoint that the run resumes from says its own, as far as
  // it is about this folder.
  void TakeOver(RunContext& run);
  // Makes `kept` what the folder has of this run: not newer than `resumed`,
  // which the run goes on from, and called as periodic ones are.
  void FindKept(RunContext& run, const io::v1::CheckpointManifest& resumed);
  bool IsPeriodicName(absl::string_view name) const;
  // Corrects the best ones by what is on the disk.
  void CheckBest(RunContext& run);
  // Asked for, and not yet on the disk.
  bool IsBeingSaved(absl::string_view name) const;
  // Which metric "auto" was before this run, if that is known.
  absl::Status FindAuto(RunContext& run);
  absl::Status SetAuto(RunContext& run, const std::string& name);

  // What checkpoints are named after, at this point of the run.
  int64_t CountOf(const RunContext& run) const;
  // Asks for the checkpoint of `count` completed epochs or iterations; with
  // `in_epoch` for one of interval_minutes, of iterations, inside an epoch.
  absl::Status Save(RunContext& run, int64_t count, bool in_epoch = false);
  // Whether one is due behind this iteration by its number.
  bool IsIterDue(const RunContext& run) const;
  // With interval_minutes.
  absl::Status SaveIfTime(RunContext& run, const IterInfo& info);
  // Whether interval_minutes have passed; the same on all ranks. Called behind
  // each iteration.
  absl::StatusOr<bool> IsTimeToSave(RunContext& run);
  void NoteTime(const RunContext& run);
  std::string NameOf(int64_t count) const;
  bool IsKept(absl::string_view name) const;
  // `num_written`: of those that are kept, which are on the disk but for the
  // newest ones.
  void DeleteOld(RunContext& run, int64_t num_written);
  // Of the first `num_written` that are kept those that no rule keeps, and
  // those that are none of this run's, or none any more.
  std::vector<std::string> ToDelete(RunContext& run, int64_t num_written);
  // What DecideRetention wants to know of a kept one, but for its pin.
  absl::StatusOr<io::RunCheckpoint> Describe(RunContext& run,
                                             const std::string& name);

  void DeleteSurplusBest(RunContext& run);
  absl::Status WriteBest(RunContext& run);
  absl::Status WriteBestFile(RunContext& run);

  // Where the checkpoint of that name is.
  std::string PathOf(RunContext& run, const std::string& name) const;
  // Deletes a checkpoint of this run. True if that is done with: it is gone, or
  // another run's. If it can't be deleted, which is warned of once, false: try
  // it again later.
  bool Delete(RunContext& run, const std::string& name);
  // Tries again what a Delete left half done.
  void DeleteRemains(RunContext& run);

  absl::Status Publish(RunContext& run, const std::string& name);

  // Of what was saved last.
  void WriteCopies(RunContext& run, const SavedCheckpoint& saved);

  const Config config_;  // With defaults filled in.
  const bool auto_;      // save_best is "auto".
  // Empty with "auto" until the first validation.
  std::vector<Indicator> indicators_;
  // What an iteration may have to save for.
  enum class IterSaves { kNone, kByCount, kByClockToo };
  const IterSaves iter_saves_;
  hooks::v1::CheckpointHookState state_;
  std::string last_path_;
  std::map<std::string, std::string> best_paths_;  // By name; all on the disk.
  std::map<std::string, io::RunCheckpoint> described_;  // By name.
  std::string run_uuid_;  // Known once something was loaded or saved.
  bool remains_ = false;  // There may be half deleted checkpoints.
  std::set<std::string> undeletable_;  // That was said.
  // RunContext::iter() when the newest was written: of one at the end of an
  // iteration it doesn't include that.
  int64_t saved_iter_ = -1;
  bool at_epochs_end_ = false;  // One of interval_minutes is due there.
  int64_t saved_nanos_ = 0;     // When interval_minutes began to count anew.
  // In a run of several ranks: when the first tells the others, and was asked.
  int64_t next_telling_iter_ = 0;
  int64_t told_iter_ = 0;
  int64_t told_nanos_ = 0;
  bool best_changed_ = false;  // And best_checkpoints doesn't say so yet.
  bool publish_ = false;       // Training has ended.
  bool failed_ = false;        // The call of the runner that goes on.
  // Of the last validation, and how many iterations its weights had.
  Metrics metrics_;
  int64_t metrics_iter_ = -1;
  // Best ones that were asked for and aren't on the disk.
  struct BeingSaved {
    std::string name;
    std::string message;  // For the log, once it is.
  };
  std::map<int64_t, BeingSaved> being_saved_;  // By the save's number.
  // With also_write: what is being written, from before it to after it.
  std::optional<io::CheckpointContents> contents_;
  std::set<std::string> copy_warnings_;  // That were said, without numbers.
};

}  // namespace grapnel

#endif  // GRAPNEL_HOOKS_CHECKPOINT_CHECKPOINT_HOOK_H_
