// Where a model's weights are in what Python's programs give to torch.save.

#ifndef GRAPNEL_IO_PYTHON_LAYOUTS_H_
#define GRAPNEL_IO_PYTHON_LAYOUTS_H_

#include "absl/status/statusor.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/io/pth.h"

namespace grapnel {
namespace io {

struct PythonWeights {
  // Those that the file's own library evaluates: averaged ones, if there are.
  TensorMap tensors;
  bool averaged = false;
};

// "_extra_state" or "<module>._extra_state": what a module puts into its
// state_dict besides tensors, and what Grapnel has no use for.
bool IsExtraState(absl::string_view name);

// The weights in the value of a file:
//   a state_dict;
//   a dict that has one under "state_dict", "model" or "model_state_dict", the
//     first of them that is a dict with a tensor in it, as checkpoints of
//     MMEngine, Lightning and others do. They are averaged ones if there is
//     MMEngine's "ema_state_dict", or "current_model_state" of Lightning's
//     callback.
// A state_dict has names and tensors, as many as a checkpoint may have;
// "<module>._extra_state" may be anything. Names are as in the file.
//
// Tensors share storage where they do in the file. kInvalidArgument if it is
// something else: says what was looked for, and what is there.
// kResourceExhausted if there are too many.
absl::StatusOr<PythonWeights> FindStateDict(const PthValue& root);

// `weights` of a whole model by the model's own names. That of
// torch.optim.swa_utils.AveragedModel has "n_averaged", which goes, and
// "module." in front of all other names: they are averaged ones. If all begin
// with "module.", of DataParallel, or "_orig_mod.", of torch.compile, they lose
// that, each once. Tensors "_extra_state" and "<module>._extra_state" go.
// kInvalidArgument, naming the tensor, if a name is none that ReadSafetensors
// takes.
absl::StatusOr<PythonWeights> WithoutWrappers(const PythonWeights& weights);

// Both.
absl::StatusOr<PythonWeights> FindPythonWeights(const PthValue& root);

}  // namespace io
}  // namespace grapnel

#endif  // GRAPNEL_IO_PYTHON_LAYOUTS_H_
