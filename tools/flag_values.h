// Flags with values as they are typed, alike for every command of grapnel.

#ifndef GRAPNEL_TOOLS_FLAG_VALUES_H_
#define GRAPNEL_TOOLS_FLAG_VALUES_H_

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace grapnel {

// "--name" or "--name=value".
struct TypedFlag {
  absl::string_view name;  // Without the dashes.
  std::optional<absl::string_view> value;
};

// Of what follows the dashes.
TypedFlag SplitFlag(absl::string_view rest);

// Takes the values of flags out of arguments, which outlive it.
class FlagValues {
 public:
  explicit FlagValues(const std::vector<std::string>& args) : args_(args) {}

  // The value that was typed for the flag called `name`, or else the argument
  // `*next`, which is then passed over; "" if the flag takes none.
  // kInvalidArgument, naming it, if it was given before, takes no value and has
  // one, or needs one and has none. `name` outlives this.
  absl::StatusOr<absl::string_view> Take(absl::string_view name,
                                         bool takes_value,
                                         const TypedFlag& typed, size_t* next);

  // Whether that flag was given.
  bool Has(absl::string_view name) const;

 private:
  const std::vector<std::string>& args_;
  std::vector<absl::string_view> given_;
};

}  // namespace grapnel

#endif  // GRAPNEL_TOOLS_FLAG_VALUES_H_
