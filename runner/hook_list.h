// The hooks of a run, ready to be called.

#ifndef GRAPNEL_RUNNER_HOOK_LIST_H_
#define GRAPNEL_RUNNER_HOOK_LIST_H_

#include <array>
#include <cstddef>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/runner/hook.h"
#include "grapnel/runner/hook_registry.h"

namespace grapnel {

// Hooks in the order they act in, and for every stage those that act there.
// Thread-compatible.
class HookList {
 public:
  // Puts the hook behind all whose priority is the same or smaller.
  // kAlreadyExists if there is one of that name; kInvalidArgument if it is null
  // or its priority isn't in 0..100.
  absl::Status Add(ScheduledHook hook);

  // The hook of that name, or null.
  Hook* Find(absl::string_view name) const;

  // All hooks, in their order.
  absl::Span<const ScheduledHook> hooks() const { return hooks_; }

  // Calls the hooks that act at `point`, in their order, until one
  // fails: its error comes back as `hook "ema": AfterTrainIter: ...`. What a
  // hook throws is an error too.
  template <typename... P, typename... A>
  absl::Status Call(MountPoint<absl::Status (Hook::*)(RunContext&, P...)> point,
                    RunContext& run, A&... args) const {
    size_t first = 0;
    return CallFrom(&first, point, run, args...);
  }

  // Begins with the `*next`th of those hooks, from 0; then it is how many of
  // them have been called, the one that failed included.
  template <typename... P, typename... A>
  absl::Status CallFrom(
      size_t* next, MountPoint<absl::Status (Hook::*)(RunContext&, P...)> point,
      RunContext& run, A&... args) const {
    const std::vector<Hook*>& hooks = by_stage_[static_cast<int>(point.stage)];
    while (*next < hooks.size()) {
      Hook& hook = *hooks[(*next)++];
      absl::Status status =
          CatchAsStatus([&] { return (hook.*point.call)(run, args...); });
      if (!status.ok()) return Blame(hook, point.stage, status);
    }
    return absl::OkStatus();
  }

  // Tells every hook that listens; what they throw is logged and dropped.
  void CallOnError(RunContext& run, const absl::Status& error) const;

  // A line for each stage at which hooks act: "before_train_iter: runtime_info
  // (10), iter_timer (50)".
  std::string Table() const;

 private:
  static absl::Status Blame(const Hook& hook, Stage stage,
                            const absl::Status& status);

  std::vector<ScheduledHook> hooks_;
  std::array<std::vector<Hook*>, kNumStages> by_stage_;
};

}  // namespace grapnel

#endif  // GRAPNEL_RUNNER_HOOK_LIST_H_
