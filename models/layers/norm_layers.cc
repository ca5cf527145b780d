#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "c10/util/Exception.h"
#include "c10/util/accumulate.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/dist/process_group.h"
#include "grapnel/models/functional.h"
#include "grapnel/models/layer.h"
#include "grapnel/models/layer.pb.h"
#include "grapnel/models/layers/config_checks.h"
#include "grapnel/models/shape.h"
#include "grapnel/models/sync_batch_norm.h"

namespace grapnel {
namespace {

template <typename Config>
double Epsilon(const Config& config) {
  return config.has_eps() ? config.eps() : 1e-5;
}

template <typename Config>
bool IsAffine(const Config& config) {
  return !config.has_affine() || config.affine();
}

// What batch norm of all dimensions is; `kMinDims` and `kMaxDims` of a sample.
template <typename ConfigT, int kMinDims, int kMaxDims>
class BatchNormLayer : public SeededLayer {
 public:
  using Config = ConfigT;

  static absl::StatusOr<std::unique_ptr<Layer>> Create(
      const Config& config, const LayerOptions& options) {
    GRAPNEL_RETURN_IF_ERROR(
        CheckInputDims(options.input_shape, kMinDims, kMaxDims,
                       kMaxDims == 3 ? "(C, H, W)" : "(C) or (C, L)"));
    const double momentum = config.has_momentum() ? config.momentum() : 0.1;
    GRAPNEL_RETURN_IF_ERROR(CheckPositive("eps", Epsilon(config)));
    GRAPNEL_RETURN_IF_ERROR(CheckFraction("momentum", momentum));
    return std::make_unique<BatchNormLayer>(config, momentum, options);
  }

  BatchNormLayer(const Config& config, double momentum,
                 const LayerOptions& options)
      : eps_(Epsilon(config)),
        momentum_(momentum),
        one_value_a_channel_(c10::multiply_integers(options.input_shape) ==
                             options.input_shape[0]) {
    const int64_t channels = options.input_shape[0];
    if (IsAffine(config)) {
      weight_ = AddParameter(options, "weight", ops::ones({channels}));
      bias_ = AddParameter(options, "bias", ops::zeros({channels}));
    }
    if (!config.has_track_running_stats() || config.track_running_stats()) {
      running_mean_ =
          AddBuffer(options, "running_mean", ops::zeros({channels}));
      running_var_ = AddBuffer(options, "running_var", ops::ones({channels}));
      num_batches_tracked_ =
          AddBuffer(options, "num_batches_tracked", ops::zeros({}, at::kLong));
    }
  }

  at::Tensor Forward(const at::Tensor& input) override {
    if (training() && group_ != nullptr) {
      if (num_batches_tracked_.defined()) num_batches_tracked_.add_(1);
      return BatchNormOverRanks(input, weight_, bias_, running_mean_,
                                running_var_, momentum_, eps_, *group_);
    }
    if (training()) {
      TORCH_CHECK_VALUE(input.numel() > input.size(1),
                        "batch norm needs more than one value per channel in "
                        "training: input is ",
                        input.sizes());
      if (num_batches_tracked_.defined()) num_batches_tracked_.add_(1);
    }
    return functional::batch_norm(input, weight_, bias_, running_mean_,
                                  running_var_,
                                  training() || !running_mean_.defined(),
                                  momentum_, eps_, /*cudnn_enabled=*/true);
  }

  bool output_may_be_overwritten() const override { return true; }

  std::string NeedsTwoSamples() const override {
    // Of several ranks each has a sample.
    return one_value_a_channel_ && group_ == nullptr
               ? "has one value per channel in a sample"
               : "";
  }

  void SyncBatchNorm(ProcessGroup& group) override {
    group_ = group.world_size() == 1 ? nullptr : &group;
  }

