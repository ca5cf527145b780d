#include "grapnel/base/checked_message.h"

#include <limits>
#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"
#include "google/protobuf/stubs/logging.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/utf8.h"

namespace grapnel {
namespace {

using ::google::protobuf::FieldDescriptor;
using ::google::protobuf::Message;
using ::google::protobuf::Reflection;

absl::Status Check(const Message& message, const std::string& path) {
  const Reflection& reflection = *message.GetReflection();
  std::vector<const FieldDescriptor*> fields;
  reflection.ListFields(message, &fields);
  for (const FieldDescriptor* field : fields) {
    const bool text = field->type() == FieldDescriptor::TYPE_STRING;
    if (!text && field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE) {
      continue;
    }
    const std::string name =
        absl::StrCat(path, path.empty() ? "" : ".", field->name());
    const int size =
        field->is_repeated() ? reflection.FieldSize(message, field) : 1;
    for (int i = 0; i < size; ++i) {
      const std::string element =
          field->is_repeated() ? absl::StrCat(name, "[", i, "]") : name;
      if (!text) {
        GRAPNEL_RETURN_IF_ERROR(
            Check(field->is_repeated()
                      ? reflection.GetRepeatedMessage(message, field, i)
                      : reflection.GetMessage(message, field),
                  element));
        continue;
      }
      std::string scratch;
      const std::string& value =
          field->is_repeated()
              ? reflection.GetRepeatedStringReference(message, field, i,
                                                      &scratch)
              : reflection.GetStringReference(message, field, &scratch);
      GRAPNEL_RETURN_IF_ERROR(WithContext(CheckUtf8(value), element));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckStrings(const Message& message) { return Check(message, ""); }

absl::StatusOr<std::string> SerializeChecked(const Message& message) {
  GRAPNEL_RETURN_IF_ERROR(CheckStrings(message));
  std::string bytes;
  const std::unique_ptr<Message> back(message.New());
  if (!message.SerializePartialToString(&bytes) ||
      !back->ParseFromString(bytes)) {
    return absl::InvalidArgumentError(
        absl::StrCat("a ", message.GetTypeName(), " of ", bytes.size(),
                     " bytes can't be read back"));
  }
  return bytes;
}

bool ParseQuietly(absl::string_view bytes, Message* message) {
  if (bytes.size() > std::numeric_limits<int>::max()) return false;
  const google::protobuf::LogSilencer silencer;
  return message->ParseFromArray(bytes.data(), static_cast<int>(bytes.size()));
}

}  // namespace grapnel
