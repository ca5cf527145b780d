// A training loop written by hand, with LibTorch's own model and optimizer.
// Schedulers need no runner, no OptimWrapper and no hooks.

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "google/protobuf/repeated_ptr_field.h"
#include "google/protobuf/text_format.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/optim/optimizer.h"
#include "grapnel/optim/optimizer.pb.h"
#include "grapnel/optim/optimizers/torch_optimizer.h"
#include "grapnel/optim/param_scheduler.h"
#include "grapnel/optim/param_scheduler.pb.h"
#include "grapnel/optim/schedulers/scheduler_replay.h"
#include "gtest/gtest.h"
#include "torch/nn/modules/linear.h"
#include "torch/optim.h"
#include "torch/types.h"

namespace grapnel {
namespace {

using ::google::protobuf::RepeatedPtrField;
using ::grapnel::optim::v1::ParamSchedulerConfig;
using ::grapnel::optim::v1::ParamSchedulerState;
using ::testing::DoubleEq;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Pointwise;

constexpr int kEpochs = 6;
constexpr int kBatches = 4;

class PlainLoop {
 public:
  PlainLoop() {
    torch::manual_seed(0);
    model_ = torch::nn::Linear(2, 1);
    sgd_ = std::make_shared<torch::optim::SGD>(
        model_->parameters(), torch::optim::SGDOptions(0.5).momentum(0.75));
    std::vector<NamedTensor> params;
    for (const auto& entry : model_->named_parameters()) {
      params.push_back({entry.key(), entry.value()});
    }
    auto groups = WrapTorchOptimizer(sgd_, std::move(params));
    EXPECT_THAT(groups, IsOk());
    groups_ = *std::move(groups);

    RunLength length;
    length.max_epochs = kEpochs;
    length.max_iters = kEpochs * kBatches;
    length.epoch_length = kBatches;
    for (const char* text :
         {"linear { start_factor: 0.25 end: 4 by_epoch: false }",
          "multi_step { milestones: 2 gamma: 0.5 }",
          "linear { end_factor: 0 start_factor: 1 end: 3 "
          "param_name: 'momentum' }",
          "reduce_on_plateau { patience: 0 factor: 0.5 }"}) {
      ParamSchedulerConfig config;
      EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &config));
      auto scheduler = ParamSchedulerRegistry::Create(config, *groups_, length);
      EXPECT_THAT(scheduler, IsOk());
      schedulers_.push_back(*std::move(scheduler));
    }
  }

  void Start() {
    for (auto& scheduler : schedulers_) scheduler->Apply();
  }

  // One epoch; the validation after it says `val_loss`.
  void TrainEpoch(double val_loss) {
    torch::manual_seed(++epoch_);
    for (int i = 0; i < kBatches; ++i) {
      rates.push_back(options().lr());
      momenta.push_back(options().momentum());
      sgd_->zero_grad();
      const at::Tensor x = torch::randn({8, 2});
      (model_(x) - x.sum(1, true)).square().mean().backward();
      sgd_->step();
      for (auto& scheduler : schedulers_) {
        if (!scheduler->by_epoch()) scheduler->Step();
      }
    }
    for (auto& scheduler : schedulers_) {
      if (scheduler->by_epoch()) scheduler->Step();
    }
    for (auto& scheduler : schedulers_) scheduler->StepMetric(val_loss);
  }

  struct Checkpoint {
    std::vector<at::Tensor> weights;
    optim::v1::OptimizerState optimizer;
    TensorMap optimizer_tensors;
    RepeatedPtrField<ParamSchedulerState> schedulers;
    int epoch;
  };

  Checkpoint Save() {
    Checkpoint checkpoint;
    checkpoint.epoch = epoch_;
    for (const at::Tensor& tensor : model_->parameters()) {
      checkpoint.weights.push_back(tensor.detach().clone());
    }
    EXPECT_THAT(groups_->SaveState(&checkpoint.optimizer,
                                   &checkpoint.optimizer_tensors),
                IsOk());
    for (const auto& scheduler : schedulers_) {
      EXPECT_THAT(scheduler->SaveState(checkpoint.schedulers.Add()), IsOk());
    }
    return checkpoint;
  }

  void Resume(const Checkpoint& checkpoint) {
    torch::NoGradGuard no_grad;
    epoch_ = checkpoint.epoch;
    for (size_t i = 0; i < checkpoint.weights.size(); ++i) {
      model_->parameters()[i].copy_(checkpoint.weights[i]);
    }
    ASSERT_THAT(
        groups_->LoadState(checkpoint.optimizer, checkpoint.optimizer_tensors),
        IsOk());
    std::vector<std::string> warnings;
    ASSERT_THAT(RestoreSchedulers(schedulers_, checkpoint.schedulers,
                                  {epoch_, epoch_ * kBatches, kBatches},
                                  RestoredOptions(), &warnings),
                IsOk());
    EXPECT_THAT(warnings, IsEmpty());
  }

  at::Tensor weight() const { return model_->weight.detach(); }

  std::vector<double> rates, momenta;  // That the iterations were made with.

 private:
  const torch::optim::SGDOptions& options() const {
    return static_cast<const torch::optim::SGDOptions&>(
        sgd_->param_groups()[0].options());
  }

  torch::nn::Linear model_ = nullptr;
  std::shared_ptr<torch::optim::SGD> sgd_;
  std::unique_ptr<Optimizer> groups_;
  std::vector<std::unique_ptr<ParamScheduler>> schedulers_;
  int epoch_ = 0;
};

TEST(PlainLoopTest, SchedulersMoveLibTorchsOwnOptimizer) {
  PlainLoop loop;
  loop.Start();
  for (const double val_loss : {3.0, 2.0, 2.5, 1.0}) loop.TrainEpoch(val_loss);
  EXPECT_THAT(
      loop.rates,
      Pointwise(DoubleEq(),
                std::vector<double>{0.125, 0.25, 0.375, 0.5,  // Warm-up,
                                    0.5, 0.5, 0.5, 0.5,       //
                                    0.25, 0.25, 0.25, 0.25,   // milestone,
                                    0.125, 0.125, 0.125, 0.125}));  // plateau.
  EXPECT_THAT(loop.momenta, ElementsAre(0.75, 0.75, 0.75, 0.75, 0.375, 0.375,
                                        0.375, 0.375, 0, 0, 0, 0, 0, 0, 0, 0));
}

TEST(PlainLoopTest, ResumedItIsTheSameLoop) {
  const double kValLosses[kEpochs] = {3, 3, 2, 2, 2, 1};
  PlainLoop whole;
  whole.Start();
  for (const double val_loss : kValLosses) whole.TrainEpoch(val_loss);
  for (int cut = 0; cut <= kEpochs; ++cut) {
    PlainLoop first;
    first.Start();
    for (int i = 0; i < cut; ++i) first.TrainEpoch(kValLosses[i]);
    PlainLoop second;
    second.Resume(first.Save());
    for (int i = cut; i < kEpochs; ++i) second.TrainEpoch(kValLosses[i]);
    std::vector<double> rates = first.rates;
    rates.insert(rates.end(), second.rates.begin(), second.rates.end());
    EXPECT_EQ(rates, whole.rates);
    EXPECT_TRUE(torch::equal(second.weight(), whole.weight())) << cut;
  }
}

}  // namespace
}  // namespace grapnel
