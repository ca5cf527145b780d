#include <cmath>
#include <cstdint>
#include <memory>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "grapnel/base/check_field.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/models/functional.h"
#include "grapnel/models/layer.h"
#include "grapnel/models/layer.pb.h"
#include "grapnel/models/layers/config_checks.h"

namespace grapnel {
namespace {

// An activation without options.
template <typename ConfigT, at::Tensor (*kFunction)(const at::Tensor&)>
class PlainActivation : public SeededLayer {
 public:
  using Config = ConfigT;

  static absl::StatusOr<std::unique_ptr<Layer>> Create(
      const Config& /*config*/, const LayerOptions& /*options*/) {
    return std::make_unique<PlainActivation>();
  }

  at::Tensor Forward(const at::Tensor& input) override {
    return kFunction(input);
  }
};

at::Tensor Identity(const at::Tensor& input) { return input; }

using IdentityLayer =
    PlainActivation<models::v1::IdentityLayerConfig, &Identity>;
using SiluLayer =
    PlainActivation<models::v1::SiluLayerConfig, &functional::silu>;
using TanhLayer =
    PlainActivation<models::v1::TanhLayerConfig, &functional::tanh>;
using SigmoidLayer =
    PlainActivation<models::v1::SigmoidLayerConfig, &functional::sigmoid>;

class ReluLayer : public SeededLayer {
 public:
  using Config = models::v1::ReluLayerConfig;

  static absl::StatusOr<std::unique_ptr<Layer>> Create(
      const Config& /*config*/, const LayerOptions& options) {
    return std::make_unique<ReluLayer>(options.may_overwrite_input);
  }

  explicit ReluLayer(bool in_place) : in_place_(in_place) {}

  at::Tensor Forward(const at::Tensor& input) override {
    if (!in_place_) return functional::relu(input);
    at::Tensor output = input;
    return functional::relu_(output);
  }

 private:
  const bool in_place_;  // Same numbers, one tensor less to write.
};

class LeakyReluLayer : public SeededLayer {
 public:
  using Config = models::v1::LeakyReluLayerConfig;

  static absl::StatusOr<std::unique_ptr<Layer>> Create(
      const Config& config, const LayerOptions& /*options*/) {
    const double slope =
        config.has_negative_slope() ? config.negative_slope() : 0.01;
    GRAPNEL_RETURN_IF_ERROR(
        CheckField(std::isfinite(slope), "negative_slope", "finite", slope));
    return std::make_unique<LeakyReluLayer>(slope);
  }

  explicit LeakyReluLayer(double negative_slope)
      : negative_slope_(negative_slope) {}

  at::Tensor Forward(const at::Tensor& input) override {
    return functional::leaky_relu(input, negative_slope_);
  }

 private:
  const double negative_slope_;
};

class EluLayer : public SeededLayer {
 public:
  using Config = models::v1::EluLayerConfig;

  static absl::StatusOr<std::unique_ptr<Layer>> Create(
      const Config& config, const LayerOptions& /*options*/) {
    const double alpha = config.has_alpha() ? config.alpha() : 1;
    GRAPNEL_RETURN_IF_ERROR(
        CheckField(std::isfinite(alpha), "alpha", "finite", alpha));
    return std::make_unique<EluLayer>(alpha);
  }

  explicit EluLayer(double alpha) : alpha_(alpha) {}

  at::Tensor Forward(const at::Tensor& input) override {
    return functional::elu(input, alpha_);
  }

 private:
  const double alpha_;
};

class SoftmaxLayer : public SeededLayer {
 public:
  using Config = models::v1::SoftmaxLayerConfig;

  static absl::StatusOr<std::unique_ptr<Layer>> Create(
      const Config& config, const LayerOptions& options) {
    const int64_t dim = config.has_dim() ? config.dim() : 1;
    const int64_t last = static_cast<int64_t>(options.input_shape.size());
    if (dim != -1) GRAPNEL_RETURN_IF_ERROR(CheckAtLeast("dim", dim, 1));
    GRAPNEL_RETURN_IF_ERROR(
        CheckField(dim <= last, "dim", absl::StrCat("at most ", last), dim));
    return std::make_unique<SoftmaxLayer>(dim);
  }

