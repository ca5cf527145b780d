// What the runner and its hooks cost, against bare loops in the same process.
//
//   bazel run //tools/bench:overhead [-- BLOCKS]
//
// Blocks of iterations of the runner and of the bare loops take turns, so that
// what disturbs the machine disturbs all. Ratios are medians over the blocks;
// the A/A ratio, of the bare loop to itself, tells how far to trust them.

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "google/protobuf/text_format.h"
#include "grapnel/data/data.pb.h"
#include "grapnel/data/data_loader.h"
#include "grapnel/data/sampler.pb.h"
#include "grapnel/data/tensor_dataset.h"
#include "grapnel/io/env.h"
#include "grapnel/loggers/run_log.h"
#include "grapnel/models/loss.h"
#include "grapnel/models/loss.pb.h"
#include "grapnel/models/model.h"
#include "grapnel/models/nn_model.h"
#include "grapnel/optim/optim_wrapper.h"
#include "grapnel/optim/optim_wrapper.pb.h"
#include "grapnel/optim/optimizer.h"
#include "grapnel/optim/optimizer.pb.h"
#include "grapnel/runner/config_file.h"
#include "grapnel/runner/hook_registry.h"
#include "grapnel/runner/runner.h"
#include "grapnel/runner/runner_config.pb.h"
#include "grapnel/tools/bench/measure.h"
#include "torch/torch.h"

// ------------------------------------------------- counting heap allocations

namespace {

std::atomic<int64_t> allocations{0};

}  // namespace

extern "C" void* __libc_malloc(size_t size);
extern "C" void* __libc_calloc(size_t n, size_t size);
extern "C" void* __libc_realloc(void* p, size_t size);
extern "C" void* __libc_memalign(size_t alignment, size_t size);

extern "C" void* malloc(size_t size) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  return __libc_malloc(size);
}
extern "C" void* calloc(size_t n, size_t size) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  return __libc_calloc(n, size);
}
extern "C" void* realloc(void* p, size_t size) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  return __libc_realloc(p, size);
}
extern "C" int posix_memalign(void** p, size_t alignment, size_t size) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  *p = __libc_memalign(alignment, size);
  return *p == nullptr ? ENOMEM : 0;
}

namespace grapnel {
namespace {

// ---------------------------------------------------------------- a real step

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

// Where tensors lie in memory moves an iteration by more than what is measured
// here, so the runner and the loops train one network on one copy of the data.
std::shared_ptr<Mlp> TheMlp() {
  static const auto& mlp = *new auto(std::make_shared<Mlp>());
  return mlp;
}

std::unique_ptr<Dataset> Digits() {
  static const auto& inputs = *new auto(torch::randn({kSamples, kInputs}));
  static const auto& labels =
      *new auto(torch::randint(kClasses, {kSamples}, torch::kLong));
  return Value(TensorDataset::Create(inputs, labels));
}

const char kLoader[] = "batch_size: 32";

std::unique_ptr<DataLoader> NewLoader() {
  data::v1::DataLoaderConfig config;
  google::protobuf::TextFormat::ParseFromString(kLoader, &config);
  DataLoader::Options options;
  options.env = &io::Env::Posix();
  return Value(DataLoader::Create(config, Digits(), options));
}

// The loop that a user would write by hand.
class BareLoop {
 public:
  BareLoop() : model_(TheMlp()), loader_(NewLoader()) {}

  // Sets what steps and drops the gradients.
  std::function<void()> step, zero;
  Mlp& model() { return *model_; }

  void Run(int iterations) {
    for (int i = 0; i < iterations; ++i) {
      absl::Status status = loader_->Next(&batch_);
      if (absl::IsOutOfRange(status)) {
        loader_->Seek(++epoch_, 0);
        status = loader_->Next(&batch_);
      }
      Check(status);
      zero();
      torch::Tensor loss = torch::nn::functional::cross_entropy(
          model_->forward(batch_.inputs), batch_.targets);
      loss.backward();
      step();
    }
  }

