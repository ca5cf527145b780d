#include "grapnel/base/any_message.h"

#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "google/protobuf/any.pb.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"
#include "grapnel/base/checked_message.h"

namespace grapnel {

using ::google::protobuf::Any;
using ::google::protobuf::Descriptor;
using ::google::protobuf::DescriptorPool;
using ::google::protobuf::Message;
using ::google::protobuf::MessageFactory;

const Descriptor* FindMessageType(absl::string_view type_url) {
  // npos + 1 == 0: a bare name is its own type.
  const absl::string_view name = type_url.substr(type_url.rfind('/') + 1);
  return DescriptorPool::generated_pool()->FindMessageTypeByName(
      std::string(name));
}

absl::StatusOr<std::unique_ptr<Message>> UnpackAs(const Descriptor& type,
                                                  const Any& any) {
  std::unique_ptr<Message> message(
      MessageFactory::generated_factory()->GetPrototype(&type)->New());
  if (!ParseQuietly(any.value(), message.get())) {
    return absl::InvalidArgumentError(
        absl::StrCat("not a valid ", type.full_name()));
  }
  return message;
}

}  // namespace grapnel
