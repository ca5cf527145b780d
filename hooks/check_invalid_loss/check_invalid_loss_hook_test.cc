#include "grapnel/hooks/check_invalid_loss/check_invalid_loss_hook.h"

#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "google/protobuf/text_format.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/data/tensor_dataset.h"
#include "grapnel/io/mem_env.h"
#include "grapnel/loggers/memory_run_log.h"
#include "grapnel/loggers/run_log.h"
#include "grapnel/models/log_vars.h"
#include "grapnel/models/model.h"
#include "grapnel/optim/optim_wrapper.h"
#include "grapnel/runner/hook_registry.h"
#include "grapnel/runner/run_context.h"
#include "grapnel/runner/runner.h"
#include "grapnel/runner/runner_config.pb.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

// Has one parameter, w = 0, whose gradient is the batch's number times 1/2 for
// loss_a and 1/2 for loss_b; "acc" is no loss.
class SumModel : public Model {
 public:
  SumModel() {
    parameters_.push_back({"w", ops::zeros({}, at::kDouble)});
    parameters_[0].tensor.requires_grad_();
  }
  double w() const { return parameters_[0].tensor.item<double>(); }

  absl::Status ComputeLosses(const Batch& batch, LogVars* losses) override {
    const at::Tensor& w = parameters_[0].tensor;
    const at::Tensor finite = batch.inputs.nan_to_num(1, 1, 1);
    losses->Add("loss_a", w.mul(batch.inputs).sum().mul(0.5));
    losses->Add("loss_b", w.mul(finite).sum().mul(0.5));
    losses->Add("acc", batch.inputs.sum().div(0.0));
    return absl::OkStatus();
  }
  absl::Status ValStep(const Batch&, Predictions*) override {
    return absl::OkStatus();
  }
  const std::vector<NamedTensor>& parameters() const override {
    return parameters_;
  }
  const std::vector<NamedTensor>& buffers() const override { return buffers_; }
  void SetTraining(bool) override {}
  bool training() const override { return true; }

 private:
  std::vector<NamedTensor> parameters_, buffers_;
};

// Logs its loss only when the step is done.
class LateModel final : public SumModel {
 public:
  absl::Status TrainStep(const Batch& batch, OptimWrapper& optim,
                         LogVars* log_vars) override {
    LogVars losses;
    absl::Status status = ComputeLosses(batch, &losses);
    if (status.ok()) status = optim.Update(losses[0].tensor, batch.size());
    log_vars->Add("loss", losses[0].tensor.detach());
    return status;
  }
};

class CheckInvalidLossTest : public ::testing::Test {
 protected:
  // A run over `numbers`, an iteration each; SGD with a rate of 1, so that
  // every step of a finite batch takes w down by 1.
  absl::Status Train(const std::string& hook,
                     const std::vector<double>& numbers,
                     const std::string& more = "",
                     std::unique_ptr<SumModel> model = nullptr) {
    runner::v1::RunnerConfig config, changes;
    EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(
        R"pb(
          work_dir: "/run"
          train_dataloader { batch_size: 1 }
          train_cfg { by_epoch: false }
          optim_wrapper { optimizer { sgd { lr: 1 } } }
        )pb",
        &config));
    EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(more, &changes));
    config.MergeFrom(changes);
    if (!config.train_cfg().by_epoch()) {
      config.mutable_train_cfg()->set_max_iters(
          static_cast<int64_t>(numbers.size()));
    }
    at::Tensor inputs =
        ops::ones({static_cast<int64_t>(numbers.size()), 1}, at::kDouble);
    for (size_t i = 0; i < numbers.size(); ++i) {
      inputs[static_cast<int64_t>(i)].fill_(numbers[i]);
    }
    RunnerOptions options;
    options.env = &env_;
    options.log = &log_;
    options.model =
        model == nullptr ? std::make_unique<SumModel>() : std::move(model);
    const auto* trained = static_cast<const SumModel*>(options.model.get());
    auto data = TensorDataset::Create(inputs, ops::ones({inputs.size(0), 1}));
    EXPECT_THAT(data, IsOk());
    options.train_dataset = *std::move(data);
    CheckInvalidLossHook::Config hook_config;
    EXPECT_TRUE(
        google::protobuf::TextFormat::ParseFromString(hook, &hook_config));
    auto created = CheckInvalidLossHook::Create(hook_config);
    EXPECT_THAT(created, IsOk());
    options.hooks.push_back(Schedule(*std::move(created)));
    auto runner = Runner::Create(config, std::move(options));
    EXPECT_THAT(runner, IsOk());
    const absl::Status status = (*runner)->Train();
    w_ = trained->w();
    iterations_ = (*runner)->context().iter();
    updates_ = (*runner)->context().updates();
    stop_reason_ = (*runner)->stop_reason();
    return status;
  }

  std::vector<std::string> Warnings() {
    return log_.messages(RunLog::Level::kWarning);
  }

  io::MemEnv env_;
  MemoryRunLog log_;
  double w_ = 0;
  int64_t iterations_ = 0, updates_ = 0;
  std::string stop_reason_;
};

TEST_F(CheckInvalidLossTest, FiniteLossesAreLeftAlone) {
  for (const char* action : {"RAISE", "STOP", "SKIP"}) {
    EXPECT_THAT(Train(absl::StrCat("interval: 1 action: ", action), {1, 1, 1}),
                IsOk());
    EXPECT_EQ(w_, -3) << action;
    EXPECT_THAT(stop_reason_, IsEmpty());
  }
}

