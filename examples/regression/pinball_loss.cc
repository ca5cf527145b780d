#include <memory>

#include "ATen/core/Tensor.h"
#include "ATen/ops/maximum.h"
#include "absl/memory/memory.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/data/sample.h"
#include "grapnel/examples/regression/pinball_loss.pb.h"
#include "grapnel/models/loss.h"

namespace examples {
namespace {

// A target above the output costs `quantile` of the difference, one below it
// the rest: the output that costs least has that part of the targets below it.
class PinballLoss final : public grapnel::Loss {
 public:
  using Config = PinballLossConfig;

  static absl::StatusOr<std::unique_ptr<PinballLoss>> Create(
      const Config& config) {
    if (!(config.quantile() > 0 && config.quantile() < 1)) {
      return absl::InvalidArgumentError(
          absl::StrCat("quantile: must be in (0, 1), is ", config.quantile()));
    }
    return absl::WrapUnique(new PinballLoss(config.quantile()));
  }

  absl::StatusOr<at::Tensor> Compute(
      const at::Tensor& outputs, const grapnel::Batch& batch) const override {
    if (!batch.targets.defined() || batch.targets.sizes() != outputs.sizes()) {
      return absl::InvalidArgumentError(
          "targets must have the shape of the outputs");
    }
    at::Tensor loss;
    const absl::Status status = grapnel::CatchAsStatus([&] {
      const at::Tensor above = batch.targets.sub(outputs);
      loss = at::maximum(above.mul(quantile_), above.mul(quantile_ - 1)).mean();
      return absl::OkStatus();
    });
    if (!status.ok()) return status;
    return loss;
  }

 private:
  explicit PinballLoss(double quantile) : quantile_(quantile) {}
  const double quantile_;
};

GRAPNEL_REGISTER(grapnel::LossRegistry, PinballLoss);

}  // namespace
}  // namespace examples
