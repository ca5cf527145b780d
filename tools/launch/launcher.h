// Starts the processes (ranks) that train one model together, watches over
// them, and leaves none behind.
//
// The calling process only passes signals on. It forks a keeper, which starts
// the ranks as its children:
//
//   caller --+-- keeper --+-- rank 0 -- what it started
//                         +-- rank 1 ...
//
// The keeper adopts what ranks leave behind. When the caller goes, however it
// does, the keeper kills all below it and goes as well; when the keeper is
// killed, the system kills the ranks and the caller what they had started.
//
// On several nodes a launcher runs on each, and those of other nodes connect to
// node 0's (node_protocol.h). It decides for all, so ranks everywhere are in
// the same attempt.

#ifndef GRAPNEL_TOOLS_LAUNCH_LAUNCHER_H_
#define GRAPNEL_TOOLS_LAUNCH_LAUNCHER_H_

#include <functional>
#include <string>
#include <vector>

#include "absl/time/time.h"

namespace grapnel {

// Two pipes a rank, below the usual 1024 descriptors of a process.
constexpr int kMaxRanksPerNode = 256;
constexpr int kMaxNodes = 1024;

struct LaunchOptions {
  int nproc_per_node = 1;  // 1..kMaxRanksPerNode. The same on all nodes.
  int nnodes = 1;          // 1..kMaxNodes
  int node_rank = 0;       // 0..nnodes - 1
  // Node 0's host; "": 127.0.0.1, for one node.
  std::string master_addr;
  // On several nodes, where node 0's launcher listens; rank 0 gets a free port.
  // On one, rank 0's, or 0: a free one. A free one is another in each attempt,
  // and kept from others until rank 0 listens there.
  int master_port = 0;

  int max_restarts = 0;  // Node 0's counts.
  // From SIGTERM, or from a signal that was passed on, to SIGKILL.
  absl::Duration grace = absl::Seconds(30);
  // How long nodes wait for each other at the start.
  absl::Duration join_timeout = absl::Minutes(10);
  // A node that says nothing for so long is lost.
  absl::Duration silence_timeout = absl::Seconds(30);

  // Made if it isn't there. Ranks append to rank_<rank>.{stdout,stderr}.log in
  // it. "": rank 0's output is passed on as it is, the other ranks' goes to
  // stderr, each line with "[rank <rank>] " in front.
  std::string log_dir;

  // What each rank runs; the first is a path, or a name in PATH. Not empty.
  std::vector<std::string> command;
  // Runs in place of `command` after a restart, on all nodes, if `can_resume`
  // of node 0 returns true. It is called in the keeper.
  std::vector<std::string> resume_command;
  std::function<bool()> can_resume;
  // A rank that ends with one of these would do so again: no restart. The same
  // goes for those that were asked to end, by SIGINT or SIGTERM.
  std::vector<int> final_exit_codes;
};

// Runs ranks to their end, with what they have to be told in the variables that
// torchrun sets. OMP_NUM_THREADS is 1 if it isn't set and a node has several
// ranks. Standard input is empty.
//
// Returns what the process should: 0 if all ranks did; the exit code of the
// rank that failed first in the last attempt, 128 and its number for a signal;
// 128 + N if signal N, of SIGINT, SIGTERM and SIGHUP, asked it to stop; 2 if
// ranks can't be started as the options say; 1 if a node is lost. What is
// wrong is said on stderr, in lines that start with "grapnel: ".
//
// For a process without other threads, whose end is near: it takes the signals
// SIGCHLD, SIGINT, SIGTERM and SIGHUP, but those that are ignored.
int Launch(const LaunchOptions& options);

}  // namespace grapnel

#endif  // GRAPNEL_TOOLS_LAUNCH_LAUNCHER_H_
