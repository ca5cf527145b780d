#ifndef GRAPNEL_HOOKS_CHECK_INVALID_LOSS_CHECK_INVALID_LOSS_HOOK_H_
#define GRAPNEL_HOOKS_CHECK_INVALID_LOSS_CHECK_INVALID_LOSS_HOOK_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "grapnel/hooks/check_invalid_loss/check_invalid_loss_hook.pb.h"
#include "grapnel/runner/hook.h"

namespace grapnel {

// Ends training, or leaves the step out, when a loss is NaN or infinite.
//
// It checks the losses of the iterations that its interval names; between them
// it costs nothing. The check is before the optimizer's step, so that no
// parameter ever sees such a loss; of an iteration that only accumulates, and
// of a model whose own TrainStep logs its losses after the step, it is at the
// iteration's end. The latter can't be skipped, which is an error.
class CheckInvalidLossHook final : public Hook {
 public:
  using Config = hooks::v1::CheckInvalidLossHookConfig;

  // kInvalidArgument, naming the field, for a config that breaks a rule stated
  // in check_invalid_loss_hook.proto.
  static absl::StatusOr<std::unique_ptr<CheckInvalidLossHook>> Create(
      const Config& config);

  absl::string_view name() const override { return "check_invalid_loss"; }

  google::protobuf::Message* mutable_state() override { return &state_; }

  absl::Status BeforeTrain(RunContext& run) override;

  // RAISE: kOutOfRange, "loss_cls is nan at iteration 12".
  absl::Status BeforeOptimizerStep(RunContext& run) override;
  absl::Status AfterOptimizerStep(RunContext& run,
                                  const StepResult& result) override;
  absl::Status AfterTrainIter(RunContext& run, const IterInfo& info,
                              const LogVars& log_vars) override;

 private:
  explicit CheckInvalidLossHook(const Config& config) : config_(config) {}

  bool IsDue(const RunContext& run) const {
    return stopping_ || EveryN(run.iter() + 1, config_.interval());
  }

  // Looks at the losses that there are, and does what is configured if one
  // isn't finite.
  absl::Status Check(RunContext& run);

  const Config config_;  // With defaults filled in.
  hooks::v1::CheckInvalidLossHookState state_;
  bool stopping_ = false;      // Every iteration is checked from now on.
  int64_t checked_iter_ = -1;  // The last iteration that was looked at, and
  size_t checked_losses_ = 0;  // how many log variables it had then.
  int64_t stepped_iter_ = -1;  // The last iteration that made a step.
};

}  // namespace grapnel

#endif  // GRAPNEL_HOOKS_CHECK_INVALID_LOSS_CHECK_INVALID_LOSS_HOOK_H_
