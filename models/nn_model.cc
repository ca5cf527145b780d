#include "grapnel/models/nn_model.h"

#include <cstddef>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "c10/core/GradMode.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/models/nn_tensors.h"
#include "torch/nn/module.h"

namespace grapnel {
namespace {

NnModel::BatchForwardFunction OfBatch(NnModel::ForwardFunction forward) {
  if (forward == nullptr) return nullptr;
  return [forward = std::move(forward)](const Batch& batch) {
    return forward(batch.inputs);
  };
}

// Module::to replaces what is behind a tensor, which LibTorch allows between
// the kinds of device that it knows alone: found out before anything is moved.
absl::Status CheckCanMove(const std::vector<NamedTensor>& tensors,
                          c10::Device device) {
  const at::Tensor there = ops::empty({0}, device);
  for (const NamedTensor& tensor : tensors) {
    if (tensor.tensor.device() == device ||
        tensor.tensor.layout() != at::kStrided ||
        tensor.tensor.unsafeGetTensorImpl()->has_compatible_shallow_copy_type(
            there.key_set())) {
      continue;
    }
    return absl::FailedPreconditionError(absl::StrCat(
        "\"", tensor.name, "\" is on ", tensor.tensor.device().str(),
        ": LibTorch can't move a torch::nn::Module between there and this kind "
        "of device: make it there"));
  }
  return absl::OkStatus();
}

// Undoes a half of Module::to, which keeps the tensors and replaces what is
// behind them.
absl::Status MoveBack(const std::vector<NamedTensor>& tensors,
                      const std::vector<c10::Device>& before) {
  return CatchAsStatus([&] {
    for (size_t i = 0; i < tensors.size(); ++i) {
      const at::Tensor& tensor = tensors[i].tensor;
      if (tensor.device() != before[i]) tensor.set_data(tensor.to(before[i]));
    }
    return absl::OkStatus();
  });
}

}  // namespace

absl::StatusOr<std::unique_ptr<NnModel>> NnModel::Create(
    std::shared_ptr<torch::nn::Module> module, ForwardFunction forward) {
  return Create(std::move(module), std::move(forward), std::unique_ptr<Loss>());
}

absl::StatusOr<std::unique_ptr<NnModel>> NnModel::Create(
    std::shared_ptr<torch::nn::Module> module, BatchForwardFunction forward) {
  return Create(std::move(module), std::move(forward), std::unique_ptr<Loss>());
}

absl::StatusOr<std::unique_ptr<NnModel>> NnModel::Create(
    std::shared_ptr<torch::nn::Module> module, ForwardFunction forward,
    std::unique_ptr<Loss> loss) {
  return Create(std::move(module), OfBatch(std::move(forward)),
                std::move(loss));
}

absl::StatusOr<std::unique_ptr<NnModel>> NnModel::Create(
    std::shared_ptr<torch::nn::Module> module, BatchForwardFunction forward,
    std::unique_ptr<Loss> loss) {
  if (forward == nullptr) {
    return absl::InvalidArgumentError("forward: must not be null");
  }
  return CreateFrom(std::move(module), std::move(forward), nullptr,
                    std::move(loss));
}

absl::StatusOr<std::unique_ptr<NnModel>> NnModel::Create(
    std::shared_ptr<torch::nn::Module> module, ForwardFunction forward,
    LossesFunction losses) {
  if (losses == nullptr) {
    return absl::InvalidArgumentError("losses: must not be null");
  }
  return CreateFrom(std::move(module), OfBatch(std::move(forward)),
                    std::move(losses), nullptr);
}

absl::StatusOr<std::unique_ptr<NnModel>> NnModel::CreateFrom(
    std::shared_ptr<torch::nn::Module> module, BatchForwardFunction forward,
    LossesFunction losses, std::unique_ptr<Loss> loss) {
  if (module == nullptr) {
    return absl::InvalidArgumentError("module: must not be null");
  }
  std::unique_ptr<NnModel> model;
  GRAPNEL_RETURN_IF_ERROR(CatchAsStatus([&] {
    model = absl::WrapUnique(new NnModel(std::move(module), std::move(forward),
                                         std::move(losses), std::move(loss)));
    return absl::OkStatus();
  }));
  return model;
}

NnModel::NnModel(std::shared_ptr<torch::nn::Module> module,
                 BatchForwardFunction forward, LossesFunction losses,
                 std::unique_ptr<Loss> loss)
    : SupervisedModel(std::move(loss)),
      module_(std::move(module)),
      forward_(std::move(forward)),
      losses_(std::move(losses)) {
  module_->train(true);
  ListTensors();
}

void NnModel::ListTensors() {
  parameters_ = NamedParameters(*module_);
  buffers_ = NamedBuffers(*module_);
}

absl::StatusOr<at::Tensor> NnModel::Forward(const Batch& batch) {
  at::Tensor outputs;
  if (forward_ == nullptr) return outputs;
  GRAPNEL_RETURN_IF_ERROR(CatchAsStatus([&] {
    outputs = forward_(batch);
    return absl::OkStatus();
  }));
  return outputs;
}

absl::Status NnModel::ComputeLosses(const Batch& batch, LogVars* losses) {
  if (losses_ == nullptr) return SupervisedModel::ComputeLosses(batch, losses);
  return CatchAsStatus([&] { return losses_(batch, losses); });
}

absl::Status NnModel::ValStep(const Batch& batch, Predictions* predictions) {
  GRAPNEL_RETURN_IF_ERROR(SupervisedModel::ValStep(batch, predictions));
  if (losses_ == nullptr || !batch.targets.defined()) return absl::OkStatus();
  const c10::AutoGradMode no_grad(false);
  return ComputeLosses(batch, &predictions->losses);
}

absl::Status NnModel::MoveTo(c10::Device device) {
  std::vector<NamedTensor> tensors = parameters_;
  tensors.insert(tensors.end(), buffers_.begin(), buffers_.end());
  absl::Status status =
      CatchAsStatus([&] { return CheckCanMove(tensors, device); });
  if (status.ok()) {
    std::vector<c10::Device> before;
    for (const NamedTensor& tensor : tensors) {
      before.push_back(tensor.tensor.device());
    }
    status = CatchAsStatus([&] {
      module_->to(device);
      ListTensors();
      return absl::OkStatus();
    });
    if (!status.ok()) status.Update(MoveBack(tensors, before));
  }
  return WithContext(status, absl::StrCat("moving to ", device.str()));
}

void NnModel::SetTraining(bool training) { module_->train(training); }

bool NnModel::training() const { return module_->is_training(); }

}  // namespace grapnel
