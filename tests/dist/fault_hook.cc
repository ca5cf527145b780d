#include <limits>
#include <memory>

#include "absl/memory/memory.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/data/sample.h"
#include "grapnel/dist/process_group.h"
#include "grapnel/runner/hook.h"
#include "grapnel/runner/hook_registry.h"
#include "grapnel/tests/dist/fault_hook.pb.h"

namespace grapnel {
namespace {

class FaultHook final : public Hook {
 public:
  using Config = grapnel::testing::FaultHookConfig;

  static absl::StatusOr<std::unique_ptr<FaultHook>> Create(
      const Config& config) {
    if (config.fault() == Config::FAULT_UNSPECIFIED || !config.has_rank() ||
        config.iter() < 1) {
      return absl::InvalidArgumentError("fault, rank and iter: must be set");
    }
    return absl::WrapUnique(new FaultHook(config));
  }

  absl::string_view name() const override { return "fault"; }

  absl::Status BeforeTrainIter(RunContext& run, const IterInfo& info) override {
    if (!IsDue(run) || config_.fault() != Config::INVALID_LOSS) {
      return absl::OkStatus();
    }
    return CatchAsStatus([&] {
      info.batch->inputs.fill_(std::numeric_limits<float>::quiet_NaN());
      return absl::OkStatus();
    });
  }

  absl::Status AfterTrainIter(RunContext& run, const IterInfo&,
                              const LogVars&) override {
    if (!IsDue(run)) return absl::OkStatus();
    if (config_.fault() == Config::FAIL) {
      return absl::DataLossError("the dog ate it");
    }
    if (config_.fault() == Config::STOP) run.RequestStop("it is enough");
    return absl::OkStatus();
  }

 private:
  explicit FaultHook(const Config& config) : config_(config) {}

  bool IsDue(RunContext& run) const {
    return run.process_group().rank() == config_.rank() &&
           run.iter() + 1 == config_.iter();
  }

  const Config config_;
};

GRAPNEL_REGISTER_HOOK(FaultHook);

}  // namespace
}  // namespace grapnel
