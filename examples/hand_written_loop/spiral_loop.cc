#include "grapnel/examples/hand_written_loop/spiral_loop.h"

#include <cmath>
#include <memory>
#include <utility>
#include <vector>

#include "ATen/CPUGeneratorImpl.h"
#include "ATen/core/Generator.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "google/protobuf/text_format.h"
#include "grapnel/base/log.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/examples/hand_written_loop/spiral_state.pb.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/checkpoint_manifest.pb.h"
#include "grapnel/io/env.h"
#include "grapnel/optim/averaging/averaged_model.h"
#include "grapnel/optim/averaging/averaging.pb.h"
#include "grapnel/optim/optimizer.h"
#include "grapnel/optim/optimizers/torch_optimizer.h"
#include "grapnel/optim/param_scheduler.h"
#include "grapnel/optim/param_scheduler.pb.h"
#include "grapnel/optim/schedulers/scheduler_replay.h"
#include "torch/nn.h"
#include "torch/optim.h"
#include "torch/types.h"

namespace examples {
namespace {

using ::google::protobuf::TextFormat;
using ::grapnel::NamedTensor;
using ::grapnel::TensorMap;

constexpr int kArms = 3;
constexpr int64_t kPointsInArm = 200;
constexpr int64_t kBatch = 64;

// In their order: each moves what the one before has left.
constexpr const char* kSchedulers[] = {
    "linear { start_factor: 0.1 by_epoch: false end: 50 }",
    "cosine_annealing { by_epoch: false begin: 50 }"};
constexpr char kAverage[] =
    "strategy { exponential_moving_average { momentum: 0.02 } }";

struct Data {
  at::Tensor points;  // (N, 2)
  at::Tensor arms;    // (N), int64
};

// The same every time, whatever the default generator's state.
Data MakeData() {
  auto generator = at::make_generator<at::CPUGeneratorImpl>(1);
  const int64_t n = kArms * kPointsInArm;
  const at::Tensor arms = torch::arange(n).remainder(kArms);
  const at::Tensor radii = torch::rand({n}, generator);
  const at::Tensor angles = radii * 4 + arms * (2 * M_PI / kArms) +
                            torch::randn({n}, generator) * 0.15;
  return {torch::stack({radii * angles.cos(), radii * angles.sin()}, 1), arms};
}

class SpiralLoop {
 public:
  static absl::StatusOr<std::unique_ptr<SpiralLoop>> Create(
      const SpiralOptions& options);

  // Goes on from the newest checkpoint that can be read.
  absl::Status Resume();

  absl::Status Step();

  // Writes everything that the next iterations depend on.
  absl::Status Save();

  absl::StatusOr<double> Accuracy();
  absl::StatusOr<double> AveragedAccuracy();

  int64_t iter() const { return iter_; }

 private:
  explicit SpiralLoop(const SpiralOptions& options) : options_(options) {}

  void MakeNet();
  absl::Status Restore(const grapnel::io::CheckpointContents& contents);

  const SpiralOptions options_;
  grapnel::io::Env& env_ = grapnel::io::Env::Posix();
  const Data data_ = MakeData();
  torch::nn::Sequential net_;
  std::shared_ptr<torch::optim::AdamW> adamw_;
  std::vector<NamedTensor> parameters_, buffers_;  // The net's.

  // What Grapnel adds: AdamW's options and state, by name; what moves its
  // learning rate; and the average.
  std::unique_ptr<grapnel::Optimizer> optimizer_;
  std::vector<std::unique_ptr<grapnel::ParamScheduler>> schedulers_;
  std::unique_ptr<grapnel::AveragedModel> average_;

