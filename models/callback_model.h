// A model whose gradients somebody else computes: an engine of one's own, in
// this language or another. The library has the tensors, trains them in place,
// and asks functions for the rest.

#ifndef GRAPNEL_MODELS_CALLBACK_MODEL_H_
#define GRAPNEL_MODELS_CALLBACK_MODEL_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/data/sample.h"
#include "grapnel/models/log_vars.h"
#include "grapnel/models/model.h"

namespace grapnel {

// The model is where its tensors are: MoveTo moves none, because a copy
// elsewhere wouldn't be what the functions share. For a run on another device
// make them there; its batches come there too.
//
// Nothing of the model is drawn from a generator of ours: the functions are to
// bring their own. amp is none of theirs either: BFLOAT16 changes nothing, and
// FLOAT16 is refused where gradients come in, as several optimizers are
// (OptimWrapper::UpdateFromGradients). Thread-compatible.
class CallbackModel final : public Model {
 public:
  // Every function may be null, and may throw: what it throws becomes a status.
  struct Options {
    // Shared, and trained in place: floating leaves whose elements neither
    // overlap nor have gaps between them. They come to require a gradient.
    std::vector<NamedTensor> parameters;
    // Shared too; of any type. Names differ from those of parameters.
    std::vector<NamedTensor> buffers;

    // Adds to `*gradients` those of the batch's mean loss, by the parameters'
    // names, with their shapes, types and devices; they are copied. A parameter
    // without one isn't part of the loss. Adds to `*losses` what is to be
    // logged, each one number: the total, "loss", first, unless there is one
    // alone. Null: the model can't be trained.
    std::function<absl::Status(const Batch& batch, TensorMap* gradients,
                               LogVars* losses)>
        train_step;

    // Sets `*predictions`, which is empty, as Model::ValStep. Null: the model
    // can't be evaluated.
    std::function<absl::Status(const Batch& batch, Predictions* predictions)>
        val_step;

    // Called before one of the two above if parameters or buffers may have been
    // written since the last of these calls, by anybody but those two, and
    // before the first of all: for who has copies of them. Seen are optimizer
    // steps, and what raises a tensor's version as LibTorch's operators do:
    // loads, averages that come and go, hooks. After an error it is called
    // again.
    std::function<absl::Status()> tensors_written;

    // True for training, false for evaluation. Called at each change, and
    // before the first step.
    std::function<void(bool training)> set_training;

    // As Model::Export.
    std::function<absl::Status(const std::string& path)> export_model;
  };

  // kInvalidArgument, naming the tensor, if one isn't as it must be; none was
  // changed then.
  static absl::StatusOr<std::unique_ptr<CallbackModel>> Create(Options options);

  // What train_step gives goes to optim.UpdateFromGradients, whose weight is
  // the number of samples. kInvalidArgument if there are no losses, or the
  // first of several isn't "loss".
  absl::Status TrainStep(const Batch& batch, OptimWrapper& optim,
                         LogVars* log_vars) override;

  // kFailedPrecondition: there is no loss here that autograd knows.
  absl::Status ComputeLosses(const Batch& batch, LogVars* losses) override;

  absl::Status ValStep(const Batch& batch, Predictions* predictions) override;

  const std::vector<NamedTensor>& parameters() const override {
    return options_.parameters;
  }
  const std::vector<NamedTensor>& buffers() const override {
    return options_.buffers;
  }
  bool has_own_generator() const override { return true; }
  absl::Status Export(const std::string& path) override;
  void SetTraining(bool training) override;
  bool training() const override { return training_; }

 private:
  explicit CallbackModel(Options options);

  // Before a step: tells the functions what has changed.
  absl::Status TellChanges();
  // After one: what the tensors hold now is known to them.
  void NoteVersions();
  // The sum of the tensors' versions, which only grows.
  uint64_t Versions() const;

  const Options options_;
  bool training_ = true;
  bool training_told_ = false;
  // Of what the functions know; empty if that is nothing.
  std::optional<uint64_t> versions_;
  LogVars losses_;  // Of the current step; kept for its slots.
};

}  // namespace grapnel

#endif  // GRAPNEL_MODELS_CALLBACK_MODEL_H_
