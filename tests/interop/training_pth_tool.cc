// For training_pth_test.py.
//
//   training_pth_tool export CHECKPOINT FILE.pth
//   training_pth_tool import CONFIG FILE.pth CHECKPOINT
//   training_pth_tool save_steps OPTIM_WRAPPER_CONFIG GRADIENTS N FILE.pth
//   training_pth_tool go_on OPTIM_WRAPPER_CONFIG GRADIENTS FILE.pth OUT
//
// The last two make steps of an optimizer alone, with gradients that are given,
// "<step>/<parameter>", in a .safetensors file: the first N, and those behind
// them. Parameters begin at 1. Warnings go to standard output.

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
#include "c10/core/GradMode.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/base/text_proto.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/env.h"
#include "grapnel/io/pth.h"
#include "grapnel/io/pth_writer.h"
#include "grapnel/io/safetensors.h"
#include "grapnel/optim/optim_wrapper.h"
#include "grapnel/optim/optim_wrapper.pb.h"
#include "grapnel/optim/torch_layout.h"
#include "grapnel/runner/config_file.h"
#include "grapnel/runner/run_start.h"
#include "grapnel/runner/runner.h"
#include "grapnel/runner/runner_config.pb.h"
#include "grapnel/runner/training_pth.h"
#include "grapnel/runner/training_pth_writer.h"

namespace grapnel {
namespace {

using ::grapnel::optim::v1::OptimWrapperConfig;
using ::grapnel::optim::v1::OptimWrapperState;

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

absl::Status Import(io::Env& env, const Arguments& args) {
  GRAPNEL_ASSIGN_OR_RETURN(const runner::v1::RunnerConfig config,
                           LoadRunnerConfig(env, args.at(0)));
  RunnerOptions options;
  options.base_dir = io::Dirname(args.at(0));
  GRAPNEL_ASSIGN_OR_RETURN(const RunStart start,
                           CaptureRunStart(config, std::move(options)));
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

// An optimizer of the parameters that there are gradients of.
struct Stepper {
  static absl::StatusOr<Stepper> Create(io::Env& env, const std::string& config,
                                        const std::string& gradients) {
    Stepper stepper;
    GRAPNEL_RETURN_IF_ERROR(ParseTextProto(config, &stepper.config));
    GRAPNEL_ASSIGN_OR_RETURN(stepper.gradients,
                             io::ReadSafetensors(env, gradients));
    for (const NamedTensor& gradient : stepper.gradients) {
      if (!absl::StartsWith(gradient.name, "0/")) continue;
      stepper.params.push_back(
          {gradient.name.substr(2),
           ops::ones(gradient.tensor.sizes()).requires_grad_()});
    }
    GRAPNEL_ASSIGN_OR_RETURN(
        stepper.wrapper, OptimWrapper::Create(stepper.config, stepper.params));
    return stepper;
  }

  // Steps from `step` on, as long as there are gradients, or to `end`.
  absl::Status Steps(int step, int end) {
    for (; step < end; ++step) {
      TensorMap now;
      for (const NamedTensor& param : params) {
        const at::Tensor* const gradient =
            gradients.Find(absl::StrCat(step, "/", param.name));
        if (gradient == nullptr) return absl::OkStatus();
        GRAPNEL_RETURN_IF_ERROR(now.Add(param.name, *gradient));
      }
      GRAPNEL_RETURN_IF_ERROR(wrapper->UpdateFromGradients(now));
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
  TorchGroups groups;
  groups.groups.emplace_back();
  writer->BeginDict();
  writer->String("model");
  writer->BeginOrderedDict();
  for (const NamedTensor& param : stepper.params) {
    groups.groups.back().push_back(param.name);
    writer->String(param.name);
    writer->Tensor(param.tensor.detach());
  }
  writer->End();
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
    params.push_back({name, name});
    for (const NamedTensor& param : stepper.params) {
      if (param.name != name) continue;
      const c10::AutoGradMode no_grad(false);
      param.tensor.copy_(model->value(i).tensor());
    }
  }
  OptimWrapperState state;
  TensorMap none, slots;
  GRAPNEL_RETURN_IF_ERROR(stepper.wrapper->SaveState(&state, &none, &none));
  std::vector<std::string> warnings;
  GRAPNEL_RETURN_IF_ERROR(ReadTorchOptimizer(*optimizer, params, stepper.config,
                                             &state, &slots, &warnings));
  Print(warnings);
  GRAPNEL_RETURN_IF_ERROR(stepper.wrapper->LoadState(state, slots, none));
  GRAPNEL_RETURN_IF_ERROR(
      stepper.Steps(static_cast<int>(steps->int_value()), 1000));
  TensorMap result;
  for (const NamedTensor& param : stepper.params) {
    GRAPNEL_RETURN_IF_ERROR(result.Add(param.name, param.tensor.detach()));
  }
  return io::WriteSafetensors(env, args.at(3), result).status();
}

absl::Status Run(const std::string& command, const Arguments& args) {
  io::Env& env = io::Env::Posix();
  if (command == "export" && args.size() == 2) return Export(env, args);
  if (command == "import" && args.size() == 3) return Import(env, args);
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
