#include "grapnel/base/kind_name.h"

#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"

namespace grapnel {

std::string KindName(const google::protobuf::Message& config) {
  const google::protobuf::FieldDescriptor* field =
      config.GetReflection()->GetOneofFieldDescriptor(
          config, config.GetDescriptor()->FindOneofByName("kind"));
  return field == nullptr ? "" : field->name();
}

}  // namespace grapnel
