// Processes that train together, over LibTorch's own engine for it (c10d).

#ifndef GRAPNEL_DIST_C10D_PROCESS_GROUP_H_
#define GRAPNEL_DIST_C10D_PROCESS_GROUP_H_

#include <atomic>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "c10/core/Device.h"
#include "grapnel/dist/place.h"
#include "grapnel/dist/process_group.h"

namespace grapnel {

struct JoinOptions {
  // How long this rank waits for the others to come. From 1 s to a day.
  absl::Duration join_timeout = absl::Minutes(5);

  // How long a collective waits for the slowest rank: longer than the longest
  // work that one rank does alone, a save or a validation. From 1 ms to a day.
  absl::Duration timeout = absl::Minutes(30);

  // Where the tensors of the collectives are. On a device of CUDA they go by
  // NCCL, which kUnimplemented says this build is without; on any other but the
  // CPU they go through the CPU. If it is the CPU, so do those of the one kind
  // of accelerator that may be there.
  c10::Device device = c10::kCPU;

  // What a signal handler sets; may be null. Once it isn't 0, joining is given
  // up. Not owned; of no use after that.
  const std::atomic<int>* interrupt = nullptr;

  // For collectives amid a gradient reducer's, as in a backward pass: gives the
  // group connections of its own beside those of its c10d_group(), so that
  // ranks needn't mix the two in the same order. NCCL has one order all the
  // same.
  bool own_connections = false;
};

// The group of the processes that `place` speaks of. Returns once all of them
// have called it; a process alone gets a SingleProcessGroup. Fails, within
// join_timeout + 10 s, with
//
//   kDeadlineExceeded    nobody answers at the master's address, or the ranks
//                        that the message names didn't come
//   kFailedPrecondition  the master's port is in use, what listens there is no
//                        store of c10d, its host has no address, or another
//                        rank was built with other versions, or has another
//                        own_connections
//   kInvalidArgument     an option, or another rank was told of another number
//                        of ranks
//   kAlreadyExists       another process has joined as this rank
//   kUnavailable         another rank failed: its message
//   kCancelled           "joining as rank 1 of 2: interrupted"
//
// Ranks meet in a store of keys that rank 0, or the launcher, has at the
// master's address; gloo's own connections are between all machines. Those use
// the address of this host's name, 127.0.0.1 if the master is there, or that of
// the interface GLOO_SOCKET_IFNAME.
//
// Every collective first compares what the ranks call, so that ranks that call
// different ones, or with different tensors, all get kInvalidArgument; that
// costs one more exchange of a few hundred bytes. A collective that fails
// closes this rank's connections, so that what the others wait in fails too,
// and takes up to 2 s more to find out why: the first failure that was
// reported, or else which ranks give no sign of life.
//
// A process that has several groups at a time, each on a thread, must be
// started with TORCH_FR_BUFFER_SIZE=0: c10d's record of collectives, one for
// the process, isn't safe then (LibTorch 2.11).
//
// A group has a thread of its own, `grapnel-store`, and those of gloo. Its
// destructor waits up to 2 s for the other ranks to end theirs: connections
// that are closed while a peer still reads lose what it reads. If a collective
// was left behind by another thread, it waits for that too, up to `timeout`.
absl::StatusOr<std::unique_ptr<ProcessGroup>> JoinProcessGroup(
    const Place& place, const JoinOptions& options = {});

}  // namespace grapnel

#endif  // GRAPNEL_DIST_C10D_PROCESS_GROUP_H_
