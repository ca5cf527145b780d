// The one form of "this number of the config is out of range".

#ifndef GRAPNEL_BASE_CHECK_FIELD_H_
#define GRAPNEL_BASE_CHECK_FIELD_H_

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace grapnel {

// kInvalidArgument, "<field>: must be <must_be>, is <value>", unless `holds`.
template <typename Number>
absl::Status CheckField(bool holds, absl::string_view field,
                        absl::string_view must_be, Number value) {
  if (holds) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(field, ": must be ", must_be, ", is ", value));
}

}  // namespace grapnel

#endif  // GRAPNEL_BASE_CHECK_FIELD_H_
