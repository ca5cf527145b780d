#include "grapnel/runner/predictor.h"

#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <numeric>
#include <optional>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/base/thread_annotations.h"
#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "c10/core/DeviceGuard.h"
#include "c10/core/GradMode.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/empty.pb.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "google/protobuf/message.h"
#include "google/protobuf/text_format.h"
#include "grapnel/base/device.h"
#include "grapnel/base/log.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/text_proto.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/checkpoint_manifest.pb.h"
#include "grapnel/io/env.h"
#include "grapnel/io/weights.h"
#include "grapnel/models/shape.h"
#include "grapnel/optim/autocast.h"
#include "grapnel/optim/autocast_mode.h"
#include "grapnel/optim/optim_wrapper.pb.h"
#include "grapnel/runner/predictor_parts.h"
#include "grapnel/runner/run_generators.h"
#include "grapnel/runner/runner_config.pb.h"
#include "grapnel/runner/section_weights.h"
#include "grapnel/runner/torch_loan.h"

namespace grapnel {
namespace {

using ::google::protobuf::Descriptor;
using ::google::protobuf::Message;
using ::google::protobuf::TextFormat;
using ::grapnel::io::v1::CheckpointManifest;
using ::grapnel::runner::v1::RunnerConfig;

constexpr char kModel[] = "model";
constexpr int kMaxConfigDepth = 100;  // As where one is read from a file.

// ------------------------------------------------------------------- models

absl::StatusOr<std::unique_ptr<Model>> MakeModel(
    const PredictorOptions& options, const RunnerConfig* config,
    ModelOptions model_options) {
  // Of each one's own: they are used in parallel.
  constexpr int64_t kSeed = 0;
  GRAPNEL_ASSIGN_OR_RETURN(const RunGenerators generators,
                           RunGenerators::Create(model_options.device, kSeed));
  model_options.generator = generators.cpu();
  model_options.device_generator = generators.device();
  const c10::OptionalDeviceGuard current_device(ToGuard(model_options.device));
  // For models that don't look at those.
  const GeneratorLoan loan(generators);
  if (options.make_model != nullptr) {
    auto model = options.make_model();
    if (!model.ok()) return WithContext(model.status(), "make_model");
    if (*model == nullptr) {
      return absl::InvalidArgumentError("make_model: must not give null");
    }
    GRAPNEL_RETURN_IF_ERROR(
        WithContext((*model)->MoveTo(model_options.device), "make_model"));
    return model;
  }
  auto model = ModelRegistry::Create(config->model(), model_options);
  if (!model.ok()) return WithContext(model.status(), "model");
  GRAPNEL_RETURN_IF_ERROR(
      WithContext((*model)->MoveTo(model_options.device), "model"));
  return model;
}

absl::Status MakeModels(const PredictorOptions& options,
                        const RunnerConfig* config,
                        const ModelOptions& model_options,
                        std::vector<std::unique_ptr<Model>>* models) {
  const TorchThreadScope thread;
  return CatchAsStatus([&]() -> absl::Status {
    for (int i = 0; i < options.replicas; ++i) {
      GRAPNEL_ASSIGN_OR_RETURN(std::unique_ptr<Model> model,
                               MakeModel(options, config, model_options));
      model->SetTraining(false);
      models->push_back(std::move(model));
    }
    return absl::OkStatus();
  });
}

// ---------------------------------------------------------------- predicting

// An AutocastScope whose casts nobody keeps. LibTorch keeps those of all
// threads in one place, and the end of any thread's scope drops them all: a
// training's too, which then casts a weight that it uses again once more, and
// sums its gradient in another order.
class UncachedAutocastScope {
 public:
  explicit UncachedAutocastScope(const Autocast& autocast) {
    if (!autocast.enabled) return;
    at::autocast::increment_nesting();  // So that no end is the outermost one.
    scope_.emplace(autocast);
    at::autocast::set_autocast_cache_enabled(false);
  }
  UncachedAutocastScope(const UncachedAutocastScope&) = delete;
  UncachedAutocastScope& operator=(const UncachedAutocastScope&) = delete;
  ~UncachedAutocastScope() {
    if (!scope_.has_value()) return;
    scope_.reset();
    at::autocast::decrement_nesting();
  }

