#include "grapnel/optim/averaging/averaged_model.h"

#include "absl/container/flat_hash_set.h"
#include "absl/memory/memory.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "c10/core/GradMode.h"
#include "grapnel/base/check_field.h"
#include "grapnel/base/device.h"
#include "grapnel/base/log.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/optim/averaging/averaging.pb.h"

namespace grapnel {
namespace {

absl::StatusOr<c10::ScalarType> ParseDtype(const std::string& name) {
  if (name == "float32") return c10::ScalarType::Float;
  if (name == "float64") return c10::ScalarType::Double;
  if (name == "float16") return c10::ScalarType::Half;
  if (name == "bfloat16") return c10::ScalarType::BFloat16;
  return absl::InvalidArgumentError(
      absl::StrCat("dtype: must be float32, float64, float16 or bfloat16, is "
                   "\"",
                   name, "\""));
}

bool IsFloating(const at::Tensor& tensor) {
  return tensor.is_floating_point() || tensor.is_complex();
}

// Where autograd looks for a change in place. Tensors of inference mode have
// none, and no graph either.
void BumpVersion(const at::Tensor& tensor) {
  if (!tensor.is_inference()) tensor.unsafeGetTensorImpl()->bump_version();
}

}  // namespace

absl::StatusOr<AveragingOptions> AveragingOptions::FromConfig(
    const optim::v1::AveragedModelConfig& config) {
  AveragingOptions options;
  optim::v1::AveragingStrategyConfig strategy_config = config.strategy();
  if (!config.has_strategy()) {
    strategy_config.mutable_exponential_moving_average();
  }
  auto strategy = AveragingStrategyRegistry::Create(strategy_config);
  if (!strategy.ok()) return WithContext(strategy.status(), "strategy");
  options.strategy = *std::move(strategy);
  if (config.has_interval()) options.interval = config.interval();
  GRAPNEL_RETURN_IF_ERROR(
      CheckField(options.interval >= 1, "interval", ">= 1", options.interval));
  options.update_buffers = config.update_buffers();
  if (config.has_device()) {
    auto device = FindDevice(config.device());
    if (!device.ok()) return WithContext(device.status(), "device");
    options.device = *device;
    // Without a number it is the weights' own, if that is one of the kind.
    if (!device->is_cpu() && !absl::StrContains(config.device(), ':')) {
      options.device = c10::Device(device->type());
    }
  }
  if (config.has_dtype()) {
    GRAPNEL_ASSIGN_OR_RETURN(options.dtype, ParseDtype(config.dtype()));
  }
  return options;
}

absl::StatusOr<std::unique_ptr<AveragedModel>> AveragedModel::Create(
    AveragingOptions options, const std::vector<NamedTensor>& parameters,
    const std::vector<NamedTensor>& buffers) {
  GRAPNEL_RET_CHECK(options.strategy != nullptr && options.interval >= 1);
  auto model = absl::WrapUnique(new AveragedModel(std::move(options)));
  std::vector<AveragedTensor> floating;
  for (const NamedTensor& parameter : parameters) {
    if (!IsFloating(parameter.tensor)) {
      return absl::InvalidArgumentError(
          absl::StrCat("parameter \"", parameter.name, "\" isn't floating"));
    }
    GRAPNEL_RETURN_IF_ERROR(model->Add(parameter, &floating));
  }
  for (const NamedTensor& buffer : buffers) {
    if (model->options_.update_buffers) {
      GRAPNEL_RETURN_IF_ERROR(model->Add(buffer, &floating));
    } else {
      model->tensors_.push_back(buffer);
    }
  }
  absl::flat_hash_set<absl::string_view> names;
  for (const NamedTensor& tensor : model->tensors_) {
    if (!names.insert(tensor.name).second) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor \"", tensor.name, "\" is there twice"));
    }
  }
  GRAPNEL_ASSIGN_OR_RETURN(model->kernel_,
                           LerpKernel::Create(std::move(floating)));
  GRAPNEL_RETURN_IF_ERROR(model->CopySource());
  return model;
}

absl::Status AveragedModel::Add(const NamedTensor& source,
                                std::vector<AveragedTensor>* floating) {
  Swapped swapped;
  swapped.source = source.tensor;
  absl::Status status = CatchAsStatus([&] {
    const bool is_floating = source.tensor.is_floating_point();
    at::TensorOptions options = at::TensorOptions().requires_grad(false);
    if (options_.device) {
      const bool same_kind =
          options_.device->type() == source.tensor.device().type();
      options = options.device(same_kind && !options_.device->has_index()
                                   ? source.tensor.device()
                                   : *options_.device);
    }
    if (options_.dtype && is_floating) options = options.dtype(*options_.dtype);
    const c10::NoGradGuard no_grad;
    swapped.average = ops::empty_like(source.tensor, options);
    return absl::OkStatus();
  });
  if (!status.ok()) {
    return WithContext(status,
                       absl::StrCat("average of \"", source.name, "\""));
  }
  if (IsFloating(source.tensor)) {
    floating->push_back({source.name, swapped.average, source.tensor});
  }
  tensors_.push_back({source.name, swapped.average});
  names_.push_back(source.name);
  averages_.push_back(std::move(swapped));
  return absl::OkStatus();
}

absl::Status AveragedModel::CheckNotSwapped() const {
  if (!in_scope_) return absl::OkStatus();
  return absl::FailedPreconditionError(
      "the model has the averaged weights now (AverageScope)");
}

