// Fields of a configuration that hold paths.

#ifndef GRAPNEL_RUNNER_CONFIG_PATHS_H_
#define GRAPNEL_RUNNER_CONFIG_PATHS_H_

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace google {
namespace protobuf {
class FieldDescriptor;
class Message;
}  // namespace protobuf
}  // namespace google

namespace grapnel {

// Whether the field is a string, or several, marked `(grapnel.path) = true` in
// its proto, base/field_options.proto.
bool IsPathField(const google::protobuf::FieldDescriptor& field);

// Makes every path in `*message` what `map` makes of it, at any depth, in every
// Any too, which must be as CanonicalizeConfig leaves it. An unset or empty one
// stays so.
absl::Status MapPaths(const std::function<std::string(const std::string&)>& map,
                      google::protobuf::Message* message);

// Puts `base` in front of every relative path.
absl::Status RebasePaths(absl::string_view base,
                         google::protobuf::Message* message);

}  // namespace grapnel

#endif  // GRAPNEL_RUNNER_CONFIG_PATHS_H_
