// Keeping gradients from becoming too large.

#ifndef GRAPNEL_OPTIM_GRAD_CLIP_H_
#define GRAPNEL_OPTIM_GRAD_CLIP_H_

#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace grapnel::optim::v1 {
class ClipGradConfig;
}  // namespace grapnel::optim::v1

namespace grapnel {

// Clips by norm, as torch.nn.utils.clip_grad_norm_ does, or by value.
// Immutable.
class GradClip {
 public:
  // kInvalidArgument, by field.
  static absl::StatusOr<GradClip> Create(
      const optim::v1::ClipGradConfig& config);

  // Clips `grads`, of any devices, in place. By norm: sets `*norm` to the norm
  // of all before, a scalar; by value: leaves it. Doesn't wait for the device,
  // unless error_if_nonfinite: then kFailedPrecondition if the norm is NaN or
  // infinite, and nothing was changed. Throws what LibTorch throws.
  absl::Status Clip(const std::vector<at::Tensor>& grads,
                    at::Tensor* norm) const;

  bool error_if_nonfinite() const { return error_if_nonfinite_; }

 private:
  GradClip() = default;

  bool by_norm_ = true;
  double limit_ = 0;
  double norm_type_ = 2;
  bool error_if_nonfinite_ = false;
};

}  // namespace grapnel

#endif  // GRAPNEL_OPTIM_GRAD_CLIP_H_
