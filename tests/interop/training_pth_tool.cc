// For optimizer_steps_test.py and the tests of whole trainings.
//
//   training_pth_tool export CHECKPOINT FILE.pth
//   training_pth_tool import CONFIG FILE.pth CHECKPOINT
//   training_pth_tool train CONFIG [CHECKPOINT]
//   training_pth_tool save_steps OPTIMIZER GRADIENTS N FILE.pth
//   training_pth_tool go_on OPTIMIZER GRADIENTS FILE.pth OUT
//
// A configuration without a model is of a TwoParts. The last two make steps of
// an optimizer alone, with gradients that are given, "<step>/<parameter>", in a
// .safetensors file: the first N, and those behind them. Parameters begin at 1.
// OPTIMIZER is the configuration of an OptimWrapper, or "code: NAME" of one of
// LibTorch's optimizers. Warnings go to standard output.

#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "c10/core/GradMode.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/base/text_proto.h"
#include "grapnel/data/sample.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/env.h"
#include "grapnel/io/pth.h"
#include "grapnel/io/pth_writer.h"
#include "grapnel/io/safetensors.h"
#include "grapnel/models/functional.h"
#include "grapnel/models/log_vars.h"
#include "grapnel/models/model.h"
#include "grapnel/optim/optim_wrapper.h"
#include "grapnel/optim/optim_wrapper.pb.h"
#include "grapnel/optim/optimizer.h"
#include "grapnel/optim/optimizer.pb.h"
#include "grapnel/optim/optimizers/torch_optimizer.h"
#include "grapnel/optim/torch_layout.h"
#include "grapnel/runner/config_file.h"
#include "grapnel/runner/run_start.h"
#include "grapnel/runner/runner.h"
#include "grapnel/runner/runner_config.pb.h"
#include "grapnel/runner/training_pth.h"
#include "grapnel/runner/training_pth_writer.h"
#include "torch/optim/adagrad.h"
#include "torch/optim/optimizer.h"
#include "torch/optim/rmsprop.h"
#include "torch/optim/sgd.h"

namespace grapnel {
namespace {

using ::grapnel::optim::v1::OptimizerState;
using ::grapnel::optim::v1::OptimWrapperConfig;
using ::grapnel::optim::v1::OptimWrapperState;
using ::grapnel::runner::v1::RunnerConfig;

using Arguments = std::vector<std::string>;

void Print(const std::vector<std::string>& warnings) {
  for (const std::string& warning : warnings) {
    std::cout << warning << std::endl;
  }
}

absl::Status Export(io::Env& env, const Arguments& args) {
  GRAPNEL_ASSIGN_OR_RETURN(const io::CheckpointContents contents,
                           io::ReadCheckpoint(env, args.at(0)));
  std::vector<std::string> warnings;
  GRAPNEL_RETURN_IF_ERROR(WriteTrainingPth(env, args.at(1), contents,
                                           TrainingPthOptions(), &warnings));
  Print(warnings);
  return absl::OkStatus();
}

// A classifier, and a second one of what the first says, with an optimizer
// each: "body" and "probe".
class TwoParts final : public Model {
 public:
  TwoParts()
      : parameters_({{"body.weight", ops::zeros({10, 64}).requires_grad_()},
                     {"body.bias", ops::zeros({10}).requires_grad_()},
                     {"probe.weight", ops::zeros({10, 10}).requires_grad_()}}) {
  }

  absl::Status TrainStep(const Batch& batch, OptimWrapper& optim,
                         LogVars* log_vars) override {
    GRAPNEL_ASSIGN_OR_RETURN(OptimWrapper * body, optim.Get("body"));
    GRAPNEL_ASSIGN_OR_RETURN(OptimWrapper * probe, optim.Get("probe"));
    optim.BeginStep();
    const at::Tensor said = Body(batch.inputs);
    const at::Tensor body_loss = CrossEntropy(said, batch.targets);
    const at::Tensor probe_loss =
        CrossEntropy(Probe(said.detach()), batch.targets);
    log_vars->Add("body_loss", body_loss.detach());
    log_vars->Add("probe_loss", probe_loss.detach());
    GRAPNEL_RETURN_IF_ERROR(body->Update(body_loss));
    return probe->Update(probe_loss);
  }

