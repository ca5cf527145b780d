#ifndef GRAPNEL_HOOKS_PROFILER_PROFILER_HOOK_H_
#define GRAPNEL_HOOKS_PROFILER_PROFILER_HOOK_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "grapnel/hooks/profiler/profiler_hook.pb.h"
#include "grapnel/runner/hook.h"

namespace grapnel {

class KinetoRecorder;

// Profiles the first training epoch or iterations of this process with
// LibTorch's Kineto, and writes what it saw as Chrome traces.
//
// Kineto is one for the process: while another profile is going on, by this
// hook of another runner or by the program itself, training ends with
// kFailedPrecondition. Traces are written through a temporary file in $TMPDIR.
class ProfilerHook final : public Hook {
 public:
  using Config = hooks::v1::ProfilerHookConfig;

  // kInvalidArgument, naming the field, for a config that breaks a rule stated
  // in profiler_hook.proto.
  static absl::StatusOr<std::unique_ptr<ProfilerHook>> Create(
      const Config& config);

  // Drops what is being recorded.
  ~ProfilerHook() override;

  absl::string_view name() const override { return "profiler"; }

  // A step ends after what the other hooks do in it.
  Priority priority() const override { return Priority::kVeryLow; }

  absl::Status BeforeTrain(RunContext& run) override;
  absl::Status BeforeTrainEpoch(RunContext& run) override;
  absl::Status AfterTrainIter(RunContext& run, const IterInfo& info,
                              const LogVars& log_vars) override;
  absl::Status AfterTrainEpoch(RunContext& run) override;
  void OnError(RunContext& run, const absl::Status& error) override;

 private:
  // What is done in a step.
  enum class Action { kNone, kWarmUp, kRecord };
  struct Step {
    Action action = Action::kNone;
    int64_t window = 0;  // Steps of one window are one trace.
  };

  explicit ProfilerHook(const Config& config);

  Step StepAt(int64_t step) const;

  // Ends what the step before was part of, and begins the step `next_step_`.
  absl::Status BeginStep(RunContext& run);

  // Ends the profile for good, and writes what was recorded.
  absl::Status Finish(RunContext& run);

  // Stops recording and writes the trace.
  absl::Status WriteTrace(RunContext& run);
  std::string TbTracePath(RunContext& run) const;
  std::string JsonTracePath(RunContext& run) const;

  const Config config_;  // With defaults filled in.
  // Null before and after the profile.
  std::unique_ptr<KinetoRecorder> recorder_;
  bool done_ = false;
  int64_t next_step_ = 0;
  Step current_;
  int64_t recorded_ = 0;  // Steps of the current trace that are complete.
  int64_t written_ = 0;   // Traces.
};

}  // namespace grapnel

#endif  // GRAPNEL_HOOKS_PROFILER_PROFILER_HOOK_H_
