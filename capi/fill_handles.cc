#include "grapnel/capi/fill_handles.h"

#include <limits>

#include "ATen/core/Tensor.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/tensor_map.h"

namespace grapnel::capi {
namespace {

// A dataset may have given its own memory, and others see the same batch.
constexpr bool kReadOnly = true;

}  // namespace

absl::Status FillTensors(const Batch& batch, grapnel_tensors* tensors) {
  tensors->Clear();
  GRAPNEL_RETURN_IF_ERROR(tensors->Add("input", batch.inputs, kReadOnly));
  if (batch.targets.defined()) {
    GRAPNEL_RETURN_IF_ERROR(tensors->Add("target", batch.targets, kReadOnly));
  }
  for (const NamedTensor& extra : batch.extras) {
    GRAPNEL_RETURN_IF_ERROR(tensors->Add(extra.name, extra.tensor, kReadOnly));
  }
  return absl::OkStatus();
}

absl::Status FillTensors(const Predictions& predictions,
                         grapnel_tensors* tensors) {
  tensors->Clear();
  if (predictions.outputs.defined()) {
    GRAPNEL_RETURN_IF_ERROR(
        tensors->Add("output", predictions.outputs, kReadOnly));
  }
  for (const NamedTensor& loss : predictions.losses) {
    GRAPNEL_RETURN_IF_ERROR(tensors->Add(loss.name, loss.tensor, kReadOnly));
  }
  return absl::OkStatus();
}

absl::Status FillScalars(const LogVars& log_vars, grapnel_scalars* scalars) {
  scalars->Clear();
  for (const NamedTensor& value : log_vars) {
    const at::Tensor& tensor = value.tensor;
    const bool is_number =
        tensor.defined() && tensor.numel() == 1 && !tensor.is_complex();
    GRAPNEL_RETURN_IF_ERROR(scalars->Add(
        value.name, is_number ? tensor.item().toDouble()
                              : std::numeric_limits<double>::quiet_NaN()));
  }
  return absl::OkStatus();
}

absl::Status FillScalars(const Metrics& metrics, grapnel_scalars* scalars) {
  scalars->Clear();
  for (const auto& [name, value] : metrics) {
    const auto number = AsNumber(value);
    if (!number.has_value()) continue;
    GRAPNEL_RETURN_IF_ERROR(scalars->Add(name, *number));
  }
  return absl::OkStatus();
}

}  // namespace grapnel::capi
