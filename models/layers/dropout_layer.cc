#include <memory>

#include "ATen/core/Tensor.h"
#include "absl/status/statusor.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/models/functional.h"
#include "grapnel/models/layer.h"
#include "grapnel/models/layers/config_checks.h"
#include "grapnel/models/model.pb.h"

namespace grapnel {
namespace {

template <typename Config>
absl::StatusOr<double> ReadP(const Config& config) {
  const double p = config.has_p() ? config.p() : 0.5;
  GRAPNEL_RETURN_IF_ERROR(CheckFraction("p", p));
  return p;
}

class DropoutLayer : public Layer {
 public:
  using Config = models::v1::DropoutLayerConfig;

  static absl::StatusOr<std::unique_ptr<Layer>> Create(
      const Config& config, const LayerOptions& /*options*/) {
    GRAPNEL_ASSIGN_OR_RETURN(const double p, ReadP(config));
    return std::make_unique<DropoutLayer>(p);
  }

  explicit DropoutLayer(double p) : p_(p) {}

  at::Tensor Forward(const at::Tensor& input) override {
    return functional::dropout(input, p_, training());
  }

 private:
  const double p_;
};

class Dropout2dLayer : public Layer {
 public:
  using Config = models::v1::Dropout2dLayerConfig;

  static absl::StatusOr<std::unique_ptr<Layer>> Create(
      const Config& config, const LayerOptions& options) {
    GRAPNEL_RETURN_IF_ERROR(
        CheckInputDims(options.input_shape, 3, 3, "(C, H, W)"));
    GRAPNEL_ASSIGN_OR_RETURN(const double p, ReadP(config));
    return std::make_unique<Dropout2dLayer>(p);
  }

  explicit Dropout2dLayer(double p) : p_(p) {}

  at::Tensor Forward(const at::Tensor& input) override {
    return functional::feature_dropout(input, p_, training());
  }

 private:
  const double p_;
};

GRAPNEL_REGISTER(LayerRegistry, DropoutLayer);
GRAPNEL_REGISTER(LayerRegistry, Dropout2dLayer);

}  // namespace
}  // namespace grapnel
