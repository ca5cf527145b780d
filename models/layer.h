// Layers of models from config: an open set. models/layers/linear_layer.cc is
// the file to imitate.
//
// N is the number of samples in a batch. Shapes in options and messages are
// those of one sample, without N.

#ifndef GRAPNEL_MODELS_LAYER_H_
#define GRAPNEL_MODELS_LAYER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ATen/core/Generator.h"
#include "ATen/core/Tensor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "c10/core/Device.h"
#include "grapnel/base/registry.h"
#include "grapnel/base/tensor_map.h"

namespace grapnel {

class ProcessGroup;

// What a layer knows about its place.
struct LayerOptions {
  std::vector<int64_t> input_shape;

  // Whether nobody else needs the input's values, autograd included, so that
  // the layer may compute in place.
  bool may_overwrite_input = false;

  // As in ModelOptions. A constructor makes its tensors on the CPU, drawing
  // from `generator`, and AddParameter brings them to `device`; Forward draws
  // from forward_generator().
  c10::Device device = c10::DeviceType::CPU;
  at::Generator generator;
  at::Generator device_generator;

  const at::Generator& forward_generator() const {
    return device.is_cpu() ? generator : device_generator;
  }
};

// A new layer is in training mode. Thread-compatible.
class Layer {
 public:
  virtual ~Layer() = default;

  // input: (N, ...), not modified unless may_overwrite_input was set. May
  // throw what LibTorch throws; the layer's owner makes it a status.
  //
  // It is also called once in evaluation mode, with zeros for one sample, to
  // learn the shape of the output, and must not change state then.
  virtual at::Tensor Forward(const at::Tensor& input) = 0;

  // True if Forward's result is a new tensor, and autograd doesn't need its
  // values for this layer's backward.
  virtual bool output_may_be_overwritten() const { return false; }

  // See Model::has_own_generator.
  virtual bool has_own_generator() const { return false; }

  // Why a batch of one sample of LayerOptions::input_shape can't be trained on:
  // "has one value ...". "" if it can.
  virtual std::string NeedsTwoSamples() const { return ""; }

  // See Model::SyncBatchNorm. Of a layer with batch norm, or layers, within.
  virtual void SyncBatchNorm(ProcessGroup& /*group*/) {}

  virtual void SetTraining(bool training) { training_ = training; }
  bool training() const { return training_; }

  // Names are relative to the layer: "weight".
  const std::vector<NamedTensor>& parameters() const { return parameters_; }
  const std::vector<NamedTensor>& buffers() const { return buffers_; }

 protected:
  Layer() = default;

  // Returns the layer's tensor, on options.device: `tensor` itself if it is
  // there, else a copy. A parameter requires a gradient from now on.
  [[nodiscard]] at::Tensor AddParameter(const LayerOptions& options,
                                        std::string name, at::Tensor tensor) {
    tensor = Moved(options, tensor).requires_grad_(true);
    parameters_.push_back({std::move(name), tensor});
    return tensor;
  }

  [[nodiscard]] at::Tensor AddBuffer(const LayerOptions& options,
                                     std::string name, at::Tensor tensor) {
    tensor = Moved(options, tensor);
    buffers_.push_back({std::move(name), tensor});
    return tensor;
  }

  // Adds the tensors of a layer inside this one, with `prefix` and "." in
  // front.
  void AddTensorsOf(absl::string_view prefix, const Layer& layer) {
    for (const NamedTensor& tensor : layer.parameters_) {
      parameters_.push_back(
          {absl::StrCat(prefix, ".", tensor.name), tensor.tensor});
    }
    for (const NamedTensor& tensor : layer.buffers_) {
      buffers_.push_back(
          {absl::StrCat(prefix, ".", tensor.name), tensor.tensor});
    }
  }

 private:
  // Without a graph, or what is to be a leaf wouldn't be one.
  static at::Tensor Moved(const LayerOptions& options,
                          const at::Tensor& tensor) {
    return tensor.device() == options.device
               ? tensor
               : tensor.detach().to(options.device);
  }

  bool training_ = true;
  std::vector<NamedTensor> parameters_;
  std::vector<NamedTensor> buffers_;
};

// A layer that draws no random numbers, or none but those of LayerOptions.
class SeededLayer : public Layer {
 public:
  bool has_own_generator() const override { return true; }
};

struct LayerTraits {
  using Product = std::unique_ptr<Layer>;
  static constexpr char kWhat[] = "layer";
};
using LayerRegistry = Registry<LayerTraits, const LayerOptions&>;

}  // namespace grapnel

#endif  // GRAPNEL_MODELS_LAYER_H_
