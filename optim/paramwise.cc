#include "grapnel/optim/paramwise.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <memory>
#include <tuple>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "grapnel/base/check_field.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/optim/optim_wrapper.pb.h"
#include "re2/re2.h"

namespace grapnel {
namespace {

using ::grapnel::optim::v1::ParamwiseConfig;

// What parameters have of their own.
struct Settings {
  double lr_mult = 1;
  double decay_mult = 1;
  std::map<std::string, double> options;
  int rule = -1;
};

absl::StatusOr<double> ReadMultiplier(bool is_set, double value,
                                      absl::string_view field) {
  if (!is_set) return 1.0;
  GRAPNEL_RETURN_IF_ERROR(CheckField(std::isfinite(value) && value >= 0, field,
                                     "finite and >= 0", value));
  return value;
}

// The options that a rule gives in place of the optimizer's.
absl::StatusOr<std::map<std::string, double>> ReadOptions(
    const ParamwiseConfig::Rule& rule) {
  std::map<std::string, double> options;
  const auto read = [&](const char* name, bool is_set, double value, bool good,
                        const char* range) {
    if (is_set) options[name] = value;
    return CheckField(!is_set || good, name, range, value);
  };
  for (const auto& [name, is_set, value] :
       {std::tuple("lr", rule.has_lr(), rule.lr()),
        std::tuple("weight_decay", rule.has_weight_decay(),
                   rule.weight_decay()),
        std::tuple("momentum", rule.has_momentum(), rule.momentum())}) {
    GRAPNEL_RETURN_IF_ERROR(read(name, is_set, value,
                                 std::isfinite(value) && value >= 0,
                                 "finite and >= 0"));
  }
  for (const auto& [name, is_set, value] :
       {std::tuple("beta1", rule.has_beta1(), rule.beta1()),
        std::tuple("beta2", rule.has_beta2(), rule.beta2())}) {
    GRAPNEL_RETURN_IF_ERROR(
        read(name, is_set, value, value >= 0 && value < 1, "in [0, 1)"));
  }
  for (const auto& [name, mult_is_set, mult] :
       {std::tuple("lr", rule.has_lr_mult(), "lr_mult"),
        std::tuple("weight_decay", rule.has_decay_mult(), "decay_mult")}) {
    const auto option = options.find(name);
    if (option == options.end() || !mult_is_set) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        name, ": must be unset with ", mult, ", is ", option->second));
  }
  return options;
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
      rule->settings.rule = i;
      paramwise.rules_.push_back(*std::move(rule));
    }
    GRAPNEL_ASSIGN_OR_RETURN(
        paramwise.bias_.lr_mult,
        ReadMultiplier(config.has_bias_lr_mult(), config.bias_lr_mult(),
                       "bias_lr_mult"));
    GRAPNEL_ASSIGN_OR_RETURN(
        paramwise.bias_.decay_mult,
        ReadMultiplier(config.has_bias_decay_mult(), config.bias_decay_mult(),
                       "bias_decay_mult"));
    GRAPNEL_ASSIGN_OR_RETURN(
        paramwise.norm_.decay_mult,
        ReadMultiplier(config.has_norm_decay_mult(), config.norm_decay_mult(),
                       "norm_decay_mult"));
    return paramwise;
  }

  Settings Of(const NamedTensor& param) {
    const Settings* found = nullptr;
    for (Rule& rule : rules_) {
      if (!RE2::PartialMatch(param.name, *rule.pattern)) continue;
      rule.matched = true;
      if (found == nullptr) found = &rule.settings;
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
    Settings settings;
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
        rule.settings.lr_mult,
        ReadMultiplier(config.has_lr_mult(), config.lr_mult(), "lr_mult"));
    GRAPNEL_ASSIGN_OR_RETURN(rule.settings.decay_mult,
                             ReadMultiplier(config.has_decay_mult(),
                                            config.decay_mult(), "decay_mult"));
    GRAPNEL_ASSIGN_OR_RETURN(rule.settings.options, ReadOptions(config));
    return rule;
  }

  std::vector<Rule> rules_;
  Settings bias_;
  Settings norm_;
};

}  // namespace

absl::StatusOr<std::vector<ParamwiseGroup>> MakeParamGroups(
    const ParamwiseConfig& config, const std::vector<NamedTensor>& params) {
  std::vector<ParamwiseGroup> groups;
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
    Settings settings = paramwise->Of(param);
    if (!param.tensor.requires_grad()) continue;
    auto group = std::find_if(
        groups.begin(), groups.end(), [&](const ParamwiseGroup& other) {
          return other.group.lr_mult == settings.lr_mult &&
                 other.group.decay_mult == settings.decay_mult &&
                 other.options == settings.options &&
                 (other.options.empty() || other.rule == settings.rule);
        });
    if (group == groups.end()) {
      groups.push_back({{{}, settings.lr_mult, settings.decay_mult},
                        std::move(settings.options),
                        settings.rule});
      group = groups.end() - 1;
    }
    group->group.params.push_back(param);
  }
  GRAPNEL_RETURN_IF_ERROR(
      WithContext(paramwise->CheckAllMatched(), "paramwise_cfg"));
  if (groups.empty()) {
    return absl::InvalidArgumentError(
        "no parameter requires a gradient: there is nothing to optimize");
  }
  return groups;
}

absl::Status SetParamwiseOptions(const std::vector<ParamwiseGroup>& groups,
                                 Optimizer& optimizer) {
  for (size_t i = 0; i < groups.size(); ++i) {
    for (const auto& [name, value] : groups[i].options) {
      double* const option = optimizer.option(static_cast<int>(i), name);
      // To schedules beta1 is also called momentum.
      const bool is_beta1 =
          name == "momentum" && option != nullptr &&
          option == optimizer.option(static_cast<int>(i), "beta1");
      if (option == nullptr || is_beta1) {
        return absl::InvalidArgumentError(absl::StrCat(
            "paramwise_cfg: rules[", groups[i].rule, "]: ", name,
            ": must be unset: ", optimizer.type(), " has no such option",
            is_beta1 ? ", but beta1" : " as it is configured"));
      }
      *option = value;
    }
  }
  return absl::OkStatus();
}

}  // namespace grapnel
