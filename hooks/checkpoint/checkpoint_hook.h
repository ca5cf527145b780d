#ifndef GRAPNEL_HOOKS_CHECKPOINT_CHECKPOINT_HOOK_H_
#define GRAPNEL_HOOKS_CHECKPOINT_CHECKPOINT_HOOK_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "grapnel/hooks/checkpoint/checkpoint_hook.pb.h"
#include "grapnel/runner/hook.h"

namespace grapnel {

// Asks for checkpoints, epoch_5 or iter_500, at intervals and at the end of
// training, and deletes old ones when there are too many.
//
// An old checkpoint is deleted only when a newer one is on the disk, and only
// if this run, or one that it continues, made it.
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

  absl::Status BeforeTrain(RunContext& run) override;
  absl::Status AfterTrainIter(RunContext& run, const IterInfo& info,
                              const LogVars& log_vars) override;
  absl::Status AfterTrainEpoch(RunContext& run) override;
  absl::Status AfterTrain(RunContext& run) override;
  absl::Status AfterSaveCheckpoint(RunContext& run,
                                   const SavedCheckpoint& saved) override;

 private:
  explicit CheckpointHook(const Config& config);

  // Asks for the checkpoint of `count` completed epochs or iterations.
  absl::Status Save(RunContext& run, int64_t count);
  bool IsKept(const std::string& name) const;
  absl::Status DeleteOld(RunContext& run);

  const Config config_;  // With defaults filled in.
  hooks::v1::CheckpointHookState state_;
  int64_t last_saved_ = -1;  // The count of the newest one.
  bool took_over_ = false;   // What the run was resumed from is among them.
};

}  // namespace grapnel

#endif  // GRAPNEL_HOOKS_CHECKPOINT_CHECKPOINT_HOOK_H_