TEST_F(CheckInvalidLossTest, RaiseNamesTheLossAndSavesTheParameters) {
  EXPECT_THAT(
      Train("interval: 1", {1, 1, kNaN, 1}),
      StatusIs(absl::StatusCode::kOutOfRange,
               HasSubstr("hook \"check_invalid_loss\": BeforeOptimizerStep: "
                         "loss_a is nan at iteration 3")));
  EXPECT_EQ(w_, -2);
}

TEST_F(CheckInvalidLossTest, InfinityOfEitherSignIsInvalid) {
  // w is -1 by then.
  EXPECT_THAT(Train("interval: 1", {1, kInf}),
              StatusIs(absl::StatusCode::kOutOfRange,
                       HasSubstr("loss_a is -inf at iteration 2")));
  EXPECT_THAT(Train("interval: 1", {1, -kInf}),
              StatusIs(absl::StatusCode::kOutOfRange,
                       HasSubstr("loss_a is inf at iteration 2")));
}

TEST_F(CheckInvalidLossTest, LossIsLookedAtWhereTheIntervalFires) {
  EXPECT_THAT(
      Train("interval: 3", {1, kNaN, 1, 1}),
      StatusIs(absl::StatusCode::kOutOfRange,
               HasSubstr("loss_a is nan, loss_b is nan at iteration 3")))
      << "w is NaN by then";
  EXPECT_THAT(Train("interval: 4", {1, kNaN, 1}), IsOk());
}

TEST_F(CheckInvalidLossTest, StopEndsTrainingWithGoodParameters) {
  EXPECT_THAT(Train("interval: 1 action: STOP", {1, kNaN, 1, 1}), IsOk());
  EXPECT_EQ(stop_reason_, "loss_a is nan at iteration 2");
  EXPECT_EQ(iterations_, 2);
  EXPECT_EQ(w_, -1);
}

TEST_F(CheckInvalidLossTest, StopKeepsTheRestOfTheEpochFromSpoilingThem) {
  EXPECT_THAT(Train("interval: 2 action: STOP", {1, kNaN, kNaN, 1},
                    "train_cfg { by_epoch: true max_epochs: 3 }"),
              IsOk());
  EXPECT_EQ(iterations_, 4) << "the epoch is gone through";
  EXPECT_EQ(w_, -2);
}

TEST_F(CheckInvalidLossTest, SkipGoesOnWithoutTheStep) {
  EXPECT_THAT(Train("action: SKIP", {1, kNaN, 1, kInf, 1}), IsOk());
  EXPECT_EQ(iterations_, 5);
  EXPECT_EQ(updates_, 3);
  EXPECT_EQ(w_, -3);
  EXPECT_THAT(
      Warnings(),
      ElementsAre(
          "loss_a is nan at iteration 2: the optimizer's step is left out",
          "loss_a is -inf at iteration 4: the optimizer's step is left out"));
}

TEST_F(CheckInvalidLossTest, SkipLeavesOutTheWholeWindow) {
  EXPECT_THAT(Train("action: SKIP", {1, 1, kNaN, 1, 1, 1},
                    "optim_wrapper { accumulative_counts: 2 }"),
              IsOk());
  EXPECT_EQ(updates_, 2);
  EXPECT_EQ(w_, -2);
}

TEST_F(CheckInvalidLossTest, WindowIsStillInvalidAfterAResume) {
  const std::vector<double> numbers = {1, 1, kNaN, 1, 1, 1};
  // Ends inside the second window, with a checkpoint.
  const std::string checkpoints =
      "optim_wrapper { accumulative_counts: 2 } "
      "default_hooks { checkpoint { by_epoch: false interval: 3 } } ";
  EXPECT_THAT(Train("action: SKIP", numbers, checkpoints), IsOk());
  ASSERT_TRUE(env_.FileExists("/run/iter_3"));
  EXPECT_THAT(Train("action: SKIP", numbers,
                    checkpoints + "load_from: '/run/iter_3' resume: true"),
              IsOk());
  EXPECT_EQ(iterations_, 6);
  EXPECT_EQ(w_, -2);
}

TEST_F(CheckInvalidLossTest, TooManySkipsInARowFail) {
  EXPECT_THAT(
      Train("action: SKIP max_skips: 2", {kNaN, kNaN, 1, kNaN, kNaN, 1}),
      IsOk());
  EXPECT_EQ(w_, -2);
  EXPECT_THAT(Train("action: SKIP max_skips: 2", {kNaN, kNaN, kNaN, 1}),
              StatusIs(absl::StatusCode::kOutOfRange,
                       HasSubstr("max_skips: 2 steps in a row")));
}

TEST_F(CheckInvalidLossTest, LossThatComesAfterTheStepIsFoundAndNotSkipped) {
  EXPECT_THAT(
      Train("interval: 1", {1, kNaN}, "", std::make_unique<LateModel>()),
      StatusIs(absl::StatusCode::kOutOfRange,
               HasSubstr("AfterTrainIter: loss is nan at iteration 2")));
  EXPECT_THAT(
      Train("action: SKIP", {1, kNaN}, "", std::make_unique<LateModel>()),
      StatusIs(absl::StatusCode::kFailedPrecondition,
               HasSubstr("action: the step can't be left out")));
}

}  // namespace
}  // namespace grapnel
