#include "grapnel/optim/autocast.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "c10/core/DeviceType.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/optim/autocast_mode.h"
#include "grapnel/optim/optim_wrapper.pb.h"

namespace grapnel {
namespace {

using ::grapnel::optim::v1::AmpConfig;

bool HasAutocast(c10::DeviceType device) {
  const absl::Status asked = CatchAsStatus([device] {
    at::autocast::is_autocast_enabled(device);
    return absl::OkStatus();
  });
  return asked.ok();
}

}  // namespace

absl::StatusOr<Autocast> CreateAutocast(
    const AmpConfig& config, const std::vector<NamedTensor>& params) {
  Autocast autocast;
  autocast.enabled = true;
  switch (config.dtype()) {
    case AmpConfig::BFLOAT16:
      autocast.dtype = at::kBFloat16;
      if (config.has_loss_scale()) {
        return absl::InvalidArgumentError(
            "loss_scale: is for dtype FLOAT16, the dtype is BFLOAT16");
      }
      break;
    case AmpConfig::FLOAT16:
      autocast.dtype = at::kHalf;
      break;
    default:
      return absl::InvalidArgumentError(
          "dtype: must be set, to BFLOAT16 or FLOAT16");
  }
  if (!params.empty()) autocast.device = params.front().tensor.device().type();
  if (!HasAutocast(autocast.device)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "LibTorch has no autocast on ",
        c10::DeviceTypeName(autocast.device, /*lower_case=*/true)));
  }
  for (const NamedTensor& param : params) {
    if (autocast.dtype == at::kHalf && param.tensor.requires_grad() &&
        param.tensor.scalar_type() == at::kHalf) {
      return absl::InvalidArgumentError(
          absl::StrCat("dtype: FLOAT16 trains parameters of more bits, \"",
                       param.name, "\" is Half itself"));
    }
  }
  return autocast;
}

void AutocastScope::Enter(const Autocast& autocast) {
  previous_.device = autocast.device;
  previous_.enabled = at::autocast::is_autocast_enabled(autocast.device);
  previous_.dtype = at::autocast::get_autocast_dtype(autocast.device);
  previous_cache_ = at::autocast::is_autocast_cache_enabled();
  at::autocast::set_autocast_enabled(autocast.device, true);
  at::autocast::set_autocast_dtype(autocast.device, autocast.dtype);
  at::autocast::set_autocast_cache_enabled(true);
  at::autocast::increment_nesting();
}

void AutocastScope::Leave() {
  if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
  at::autocast::set_autocast_enabled(previous_.device, previous_.enabled);
  at::autocast::set_autocast_dtype(previous_.device, previous_.dtype);
  at::autocast::set_autocast_cache_enabled(previous_cache_);
}

}  // namespace grapnel
