// Weights from any file or folder that holds some: the one door for formats.
//
// Example:
//
//   io::Env& env = io::Env::Posix();
//   const torch::nn::Linear net(3, 2);
//   TensorMap ones;
//   GRAPNEL_RETURN_IF_ERROR(ones.Add("weight", torch::ones({2, 3})));
//   GRAPNEL_RETURN_IF_ERROR(ones.Add("bias", torch::ones({2})));
//   GRAPNEL_RETURN_IF_ERROR(
//       io::WriteSafetensors(env, "net.safetensors", ones).status());
//   // Or of "net.pth", "epoch_1", ...
//   GRAPNEL_ASSIGN_OR_RETURN(const TensorMap weights,
//                            io::ReadWeights(env, "net.safetensors"));
//   GRAPNEL_RETURN_IF_ERROR(LoadTensors(
//       weights, /*strict=*/true, NamedParameters(*net), /*report=*/nullptr));
//   GRAPNEL_RET_CHECK(torch::equal(net->bias, torch::ones({2})));

#ifndef GRAPNEL_IO_WEIGHTS_H_
#define GRAPNEL_IO_WEIGHTS_H_

#include <string>

#include "absl/status/statusor.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/env.h"

namespace grapnel {
namespace io {

enum class WeightsFormat {
  kCheckpoint,   // A directory with a manifest.
  kSafetensors,  // A file.
  kPth,          // A file of torch.save: see pth.h.
  kShardIndex,   // A file of JSON, beside those that it lists:
                 // sharded_weights.h.
};

struct WeightsSource {
  WeightsFormat format;
  std::string path;  // The directory or file of that format.
};

// What is at `path`, by its content and not by its name: a checkpoint, a file
// of any of the formats, or a folder of a model hub, which has one of
// model.safetensors, model.safetensors.index.json, pytorch_model.bin and
// pytorch_model.bin.index.json, the first of these. Only the first bytes are
// looked at.
//   kNotFound: nothing is at `path`, or a directory that is none of these.
//   kInvalidArgument: a file of something else. Says what was looked for.
absl::StatusOr<WeightsSource> FindWeights(Env& env, const std::string& path);

// The tensors of a model, on the CPU and in no other's memory. `path` is as
// FindWeights takes it. Of a checkpoint these are the section "model". Of all
// else they have the model's own names, whatever the format: WithoutWrappers
// takes off what DataParallel and others put in front (python_layouts.h). In
// torch.save's files they are where FindStateDict finds them, and may share
// storage with each other.
// Fails as FindWeights and as the formats' own functions do; kInvalidArgument
// also if a checkpoint has no section "model". Messages name `path`.
absl::StatusOr<TensorMap> ReadWeights(Env& env, const std::string& path);

// The same with what else is at `path`: the averages of a checkpoint, for
// example. There is always a section "model"; of all that is no checkpoint
// there is nothing but that, and the manifest is empty. Only if Python's
// weights are averaged ones there is a section "ema" too, equal to "model": an
// evaluation by one or the other gives what Python's gives.
absl::StatusOr<CheckpointContents> ReadWeightsAndMore(Env& env,
                                                      const std::string& path);

}  // namespace io
}  // namespace grapnel

#endif  // GRAPNEL_IO_WEIGHTS_H_
