#include "grapnel/hooks/param_scheduler/param_scheduler_hook.h"

#include "absl/memory/memory.h"
#include "grapnel/optim/param_scheduler.h"
#include "grapnel/runner/hook_registry.h"

namespace grapnel {

absl::StatusOr<std::unique_ptr<ParamSchedulerHook>> ParamSchedulerHook::Create(
    const Config&) {
  return absl::WrapUnique(new ParamSchedulerHook());
}

absl::Status ParamSchedulerHook::Setup(RunContext& run) {
  for (const auto& scheduler : run.param_schedulers()) {
    (scheduler->by_epoch() ? by_epoch_ : by_iter_).push_back(scheduler.get());
  }
  return absl::OkStatus();
}

absl::Status ParamSchedulerHook::AfterTrainIter(RunContext&, const IterInfo&,
                                                const LogVars&) {
  for (ParamScheduler* scheduler : by_iter_) scheduler->Step();
  return absl::OkStatus();
}

absl::Status ParamSchedulerHook::AfterTrainEpoch(RunContext&) {
  for (ParamScheduler* scheduler : by_epoch_) scheduler->Step();
  return absl::OkStatus();
}

GRAPNEL_REGISTER_HOOK(ParamSchedulerHook);

}  // namespace grapnel
