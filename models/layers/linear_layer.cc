#include <cstdint>
#include <memory>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/models/functional.h"
#include "grapnel/models/layer.h"
#include "grapnel/models/layer.pb.h"
#include "grapnel/models/layers/config_checks.h"
#include "grapnel/models/layers/default_init.h"
#include "grapnel/models/shape.h"

namespace grapnel {
namespace {

class LinearLayer : public SeededLayer {
 public:
  using Config = models::v1::LinearLayerConfig;

  static absl::StatusOr<std::unique_ptr<Layer>> Create(
      const Config& config, const LayerOptions& options) {
    GRAPNEL_RETURN_IF_ERROR(CheckRequired(
        "out_features", config.has_out_features(), config.out_features()));
    // LibTorch would take images too, and multiply their rows: never meant.
    if (options.input_shape.empty() || options.input_shape.size() > 2) {
      return absl::InvalidArgumentError(absl::StrCat(
          "takes (F) or (L, F): input is ", ShapeString(options.input_shape),
          options.input_shape.empty() ? "" : "; put a flatten before it"));
    }
    return std::make_unique<LinearLayer>(config, options);
  }

  LinearLayer(const Config& config, const LayerOptions& options)
      : output_may_be_overwritten_(options.input_shape.size() == 1) {
    const int64_t out = config.out_features();
    at::Tensor weight = ops::empty({out, options.input_shape.back()});
    at::Tensor bias;
    if (!config.has_bias() || config.bias()) bias = ops::empty({out});
    InitWeightAndBias(weight, bias, options.generator);
    weight_ = AddParameter(options, "weight", weight);
    if (bias.defined()) bias_ = AddParameter(options, "bias", bias);
  }

  at::Tensor Forward(const at::Tensor& input) override {
    return functional::linear(input, weight_, bias_);
  }

  // Of (N, L, F) it is a view.
  bool output_may_be_overwritten() const override {
    return output_may_be_overwritten_;
  }

 private:
  const bool output_may_be_overwritten_;
  at::Tensor weight_;
  at::Tensor bias_;  // Undefined if there is none.
};

GRAPNEL_REGISTER(LayerRegistry, LinearLayer);

}  // namespace
}  // namespace grapnel
