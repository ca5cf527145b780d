// What launchers of several nodes say to each other, and what the first one
// decides.
//
// One line of words a message. A node that joins says Hello, and hears
// kWelcome, or kRefused and why. From then on nodes send reports to node 0,
// node 0 sends commands, the same to all nodes; both send kPing, so that
// silence means that a node is lost. A command names no program: what a node
// runs stands on its own command line.

#ifndef GRAPNEL_TOOLS_LAUNCH_NODE_PROTOCOL_H_
#define GRAPNEL_TOOLS_LAUNCH_NODE_PROTOCOL_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace grapnel {

constexpr char kPing[] = "ping";
constexpr char kWelcome[] = "welcome";
constexpr char kRefused[] = "refused ";  // And why.

// What has to be equal on all nodes, and who speaks.
struct Hello {
  int node_rank = 0;
  int nnodes = 0;
  int nproc_per_node = 0;
  int max_restarts = 0;
};

std::string Encode(const Hello& hello);
absl::StatusOr<Hello> DecodeHello(absl::string_view line);

// kInvalidArgument names the flag and both values. `mine` is node 0's.
absl::Status CheckHello(const Hello& mine, const Hello& theirs);

// Why an attempt came to nothing.
struct Failure {
  int rank = -1;  // -1: none in particular, as of a node that is lost.
  int exit_code = 0;
  bool is_final = false;  // Another attempt would come to the same.
  std::string text;       // "rank 3 failed with exit code 1: its last line"
};

// Of a node to node 0.
struct Report {
  enum class Kind {
    kSignal,  // `signal` asked this node to stop.
    kFailed,  // `failure` in `attempt`.
    kDone,    // All ranks of this node ended well, and nothing is left of them.
    kStopped,  // All ranks of this node ended, because they had to.
  };

  Kind kind = Kind::kDone;
  int attempt = 0;
  int signal = 0;
  Failure failure;
};

std::string Encode(const Report& report);
absl::StatusOr<Report> DecodeReport(absl::string_view line);

// Of node 0 to all nodes, itself among them.
struct Command {
  enum class Kind {
    kStart,  // All ranks, as `attempt`; after the first because of `failure`.
    kStop,   // Pass `signal` on to ranks; SIGKILL: and at once.
    kEnd,    // Everything, with `exit_code`, because of `failure` if there is
             // one.
  };

  Kind kind = Kind::kStart;
  int attempt = 0;
  int signal = 0;
  int exit_code = 0;
  int master_port = 0;
  bool resume = false;
  std::string run_id;
  Failure failure;
};

std::string Encode(const Command& command);
absl::StatusOr<Command> DecodeCommand(absl::string_view line);

// Decides for all nodes. It does nothing itself: what it returns is to be sent
// to all nodes, in this order. kStart leaves port, run id and `resume` to the
// caller. Thread-compatible.
class Coordinator {
 public:
  Coordinator(int nnodes, int max_restarts, std::vector<int> final_exit_codes);

  // All nodes have joined.
  std::vector<Command> Begin();

  // What `node`, in 0..nnodes - 1, reports.
  std::vector<Command> OnReport(int node, const Report& report);

  // Node `node` is lost, because of `why`: the end of the run.
  std::vector<Command> OnLost(int node, absl::string_view why);

  int attempt() const { return attempt_; }

 private:
  std::vector<Command> Decide();
  Command Stop(int signal) const;
  Command End(int exit_code);

  const int max_restarts_;
  const std::vector<int> final_exit_codes_;
  int attempt_ = 0;
  bool begun_ = false;
  int asked_ = 0;  // The signal that asked the run to end.
  bool stopping_ = false;
  bool ended_ = false;
  std::optional<Failure> failure_;  // The first of this attempt.
  std::vector<bool> finished_;      // Nodes, in this attempt.
};

}  // namespace grapnel

#endif  // GRAPNEL_TOOLS_LAUNCH_NODE_PROTOCOL_H_
