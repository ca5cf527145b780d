#include <memory>

#include "ATen/core/Tensor.h"
#include "absl/status/statusor.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/models/functional.h"
#include "grapnel/models/layer.h"
#include "grapnel/models/layer.pb.h"
#include "grapnel/models/layers/config_checks.h"

namespace grapnel {
namespace {

class EmbeddingLayer : public SeededLayer {
 public:
  using Config = models::v1::EmbeddingLayerConfig;

  static absl::StatusOr<std::unique_ptr<Layer>> Create(
      const Config& config, const LayerOptions& options) {
    GRAPNEL_RETURN_IF_ERROR(CheckRequired("num_embeddings",
                                          config.has_num_embeddings(),
                                          config.num_embeddings()));
    GRAPNEL_RETURN_IF_ERROR(CheckRequired(
        "embedding_dim", config.has_embedding_dim(), config.embedding_dim()));
    return std::make_unique<EmbeddingLayer>(config, options);
  }

  EmbeddingLayer(const Config& config, const LayerOptions& options) {
    at::Tensor weight =
        ops::empty({config.num_embeddings(), config.embedding_dim()});
    weight.normal_(0, 1, options.generator);
    weight_ = AddParameter(options, "weight", weight);
  }

  at::Tensor Forward(const at::Tensor& input) override {
    return functional::embedding(weight_, input.to(at::kLong));
  }

 private:
  at::Tensor weight_;
};

GRAPNEL_REGISTER(LayerRegistry, EmbeddingLayer);

}  // namespace
}  // namespace grapnel
