#include <cmath>
#include <memory>

#include "absl/memory/memory.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "grapnel/io/env.h"
#include "grapnel/models/log_vars.h"
#include "grapnel/runner/hook_registry.h"
#include "grapnel/runner/message_hub.h"
#include "hooks/check_loss_hook.pb.h"

namespace acme {

// Stops a run whose loss is no number. Tells how often it has looked, in the
// hub under "check_loss/looks".
class CheckLossHook final : public grapnel::Hook {
 public:
  using Config = CheckLossHookConfig;

  static absl::StatusOr<std::unique_ptr<CheckLossHook>> Create(
      const Config& config) {
    if (config.interval() < 1) {
      return absl::InvalidArgumentError(
          absl::StrCat("interval: must be >= 1, is ", config.interval()));
    }
    return absl::WrapUnique(new CheckLossHook(config));
  }

  absl::string_view name() const override { return "check_loss"; }
  google::protobuf::Message* mutable_state() override { return &state_; }

  absl::Status AfterTrainIter(grapnel::RunContext& run,
                              const grapnel::IterInfo& info,
                              const grapnel::LogVars& log_vars) override {
    if (!grapnel::EveryN(run.iter() + 1, config_.interval())) {
      return absl::OkStatus();
    }
    state_.set_looks(state_.looks() + 1);
    run.message_hub().SetInfo("check_loss/looks", state_.looks());
    for (const grapnel::NamedTensor& var : log_vars) {
      if (std::isfinite(var.tensor.item().toDouble())) continue;
      if (config_.has_report()) {
        const absl::Status status = grapnel::io::WriteFileAtomically(
            run.env(), grapnel::io::JoinPath(run.base_dir(), config_.report()),
            absl::StrCat(var.name, " at iteration ", run.iter() + 1, "\n"));
        if (!status.ok()) return status;
      }
      return absl::OutOfRangeError(absl::StrCat(var.name, " is not finite"));
    }
    return absl::OkStatus();
  }

 private:
  explicit CheckLossHook(const Config& config) : config_(config) {}

  const Config config_;
  CheckLossHookState state_;
};

GRAPNEL_REGISTER_HOOK(CheckLossHook);

}  // namespace acme
