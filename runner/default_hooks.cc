#include "grapnel/runner/default_hooks.h"

#include "absl/strings/str_cat.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"
#include "grapnel/runner/runner_config.pb.h"

namespace grapnel {
namespace {

using ::google::protobuf::FieldDescriptor;
using ::google::protobuf::Reflection;
using ::grapnel::runner::v1::DefaultHooksConfig;

absl::Status BothSet(absl::string_view field, absl::string_view slot,
                     absl::string_view hook) {
  return absl::InvalidArgumentError(absl::StrCat("default_hooks: ", field, hook,
                                                 ": must be unset with ", slot,
                                                 ", which is the same hook"));
}

}  // namespace

std::vector<DefaultHookSlot> DefaultHookSlots() {
  std::vector<DefaultHookSlot> slots;
  const auto* descriptor = DefaultHooksConfig::descriptor();
  for (int i = 0; i < descriptor->field_count(); ++i) {
    const FieldDescriptor* field = descriptor->field(i);
    if (field->type() != FieldDescriptor::TYPE_MESSAGE || field->is_map()) {
      continue;
    }
    // The second field of one type is the hook's name for the first.
    bool is_other_name = false;
    for (DefaultHookSlot& slot : slots) {
      if (slot.field->message_type() != field->message_type()) continue;
      slot.hook_name = field->name();
      is_other_name = true;
    }
    if (!is_other_name) slots.push_back({field, field->name()});
  }
  return slots;
}

std::string DefaultHookSlotName(absl::string_view name) {
  for (const DefaultHookSlot& slot : DefaultHookSlots()) {
    if (slot.hook_name == name) return slot.field->name();
  }
  return std::string(name);
}

std::string DefaultHookName(absl::string_view name) {
  for (const DefaultHookSlot& slot : DefaultHookSlots()) {
    if (slot.field->name() == name) return slot.hook_name;
  }
  return std::string(name);
}

absl::Status JoinDefaultHookNames(runner::v1::RunnerConfig* config) {
  if (!config->has_default_hooks()) return absl::OkStatus();
  DefaultHooksConfig& hooks = *config->mutable_default_hooks();
  const Reflection& reflection = *hooks.GetReflection();
  for (std::string& name : *hooks.mutable_off()) {
    name = DefaultHookSlotName(name);
  }
  for (const DefaultHookSlot& slot : DefaultHookSlots()) {
    const std::string& name = slot.field->name();
    if (slot.hook_name == name) continue;
    const FieldDescriptor* other =
        hooks.GetDescriptor()->FindFieldByName(slot.hook_name);
    if (reflection.HasField(hooks, other)) {
      if (reflection.HasField(hooks, slot.field)) {
        return BothSet("", name, slot.hook_name);
      }
      reflection.MutableMessage(&hooks, slot.field)
          ->CopyFrom(reflection.GetMessage(hooks, other));
      reflection.ClearField(&hooks, other);
    }
    auto& priorities = *hooks.mutable_priority();
    const auto priority = priorities.find(slot.hook_name);
    if (priority == priorities.end()) continue;
    if (priorities.contains(name)) {
      return BothSet("priority: ", name, slot.hook_name);
    }
    const std::string value = priority->second;
    priorities.erase(slot.hook_name);
    priorities[name] = value;
  }
  return absl::OkStatus();
}

}  // namespace grapnel
