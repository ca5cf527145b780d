#include "grapnel/models/torch_script_model.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <set>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "caffe2/serialize/read_adapter_interface.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/models/model.pb.h"
#include "grapnel/models/script_tensors.h"
#include "torch/csrc/jit/api/module.h"
#include "torch/csrc/jit/ir/constants.h"
#include "torch/csrc/jit/ir/ir.h"
#include "torch/csrc/jit/passes/inliner.h"
#include "torch/csrc/jit/runtime/graph_executor.h"
#include "torch/csrc/jit/serialization/export.h"
#include "torch/csrc/jit/serialization/import.h"

namespace grapnel {

namespace {

// A file as LibTorch reads archives. An error is what it takes for a short one;
// the first is kept.
class ArchiveFile final : public caffe2::serialize::ReadAdapterInterface {
 public:
  explicit ArchiveFile(std::unique_ptr<io::RandomAccessFile> file)
      : file_(std::move(file)) {}

  size_t size() const override { return static_cast<size_t>(file_->size()); }
  size_t read(uint64_t offset, void* buffer, size_t n,
              const char*) const override {
    n = std::min(n, size() - std::min<size_t>(offset, size()));
    const absl::Status status =
        file_->Read(static_cast<int64_t>(offset), static_cast<int64_t>(n),
                    static_cast<char*>(buffer));
    status_.Update(status);
    return status.ok() ? n : 0;
  }

  const absl::Status& status() const { return status_; }

 private:
  const std::unique_ptr<io::RandomAccessFile> file_;
  mutable absl::Status status_;
};

// Whether forward's code has tensors of the CPU in it, or its name.
bool HoldsCpu(const torch::jit::Block& block) {
  for (const torch::jit::Node* node : block.nodes()) {
    for (const torch::jit::Block* inner : node->blocks()) {
      if (HoldsCpu(*inner)) return true;
    }
    if (node->kind() != c10::prim::Constant) continue;
    const auto value = torch::jit::toIValue(node->output());
    if (!value.has_value()) continue;  // Of a type that has none.
    // One of no dimensions computes with any device's.
    if (value->isTensor() && value->toTensor().defined() &&
        value->toTensor().is_cpu() && value->toTensor().dim() > 0) {
      return true;
    }
    if (value->isDevice() && value->toDevice().is_cpu()) return true;
  }
  return false;
}

bool HoldsCpu(const torch::jit::Module& module) {
  const auto forward = module.find_method("forward");
  if (!forward.has_value()) return false;
  const auto graph = forward->graph()->copy();
  torch::jit::Inline(*graph);  // With what it calls.
  return HoldsCpu(*graph->block());
}

}  // namespace

struct TorchScriptModel::Script {
  torch::jit::Module module;
};

absl::StatusOr<std::unique_ptr<TorchScriptModel>> TorchScriptModel::Create(
    const Config& config, const ModelOptions& options) {
  if (config.path().empty()) {
    return absl::InvalidArgumentError("path: must be set");
  }
  std::unique_ptr<Loss> loss;
  if (config.has_loss()) {
    auto created = LossRegistry::Create(config.loss());
    if (!created.ok()) return WithContext(created.status(), "loss");
    loss = *std::move(created);
  } else if (options.loss != nullptr) {
    loss = std::move(*options.loss);
  }

  const std::string path = io::JoinPath(options.base_dir, config.path());
  io::Env& env = options.env != nullptr ? *options.env : io::Env::Posix();
  auto file = env.NewRandomAccessFile(path);
  if (!file.ok()) return WithContext(file.status(), "path");
  const auto archive = std::make_shared<ArchiveFile>(*std::move(file));
  auto script = std::make_unique<Script>();
  const absl::Status status = CatchAsStatus([&] {
    script->module = torch::jit::load(archive, c10::Device(c10::kCPU));
    return absl::OkStatus();
  });
  GRAPNEL_RETURN_IF_ERROR(WithContext(archive->status(), "path"));
  if (!status.ok()) {
    return absl::DataLossError(absl::StrCat(
        "path: ", path,
        ": not a readable TorchScript module: ", status.message()));
  }
  // LibTorch would leave it in its mode without a word.
  if (!script->module.hasattr("training")) {
    return absl::InvalidArgumentError(absl::StrCat(
        "path: ", path, ": is frozen: export it before torch.jit.freeze"));
  }
  std::unique_ptr<TorchScriptModel> model;
  GRAPNEL_RETURN_IF_ERROR(CatchAsStatus([&] {
    model = absl::WrapUnique(
        new TorchScriptModel(std::move(script), std::move(loss), env));
    return absl::OkStatus();
  }));
  GRAPNEL_RETURN_IF_ERROR(model->MoveTo(options.device));
  return model;
}

TorchScriptModel::TorchScriptModel(std::unique_ptr<Script> script,
                                   std::unique_ptr<Loss> loss, io::Env& env)
    : SupervisedModel(std::move(loss)), script_(std::move(script)), env_(env) {
  SetTraining(true);
  ListTensors();
}

void TorchScriptModel::ListTensors() {
  parameters_.clear();
  buffers_.clear();
  // A tensor that the module has twice is listed once, under its first name.
  std::set<const void*> seen;
  for (const auto& parameter : script_->module.named_parameters()) {
    if (!seen.insert(parameter.value.unsafeGetTensorImpl()).second) continue;
    parameters_.push_back({parameter.name, parameter.value});
  }
  for (const auto& buffer : script_->module.named_buffers()) {
    if (!seen.insert(buffer.value.unsafeGetTensorImpl()).second) continue;
    buffers_.push_back({buffer.name, buffer.value});
  }
}

TorchScriptModel::~TorchScriptModel() = default;

absl::StatusOr<at::Tensor> TorchScriptModel::Forward(const Batch& batch) {
  at::Tensor outputs;
  const absl::Status status = CatchAsStatus([&]() -> absl::Status {
    torch::jit::GraphOptimizerEnabledGuard as_written(false);
    const c10::IValue value = script_->module.forward({batch.inputs});
    if (!value.isTensor()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "forward must return a tensor, returns ", value.tagKind()));
    }
    outputs = value.toTensor();
    return absl::OkStatus();
  });
  if (!status.ok()) return Explain(status);
  return outputs;
}