 private:
  std::optional<AutocastScope> scope_;
};

// Without a graph, and not in memory that the next weights are copied into.
at::Tensor Owned(const at::Tensor& tensor, const Model& model) {
  if (!tensor.defined()) return tensor;
  at::Tensor owned = tensor.detach();
  if (!owned.has_storage()) return owned;
  for (const auto* list : {&model.parameters(), &model.buffers()}) {
    for (const NamedTensor& own : *list) {
      if (own.tensor.has_storage() && owned.is_alias_of(own.tensor)) {
        return owned.clone();
      }
    }
  }
  return owned;
}

// "(N, 3, 32, 32)".
std::string BatchShapeString(const std::vector<int64_t>& sample) {
  std::string shape = "(N";
  for (const int64_t size : sample) absl::StrAppend(&shape, ", ", size);
  return shape + (sample.empty() ? ",)" : ")");
}

absl::Status CheckInputs(const at::Tensor& inputs) {
  if (!inputs.defined()) {
    return absl::InvalidArgumentError("inputs: must be set");
  }
  if (inputs.dim() == 0) {
    return absl::InvalidArgumentError(
        "inputs: must have the shape (N, ...), have ()");
  }
  return absl::OkStatus();
}

// A model with the weights of one copy.
struct Replica {
  std::unique_ptr<Model> model;
  int64_t number = -1;  // Of the copy; -1 for none.
};

}  // namespace

struct Predictor::Core {
  explicit Core(Parts parts);

  // Makes them the newest, unless newer ones came meanwhile.
  absl::Status Install(std::shared_ptr<const WeightsCopy> copy);
  absl::Status CheckFit(const TensorMap& tensors) const;
  absl::Status Predict(const Batch& batch, const WeightsCopy& copy,
                       Replica* replica, Predictions* predictions) const;
  Batch OnDevice(const Batch& batch) const;
  // With the shape that may be why.
  absl::Status Explain(const absl::Status& status,
                       const at::Tensor& inputs) const;

  const std::function<absl::StatusOr<std::shared_ptr<const WeightsCopy>>()>
      take;
  const Autocast autocast;
  const c10::Device device;
  const std::vector<int64_t> input_shape;
  // Of one of the models, whose names and shapes alone are looked at.
  std::vector<NamedTensor> like;

  mutable std::mutex mutex;
  std::condition_variable freed;
  std::shared_ptr<const WeightsCopy> weights ABSL_GUARDED_BY(mutex);
  std::vector<Replica> idle ABSL_GUARDED_BY(mutex);
};

Predictor::Core::Core(Parts parts)
    : take(std::move(parts.take)),
      autocast(parts.autocast),
      device(parts.device),
      input_shape(std::move(parts.input_shape)) {
  const Model& first = *parts.models.front();
  like = first.parameters();
  like.insert(like.end(), first.buffers().begin(), first.buffers().end());
  for (std::unique_ptr<Model>& model : parts.models) {
    idle.push_back({std::move(model), -1});
  }
}

absl::Status Predictor::Core::Install(std::shared_ptr<const WeightsCopy> copy) {
  GRAPNEL_RETURN_IF_ERROR(WithContext(
      CheckFit(copy->tensors), "the weights don't fit the predictor's model"));
  const std::lock_guard<std::mutex> lock(mutex);
  if (weights == nullptr || weights->number < copy->number) {
    weights.swap(copy);  // The old ones go once the lock is gone.
  }
  return absl::OkStatus();
}

absl::Status Predictor::Core::CheckFit(const TensorMap& tensors) const {
  for (const NamedTensor& own : like) {
    const at::Tensor* const theirs = tensors.Find(own.name);
    if (theirs == nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat("it has \"", own.name, "\", they don't"));
    }
    if (theirs->sizes() != own.tensor.sizes()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "\"", own.name, "\" has the shape ", ShapeString(theirs->sizes()),
          ", the model's is ", ShapeString(own.tensor.sizes())));
    }
  }
  for (size_t i = 0; i < tensors.size() && tensors.size() > like.size(); ++i) {
    const std::string& name = (tensors.begin() + i)->name;
    bool known = false;
    for (const NamedTensor& own : like) known = known || own.name == name;
    if (!known) {
      return absl::InvalidArgumentError(
          absl::StrCat("they have \"", name, "\", it doesn't"));
    }
  }
  return absl::OkStatus();
}

