#include "grapnel/runner/configured_hooks.h"

#include <algorithm>
#include <map>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/suggestion.h"
#include "grapnel/runner/default_hooks.h"
#include "grapnel/runner/runner_config.pb.h"

namespace grapnel {
namespace {

using ::google::protobuf::FieldDescriptor;
using ::google::protobuf::Message;
using ::grapnel::runner::v1::DefaultHooksConfig;
using ::grapnel::runner::v1::HookSpec;

absl::Status CheckSlotName(absl::string_view field, const std::string& name) {
  std::vector<std::string> names, candidates;
  for (const DefaultHookSlot& slot : DefaultHookSlots()) {
    if (slot.field->name() == name) return absl::OkStatus();
    names.push_back(slot.hook_name);
    candidates.push_back(slot.hook_name);
    candidates.push_back(slot.field->name());
  }
  return absl::InvalidArgumentError(
      absl::StrCat(field, ": no default hook \"", name, "\"; there are ",
                   absl::StrJoin(names, ", "), DidYouMean(name, candidates)));
}

bool IsLinked(const FieldDescriptor& slot) {
  const std::vector<std::string> names = RegisteredHookConfigs();
  return std::find(names.begin(), names.end(),
                   slot.message_type()->full_name()) != names.end();
}

// "//hooks/iter_timer", from where the config's message is defined.
std::string TargetOf(const FieldDescriptor& slot) {
  const std::string& file = slot.message_type()->file()->name();
  const size_t begin = file.find('/') + 1;  // Behind "grapnel/".
  return absl::StrCat("@grapnel//",
                      file.substr(begin, file.rfind('/') - begin));
}

absl::Status SetPriority(const std::string& text, ScheduledHook* hook) {
  GRAPNEL_ASSIGN_OR_RETURN(hook->priority, ParsePriority(text));
  return absl::OkStatus();
}

absl::Status AddDefaultHooks(const DefaultHooksConfig& config,
                             std::vector<ScheduledHook>* hooks,
                             std::vector<std::string>* left_out) {
  for (const std::string& name : config.off()) {
    GRAPNEL_RETURN_IF_ERROR(CheckSlotName("off", name));
  }
  for (const auto& [name, priority] : config.priority()) {
    GRAPNEL_RETURN_IF_ERROR(CheckSlotName("priority", name));
  }
  for (const DefaultHookSlot& default_hook : DefaultHookSlots()) {
    const FieldDescriptor* slot = default_hook.field;
    const std::string& name = default_hook.hook_name;  // In messages.
    const bool set = config.GetReflection()->HasField(config, slot);
    if (std::find(config.off().begin(), config.off().end(), slot->name()) !=
        config.off().end()) {
      if (set) {
        return absl::InvalidArgumentError(
            absl::StrCat(name, ": is both configured and off"));
      }
      continue;
    }
    if (!IsLinked(*slot)) {
      if (!set) {
        left_out->push_back(name);
        continue;
      }
      return absl::InvalidArgumentError(absl::StrCat(
          name, ": the hook isn't linked in: depend on ", TargetOf(*slot)));
    }
    auto hook = CreateHook(config.GetReflection()->GetMessage(config, slot));
    if (!hook.ok()) return WithContext(hook.status(), name);
    const auto priority = config.priority().find(slot->name());
    if (priority != config.priority().end()) {
      GRAPNEL_RETURN_IF_ERROR(
          WithContext(SetPriority(priority->second, &*hook), name));
    }
    hooks->push_back(*std::move(hook));
  }
  return absl::OkStatus();
}

absl::StatusOr<ScheduledHook> CreateCustomHook(const HookSpec& spec) {
  if (!spec.has_config()) {
    return absl::InvalidArgumentError("config: must be set");
  }
  auto hook = CreateHook(spec.config());
  if (!hook.ok()) return WithContext(hook.status(), "config");
  if (spec.has_priority()) {
    GRAPNEL_RETURN_IF_ERROR(SetPriority(spec.priority(), &*hook));
  }
  return hook;
}

}  // namespace

absl::StatusOr<std::vector<ScheduledHook>> CreateConfiguredHooks(
    const runner::v1::RunnerConfig& config,
    std::vector<std::string>* left_out) {
  std::vector<ScheduledHook> hooks;
  GRAPNEL_RETURN_IF_ERROR(
      WithContext(AddDefaultHooks(config.default_hooks(), &hooks, left_out),
                  "default_hooks"));
  std::map<std::string, std::string> places;  // By the hooks' names.
  for (const ScheduledHook& hook : hooks) {
    places.emplace(hook.hook->name(), "default_hooks");
  }
  for (int i = 0; i < config.custom_hooks_size(); ++i) {
    const std::string place = absl::StrCat("custom_hooks[", i, "]");
    auto hook = CreateCustomHook(config.custom_hooks(i));
    if (!hook.ok()) return WithContext(hook.status(), place);
    const auto [other, is_new] = places.emplace(hook->hook->name(), place);
    if (!is_new) {
      return absl::InvalidArgumentError(absl::StrCat(
          place, ": two hooks are called \"", other->first, "\", the other in ",
          other->second, ": their state in checkpoints would be one"));
    }
    hooks.push_back(*std::move(hook));
  }
  return hooks;
}

}  // namespace grapnel
