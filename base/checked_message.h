// Messages that are saved, and read: what can't be read back isn't written, and
// nothing is said of it on stderr.

#ifndef GRAPNEL_BASE_CHECKED_MESSAGE_H_
#define GRAPNEL_BASE_CHECKED_MESSAGE_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace google {
namespace protobuf {
class Message;
}  // namespace protobuf
}  // namespace google

namespace grapnel {

// That every string in `message`, at any depth, is UTF-8. kInvalidArgument
// names the field: `scalars[2].name: not UTF-8 from byte 9 on: "..."`. What is
// in an Any counts as bytes.
absl::Status CheckStrings(const google::protobuf::Message& message);

// The bytes of `message`, after they have been parsed back. kInvalidArgument,
// naming the field, if they can't be.
absl::StatusOr<std::string> SerializeChecked(
    const google::protobuf::Message& message);

// Whether `bytes` are a message of the type of `*message`, which becomes it.
// Protobuf alone writes a line to stderr for a string that isn't UTF-8.
bool ParseQuietly(absl::string_view bytes, google::protobuf::Message* message);

}  // namespace grapnel

#endif  // GRAPNEL_BASE_CHECKED_MESSAGE_H_
