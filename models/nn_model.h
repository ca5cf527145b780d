// Models around a torch::nn::Module of the user's.
//
//   auto net = std::make_shared<Net>();  // A torch::nn::Module.
//   GRAPNEL_ASSIGN_OR_RETURN(
//       auto model,
//       NnModel::Create(net, [net](const at::Tensor& inputs) {
//         return net->forward(inputs);
//       }, std::move(loss)));
//
// or, with losses of one's own,
//
//   NnModel::Create(net, forward, [net](const Batch& batch, LogVars* losses) {
//     at::Tensor logits = net->forward(batch.inputs);
//     losses->Add("loss", torch::cross_entropy_loss(logits, batch.targets));
//     return absl::OkStatus();
//   });

#ifndef GRAPNEL_MODELS_NN_MODEL_H_
#define GRAPNEL_MODELS_NN_MODEL_H_

#include <functional>
#include <memory>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "c10/core/Device.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/data/sample.h"
#include "grapnel/models/log_vars.h"
#include "grapnel/models/loss.h"
#include "grapnel/models/model.h"
#include "grapnel/models/supervised_model.h"

namespace torch {
namespace nn {
class Module;
}  // namespace nn
}  // namespace torch

namespace grapnel {

// Parameters and buffers are the module's, with its dotted names. A parameter
// that the module has twice is listed once, under its first name. Move the
// module to its type before. Thread-compatible.
class NnModel : public SupervisedModel {
 public:
  // Outputs (N, ...) for inputs (N, ...), or for a whole batch. They are called
  // in the module's current mode. What they throw becomes a status.
  using ForwardFunction = std::function<at::Tensor(const at::Tensor& inputs)>;
  using BatchForwardFunction = std::function<at::Tensor(const Batch& batch)>;

  // Appends losses to `*losses`; see Model::TrainStep for their names. One that
  // isn't the mean over samples goes with its weight, if
  // losses->wants_weights().
  using LossesFunction =
      std::function<absl::Status(const Batch& batch, LogVars* losses)>;

  // Without a loss, or with a null pointer that has its type, the model gives
  // outputs and can't be trained; a bare nullptr is ambiguous.
  // kInvalidArgument if `module` or `forward` is null.
  static absl::StatusOr<std::unique_ptr<NnModel>> Create(
      std::shared_ptr<torch::nn::Module> module, ForwardFunction forward);
  static absl::StatusOr<std::unique_ptr<NnModel>> Create(
      std::shared_ptr<torch::nn::Module> module, BatchForwardFunction forward);
  static absl::StatusOr<std::unique_ptr<NnModel>> Create(
      std::shared_ptr<torch::nn::Module> module, ForwardFunction forward,
      std::unique_ptr<Loss> loss);
  static absl::StatusOr<std::unique_ptr<NnModel>> Create(
      std::shared_ptr<torch::nn::Module> module, BatchForwardFunction forward,
      std::unique_ptr<Loss> loss);

  // `losses` are used in training and, where there are targets, in validation,
  // where `forward` gives the outputs. `forward` may be null: the predictions
  // then have losses only.
  static absl::StatusOr<std::unique_ptr<NnModel>> Create(
      std::shared_ptr<torch::nn::Module> module, ForwardFunction forward,
      LossesFunction losses);

  // An undefined tensor if there is no forward function.
  absl::StatusOr<at::Tensor> Forward(const Batch& batch) override;

  absl::Status ComputeLosses(const Batch& batch, LogVars* losses) override;
  absl::Status ValStep(const Batch& batch, Predictions* predictions) override;

  const std::vector<NamedTensor>& parameters() const override {
    return parameters_;
  }
  const std::vector<NamedTensor>& buffers() const override { return buffers_; }

  // By the module's own to(), which doesn't reach what its functions make.
  // kFailedPrecondition, naming the reason and a tensor, if LibTorch can't move
  // a module to this kind of device: one that isn't its own, as CUDA is. Make
  // it there, with tensors of that device. After an error nothing has moved.
  absl::Status MoveTo(c10::Device device) override;

  void SetTraining(bool training) override;
  bool training() const override;

 private:
  NnModel(std::shared_ptr<torch::nn::Module> module,
          BatchForwardFunction forward, LossesFunction losses,
          std::unique_ptr<Loss> loss);

  static absl::StatusOr<std::unique_ptr<NnModel>> CreateFrom(
      std::shared_ptr<torch::nn::Module> module, BatchForwardFunction forward,
      LossesFunction losses, std::unique_ptr<Loss> loss);

  // Sets the two lists.
  void ListTensors();

  const std::shared_ptr<torch::nn::Module> module_;
  const BatchForwardFunction forward_;  // May be null, as losses_ may.
  const LossesFunction losses_;
  std::vector<NamedTensor> parameters_;
  std::vector<NamedTensor> buffers_;
};

}  // namespace grapnel

#endif  // GRAPNEL_MODELS_NN_MODEL_H_