 private:
  const double eps_;
  const double momentum_;
  const bool one_value_a_channel_;  // Of a sample.
  at::Tensor weight_;               // Undefined if not affine, as bias_ is.
  at::Tensor bias_;
  at::Tensor running_mean_;  // Undefined if not tracked, as the next two are.
  at::Tensor running_var_;
  at::Tensor num_batches_tracked_;
  ProcessGroup* group_ = nullptr;  // Null: each rank's batch by itself.
};

using BatchNorm1dLayer =
    BatchNormLayer<models::v1::BatchNorm1dLayerConfig, 1, 2>;
using BatchNorm2dLayer =
    BatchNormLayer<models::v1::BatchNorm2dLayerConfig, 3, 3>;

class LayerNormLayer : public SeededLayer {
 public:
  using Config = models::v1::LayerNormLayerConfig;

  static absl::StatusOr<std::unique_ptr<Layer>> Create(
      const Config& config, const LayerOptions& options) {
    const int num_dims = config.has_num_dims() ? config.num_dims() : 1;
    const int input_dims = static_cast<int>(options.input_shape.size());
    GRAPNEL_RETURN_IF_ERROR(CheckAtLeast("num_dims", num_dims, 1));
    if (num_dims > input_dims) {
      return absl::InvalidArgumentError(absl::StrCat(
          "num_dims: must be at most ", input_dims, ", is ", num_dims,
          ": input is ", ShapeString(options.input_shape)));
    }
    GRAPNEL_RETURN_IF_ERROR(CheckPositive("eps", Epsilon(config)));
    return std::make_unique<LayerNormLayer>(
        config, options,
        std::vector<int64_t>(options.input_shape.end() - num_dims,
                             options.input_shape.end()));
  }

  LayerNormLayer(const Config& config, const LayerOptions& options,
                 const std::vector<int64_t>& shape)
      : shape_(shape), eps_(Epsilon(config)) {
    if (IsAffine(config)) {
      weight_ = AddParameter(options, "weight", ops::ones(shape));
      bias_ = AddParameter(options, "bias", ops::zeros(shape));
    }
  }

  at::Tensor Forward(const at::Tensor& input) override {
    return functional::layer_norm(input, shape_, weight_, bias_, eps_);
  }

  bool output_may_be_overwritten() const override { return true; }

 private:
  const std::vector<int64_t> shape_;
  const double eps_;
  at::Tensor weight_;  // Undefined if not affine, as bias_ is.
  at::Tensor bias_;
};

class GroupNormLayer : public SeededLayer {
 public:
  using Config = models::v1::GroupNormLayerConfig;

  static absl::StatusOr<std::unique_ptr<Layer>> Create(
      const Config& config, const LayerOptions& options) {
    GRAPNEL_RETURN_IF_ERROR(CheckInputDims(
        options.input_shape, 1, options.input_shape.size(), "(C, ...)"));
    GRAPNEL_RETURN_IF_ERROR(CheckRequired("num_groups", config.has_num_groups(),
                                          config.num_groups()));
    const int64_t channels = options.input_shape[0];
    if (channels % config.num_groups() != 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("num_groups: must divide the input's ", channels,
                       " channels, is ", config.num_groups()));
    }
    GRAPNEL_RETURN_IF_ERROR(CheckPositive("eps", Epsilon(config)));
    return std::make_unique<GroupNormLayer>(config, options);
  }

  GroupNormLayer(const Config& config, const LayerOptions& options)
      : num_groups_(config.num_groups()), eps_(Epsilon(config)) {
    const int64_t channels = options.input_shape[0];
    if (IsAffine(config)) {
      weight_ = AddParameter(options, "weight", ops::ones({channels}));
      bias_ = AddParameter(options, "bias", ops::zeros({channels}));
    }
  }

  at::Tensor Forward(const at::Tensor& input) override {
    return functional::group_norm(input, num_groups_, weight_, bias_, eps_);
  }

 private:
  const int64_t num_groups_;
  const double eps_;
  at::Tensor weight_;  // Undefined if not affine, as bias_ is.
  at::Tensor bias_;
};

GRAPNEL_REGISTER(LayerRegistry, BatchNorm1dLayer);
GRAPNEL_REGISTER(LayerRegistry, BatchNorm2dLayer);
GRAPNEL_REGISTER(LayerRegistry, LayerNormLayer);
GRAPNEL_REGISTER(LayerRegistry, GroupNormLayer);

}  // namespace
}  // namespace grapnel
