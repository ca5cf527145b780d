// Layers made of layers.

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/models/layer.h"
#include "grapnel/models/layer.pb.h"
#include "grapnel/models/layer_chain.h"
#include "grapnel/models/shape.h"

namespace grapnel {
namespace {

// A LayerChain is a layer already; this is its config.
class SequentialLayer {
 public:
  using Config = models::v1::SequentialLayerConfig;

  static absl::StatusOr<std::unique_ptr<Layer>> Create(
      const Config& config, const LayerOptions& options) {
    GRAPNEL_ASSIGN_OR_RETURN(
        std::unique_ptr<LayerChain> chain,
        LayerChain::Create(config.layers(), "layers", options));
    return chain;
  }
};

class ResidualLayer : public Layer {
 public:
  using Config = models::v1::ResidualLayerConfig;

  static absl::StatusOr<std::unique_ptr<Layer>> Create(
      const Config& config, const LayerOptions& options) {
    // Both ways read the input, so neither may write it.
    LayerOptions inner = options;
    inner.may_overwrite_input = false;
    GRAPNEL_ASSIGN_OR_RETURN(
        std::unique_ptr<LayerChain> body,
        LayerChain::Create(config.layers(), "layers", inner));
    std::unique_ptr<LayerChain> shortcut;
    if (!config.shortcut().empty()) {
      GRAPNEL_ASSIGN_OR_RETURN(
          shortcut, LayerChain::Create(config.shortcut(), "shortcut", inner));
    }
    const std::vector<int64_t>& shortcut_shape =
        shortcut == nullptr ? options.input_shape : shortcut->output_shape();
    if (body->output_shape() != shortcut_shape) {
      return absl::InvalidArgumentError(absl::StrCat(
          "layers give ", ShapeString(body->output_shape()),
          shortcut == nullptr ? ", the input is " : ", shortcut gives ",
          ShapeString(shortcut_shape), ": they can't be added"));
    }
    return std::make_unique<ResidualLayer>(std::move(body),
                                           std::move(shortcut));
  }

  ResidualLayer(std::unique_ptr<LayerChain> body,
                std::unique_ptr<LayerChain> shortcut)
      : body_(std::move(body)), shortcut_(std::move(shortcut)) {
    AddTensorsOf("body", *body_);
    if (shortcut_ != nullptr) AddTensorsOf("shortcut", *shortcut_);
  }

  at::Tensor Forward(const at::Tensor& input) override {
    at::Tensor sum = body_->Forward(input);
    const at::Tensor other =
        shortcut_ == nullptr ? input : shortcut_->Forward(input);
    return body_->output_may_be_overwritten() ? sum.add_(other)
                                              : sum.add(other);
  }

  bool output_may_be_overwritten() const override { return true; }

  bool has_own_generator() const override {
    return body_->has_own_generator() &&
           (shortcut_ == nullptr || shortcut_->has_own_generator());
  }

  std::string NeedsTwoSamples() const override {
    const std::string why = body_->NeedsTwoSamples();
    if (!why.empty() || shortcut_ == nullptr) return why;
    return shortcut_->NeedsTwoSamples();
  }

  void SyncBatchNorm(ProcessGroup& group) override {
    body_->SyncBatchNorm(group);
    if (shortcut_ != nullptr) shortcut_->SyncBatchNorm(group);
  }

  void SetTraining(bool training) override {
    Layer::SetTraining(training);
    body_->SetTraining(training);
    if (shortcut_ != nullptr) shortcut_->SetTraining(training);
  }

 private:
  const std::unique_ptr<LayerChain> body_;
  const std::unique_ptr<LayerChain> shortcut_;  // Null: the input itself.
};

GRAPNEL_REGISTER(LayerRegistry, SequentialLayer);
GRAPNEL_REGISTER(LayerRegistry, ResidualLayer);

}  // namespace
}  // namespace grapnel
