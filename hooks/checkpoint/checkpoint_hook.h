#ifndef GRAPNEL_HOOKS_CHECKPOINT_CHECKPOINT_HOOK_H_
#define GRAPNEL_HOOKS_CHECKPOINT_CHECKPOINT_HOOK_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "grapnel/hooks/checkpoint/checkpoint_hook.pb.h"
#include "grapnel/models/metric_rule.h"
#include "grapnel/models/metric_value.h"
#include "grapnel/runner/hook.h"

namespace grapnel {

// Asks for checkpoints, epoch_5 or iter_500, at intervals and at the end of
// training, and deletes old ones when there are too many. After a validation in
// training also for best_<metric>_epoch_5, if it was better than before.
//
// An old checkpoint is deleted only when a newer one is on the disk, and only
// if its manifest says that this run, or one that it continues, made it.
//
// The scores to beat, and whose checkpoints to delete then, are in every
// checkpoint and, from the moment a new best is written, in the file
// work_dir/best_checkpoints: a run that resumes from an older checkpoint knows
// them.
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

  absl::Status AfterLoadCheckpoint(RunContext& run,
                                   io::CheckpointContents& contents) override;
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

 private:
  // A metric of save_best.
  struct Indicator {
    std::string name;
    MetricRule rule;
    std::string warning;  // What was guessed, to be said once; "" if nothing.
  };

  static absl::StatusOr<Indicator> MakeIndicator(const Config& config,
                                                 const std::string& name,
                                                 absl::string_view rule);

  CheckpointHook(const Config& config, std::vector<Indicator> indicators);

  // Makes what the checkpoint that the run resumes from says its own, as far as
  // it is about this folder.
  void TakeOver(RunContext& run);
  // Corrects the best ones by what is on the disk.
  void CheckBest(RunContext& run);
  // The best first, after scores were corrected.
  void SortBest();
  // Which metric "auto" was before this run, if that is known.
  absl::Status FindAuto(RunContext& run);
  absl::Status SetAuto(RunContext& run, const std::string& name);

  // What checkpoints are named after, at this point of the run.
  int64_t CountOf(const RunContext& run) const;
  // Asks for the checkpoint of `count` completed epochs or iterations.
  absl::Status Save(RunContext& run, int64_t count);
  std::string NameOf(int64_t count) const;
  bool IsKept(const std::string& name) const;
  absl::Status DeleteOld(RunContext& run);

  // Takes a score in, at its place, unless it is not among the best. 0-based.
  std::optional<int> AddBest(const Indicator& indicator, double score,
                             const std::string& name);
  absl::Status DeleteSurplusBest(RunContext& run);
  absl::Status WriteBest(RunContext& run);

  // Where the checkpoint of that name is.
  std::string PathOf(RunContext& run, const std::string& name) const;
  // Deletes a checkpoint of this run. OK if it is gone or another run's.
  absl::Status Delete(RunContext& run, const std::string& name);

  absl::Status Publish(RunContext& run, const std::string& name);

  const Config config_;  // With defaults filled in.
  const bool auto_;      // save_best is "auto".
  // Empty with "auto" until the first validation.
  std::vector<Indicator> indicators_;
  hooks::v1::CheckpointHookState state_;
  std::string run_uuid_;       // Known once something was loaded or saved.
  std::string dir_;            // Where checkpoints go.
  int64_t last_saved_ = -1;    // The count of the newest one.
  bool took_over_ = false;     // What the run was resumed from is among them.
  bool best_changed_ = false;  // And best_checkpoints doesn't say so yet.
  bool publish_ = false;       // Training has ended.
  // Of the last validation, and how many iterations its weights had.
  Metrics metrics_;
  int64_t metrics_iter_ = -1;
  // Best ones being written: name, and what the log says then.
  std::vector<std::pair<std::string, std::string>> being_saved_;
};

}  // namespace grapnel

#endif  // GRAPNEL_HOOKS_CHECKPOINT_CHECKPOINT_HOOK_H_
