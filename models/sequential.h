// Models from config.

#ifndef GRAPNEL_MODELS_SEQUENTIAL_H_
#define GRAPNEL_MODELS_SEQUENTIAL_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/data/sample.h"
#include "grapnel/models/layer_chain.h"
#include "grapnel/models/loss.h"
#include "grapnel/models/model.h"
#include "grapnel/models/supervised_model.h"

namespace grapnel::models::v1 {
class SequentialConfig;
}  // namespace grapnel::models::v1

namespace grapnel {

// Layers one after another, and a loss. With one seed of its generator it
// starts with the same parameters, of the same names, as the same
// torch.nn.Sequential with that of the default one. Links no layer and no loss:
// depend on
// //models/layers:all_layers and //models/losses:all_losses, or on those that
// you need. Thread-compatible.
class Sequential : public SupervisedModel {
 public:
  using Config = models::v1::SequentialConfig;

  // Errors name the field and the layer's position:
  // "layers[3] linear: out_features: must be >= 1, is 0".
  static absl::StatusOr<std::unique_ptr<Sequential>> Create(
      const Config& config, const ModelOptions& options);

  absl::StatusOr<at::Tensor> Forward(const Batch& batch) override;

  const std::vector<NamedTensor>& parameters() const override;
  const std::vector<NamedTensor>& buffers() const override;
  bool has_own_generator() const override;
  std::string NeedsTwoSamples() const override;
  absl::Status SyncBatchNorm(ProcessGroup& group) override;
  void SetTraining(bool training) override;
  bool training() const override;

  // Of one sample.
  const std::vector<int64_t>& output_shape() const;

 private:
  Sequential(std::unique_ptr<LayerChain> layers, std::unique_ptr<Loss> loss,
             bool other_shape);

  const std::unique_ptr<LayerChain> layers_;
  const bool other_shape_;  // The data's isn't the one that was configured.
};

}  // namespace grapnel

#endif  // GRAPNEL_MODELS_SEQUENTIAL_H_
