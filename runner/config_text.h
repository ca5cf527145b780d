// Strict reading of messages from text and JSON.

#ifndef GRAPNEL_RUNNER_CONFIG_TEXT_H_
#define GRAPNEL_RUNNER_CONFIG_TEXT_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace google {
namespace protobuf {
class Descriptor;
class Message;
}  // namespace protobuf
}  // namespace google

namespace grapnel {

// What is wrong in a text, and where.
struct ConfigTextError {
  int line = 0;  // From 1; 0: nowhere in particular.
  int column =
      0;  // From 1, in bytes; a tab counts up to the next multiple of 8.
  std::string message;
};

// kInvalidArgument: "x.textproto:3:3: ...". `name` is what the text is called.
absl::Status ErrorIn(absl::string_view name, const ConfigTextError& error);

// Whether `text` is UTF-8; if not, `*error` says from where on.
bool CheckConfigIsUtf8(absl::string_view text, ConfigTextError* error);

// Parses `text` into `*message`, which is cleared. Types in an Any are found by
// FindConfigType; they still stand as written: call CanonicalizeConfig next.
// Returns false, with `*error` set, at the first thing that is wrong. Nesting
// is limited to 100, so that no input exhausts the stack.
bool ParseConfigText(absl::string_view text, google::protobuf::Message* message,
                     ConfigTextError* error);

// The same from JSON, where types in an Any have their full names. Of what is
// wrong in JSON, the place is in the error's message.
bool ParseConfigJson(absl::string_view json, google::protobuf::Message* message,
                     ConfigTextError* error);

// Gives every Any in `*message`, at any depth, its full type name and bytes
// that are the same for equal content, and checks what protobuf does not:
// unknown fields, enum values without a name, strings that are not UTF-8, map
// keys given twice. kInvalidArgument, naming the path of the field.
absl::Status CanonicalizeConfig(google::protobuf::Message* message);

// `no field "momentun" in SgdConfig; did you mean "momentum"?`
std::string NoSuchField(absl::string_view name,
                        const google::protobuf::Descriptor& type);

}  // namespace grapnel

#endif  // GRAPNEL_RUNNER_CONFIG_TEXT_H_
