// Makes hooks from their configuration.
//
// A hook is known by its config message. Its .cc says, at namespace scope,
//
//   GRAPNEL_REGISTER_HOOK(EarlyStoppingHook);
//
// and its Bazel target is a grapnel_hook(), which keeps the linker from
// dropping an object file that nothing refers to.

#ifndef GRAPNEL_RUNNER_HOOK_REGISTRY_H_
#define GRAPNEL_RUNNER_HOOK_REGISTRY_H_

#include <memory>
#include <string>
#include <typeinfo>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "grapnel/base/registry.h"
#include "grapnel/runner/hook.h"

namespace grapnel {

// A hook, where it acts, and when among the others.
struct ScheduledHook {
  std::unique_ptr<Hook> hook;
  StageMask stages;
  int priority = static_cast<int>(Priority::kNormal);  // 0..100
};

// Schedules a hook by its own priority, at the points that H overrides.
template <typename H>
ScheduledHook Schedule(std::unique_ptr<H> hook) {
  ScheduledHook scheduled;
  const Hook& base = *hook;
  // Of a hook known only by a base class every point must be called.
  scheduled.stages =
      typeid(base) == typeid(H) ? OverriddenStages<H>() : StageMask::All();
  scheduled.priority = static_cast<int>(hook->priority());
  scheduled.hook = std::move(hook);
  return scheduled;
}

struct HookTraits {
  using Product = ScheduledHook;
  static constexpr char kWhat[] = "hook";
};
using HookRegistry = Registry<HookTraits>;

// Makes the hook for `config`: its config message, or an Any that holds it.
// Codes as Registry::Create's.
inline absl::StatusOr<ScheduledHook> CreateHook(
    const google::protobuf::Message& config) {
  return HookRegistry::Create(config);
}

// Full names of the config messages of all linked hooks, sorted.
inline std::vector<std::string> RegisteredHookConfigs() {
  return HookRegistry::ConfigNames();
}

// A priority from text: a number in 0..100, or one of the nine names in any
// letter case. kInvalidArgument, naming the text.
absl::StatusOr<int> ParsePriority(absl::string_view text);

// "VERY_HIGH", or the number in digits where it has no name.
std::string PriorityName(int priority);

namespace internal_hook_registry {

template <typename H>
absl::StatusOr<ScheduledHook> CreateAs(
    const google::protobuf::Message& config) {
  auto hook = H::Create(static_cast<const typename H::Config&>(config));
  if (!hook.ok()) return std::move(hook).status();
  return Schedule(*std::move(hook));
}

}  // namespace internal_hook_registry
}  // namespace grapnel

// `H` has a type H::Config and a static H::Create(const H::Config&) returning
// absl::StatusOr<std::unique_ptr<H>>.
#define GRAPNEL_REGISTER_HOOK(H)                                               \
  static const ::grapnel::HookRegistry::Entry grapnel_hook_entry_##H(          \
      &H::Config::descriptor, &::grapnel::internal_hook_registry::CreateAs<H>, \
      __FILE__, __LINE__)

#endif  // GRAPNEL_RUNNER_HOOK_REGISTRY_H_
