#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

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

struct PoolOptions {
  std::vector<int64_t> kernel_size;
  std::vector<int64_t> stride;
  std::vector<int64_t> padding;
  std::vector<int64_t> dilation;  // Of max pooling.
  bool ceil_mode = false;
  bool count_include_pad = true;  // Of average pooling.
};

absl::Status CheckPadding(int64_t padding, int64_t kernel_size) {
  return CheckField(padding <= kernel_size / 2, "padding",
                    absl::StrCat("at most half of kernel_size, ", kernel_size),
                    padding);
}

template <typename Config>
absl::StatusOr<PoolOptions> ReadPool(const Config& config,
                                     const LayerOptions& options) {
  GRAPNEL_RETURN_IF_ERROR(
      CheckInputDims(options.input_shape, 3, 3, "(C, H, W)"));
  PoolOptions pool;
  GRAPNEL_ASSIGN_OR_RETURN(
      pool.kernel_size,
      ReadPair("kernel_size", config.kernel_size(), 1, std::nullopt));
  pool.stride = pool.kernel_size;
  if (!config.stride().empty()) {
    GRAPNEL_ASSIGN_OR_RETURN(
        pool.stride, ReadPair("stride", config.stride(), 1, std::nullopt));
  }
  GRAPNEL_ASSIGN_OR_RETURN(pool.padding,
                           ReadPair("padding", config.padding(), 0, 0));
  for (int i = 0; i < 2; ++i) {
    GRAPNEL_RETURN_IF_ERROR(CheckPadding(pool.padding[i], pool.kernel_size[i]));
  }
  pool.ceil_mode = config.ceil_mode();
  return pool;
}

// The same in one direction: lists of one.
template <typename Config>
absl::StatusOr<PoolOptions> ReadPool1d(const Config& config,
                                       const LayerOptions& options) {
  GRAPNEL_RETURN_IF_ERROR(CheckInputDims(options.input_shape, 2, 2, "(C, L)"));
  const int64_t kernel_size = config.kernel_size();
  GRAPNEL_RETURN_IF_ERROR(
      CheckRequired("kernel_size", config.has_kernel_size(), kernel_size));
  const int64_t stride = config.has_stride() ? config.stride() : kernel_size;
  GRAPNEL_RETURN_IF_ERROR(CheckAtLeast("stride", stride, 1));
  const int64_t padding = config.padding();
  GRAPNEL_RETURN_IF_ERROR(CheckAtLeast("padding", padding, 0));
  GRAPNEL_RETURN_IF_ERROR(CheckPadding(padding, kernel_size));
  PoolOptions pool;
  pool.kernel_size = {kernel_size};
  pool.stride = {stride};
  pool.padding = {padding};
  pool.ceil_mode = config.ceil_mode();
  return pool;
}

class MaxPool2dLayer : public SeededLayer {
 public:
  using Config = models::v1::MaxPool2dLayerConfig;

  static absl::StatusOr<std::unique_ptr<Layer>> Create(
      const Config& config, const LayerOptions& options) {
    GRAPNEL_ASSIGN_OR_RETURN(PoolOptions pool, ReadPool(config, options));
    GRAPNEL_ASSIGN_OR_RETURN(pool.dilation,
                             ReadPair("dilation", config.dilation(), 1, 1));
    return std::make_unique<MaxPool2dLayer>(std::move(pool));
  }

  explicit MaxPool2dLayer(PoolOptions pool) : pool_(std::move(pool)) {}

  at::Tensor Forward(const at::Tensor& input) override {
    return functional::max_pool2d(input, pool_.kernel_size, pool_.stride,
                                  pool_.padding, pool_.dilation,
                                  pool_.ceil_mode);
  }

  bool output_may_be_overwritten() const override { return true; }

 private:
  const PoolOptions pool_;
};

class AvgPool2dLayer : public SeededLayer {
 public:
  using Config = models::v1::AvgPool2dLayerConfig;

  static absl::StatusOr<std::unique_ptr<Layer>> Create(
      const Config& config, const LayerOptions& options) {
    GRAPNEL_ASSIGN_OR_RETURN(PoolOptions pool, ReadPool(config, options));
    if (config.has_count_include_pad()) {
      pool.count_include_pad = config.count_include_pad();
    }
    return std::make_unique<AvgPool2dLayer>(std::move(pool));
  }

  explicit AvgPool2dLayer(PoolOptions pool) : pool_(std::move(pool)) {}

  at::Tensor Forward(const at::Tensor& input) override {
    return functional::avg_pool2d(input, pool_.kernel_size, pool_.stride,
                                  pool_.padding, pool_.ceil_mode,
                                  pool_.count_include_pad);
  }

