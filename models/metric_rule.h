// Whether more or less of a metric is better, where nobody says so.

#ifndef GRAPNEL_MODELS_METRIC_RULE_H_
#define GRAPNEL_MODELS_METRIC_RULE_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace grapnel {

enum class MetricRule { kGreater, kLess };

// kInvalidArgument unless `text` is "greater" or "less".
absl::StatusOr<MetricRule> ParseMetricRule(absl::string_view text);
absl::string_view MetricRuleName(MetricRule rule);

// False if one is NaN, and if they are equal.
bool IsBetter(MetricRule rule, double value, double than);

// Names of metrics where more, or less, is better. What both lists hold when
// made are the defaults; hooks/checkpoint/checkpoint_hook.proto has them.
struct MetricKeys {
  MetricKeys();
  std::vector<std::string> greater;
  std::vector<std::string> less;
};

struct InferredRule {
  MetricRule rule;
  bool whole_name;  // Not only the last component of the name is in the list.
};

// By the metric's name, if it is in one of the lists: as a whole, or else its
// last component, the part behind the last "/", or behind the last "_" of that.
// Letter case doesn't count, and neither do digits at the end of the name:
// "accuracy/top5" is a "top". Never by a part of a word: "stop_rate" is no
// "top".
std::optional<InferredRule> InferMetricRule(absl::string_view metric,
                                            const MetricKeys& keys);

}  // namespace grapnel

#endif  // GRAPNEL_MODELS_METRIC_RULE_H_
