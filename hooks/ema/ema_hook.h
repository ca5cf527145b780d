#ifndef GRAPNEL_HOOKS_EMA_EMA_HOOK_H_
#define GRAPNEL_HOOKS_EMA_EMA_HOOK_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/hooks/ema/ema_hook.pb.h"
#include "grapnel/optim/averaging/averaged_model.h"
#include "grapnel/runner/hook.h"

namespace grapnel {

// Keeps an average of the model's weights and evaluates it in place of them.
// The average is made once, at Setup; a later Val() or Test() of the same
// runner evaluates what training left.
//
// From BeforeValEpoch (or BeforeTestEpoch, BeforeExport) to AfterValEpoch the
// model has the averaged weights, from this hook's priority on; an error or an
// interrupt gives it back its own before anything is saved.
class EMAHook final : public Hook {
 public:
  using Config = hooks::v1::EMAHookConfig;

  static absl::StatusOr<std::unique_ptr<EMAHook>> Create(const Config& config);

  absl::string_view name() const override { return name_; }
  google::protobuf::Message* mutable_state() override { return &state_; }
  absl::Status evaluated_weights(TensorMap* weights) override;

  absl::Status Setup(RunContext& run) override;
  absl::Status BeforeRun(RunContext& run) override;
  absl::Status AfterRestore(RunContext& run,
                            const io::CheckpointContents& checkpoint) override;
  absl::Status BeforeSaveCheckpoint(
      RunContext& run, io::CheckpointContents& checkpoint) override;
  absl::Status BeforeTrain(RunContext& run) override;
  absl::Status AfterTrainIter(RunContext& run, const IterInfo& info,
                              const LogVars& log_vars) override;
  absl::Status BeforeValEpoch(RunContext& run) override { return Enter(); }
  absl::Status AfterValEpoch(RunContext& run, const Metrics&) override {
    return Leave();
  }
  absl::Status BeforeTestEpoch(RunContext& run) override { return Enter(); }
  absl::Status AfterTestEpoch(RunContext& run, const Metrics&) override {
    return Leave();
  }
  absl::Status BeforeExport(RunContext& run) override { return Enter(); }
  absl::Status AfterExport(RunContext& run) override { return Leave(); }
  void OnError(RunContext& run, const absl::Status& error) override;

  // The averaged weights, from Setup on, also while the model has them: see
  // AveragedModel::State. Until the average begins they are the model's, and
  // share its storage where the average has its type and device. Only looks.
  absl::StatusOr<TensorMap> AveragedWeights() const;
  int64_t steps() const { return state_.steps(); }

 private:
  EMAHook(const Config& config, std::string name, AveragingOptions options);

  bool Started(const RunContext& run) const;

  absl::Status Enter();
  absl::Status Leave();

  const Config config_;
  const std::string name_;                   // Also the section's.
  std::optional<AveragingOptions> options_;  // Until Setup.
  std::unique_ptr<AveragedModel> average_;
  std::optional<AverageScope> scope_;
  hooks::v1::EMAHookState state_;

  bool evaluated_ = false;
  bool is_model_ = true;  // Nothing was averaged or loaded yet.
};

}  // namespace grapnel

#endif  // GRAPNEL_HOOKS_EMA_EMA_HOOK_H_
