#include "grapnel/runner/hook_registry.h"

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace grapnel {
namespace {

struct NamedPriority {
  const char* name;
  Priority priority;
};

constexpr NamedPriority kPriorities[] = {
    {"HIGHEST", Priority::kHighest}, {"VERY_HIGH", Priority::kVeryHigh},
    {"HIGH", Priority::kHigh},       {"ABOVE_NORMAL", Priority::kAboveNormal},
    {"NORMAL", Priority::kNormal},   {"BELOW_NORMAL", Priority::kBelowNormal},
    {"LOW", Priority::kLow},         {"VERY_LOW", Priority::kVeryLow},
    {"LOWEST", Priority::kLowest},
};

}  // namespace

std::string PriorityName(int priority) {
  for (const NamedPriority& named : kPriorities) {
    if (priority == static_cast<int>(named.priority)) return named.name;
  }
  return absl::StrCat(priority);
}

absl::StatusOr<int> ParsePriority(absl::string_view text) {
  int number;
  if (absl::SimpleAtoi(text, &number)) {
    if (number >= 0 && number <= 100) return number;
  } else {
    const std::string upper = absl::AsciiStrToUpper(text);
    for (const NamedPriority& named : kPriorities) {
      if (upper == named.name) return static_cast<int>(named.priority);
    }
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "priority: must be a number in 0..100 or one of HIGHEST, VERY_HIGH, "
      "HIGH, "
      "ABOVE_NORMAL, NORMAL, BELOW_NORMAL, LOW, VERY_LOW, LOWEST, is \"",
      text, "\""));
}

}  // namespace grapnel