  int64_t iter_ = 0;
};

void SpiralLoop::MakeNet() {
  torch::manual_seed(0);
  net_ = torch::nn::Sequential(
      torch::nn::Linear(2, 64), torch::nn::BatchNorm1d(64), torch::nn::ReLU(),
      torch::nn::Dropout(0.1), torch::nn::Linear(64, 64), torch::nn::ReLU(),
      torch::nn::Linear(64, kArms));
  for (const auto& entry : net_->named_parameters()) {
    parameters_.push_back({entry.key(), entry.value()});
  }
  for (const auto& entry : net_->named_buffers()) {
    buffers_.push_back({entry.key(), entry.value()});
  }
  adamw_ = std::make_shared<torch::optim::AdamW>(
      net_->parameters(), torch::optim::AdamWOptions(0.02));
}

absl::StatusOr<std::unique_ptr<SpiralLoop>> SpiralLoop::Create(
    const SpiralOptions& options) {
  std::unique_ptr<SpiralLoop> loop(new SpiralLoop(options));
  GRAPNEL_RETURN_IF_ERROR(grapnel::CatchAsStatus([&] {
    loop->MakeNet();
    return absl::OkStatus();
  }));
  GRAPNEL_ASSIGN_OR_RETURN(
      loop->optimizer_,
      grapnel::WrapTorchOptimizer(loop->adamw_, loop->parameters_));

  grapnel::RunLength length;
  length.max_iters = options.iterations;
  for (const char* text : kSchedulers) {
    grapnel::optim::v1::ParamSchedulerConfig config;
    GRAPNEL_RET_CHECK(TextFormat::ParseFromString(text, &config));
    GRAPNEL_ASSIGN_OR_RETURN(auto scheduler,
                             grapnel::ParamSchedulerRegistry::Create(
                                 config, *loop->optimizer_, length));
    loop->schedulers_.push_back(std::move(scheduler));
  }

  grapnel::optim::v1::AveragedModelConfig config;
  GRAPNEL_RET_CHECK(TextFormat::ParseFromString(kAverage, &config));
  GRAPNEL_ASSIGN_OR_RETURN(auto averaging,
                           grapnel::AveragingOptions::FromConfig(config));
  GRAPNEL_ASSIGN_OR_RETURN(
      loop->average_,
      grapnel::AveragedModel::Create(std::move(averaging), loop->parameters_,
                                     loop->buffers_));
  // Writes the learning rate of step 0.
  for (auto& scheduler : loop->schedulers_) scheduler->Apply();
  return loop;
}

absl::Status SpiralLoop::Step() {
  GRAPNEL_RETURN_IF_ERROR(grapnel::CatchAsStatus([&] {
    net_->train();
    const at::Tensor batch = torch::randint(data_.arms.size(0), {kBatch});
    const at::Tensor logits =
        net_->forward(data_.points.index_select(0, batch));
    adamw_->zero_grad();
    torch::nn::functional::cross_entropy(logits,
                                         data_.arms.index_select(0, batch))
        .backward();
    adamw_->step();
    return absl::OkStatus();
  }));
  GRAPNEL_RETURN_IF_ERROR(average_->Update());
  for (auto& scheduler : schedulers_) scheduler->Step();
  ++iter_;
  return absl::OkStatus();
}

absl::StatusOr<double> SpiralLoop::Accuracy() {
  double accuracy = 0;
  GRAPNEL_RETURN_IF_ERROR(grapnel::CatchAsStatus([&] {
    const torch::NoGradGuard no_grad;
    net_->eval();
    const at::Tensor arms = net_->forward(data_.points).argmax(1);
    accuracy = arms.eq(data_.arms).to(torch::kDouble).mean().item().toDouble();
    return absl::OkStatus();
  }));
  return accuracy;
}

absl::StatusOr<double> SpiralLoop::AveragedAccuracy() {
  // Until the scope ends the net has the averaged weights.
  GRAPNEL_ASSIGN_OR_RETURN(const grapnel::AverageScope scope,
                           grapnel::AverageScope::Enter(average_.get()));
  return Accuracy();
}

absl::Status SpiralLoop::Save() {
  grapnel::io::CheckpointContents contents;
  contents.manifest().mutable_progress()->set_iter(iter_);
  contents.manifest().mutable_progress()->set_max_iters(options_.iterations);

  TensorMap model, optimizer, rng;
  for (const auto* tensors : {&parameters_, &buffers_}) {
    for (const NamedTensor& entry : *tensors) {
      GRAPNEL_RETURN_IF_ERROR(model.Add(entry.name, entry.tensor.detach()));
    }
  }
  GRAPNEL_ASSIGN_OR_RETURN(TensorMap average, average_->State());
  SpiralState state;
  GRAPNEL_RETURN_IF_ERROR(
      optimizer_->SaveState(state.mutable_optimizer(), &optimizer));
  for (const auto& scheduler : schedulers_) {
    GRAPNEL_RETURN_IF_ERROR(scheduler->SaveState(state.add_schedulers()));
  }
  state.set_average_steps(average_->steps());
  // Batches and dropout go on where they were.
  GRAPNEL_RETURN_IF_ERROR(
      rng.Add("cpu", at::detail::getDefaultCPUGenerator().get_state()));

  contents.sections = {{"model", std::move(model)},
                       {"ema", std::move(average)},
                       {"optimizer", std::move(optimizer)},
                       {"rng", std::move(rng)}};
  contents.blobs = {{"spiral", state.SerializeAsString()}};
  const std::string name = absl::StrCat("iter_", iter_);
  GRAPNEL_RETURN_IF_ERROR(
      grapnel::io::WriteCheckpoint(env_, options_.dir, name, contents));
  GRAPNEL_RETURN_IF_ERROR(grapnel::io::WriteLastCheckpoint(
      env_, options_.dir, grapnel::io::JoinPath(options_.dir, name)));

  // Two are enough: the newest, and one more should that turn out to be bad.
  const absl::Status deleted = grapnel::io::DeleteCheckpoint(
      env_, grapnel::io::JoinPath(
                options_.dir,
                absl::StrCat("iter_", iter_ - 2 * options_.save_interval)));
  return absl::IsNotFound(deleted) ? absl::OkStatus() : deleted;
}

absl::Status SpiralLoop::Resume() {
  GRAPNEL_RETURN_IF_ERROR(env_.CreateDir(options_.dir));
  GRAPNEL_RETURN_IF_ERROR(grapnel::io::RemoveLeftovers(env_, options_.dir));
  std::vector<std::string> bad;
  while (true) {
    const absl::StatusOr<std::string> path =
        grapnel::io::FindLatestCheckpoint(env_, options_.dir, nullptr, bad);
    if (absl::IsNotFound(path.status())) return absl::OkStatus();
    if (!path.ok()) return path.status();
    const auto contents = grapnel::io::ReadCheckpoint(env_, *path);
    if (contents.ok()) return Restore(*contents);
    if (!absl::IsDataLoss(contents.status())) return contents.status();
    GRAPNEL_LOG(WARNING) << contents.status().message();
    bad.push_back(*path);
  }
}

absl::Status SpiralLoop::Restore(
    const grapnel::io::CheckpointContents& contents) {
  const TensorMap* const model = contents.FindSection("model");
  const TensorMap* const average = contents.FindSection("ema");
  const TensorMap* const optimizer = contents.FindSection("optimizer");
  const TensorMap* const rng = contents.FindSection("rng");
  const std::string* const blob = contents.FindBlob("spiral");
  SpiralState state;
  if (model == nullptr || average == nullptr || optimizer == nullptr ||
      rng == nullptr || rng->Find("cpu") == nullptr || blob == nullptr ||
      !state.ParseFromString(*blob)) {
    return absl::InvalidArgumentError(absl::StrCat(
        contents.manifest().name(), ": is not a checkpoint of this loop"));
  }
  for (const auto* tensors : {&parameters_, &buffers_}) {
    for (const NamedTensor& entry : *tensors) {
      const at::Tensor* const saved = model->Find(entry.name);
      if (saved == nullptr || saved->sizes() != entry.tensor.sizes()) {
        return absl::InvalidArgumentError(
            absl::StrCat(contents.manifest().name(), ": ", entry.name,
                         ": is another net's"));
      }
      GRAPNEL_RETURN_IF_ERROR(grapnel::CatchAsStatus([&] {
        const torch::NoGradGuard no_grad;
        entry.tensor.copy_(*saved);
        return absl::OkStatus();
      }));
    }
  }
  GRAPNEL_RETURN_IF_ERROR(optimizer_->LoadState(state.optimizer(), *optimizer));
  GRAPNEL_RETURN_IF_ERROR(
      average_->Load(*average, /*strict=*/true, /*report=*/nullptr));
  average_->set_steps(state.average_steps());

  // If the schedules are others than they were, with other `iterations` say,
  // the rate becomes what it would be had they been so from the beginning.
  iter_ = contents.manifest().progress().iter();
  grapnel::ResumePoint point;
  point.iters = iter_;
  std::vector<std::string> warnings;
  GRAPNEL_RETURN_IF_ERROR(
      grapnel::RestoreSchedulers(schedulers_, state.schedulers(), point,
                                 grapnel::RestoredOptions(), &warnings));
  for (const std::string& warning : warnings) GRAPNEL_LOG(WARNING) << warning;

  return grapnel::CatchAsStatus([&] {
    at::Generator generator = at::detail::getDefaultCPUGenerator();
    generator.set_state(*rng->Find("cpu"));
    return absl::OkStatus();
  });
}

}  // namespace

absl::StatusOr<SpiralResult> TrainSpiral(const SpiralOptions& options) {
  GRAPNEL_ASSIGN_OR_RETURN(const std::unique_ptr<SpiralLoop> loop,
                           SpiralLoop::Create(options));
  GRAPNEL_RETURN_IF_ERROR(loop->Resume());
  SpiralResult result;
  result.resumed_from = loop->iter();
  while (loop->iter() < options.iterations) {
    if (options.killed && options.killed(loop->iter())) break;
    GRAPNEL_RETURN_IF_ERROR(loop->Step());
    if (loop->iter() % options.save_interval == 0 ||
        loop->iter() == options.iterations) {
      GRAPNEL_RETURN_IF_ERROR(loop->Save());
    }
  }
  result.iterations = loop->iter() - result.resumed_from;
  GRAPNEL_ASSIGN_OR_RETURN(result.accuracy, loop->Accuracy());
  GRAPNEL_ASSIGN_OR_RETURN(result.averaged_accuracy, loop->AveragedAccuracy());
  return result;
}

}  // namespace examples
