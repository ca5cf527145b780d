// The messages that a configuration may hold in an Any.

#ifndef GRAPNEL_RUNNER_CONFIG_TYPES_H_
#define GRAPNEL_RUNNER_CONFIG_TYPES_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace google {
namespace protobuf {
class Any;
class Descriptor;
class Message;
}  // namespace protobuf
}  // namespace google

namespace grapnel {

// Full names of the config messages of everything that is registered and linked
// in: models, layers, losses, metrics, datasets, transforms, optimizers,
// schedulers, averaging strategies, log backends and hooks. Sorted, distinct.
std::vector<std::string> RegisteredConfigTypes();

// The type that `name` means: the full name of any linked message, or the last
// part or parts of the name of a registered one, with or without "Config".
// What stands before the last "/" is ignored. kInvalidArgument if there is
// none, with a suggestion, or if there are several, naming them.
absl::StatusOr<const google::protobuf::Descriptor*> FindConfigType(
    absl::string_view name);

// What is in an Any. kInvalidArgument if its type isn't linked in or its bytes
// are not a message of that type.
absl::StatusOr<std::unique_ptr<google::protobuf::Message>> UnpackConfig(
    const google::protobuf::Any& any);

// The other way round. Equal messages give equal bytes.
void PackConfig(const google::protobuf::Message& message,
                google::protobuf::Any* any);

}  // namespace grapnel

#endif  // GRAPNEL_RUNNER_CONFIG_TYPES_H_
