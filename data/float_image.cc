#include "grapnel/data/float_image.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/data/dense_tensor.h"

namespace grapnel {

absl::StatusOr<at::Tensor> FloatImage(const Sample& sample) {
  const at::Tensor& input = sample.input;
  GRAPNEL_RETURN_IF_ERROR(WithContext(CheckPlain(input), "input"));
  if (input.scalar_type() != at::kFloat || input.dim() != 3 ||
      input.size(1) < 1 || input.size(2) < 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "input: must be a float32 image (C, H, W), is ", Describe(input)));
  }
  at::Tensor dense;
  GRAPNEL_RETURN_IF_ERROR(CatchAsStatus([&] {
    dense = Dense(input);
    return absl::OkStatus();
  }));
  return dense;
}

}  // namespace grapnel
