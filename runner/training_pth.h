// Trainings of Python's go on here: what is in a .pth file, as a checkpoint.
// The way back is runner/training_pth_writer.h.
//
// A file is read by io::PthFile, and what goes on from it is a checkpoint as
// any other: io::WriteCheckpoint writes it, `resume` with `load_from` takes it.

#ifndef GRAPNEL_RUNNER_TRAINING_PTH_H_
#define GRAPNEL_RUNNER_TRAINING_PTH_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/pth.h"
#include "grapnel/runner/run_start.h"

namespace grapnel {

struct TrainingImportOptions {
  // Epochs and iterations done, in place of what the file says; of a run by
  // epoch one of them alone gives the other.
  std::optional<int64_t> epoch, iter;

  // False: the optimizer starts from scratch.
  bool optimizer = true;
};

// The checkpoint that a run of `start`'s configuration goes on from, out of the
// file of a training in Python, read with PthOptions::allow_foreign: weights,
// optimizer, schedules, averages, counters, seed and histories. The file is
//   MMEngine's: meta, state_dict, optimizer, param_schedulers, message_hub,
//     ema_state_dict;
//   Lightning's: state_dict, optimizer_states, lr_schedulers, epoch,
//     global_step;
//   that of a loop written by hand: the state_dict of the model as model,
//     model_state_dict or state_dict; that of the optimizer as optimizer,
//     optimizer_state_dict or optim; epoch, iter, step or global_step; of
//     torch.optim.swa_utils.AveragedModel, or of what is like it, as any name.
//
// Tensors go by name, once load_options of the configuration have left out and
// renamed; weights must be all of the model. The optimizer's go by the place of
// the parameter in the file's model, or by param_names where it has them. A
// schedule of the same kind and settings goes on where it stood, another one is
// replayed when the run resumes.
//
// What can't be known is said in `*warnings`, not null: where generators and
// the data's order stood, best checkpoints, hooks' states.
//   kInvalidArgument, naming what: there are no weights, or others than the
//     model's; an optimizer of another kind, or whose parameters can't be told;
//     counters that contradict each other; options that contradict each other
//     or the configuration, which of a file is a warning.
absl::StatusOr<io::CheckpointContents> ImportTraining(
    const io::PthValue& file, const RunStart& start,
    const TrainingImportOptions& options, std::vector<std::string>* warnings);

}  // namespace grapnel

#endif  // GRAPNEL_RUNNER_TRAINING_PTH_H_
