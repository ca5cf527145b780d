#include "grapnel/base/status_macros.h"

#include "absl/strings/str_cat.h"

namespace grapnel {

absl::Status WithContext(absl::Status status, absl::string_view context) {
  if (status.ok()) return status;
  absl::Status result(status.code(),
                      absl::StrCat(context, ": ", status.message()));
  status.ForEachPayload(
      [&result](absl::string_view url, const absl::Cord& payload) {
        result.SetPayload(url, payload);
      });
  return result;
}

absl::Status RetCheckFailure(const char* file, int line,
                             const char* condition) {
  return absl::InternalError(
      absl::StrCat(file, ":", line, ": check failed: ", condition));
}

}  // namespace grapnel
