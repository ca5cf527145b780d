// LibTorch's profiler, Kineto, without its headers.

#ifndef GRAPNEL_HOOKS_PROFILER_KINETO_RECORDER_H_
#define GRAPNEL_HOOKS_PROFILER_KINETO_RECORDER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "grapnel/hooks/profiler/op_table.h"

namespace grapnel {

// What was recorded from a Start to its Stop.
class KinetoRecording {
 public:
  ~KinetoRecording();

  std::vector<OpCall> CpuCalls() const;

  // In Chrome's format. Goes through a file in $TMPDIR: kUnavailable if there
  // can be none.
  absl::StatusOr<std::string> Trace() const;

 private:
  friend class KinetoRecorder;
  struct Impl;
  explicit KinetoRecording(std::unique_ptr<Impl> impl);

  const std::unique_ptr<Impl> impl_;
};

// Kineto, while this has it: there is one for the process. Ends on the thread
// that it began on. Thread-compatible.
class KinetoRecorder {
 public:
  struct Options {
    bool cpu = true;
    bool cuda = false;
    bool record_shapes = false;
    bool profile_memory = false;
    bool with_stack = false;
    bool with_flops = false;
  };

  // kFailedPrecondition if somebody in the process is profiling.
  static absl::StatusOr<std::unique_ptr<KinetoRecorder>> Create(
      const Options& options);

  KinetoRecorder(const KinetoRecorder&) = delete;
  KinetoRecorder& operator=(const KinetoRecorder&) = delete;

  // Drops what is being recorded.
  ~KinetoRecorder();

  // Gets Kineto ready, recording and dropping. Errors, here and below, are
  // LibTorch's.
  absl::Status WarmUp();

  // Does what WarmUp does, if need be. Stop is for what was started. With cuda
  // both wait for the thread's current device, so that what is recorded of it
  // is what was launched between the two.
  absl::Status Start();
  absl::StatusOr<std::unique_ptr<KinetoRecording>> Stop();
  bool recording() const;

  // What lies between the two is one step in the trace.
  void BeginStep(int64_t step);
  void EndStep();

 private:
  struct Impl;
  explicit KinetoRecorder(std::unique_ptr<Impl> impl);

  const std::unique_ptr<Impl> impl_;
};

}  // namespace grapnel

#endif  // GRAPNEL_HOOKS_PROFILER_KINETO_RECORDER_H_
