#ifndef GRAPNEL_HOOKS_DIST_SAMPLER_SEED_DIST_SAMPLER_SEED_HOOK_H_
#define GRAPNEL_HOOKS_DIST_SAMPLER_SEED_DIST_SAMPLER_SEED_HOOK_H_

#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "grapnel/hooks/dist_sampler_seed/dist_sampler_seed_hook.pb.h"
#include "grapnel/runner/hook.h"

namespace grapnel {

// Gives every training epoch its own order: that of a generator seeded with
// seed + epoch, the same on every process and after every resume. Without this
// hook all epochs have the order of the first.
class DistSamplerSeedHook final : public Hook {
 public:
  using Config = hooks::v1::DistSamplerSeedHookConfig;

  static absl::StatusOr<std::unique_ptr<DistSamplerSeedHook>> Create(
      const Config& config);

  absl::string_view name() const override { return "dist_sampler_seed"; }

  absl::Status BeforeTrainEpoch(RunContext& run) override;

 private:
  DistSamplerSeedHook() = default;
};

}  // namespace grapnel

#endif  // GRAPNEL_HOOKS_DIST_SAMPLER_SEED_DIST_SAMPLER_SEED_HOOK_H_
