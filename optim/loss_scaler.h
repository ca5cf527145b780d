// Keeping the small gradients of float16 from becoming zero.

#ifndef GRAPNEL_OPTIM_LOSS_SCALER_H_
#define GRAPNEL_OPTIM_LOSS_SCALER_H_

#include <cstdint>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace grapnel::optim::v1 {
class LossScaleConfig;
class LossScaleState;
}  // namespace grapnel::optim::v1

namespace grapnel {

// The factor that a loss is multiplied by, and gradients are divided by. A step
// whose gradients overflowed is to be left out, and lowers it; many that
// didn't, one after the other, raise it. The arithmetic is that of
// torch.amp.GradScaler, to the bit. Thread-compatible; a value type.
class LossScaler {
 public:
  // kInvalidArgument, by field.
  static absl::StatusOr<LossScaler> Create(
      const optim::v1::LossScaleConfig& config);

  double scale() const { return scale_; }

  // `loss`: one floating number; of 16 bits it becomes float32 first, which the
  // scale fits in. Throws what LibTorch throws.
  at::Tensor Scale(const at::Tensor& loss) const;

  // Whether the scale changes with the gradients.
  bool dynamic() const { return dynamic_; }

  // Multiplies `grads`, of any devices, by `factor` / scale() in place. Returns
  // for each device of them a float32 scalar there: not 0 if an element is
  // infinite or NaN. Waits for no device. Throws what LibTorch throws.
  std::vector<at::Tensor> Unscale(const std::vector<at::Tensor>& grads,
                                  double factor) const;

  // Whether all of those are 0. Waits for the devices, for each once.
  static bool AreFinite(const std::vector<at::Tensor>& overflows);

  // Once for each step that was due; `finite` is what AreFinite said.
  void Update(bool finite);

  // State: the scale and how long it has been right. LoadState leaves a scale
  // that is configured to be fixed. kInvalidArgument: nothing was changed.
  void SaveState(optim::v1::LossScaleState* state) const;
  absl::Status LoadState(const optim::v1::LossScaleState& state);

 private:
  LossScaler() = default;

  bool dynamic_ = true;
  double growth_factor_ = 2;
  double backoff_factor_ = 0.5;
  int64_t growth_interval_ = 2000;
  float scale_ = 65536;
  int64_t good_steps_ = 0;  // Since the scale changed.
};

}  // namespace grapnel

#endif  // GRAPNEL_OPTIM_LOSS_SCALER_H_
