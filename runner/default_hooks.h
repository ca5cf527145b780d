// What the default hooks are called: by their slots in the configuration, as
// MMEngine's, or by their own names. Two have another name than their slot.

#ifndef GRAPNEL_RUNNER_DEFAULT_HOOKS_H_
#define GRAPNEL_RUNNER_DEFAULT_HOOKS_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace google {
namespace protobuf {
class FieldDescriptor;
}  // namespace protobuf
}  // namespace google

namespace grapnel::runner::v1 {
class RunnerConfig;
}  // namespace grapnel::runner::v1

namespace grapnel {

// The field that a configuration is printed with, "timer", and the name of the
// hook, "iter_timer", which logs, tables and messages show.
struct DefaultHookSlot {
  const google::protobuf::FieldDescriptor* field;
  std::string hook_name;
};

// In the order the hooks are registered in.
std::vector<DefaultHookSlot> DefaultHookSlots();

// "timer" for "iter_timer", and "iter_timer" for "timer"; what is no other name
// of a default hook stays as it is.
std::string DefaultHookSlotName(absl::string_view name);
std::string DefaultHookName(absl::string_view name);

// Puts what is set under a hook's name under its slot's, in `off` and
// `priority` too. kInvalidArgument, naming both, if both are set.
absl::Status JoinDefaultHookNames(runner::v1::RunnerConfig* config);

}  // namespace grapnel

#endif  // GRAPNEL_RUNNER_DEFAULT_HOOKS_H_
