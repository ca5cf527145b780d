#include "grapnel/hooks/check_invalid_loss/check_invalid_loss_hook.h"

#include <cmath>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "absl/memory/memory.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "grapnel/base/check_field.h"
#include "grapnel/base/read_scalars.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/loggers/run_log.h"
#include "grapnel/models/log_vars.h"
#include "grapnel/optim/optim_wrapper.h"
#include "grapnel/runner/hook_registry.h"

namespace grapnel {
namespace {

using Config = CheckInvalidLossHook::Config;

constexpr int64_t kDefaultInterval = 50;
constexpr int64_t kDefaultMaxSkips = 100;

// The sum of the others, in a model with the TrainStep of Model.
constexpr char kTotal[] = "loss";

absl::StatusOr<Config> Complete(Config config) {
  if (!config.has_action()) config.set_action(Config::RAISE);
  const bool skip = config.action() == Config::SKIP;
  if (!skip && config.action() != Config::RAISE &&
      config.action() != Config::STOP) {
    return absl::InvalidArgumentError(
        absl::StrCat("action: must be RAISE, STOP or SKIP, is ",
                     static_cast<int>(config.action())));
  }
  if (!config.has_interval()) config.set_interval(skip ? 1 : kDefaultInterval);
  GRAPNEL_RETURN_IF_ERROR(CheckField(config.interval() >= 1, "interval", ">= 1",
                                     config.interval()));
  if (config.has_max_skips() && !skip) {
    return absl::InvalidArgumentError("max_skips: is for the action SKIP");
  }
  if (!config.has_max_skips()) config.set_max_skips(kDefaultMaxSkips);
  GRAPNEL_RETURN_IF_ERROR(CheckField(config.max_skips() >= 1, "max_skips",
                                     ">= 1", config.max_skips()));
  return config;
}

// "loss_cls is nan, loss_box is inf", or "" if all losses are finite. Waits for
// the device.
absl::StatusOr<std::string> InvalidLosses(const LogVars& log_vars) {
  std::vector<std::string> invalid;
  std::string total;
  GRAPNEL_RETURN_IF_ERROR(CatchAsStatus([&] {
    std::vector<std::string> names;
    std::vector<at::Tensor> losses;
    for (const NamedTensor& loss : log_vars) {
      if (!absl::StrContains(loss.name, kTotal)) continue;
      names.push_back(loss.name);
      losses.push_back(loss.tensor);
    }
    const std::vector<double> values = ReadScalars(losses);
    for (size_t i = 0; i < values.size(); ++i) {
      if (std::isfinite(values[i])) continue;
      std::string text = absl::StrCat(names[i], " is ", values[i]);
      if (names[i] == kTotal) {
        total = std::move(text);
      } else {
        invalid.push_back(std::move(text));
      }
    }
    return absl::OkStatus();
  }));
  // The total only says what its parts say.
  return invalid.empty() ? total : absl::StrJoin(invalid, ", ");
}

}  // namespace

absl::StatusOr<std::unique_ptr<CheckInvalidLossHook>>
CheckInvalidLossHook::Create(const Config& config) {
  GRAPNEL_ASSIGN_OR_RETURN(const Config complete, Complete(config));
  return absl::WrapUnique(new CheckInvalidLossHook(complete));
}

absl::Status CheckInvalidLossHook::BeforeTrain(RunContext& run) {
  // A resume may have dropped the window's gradients.
  if (run.optim_wrapper()->accumulated() == 0) {
    state_.set_window_is_invalid(false);
  }
  return absl::OkStatus();
}

absl::Status CheckInvalidLossHook::BeforeOptimizerStep(RunContext& run) {
  if (IsDue(run)) GRAPNEL_RETURN_IF_ERROR(Check(run));
  if (!state_.window_is_invalid()) return absl::OkStatus();
  if (config_.action() == Config::SKIP &&
      state_.skips() >= config_.max_skips()) {
    return absl::OutOfRangeError(
        absl::StrCat("max_skips: ", state_.skips(),
                     " steps in a row were left out for invalid losses, and "
                     "the next one would be"));
  }
  state_.set_skips(state_.skips() + 1);
  run.optim_wrapper()->SkipStep();
  return absl::OkStatus();
}

absl::Status CheckInvalidLossHook::AfterOptimizerStep(
    RunContext& run, const StepResult& result) {
  if (!result.stepped) return absl::OkStatus();
  stepped_iter_ = run.iter();
  state_.set_skips(0);
  return absl::OkStatus();
}

absl::Status CheckInvalidLossHook::AfterTrainIter(RunContext& run,
                                                  const IterInfo&,
                                                  const LogVars& log_vars) {
  if (IsDue(run) &&
      (checked_iter_ != run.iter() || checked_losses_ != log_vars.size())) {
    GRAPNEL_RETURN_IF_ERROR(Check(run));
    if (state_.window_is_invalid() && config_.action() == Config::SKIP &&
        stepped_iter_ == run.iter()) {
      return absl::FailedPreconditionError(
          "action: the step can't be left out: the model logs its losses only "
          "after it");
    }
  }
  // With several optimizers that accumulate, once all windows have ended.
  if (state_.window_is_invalid() && run.optim_wrapper()->accumulated() == 0) {
    state_.set_window_is_invalid(false);
  }
  return absl::OkStatus();
}

absl::Status CheckInvalidLossHook::Check(RunContext& run) {
  checked_iter_ = run.iter();
  checked_losses_ = run.log_vars().size();
  GRAPNEL_ASSIGN_OR_RETURN(const std::string invalid,
                           InvalidLosses(run.log_vars()));
  if (invalid.empty()) return absl::OkStatus();
  const std::string what =
      absl::StrCat(invalid, " at iteration ", run.iter() + 1);
  if (config_.action() == Config::RAISE) return absl::OutOfRangeError(what);
  state_.set_window_is_invalid(true);
  if (config_.action() == Config::SKIP) {
    run.log().Warning(absl::StrCat(what, ": the optimizer's step is left out"));
  } else {
    stopping_ = true;
    run.RequestStop(what);
  }
  return absl::OkStatus();
}

GRAPNEL_REGISTER_HOOK(CheckInvalidLossHook);

}  // namespace grapnel
