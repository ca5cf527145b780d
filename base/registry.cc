#include "grapnel/base/registry.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "google/protobuf/any.pb.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"
#include "grapnel/base/any_message.h"

namespace grapnel {
namespace internal_registry {
namespace {

using ::google::protobuf::Any;
using ::google::protobuf::Descriptor;
using ::google::protobuf::FieldDescriptor;
using ::google::protobuf::Message;
using ::google::protobuf::OneofDescriptor;

absl::StatusOr<std::unique_ptr<Message>> Unpack(const Any& any) {
  const Descriptor* const type = FindMessageType(any.type_url());
  if (type == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("no message type \"",
                     any.type_url().substr(any.type_url().rfind('/') + 1),
                     "\" is linked in: depend on the target that defines it"));
  }
  return UnpackAs(*type, any);
}

std::string FieldNames(const OneofDescriptor& oneof) {
  std::vector<std::string> names;
  for (int i = 0; i < oneof.field_count(); ++i) {
    names.push_back(oneof.field(i)->name());
  }
  return absl::StrJoin(names, ", ");
}

}  // namespace

void DeleteMessage::operator()(Message* message) const { delete message; }

absl::StatusOr<const Message*> ResolveConfig(const Message& config,
                                             MessagePtr* storage) {
  const Message* message = &config;
  const OneofDescriptor* kind = config.GetDescriptor()->FindOneofByName("kind");
  if (kind != nullptr) {
    const FieldDescriptor* field =
        config.GetReflection()->GetOneofFieldDescriptor(config, kind);
    if (field == nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat("must be set, to one of: ", FieldNames(*kind)));
    }
    message = &config.GetReflection()->GetMessage(config, field);
  }
  if (message->GetDescriptor() == Any::descriptor()) {
    auto unpacked = Unpack(static_cast<const Any&>(*message));
    if (!unpacked.ok()) return std::move(unpacked).status();
    storage->reset(unpacked->release());
    return storage->get();
  }
  return message;
}

absl::StatusOr<const Entry*> FindEntry(const Entry* head,
                                       absl::string_view what,
                                       const Message& config) {
  const std::string& type = config.GetDescriptor()->full_name();
  const Entry* found = nullptr;
  for (const Entry* entry = head; entry != nullptr; entry = entry->next) {
    if (entry->descriptor() != config.GetDescriptor()) continue;
    if (found != nullptr) {
      return absl::AlreadyExistsError(absl::StrCat(
          what, " \"", type, "\" is registered at ", entry->file, ":",
          entry->line, " and ", found->file, ":", found->line));
    }
    found = entry;
  }
  if (found == nullptr) {
    const std::vector<std::string> names = EntryNames(head);
    return absl::InvalidArgumentError(absl::StrCat(
        "no ", what, " for config \"", type, "\" is linked in; there are: ",
        names.empty() ? "none" : absl::StrJoin(names, ", ")));
  }
  return found;
}

std::vector<std::string> EntryNames(const Entry* head) {
  std::vector<std::string> names;
  for (const Entry* entry = head; entry != nullptr; entry = entry->next) {
    names.push_back(entry->descriptor()->full_name());
  }
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace internal_registry
}  // namespace grapnel