  absl::Status ComputeLosses(const Batch&, LogVars*) override {
    return absl::UnimplementedError("it has a TrainStep of its own");
  }
  absl::Status ValStep(const Batch& batch, Predictions* predictions) override {
    predictions->outputs = Probe(Body(batch.inputs));
    return absl::OkStatus();
  }
  const std::vector<NamedTensor>& parameters() const override {
    return parameters_;
  }
  const std::vector<NamedTensor>& buffers() const override { return buffers_; }
  void SetTraining(bool training) override { training_ = training; }
  bool training() const override { return training_; }

 private:
  at::Tensor Body(const at::Tensor& inputs) const {
    return functional::linear(inputs.flatten(1), parameters_[0].tensor,
                              parameters_[1].tensor);
  }
  at::Tensor Probe(const at::Tensor& said) const {
    return functional::linear(said, parameters_[2].tensor);
  }
  static at::Tensor CrossEntropy(const at::Tensor& logits,
                                 const at::Tensor& targets) {
    constexpr int64_t kMean = 1;
    constexpr int64_t kNoneIgnored = -100;
    return functional::cross_entropy_loss(logits, targets, {}, kMean,
                                          kNoneIgnored, 0);
  }

  std::vector<NamedTensor> parameters_, buffers_;
  bool training_ = true;
};

RunnerOptions OptionsOf(const RunnerConfig& config, const std::string& path) {
  RunnerOptions options;
  options.base_dir = io::Dirname(path);
  if (!config.has_model()) options.model = std::make_unique<TwoParts>();
  return options;
}

absl::Status Import(io::Env& env, const Arguments& args) {
  GRAPNEL_ASSIGN_OR_RETURN(const RunnerConfig config,
                           LoadRunnerConfig(env, args.at(0)));
  GRAPNEL_ASSIGN_OR_RETURN(
      const RunStart start,
      CaptureRunStart(config, OptionsOf(config, args.at(0))));
  io::PthOptions foreign;
  foreign.allow_foreign = true;
  GRAPNEL_ASSIGN_OR_RETURN(const io::PthFile file,
                           io::PthFile::Read(env, args.at(1), foreign));
  std::vector<std::string> warnings;
  GRAPNEL_ASSIGN_OR_RETURN(
      const io::CheckpointContents contents,
      ImportTraining(file.root(), start, TrainingImportOptions(), &warnings));
  Print(warnings);
  const std::string& path = args.at(2);
  return io::WriteCheckpoint(env, io::Dirname(path),
                             path.substr(path.rfind('/') + 1), contents);
}

absl::Status Train(io::Env& env, const Arguments& args) {
  GRAPNEL_ASSIGN_OR_RETURN(RunnerConfig config,
                           LoadRunnerConfig(env, args.at(0)));
  if (args.size() > 1) {
    config.set_load_from(args.at(1));
    config.set_resume(true);
  }
  RunnerOptions options = OptionsOf(config, args.at(0));
  options.terminal_fd = STDOUT_FILENO;
  GRAPNEL_ASSIGN_OR_RETURN(const std::unique_ptr<Runner> runner,
                           Runner::Create(config, std::move(options)));
  return runner->Train();
}

// ---- Steps of an optimizer ----

absl::StatusOr<std::shared_ptr<torch::optim::Optimizer>> OptimizerInCode(
    absl::string_view name, const std::vector<NamedTensor>& params) {
  std::vector<at::Tensor> tensors;
  for (const NamedTensor& param : params) tensors.push_back(param.tensor);
  if (name == "sgd") {
    return std::make_shared<torch::optim::SGD>(
        tensors,
        torch::optim::SGDOptions(0.05).momentum(0.9).weight_decay(0.01));
  }
  if (name == "rmsprop") {
    return std::make_shared<torch::optim::RMSprop>(
        tensors, torch::optim::RMSpropOptions(0.01)
                     .alpha(0.9)
                     .momentum(0.5)
                     .weight_decay(0.1));
  }
  if (name == "adagrad") {
    return std::make_shared<torch::optim::Adagrad>(
        tensors,
        torch::optim::AdagradOptions(0.1).lr_decay(0.1).weight_decay(0.1));
  }
  return absl::InvalidArgumentError(absl::StrCat("no optimizer ", name));
}

// An optimizer of the parameters that there are gradients of.
struct Stepper {
  static absl::StatusOr<Stepper> Create(io::Env& env, absl::string_view text,
                                        const std::string& gradients) {
    Stepper stepper;
    GRAPNEL_ASSIGN_OR_RETURN(stepper.gradients,
                             io::ReadSafetensors(env, gradients));
    for (const NamedTensor& gradient : stepper.gradients) {
      const std::string name =
          gradient.name.substr(gradient.name.find('/') + 1);
      if (stepper.Find(name) != nullptr) continue;
      stepper.params.push_back(
          {name, ops::ones(gradient.tensor.sizes()).requires_grad_()});
    }
    if (!absl::ConsumePrefix(&text, "code: ")) {
      GRAPNEL_RETURN_IF_ERROR(
          ParseTextProto(std::string(text), &stepper.config));
      GRAPNEL_ASSIGN_OR_RETURN(
          stepper.wrapper,
          OptimWrapper::Create(stepper.config, stepper.params));
      return stepper;
    }
    GRAPNEL_ASSIGN_OR_RETURN(auto in_code,
                             OptimizerInCode(text, stepper.params));
    GRAPNEL_ASSIGN_OR_RETURN(
        std::unique_ptr<Optimizer> wrapped,
        WrapTorchOptimizer(std::move(in_code), stepper.params));
    GRAPNEL_ASSIGN_OR_RETURN(
        stepper.wrapper,
        OptimWrapper::Create(stepper.config, std::move(wrapped)));
    return stepper;
  }

