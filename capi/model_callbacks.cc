#include "grapnel/capi/model_callbacks.h"

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/capi/fill_handles.h"
#include "grapnel/capi/guard.h"
#include "grapnel/data/dense_tensor.h"
#include "grapnel/data/sample.h"
#include "grapnel/models/callback_model.h"
#include "grapnel/models/log_vars.h"

namespace grapnel::capi {
namespace {

// The functions of a CallbackModel, by callbacks.
class Functions {
 public:
  Functions(const grapnel_model_callbacks& callbacks, void* user_data)
      : callbacks_(callbacks, user_data) {}

  LentData* lent() { return callbacks_.lent(); }

  absl::Status TrainStep(const Batch& batch, TensorMap* gradients,
                         LogVars* losses) {
    const absl::Status status = CatchAsStatus([&]() -> absl::Status {
      GRAPNEL_RETURN_IF_ERROR(FillTensors(batch, &batch_));
      tensors_.Clear();
      losses_.Clear();
      GRAPNEL_RETURN_IF_ERROR(FromC(callbacks_->train_step(
          callbacks_.data(), &batch_, &tensors_, &losses_)));
      GRAPNEL_RETURN_IF_ERROR(ToTensorMap(tensors_, gradients));
      AddLosses(losses);
      return absl::OkStatus();
    });
    return Named("train_step", status);
  }

  absl::Status ValStep(const Batch& batch, Predictions* predictions) {
    const absl::Status status = CatchAsStatus([&]() -> absl::Status {
      GRAPNEL_RETURN_IF_ERROR(FillTensors(batch, &batch_));
      tensors_.Clear();
      losses_.Clear();
      GRAPNEL_RETURN_IF_ERROR(FromC(callbacks_->val_step(
          callbacks_.data(), &batch_, &tensors_, &losses_)));
      GRAPNEL_RETURN_IF_ERROR(ReadOutput(batch, &predictions->outputs));
      AddLosses(&predictions->losses);
      return absl::OkStatus();
    });
    return Named("val_step", status);
  }

  absl::Status TensorsWritten() {
    return Named("tensors_written",
                 FromC(callbacks_->tensors_written(callbacks_.data())));
  }

  void SetTraining(bool training) {
    callbacks_->set_training(callbacks_.data(), training ? 1 : 0);
  }

  absl::Status Export(const std::string& path) {
    return Named("export_model",
                 FromC(callbacks_->export_model(callbacks_.data(), path.data(),
                                                path.size())));
  }

 private:
  // What ends every step: nothing is kept of it but slots.
  absl::Status Named(absl::string_view callback, absl::Status status) {
    batch_.Clear();
    tensors_.Clear();
    losses_.Clear();
    if (status.ok()) return status;
    return WithContext(WithContext(std::move(status), callback),
                       "model callback");
  }

  absl::Status ReadOutput(const Batch& batch, at::Tensor* output) const {
    for (size_t i = 0; i < tensors_.size; ++i) {
      const std::string& name = tensors_.slots[i].name;
      const at::Tensor& tensor = tensors_.slots[i].handle.tensor;
      if (name != "output") {
        return absl::InvalidArgumentError(
            absl::StrCat("predictions: \"", name,
                         "\": there is only \"output\" to predict"));
      }
      if (tensor.dim() < 1 || tensor.size(0) != batch.inputs.size(0)) {
        return absl::InvalidArgumentError(absl::StrCat(
            "predictions: \"output\": must be (", batch.inputs.size(0),
            ", ...), is ", Describe(tensor)));
      }
      *output = tensor;
    }
    if (tensors_.size > 0) return absl::OkStatus();
    return absl::InvalidArgumentError("predictions: gave no \"output\"");
  }

  void AddLosses(LogVars* losses) const {
    for (size_t i = 0; i < losses_.size; ++i) {
      losses->Add(losses_.slots[i].first,
                  ops::scalar_tensor(losses_.slots[i].second, at::kDouble));
    }
  }

  Callbacks<grapnel_model_callbacks> callbacks_;
  // Kept for their slots.
  grapnel_tensors batch_, tensors_;
  grapnel_scalars losses_;
};

// References of our own, so that a gradient that they come to require isn't
// the handles' too.
absl::StatusOr<std::vector<NamedTensor>> Share(const grapnel_tensors& tensors,
                                               absl::string_view what) {
  std::vector<NamedTensor> shared;
  for (size_t i = 0; i < tensors.size; ++i) {
    const std::string& name = tensors.slots[i].name;
    const grapnel_tensor& handle = tensors.slots[i].handle;
    if (handle.read_only) {
      return absl::InvalidArgumentError(absl::StrCat(
          what, " \"", name, "\": its memory must not be read-only"));
    }
    shared.push_back({name, handle.tensor.detach()});
  }
  return shared;
}

}  // namespace

absl::StatusOr<Made<std::unique_ptr<Model>>> MakeModel(
    const grapnel_model_callbacks* callbacks, const grapnel_tensors& parameters,
    const grapnel_tensors* buffers, void* user_data) {
  GRAPNEL_ASSIGN_OR_RETURN(
      const grapnel_model_callbacks known,
      Callbacks<grapnel_model_callbacks>::Read(callbacks, "callbacks"));
  GRAPNEL_RETURN_IF_ERROR(MustBeSet(known.train_step, "callbacks: train_step"));
  CallbackModel::Options options;
  GRAPNEL_ASSIGN_OR_RETURN(options.parameters, Share(parameters, "parameter"));
  if (buffers != nullptr) {
    GRAPNEL_ASSIGN_OR_RETURN(options.buffers, Share(*buffers, "buffer"));
  }
  const auto functions = std::make_shared<Functions>(known, user_data);
  options.train_step = [functions](const Batch& batch, TensorMap* gradients,
                                   LogVars* losses) {
    return functions->TrainStep(batch, gradients, losses);
  };
  if (known.val_step != nullptr) {
    options.val_step = [functions](const Batch& batch,
                                   Predictions* predictions) {
      return functions->ValStep(batch, predictions);
    };
  }
  if (known.tensors_written != nullptr) {
    options.tensors_written = [functions] {
      return functions->TensorsWritten();
    };
  }
  if (known.set_training != nullptr) {
    options.set_training = [functions](bool training) {
      functions->SetTraining(training);
    };
  }
  if (known.export_model != nullptr) {
    options.export_model = [functions](const std::string& path) {
      return functions->Export(path);
    };
  }
  GRAPNEL_ASSIGN_OR_RETURN(std::unique_ptr<Model> model,
                           CallbackModel::Create(std::move(options)));
  return Made<std::unique_ptr<Model>>{std::move(model), functions->lent()};
}

}  // namespace grapnel::capi
