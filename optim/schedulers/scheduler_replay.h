// Schedulers of a run that goes on, perhaps with other settings.

#ifndef GRAPNEL_OPTIM_SCHEDULERS_SCHEDULER_REPLAY_H_
#define GRAPNEL_OPTIM_SCHEDULERS_SCHEDULER_REPLAY_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "google/protobuf/repeated_ptr_field.h"
#include "grapnel/optim/param_groups.h"
#include "grapnel/optim/param_scheduler.h"

namespace grapnel::optim::v1 {
class ParamSchedulerState;
}  // namespace grapnel::optim::v1

namespace grapnel {

// Where a run goes on.
struct ResumePoint {
  // From here on epochs are so long.
  struct EpochLength {
    int64_t epoch;  // Epochs before it.
    int64_t iter;   // Iterations before it.
    int64_t num_batches;
  };

  int64_t epochs = 0;  // Done.
  int64_t iters = 0;

  // Iterations of an epoch. 0: steps of epochs come after all iterations, as in
  // a loop that counts iterations only.
  int64_t epoch_length = 0;

  // False if the optimizer starts again: its options don't have the values that
  // belong to the states.
  bool options_restored = true;

  // For a run whose epochs changed their length, or which counts iterations
  // only; epochs are passes of the data then. In order, from {0, 0, ...} on.
  // Empty: all have epoch_length.
  std::vector<EpochLength> lengths = {};

  // The step that converted schedules are at, by the present length of epochs
  // and by the one that the states are of. -1: that of their states.
  int64_t converted = -1;
  int64_t saved_converted = -1;

  // How long the run is, and was to be.
  RunLength length = {};
  RunLength saved_length = {};
};

// Takes over `states`, which SaveState gave for the schedulers that the run had
// so far, in their order. Call after the optimizer's state was loaded, instead
// of Apply; `options` is what that came to.
//
// An option whose schedulers are of the same kinds and settings goes on from
// the states. Else the config wins: all schedulers of the option are replayed,
// from the base values (of the states or, if it is known that options were made
// with what is configured, their own), to the step that the states stand at
// (`point` says it of a unit that none of them counted in), interleaved as a
// loop does, and the option gets the value that this run would have had with
// these settings from its beginning. So is a converted schedule whose epochs
// have another length. Metrics can't be had again: schedulers with a monitor
// keep what they have learned, and move the option where they once did. One
// warning then names every setting that differs, old and new. An option that
// has no scheduler any more keeps its value, with a warning.
//
// An option that is reset in some groups is replayed too; the other groups keep
// their values.
//
// A schedule of the same settings that now ends behind the run, and did not
// before, is named in a warning.
//
// A million steps take some 0.03 s a scheduler.
//   kInvalidArgument: a state that isn't one, naming it.
absl::Status RestoreSchedulers(
    absl::Span<const std::unique_ptr<ParamScheduler>> schedulers,
    const google::protobuf::RepeatedPtrField<optim::v1::ParamSchedulerState>&
        states,
    const ResumePoint& point, const RestoredOptions& options,
    std::vector<std::string>* warnings);

}  // namespace grapnel

#endif  // GRAPNEL_OPTIM_SCHEDULERS_SCHEDULER_REPLAY_H_
