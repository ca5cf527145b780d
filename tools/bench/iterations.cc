#include "grapnel/tools/bench/iterations.h"

#include <fcntl.h>

#include <cstdint>
#include <cstdlib>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "grapnel/data/data.pb.h"
#include "grapnel/data/sampler.pb.h"
#include "grapnel/data/tensor_dataset.h"
#include "grapnel/io/env.h"
#include "grapnel/loggers/run_log.h"
#include "grapnel/models/loss.h"
#include "grapnel/models/loss.pb.h"
#include "grapnel/models/nn_model.h"
#include "grapnel/optim/optim_wrapper.pb.h"
#include "grapnel/optim/optimizer.h"
#include "grapnel/optim/optimizer.pb.h"
#include "grapnel/runner/config_file.h"
#include "grapnel/runner/default_hooks.h"
#include "grapnel/runner/hook.h"
#include "grapnel/runner/hook_registry.h"
#include "grapnel/runner/run_context.h"
#include "grapnel/runner/runner_config.pb.h"
#include "grapnel/tools/bench/measure.h"
#include "torch/torch.h"

namespace grapnel {
namespace {

constexpr int64_t kBatch = 32, kInputs = 784, kHidden = 128, kClasses = 10;
constexpr int64_t kSamples = kBatch * 64;

struct Mlp : torch::nn::Module {
  Mlp() {
    first = register_module("first", torch::nn::Linear(kInputs, kHidden));
    second = register_module("second", torch::nn::Linear(kHidden, kClasses));
  }
  torch::Tensor forward(const torch::Tensor& x) {
    return second(torch::relu(first(x)));
  }
  torch::nn::Linear first{nullptr}, second{nullptr};
};

std::shared_ptr<Mlp> TheMlp() {
  static const auto& mlp = *new auto(std::make_shared<Mlp>());
  return mlp;
}

std::unique_ptr<DataLoader> NewLoader(std::unique_ptr<Dataset> dataset,
                                      data::v1::SamplerConfig::Type type) {
  data::v1::DataLoaderConfig config;
  config.set_batch_size(kBatch);
  config.mutable_sampler()->set_type(type);
  DataLoader::Options options;
  options.env = &io::Env::Posix();
  return Value(DataLoader::Create(config, std::move(dataset), options));
}

class MlpLoop final : public BareLoop {
 public:
  MlpLoop(std::function<void()> step, std::function<void()> zero)
      : step_(std::move(step)),
        zero_(std::move(zero)),
        model_(TheMlp()),
        loader_(NewLoader(Digits(), data::v1::SamplerConfig::DEFAULT)) {}

  void Run(int iterations) override {
    for (int i = 0; i < iterations; ++i) {
      absl::Status status = loader_->Next(&batch_);
      if (absl::IsOutOfRange(status)) {
        loader_->Seek(++epoch_, 0);
        status = loader_->Next(&batch_);
      }
      Check(status);
      zero_();
      torch::Tensor loss = torch::nn::functional::cross_entropy(
          model_->forward(batch_.inputs), batch_.targets);
      loss.backward();
      step_();
    }
  }

 private:
  const std::function<void()> step_, zero_;
  const std::shared_ptr<Mlp> model_;
  const std::unique_ptr<DataLoader> loader_;
  Batch batch_;
  int64_t epoch_ = 0;
};

class DoesNothing final : public Model {
 public:
  DoesNothing() : loss_(torch::zeros({})) {
    parameters_.push_back({"w", torch::zeros({1}).set_requires_grad(true)});
  }
  absl::Status TrainStep(const Batch&, OptimWrapper&,
                         LogVars* log_vars) override {
    log_vars->Add("loss", loss_);
    return absl::OkStatus();
  }
  absl::Status ComputeLosses(const Batch&, LogVars*) override {
    return absl::OkStatus();
  }
  absl::Status ValStep(const Batch&, Predictions*) override {
    return absl::OkStatus();
  }
  const std::vector<NamedTensor>& parameters() const override {
    return parameters_;
  }
  const std::vector<NamedTensor>& buffers() const override { return buffers_; }
  void SetTraining(bool training) override { training_ = training; }
  bool training() const override { return training_; }

 private:
  const at::Tensor loss_;
  std::vector<NamedTensor> parameters_, buffers_;
  bool training_ = true;
};

std::unique_ptr<OptimWrapper> NewOptim(const Model& model) {
  optim::v1::OptimWrapperConfig config;
  config.mutable_optimizer()->mutable_sgd();
  return Value(OptimWrapper::Create(config, model.parameters()));
}

class WindowHook : public Hook {
 public:
  explicit WindowHook(const Window& window) : window_(window) {}
  absl::string_view name() const override { return "window"; }
  Priority priority() const override { return Priority::kLowest; }
  absl::Status AfterTrainIter(RunContext& run, const IterInfo&,
                              const LogVars&) override {
    if (run.iter() == window_.warm_up) {
      Check(run.log().Flush());  // Its thread works too.
      window_.begin();
    } else if (run.iter() == window_.warm_up + window_.iterations) {
      window_.end();
    }
    return absl::OkStatus();
  }

