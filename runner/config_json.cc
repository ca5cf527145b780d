#include "grapnel/runner/config_json.h"

#include <cmath>
#include <map>

#include "absl/strings/str_cat.h"
#include "google/protobuf/any.pb.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"
#include "grapnel/base/any_message.h"
#include "grapnel/base/json_string.h"
#include "grapnel/loggers/number_format.h"

namespace grapnel {
namespace {

using ::google::protobuf::Any;
using ::google::protobuf::Descriptor;
using ::google::protobuf::FieldDescriptor;
using ::google::protobuf::Message;
using ::google::protobuf::Reflection;

void AppendMessage(const Message& message, std::string* json);

// `members`: keys, in their quotes, and values.
template <typename Members>
void AppendObject(const Members& members, std::string* json) {
  json->push_back('{');
  const char* separator = "";
  for (const auto& [key, value] : members) {
    absl::StrAppend(json, separator, key, ": ", value);
    separator = ", ";
  }
  json->push_back('}');
}

void AppendNumber(double value, std::string* json) {
  if (std::isfinite(value)) {
    AppendPythonRepr(value, json);
  } else {
    AppendAsciiJsonString(PythonRepr(value), json);
  }
}

// One value of a field: of a repeated one the `index`th.
void AppendValue(const Message& message, const FieldDescriptor* field,
                 int index, std::string* json) {
  const Reflection& reflection = *message.GetReflection();
  const bool repeated = field->is_repeated();
#define GRAPNEL_GET(type)                                         \
  (repeated ? reflection.GetRepeated##type(message, field, index) \
            : reflection.Get##type(message, field))
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return absl::StrAppend(json, GRAPNEL_GET(Int32));
    case FieldDescriptor::CPPTYPE_INT64:
      return absl::StrAppend(json, GRAPNEL_GET(Int64));
    case FieldDescriptor::CPPTYPE_UINT32:
      return absl::StrAppend(json, GRAPNEL_GET(UInt32));
    case FieldDescriptor::CPPTYPE_UINT64:
      return absl::StrAppend(json, GRAPNEL_GET(UInt64));
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return AppendNumber(GRAPNEL_GET(Double), json);
    case FieldDescriptor::CPPTYPE_FLOAT:
      return AppendNumber(GRAPNEL_GET(Float), json);
    case FieldDescriptor::CPPTYPE_BOOL:
      return absl::StrAppend(json, GRAPNEL_GET(Bool) ? "true" : "false");
    case FieldDescriptor::CPPTYPE_ENUM:
      return AppendAsciiJsonString(GRAPNEL_GET(Enum)->name(), json);
    case FieldDescriptor::CPPTYPE_STRING:
      return AppendAsciiJsonString(GRAPNEL_GET(String), json);
    case FieldDescriptor::CPPTYPE_MESSAGE:
      return AppendMessage(GRAPNEL_GET(Message), json);
  }
#undef GRAPNEL_GET
}

// By key: protobuf has them in another order in each process.
void AppendMap(const Message& message, const FieldDescriptor* field,
               std::string* json) {
  const Reflection& reflection = *message.GetReflection();
  const Descriptor& entry = *field->message_type();
  std::map<std::string, std::string> values;
  for (int i = 0; i < reflection.FieldSize(message, field); ++i) {
    const Message& pair = reflection.GetRepeatedMessage(message, field, i);
    std::string key;
    AppendValue(pair, entry.map_key(), 0, &key);
    // In JSON all keys are strings.
    if (entry.map_key()->cpp_type() != FieldDescriptor::CPPTYPE_STRING) {
      key = absl::StrCat("\"", key, "\"");
    }
    AppendValue(pair, entry.map_value(), 0, &values[key]);
  }
  AppendObject(values, json);
}

void AppendField(const Message& message, const FieldDescriptor* field,
                 std::string* json) {
  if (!field->is_repeated()) return AppendValue(message, field, 0, json);
  if (field->is_map()) return AppendMap(message, field, json);
  const int size = message.GetReflection()->FieldSize(message, field);
  json->push_back('[');
  for (int i = 0; i < size; ++i) {
    if (i > 0) json->append(", ");
    AppendValue(message, field, i, json);
  }
  json->push_back(']');
}

void AppendAny(const Any& any, std::string* json) {
  const Descriptor* const type = FindMessageType(any.type_url());
  if (type == nullptr) return absl::StrAppend(json, "null");
  const auto message = UnpackAs(*type, any);
  json->push_back('{');
  AppendAsciiJsonString(type->full_name(), json);
  json->append(": ");
  if (message.ok()) {
    AppendMessage(**message, json);
  } else {
    json->append("null");
  }
  json->push_back('}');
}

void AppendMessage(const Message& message, std::string* json) {
  if (message.GetDescriptor() == Any::descriptor()) {
    return AppendAny(static_cast<const Any&>(message), json);
  }
  auto members = ConfigToJson(message);
  // Names of fields are identifiers.
  for (auto& member : members)
    member.first = absl::StrCat("\"", member.first, "\"");
  AppendObject(members, json);
}

}  // namespace

std::vector<std::pair<std::string, std::string>> ConfigToJson(
    const Message& config) {
  std::vector<const FieldDescriptor*> fields;
  config.GetReflection()->ListFields(config, &fields);
  std::vector<std::pair<std::string, std::string>> values;
  for (const FieldDescriptor* field : fields) {
    std::string json;
    AppendField(config, field, &json);
    values.emplace_back(field->name(), std::move(json));
  }
  return values;
}

}  // namespace grapnel
