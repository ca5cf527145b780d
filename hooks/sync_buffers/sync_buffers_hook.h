#ifndef GRAPNEL_HOOKS_SYNC_BUFFERS_SYNC_BUFFERS_HOOK_H_
#define GRAPNEL_HOOKS_SYNC_BUFFERS_SYNC_BUFFERS_HOOK_H_

#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "grapnel/hooks/sync_buffers/sync_buffers_hook.pb.h"
#include "grapnel/runner/hook.h"

namespace grapnel {

// Averages the model's buffers over the ranks of the run's process group, once
// between training and each validation, so that every rank validates, and rank
// 0 saves, the same model. Every rank needs the hook, and buffers of the same
// shapes and types in the same order.
class SyncBuffersHook final : public Hook {
 public:
  using Config = hooks::v1::SyncBuffersHookConfig;

  static absl::StatusOr<std::unique_ptr<SyncBuffersHook>> Create(
      const Config& config);

  absl::string_view name() const override { return "sync_buffers"; }

  // Averaging twice could round twice: a resumed run must know.
  google::protobuf::Message* mutable_state() override { return &state_; }

  absl::Status BeforeTrainEpoch(RunContext& run) override;
  absl::Status AfterTrainEpoch(RunContext& run) override;
  absl::Status BeforeValEpoch(RunContext& run) override;

 private:
  SyncBuffersHook() = default;

  hooks::v1::SyncBuffersHookState state_;
};

}  // namespace grapnel

#endif  // GRAPNEL_HOOKS_SYNC_BUFFERS_SYNC_BUFFERS_HOOK_H_
