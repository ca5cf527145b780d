#include <memory>
#include <string>

#include "absl/memory/memory.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/dist/process_group.h"
#include "grapnel/io/safetensors.h"
#include "grapnel/models/model.h"
#include "grapnel/runner/hook.h"
#include "grapnel/runner/hook_registry.h"
#include "grapnel/tests/dist/state_dump_hook.pb.h"

namespace grapnel {
namespace {

class StateDumpHook final : public Hook {
 public:
  using Config = grapnel::testing::StateDumpHookConfig;

  static absl::StatusOr<std::unique_ptr<StateDumpHook>> Create(
      const Config& config) {
    if (config.dir().empty()) {
      return absl::InvalidArgumentError("dir: must be set");
    }
    return absl::WrapUnique(new StateDumpHook(config));
  }

  absl::string_view name() const override { return "state_dump"; }
  // Behind those that average weights and synchronize buffers.
  Priority priority() const override { return Priority::kLowest; }

  absl::Status BeforeValEpoch(RunContext& run) override {
    GRAPNEL_ASSIGN_OR_RETURN(const TensorMap state, ModelState(run.model()));
    const std::string path =
        absl::StrCat(config_.dir(), "/iter_", run.iter(), ".rank",
                     run.process_group().rank(), ".safetensors");
    return io::WriteSafetensors(run.env(), path, state).status();
  }

 private:
  explicit StateDumpHook(const Config& config) : config_(config) {}

  const Config config_;
};

GRAPNEL_REGISTER_HOOK(StateDumpHook);

}  // namespace
}  // namespace grapnel
