// One rank of ddp.py in C++. Joins where its environment says, as under
// torchrun. Its arguments are the model, mlp or conv; the loop, bare or runner;
// and the runner's work_dir. Reads a number of iterations from each line of
// stdin, does them, and prints the nanoseconds that one took, by the clock and
// of all threads' work.

#include <fcntl.h>

#include <array>
#include <cstdint>
#include <cstdio>
#include <ctime>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ATen/Parallel.h"
#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "c10/core/GradMode.h"
#include "grapnel/base/heap.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/data/data.pb.h"
#include "grapnel/data/data_loader.h"
#include "grapnel/data/dataset.h"
#include "grapnel/data/sample.h"
#include "grapnel/data/sampler.pb.h"
#include "grapnel/data/tensor_dataset.h"
#include "grapnel/dist/c10d_process_group.h"
#include "grapnel/dist/ddp/ddp_reducer.h"
#include "grapnel/dist/gradient_reducer.h"
#include "grapnel/dist/place.h"
#include "grapnel/dist/process_group.h"
#include "grapnel/io/env.h"
#include "grapnel/models/functional.h"
#include "grapnel/models/log_vars.h"
#include "grapnel/optim/optimizer.h"
#include "grapnel/optim/optimizer.pb.h"
#include "grapnel/runner/config_file.h"
#include "grapnel/runner/hook.h"
#include "grapnel/runner/hook_registry.h"
#include "grapnel/runner/run_context.h"
#include "grapnel/runner/runner.h"
#include "grapnel/runner/runner_config.pb.h"
#include "grapnel/tools/bench/measure.h"

namespace grapnel {
namespace {

constexpr int64_t kBatchSize = 32, kSamples = kBatchSize * 128;

constexpr char kMlp[] = R"pb(
  layers { flatten {} }
  layers { linear { out_features: 128 } }
  layers { relu {} }
  layers { linear { out_features: 10 } }
)pb";
constexpr char kConv[] = R"pb(
  layers { conv2d { out_channels: 32 kernel_size: 3 padding: 1 } }
  layers { relu {} }
  layers { max_pool2d { kernel_size: 2 } }
  layers { conv2d { out_channels: 64 kernel_size: 3 padding: 1 } }
  layers { relu {} }
  layers { max_pool2d { kernel_size: 2 } }
  layers { flatten {} }
  layers { linear { out_features: 10 } }
)pb";

// The blocks of iterations that stdin asks for.
class Blocks {
 public:
  explicit Blocks(ProcessGroup& group) : group_(group) {}

  // Of the next block; 0 at the end.
  absl::StatusOr<int> Begin() {
    std::array<char, 32> line;
    if (std::fgets(line.data(), line.size(), stdin) == nullptr) return 0;
    if (!absl::SimpleAtoi(absl::StripSuffix(line.data(), "\n"), &iterations_) ||
        iterations_ < 1) {
      return absl::InvalidArgumentError(
          "stdin: must be lines of one number above 0");
    }
    GRAPNEL_RETURN_IF_ERROR(group_.Barrier());
    start_ = Now();
    cpu_ = std::clock();
    return iterations_;
  }

  void End() const {
    const double seconds = Now() - start_;
    const double cpu_seconds =
        static_cast<double>(std::clock() - cpu_) / CLOCKS_PER_SEC;
    std::printf("%.0f %.0f\n", seconds / iterations_ * 1e9,
                cpu_seconds / iterations_ * 1e9);
    std::fflush(stdout);
  }

 private:
  ProcessGroup& group_;
  int iterations_ = 0;
  double start_ = 0;
  std::clock_t cpu_ = 0;
};

absl::StatusOr<std::unique_ptr<Dataset>> NewDataset() {
  return TensorDataset::Create(ops::randn({kSamples, 1, 28, 28}),
                               ops::randint(10, {kSamples}));
}

// MLP 784-128-10, or two convolutions and a linear layer.
class Net {
 public:
  explicit Net(bool conv) : conv_(conv) {
    if (conv) {
      Add("conv1", {32, 1, 3, 3});
      Add("conv2", {64, 32, 3, 3});
      Add("head", {10, 64 * 7 * 7});
    } else {
      Add("first", {128, 784});
      Add("second", {10, 128});
    }
  }

  at::Tensor Loss(const at::Tensor& x, const at::Tensor& y) const {
    at::Tensor h = x;
    if (conv_) {
      for (const int i : {0, 2}) {
        h = functional::conv2d(h, At(i), At(i + 1), {1, 1}, {1, 1}, {1, 1}, 1);
        h = functional::max_pool2d(functional::relu(h), {2, 2}, {2, 2}, {0, 0},
                                   {1, 1}, false);
      }
      h = functional::linear(h.flatten(1), At(4), At(5));
    } else {
      h = functional::relu(functional::linear(h.flatten(1), At(0), At(1)));
      h = functional::linear(h, At(2), At(3));
    }
    return functional::cross_entropy_loss(h, y, {}, /*reduction=*/1, -100, 0);
  }

  const std::vector<NamedTensor>& params() const { return params_; }

 private:
  void Add(const char* name, const std::vector<int64_t>& shape) {
    params_.push_back({absl::StrCat(name, ".weight"),
                       ops::randn(shape).mul_(0.05).requires_grad_()});
    params_.push_back(
        {absl::StrCat(name, ".bias"), ops::zeros({shape[0]}).requires_grad_()});
  }

  const at::Tensor& At(int i) const { return params_[i].tensor; }

  const bool conv_;
  std::vector<NamedTensor> params_;
};

