// What a run did, event by event, as ResumeTraceHook writes it down.

#ifndef GRAPNEL_TOOLS_VERIFY_RESUME_RESUME_TRACE_H_
#define GRAPNEL_TOOLS_VERIFY_RESUME_RESUME_TRACE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace grapnel {

// In the work dir. One line an event, of all processes that ran there.
inline constexpr char kTraceFile[] = "verify_resume_trace";

// Kinds of events. Iterations are counted from 1 where one is under way, else
// as many as are done.
namespace trace {
inline constexpr char kStart[] = "start";  // A process begins.
inline constexpr char kTrain[] = "train";  // iter: where it goes on.
inline constexpr char kBeforeIter[] = "before_iter";
inline constexpr char kStep[] = "step";  // The optimizer's.
inline constexpr char kAfterIter[] = "after_iter";
inline constexpr char kBeforeVal[] = "before_val";
inline constexpr char kValBatch[] = "val_batch";
inline constexpr char kValStep[] = "val_step";  // Model and metrics had it.
inline constexpr char kAfterVal[] = "after_val";
inline constexpr char kBeforeSave[] = "before_save";
inline constexpr char kAfterSave[] = "after_save";
inline constexpr char kKill[] = "kill";  // The process kills itself now.
}  // namespace trace

// Names of fields; there are also "option/<name>", "log/<name>" and
// "metric/<name>", whose values are numbers. The others are digests.
namespace trace_field {
inline constexpr char kIndices[] = "indices";  // Of the batch's samples.
inline constexpr char kBatch[] = "batch";
inline constexpr char kOptions[] = "options";  // Of all parameter groups.
inline constexpr char kWeights[] = "weights";
inline constexpr char kBuffers[] = "buffers";
inline constexpr char kGenerator[] = "generator";  // The run's own.
// LibTorch's, which is no part of a run.
inline constexpr char kDefaultGenerator[] = "default_generator";
inline constexpr char kOption[] = "option/";
inline constexpr char kLog[] = "log/";
inline constexpr char kMetric[] = "metric/";
}  // namespace trace_field

struct TraceEvent {
  std::string kind;
  int64_t iter = 0;
  int64_t index = 0;  // Of several of a kind in one iteration or validation.
  int64_t nanos = 0;  // Of a clock that never goes back within a process.
  std::vector<std::pair<std::string, std::string>> fields;
};

// With its newline.
std::string FormatTraceEvent(const TraceEvent& event);

// A process's last line may have been cut short by its end: it is left out.
// kDataLoss, with the line's number, for any other that isn't one.
absl::StatusOr<std::vector<TraceEvent>> ParseTrace(absl::string_view text);

// When a process is to end itself with SIGKILL: `delay` after that event.
struct KillPoint {
  std::string kind;
  int64_t iter = 0;
  int64_t index = -1;  // -1: any.
  absl::Duration delay;
};

// The environment variable that every process of the runs has.
inline constexpr char kRunVariable[] = "GRAPNEL_VERIFY_RESUME_RUN";

// The environment variable that tells ResumeTraceHook.
inline constexpr char kKillVariable[] = "GRAPNEL_VERIFY_RESUME_KILL";

// "val_batch:28:3:1500", in microseconds.
std::string FormatKillPoint(const KillPoint& point);
std::optional<KillPoint> ParseKillPoint(absl::string_view text);

}  // namespace grapnel

#endif  // GRAPNEL_TOOLS_VERIFY_RESUME_RESUME_TRACE_H_