  bool output_may_be_overwritten() const override { return true; }

 private:
  const PoolOptions pool_;
};

class AdaptiveAvgPool2dLayer : public SeededLayer {
 public:
  using Config = models::v1::AdaptiveAvgPool2dLayerConfig;

  static absl::StatusOr<std::unique_ptr<Layer>> Create(
      const Config& config, const LayerOptions& options) {
    GRAPNEL_RETURN_IF_ERROR(
        CheckInputDims(options.input_shape, 3, 3, "(C, H, W)"));
    GRAPNEL_ASSIGN_OR_RETURN(
        std::vector<int64_t> output_size,
        ReadPair("output_size", config.output_size(), 1, 1));
    return std::make_unique<AdaptiveAvgPool2dLayer>(std::move(output_size));
  }

  explicit AdaptiveAvgPool2dLayer(std::vector<int64_t> output_size)
      : output_size_(std::move(output_size)) {}

  at::Tensor Forward(const at::Tensor& input) override {
    return functional::adaptive_avg_pool2d(input, output_size_);
  }

 private:
  const std::vector<int64_t> output_size_;
};

class MaxPool1dLayer : public SeededLayer {
 public:
  using Config = models::v1::MaxPool1dLayerConfig;

  static absl::StatusOr<std::unique_ptr<Layer>> Create(
      const Config& config, const LayerOptions& options) {
    GRAPNEL_ASSIGN_OR_RETURN(PoolOptions pool, ReadPool1d(config, options));
    const int64_t dilation = config.has_dilation() ? config.dilation() : 1;
    GRAPNEL_RETURN_IF_ERROR(CheckAtLeast("dilation", dilation, 1));
    pool.dilation = {dilation};
    return std::make_unique<MaxPool1dLayer>(std::move(pool));
  }

  explicit MaxPool1dLayer(PoolOptions pool) : pool_(std::move(pool)) {}

  at::Tensor Forward(const at::Tensor& input) override {
    return functional::max_pool1d(input, pool_.kernel_size, pool_.stride,
                                  pool_.padding, pool_.dilation,
                                  pool_.ceil_mode);
  }

 private:
  const PoolOptions pool_;
};

class AvgPool1dLayer : public SeededLayer {
 public:
  using Config = models::v1::AvgPool1dLayerConfig;

  static absl::StatusOr<std::unique_ptr<Layer>> Create(
      const Config& config, const LayerOptions& options) {
    GRAPNEL_ASSIGN_OR_RETURN(PoolOptions pool, ReadPool1d(config, options));
    if (config.has_count_include_pad()) {
      pool.count_include_pad = config.count_include_pad();
    }
    return std::make_unique<AvgPool1dLayer>(std::move(pool));
  }

  explicit AvgPool1dLayer(PoolOptions pool) : pool_(std::move(pool)) {}

  at::Tensor Forward(const at::Tensor& input) override {
    return functional::avg_pool1d(input, pool_.kernel_size, pool_.stride,
                                  pool_.padding, pool_.ceil_mode,
                                  pool_.count_include_pad);
  }

 private:
  const PoolOptions pool_;
};

class AdaptiveAvgPool1dLayer : public SeededLayer {
 public:
  using Config = models::v1::AdaptiveAvgPool1dLayerConfig;

  static absl::StatusOr<std::unique_ptr<Layer>> Create(
      const Config& config, const LayerOptions& options) {
    GRAPNEL_RETURN_IF_ERROR(
        CheckInputDims(options.input_shape, 2, 2, "(C, L)"));
    const int64_t output_size =
        config.has_output_size() ? config.output_size() : 1;
    GRAPNEL_RETURN_IF_ERROR(CheckAtLeast("output_size", output_size, 1));
    return std::make_unique<AdaptiveAvgPool1dLayer>(output_size);
  }

  explicit AdaptiveAvgPool1dLayer(int64_t output_size)
      : output_size_(output_size) {}

  at::Tensor Forward(const at::Tensor& input) override {
    return functional::adaptive_avg_pool1d(input, output_size_);
  }

 private:
  const int64_t output_size_;
};

GRAPNEL_REGISTER(LayerRegistry, MaxPool1dLayer);
GRAPNEL_REGISTER(LayerRegistry, AvgPool1dLayer);
GRAPNEL_REGISTER(LayerRegistry, AdaptiveAvgPool1dLayer);
GRAPNEL_REGISTER(LayerRegistry, MaxPool2dLayer);
GRAPNEL_REGISTER(LayerRegistry, AvgPool2dLayer);
GRAPNEL_REGISTER(LayerRegistry, AdaptiveAvgPool2dLayer);

}  // namespace
}  // namespace grapnel