 private:
  const Window window_;
};

}  // namespace

const char kMlpText[] = "MLP 784-128-10, batch 32";

std::unique_ptr<Model> MlpModel() {
  const std::shared_ptr<Mlp> mlp = TheMlp();
  return Value(NnModel::Create(
      mlp, NnModel::ForwardFunction([mlp](const at::Tensor& x) {
        return mlp->forward(x);
      }),
      Value(LossRegistry::Create(models::v1::CrossEntropyLossConfig()))));
}

std::unique_ptr<Dataset> Digits() {
  static const auto& inputs = *new auto(torch::randn({kSamples, kInputs}));
  static const auto& labels =
      *new auto(torch::randint(kClasses, {kSamples}, torch::kLong));
  return Value(TensorDataset::Create(inputs, labels));
}

std::unique_ptr<BareLoop> FusedLoop() {
  std::vector<ParamGroup> groups(1);
  for (const auto& p : TheMlp()->named_parameters()) {
    groups[0].params.push_back({p.key(), p.value()});
  }
  optim::v1::SgdConfig config;
  config.set_lr(0.01);
  std::shared_ptr<Optimizer> sgd =
      Value(OptimizerRegistry::Create(config, std::move(groups)));
  return std::make_unique<MlpLoop>([sgd] { Check(sgd->Step()); },
                                   [sgd] { sgd->ZeroGrad(); });
}

std::unique_ptr<BareLoop> LibTorchLoop() {
  auto sgd = std::make_shared<torch::optim::SGD>(TheMlp()->parameters(), 0.01);
  return std::make_unique<MlpLoop>([sgd] { sgd->step(); },
                                   [sgd] { sgd->zero_grad(); });
}

std::unique_ptr<Model> EmptyModel() { return std::make_unique<DoesNothing>(); }

std::unique_ptr<Dataset> EmptyData() {
  return Value(TensorDataset::Create(torch::zeros({kSamples, 1}),
                                     torch::zeros({kSamples}, torch::kLong)));
}

EmptyLoop::EmptyLoop()
    : loader_(NewLoader(EmptyData(), data::v1::SamplerConfig::INFINITE)),
      model_(EmptyModel()),
      optim_(NewOptim(*model_)) {}

void EmptyLoop::Run(int iterations) {
  for (int i = 0; i < iterations; ++i) {
    log_vars_.Clear();
    if (!loader_->Next(&batch_).ok()) abort();
    if (!model_->TrainStep(batch_, *optim_, &log_vars_).ok()) abort();
  }
}

runner::v1::RunnerConfig BenchConfig(const std::string& work_dir,
                                     const std::string& rest) {
  return Value(ParseRunnerConfig(
      absl::StrCat("work_dir: '", work_dir,
                   "' randomness { seed: 0 } train_cfg { by_epoch: false "
                   "max_iters: ",
                   kNever, " } train_dataloader { batch_size: ", kBatch,
                   " } optim_wrapper { optimizer { sgd { lr: 0.01 } } } ",
                   rest),
      ConfigFormat::kText, "config"));
}

runner::v1::RunnerConfig QuietConfig(const std::string& work_dir,
                                     const std::vector<std::string>& off,
                                     int logger_interval,
                                     const std::string& rest) {
  runner::v1::RunnerConfig config = BenchConfig(work_dir, rest);
  config.mutable_train_dataloader()->mutable_sampler()->set_type(
      data::v1::SamplerConfig::INFINITE);
  auto& hooks = *config.mutable_default_hooks();
  hooks.mutable_checkpoint()->set_save_last(false);
  hooks.mutable_logger()->set_interval(logger_interval);
  hooks.mutable_logger()->set_interval_exp_name(kNever);
  for (const std::string& slot : off) {
    hooks.add_off(slot);
    // What is off must not be set.
    if (slot == "checkpoint") hooks.clear_checkpoint();
    if (slot == "logger") hooks.clear_logger();
  }
  return config;
}

std::vector<std::string> DefaultSlots() {
  std::vector<std::string> slots;
  for (const DefaultHookSlot& slot : DefaultHookSlots()) {
    slots.push_back(slot.field->name());
  }
  return slots;
}

std::vector<AddedHook> AddedHooks() {
  return {
      {"ema", "custom_hooks { config { [hooks/EMAHook] {} } }"},
      {"check_invalid_loss",
       absl::StrCat(
           "custom_hooks { config { [hooks/CheckInvalidLossHook] { interval: ",
           kNever, " } } }")},
      {"early_stopping",
       "custom_hooks { config { [hooks/EarlyStoppingHook] { monitor: 'loss' } "
       "} }"},
      {"empty_cache",
       "custom_hooks { config { [hooks/EmptyCacheHook] { after_iter: true } } "
       "}"},
      {"sync_buffers",
       "custom_hooks { config { [hooks/SyncBuffersHook] {} } }"},
      {"profiler",
       "custom_hooks { config { [hooks/ProfilerHook] { by_epoch: false } } }"}};
}

int NullTerminal() { return open("/dev/null", O_WRONLY); }

void TrainThrough(const Window& window, runner::v1::RunnerConfig config,
                  RunnerOptions options) {
  options.hooks.push_back(Schedule(std::make_unique<WindowHook>(window)));
  // Ten more, since the last one is special to the hooks.
  config.mutable_train_cfg()->set_max_iters(window.warm_up + window.iterations +
                                            10);
  Check(Value(Runner::Create(config, std::move(options)))->Train());
}

}  // namespace grapnel
