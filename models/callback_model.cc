#include "grapnel/models/callback_model.h"

#include <cstddef>
#include <utility>

#include "ATen/core/Tensor.h"
#include "absl/container/flat_hash_set.h"
#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "c10/core/GradMode.h"
#include "c10/core/ScalarType.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/base/utf8.h"
#include "grapnel/optim/optim_wrapper.h"

namespace grapnel {
namespace {

constexpr char kLoss[] = "loss";

absl::Status CheckBuffer(const at::Tensor& tensor) {
  if (!tensor.defined()) return absl::InvalidArgumentError("is undefined");
  if (tensor.is_inference()) {
    return absl::InvalidArgumentError(
        "must not come from inference mode, where writes aren't seen");
  }
  return absl::OkStatus();
}

absl::Status CheckParameter(const at::Tensor& tensor) {
  GRAPNEL_RETURN_IF_ERROR(CheckBuffer(tensor));
  if (!at::isFloatingType(tensor.scalar_type())) {
    return absl::InvalidArgumentError(absl::StrCat(
        "must be floating, is ", c10::toString(tensor.scalar_type())));
  }
  if (tensor.layout() != at::kStrided ||
      !tensor.is_non_overlapping_and_dense()) {
    return absl::InvalidArgumentError(
        "must be dense: its elements overlap or have gaps between them");
  }
  if (!tensor.is_leaf()) {
    return absl::InvalidArgumentError(
        "must be a leaf, is what autograd has computed");
  }
  return absl::OkStatus();
}

absl::Status CheckAll(const std::vector<NamedTensor>& tensors,
                      absl::string_view what,
                      absl::Status (*check)(const at::Tensor&),
                      absl::flat_hash_set<absl::string_view>* names) {
  for (const NamedTensor& tensor : tensors) {
    absl::Status status = CatchAsStatus([&] { return check(tensor.tensor); });
    if (status.ok() && !names->insert(tensor.name).second) {
      status = absl::InvalidArgumentError("is there twice");
    }
    if (!status.ok()) {
      return WithContext(
          status, absl::StrCat(what, " \"", EscapeToUtf8(tensor.name), "\""));
    }
  }
  return absl::OkStatus();
}

// A loss as it is logged: one number, without a graph.
absl::StatusOr<at::Tensor> LoggedLoss(const NamedTensor& loss) {
  if (!loss.tensor.defined() || loss.tensor.numel() != 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "loss \"", EscapeToUtf8(loss.name), "\": must be one number, ",
        loss.tensor.defined() ? absl::StrCat("has ", loss.tensor.numel())
                              : "is undefined"));
  }
  const at::Tensor detached = loss.tensor.detach();
  return detached.dim() == 0 ? detached : detached.reshape({});
}

// `losses` in the form of Model::TrainStep: the total, then each.
absl::Status LogLosses(const LogVars& losses, LogVars* log_vars) {
  if (losses.empty()) {
    return absl::InvalidArgumentError("train_step gave no losses");
  }
  if (losses[0].name != kLoss && losses.size() > 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "of several losses the first must be the total, \"loss\", is \"",
        EscapeToUtf8(losses[0].name), "\""));
  }
  for (size_t i = 0; i < losses.size(); ++i) {
    GRAPNEL_ASSIGN_OR_RETURN(const at::Tensor value, LoggedLoss(losses[i]));
    if (i == 0) log_vars->Add(kLoss, value);
    if (losses[i].name != kLoss) log_vars->Add(losses[i].name, value);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<CallbackModel>> CallbackModel::Create(
    Options options) {
  absl::flat_hash_set<absl::string_view> names;
  GRAPNEL_RETURN_IF_ERROR(
      CheckAll(options.parameters, "parameter", &CheckParameter, &names));
  GRAPNEL_RETURN_IF_ERROR(
      CheckAll(options.buffers, "buffer", &CheckBuffer, &names));
  GRAPNEL_RETURN_IF_ERROR(CatchAsStatus([&] {
    for (const NamedTensor& parameter : options.parameters) {
      parameter.tensor.set_requires_grad(true);
    }
    return absl::OkStatus();
  }));
  return absl::WrapUnique(new CallbackModel(std::move(options)));
}

CallbackModel::CallbackModel(Options options) : options_(std::move(options)) {}

absl::Status CallbackModel::TrainStep(const Batch& batch, OptimWrapper& optim,
                                      LogVars* log_vars) {
  if (options_.train_step == nullptr) {
    return absl::FailedPreconditionError("train_step: must be set to train");
  }
  log_vars->Clear();
  losses_.Clear();
  optim.BeginStep();
  const absl::Status status = CatchAsStatus([&]() -> absl::Status {
    GRAPNEL_RETURN_IF_ERROR(TellChanges());
    TensorMap gradients;
    GRAPNEL_RETURN_IF_ERROR(options_.train_step(batch, &gradients, &losses_));
    NoteVersions();
    GRAPNEL_RETURN_IF_ERROR(LogLosses(losses_, log_vars));
    const absl::Status updated =
        optim.UpdateFromGradients(gradients, static_cast<double>(batch.size()));
    // Not every optimizer raises versions: LibTorch's fused kernels don't. Of a
    // window that goes on no parameter was written.
    if (!updated.ok() || optim.accumulated() == 0) versions_.reset();
    return updated;
  });
  if (!status.ok()) log_vars->Clear();
  losses_.Clear();
  return status;
}

absl::Status CallbackModel::ComputeLosses(const Batch&, LogVars*) {
  return absl::FailedPreconditionError(
      "the gradients of this model come from train_step: it has no loss that "
      "autograd knows");
}

absl::Status CallbackModel::ValStep(const Batch& batch,
                                    Predictions* predictions) {
  if (options_.val_step == nullptr) {
    return absl::FailedPreconditionError("val_step: must be set to evaluate");
  }
  const c10::AutoGradMode no_grad(false);
  predictions->outputs.reset();
  predictions->losses.Clear();
  predictions->ignore_index.reset();
  return CatchAsStatus([&]() -> absl::Status {
    GRAPNEL_RETURN_IF_ERROR(TellChanges());
    GRAPNEL_RETURN_IF_ERROR(options_.val_step(batch, predictions));
    NoteVersions();
    return absl::OkStatus();
  });
}

absl::Status CallbackModel::Export(const std::string& path) {
  if (options_.export_model == nullptr) return Model::Export(path);
  return CatchAsStatus([&] { return options_.export_model(path); });
}

void CallbackModel::SetTraining(bool training) {
  if (training_told_ && training == training_) return;
  if (options_.set_training != nullptr) options_.set_training(training);
  training_ = training;
  training_told_ = true;
}

absl::Status CallbackModel::TellChanges() {
  SetTraining(training_);
  if (options_.tensors_written == nullptr || versions_ == Versions()) {
    return absl::OkStatus();
  }
  GRAPNEL_RETURN_IF_ERROR(options_.tensors_written());
  NoteVersions();
  return absl::OkStatus();
}

void CallbackModel::NoteVersions() {
  if (options_.tensors_written != nullptr) versions_ = Versions();
}

uint64_t CallbackModel::Versions() const {
  uint64_t sum = 0;
  for (const auto* tensors : {&options_.parameters, &options_.buffers}) {
    for (const NamedTensor& tensor : *tensors) {
      sum += static_cast<uint64_t>(tensor.tensor._version());
    }
  }
  return sum;
}

}  // namespace grapnel
