#include "grapnel/models/model.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "c10/core/ScalarType.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/base/utf8.h"
#include "grapnel/models/load_tensors.h"
#include "grapnel/optim/autocast.h"
#include "grapnel/optim/optim_wrapper.h"

namespace grapnel {
namespace {

constexpr char kLoss[] = "loss";

at::Tensor Scalar(const at::Tensor& tensor) {
  if (tensor.dim() == 0) return tensor;
  // Integers have no mean of their own type.
  if (at::isIntegralType(tensor.scalar_type(), /*includeBool=*/true)) {
    return tensor.mean(at::kFloat);
  }
  return tensor.mean();
}

// Without a graph. Not detach(), which autograd records as a view.
at::Tensor Detached(const at::Tensor& tensor) {
  return tensor.requires_grad() ? tensor.tensor_data() : tensor;
}

// The sum of the losses whose name contains "loss"; one alone is itself.
absl::StatusOr<at::Tensor> TotalLoss(const LogVars& losses) {
  at::Tensor total;
  for (const NamedTensor& loss : losses) {
    if (!loss.tensor.defined()) {
      return absl::InvalidArgumentError(
          absl::StrCat("loss \"", loss.name, "\": the model gave no value"));
    }
    if (!absl::StrContains(loss.name, kLoss)) continue;
    const at::Tensor scalar = Scalar(loss.tensor);
    total = total.defined() ? total.add(scalar) : scalar;
  }
  if (!total.defined()) {
    return absl::InvalidArgumentError(
        losses.empty() ? "the model gave no losses"
                       : "none of the model's losses has \"loss\" in its name");
  }
  return total;
}

// What the total is the mean of: the one weight of the losses in it.
absl::StatusOr<double> TotalWeight(const LogVars& losses, const Batch& batch) {
  const std::string* first = nullptr;  // The name of the first loss.
  double weight = 0;                   // Of that.
  for (size_t i = 0; i < losses.size(); ++i) {
    const std::string& name = losses[i].name;
    if (!absl::StrContains(name, kLoss)) continue;
    const at::Tensor& given = losses.weight(i);
    const double own = given.defined() ? given.item().toDouble()
                                       : static_cast<double>(batch.size());
    if (first == nullptr) {
      first = &name;
      weight = own;
    } else if (own != weight) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "loss \"%s\" has the weight %.9g and \"%s\" %.9g: they make one "
          "total, which needs one weight for accumulate_by: SAMPLES",
          *first, weight, name, own));
    }
  }
  return weight;
}

}  // namespace

absl::Status Model::TrainStep(const Batch& batch, OptimWrapper& optim,
                              LogVars* log_vars) {
  const bool wants_weight = optim.wants_weight();
  losses_.Clear();
  losses_.set_wants_weights(wants_weight);
  log_vars->Clear();
  optim.BeginStep();
  const absl::Status status = CatchAsStatus([&]() -> absl::Status {
    {
      const AutocastScope autocast(optim.autocast());
      GRAPNEL_RETURN_IF_ERROR(ComputeLosses(batch, &losses_));
    }
    GRAPNEL_ASSIGN_OR_RETURN(const at::Tensor total, TotalLoss(losses_));
    double weight = static_cast<double>(batch.size());
    if (wants_weight) {
      GRAPNEL_ASSIGN_OR_RETURN(weight, TotalWeight(losses_, batch));
    }
    log_vars->Add(kLoss, Detached(total));
    for (const NamedTensor& loss : losses_) {
      if (loss.name == kLoss) continue;
      log_vars->Add(loss.name, Scalar(Detached(loss.tensor)));
    }
    // Last: what it did can't be taken back.
    return optim.Update(total, weight);
  });
  if (!status.ok()) log_vars->Clear();
  losses_.Clear();  // Or the graph would live on until the next step.
  return status;
}

absl::Status Model::MoveTo(c10::Device device) {
  for (const auto* list : {&parameters(), &buffers()}) {
    for (const NamedTensor& tensor : *list) {
      if (tensor.tensor.device() == device) continue;
      return absl::FailedPreconditionError(absl::StrCat(
          "tensor \"", EscapeToUtf8(tensor.name), "\" is on ",
          tensor.tensor.device().str(), ", not on ", device.str(),
          ": this kind of model stays on the device that it was made on"));
    }
  }
  return absl::OkStatus();
}

absl::Status Model::SyncBatchNorm(ProcessGroup&) {
  return absl::UnimplementedError(
      "this kind of model has batch norm of its own making, if any, which is "
      "of each rank's batch; a model of layers can be synchronized");
}

absl::Status Model::Export(const std::string&) {
  return absl::UnimplementedError(
      "this kind of model has no file format of its own; its weights are in "
      "each checkpoint's model.safetensors");
}

absl::Status LoadModelState(const TensorMap& tensors, bool strict, Model& model,
                            std::vector<std::string>* report) {
  std::vector<NamedTensor> all = model.parameters();
  all.insert(all.end(), model.buffers().begin(), model.buffers().end());
  return LoadTensors(tensors, strict, all, report);
}

absl::StatusOr<TensorMap> ModelState(const Model& model) {
  TensorMap state;
  for (const auto* list : {&model.parameters(), &model.buffers()}) {
    for (const NamedTensor& tensor : *list) {
      GRAPNEL_RETURN_IF_ERROR(state.Add(tensor.name, tensor.tensor.detach()));
    }
  }
  return state;
}

}  // namespace grapnel