 private:
  std::shared_ptr<Mlp> model_;
  std::unique_ptr<DataLoader> loader_;
  Batch batch_;
  int64_t epoch_ = 0;
};

// A bare loop around Grapnel's SGD, which is ATen's fused kernel.
std::unique_ptr<BareLoop> FusedLoop() {
  auto loop = std::make_unique<BareLoop>();
  std::vector<ParamGroup> groups(1);
  for (const auto& p : loop->model().named_parameters()) {
    groups[0].params.push_back({p.key(), p.value()});
  }
  optim::v1::SgdConfig config;
  config.set_lr(0.01);
  std::shared_ptr<Optimizer> sgd =
      Value(OptimizerRegistry::Create(config, std::move(groups)));
  loop->step = [sgd] { Check(sgd->Step()); };
  loop->zero = [sgd] { sgd->ZeroGrad(); };
  return loop;
}

// A bare loop around LibTorch's own SGD.
std::unique_ptr<BareLoop> LibTorchLoop() {
  auto loop = std::make_unique<BareLoop>();
  auto sgd =
      std::make_shared<torch::optim::SGD>(loop->model().parameters(), 0.01);
  loop->step = [sgd] { sgd->step(); };
  loop->zero = [sgd] { sgd->zero_grad(); };
  return loop;
}

// Lets the bare loops run between two blocks of the runner's iterations.
class Interleave : public Hook {
 public:
  Interleave(int block, int blocks)
      : block_(block),
        blocks_(blocks),
        fused_(FusedLoop()),
        fused_again_(FusedLoop()),
        libtorch_(LibTorchLoop()) {}

  absl::string_view name() const override { return "interleave"; }
  Priority priority() const override { return Priority::kLowest; }

  absl::Status AfterTrainIter(RunContext& run, const IterInfo&,
                              const LogVars&) override {
    if (++done_ < block_) return absl::OkStatus();
    const double end = Now();
    if (warm_) {
      runner.push_back((end - start_) / block_);
    }
    const auto time = [&](BareLoop& loop, std::vector<double>* times) {
      const double begin = Now();
      loop.Run(block_);
      if (warm_) times->push_back((Now() - begin) / block_);
    };
    time(*fused_, &fused);
    time(*libtorch_, &libtorch);
    time(*fused_again_, &fused_again);
    if (static_cast<int>(runner.size()) == blocks_) run.RequestStop("done");
    warm_ = true;
    done_ = 0;
    start_ = Now();
    return absl::OkStatus();
  }

  std::vector<double> runner, fused, fused_again, libtorch;

