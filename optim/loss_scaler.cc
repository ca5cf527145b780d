#include "grapnel/optim/loss_scaler.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "grapnel/base/check_field.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/optim/foreach_ops.h"
#include "grapnel/optim/optim_wrapper.pb.h"

namespace grapnel {
namespace {

using ::grapnel::optim::v1::LossScaleConfig;
using ::grapnel::optim::v1::LossScaleState;

// A normal float: the gradients are divided by it in float32.
bool IsScale(double value) {
  return value >= std::numeric_limits<float>::min() &&
         value <= std::numeric_limits<float>::max();
}

constexpr char kScaleRange[] = "> 0 and a float32";

}  // namespace

absl::StatusOr<LossScaler> LossScaler::Create(const LossScaleConfig& config) {
  LossScaler scaler;
  if (config.has_init_scale()) {
    GRAPNEL_RETURN_IF_ERROR(CheckField(IsScale(config.init_scale()),
                                       "init_scale", kScaleRange,
                                       config.init_scale()));
    scaler.scale_ = static_cast<float>(config.init_scale());
  }
  if (config.has_dynamic()) scaler.dynamic_ = config.dynamic();
  if (!scaler.dynamic_ &&
      (config.has_growth_factor() || config.has_backoff_factor() ||
       config.has_growth_interval())) {
    return absl::InvalidArgumentError(
        "growth_factor, backoff_factor and growth_interval are for a dynamic "
        "scale, dynamic is false");
  }
  if (config.has_growth_factor()) {
    const double factor = config.growth_factor();
    GRAPNEL_RETURN_IF_ERROR(CheckField(std::isfinite(factor) && factor > 1,
                                       "growth_factor", "finite and > 1",
                                       factor));
    scaler.growth_factor_ = factor;
  }
  if (config.has_backoff_factor()) {
    const double factor = config.backoff_factor();
    GRAPNEL_RETURN_IF_ERROR(CheckField(factor > 0 && factor < 1,
                                       "backoff_factor", "in (0, 1)", factor));
    scaler.backoff_factor_ = factor;
  }
  if (config.has_growth_interval()) {
    const int64_t interval = config.growth_interval();
    GRAPNEL_RETURN_IF_ERROR(
        CheckField(interval >= 1, "growth_interval", ">= 1", interval));
    scaler.growth_interval_ = interval;
  }
  return scaler;
}

at::Tensor LossScaler::Scale(const at::Tensor& loss) const {
  const bool wide = !at::isReducedFloatingType(loss.scalar_type());
  return (wide ? loss : loss.to(at::kFloat)).mul(scale_);
}

std::vector<at::Tensor> LossScaler::Unscale(
    const std::vector<at::Tensor>& grads, double factor) const {
  std::vector<at::Tensor> left = grads;
  std::vector<at::Tensor> overflows;  // One a device.
  while (!left.empty()) {
    const c10::Device device = left.front().device();
    const auto others = std::stable_partition(
        left.begin(), left.end(),
        [&](const auto& grad) { return grad.device() == device; });
    const auto options = at::TensorOptions().dtype(at::kFloat).device(device);
    overflows.push_back(ops::zeros({}, options));
    ops::amp_foreach_non_finite_check_and_unscale_(
        std::vector<at::Tensor>(left.begin(), others), overflows.back(),
        ops::full({}, factor / scale_, options));
    left.erase(left.begin(), others);
  }
  return overflows;
}

bool LossScaler::AreFinite(const std::vector<at::Tensor>& overflows) {
  bool finite = true;
  for (const at::Tensor& overflow : overflows) {
    finite = finite && overflow.item().toDouble() == 0;
  }
  return finite;
}

void LossScaler::Update(bool finite) {
  if (!dynamic_) return;
  if (!finite) {
    scale_ = std::max(static_cast<float>(scale_ * backoff_factor_),
                      std::numeric_limits<float>::min());
    good_steps_ = 0;
    return;
  }
  if (++good_steps_ < growth_interval_) return;
  const float grown = static_cast<float>(scale_ * growth_factor_);
  if (std::isfinite(grown)) scale_ = grown;
  good_steps_ = 0;
}

void LossScaler::SaveState(LossScaleState* state) const {
  state->set_scale(scale_);
  state->set_good_steps(good_steps_);
}

absl::Status LossScaler::LoadState(const LossScaleState& state) {
  GRAPNEL_RETURN_IF_ERROR(
      CheckField(IsScale(state.scale()), "scale", kScaleRange, state.scale()));
  GRAPNEL_RETURN_IF_ERROR(CheckField(state.good_steps() >= 0, "good_steps",
                                     ">= 0", state.good_steps()));
  if (!dynamic_) return absl::OkStatus();
  scale_ = static_cast<float>(state.scale());
  good_steps_ = state.good_steps();
  return absl::OkStatus();
}

}  // namespace grapnel
