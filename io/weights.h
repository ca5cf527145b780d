// Weights from any file or folder that holds some: the one door for formats.

#ifndef GRAPNEL_IO_WEIGHTS_H_
#define GRAPNEL_IO_WEIGHTS_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/env.h"

namespace grapnel {
namespace io {

// The tensors of a model, on the CPU and in memory of their own. `path` is
//   a checkpoint's directory: its section "model";
//   a file that ends in .safetensors: all of it.
// kNotFound if there is nothing at `path`, kInvalidArgument if it is something
// else or has no section "model"; also fails as ReadCheckpoint and
// ReadSafetensors do.
// Messages name `path`.
absl::StatusOr<TensorMap> ReadWeights(Env& env, const std::string& path);

// The same with what else is at `path`: the averages of a checkpoint, for
// example. There is always a section "model"; from a file there is nothing but
// that, and the manifest is empty.
absl::StatusOr<CheckpointContents> ReadWeightsAndMore(Env& env,
                                                      const std::string& path);

// Whether `path`, which need not exist, is by its name a file of weights alone:
// nothing that a run could go on from.
bool IsWeightsFile(absl::string_view path);

}  // namespace io
}  // namespace grapnel

#endif  // GRAPNEL_IO_WEIGHTS_H_
