#include "grapnel/optim/paramwise.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "grapnel/base/check_field.h"
#include "grapnel/base/status_macros.h"
#include "re2/re2.h"

namespace grapnel {
namespace {

using ::grapnel::optim::v1::ParamwiseConfig;

struct Multipliers {
  double lr = 1;
  double decay = 1;
};

absl::StatusOr<double> ReadMultiplier(bool is_set, double value,
                                      absl::string_view field) {
  if (!is_set) return 1.0;
  GRAPNEL_RETURN_IF_ERROR(CheckField(std::isfinite(value) && value >= 0, field,
                                     "finite and >= 0", value));
  return value;
}

class Paramwise {
 public:
  static absl::StatusOr<Paramwise> Create(const ParamwiseConfig& config) {
    Paramwise paramwise;
    for (int i = 0; i < config.rules_size(); ++i) {
      absl::StatusOr<Rule> rule = MakeRule(config.rules(i));
      if (!rule.ok()) {
        return WithContext(std::move(rule).status(),
                           absl::StrCat("rules[", i, "]"));
      }
      paramwise.rules_.push_back(*std::move(rule));
    }
    GRAPNEL_ASSIGN_OR_RETURN(
        paramwise.bias_.lr,
        ReadMultiplier(config.has_bias_lr_mult(), config.bias_lr_mult(),
                       "bias_lr_mult"));
    GRAPNEL_ASSIGN_OR_RETURN(
        paramwise.bias_.decay,
        ReadMultiplier(config.has_bias_decay_mult(), config.bias_decay_mult(),
                       "bias_decay_mult"));
    GRAPNEL_ASSIGN_OR_RETURN(
        paramwise.norm_.decay,
        ReadMultiplier(config.has_norm_decay_mult(), config.norm_decay_mult(),
                       "norm_decay_mult"));
    return paramwise;
  }

  Multipliers Of(const NamedTensor& param) {
    const Multipliers* found = nullptr;
    for (Rule& rule : rules_) {
      if (!RE2::PartialMatch(param.name, *rule.pattern)) continue;
      rule.matched = true;
      if (found == nullptr) found = &rule.multipliers;
    }
    if (found != nullptr) return *found;
    if (absl::EndsWith(param.name, "bias")) return bias_;
    if (param.tensor.dim() == 1) return norm_;
    return {};
  }

  // After Of() has seen all parameters.
  absl::Status CheckAllMatched() const {
    for (size_t i = 0; i < rules_.size(); ++i) {
      if (!rules_[i].matched) {
        return absl::InvalidArgumentError(absl::StrCat(
            "rules[", i, "]: pattern: \"", rules_[i].pattern->pattern(),
            "\" matches no parameter"));
      }
    }
    return absl::OkStatus();
  }

 private:
  struct Rule {
    std::unique_ptr<RE2> pattern;
    Multipliers multipliers;
    bool matched = false;
  };

  static absl::StatusOr<Rule> MakeRule(const ParamwiseConfig::Rule& config) {
    if (config.pattern().empty()) {
      return absl::InvalidArgumentError("pattern: must be set");
    }
    Rule rule;
    rule.pattern = std::make_unique<RE2>(config.pattern(), RE2::Quiet);
    if (!rule.pattern->ok()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "pattern: \"", config.pattern(), "\": ", rule.pattern->error()));
    }
    GRAPNEL_ASSIGN_OR_RETURN(
        rule.multipliers.lr,
        ReadMultiplier(config.has_lr_mult(), config.lr_mult(), "lr_mult"));
    GRAPNEL_ASSIGN_OR_RETURN(rule.multipliers.decay,
                             ReadMultiplier(config.has_decay_mult(),
                                            config.decay_mult(), "decay_mult"));
    return rule;
  }

  std::vector<Rule> rules_;
  Multipliers bias_;
  Multipliers norm_;
};

}  // namespace

absl::StatusOr<std::vector<ParamGroup>> MakeParamGroups(
    const ParamwiseConfig& config, const std::vector<NamedTensor>& params) {
  std::vector<ParamGroup> groups;
  absl::StatusOr<Paramwise> paramwise = Paramwise::Create(config);
  if (!paramwise.ok()) {
    return WithContext(std::move(paramwise).status(), "paramwise_cfg");
  }
  for (const NamedTensor& param : params) {
    if (!param.tensor.defined()) {
      return absl::InvalidArgumentError(
          absl::StrCat("parameter \"", param.name, "\": is undefined"));
    }
    // A rule may be about a part that is frozen for now.
    const Multipliers multipliers = paramwise->Of(param);
    if (!param.tensor.requires_grad()) continue;
    auto group = std::find_if(groups.begin(), groups.end(),
                              [&](const ParamGroup& group) {
                                return group.lr_mult == multipliers.lr &&
                                       group.decay_mult == multipliers.decay;
                              });
    if (group == groups.end()) {
      groups.push_back({{}, multipliers.lr, multipliers.decay});
      group = groups.end() - 1;
    }
    group->params.push_back(param);
  }
  GRAPNEL_RETURN_IF_ERROR(
      WithContext(paramwise->CheckAllMatched(), "paramwise_cfg"));
  if (groups.empty()) {
    return absl::InvalidArgumentError(
        "no parameter requires a gradient: there is nothing to optimize");
  }
  return groups;
}

}  // namespace grapnel
