// What is trained.
//
// N is the number of samples in a batch.

#ifndef GRAPNEL_MODELS_MODEL_H_
#define GRAPNEL_MODELS_MODEL_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ATen/core/Generator.h"
#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "c10/core/Device.h"
#include "grapnel/base/registry.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/data/sample.h"
#include "grapnel/models/log_vars.h"

namespace grapnel {

namespace io {
class Env;
}  // namespace io

class Loss;
class OptimWrapper;
class ProcessGroup;

// What a model says about a batch in evaluation.
struct Predictions {
  at::Tensor outputs;  // (N, ...), the model's own meaning; for a classifier
                       // (N, C) logits.
  LogVars losses;      // Scalars, or empty if there are no targets.

  // Targets of this value don't count. Unset if the model's loss has none.
  std::optional<int64_t> ignore_index;
};

// A network with its losses. Thread-compatible: the runner calls it from one
// thread. Exceptions of LibTorch come out as statuses.
class Model {
 public:
  virtual ~Model() = default;

  // One training step: forward and losses under optim.autocast(),
  // optim.Update(total, weight). Sets `*log_vars` to what is to be logged:
  // "loss", the total, first, then each loss.
  //
  // The default takes the losses of ComputeLosses, and the mean of those that
  // aren't scalars. Those whose name contains "loss" are summed for the total;
  // the others are only logged. One that is itself called "loss" goes into the
  // total and isn't listed again. kInvalidArgument if there is nothing to sum.
  //
  // The weight is batch.size(). If optim.wants_weight(), it is the weight of
  // the losses in the total, which is batch.size() for those without one;
  // kInvalidArgument if they differ. A weight on a device is waited for.
  //
  // A model with several optimizers overrides this, and updates each of them by
  // optim.Get(name).
  virtual absl::Status TrainStep(const Batch& batch, OptimWrapper& optim,
                                 LogVars* log_vars);

  // Appends the losses of a batch, in training mode and with autograd on. If
  // losses->wants_weights(), those with a weight other than batch.size() come
  // with it.
  virtual absl::Status ComputeLosses(const Batch& batch, LogVars* losses) = 0;

  // Replaces `*predictions` by those for a batch, in evaluation mode; autograd
  // is off even if the caller has it on. Targets may be undefined; then there
  // are no losses. Weights as in ComputeLosses.
  virtual absl::Status ValStep(const Batch& batch,
                               Predictions* predictions) = 0;

  // Brings the model's tensors to `device`, where it computes from now on; does
  // nothing if they are there. Before anyone asks for them: those that were
  // given out before may stay behind. The default is for a model that is made
  // where it stays: kFailedPrecondition, which names the first tensor that is
  // elsewhere.
  virtual absl::Status MoveTo(c10::Device device);

  // Parameters and buffers with their dotted names, as in Python's state_dict.
  // The same tensors for the life of the model, once it is where it stays.
  virtual const std::vector<NamedTensor>& parameters() const = 0;
  virtual const std::vector<NamedTensor>& buffers() const = 0;

  // Whether all random numbers that the model draws, in training and
  // evaluation, come from ModelOptions::generator and device_generator. If not,
  // a runner puts its generator in the place of LibTorch's default one for each
  // step of the model, under a lock of the process: such models are not stepped
  // in parallel.
  virtual bool has_own_generator() const { return false; }

  // Writes the model, with its weights, to a file in its own format, over an
  // existing one. kUnimplemented if it has no format of its own: weights are in
  // checkpoints.
  virtual absl::Status Export(const std::string& path);

  // Why a batch of one sample can't be trained on, naming the layer: "layers[3]
  // batch_norm1d: has ...". "" if it can, or if that isn't known. If it can't,
  // the runner refuses training data that leads to such a batch.
  virtual std::string NeedsTwoSamples() const { return ""; }

  // From now on batch norm in training is of the batches of all ranks of
  // `group`, of several, and each training step a collective: what a step needs
  // of it, forward and backward, all ranks do, in the same order. `group`
  // outlives that. kUnimplemented, the default, for a model that doesn't know
  // how.
  virtual absl::Status SyncBatchNorm(ProcessGroup& group);

  // Training or evaluation mode, of dropout, batch norm and the like. A new
  // model is in training mode.
  virtual void SetTraining(bool training) = 0;
  virtual bool training() const = 0;

 private:
  LogVars losses_;  // Of the current step; kept for its slots.
};

struct ModelOptions {
  std::string base_dir;  // Where relative paths start; see DatasetOptions.

  // Shape of one sample, without N, if it is known; empty if not. Lets a model
  // from config infer the sizes that its layers leave out.
  std::vector<int64_t> input_shape;

  // Where the model's tensors are and where it computes.
  c10::Device device = c10::DeviceType::CPU;

  // What the model draws random numbers from on the CPU: its initial weights,
  // wherever they go then, and on the CPU dropout and the like. Undefined:
  // LibTorch's default generator.
  at::Generator generator;

  // What it draws from on `device`, if that isn't the CPU. Undefined: that
  // device's default generator.
  at::Generator device_generator;

  // Reads the model's own files, and writes what Export does. Outlives the
  // model. Null: io::Env::Posix().
  io::Env* env = nullptr;

  // A loss made in code, for a config without one: the model takes it, and
  // leaves null. Null, or null there: there is none.
  std::unique_ptr<Loss>* loss = nullptr;
};

struct ModelTraits {
  using Product = std::unique_ptr<Model>;
  static constexpr char kWhat[] = "model";
};
using ModelRegistry = Registry<ModelTraits, const ModelOptions&>;

// LoadTensors into a model's parameters and buffers.
absl::Status LoadModelState(const TensorMap& tensors, bool strict, Model& model,
                            std::vector<std::string>* report);

// Parameters, then buffers, by name; they share the model's storage.
absl::StatusOr<TensorMap> ModelState(const Model& model);

}  // namespace grapnel

#endif  // GRAPNEL_MODELS_MODEL_H_
