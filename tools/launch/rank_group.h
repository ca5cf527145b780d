// The ranks of one node in one attempt.

#ifndef GRAPNEL_TOOLS_LAUNCH_RANK_GROUP_H_
#define GRAPNEL_TOOLS_LAUNCH_RANK_GROUP_H_

#include <poll.h>
#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "grapnel/tools/launch/rank_output.h"
#include "grapnel/tools/launch/sockets.h"
#include "grapnel/tools/launch/start_program.h"

namespace grapnel {

struct RankGroupOptions {
  std::vector<std::string> command;
  // NAME=VALUE, for all ranks. RANK and LOCAL_RANK, and ROLE_RANK, which is
  // RANK, come on top.
  std::vector<std::string> environment;
  int first_rank = 0;
  int size = 1;
  std::string log_dir;  // "": to the sinks.
  SignalState signals;
};

// Rank processes, each with a process group of its own, that the system kills
// when the calling thread ends. Thread-compatible.
class RankGroup {
 public:
  // Starts them. The sinks have to outlive it. kInvalidArgument names a log
  // file, kFailedPrecondition the program if it can't be run; then those that
  // were started are killed, but not waited for.
  static absl::StatusOr<std::unique_ptr<RankGroup>> Start(
      const RankGroupOptions& options, OutputSink& out, OutputSink& err);

  ~RankGroup();

  RankGroup(const RankGroup&) = delete;
  RankGroup& operator=(const RankGroup&) = delete;

  // How many have not ended.
  int running() const { return running_; }

  // Says how process `pid` ended, of which waitpid told `wait_status`. The rank
  // of the process, or -1 if it is none of these.
  int OnEnded(pid_t pid, int wait_status);

  // Wait status of a rank that ended.
  int wait_status(int rank) const { return at(rank).wait_status; }

  // To the processes themselves, and not what they started.
  void Signal(int signal);

  // SIGKILL, to their process groups too.
  void Kill();

  // Appends descriptors that have output, but those whose sink is full; in turn
  // another one comes first.
  void AddPolls(std::vector<pollfd>* polls);

  // Passes on what `fd`, one of those of AddPolls, has to give, up to a bound.
  void OnReadable(int fd);

  // Passes on what `rank` has written so far, also to a full sink.
  void Drain(int rank);

  // Passes on all that is left, last lines without an end too.
  void Finish();

  // The last lines that `rank` wrote, of stderr or, if there are none, stdout.
  std::vector<std::string> LastLinesOf(int rank) const;

 private:
  struct Stream {
    OwnedFd pipe;  // Without log_dir, until its end.
    std::unique_ptr<LineSplitter> lines;
    OutputSink* sink = nullptr;
    int source = 0;  // Of the sink.
    std::string tail;
    std::string log_path;
    int64_t log_start = 0;
  };

  struct Rank {
    pid_t pid = -1;
    bool ended = false;
    int wait_status = 0;
    Stream streams[2];  // stdout, stderr
  };

  RankGroup(const RankGroupOptions& options, OutputSink& out, OutputSink& err);

  absl::Status StartRank(int local_rank);
  bool ReadOnce(Stream* stream);
  const Rank& at(int rank) const { return ranks_[rank - options_.first_rank]; }

  const RankGroupOptions options_;
  OutputSink& out_;
  OutputSink& err_;
  std::vector<Rank> ranks_;
  int running_ = 0;
  size_t first_polled_ = 0;
};

}  // namespace grapnel

#endif  // GRAPNEL_TOOLS_LAUNCH_RANK_GROUP_H_