absl::Status TorchScriptModel::Explain(const absl::Status& status) const {
  if (device_.is_cpu() || !HoldsCpu(script_->module)) return status;
  return WithContext(
      status, absl::StrCat("the module's code names the CPU, or has constants ",
                           "there, which can't be moved to ", device_.str()));
}

absl::Status TorchScriptModel::MoveTo(c10::Device device) {
  const absl::Status status = CatchAsStatus([&] {
    ScriptTensors(script_->module, device).Swap(script_->module);
    device_ = device;
    ListTensors();
    return absl::OkStatus();
  });
  return WithContext(status, absl::StrCat("moving to ", device.str()));
}

const std::vector<NamedTensor>& TorchScriptModel::parameters() const {
  return parameters_;
}

const std::vector<NamedTensor>& TorchScriptModel::buffers() const {
  return buffers_;
}

void TorchScriptModel::SetTraining(bool training) {
  script_->module.train(training);
  training_ = training;
}

bool TorchScriptModel::training() const { return training_; }

absl::Status TorchScriptModel::Export(const std::string& path) {
  // Into memory, and from there by Env: LibTorch's writer ends the process if
  // its sink fails or throws, so this one never does.
  std::string bytes;
  bool out_of_memory = false;
  const auto sink = [&](const void* data, size_t size) {
    try {
      if (data == nullptr) {
        bytes.append(size, '\0');  // LibTorch's way to skip.
      } else {
        bytes.append(static_cast<const char*>(data), size);
      }
    } catch (const std::exception&) {
      out_of_memory = true;
    }
    return size;
  };
  GRAPNEL_RETURN_IF_ERROR(CatchAsStatus([&] {
    ScriptTensors on_cpu(script_->module, c10::DeviceType::CPU);
    on_cpu.Swap(script_->module);
    ListTensors();
    const absl::Status status = CatchAsStatus([&] {
      torch::jit::ExportModule(script_->module, sink);
      return absl::OkStatus();
    });
    on_cpu.Swap(script_->module);
    ListTensors();
    return status;
  }));
  if (out_of_memory) {
    return absl::ResourceExhaustedError(
        absl::StrCat(path, ": out of memory for the file's bytes"));
  }
  return io::WriteFileAtomically(env_, path, bytes);
}

GRAPNEL_REGISTER(ModelRegistry, TorchScriptModel);

}  // namespace grapnel
