// What is in a google.protobuf.Any, as a message of its own type.

#ifndef GRAPNEL_BASE_ANY_MESSAGE_H_
#define GRAPNEL_BASE_ANY_MESSAGE_H_

#include <memory>

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

// The linked message type that a type URL, or a bare full name, is of. Null if
// there is none.
const google::protobuf::Descriptor* FindMessageType(absl::string_view type_url);

// The value of `any` as a message of `type`, which must be linked in.
// kInvalidArgument if its bytes are none.
absl::StatusOr<std::unique_ptr<google::protobuf::Message>> UnpackAs(
    const google::protobuf::Descriptor& type, const google::protobuf::Any& any);

}  // namespace grapnel

#endif  // GRAPNEL_BASE_ANY_MESSAGE_H_
