// What is of c10d in a process group, for code that calls c10d itself.

#ifndef GRAPNEL_DIST_C10D_HANDLE_H_
#define GRAPNEL_DIST_C10D_HANDLE_H_

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "grapnel/dist/process_group.h"

namespace c10d {
class ProcessGroup;
}  // namespace c10d

namespace grapnel {

// A group that JoinProcessGroup gave. Thread-compatible.
class C10dProcessGroup : public ProcessGroup {
 public:
  // Lent for the life of this object: what keeps an intrusive_ptr of it
  // (reclaim_copy) drops that first. It has a backend for the CPU and for the
  // device that was joined with. What is called on it counts in the order of
  // this group's collectives, but see JoinOptions::own_connections.
  virtual c10d::ProcessGroup& c10d_group() = 0;

  // `failure`, an error of what was called on c10d_group(), as this group's own
  // collectives would return it: with the reason, and `call` in front. The
  // group is unusable from here on.
  virtual absl::Status Explain(const absl::Status& failure,
                               absl::string_view call) = 0;
};

// Nothing if `group` is a process alone, or of threads.
inline C10dProcessGroup* AsC10dProcessGroup(ProcessGroup& group) {
  return dynamic_cast<C10dProcessGroup*>(&group);
}

}  // namespace grapnel

#endif  // GRAPNEL_DIST_C10D_HANDLE_H_