absl::Status Predictor::Core::Predict(const Batch& batch,
                                      const WeightsCopy& copy, Replica* replica,
                                      Predictions* predictions) const {
  const TorchThreadScope thread;
  const c10::OptionalDeviceGuard current_device(ToGuard(device));
  const c10::AutoGradMode no_grad(false);
  Model& model = *replica->model;
  if (replica->number != copy.number) {
    replica->number = -1;  // Until all of them are there.
    GRAPNEL_RETURN_IF_ERROR(
        LoadModelState(copy.tensors, /*strict=*/true, model, nullptr));
    replica->number = copy.number;
  }
  const absl::Status status = CatchAsStatus([&] {
    const UncachedAutocastScope scope(autocast);
    return device.is_cpu() ? model.ValStep(batch, predictions)
                           : model.ValStep(OnDevice(batch), predictions);
  });
  if (!status.ok()) return Explain(status, batch.inputs);
  at::Tensor& outputs = predictions->outputs;
  outputs = device.is_cpu() || !outputs.defined()
                ? Owned(outputs, model)
                : outputs.detach().to(at::kCPU);
  return absl::OkStatus();
}

Batch Predictor::Core::OnDevice(const Batch& batch) const {
  Batch moved = batch;
  moved.inputs = batch.inputs.to(device);
  if (batch.targets.defined()) moved.targets = batch.targets.to(device);
  for (NamedTensor& extra : moved.extras) {
    extra.tensor = extra.tensor.to(device);
  }
  return moved;
}

absl::Status Predictor::Core::Explain(const absl::Status& status,
                                      const at::Tensor& inputs) const {
  const std::string shape = ShapeString(inputs.sizes());
  if (input_shape.empty() ||
      inputs.sizes().slice(1) == at::IntArrayRef(input_shape)) {
    return WithContext(status, absl::StrCat("inputs of the shape ", shape));
  }
  return absl::InvalidArgumentError(
      absl::StrCat("inputs: have the shape ", shape, ", the run's have ",
                   BatchShapeString(input_shape), ": ", status.message()));
}

Predictor::Predictor(std::unique_ptr<Core> core) : core_(std::move(core)) {}

Predictor::~Predictor() = default;

absl::StatusOr<std::unique_ptr<Predictor>> Predictor::Create(Parts parts) {
  GRAPNEL_RET_CHECK(!parts.models.empty() && parts.take != nullptr);
  std::shared_ptr<const WeightsCopy> first = std::move(parts.weights);
  auto core = std::make_unique<Core>(std::move(parts));
  if (first != nullptr) {
    GRAPNEL_RETURN_IF_ERROR(core->Install(std::move(first)));
  }
  return absl::WrapUnique(new Predictor(std::move(core)));
}

absl::Status Predictor::Refresh() {
  std::shared_ptr<const WeightsCopy> copy;
  GRAPNEL_RETURN_IF_ERROR(CatchAsStatus([&]() -> absl::Status {
    GRAPNEL_ASSIGN_OR_RETURN(copy, core_->take());
    return absl::OkStatus();
  }));
  if (copy == nullptr) {
    return absl::FailedPreconditionError(
        "the run has not begun: it has yet to load its weights");
  }
  return core_->Install(std::move(copy));
}

absl::StatusOr<at::Tensor> Predictor::Predict(const at::Tensor& inputs,
                                              WeightsInfo* used) {
  Batch batch;
  batch.inputs = inputs;
  Predictions predictions;
  GRAPNEL_RETURN_IF_ERROR(Predict(batch, &predictions, used));
  if (!predictions.outputs.defined()) {
    return absl::FailedPreconditionError("the model gives no outputs");
  }
  return std::move(predictions.outputs);
}

