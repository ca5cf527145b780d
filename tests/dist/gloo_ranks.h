// Ranks that talk by gloo: threads of one process, over the loopback.

#ifndef GRAPNEL_TESTS_DIST_GLOO_RANKS_H_
#define GRAPNEL_TESTS_DIST_GLOO_RANKS_H_

#include <cstddef>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "grapnel/dist/process_group.h"

namespace grapnel {

// What a rank has asked for, in order. Safe to use from many threads.
class Collectives {
 public:
  // The end of collective `index`. Until then, and after `timeout`, false.
  bool WaitFor(size_t index, absl::Duration timeout) const;

  // Their names, as "allreduce of 40 bytes".
  std::vector<std::string> names() const;

  // For the ranks: the index of a collective that begins, and that it has
  // ended.
  size_t Begin(std::string name);
  void End(size_t index);

 private:
  mutable absl::Mutex mutex_;
  std::vector<std::pair<std::string, bool>> all_;  // Name, whether it ended.
};

struct GlooRank {
  int rank;
  ProcessGroup& group;       // Of threads, with a c10d group of gloo's.
  Collectives& collectives;  // What that one's gloo was asked for.
  Collectives& own;          // What was called on `group` itself.
};

// Calls `body` for every rank, each in a thread of its own, and returns what
// they returned, by rank. At least two. `timeout`: of a collective;
// `own_connections` as in JoinOptions.
std::vector<absl::Status> RunGlooRanks(
    int world_size, const std::function<absl::Status(const GlooRank&)>& body,
    absl::Duration timeout = absl::Seconds(60), bool own_connections = false);

}  // namespace grapnel

#endif  // GRAPNEL_TESTS_DIST_GLOO_RANKS_H_
