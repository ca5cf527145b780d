#ifndef GRAPNEL_HOOKS_RUNTIME_INFO_RUNTIME_INFO_HOOK_H_
#define GRAPNEL_HOOKS_RUNTIME_INFO_RUNTIME_INFO_HOOK_H_

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "grapnel/hooks/runtime_info/runtime_info_hook.pb.h"
#include "grapnel/runner/hook.h"
#include "grapnel/runner/message_hub.h"

namespace grapnel {

// Keeps the message hub up to date for everybody else.
//
// Facts: "experiment_name", "seed", "grapnel_version", "loop_stage" ("train",
// "val", "test", absent outside), "epoch", "iter", "max_epochs", "max_iters".
// Scalars: "train/lr" and what else the optimizer wrapper logs of its rates,
// before each iteration; "train/<name>" for each of the model's log variables
// after it; "val/<loss>" for each loss of a validation batch; "val/<name>" and
// "test/<name>" for each numeric metric.
class RuntimeInfoHook final : public Hook {
 public:
  using Config = hooks::v1::RuntimeInfoHookConfig;

  static absl::StatusOr<std::unique_ptr<RuntimeInfoHook>> Create(
      const Config& config);

  absl::string_view name() const override { return "runtime_info"; }
  Priority priority() const override { return Priority::kVeryHigh; }

  absl::Status Setup(RunContext& run) override;
  absl::Status BeforeRun(RunContext& run) override;
  absl::Status BeforeTrain(RunContext& run) override;
  absl::Status BeforeTrainEpoch(RunContext& run) override;
  absl::Status BeforeTrainIter(RunContext& run, const IterInfo& info) override;
  absl::Status AfterTrainIter(RunContext& run, const IterInfo& info,
                              const LogVars& log_vars) override;
  absl::Status AfterTrain(RunContext& run) override;
  absl::Status BeforeVal(RunContext& run) override;
  absl::Status AfterValIter(RunContext& run, const IterInfo& info,
                            const Predictions& predictions) override;
  absl::Status AfterValEpoch(RunContext& run, const Metrics& metrics) override;
  absl::Status AfterVal(RunContext& run) override;
  absl::Status BeforeTest(RunContext& run) override;
  absl::Status AfterTestEpoch(RunContext& run, const Metrics& metrics) override;
  absl::Status AfterTest(RunContext& run) override;

 private:
  RuntimeInfoHook() = default;

  std::optional<MessageHub::Info>* iter_ = nullptr;

  // Histories of the rates, and of the log variables by their position: models
  // give the same names in the same order every time.
  std::vector<std::pair<const double*, HistoryBuffer*>> rates_;
  std::vector<std::pair<std::string, HistoryBuffer*>> log_vars_;
};

}  // namespace grapnel

#endif  // GRAPNEL_HOOKS_RUNTIME_INFO_RUNTIME_INFO_HOOK_H_
