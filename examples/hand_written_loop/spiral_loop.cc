#include "grapnel/examples/hand_written_loop/spiral_loop.h"

#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "grapnel/base/log.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/examples/hand_written_loop/spiral_data.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/checkpoint_manifest.pb.h"
#include "grapnel/io/env.h"
#include "grapnel/io/run_checkpoints.h"
#include "grapnel/models/nn_tensors.h"
#include "grapnel/optim/averaging/averaged_model.h"
#include "grapnel/optim/averaging/averaging_strategies.h"
#include "grapnel/optim/optimizer.h"
#include "grapnel/optim/optimizers/torch_optimizer.h"
#include "grapnel/optim/param_scheduler.h"
#include "grapnel/optim/param_scheduler.pb.h"
#include "grapnel/runner/loop_checkpoint.h"
#include "torch/nn.h"
#include "torch/optim.h"

namespace examples {
namespace {

namespace io = ::grapnel::io;

constexpr int64_t kBatch = 64;
constexpr char kRun[] = "the spiral's run";  // Whose checkpoints are deleted.

// LibTorch's net and optimizer, and what Grapnel adds: the optimizer's options
// and state, by name; what moves its learning rate; and an average.
struct SpiralLoop {
  explicit SpiralLoop(const SpiralOptions& options) : options(options) {}

  absl::Status Create() {
    GRAPNEL_ASSIGN_OR_RETURN(
        optimizer,
        grapnel::WrapTorchOptimizer(adamw, grapnel::NamedParameters(*net)));
    // In their order: each moves what the one before has left.
    grapnel::optim::v1::ParamSchedulerConfig warmup, decay;
    warmup.mutable_linear()->set_start_factor(0.1);
    warmup.mutable_linear()->set_by_epoch(false);
    warmup.mutable_linear()->set_end(50);
    decay.mutable_cosine_annealing()->set_by_epoch(false);
    decay.mutable_cosine_annealing()->set_begin(50);
    grapnel::RunLength length;
    length.max_iters = options.iterations;
    for (const auto& config : {warmup, decay}) {
      GRAPNEL_ASSIGN_OR_RETURN(
          auto scheduler,
          grapnel::ParamSchedulerRegistry::Create(config, *optimizer, length));
      schedulers.push_back(std::move(scheduler));
    }
    grapnel::AveragingOptions averaging;
    GRAPNEL_ASSIGN_OR_RETURN(averaging.strategy, grapnel::EMAStrategy(0.02));
    GRAPNEL_ASSIGN_OR_RETURN(
        average, grapnel::AveragedModel::Create(std::move(averaging),
                                                grapnel::NamedParameters(*net),
                                                grapnel::NamedBuffers(*net)));
    // Writes the learning rate of step 0.
    for (auto& scheduler : schedulers) scheduler->Apply();
    return absl::OkStatus();
  }

  absl::Status Step() {
    net->train();
    const at::Tensor batch = torch::randint(data.arms.size(0), {kBatch});
    const at::Tensor logits = net->forward(data.points.index_select(0, batch));
    adamw->zero_grad();
    torch::nn::functional::cross_entropy(logits,
                                         data.arms.index_select(0, batch))
        .backward();
    adamw->step();
    GRAPNEL_RETURN_IF_ERROR(average->Update());
    for (auto& scheduler : schedulers) scheduler->Step();
    ++iter;
    return absl::OkStatus();
  }

  double Accuracy() {
    const torch::NoGradGuard no_grad;
    net->eval();
    const at::Tensor arms = net->forward(data.points).argmax(1);
    return arms.eq(data.arms).to(torch::kDouble).mean().item().toDouble();
  }

  grapnel::LoopParts Parts() {
    return {grapnel::NamedParameters(*net), grapnel::NamedBuffers(*net),
            optimizer.get(), schedulers, average.get()};
  }

  absl::Status Save() {
    GRAPNEL_ASSIGN_OR_RETURN(
        io::CheckpointContents contents,
        grapnel::CaptureLoop(Parts(), iter, options.iterations));
    contents.manifest().set_run_uuid(kRun);
    const std::string name = absl::StrCat("iter_", iter);
    GRAPNEL_RETURN_IF_ERROR(
        io::WriteCheckpoint(env, options.dir, name, contents));
    GRAPNEL_RETURN_IF_ERROR(io::WriteLastCheckpoint(
        env, options.dir, io::JoinPath(options.dir, name)));
    // Two are enough: the newest, and one more should that turn out to be bad.
    return io::KeepNewestCheckpoints(env, options.dir, kRun, 2);
  }

  // Goes on from the newest checkpoint that can be read.
  absl::Status Resume() {
    GRAPNEL_RETURN_IF_ERROR(env.CreateDir(options.dir));
    GRAPNEL_RETURN_IF_ERROR(io::RemoveLeftovers(env, options.dir));
    std::vector<std::string> warnings;
    const auto latest = io::ReadLatestCheckpoint(env, options.dir, &warnings);
    if (!latest.ok() && !absl::IsNotFound(latest.status())) {
      return latest.status();
    }
    if (latest.ok()) {
      GRAPNEL_ASSIGN_OR_RETURN(
          iter, grapnel::RestoreLoop(latest->contents, Parts(),
                                     options.iterations, &warnings));
    }
    for (const std::string& warning : warnings) GRAPNEL_LOG(WARNING) << warning;
    return absl::OkStatus();
  }

  const SpiralOptions options;
  io::Env& env = io::Env::Posix();
  const SpiralData data = MakeSpiralData();
  torch::nn::Sequential net = MakeSpiralNet();
  std::shared_ptr<torch::optim::AdamW> adamw =
      std::make_shared<torch::optim::AdamW>(net->parameters(),
                                            torch::optim::AdamWOptions(0.02));
  std::unique_ptr<grapnel::Optimizer> optimizer;
  std::vector<std::unique_ptr<grapnel::ParamScheduler>> schedulers;
  std::unique_ptr<grapnel::AveragedModel> average;
  int64_t iter = 0;
};

absl::Status Train(const SpiralOptions& options, SpiralResult* result) {
  SpiralLoop loop(options);
  GRAPNEL_RETURN_IF_ERROR(loop.Create());
  GRAPNEL_RETURN_IF_ERROR(loop.Resume());
  result->resumed_from = loop.iter;
  while (loop.iter < options.iterations) {
    if (options.killed && options.killed(loop.iter)) break;
    GRAPNEL_RETURN_IF_ERROR(loop.Step());
    if (loop.iter % options.save_interval == 0 ||
        loop.iter == options.iterations) {
      GRAPNEL_RETURN_IF_ERROR(loop.Save());
    }
  }
  result->iterations = loop.iter - result->resumed_from;
  result->accuracy = loop.Accuracy();
  // Until the scope ends the net has the averaged weights.
  GRAPNEL_ASSIGN_OR_RETURN(const grapnel::AverageScope scope,
                           grapnel::AverageScope::Enter(loop.average.get()));
  result->averaged_accuracy = loop.Accuracy();
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<SpiralResult> TrainSpiral(const SpiralOptions& options) {
  SpiralResult result;
  // LibTorch throws.
  GRAPNEL_RETURN_IF_ERROR(
      grapnel::CatchAsStatus([&] { return Train(options, &result); }));
  return result;
}

}  // namespace examples
