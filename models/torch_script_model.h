// Models from files of torch.jit.save.

#ifndef GRAPNEL_MODELS_TORCH_SCRIPT_MODEL_H_
#define GRAPNEL_MODELS_TORCH_SCRIPT_MODEL_H_

#include <memory>
#include <string>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "c10/core/Device.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/data/sample.h"
#include "grapnel/io/env.h"
#include "grapnel/models/loss.h"
#include "grapnel/models/model.h"
#include "grapnel/models/supervised_model.h"

namespace grapnel::models::v1 {
class TorchScriptConfig;
}  // namespace grapnel::models::v1

namespace grapnel {

// A module scripted in Python, `torch.jit.script(net).save("net.pt")`, with its
// code and weights, wherever those were: they come to ModelOptions::device.
// forward(inputs) gives a tensor. Names are Python's. A frozen module, which
// has neither parameters nor modes, is refused: export it before freezing, in
// either mode.
//
// What moves to a device is what the module holds: parameters, buffers and
// other attributes. Its code may be of one device alone: what it makes, as
// torch.zeros(3) does, and what tracing has written into it, is on the CPU for
// ever, and forward fails elsewhere. Make such tensors on the device of what
// comes in, or keep them in buffers.
//
// Runs as written, without the executor that specializes a graph after watching
// its first calls: a run that is resumed would watch again, and differ in bits.
// Thread-compatible.
class TorchScriptModel : public SupervisedModel {
 public:
  using Config = models::v1::TorchScriptConfig;

  // kNotFound if there is no such file; kDataLoss if it can't be read as a
  // TorchScript module; kInvalidArgument if it is frozen.
  static absl::StatusOr<std::unique_ptr<TorchScriptModel>> Create(
      const Config& config, const ModelOptions& options);

  ~TorchScriptModel() override;

  // kInvalidArgument if the module gives something else than a tensor.
  absl::StatusOr<at::Tensor> Forward(const Batch& batch) override;

  const std::vector<NamedTensor>& parameters() const override;
  const std::vector<NamedTensor>& buffers() const override;
  void SetTraining(bool training) override;
  bool training() const override;

  // To any device, by copies: tensors that were given out before stay where
  // they are. After an error nothing has moved.
  absl::Status MoveTo(c10::Device device) override;

  // Writes the module with its present weights and mode, for torch.jit.load:
  // weights of the CPU, wherever the model is. The file is there whole or as it
  // was before, also on a full disk. Holds the file's bytes in memory, and on
  // another device the weights' too.
  absl::Status Export(const std::string& path) override;

 private:
  struct Script;  // What needs torch::jit's headers.

  TorchScriptModel(std::unique_ptr<Script> script, std::unique_ptr<Loss> loss,
                   io::Env& env);

  // Sets the two lists.
  void ListTensors();

  // `status`, from forward; if its code has tensors of the CPU and isn't run
  // there, that too.
  absl::Status Explain(const absl::Status& status) const;

  const std::unique_ptr<Script> script_;
  io::Env& env_;
  c10::Device device_ = c10::DeviceType::CPU;
  bool training_ = true;
  std::vector<NamedTensor> parameters_;
  std::vector<NamedTensor> buffers_;
};

}  // namespace grapnel

#endif  // GRAPNEL_MODELS_TORCH_SCRIPT_MODEL_H_
