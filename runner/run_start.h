// What a run of a configuration begins with, as a checkpoint.

#ifndef GRAPNEL_RUNNER_RUN_START_H_
#define GRAPNEL_RUNNER_RUN_START_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/runner/runner.h"

namespace grapnel::runner::v1 {
class RunnerConfig;
}  // namespace grapnel::runner::v1

namespace grapnel {

struct RunStart {
  // What a checkpoint before the first iteration would hold: the weights that
  // the run begins with, its groups of parameters, schedules and data. Without
  // averages, hooks' states and where generators are.
  io::CheckpointContents contents;

  // The model's parameters, frozen ones too, in its order.
  std::vector<std::string> parameters;

  // Of the run's averages the names, which are their sections', the one that
  // is evaluated first.
  std::vector<std::string> averages;
};

// Makes the run and throws it away: nothing is written, and its folders need
// not be free. Errors and meaning are Runner::Create's, but `resume` and
// `load_from` don't count; kInvalidArgument if the configuration doesn't train.
// options.env is only read; options.log, terminal_fd and log_in_background
// don't count.
absl::StatusOr<RunStart> CaptureRunStart(const runner::v1::RunnerConfig& config,
                                         RunnerOptions options);

}  // namespace grapnel

#endif  // GRAPNEL_RUNNER_RUN_START_H_
