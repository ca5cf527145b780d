#include "grapnel/hooks/dist_sampler_seed/dist_sampler_seed_hook.h"

#include "absl/memory/memory.h"
#include "grapnel/runner/hook_registry.h"

namespace grapnel {

absl::StatusOr<std::unique_ptr<DistSamplerSeedHook>>
DistSamplerSeedHook::Create(const Config&) {
  return absl::WrapUnique(new DistSamplerSeedHook());
}

absl::Status DistSamplerSeedHook::BeforeTrainEpoch(RunContext& run) {
  run.SetSamplerEpoch(run.epoch());
  return absl::OkStatus();
}

GRAPNEL_REGISTER_HOOK(DistSamplerSeedHook);

}  // namespace grapnel