 private:
  const int block_, blocks_;
  const std::unique_ptr<BareLoop> fused_, fused_again_, libtorch_;
  int done_ = 0;
  bool warm_ = false;
  double start_ = 0;
};

runner::v1::RunnerConfig Config(const std::string& work_dir,
                                const std::string& rest) {
  return Value(ParseRunnerConfig(
      absl::StrCat("work_dir: '", work_dir,
                   "' randomness { seed: 0 } train_dataloader { ", kLoader,
                   " } optim_wrapper { optimizer { sgd { lr: 0.01 } } } ",
                   rest),
      ConfigFormat::kText, "config"));
}

void MeasureRealStep(const std::string& dir, int blocks) {
  constexpr int kBlock = 200;
  const std::shared_ptr<Mlp> mlp = TheMlp();
  RunnerOptions options;
  options.model = Value(NnModel::Create(
      mlp, NnModel::ForwardFunction([mlp](const at::Tensor& x) {
        return mlp->forward(x);
      }),
      Value(LossRegistry::Create(models::v1::CrossEntropyLossConfig()))));
  options.train_dataset = Digits();
  // Lines go where a service's do.
  options.terminal_fd = open("/dev/null", O_WRONLY);
  auto interleave = std::make_unique<Interleave>(kBlock, blocks);
  const Interleave& measured = *interleave;
  options.hooks.push_back(Schedule(std::move(interleave)));
  auto runner = Value(Runner::Create(
      Config(dir, "train_cfg { by_epoch: false max_iters: 1000000000 }"),
      std::move(options)));
  Check(runner->Train());
  printf("MLP %ld-%ld-%ld, batch %ld, 1 thread, %zu blocks of %d\n", kInputs,
         kHidden, kClasses, kBatch, measured.runner.size(), kBlock);
  printf("  bare loop, fused SGD     %8.1f us\n", Median(measured.fused) * 1e6);
  printf("  bare loop, LibTorch SGD  %8.1f us\n",
         Median(measured.libtorch) * 1e6);
  printf("  runner, six hooks        %8.1f us\n",
         Median(measured.runner) * 1e6);
  printf("  A/A  bare / bare                      %.4f\n",
         MedianRatio(measured.fused_again, measured.fused));
  printf("  (a)  runner / bare, same kernel       %.4f   (at most 1.01)\n",
         MedianRatio(measured.runner, measured.fused));
  printf("  (b)  runner / bare, LibTorch's SGD    %.4f   (at most 1.00)\n",
         MedianRatio(measured.runner, measured.libtorch));
}

// -------------------------------------------------------------- an empty step

// Does nothing, and has something to log.
class EmptyModel final : public Model {
 public:
  EmptyModel() : loss_(torch::zeros({})) {
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

// Of one iteration, on average.
struct Cost {
  double ns = 0;
  double allocations = 0;
};

// Runs `iterations` with an empty model and the default hooks but `off`, and
// one more, if `hook` isn't "".
Cost RunEmpty(const std::string& dir, int iterations, int logger_interval,
              const std::vector<std::string>& off,
              const std::string& hook = "") {
  RunnerOptions options;
  options.model = std::make_unique<EmptyModel>();
  options.train_dataset = Value(TensorDataset::Create(
      torch::zeros({kSamples, 1}), torch::zeros({kSamples}, torch::kLong)));
  options.terminal_fd = open("/dev/null", O_WRONLY);

  // From iteration 1000 on, so that nothing is made for the first time.
  class Window : public Hook {
   public:
    explicit Window(int iterations) : last_(1000 + iterations) {}
    absl::string_view name() const override { return "window"; }
    Priority priority() const override { return Priority::kLowest; }
    absl::Status AfterTrainIter(RunContext& run, const IterInfo&,
                                const LogVars&) override {
      if (run.iter() == 1000) {
        Check(run.log().Flush());  // Its thread allocates too.
        start = Now();
        start_allocations = allocations.load();
      } else if (run.iter() == last_) {
        end_allocations = allocations.load();
        end = Now();
      }
      return absl::OkStatus();
    }
    double start = 0, end = 0;
    int64_t start_allocations = 0, end_allocations = 0;

   private:
    const int64_t last_;
  };
  auto owned = std::make_unique<Window>(iterations);
  const Window& window = *owned;
  options.hooks.push_back(Schedule(std::move(owned)));

  std::string rest =
      absl::StrCat("train_cfg { by_epoch: false max_iters: ", iterations + 1010,
                   " } ", "default_hooks { checkpoint { save_last: false } ");
  bool logger = true;
  for (const std::string& slot : off) {
    absl::StrAppend(&rest, "off: '", slot, "' ");
    logger = logger && slot != "logger";
  }
  if (logger) {
    absl::StrAppend(&rest, "logger { interval: ", logger_interval,
                    " interval_exp_name: 1000000000 } ");
  }
  absl::StrAppend(&rest, "} ");
  if (!hook.empty()) {
    absl::StrAppend(&rest, "custom_hooks { config { ", hook, " } }");
  }
  runner::v1::RunnerConfig config = Config(dir, rest);
  config.mutable_train_dataloader()->mutable_sampler()->set_type(
      data::v1::SamplerConfig::INFINITE);
  for (const std::string& slot : off) {
    if (slot == "checkpoint") {
      config.mutable_default_hooks()->clear_checkpoint();
    }
  }
  const auto runner = Value(Runner::Create(config, std::move(options)));
  Check(runner->Train());
  Cost cost;
  cost.ns = (window.end - window.start) / iterations * 1e9;
  cost.allocations =
      static_cast<double>(window.end_allocations - window.start_allocations) /
      iterations;
  return cost;
}

// The same loader and model in a loop written by hand.
Cost RunByHand(int iterations) {
  data::v1::DataLoaderConfig config;
  google::protobuf::TextFormat::ParseFromString(kLoader, &config);
  config.mutable_sampler()->set_type(data::v1::SamplerConfig::INFINITE);
  DataLoader::Options options;
  options.env = &io::Env::Posix();
  const auto loader = Value(DataLoader::Create(
      config,
      Value(TensorDataset::Create(torch::zeros({kSamples, 1}),
                                  torch::zeros({kSamples}, torch::kLong))),
      options));
  const std::unique_ptr<Model> model = std::make_unique<EmptyModel>();
  optim::v1::OptimWrapperConfig optim_config;
  optim_config.mutable_optimizer()->mutable_sgd();
  const auto optim =
      Value(OptimWrapper::Create(optim_config, model->parameters()));
  Batch batch;
  LogVars log_vars;
  const auto run = [&](int n) {
    for (int i = 0; i < n; ++i) {
      log_vars.Clear();
      if (!loader->Next(&batch).ok()) abort();
      if (!model->TrainStep(batch, *optim, &log_vars).ok()) abort();
    }
  };
  run(1000);
  const double start = Now();
  const int64_t start_allocations = allocations.load();
  run(iterations);
  Cost cost;
  cost.allocations =
      static_cast<double>(allocations.load() - start_allocations) / iterations;
  cost.ns = (Now() - start) / iterations * 1e9;
  return cost;
}

void MeasureEmptyStep(const std::string& dir, int blocks) {
  constexpr int kIterations = 20000;
  constexpr int kNever = 1000000000;
  const std::vector<std::string> slots = {"runtime_info",    "timer",
                                          "sampler_seed",    "logger",
                                          "param_scheduler", "checkpoint"};
  // Each on an iteration on which its interval doesn't fire; EMA's always does.
  const std::vector<std::pair<std::string, std::string>> hooks = {
      {"ema, 1 parameter", "[hooks/EMAHook] {}"},
      {"check_invalid_loss", absl::StrCat("[hooks/CheckInvalidLossHook] { "
                                          "interval: ",
                                          kNever, " }")},
      {"early_stopping", "[hooks/EarlyStoppingHook] { monitor: 'loss' }"},
      {"empty_cache", "[hooks/EmptyCacheHook] { after_iter: true }"},
      {"sync_buffers", "[hooks/SyncBuffersHook] {}"},
      {"profiler", "[hooks/ProfilerHook] { by_epoch: false }"}};
  std::vector<double> all, none, by_hand, by_hand_again, logging;
  std::vector<std::vector<double>> without(slots.size()), with(hooks.size());
  double extra_allocations = 0;
  for (int i = 0; i < blocks; ++i) {
    const Cost with_all = RunEmpty(dir, kIterations, kNever, {});
    const Cost hand = RunByHand(kIterations);
    all.push_back(with_all.ns);
    by_hand.push_back(hand.ns);
    by_hand_again.push_back(RunByHand(kIterations).ns);
    none.push_back(RunEmpty(dir, kIterations, kNever, slots).ns);
    for (size_t s = 0; s < slots.size(); ++s) {
      without[s].push_back(RunEmpty(dir, kIterations, kNever, {slots[s]}).ns);
    }
    for (size_t h = 0; h < hooks.size(); ++h) {
      with[h].push_back(
          RunEmpty(dir, kIterations, kNever, {}, hooks[h].second).ns);
    }
    logging.push_back(RunEmpty(dir, 2000, 1, {}).ns);
    extra_allocations = std::max(
        extra_allocations, std::abs(with_all.allocations - hand.allocations));
  }
  printf("empty model, %d runs of %d iterations\n", blocks, kIterations);
  printf("  loader and model in a loop by hand   %6.0f ns   (A/A %+.0f ns)\n",
         Median(by_hand), Median(by_hand_again) - Median(by_hand));
  printf(
      "  (c)  runner and six hooks, more than that   %.0f ns   (below 300)\n",
      Median(all) - Median(by_hand));
  printf("       runner alone                           %.0f ns\n",
         Median(none) - Median(by_hand));
  for (size_t s = 0; s < slots.size(); ++s) {
    printf("       %-16s                       %.0f ns\n", slots[s].c_str(),
           Median(all) - Median(without[s]));
  }
  printf("  hooks that a config adds, each\n");
  for (size_t h = 0; h < hooks.size(); ++h) {
    printf("       %-18s                     %.0f ns\n", hooks[h].first.c_str(),
           Median(with[h]) - Median(all));
  }
  printf("  (d)  an iteration that logs                 %.1f us   (below 50)\n",
         (Median(logging) - Median(by_hand)) / 1000);
  printf("  (e)  heap allocations an iteration more than by hand  %.4f   (0)\n",
         extra_allocations);
}

}  // namespace
}  // namespace grapnel

int main(int argc, char** argv) {
  const int blocks = argc > 1 ? std::max(1, atoi(argv[1])) : 31;
  at::set_num_threads(1);
  char dir[] = "/tmp/grapnel_overhead_XXXXXX";
  if (mkdtemp(dir) == nullptr) return 1;
  grapnel::MeasureRealStep(absl::StrCat(dir, "/real"), blocks);
  grapnel::MeasureEmptyStep(absl::StrCat(dir, "/empty"), blocks);
  return grapnel::io::DeleteRecursively(grapnel::io::Env::Posix(), dir).ok()
             ? 0
             : 1;
}
