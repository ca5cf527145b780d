// A run's checkpoint as one .pth file that Python's trainings go on from. The
// way back is runner/training_pth.h.

#ifndef GRAPNEL_RUNNER_TRAINING_PTH_WRITER_H_
#define GRAPNEL_RUNNER_TRAINING_PTH_WRITER_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/env.h"

namespace grapnel {

struct TrainingPthOptions {
  enum class Groups {
    // MMEngine's: with paramwise_cfg a group for each parameter that is
    // trained, else one for all, frozen ones included.
    kMMEngine,
    // The run's own, of what is trained.
    kOwn,
  };
  Groups groups = Groups::kMMEngine;

  // False: the file has no optimizer and no schedules.
  bool optimizer = true;
};

// Writes what a run's checkpoint holds in MMEngine's layout, of nothing but
// tensors, numbers and strings: an unpatched MMEngine resumes from it, and
// torch.load(weights_only=True) reads it.
//
//   meta              epoch, iter, seed, grapnel_version, grapnel_config
//   state_dict        OrderedDict; the average, where there is one
//   ema_state_dict    where there is one: the trained weights as
//                     "module.<name>" and "steps"
//   optimizer         torch.optim's state_dict; of several one for each name
//   param_schedulers  settings, last_step, _global_step, ...
//   message_hub       log_scalars, empty; runtime_info; resumed_keys
//
// What MMEngine has no place for is named in `*warnings`, not null: a
// half-filled accumulation window, generators, histories, hooks' states.
//   kInvalidArgument: a checkpoint without state, which is of no run, or of a
//     loop that somebody has written by hand; an optimizer that Python's
//     doesn't have.
//   kDataLoss: its state can't be read. Else as PthWriter.
absl::Status WriteTrainingPth(io::Env& env, const std::string& path,
                              const io::CheckpointContents& contents,
                              const TrainingPthOptions& options,
                              std::vector<std::string>* warnings);

}  // namespace grapnel

#endif  // GRAPNEL_RUNNER_TRAINING_PTH_WRITER_H_