  const NamedTensor* Find(absl::string_view name) const {
    for (const NamedTensor& param : params) {
      if (param.name == name) return &param;
    }
    return nullptr;
  }

  // Steps from `step` on, as long as there are gradients, or to `end`.
  absl::Status Steps(int step, int end) {
    for (; step < end; ++step) {
      // Whose gradients these are.
      at::Tensor loss;
      for (const NamedTensor& param : params) {
        const at::Tensor* const gradient =
            gradients.Find(absl::StrCat(step, "/", param.name));
        if (gradient == nullptr) continue;
        const at::Tensor part = param.tensor.mul(*gradient).sum();
        loss = loss.defined() ? loss.add(part) : part;
      }
      if (!loss.defined()) return absl::OkStatus();
      GRAPNEL_RETURN_IF_ERROR(wrapper->Update(loss));
    }
    return absl::OkStatus();
  }

  OptimWrapperConfig config;
  TensorMap gradients;
  std::vector<NamedTensor> params;
  std::unique_ptr<OptimWrapper> wrapper;
};

absl::Status SaveSteps(io::Env& env, const Arguments& args) {
  GRAPNEL_ASSIGN_OR_RETURN(Stepper stepper,
                           Stepper::Create(env, args.at(0), args.at(1)));
  int steps = 0;
  if (!absl::SimpleAtoi(args.at(2), &steps)) {
    return absl::InvalidArgumentError("N: must be a number");
  }
  GRAPNEL_RETURN_IF_ERROR(stepper.Steps(0, steps));
  OptimWrapperState state;
  TensorMap slots, unused;
  GRAPNEL_RETURN_IF_ERROR(stepper.wrapper->SaveState(&state, &slots, &unused));
  GRAPNEL_ASSIGN_OR_RETURN(const std::unique_ptr<io::PthWriter> writer,
                           io::PthWriter::Create(env, args.at(3)));
  writer->BeginDict();
  writer->String("model");
  writer->BeginOrderedDict();
  for (const NamedTensor& param : stepper.params) {
    writer->String(param.name);
    writer->Tensor(param.tensor.detach());
  }
  writer->End();
  TorchGroups groups;
  for (const OptimizerState::Group& group : state.optimizer().groups()) {
    groups.groups.emplace_back(group.params().begin(), group.params().end());
  }
  writer->String("optimizer");
  GRAPNEL_RETURN_IF_ERROR(
      WriteTorchOptimizer(state, slots, stepper.config, groups, writer.get()));
  writer->End();
  return writer->Finish();
}

absl::Status GoOn(io::Env& env, const Arguments& args) {
  GRAPNEL_ASSIGN_OR_RETURN(Stepper stepper,
                           Stepper::Create(env, args.at(0), args.at(1)));
  GRAPNEL_ASSIGN_OR_RETURN(const io::PthFile file,
                           io::PthFile::Read(env, args.at(2)));
  const std::optional<io::PthValue> model = file.root().Find("model");
  const std::optional<io::PthValue> optimizer = file.root().Find("optimizer");
  const std::optional<io::PthValue> steps = file.root().Find("steps");
  if (!model.has_value() || !optimizer.has_value() || !steps.has_value()) {
    return absl::InvalidArgumentError("no model, optimizer or steps");
  }
  std::vector<TorchParam> params;
  for (int64_t i = 0; i < model->size(); ++i) {
    const std::string name(model->key(i).string_value());
    const NamedTensor* const own = stepper.Find(name);
    // One that isn't trained is there all the same.
    params.push_back({own == nullptr ? "" : name, name});
    if (own == nullptr) continue;
    const c10::AutoGradMode no_grad(false);
    own->tensor.copy_(model->value(i).tensor());
  }
  OptimWrapperState state;
  TensorMap first_slots, none, slots;
  GRAPNEL_RETURN_IF_ERROR(
      stepper.wrapper->SaveState(&state, &first_slots, &none));
  std::vector<std::string> warnings;
  GRAPNEL_RETURN_IF_ERROR(ReadTorchOptimizer(*optimizer, params, stepper.config,
                                             /*lr_has_moved=*/false, &state,
                                             &slots, &warnings));
  Print(warnings);
  GRAPNEL_RETURN_IF_ERROR(stepper.wrapper->LoadState(state, slots, none));
  GRAPNEL_RETURN_IF_ERROR(
      stepper.Steps(static_cast<int>(steps->int_value()), 1000));
  TensorMap result;
  for (const NamedTensor& param : stepper.params) {
    GRAPNEL_RETURN_IF_ERROR(result.Add(param.name, param.tensor.detach()));
  }
  state.Clear();
  TensorMap last_slots;
  GRAPNEL_RETURN_IF_ERROR(
      stepper.wrapper->SaveState(&state, &last_slots, &none));
  if (state.has_loss_scale()) {
    GRAPNEL_RETURN_IF_ERROR(result.Add(
        "scale", ops::scalar_tensor(state.loss_scale().scale(), at::kDouble)));
    GRAPNEL_RETURN_IF_ERROR(result.Add(
        "good_steps",
        ops::scalar_tensor(state.loss_scale().good_steps(), at::kLong)));
  }
  return io::WriteSafetensors(env, args.at(3), result).status();
}

absl::Status Run(const std::string& command, const Arguments& args) {
  io::Env& env = io::Env::Posix();
  if (command == "export" && args.size() == 2) return Export(env, args);
  if (command == "import" && args.size() == 3) return Import(env, args);
  if (command == "train" && !args.empty()) return Train(env, args);
  if (command == "save_steps" && args.size() == 4) return SaveSteps(env, args);
  if (command == "go_on" && args.size() == 4) return GoOn(env, args);
  return absl::InvalidArgumentError("see the comment of this program");
}

}  // namespace
}  // namespace grapnel

int main(int argc, char** argv) {
  const std::vector<std::string> args(argv + 1, argv + argc);
  if (args.empty()) return EXIT_FAILURE;
  const absl::Status status =
      grapnel::Run(args[0], {args.begin() + 1, args.end()});
  if (status.ok()) return EXIT_SUCCESS;
  std::cerr << status << std::endl;
  return EXIT_FAILURE;
}
