#include "grapnel/hooks/param_scheduler/param_scheduler_hook.h"

#include <cstdint>
#include <string>
#include <variant>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/loggers/run_log.h"
#include "grapnel/optim/param_scheduler.h"
#include "grapnel/runner/hook_registry.h"

namespace grapnel {
namespace {

absl::StatusOr<double> FindNumber(const Metrics& metrics,
                                  const std::string& name) {
  for (const auto& [metric, value] : metrics) {
    if (metric != name) continue;
    if (const auto number = AsNumber(value)) return *number;
    return absl::InvalidArgumentError(
        absl::StrCat("the metric \"", name, "\" is a text: \"",
                     std::get<std::string>(value), "\""));
  }
  const std::string names =
      absl::StrJoin(metrics, ", ", [](std::string* out, const auto& metric) {
        absl::StrAppend(out, metric.first);
      });
  return absl::NotFoundError(absl::StrCat("the validation gave no metric \"",
                                          name, "\", it gave ",
                                          names.empty() ? "none" : names));
}

}  // namespace

absl::StatusOr<std::unique_ptr<ParamSchedulerHook>> ParamSchedulerHook::Create(
    const Config&) {
  return absl::WrapUnique(new ParamSchedulerHook());
}

absl::Status ParamSchedulerHook::Setup(RunContext& run) {
  for (const auto& scheduler : run.param_schedulers()) {
    (scheduler->by_epoch() ? by_epoch_ : by_iter_).push_back(scheduler.get());
    if (scheduler->monitor() == nullptr) continue;
    by_metric_.push_back(scheduler.get());
    if (run.dataloader(Mode::kVal) == nullptr) {
      run.log().Warning(absl::StrCat(
          "param_scheduler: one waits for the metric \"", *scheduler->monitor(),
          "\" of a validation, and there is no val_dataloader: it will never "
          "move ",
          scheduler->param_name()));
    }
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

absl::Status ParamSchedulerHook::AfterValEpoch(RunContext& run,
                                               const Metrics& metrics) {
  if (!run.training()) return absl::OkStatus();
  for (ParamScheduler* scheduler : by_metric_) {
    GRAPNEL_ASSIGN_OR_RETURN(const double value,
                             FindNumber(metrics, *scheduler->monitor()));
    scheduler->StepMetric(value, run.iter());
  }
  return absl::OkStatus();
}

GRAPNEL_REGISTER_HOOK(ParamSchedulerHook);

}  // namespace grapnel