absl::Status Predictor::Predict(const Batch& batch, Predictions* predictions,
                                WeightsInfo* used) {
  GRAPNEL_RETURN_IF_ERROR(CheckInputs(batch.inputs));
  if (batch.indices.empty()) {
    Batch indexed = batch;  // Its size is asked for.
    indexed.indices.resize(static_cast<size_t>(batch.inputs.size(0)));
    std::iota(indexed.indices.begin(), indexed.indices.end(), 0);
    if (!indexed.indices.empty()) return Predict(indexed, predictions, used);
  }
  std::shared_ptr<const WeightsCopy> copy;
  Replica replica;
  {
    std::unique_lock<std::mutex> lock(core_->mutex);
    if (core_->weights == nullptr) {
      return absl::FailedPreconditionError(
          "there are no weights yet: Refresh takes them once the run has "
          "begun");
    }
    core_->freed.wait(lock, [this] { return !core_->idle.empty(); });
    copy = core_->weights;
    // The one that was used last, which most likely has them.
    replica = std::move(core_->idle.back());
    core_->idle.pop_back();
  }
  const absl::Status status = CatchAsStatus(
      [&] { return core_->Predict(batch, *copy, &replica, predictions); });
  {
    const std::lock_guard<std::mutex> lock(core_->mutex);
    core_->idle.push_back(std::move(replica));  // It has room.
  }
  core_->freed.notify_one();
  if (status.ok() && used != nullptr) *used = copy->info;
  return status;
}

WeightsInfo Predictor::weights() const {
  const std::lock_guard<std::mutex> lock(core_->mutex);
  return core_->weights == nullptr ? WeightsInfo() : core_->weights->info;
}

absl::StatusOr<Predictor::Parts> MakePredictorParts(
    const PredictorOptions& options, const RunnerConfig* config,
    ModelOptions model_options) {
  if (options.replicas < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("replicas: must be >= 1, is ", options.replicas));
  }
  if (options.make_model == nullptr) {
    if (config == nullptr) {
      return absl::InvalidArgumentError(
          "make_model: must be set: there is no configuration to make a model "
          "from");
    }
    if (!config->has_model()) {
      return absl::InvalidArgumentError(
          "make_model: must be set: the run's model was given in code");
    }
  }
  if (!options.device.empty()) {
    const absl::StatusOr<c10::Device> device = FindDevice(options.device);
    if (!device.ok()) return WithContext(device.status(), "device");
    model_options.device = *device;
  }
  Predictor::Parts parts;
  parts.device = model_options.device;
  GRAPNEL_RETURN_IF_ERROR(
      MakeModels(options, config, model_options, &parts.models));
  if (config != nullptr && config->optim_wrapper().has_amp()) {
    auto autocast = CreateAutocast(config->optim_wrapper().amp(),
                                   parts.models.front()->parameters());
    if (!autocast.ok()) {
      return WithContext(autocast.status(), "optim_wrapper: amp");
    }
    parts.autocast = *autocast;
  }
  parts.input_shape = model_options.input_shape;
  return parts;
}

// ------------------------------------------------------- from a checkpoint