  explicit SoftmaxLayer(int64_t dim) : dim_(dim) {}

  at::Tensor Forward(const at::Tensor& input) override {
    return functional::softmax(input, dim_);
  }

 private:
  const int64_t dim_;
};

class GeluLayer : public SeededLayer {
 public:
  using Config = models::v1::GeluLayerConfig;

  static absl::StatusOr<std::unique_ptr<Layer>> Create(
      const Config& config, const LayerOptions& /*options*/) {
    if (!config.has_approximate()) return std::make_unique<GeluLayer>("none");
    switch (config.approximate()) {
      case Config::APPROXIMATE_NONE:
        return std::make_unique<GeluLayer>("none");
      case Config::APPROXIMATE_TANH:
        return std::make_unique<GeluLayer>("tanh");
      default:
        return absl::InvalidArgumentError(
            absl::StrCat("approximate: must be APPROXIMATE_NONE or "
                         "APPROXIMATE_TANH, is ",
                         static_cast<int>(config.approximate())));
    }
  }

  explicit GeluLayer(const char* approximate) : approximate_(approximate) {}

  at::Tensor Forward(const at::Tensor& input) override {
    return functional::gelu(input, approximate_);
  }

 private:
  const char* const approximate_;
};

GRAPNEL_REGISTER(LayerRegistry, ReluLayer);
GRAPNEL_REGISTER(LayerRegistry, LeakyReluLayer);
GRAPNEL_REGISTER(LayerRegistry, EluLayer);
GRAPNEL_REGISTER(LayerRegistry, GeluLayer);
GRAPNEL_REGISTER(LayerRegistry, SiluLayer);
GRAPNEL_REGISTER(LayerRegistry, TanhLayer);
GRAPNEL_REGISTER(LayerRegistry, SigmoidLayer);
GRAPNEL_REGISTER(LayerRegistry, SoftmaxLayer);
GRAPNEL_REGISTER(LayerRegistry, IdentityLayer);

template <typename Config>
absl::StatusOr<double> ReadP(const Config& config) {
  const double p = config.has_p() ? config.p() : 0.5;
  GRAPNEL_RETURN_IF_ERROR(CheckFraction("p", p));
  return p;
}

class DropoutLayer : public SeededLayer {
 public:
  using Config = models::v1::DropoutLayerConfig;

  static absl::StatusOr<std::unique_ptr<Layer>> Create(
      const Config& config, const LayerOptions& options) {
    GRAPNEL_ASSIGN_OR_RETURN(const double p, ReadP(config));
    return std::make_unique<DropoutLayer>(p, options.forward_generator());
  }

  DropoutLayer(double p, const at::Generator& generator)
      : p_(p), generator_(generator) {}

  at::Tensor Forward(const at::Tensor& input) override {
    return functional::dropout(input, p_, training(), generator_);
  }

 private:
  const double p_;
  const at::Generator generator_;
};

class Dropout2dLayer : public SeededLayer {
 public:
  using Config = models::v1::Dropout2dLayerConfig;

  static absl::StatusOr<std::unique_ptr<Layer>> Create(
      const Config& config, const LayerOptions& options) {
    GRAPNEL_RETURN_IF_ERROR(
        CheckInputDims(options.input_shape, 3, 3, "(C, H, W)"));
    GRAPNEL_ASSIGN_OR_RETURN(const double p, ReadP(config));
    return std::make_unique<Dropout2dLayer>(p, options.forward_generator());
  }

  Dropout2dLayer(double p, const at::Generator& generator)
      : p_(p), generator_(generator) {}

  at::Tensor Forward(const at::Tensor& input) override {
    return functional::feature_dropout(input, p_, training(), generator_);
  }

 private:
  const double p_;
  const at::Generator generator_;
};

GRAPNEL_REGISTER(LayerRegistry, DropoutLayer);
GRAPNEL_REGISTER(LayerRegistry, Dropout2dLayer);

}  // namespace
}  // namespace grapnel
