// The hooks that a configuration asks for.

#ifndef GRAPNEL_RUNNER_CONFIGURED_HOOKS_H_
#define GRAPNEL_RUNNER_CONFIGURED_HOOKS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "grapnel/runner/hook_registry.h"

namespace grapnel::runner::v1 {
class RunnerConfig;
}  // namespace grapnel::runner::v1

namespace grapnel {

// `config` is as JoinDefaultHookNames leaves it.
//
// Makes the default hooks that are not off, in the order of their slots, then
// the custom hooks. A default hook that isn't linked in is an error, naming the
// target to depend on, if its slot is set; else it is left out and named, by
// the hook's name, in `*left_out`. kInvalidArgument, naming the field, also for
// two hooks of one name.
absl::StatusOr<std::vector<ScheduledHook>> CreateConfiguredHooks(
    const runner::v1::RunnerConfig& config, std::vector<std::string>* left_out);

}  // namespace grapnel

#endif  // GRAPNEL_RUNNER_CONFIGURED_HOOKS_H_
