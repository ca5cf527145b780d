#include "grapnel/models/sequential.h"

#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/models/model.pb.h"
#include "grapnel/models/shape.h"

namespace grapnel {
namespace {

absl::StatusOr<std::vector<int64_t>> InputShape(
    const Sequential::Config& config, const ModelOptions& options) {
  std::vector<int64_t> shape(config.input_shape().begin(),
                             config.input_shape().end());
  if (shape.empty()) shape = options.input_shape;
  if (shape.empty()) {
    return absl::InvalidArgumentError(
        "input_shape: must be set, because the data's isn't known");
  }
  for (const int64_t size : shape) {
    if (size < 1) {
      return absl::InvalidArgumentError(absl::StrCat(
          "input_shape: sizes must be >= 1, is ", ShapeString(shape)));
    }
  }
  return shape;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Sequential>> Sequential::Create(
    const Config& config, const ModelOptions& options) {
  LayerOptions layer_options;
  GRAPNEL_ASSIGN_OR_RETURN(layer_options.input_shape,
                           InputShape(config, options));
  layer_options.device = options.device;
  layer_options.generator = options.generator;
  layer_options.device_generator = options.device_generator;
  GRAPNEL_ASSIGN_OR_RETURN(
      std::unique_ptr<LayerChain> layers,
      LayerChain::Create(config.layers(), "layers", layer_options));
  std::unique_ptr<Loss> loss;
  if (config.has_loss()) {
    auto created = LossRegistry::Create(config.loss());
    if (!created.ok()) return WithContext(created.status(), "loss");
    loss = *std::move(created);
  } else if (options.loss != nullptr) {
    loss = std::move(*options.loss);
  }
  const bool other_shape = !options.input_shape.empty() &&
                           options.input_shape != layer_options.input_shape;
  return absl::WrapUnique(
      new Sequential(std::move(layers), std::move(loss), other_shape));
}

Sequential::Sequential(std::unique_ptr<LayerChain> layers,
                       std::unique_ptr<Loss> loss, bool other_shape)
    : SupervisedModel(std::move(loss)),
      layers_(std::move(layers)),
      other_shape_(other_shape) {}

absl::StatusOr<at::Tensor> Sequential::Forward(const Batch& batch) {
  at::Tensor outputs;
  GRAPNEL_RETURN_IF_ERROR(CatchAsStatus([&] {
    outputs = layers_->Forward(batch.inputs);
    return absl::OkStatus();
  }));
  return outputs;
}

const std::vector<NamedTensor>& Sequential::parameters() const {
  return layers_->parameters();
}

const std::vector<NamedTensor>& Sequential::buffers() const {
  return layers_->buffers();
}

bool Sequential::has_own_generator() const {
  return layers_->has_own_generator();
}

std::string Sequential::NeedsTwoSamples() const {
  return other_shape_ ? "" : layers_->NeedsTwoSamples();
}

absl::Status Sequential::SyncBatchNorm(ProcessGroup& group) {
  layers_->SyncBatchNorm(group);
  return absl::OkStatus();
}

void Sequential::SetTraining(bool training) { layers_->SetTraining(training); }

bool Sequential::training() const { return layers_->training(); }

const std::vector<int64_t>& Sequential::output_shape() const {
  return layers_->output_shape();
}

GRAPNEL_REGISTER(ModelRegistry, Sequential);

}  // namespace grapnel
