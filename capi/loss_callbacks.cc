#include "grapnel/capi/loss_callbacks.h"

#include <memory>
#include <utility>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "c10/core/GradMode.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/capi/fill_handles.h"
#include "grapnel/capi/guard.h"
#include "grapnel/capi/handles.h"
#include "grapnel/data/dense_tensor.h"
#include "grapnel/data/sample.h"
#include "torch/csrc/autograd/custom_function.h"

namespace grapnel::capi {
namespace {

using ::torch::autograd::AutogradContext;
using ::torch::autograd::variable_list;

// A number that somebody else has computed from outputs, with its gradient.
class GivenLoss : public torch::autograd::Function<GivenLoss> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& outputs,
                            const at::Tensor& gradient, double value) {
    context->save_for_backward({gradient});
    return Scalar(value, outputs);
  }

  static variable_list backward(AutogradContext* context,
                                const variable_list& above) {
    const variable_list saved = context->get_saved_variables();
    return {saved[0].mul(above[0]), at::Tensor(), at::Tensor()};
  }

  // In float32, or float64 if that is what the outputs are, beside them.
  static at::Tensor Scalar(double value, const at::Tensor& outputs) {
    return ops::scalar_tensor(
        value, at::TensorOptions()
                   .dtype(outputs.scalar_type() == at::kDouble ? at::kDouble
                                                               : at::kFloat)
                   .device(outputs.device()));
  }
};

class CallbackLoss final : public Loss {
 public:
  CallbackLoss(const grapnel_loss_callbacks& callbacks, void* user_data)
      : callbacks_(callbacks, user_data) {}

  LentData* lent() { return callbacks_.lent(); }

  absl::StatusOr<at::Tensor> Compute(const at::Tensor& outputs,
                                     const Batch& batch) const override {
    at::Tensor loss;
    const absl::Status status =
        CatchAsStatus([&] { return ComputeOrThrow(outputs, batch, &loss); });
    batch_.Clear();
    if (!status.ok()) return WithContext(status, "loss callback: compute");
    return loss;
  }

 private:
  absl::Status ComputeOrThrow(const at::Tensor& outputs, const Batch& batch,
                              at::Tensor* loss) const {
    const bool backward =
        c10::GradMode::is_enabled() && outputs.requires_grad();
    const grapnel_tensor output(outputs.detach());
    GRAPNEL_RETURN_IF_ERROR(FillTensors(batch, &batch_));
    double value = 0;
    grapnel_tensor* given = nullptr;
    GRAPNEL_RETURN_IF_ERROR(
        FromC(callbacks_->compute(callbacks_.data(), &output, &batch_, &value,
                                  backward ? &given : nullptr)));
    const std::unique_ptr<grapnel_tensor> gradient(given);
    if (!backward) {
      *loss = GivenLoss::Scalar(value, outputs);
      return absl::OkStatus();
    }
    if (gradient == nullptr) {
      return absl::InvalidArgumentError("gave no gradient");
    }
    GRAPNEL_RETURN_IF_ERROR(CheckGradient(gradient->tensor, outputs));
    *loss = GivenLoss::apply(outputs, gradient->tensor.detach(), value);
    return absl::OkStatus();
  }

  static absl::Status CheckGradient(const at::Tensor& gradient,
                                    const at::Tensor& outputs) {
    if (gradient.sizes() == outputs.sizes() &&
        gradient.scalar_type() == outputs.scalar_type() &&
        gradient.device() == outputs.device()) {
      return absl::OkStatus();
    }
    return absl::InvalidArgumentError(
        absl::StrCat("the gradient must be as the output, ", Describe(outputs),
                     " on ", outputs.device().str(), ", is ",
                     Describe(gradient), " on ", gradient.device().str()));
  }

  Callbacks<grapnel_loss_callbacks> callbacks_;
  mutable grapnel_tensors batch_;  // Kept for its slots.
};

}  // namespace

absl::StatusOr<Made<std::unique_ptr<Loss>>> MakeLoss(
    const grapnel_loss_callbacks* callbacks, void* user_data) {
  GRAPNEL_ASSIGN_OR_RETURN(
      const grapnel_loss_callbacks known,
      Callbacks<grapnel_loss_callbacks>::Read(callbacks, "callbacks"));
  GRAPNEL_RETURN_IF_ERROR(MustBeSet(known.compute, "callbacks: compute"));
  auto loss = std::make_unique<CallbackLoss>(known, user_data);
  LentData* const lent = loss->lent();
  return Made<std::unique_ptr<Loss>>{std::move(loss), lent};
}

}  // namespace grapnel::capi
