// Where two runs of one configuration part.

#ifndef GRAPNEL_TOOLS_VERIFY_RESUME_RUN_DIFFERENCE_H_
#define GRAPNEL_TOOLS_VERIFY_RESUME_RUN_DIFFERENCE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "grapnel/tools/verify_resume/resume_trace.h"

namespace grapnel {

namespace io {
struct CheckpointContents;
}  // namespace io

struct RunDifference {
  enum class Source { kTrace, kRecord, kCheckpoint };

  Source source = Source::kTrace;
  // Of a trace: the event, and its field, "" for one that came in one of the
  // runs only. Of a record: its field, "" likewise. Of a checkpoint: the
  // section, or the field of RunState.
  std::string kind;
  std::string field;
  int64_t iter = 0;
  int process = 0;  // Of those of the second run, the first is 0.

  std::string item;   // "the batch", "the record \"loss\""
  std::string where;  // "before iteration 24", "at the end"
  // Empty where there is nothing that people could read.
  std::string expected;
  std::string actual;
  std::optional<double> max_abs;  // Largest difference of two numbers in it.
};

// What `actual`, several processes of one run, did otherwise than `expected`, a
// run of one process, in the order in which it was done, and then the first
// that never came.
std::vector<RunDifference> CompareTraces(
    const std::vector<TraceEvent>& expected,
    const std::vector<TraceEvent>& actual);

// A line of scalars.json: names and values as they stand there. kDataLoss if it
// is none.
absl::StatusOr<std::vector<std::pair<std::string, std::string>>> ParseRecord(
    absl::string_view line);

// Lines of scalars.json. `actual`: of each process of a run; the last line of
// one may be cut short. What is of the clock or of memory isn't compared.
absl::StatusOr<std::vector<RunDifference>> CompareRecords(
    const std::vector<std::string>& expected,
    const std::vector<std::vector<std::string>>& actual);

// Everything in them that isn't of the clock, in the order of the checkpoint:
// tensors to the bit, of each section the first that differs; state by its
// parts; progress and metrics. Both must be of this version.
absl::StatusOr<std::vector<RunDifference>> CompareCheckpoints(
    const io::CheckpointContents& expected,
    const io::CheckpointContents& actual);

// What CompareTraces, CompareRecords and CompareCheckpoints gave, in the order
// of the run, and of each item the first alone.
std::vector<RunDifference> InOrder(std::vector<RunDifference> differences);

}  // namespace grapnel

#endif  // GRAPNEL_TOOLS_VERIFY_RESUME_RUN_DIFFERENCE_H_