absl::Status Iterate(const Net& net, const at::Tensor& x, const at::Tensor& y,
                     GradientReducer& reducer, Optimizer& optimizer) {
  optimizer.ZeroGrad();
  GRAPNEL_RETURN_IF_ERROR(reducer.BeginForward(/*sync=*/true));
  const at::Tensor loss = net.Loss(x, y);
  GRAPNEL_RETURN_IF_ERROR(reducer.BeginBackward(loss));
  loss.backward();
  GRAPNEL_RETURN_IF_ERROR(reducer.EndBackward());
  return optimizer.Step();
}

absl::Status RunBare(absl::string_view model) {
  GRAPNEL_ASSIGN_OR_RETURN(const Place place, FindPlace(Launcher::kTorchrun));
  GRAPNEL_ASSIGN_OR_RETURN(const std::unique_ptr<ProcessGroup> group,
                           JoinProcessGroup(place));
  const Net net(model == "conv");
  GRAPNEL_ASSIGN_OR_RETURN(const std::unique_ptr<GradientReducer> reducer,
                           CreateDdpReducer(*group, net.params(), {}, {}));
  optim::v1::OptimizerConfig config;
  config.mutable_sgd()->set_lr(0.01);
  GRAPNEL_ASSIGN_OR_RETURN(const std::unique_ptr<Optimizer> optimizer,
                           OptimizerRegistry::Create(config, {{net.params()}}));
  data::v1::DataLoaderConfig data;
  data.set_batch_size(kBatchSize);
  data.mutable_sampler()->set_type(data::v1::SamplerConfig::INFINITE);
  GRAPNEL_ASSIGN_OR_RETURN(std::unique_ptr<Dataset> dataset, NewDataset());
  DataLoader::Options options;
  options.env = &io::Env::Posix();
  options.rank = group->rank();
  options.world_size = group->world_size();
  GRAPNEL_ASSIGN_OR_RETURN(
      const std::unique_ptr<DataLoader> loader,
      DataLoader::Create(data, std::move(dataset), options));
  Batch batch;
  Blocks blocks(*group);
  for (;;) {
    GRAPNEL_ASSIGN_OR_RETURN(const int iterations, blocks.Begin());
    if (iterations == 0) return absl::OkStatus();
    for (int i = 0; i < iterations; ++i) {
      GRAPNEL_RETURN_IF_ERROR(loader->Next(&batch));
      GRAPNEL_RETURN_IF_ERROR(
          Iterate(net, batch.inputs, batch.targets, *reducer, *optimizer));
    }
    blocks.End();
  }
}

// Ends a block after its last iteration, and the run after the last block.
class BlocksHook : public Hook {
 public:
  absl::string_view name() const override { return "blocks"; }
  Priority priority() const override { return Priority::kLowest; }

  absl::Status BeforeTrain(RunContext& run) override {
    blocks_ = std::make_unique<Blocks>(run.process_group());
    return Begin(run);
  }

  absl::Status AfterTrainIter(RunContext& run, const IterInfo&,
                              const LogVars&) override {
    if (left_ == 0 || --left_ > 0) return absl::OkStatus();
    blocks_->End();
    return Begin(run);
  }

 private:
  absl::Status Begin(RunContext& run) {
    GRAPNEL_ASSIGN_OR_RETURN(left_, blocks_->Begin());
    if (left_ == 0) run.RequestStop("stdin has ended");
    return absl::OkStatus();
  }

  std::unique_ptr<Blocks> blocks_;
  int left_ = 0;
};

absl::Status RunRunner(absl::string_view model, absl::string_view work_dir) {
  GRAPNEL_ASSIGN_OR_RETURN(
      runner::v1::RunnerConfig config,
      ParseRunnerConfig(
          absl::StrCat("launcher: \"torchrun\" randomness { seed: 0 } "
                       "model { sequential { ",
                       model == "conv" ? kConv : kMlp,
                       " loss { cross_entropy {} } } } "
                       "train_cfg { by_epoch: false max_iters: 1000000000 } "
                       "train_dataloader { batch_size: ",
                       kBatchSize,
                       " sampler { type: INFINITE } } "
                       "optim_wrapper { optimizer { sgd { lr: 0.01 } } } "
                       "default_hooks { checkpoint { save_last: false } }"),
          ConfigFormat::kText, "config"));
  config.set_work_dir(std::string(work_dir));
  RunnerOptions options;
  // As a service's; without it nothing is written there.
  options.terminal_fd = open("/dev/null", O_WRONLY);
  GRAPNEL_ASSIGN_OR_RETURN(options.train_dataset, NewDataset());
  options.hooks.push_back(Schedule(std::make_unique<BlocksHook>()));
  GRAPNEL_ASSIGN_OR_RETURN(const std::unique_ptr<Runner> runner,
                           Runner::Create(config, std::move(options)));
  return runner->Train();
}

absl::Status Run(const std::vector<std::string>& args) {
  at::set_num_threads(1);
  if (args.size() == 2 && args[1] == "bare") return RunBare(args[0]);
  if (args.size() == 3 && args[1] == "runner") {
    return RunRunner(args[0], args[2]);
  }
  return absl::InvalidArgumentError(
      "arguments: must be MODEL bare, or MODEL runner WORK_DIR");
}

}  // namespace
}  // namespace grapnel

int main(int argc, char** argv) {
  grapnel::KeepFreedMemory();  // As the grapnel program.
  const absl::Status status = grapnel::CatchAsStatus([&] {
    return grapnel::Run({argv + 1, argv + argc});
  });
  if (status.ok()) return 0;
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return 1;
}
