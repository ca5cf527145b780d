#include "grapnel/tools/flag_values.h"

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace grapnel {

TypedFlag SplitFlag(absl::string_view rest) {
  const size_t equals = rest.find('=');
  if (equals == absl::string_view::npos) return {rest, std::nullopt};
  return {rest.substr(0, equals), rest.substr(equals + 1)};
}

absl::StatusOr<absl::string_view> FlagValues::Take(absl::string_view name,
                                                   bool takes_value,
                                                   const TypedFlag& typed,
                                                   size_t* next) {
  const auto error = [&](absl::string_view what) {
    return absl::InvalidArgumentError(absl::StrCat("--", name, what));
  };
  if (Has(name)) return error(": given twice");
  given_.push_back(name);
  if (!takes_value) {
    if (typed.value.has_value()) return error(" takes no value");
    return absl::string_view();
  }
  if (typed.value.has_value()) return *typed.value;
  if (*next == args_.size() || absl::StartsWith(args_[*next], "--")) {
    return error(" needs a value");
  }
  return args_[(*next)++];
}

bool FlagValues::Has(absl::string_view name) const {
  return std::find(given_.begin(), given_.end(), name) != given_.end();
}

}  // namespace grapnel
