// Layers one after another.

#ifndef GRAPNEL_MODELS_LAYER_CHAIN_H_
#define GRAPNEL_MODELS_LAYER_CHAIN_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "grapnel/models/layer.h"

namespace google::protobuf {
template <typename T>
class RepeatedPtrField;
}  // namespace google::protobuf

namespace grapnel::models::v1 {
class LayerConfig;
}  // namespace grapnel::models::v1

namespace grapnel {

// A layer that is made of others; each gets the shape that the one before it
// gives. Its tensors are called "<name or index>.<tensor>".
// Thread-compatible.
class LayerChain : public Layer {
 public:
  using Configs = google::protobuf::RepeatedPtrField<models::v1::LayerConfig>;

  // `field` is what the list is called in its config. Errors name the layer:
  // "layers[3] linear: ...". kInvalidArgument if a layer doesn't fit the output
  // of the one before.
  static absl::StatusOr<std::unique_ptr<LayerChain>> Create(
      const Configs& configs, absl::string_view field,
      const LayerOptions& options);

  // Exceptions of c10 get the layer's position into their message.
  at::Tensor Forward(const at::Tensor& input) override;

  bool output_may_be_overwritten() const override;

  // If all of its layers have.
  bool has_own_generator() const override;

  // Names the layer: "layers[3] batch_norm1d: has ...".
  std::string NeedsTwoSamples() const override;

  void SyncBatchNorm(ProcessGroup& group) override;

  void SetTraining(bool training) override;

  // Of one sample.
  const std::vector<int64_t>& output_shape() const { return output_shape_; }

 private:
  struct Link {
    std::string position;  // "layers[3] linear"
    std::unique_ptr<Layer> layer;
  };

  LayerChain() = default;

  std::vector<Link> links_;
  std::vector<int64_t> output_shape_;
};

}  // namespace grapnel

#endif  // GRAPNEL_MODELS_LAYER_CHAIN_H_
