#include <csignal>
#include <memory>

#include "absl/memory/memory.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "grapnel/runner/hook.h"
#include "grapnel/runner/hook_registry.h"
#include "grapnel/tests/e2e/kill_hook.pb.h"

namespace grapnel {
namespace {

class KillHook final : public Hook {
 public:
  using Config = grapnel::testing::KillHookConfig;

  static absl::StatusOr<std::unique_ptr<KillHook>> Create(
      const Config& config) {
    if (config.point() == Config::POINT_UNSPECIFIED || config.count() < 1) {
      return absl::InvalidArgumentError("point and count: must be set");
    }
    return absl::WrapUnique(new KillHook(config));
  }

  absl::string_view name() const override { return "kill"; }
  Priority priority() const override { return Priority::kHighest; }

  absl::Status AfterTrainIter(RunContext&, const IterInfo&,
                              const LogVars&) override {
    return Count(Config::AFTER_TRAIN_ITER);
  }
  absl::Status AfterValIter(RunContext&, const IterInfo&,
                            const Predictions&) override {
    return Count(Config::AFTER_VAL_ITER);
  }

 private:
  explicit KillHook(const Config& config) : config_(config) {}

  absl::Status Count(Config::Point point) {
    if (point == config_.point() && ++count_ == config_.count()) {
      raise(SIGKILL);
    }
    return absl::OkStatus();
  }

  const Config config_;
  int64_t count_ = 0;
};

GRAPNEL_REGISTER_HOOK(KillHook);

}  // namespace
}  // namespace grapnel
