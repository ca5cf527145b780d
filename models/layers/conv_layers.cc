#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

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

namespace grapnel {
namespace {

struct ConvOptions {
  int64_t in_channels = 0;
  int64_t out_channels = 0;
  std::vector<int64_t> kernel_size;
  std::vector<int64_t> stride;
  std::vector<int64_t> padding;
  std::vector<int64_t> output_padding;  // Of transposed ones.
  std::vector<int64_t> dilation;
  int64_t groups = 1;
  bool bias = true;
};

// What all convolutions have in common but for the sizes.
template <typename Config>
absl::StatusOr<ConvOptions> ReadChannels(const Config& config,
                                         const LayerOptions& options) {
  ConvOptions conv;
  GRAPNEL_RETURN_IF_ERROR(CheckRequired(
      "out_channels", config.has_out_channels(), config.out_channels()));
  conv.in_channels = options.input_shape[0];
  conv.out_channels = config.out_channels();
  if (config.has_groups()) conv.groups = config.groups();
  if (config.has_bias()) conv.bias = config.bias();
  GRAPNEL_RETURN_IF_ERROR(CheckAtLeast("groups", conv.groups, 1));
  if (conv.in_channels % conv.groups != 0 ||
      conv.out_channels % conv.groups != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("groups: must divide the input's ", conv.in_channels,
                     " channels and the output's ", conv.out_channels, ", is ",
                     conv.groups));
  }
  return conv;
}

template <typename Config>
absl::StatusOr<ConvOptions> ReadConv2d(const Config& config,
                                       const LayerOptions& options) {
  GRAPNEL_RETURN_IF_ERROR(
      CheckInputDims(options.input_shape, 3, 3, "(C, H, W)"));
  GRAPNEL_ASSIGN_OR_RETURN(ConvOptions conv, ReadChannels(config, options));
  GRAPNEL_ASSIGN_OR_RETURN(
      conv.kernel_size,
      ReadPair("kernel_size", config.kernel_size(), 1, std::nullopt));
  GRAPNEL_ASSIGN_OR_RETURN(conv.stride,
                           ReadPair("stride", config.stride(), 1, 1));
  GRAPNEL_ASSIGN_OR_RETURN(conv.padding,
                           ReadPair("padding", config.padding(), 0, 0));
  GRAPNEL_ASSIGN_OR_RETURN(conv.dilation,
                           ReadPair("dilation", config.dilation(), 1, 1));
  return conv;
}

class ConvLayer : public SeededLayer {
 public:
  bool output_may_be_overwritten() const override { return true; }

 protected:
  // weight: (rows, columns, kernel_size...).
  ConvLayer(ConvOptions conv, int64_t rows, int64_t columns,
            const LayerOptions& options)
      : conv_(std::move(conv)) {
    std::vector<int64_t> shape = {rows, columns};
    shape.insert(shape.end(), conv_.kernel_size.begin(),
                 conv_.kernel_size.end());
    at::Tensor weight = ops::empty(shape);
    at::Tensor bias;
    if (conv_.bias) bias = ops::empty({conv_.out_channels});
    InitWeightAndBias(weight, bias, options.generator);
    weight_ = AddParameter(options, "weight", weight);
    if (conv_.bias) bias_ = AddParameter(options, "bias", bias);
  }

  const ConvOptions conv_;
  at::Tensor weight_;
  at::Tensor bias_;  // Undefined if there is none.
};

class Conv1dLayer : public ConvLayer {
 public:
  using Config = models::v1::Conv1dLayerConfig;

  static absl::StatusOr<std::unique_ptr<Layer>> Create(
      const Config& config, const LayerOptions& options) {
    GRAPNEL_RETURN_IF_ERROR(
        CheckInputDims(options.input_shape, 2, 2, "(C, L)"));
    GRAPNEL_ASSIGN_OR_RETURN(ConvOptions conv, ReadChannels(config, options));
    conv.kernel_size = {config.kernel_size()};
    conv.stride = {config.has_stride() ? config.stride() : 1};
    conv.padding = {config.padding()};
    conv.dilation = {config.has_dilation() ? config.dilation() : 1};
    GRAPNEL_RETURN_IF_ERROR(CheckRequired(
        "kernel_size", config.has_kernel_size(), config.kernel_size()));
    GRAPNEL_RETURN_IF_ERROR(CheckAtLeast("stride", conv.stride[0], 1));
    GRAPNEL_RETURN_IF_ERROR(CheckAtLeast("padding", conv.padding[0], 0));
    GRAPNEL_RETURN_IF_ERROR(CheckAtLeast("dilation", conv.dilation[0], 1));
    return std::make_unique<Conv1dLayer>(std::move(conv), options);
  }

  Conv1dLayer(const ConvOptions& conv, const LayerOptions& options)
      : ConvLayer(conv, conv.out_channels, conv.in_channels / conv.groups,
                  options) {}

  at::Tensor Forward(const at::Tensor& input) override {
    return functional::conv1d(input, weight_, bias_, conv_.stride,
                              conv_.padding, conv_.dilation, conv_.groups);
  }
};

class Conv2dLayer : public ConvLayer {
 public:
  using Config = models::v1::Conv2dLayerConfig;

  static absl::StatusOr<std::unique_ptr<Layer>> Create(
      const Config& config, const LayerOptions& options) {
    GRAPNEL_ASSIGN_OR_RETURN(ConvOptions conv, ReadConv2d(config, options));
    return std::make_unique<Conv2dLayer>(std::move(conv), options);
  }

  Conv2dLayer(const ConvOptions& conv, const LayerOptions& options)
      : ConvLayer(conv, conv.out_channels, conv.in_channels / conv.groups,
                  options) {}

  at::Tensor Forward(const at::Tensor& input) override {
    return functional::conv2d(input, weight_, bias_, conv_.stride,
                              conv_.padding, conv_.dilation, conv_.groups);
  }
};

class ConvTranspose2dLayer : public ConvLayer {
 public:
  using Config = models::v1::ConvTranspose2dLayerConfig;

  static absl::StatusOr<std::unique_ptr<Layer>> Create(
      const Config& config, const LayerOptions& options) {
    GRAPNEL_ASSIGN_OR_RETURN(ConvOptions conv, ReadConv2d(config, options));
    GRAPNEL_ASSIGN_OR_RETURN(
        conv.output_padding,
        ReadPair("output_padding", config.output_padding(), 0, 0));
    for (int i = 0; i < 2; ++i) {
      const int64_t limit = std::max(conv.stride[i], conv.dilation[i]);
      if (conv.output_padding[i] >= limit) {
        return absl::InvalidArgumentError(absl::StrCat(
            "output_padding: must be less than stride or dilation, ", limit,
            ", is ", conv.output_padding[i]));
      }
    }
    return std::make_unique<ConvTranspose2dLayer>(std::move(conv), options);
  }

  ConvTranspose2dLayer(const ConvOptions& conv, const LayerOptions& options)
      : ConvLayer(conv, conv.in_channels, conv.out_channels / conv.groups,
                  options) {}

  at::Tensor Forward(const at::Tensor& input) override {
    return functional::conv_transpose2d(input, weight_, bias_, conv_.stride,
                                        conv_.padding, conv_.output_padding,
                                        conv_.groups, conv_.dilation);
  }
};

GRAPNEL_REGISTER(LayerRegistry, Conv1dLayer);
GRAPNEL_REGISTER(LayerRegistry, Conv2dLayer);
GRAPNEL_REGISTER(LayerRegistry, ConvTranspose2dLayer);

}  // namespace
}  // namespace grapnel
