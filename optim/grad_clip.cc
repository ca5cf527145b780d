#include "grapnel/optim/grad_clip.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "ATen/core/Tensor.h"
#include "ATen/ops/linalg_vector_norm_ops.h"
#include "absl/strings/str_cat.h"
#include "grapnel/base/check_field.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/optim/foreach_ops.h"
#include "grapnel/optim/optim_wrapper.pb.h"

namespace grapnel {
namespace {

using ::grapnel::optim::v1::ClipGradConfig;

bool OnOneDevice(const std::vector<at::Tensor>& tensors) {
  return std::all_of(tensors.begin(), tensors.end(), [&](const at::Tensor& t) {
    return t.device() == tensors.front().device();
  });
}

at::Tensor VectorNorm(const at::Tensor& tensor, double norm_type) {
  return at::_ops::linalg_vector_norm::call(tensor, norm_type, std::nullopt,
                                            /*keepdim=*/false, std::nullopt);
}

at::Tensor NormOf(const std::vector<at::Tensor>& grads, double norm_type) {
  if (grads.empty()) return ops::zeros({});
  std::vector<at::Tensor> norms;
  if (OnOneDevice(grads)) {
    norms = ops::foreach_norm(grads, norm_type);
  } else {
    for (const at::Tensor& grad : grads) {
      norms.push_back(VectorNorm(grad, norm_type).to(grads.front().device()));
    }
  }
  return VectorNorm(ops::stack(norms), norm_type);
}

// Scales `grads`, whose norm is `norm`, down to `limit`.
void ScaleToLimit(double limit, const at::Tensor& norm,
                  const std::vector<at::Tensor>& grads) {
  if (grads.empty()) return;
  const at::Tensor factor = norm.add(1e-6).reciprocal().mul(limit).clamp(
      /*min=*/std::nullopt, /*max=*/1.0);
  if (OnOneDevice(grads)) {
    ops::foreach_mul_(grads, factor);
  } else {
    for (const at::Tensor& grad : grads) grad.mul_(factor.to(grad.device()));
  }
}

absl::Status CheckFinite(const at::Tensor& norm) {
  const double value = norm.item().toDouble();
  if (std::isfinite(value)) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      "clip_grad: error_if_nonfinite: the gradients' norm is ", value));
}

}  // namespace

absl::StatusOr<GradClip> GradClip::Create(const ClipGradConfig& config) {
  GradClip clip;
  clip.error_if_nonfinite_ = config.error_if_nonfinite();
  switch (config.type()) {
    case ClipGradConfig::TYPE_UNSPECIFIED:
    case ClipGradConfig::NORM:
      if (!config.has_max_norm()) {
        return absl::InvalidArgumentError("max_norm: must be set");
      }
      clip.limit_ = config.max_norm();
      if (config.has_norm_type()) clip.norm_type_ = config.norm_type();
      GRAPNEL_RETURN_IF_ERROR(
          CheckField(std::isfinite(clip.limit_) && clip.limit_ > 0, "max_norm",
                     "finite and > 0", clip.limit_));
      GRAPNEL_RETURN_IF_ERROR(
          CheckField(clip.norm_type_ > 0, "norm_type", "> 0", clip.norm_type_));
      if (config.has_clip_value()) {
        return absl::InvalidArgumentError(
            "clip_value: is for type VALUE, the type is NORM");
      }
      return clip;
    case ClipGradConfig::VALUE:
      clip.by_norm_ = false;
      if (!config.has_clip_value()) {
        return absl::InvalidArgumentError("clip_value: must be set");
      }
      clip.limit_ = config.clip_value();
      GRAPNEL_RETURN_IF_ERROR(
          CheckField(std::isfinite(clip.limit_) && clip.limit_ > 0,
                     "clip_value", "finite and > 0", clip.limit_));
      if (config.has_max_norm() || config.has_norm_type() ||
          config.has_error_if_nonfinite()) {
        return absl::InvalidArgumentError(
            "max_norm, norm_type and error_if_nonfinite are for type NORM, "
            "the type is VALUE");
      }
      return clip;
    default:
      return absl::InvalidArgumentError(absl::StrCat(
          "type: must be NORM or VALUE, is ", static_cast<int>(config.type())));
  }
}

absl::Status GradClip::Clip(const std::vector<at::Tensor>& grads,
                            at::Tensor* norm) const {
  if (by_norm_) {
    *norm = NormOf(grads, norm_type_);
    if (error_if_nonfinite_) GRAPNEL_RETURN_IF_ERROR(CheckFinite(*norm));
    ScaleToLimit(limit_, *norm, grads);
  } else if (!grads.empty()) {
    ops::foreach_clamp_min_(grads, -limit_);
    ops::foreach_clamp_max_(grads, limit_);
  }
  return absl::OkStatus();
}

}  // namespace grapnel
