#include "grapnel/models/metric_rule.h"

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace grapnel {
namespace {

constexpr char kGreater[] = "greater";
constexpr char kLess[] = "less";

bool Contains(const std::vector<std::string>& keys, absl::string_view name) {
  absl::string_view word = name;
  while (!word.empty() && absl::ascii_isdigit(word.back())) {
    word.remove_suffix(1);
  }
  for (const std::string& key : keys) {
    if (absl::EqualsIgnoreCase(name, key) ||
        absl::EqualsIgnoreCase(word, key)) {
      return true;
    }
  }
  return false;
}

std::optional<MetricRule> Find(const MetricKeys& keys, absl::string_view name) {
  if (Contains(keys.greater, name)) return MetricRule::kGreater;
  if (Contains(keys.less, name)) return MetricRule::kLess;
  return std::nullopt;
}

absl::string_view Behind(absl::string_view name, char separator) {
  const size_t at = name.rfind(separator);
  return at == absl::string_view::npos ? name : name.substr(at + 1);
}

}  // namespace

absl::StatusOr<MetricRule> ParseMetricRule(absl::string_view text) {
  if (text == kGreater) return MetricRule::kGreater;
  if (text == kLess) return MetricRule::kLess;
  return absl::InvalidArgumentError(
      absl::StrCat("must be \"greater\" or \"less\", is \"", text, "\""));
}

absl::string_view MetricRuleName(MetricRule rule) {
  return rule == MetricRule::kGreater ? kGreater : kLess;
}

bool IsBetter(MetricRule rule, double value, double than) {
  return rule == MetricRule::kGreater ? value > than : value < than;
}

MetricKeys::MetricKeys()
    : greater({"acc", "accuracy", "top", "AR@", "auc", "precision", "mAP",
               "mDice", "mIoU", "mAcc", "aAcc"}),
      less({"loss", "mse", "mae"}) {}

std::optional<InferredRule> InferMetricRule(absl::string_view metric,
                                            const MetricKeys& keys) {
  if (const auto rule = Find(keys, metric)) return InferredRule{*rule, true};
  const absl::string_view last = Behind(metric, '/');
  for (const absl::string_view component : {last, Behind(last, '_')}) {
    if (const auto rule = Find(keys, component)) {
      return InferredRule{*rule, false};
    }
  }
  return std::nullopt;
}

}  // namespace grapnel
