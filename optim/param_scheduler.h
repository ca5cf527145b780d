// Schedules of learning rates and other numbers of an optimizer.

#ifndef GRAPNEL_OPTIM_PARAM_SCHEDULER_H_
#define GRAPNEL_OPTIM_PARAM_SCHEDULER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "grapnel/base/registry.h"
#include "grapnel/optim/param_groups.h"
#include "grapnel/optim/param_scheduler.pb.h"

namespace grapnel {

// How long the run is: what an unset `end` means, and what an epoch is in
// iterations. -1: not known.
struct RunLength {
  int64_t max_epochs = -1;
  int64_t max_iters = -1;
  int64_t epoch_length = -1;
};

// Moves one option of every parameter group, by a recurrence on its current
// value, so that schedulers of one option chain (parity.md 4.1).
//
// Construction writes nothing: it notes the option's values as the base values,
// so construct all schedulers before applying the first. Apply() writes the
// value of step 0, Step() those of the steps after it. Usable without a runner,
// on any ParamGroups. Thread-compatible.
//
// To add one: derive from WindowedScheduler, schedulers/linear.cc is the file
// to imitate.
class ParamScheduler {
 public:
  virtual ~ParamScheduler() = default;

  // The option: "lr", ...
  virtual const std::string& param_name() const = 0;

  // True if Step is to be called after every epoch, else after every iteration.
  virtual bool by_epoch() const = 0;

  // Writes step 0. Call before training, schedulers of one option in their
  // order. Does nothing if step 0 is done, by an earlier call or in the state
  // that LoadState took.
  virtual void Apply() = 0;

  virtual void Step() = 0;

  // Steps taken, Apply left out.
  virtual int64_t num_steps() const = 0;

  // State, not the option's value: that is the optimizer's. LoadState checks
  // the type and the option's name; kInvalidArgument if they differ.
  virtual absl::Status SaveState(
      optim::v1::ParamSchedulerState* state) const = 0;
  virtual absl::Status LoadState(
      const optim::v1::ParamSchedulerState& state) = 0;

  // True if the state that LoadState took was saved with other settings. This
  // object's settings hold from there on.
  virtual bool settings_changed() const { return false; }
};

struct ParamSchedulerTraits {
  using Product = ParamScheduler;
  static constexpr char kWhat[] = "param_scheduler";
};

// `groups` outlives the scheduler.
using ParamSchedulerRegistry =
    Registry<ParamSchedulerTraits, ParamGroups&, const RunLength&>;

}  // namespace grapnel

#endif  // GRAPNEL_OPTIM_PARAM_SCHEDULER_H_
