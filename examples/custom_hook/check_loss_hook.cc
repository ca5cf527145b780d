#include <cmath>
#include <memory>

#include "absl/memory/memory.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "grapnel/examples/custom_hook/check_loss_hook.pb.h"
#include "grapnel/models/log_vars.h"
#include "grapnel/runner/hook_registry.h"

class CheckLossHook final : public grapnel::Hook {
 public:
  using Config = examples::CheckLossHookConfig;

  static absl::StatusOr<std::unique_ptr<CheckLossHook>> Create(
      const Config& config) {
    if (config.interval() < 1) {
      return absl::InvalidArgumentError("interval: must be >= 1");
    }
    return absl::WrapUnique(new CheckLossHook(config));
  }

  absl::string_view name() const override { return "check_loss"; }

  absl::Status AfterTrainIter(grapnel::RunContext& run,
                              const grapnel::IterInfo& info,
                              const grapnel::LogVars& log_vars) override {
    if (!grapnel::EveryN(run.iter() + 1, config_.interval())) {
      return absl::OkStatus();
    }
    for (const grapnel::NamedTensor& var : log_vars) {
      if (!std::isfinite(var.tensor.item<double>())) {
        return absl::OutOfRangeError(absl::StrCat(var.name, " is not finite"));
      }
    }
    return absl::OkStatus();
  }

 private:
  explicit CheckLossHook(const Config& config) : config_(config) {}
  const Config config_;
};

GRAPNEL_REGISTER_HOOK(CheckLossHook);