absl::Status AveragedModel::Update() {
  GRAPNEL_RETURN_IF_ERROR(CheckNotSwapped());
  if (steps_ == 0) {
    GRAPNEL_RETURN_IF_ERROR(CopySource());
  } else if (steps_ % options_.interval == 0) {
    GRAPNEL_RETURN_IF_ERROR(
        kernel_->Mix(options_.strategy->MixtureAt(steps_, options_.interval)));
  }
  ++steps_;
  return absl::OkStatus();
}

absl::Status AveragedModel::CopySource() {
  GRAPNEL_RETURN_IF_ERROR(CheckNotSwapped());
  return CatchAsStatus([this] {
    const c10::NoGradGuard no_grad;
    for (const Swapped& pair : averages_) pair.average.copy_(pair.source);
    return absl::OkStatus();
  });
}

absl::StatusOr<TensorMap> AveragedModel::State() const {
  TensorMap state;
  for (size_t i = 0; i < tensors_.size(); ++i) {
    // averages_ is where tensors_ begins.
    const bool exchanged = i < num_swapped_ && !averages_[i].saved.defined();
    GRAPNEL_RETURN_IF_ERROR(
        state.Add(tensors_[i].name, exchanged ? averages_[i].source.detach()
                                              : tensors_[i].tensor));
  }
  return state;
}

absl::StatusOr<TensorMap> AveragedModel::SourceState() const {
  TensorMap state;
  GRAPNEL_RETURN_IF_ERROR(CatchAsStatus([&] {
    for (size_t i = 0; i < tensors_.size(); ++i) {
      at::Tensor tensor = tensors_[i].tensor;
      if (i < averages_.size()) {
        tensor = averages_[i].source.detach().to(tensor.options());
      }
      GRAPNEL_RETURN_IF_ERROR(state.Add(tensors_[i].name, std::move(tensor)));
    }
    return absl::OkStatus();
  }));
  return state;
}

absl::Status AveragedModel::Load(const TensorMap& saved, bool strict,
                                 std::vector<std::string>* report) {
  GRAPNEL_RETURN_IF_ERROR(CheckNotSwapped());
  std::vector<std::string> differences;
  for (size_t i = 0; i < averages_.size(); ++i) {
    const at::Tensor* tensor = saved.Find(names_[i]);
    if (tensor == nullptr) {
      differences.push_back(absl::StrCat("missing: ", names_[i]));
    } else if (tensor->sizes() != averages_[i].average.sizes() ||
               tensor->is_floating_point() !=
                   averages_[i].average.is_floating_point()) {
      return absl::InvalidArgumentError(
          absl::StrCat("average of \"", names_[i],
                       "\" is saved with another shape or type"));
    }
  }
  absl::flat_hash_set<absl::string_view> known;
  for (const NamedTensor& tensor : tensors_) known.insert(tensor.name);
  for (const NamedTensor& tensor : saved) {
    if (!known.contains(tensor.name)) {
      differences.push_back(absl::StrCat("unexpected: ", tensor.name));
    }
  }
  if (strict && !differences.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the saved average is of another model: ", differences[0]));
  }
  GRAPNEL_RETURN_IF_ERROR(CatchAsStatus([&] {
    const c10::NoGradGuard no_grad;
    for (size_t i = 0; i < averages_.size(); ++i) {
      const at::Tensor* tensor = saved.Find(names_[i]);
      if (tensor != nullptr) averages_[i].average.copy_(*tensor);
    }
    return absl::OkStatus();
  }));
  if (report != nullptr) *report = std::move(differences);
  return absl::OkStatus();
}

absl::Status AveragedModel::SwapIn() {
  GRAPNEL_RETURN_IF_ERROR(CheckNotSwapped());
  const absl::Status status = CatchAsStatus([this] {
    const c10::NoGradGuard no_grad;
    for (Swapped& pair : averages_) {
      if (Exchangeable(pair.average, pair.source)) {
        ExchangeBytes(pair.average, pair.source);
        ++num_swapped_;
        BumpVersion(pair.source);
      } else {
        pair.saved = pair.source.detach().clone();
        ++num_swapped_;
        pair.source.copy_(pair.average);
      }
    }
    return absl::OkStatus();
  });
  if (!status.ok()) {
    SwapOut().IgnoreError();  // What has failed first says more.
    return status;
  }
  in_scope_ = true;
  return absl::OkStatus();
}

absl::Status AveragedModel::SwapOut() {
  const absl::Status status = CatchAsStatus([this] {
    const c10::NoGradGuard no_grad;
    // Backwards, which undoes it also where weights are in common.
    while (num_swapped_ > 0) {
      Swapped& pair = averages_[num_swapped_ - 1];
      if (pair.saved.defined()) {
        pair.source.copy_(pair.saved);
        pair.saved.reset();
      } else if (Exchangeable(pair.average, pair.source)) {
        ExchangeBytes(pair.average, pair.source);
        BumpVersion(pair.source);
      } else {
        // It has got another type or device since, as Module::to() does.
        const at::Tensor averaged = pair.source.detach().clone();
        pair.source.copy_(pair.average);
        pair.average.copy_(averaged);
      }
      --num_swapped_;
    }
    return absl::OkStatus();
  });
  in_scope_ = !status.ok();
  return status;
}

absl::StatusOr<AverageScope> AverageScope::Enter(AveragedModel* average) {
  GRAPNEL_RETURN_IF_ERROR(average->SwapIn());
  return AverageScope(average);
}

AverageScope::~AverageScope() {
  const absl::Status status = Leave();
  GRAPNEL_LOG_IF(ERROR, !status.ok())
      << "the model's own weights could not be put back: " << status;
}

absl::Status AverageScope::Leave() {
  AveragedModel* const average = std::exchange(average_, nullptr);
  return average == nullptr ? absl::OkStatus() : average->SwapOut();
}

}  // namespace grapnel
