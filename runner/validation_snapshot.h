// What a validation may change of a run that goes on after it.

#ifndef GRAPNEL_RUNNER_VALIDATION_SNAPSHOT_H_
#define GRAPNEL_RUNNER_VALIDATION_SNAPSHOT_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/runner/hook.h"
#include "grapnel/runner/hook_list.h"
#include "grapnel/runner/message_hub.h"
#include "grapnel/runner/run_generators.h"

namespace grapnel::runner::v1 {
class MessageHubState;
class RngState;
}  // namespace grapnel::runner::v1

namespace grapnel {

// The message hub, the hooks' states and the run's generators before a
// validation. One that is cut short is repeated from its start, and what it had
// done must not be done twice.
//
// Leaves out the tensors of hooks that act at OnError: such a hook puts them
// back there, as one does that has lent the model its averaged weights.
class ValidationSnapshot {
 public:
  // All outlive the snapshot.
  static absl::StatusOr<ValidationSnapshot> Take(const MessageHub& hub,
                                                 const HookList& hooks,
                                                 RunGenerators generators);

  absl::Status Restore(MessageHub* hub) const;

 private:
  struct SavedHook {
    Hook* hook;
    std::shared_ptr<google::protobuf::Message> state;  // Null if it has none.
    std::string bytes;                                 // Of SaveState.
    TensorMap tensors;                                 // Copies.
  };

  // Shared pointers delete what needs no declaration here.
  std::shared_ptr<runner::v1::MessageHubState> hub_;
  std::vector<SavedHook> hooks_;
  RunGenerators generators_;
  std::shared_ptr<runner::v1::RngState> generator_states_;
};

}  // namespace grapnel

#endif  // GRAPNEL_RUNNER_VALIDATION_SNAPSHOT_H_