namespace {

// Reads over what isn't linked in: hooks and datasets, for example.
class LenientFinder : public TextFormat::Finder {
 public:
  const Descriptor* FindAnyType(const Message& message,
                                const std::string& /*prefix*/,
                                const std::string& name) const override {
    const Descriptor* const type =
        message.GetDescriptor()->file()->pool()->FindMessageTypeByName(name);
    return type != nullptr ? type : google::protobuf::Empty::descriptor();
  }
};

// A configuration as a checkpoint has it. Only the model's part counts, so it
// is not looked at strictly.
absl::Status ParseSavedConfig(const std::string& text, RunnerConfig* config) {
  FirstTextError error;
  const LenientFinder finder;
  TextFormat::Parser parser;
  parser.RecordErrorsTo(&error);
  parser.SetFinder(&finder);
  parser.AllowUnknownField(true);
  parser.SetRecursionLimit(kMaxConfigDepth);
  google::protobuf::io::ArrayInputStream stream(text.data(),
                                                static_cast<int>(text.size()));
  if (parser.Parse(&stream, config)) return absl::OkStatus();
  return absl::DataLossError(
      absl::StrCat("config: line ", error.line(), ": ", error.message()));
}

// `*told`: what was passed over at the last look, and needn't be told again.
absl::StatusOr<io::LatestCheckpoint> Read(io::Env& env, const std::string& path,
                                          std::vector<std::string>* told) {
  io::LatestCheckpoint found;
  found.path = path;
  if (env.FileExists(path) && !env.IsDirectory(path)) {
    GRAPNEL_ASSIGN_OR_RETURN(found.contents, io::ReadWeightsAndMore(env, path));
    return found;
  }
  auto contents = io::ReadCheckpoint(env, path);
  if (contents.ok()) {
    found.contents = *std::move(contents);
    return found;
  }
  if (!absl::IsNotFound(contents.status())) return contents.status();
  std::vector<std::string> rejected;
  auto latest = io::ReadLatestCheckpoint(env, path, &rejected);
  if (!absl::IsNotFound(latest.status())) {
    for (const std::string& line : rejected) {
      if (absl::c_linear_search(*told, line)) continue;
      GRAPNEL_LOG(WARNING) << "passed over " << line;
    }
    *told = std::move(rejected);
    return latest;
  }
  if (rejected.empty()) {  // It may be a model hub's folder.
    auto weights = io::ReadWeightsAndMore(env, path);
    if (weights.ok()) {
      found.contents = *std::move(weights);
      return found;
    }
    if (!absl::IsNotFound(weights.status())) return weights.status();
  }
  return absl::NotFoundError(
      absl::StrCat(path, ": is no checkpoint, and holds none",
                   rejected.empty() ? "" : "; passed over: ",
                   absl::StrJoin(rejected, "; ")));
}

absl::StatusOr<std::shared_ptr<const WeightsCopy>> ChooseWeights(
    const io::CheckpointContents& contents, PredictorWeights which,
    int64_t number) {
  auto copy = std::make_shared<WeightsCopy>();
  copy->info.iter = contents.manifest().progress().iter();
  copy->number = number;
  std::string section = kModel;
  if (which != PredictorWeights::kTrained) {
    GRAPNEL_ASSIGN_OR_RETURN(section, EvaluatedSection(contents));
  }
  copy->info.averaged = section != kModel;
  if (which == PredictorWeights::kAveraged && !copy->info.averaged) {
    return absl::NotFoundError("has no average that evaluations see");
  }
  GRAPNEL_ASSIGN_OR_RETURN(copy->tensors, SectionWeights(contents, section));
  return copy;
}

// A path that is read again and again. Safe to use from many threads.
class CheckpointSource {
 public:
  CheckpointSource(io::Env& env, std::string path, PredictorWeights which)
      : env_(env), path_(std::move(path)), which_(which) {}

  // What is there now, and its weights.
  absl::StatusOr<std::shared_ptr<const WeightsCopy>> Take(
      io::LatestCheckpoint* found) {
    const std::lock_guard<std::mutex> lock(mutex_);
    GRAPNEL_ASSIGN_OR_RETURN(*found, Read(env_, path_, &told_));
    auto copy = ChooseWeights(found->contents, which_, ++num_copies_);
    if (!copy.ok()) return WithContext(copy.status(), found->path);
    return copy;
  }

 private:
  io::Env& env_;
  const std::string path_;
  const PredictorWeights which_;
  std::mutex mutex_;
  int64_t num_copies_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<std::string> told_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

absl::StatusOr<std::unique_ptr<Predictor>> Predictor::Open(
    const std::string& path, PredictorOptions options) {
  io::Env& env = options.env != nullptr ? *options.env : io::Env::Posix();
  const auto source =
      std::make_shared<CheckpointSource>(env, path, options.weights);
  io::LatestCheckpoint found;
  GRAPNEL_ASSIGN_OR_RETURN(std::shared_ptr<const WeightsCopy> weights,
                           source->Take(&found));
  const CheckpointManifest& manifest = found.contents.manifest();
  const auto create = [&]() -> absl::StatusOr<std::unique_ptr<Predictor>> {
    std::optional<RunnerConfig> config;
    if (!manifest.config().empty()) {
      GRAPNEL_RETURN_IF_ERROR(
          ParseSavedConfig(manifest.config(), &config.emplace()));
    }
    ModelOptions model_options;
    model_options.base_dir = options.base_dir;
    model_options.env = &env;
    model_options.input_shape = options.input_shape;
    if (model_options.input_shape.empty()) {
      model_options.input_shape.assign(manifest.input_shape().begin(),
                                       manifest.input_shape().end());
    }
    GRAPNEL_ASSIGN_OR_RETURN(
        Parts parts,
        MakePredictorParts(options, config.has_value() ? &*config : nullptr,
                           model_options));
    parts.weights = std::move(weights);
    parts.take = [source] {
      io::LatestCheckpoint ignored;
      return source->Take(&ignored);
    };
    return Create(std::move(parts));
  };
  auto predictor = create();
  if (!predictor.ok()) return WithContext(predictor.status(), found.path);
  return predictor;
}

}  // namespace grapnel
