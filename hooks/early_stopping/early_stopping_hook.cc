#include "grapnel/hooks/early_stopping/early_stopping_hook.h"

#include <cmath>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "grapnel/base/check_field.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/suggestion.h"
#include "grapnel/loggers/run_log.h"
#include "grapnel/models/metric_rule.h"
#include "grapnel/runner/hook_registry.h"

namespace grapnel {
namespace {

using Config = EarlyStoppingHook::Config;

constexpr double kDefaultMinDelta = 0.1;
constexpr int64_t kDefaultPatience = 5;

Config WithDefaults(Config config) {
  if (!config.has_min_delta()) config.set_min_delta(kDefaultMinDelta);
  if (!config.has_check_finite()) config.set_check_finite(true);
  if (!config.has_patience()) config.set_patience(kDefaultPatience);
  return config;
}

absl::Status Validate(const Config& config) {
  if (config.monitor().empty()) {
    return absl::InvalidArgumentError("monitor: must be set");
  }
  GRAPNEL_RETURN_IF_ERROR(
      CheckField(std::isfinite(config.min_delta()) && config.min_delta() >= 0,
                 "min_delta", "finite and >= 0", config.min_delta()));
  GRAPNEL_RETURN_IF_ERROR(CheckField(config.patience() >= 0, "patience", ">= 0",
                                     config.patience()));
  return CheckField(std::isfinite(config.stopping_threshold()),
                    "stopping_threshold", "finite",
                    config.stopping_threshold());
}

absl::StatusOr<MetricRule> RuleOf(const Config& config) {
  if (config.has_rule()) {
    absl::StatusOr<MetricRule> rule = ParseMetricRule(config.rule());
    if (!rule.ok()) return WithContext(rule.status(), "rule");
    return rule;
  }
  const std::optional<InferredRule> inferred =
      InferMetricRule(config.monitor(), MetricKeys());
  if (inferred.has_value()) return inferred->rule;
  return absl::InvalidArgumentError(
      absl::StrCat("rule: must be set, \"greater\" or \"less\": the name \"",
                   config.monitor(), "\" doesn't tell which is better"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<EarlyStoppingHook>> EarlyStoppingHook::Create(
    const Config& config) {
  const Config complete = WithDefaults(config);
  GRAPNEL_RETURN_IF_ERROR(Validate(complete));
  GRAPNEL_ASSIGN_OR_RETURN(const MetricRule rule, RuleOf(complete));
  return absl::WrapUnique(new EarlyStoppingHook(complete, rule));
}

absl::Status EarlyStoppingHook::BeforeTrain(RunContext& run) {
  if (!config_.has_rule()) {
    run.log().Warning(absl::StrCat(
        "early_stopping: by its name, ", MetricRuleName(rule_), " values of \"",
        config_.monitor(), "\" are better; set rule to be sure"));
  }
  if (run.dataloader(Mode::kVal) == nullptr) {
    constexpr char kNever[] =
        "there is no validation, so the metric never comes";
    if (config_.strict()) {
      return absl::FailedPreconditionError(absl::StrCat("monitor: ", kNever));
    }
    run.log().Warning(absl::StrCat("early_stopping: ", kNever));
  }
  const std::string reason = ReasonToStop();
  if (!reason.empty()) run.RequestStop(reason);
  return absl::OkStatus();
}

absl::Status EarlyStoppingHook::AfterValEpoch(RunContext& run,
                                              const Metrics& metrics) {
  if (!run.training()) return absl::OkStatus();
  std::vector<std::string> names;
  for (const auto& [name, value] : metrics) {
    if (name != config_.monitor()) {
      names.push_back(name);
      continue;
    }
    const auto number = AsNumber(value);
    if (!number.has_value()) {
      return absl::InvalidArgumentError(
          absl::StrCat("monitor: \"", name, "\" is a text and no number"));
    }
    Observe(*number);
    const std::string reason = ReasonToStop();
    if (!reason.empty()) run.RequestStop(reason);
    return absl::OkStatus();
  }
  const std::string missing = absl::StrCat(
      "monitor: there is no metric \"", config_.monitor(), "\" among ",
      absl::StrJoin(names, ", "), DidYouMean(config_.monitor(), names));
  if (config_.strict()) return absl::NotFoundError(missing);
  run.log().Warning(absl::StrCat("early_stopping: ", missing));
  return absl::OkStatus();
}

void EarlyStoppingHook::Observe(double value) {
  state_.set_last(value);
  if (config_.check_finite() && !std::isfinite(value)) return;
  if (IsGoodEnough(value)) {
    state_.set_best(value);
    return;
  }
  if (std::isnan(value)) {
    state_.set_wait(state_.wait() + 1);
    return;
  }
  // In upstream's arithmetic: a change of exactly min_delta is enough.
  const double delta = rule_ == MetricRule::kGreater ? config_.min_delta()
                                                     : -config_.min_delta();
  if (!state_.has_best() || (IsBetter(rule_, value, state_.best()) &&
                             !IsBetter(rule_, state_.best() + delta, value))) {
    state_.set_best(value);
    state_.set_wait(0);
  } else {
    state_.set_wait(state_.wait() + 1);
  }
}

bool EarlyStoppingHook::IsGoodEnough(double value) const {
  return config_.has_stopping_threshold() && std::isfinite(value) &&
         IsBetter(rule_, value, config_.stopping_threshold());
}

std::string EarlyStoppingHook::ReasonToStop() const {
  if (!state_.has_last()) return "";
  if (config_.check_finite() && !std::isfinite(state_.last())) {
    return absl::StrCat(config_.monitor(), " is ", state_.last());
  }
  if (IsGoodEnough(state_.last())) {
    return absl::StrCat(config_.monitor(), " is ", state_.last(),
                        ", better than ", config_.stopping_threshold());
  }
  if (state_.wait() > 0 && state_.wait() >= config_.patience()) {
    return absl::StrCat(
        config_.monitor(), " has not improved",
        state_.has_best() ? absl::StrCat(" on ", state_.best()) : "", " for ",
        state_.wait(), state_.wait() == 1 ? " validation" : " validations");
  }
  return "";
}

GRAPNEL_REGISTER_HOOK(EarlyStoppingHook);

}  // namespace grapnel
