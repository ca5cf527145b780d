// What an evaluation comes to.

#ifndef GRAPNEL_MODELS_METRIC_VALUE_H_
#define GRAPNEL_MODELS_METRIC_VALUE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace grapnel {

// A number, or a text that is shown and not plotted.
using MetricValue = std::variant<int64_t, double, std::string>;

// Name, such as "accuracy/top1", to value, in order; names are distinct.
using Metrics = std::vector<std::pair<std::string, MetricValue>>;

// The number that it is; none for a text.
inline std::optional<double> AsNumber(const MetricValue& value) {
  if (const double* number = std::get_if<double>(&value)) return *number;
  if (const int64_t* integer = std::get_if<int64_t>(&value)) {
    return static_cast<double>(*integer);
  }
  return std::nullopt;
}

}  // namespace grapnel

#endif  // GRAPNEL_MODELS_METRIC_VALUE_H_
