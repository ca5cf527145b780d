#include "grapnel/runner/config_paths.h"

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "google/protobuf/any.pb.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"
#include "grapnel/base/field_options.pb.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/io/env.h"
#include "grapnel/runner/config_types.h"

namespace grapnel {
namespace {

using ::google::protobuf::Any;
using ::google::protobuf::FieldDescriptor;
using ::google::protobuf::Message;
using ::google::protobuf::Reflection;

}  // namespace

bool IsPathField(const FieldDescriptor& field) {
  return field.type() == FieldDescriptor::TYPE_STRING &&
         field.options().GetExtension(grapnel::path);
}

absl::Status MapPaths(const std::function<std::string(const std::string&)>& map,
                      Message* message) {
  if (message->GetDescriptor() == Any::descriptor()) {
    Any* const any = static_cast<Any*>(message);
    if (any->type_url().empty()) return absl::OkStatus();
    GRAPNEL_ASSIGN_OR_RETURN(const std::unique_ptr<Message> content,
                             UnpackConfig(*any));
    GRAPNEL_RETURN_IF_ERROR(MapPaths(map, content.get()));
    PackConfig(*content, any);
    return absl::OkStatus();
  }
  const auto mapped = [&map](const std::string& path) {
    return path.empty() ? path : map(path);
  };
  const Reflection& reflection = *message->GetReflection();
  std::vector<const FieldDescriptor*> fields;
  reflection.ListFields(*message, &fields);
  for (const FieldDescriptor* field : fields) {
    const bool is_path = IsPathField(*field);
    if (!is_path && field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE) {
      continue;
    }
    if (!field->is_repeated()) {
      if (is_path) {
        reflection.SetString(message, field,
                             mapped(reflection.GetString(*message, field)));
      } else {
        GRAPNEL_RETURN_IF_ERROR(
            MapPaths(map, reflection.MutableMessage(message, field)));
      }
      continue;
    }
    for (int i = 0; i < reflection.FieldSize(*message, field); ++i) {
      if (is_path) {
        reflection.SetRepeatedString(
            message, field, i,
            mapped(reflection.GetRepeatedString(*message, field, i)));
      } else {
        GRAPNEL_RETURN_IF_ERROR(MapPaths(
            map, reflection.MutableRepeatedMessage(message, field, i)));
      }
    }
  }
  return absl::OkStatus();
}

absl::Status RebasePaths(absl::string_view base, Message* message) {
  return MapPaths(
      [base](const std::string& path) { return io::JoinPath(base, path); },
      message);
}

}  // namespace grapnel
