// From histories to lines and records, in MMEngine's formats
// (docs/from_mmengine.md, section 2).

#ifndef GRAPNEL_RUNNER_LOG_PROCESSOR_H_
#define GRAPNEL_RUNNER_LOG_PROCESSOR_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "grapnel/loggers/log_backend.h"
#include "grapnel/models/metric.h"
#include "grapnel/runner/message_hub.h"
#include "grapnel/runner/mode.h"

namespace grapnel::runner::v1 {
class LogProcessorConfig;
}  // namespace grapnel::runner::v1

namespace grapnel {

class ProcessGroup;

// Where the run is, for a line. Counts of completed units, except batch_idx.
struct LogPosition {
  int64_t epoch = 0;
  int64_t iter = 0;
  int64_t batch_idx = 0;    // 0-based, of the batch that has just been done.
  int64_t num_batches = 0;  // Of this loop's data.
  int64_t max_epochs = 0;
  int64_t max_iters = 0;
  bool has_train_loop = true;  // False in a standalone validation or test.
  // The record of a validation has `epoch` as its step, else `iter`.
  bool step_by_epoch = true;
};

// What there is to say about an iteration: numbers, no text yet.
struct IterNumbers {
  Mode mode = Mode::kTrain;
  LogPosition position;
  // Names without mode; valid as long as hub and processor.
  std::vector<std::pair<absl::string_view, double>> tags;
  std::optional<double> eta_seconds;
  std::optional<int64_t> memory_mb;
};

// Reads scalars "<mode>/...", and of the hub's facts "eta", seconds left of the
// loop that is running, and "memory", the most MB that were in use on the
// device; either may be missing. A training line's windows reach back over the
// beginning of the epoch, an evaluation's, but for those of custom_cfg, do not:
// the loop's owner calls MessageHub::BeginEpoch. Thread-compatible.
class LogProcessor {
 public:
  // `by_epoch`: what an unset by_epoch means. Errors name the field.
  static absl::StatusOr<std::unique_ptr<LogProcessor>> Create(
      const runner::v1::LogProcessorConfig& config, bool by_epoch);

  virtual ~LogProcessor() = default;

  // Asks the hub to keep what the windows need. Call once, before anything is
  // added.
  virtual void Setup(MessageHub& hub) = 0;

  // Replaces `*numbers` by those of an iteration. Where formatting them is left
  // to another thread, this is what the training thread does.
  virtual absl::Status ReadIter(Mode mode, const LogPosition& position,
                                const MessageHub& hub,
                                IterNumbers* numbers) = 0;

  // With reduce_logged, the numbers of a training's iteration become their
  // means over all ranks; a number that all have in common keeps its bits.
  // Then, but for one rank, it is a collective. kFailedPrecondition, naming it,
  // if one rank has a name that another one hasn't. Does nothing for an
  // evaluation, which needn't have as many batches on each.
  virtual absl::Status ReduceIter(ProcessGroup& group,
                                  IterNumbers* numbers) = 0;

  // The line and the record of an iteration. `*line` and `*record` are
  // replaced; `record` may be null, and is left empty for val and test, which
  // have none. Safe to call from another thread than the other functions.
  virtual void FormatIter(const IterNumbers& numbers, std::string* line,
                          Record* record) const = 0;

  // The line and the record of a whole validation or test. Metrics come as they
  // were measured: validation is never smoothed (docs/from_mmengine.md, c17).
  // Texts among them are in the line only. `time` and `data_time` are means
  // over this epoch's iterations. kInvalidArgument for training.
  virtual absl::Status FormatEpoch(Mode mode, const LogPosition& position,
                                   const Metrics& metrics,
                                   const MessageHub& hub, std::string* line,
                                   Record* record) = 0;
};

// "0:01:05", "1 day, 0:00:00": whole seconds, cut. Less than 0, and NaN, are 0.
std::string FormatEta(double seconds);

}  // namespace grapnel

#endif  // GRAPNEL_RUNNER_LOG_PROCESSOR_H_
