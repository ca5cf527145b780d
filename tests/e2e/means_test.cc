// Losses and metrics that not every sample counts for, in whole runs: numbers
// don't depend on batches, and what is no number is said and never the best.

#include <cmath>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "grapnel/base/fake_clock.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/data/tensor_dataset.h"
#include "grapnel/io/mem_env.h"
#include "grapnel/loggers/memory_run_log.h"
#include "grapnel/loggers/run_log.h"
#include "grapnel/models/metric.h"
#include "grapnel/runner/parse_config_for_test.h"
#include "grapnel/runner/run_context.h"
#include "grapnel/runner/runner.h"
#include "grapnel/runner/runner_config.pb.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

constexpr int64_t kIgnored = -100;

class MeansTest : public ::testing::Test {
 protected:
  // 20 samples of 3 classes; the first four and every fifth of the others don't
  // count.
  MeansTest()
      : inputs_(ops::linspace(-1, 2, 40).mul(9).sin().reshape({20, 2})),
        labels_(ops::arange(20, at::kLong).mul(7).remainder(3)) {
    labels_.slice(0, 0, 4).fill_(kIgnored);
    labels_.slice(0, 4, 20, 5).fill_(kIgnored);
  }

  std::unique_ptr<Runner> Create(const std::string& config) {
    runner::v1::RunnerConfig parsed = ParseConfig(R"pb(
      work_dir: "/run"
      randomness { seed: 1 }
      train_dataloader { batch_size: 4 }
      train_cfg { max_epochs: 2 }
      model { sequential { layers { linear { out_features: 3 } } } }
    )pb");
    parsed.MergeFrom(ParseConfig(config));
    // Each has a folder of its own: some are there at the same time.
    if (num_runs_++ > 0) parsed.set_work_dir(absl::StrCat("/run", num_runs_));
    RunnerOptions options;
    options.env = &env_;
    options.clock = &clock_;
    options.log = &log_;
    options.train_dataset = NewDataset();
    if (parsed.has_val_dataloader()) options.val_dataset = NewDataset();
    auto runner = Runner::Create(parsed, std::move(options));
    EXPECT_THAT(runner, IsOk());
    return *std::move(runner);
  }

  std::unique_ptr<TensorDataset> NewDataset() const {
    auto dataset = TensorDataset::Create(inputs_, labels_);
    EXPECT_THAT(dataset, IsOk());
    return *std::move(dataset);
  }

  std::vector<std::string> Warnings() const {
    return log_.messages(RunLog::Level::kWarning);
  }

  static at::Tensor Weights(Runner& runner) {
    std::vector<at::Tensor> flat;
    for (const NamedTensor& param : runner.context().model().parameters()) {
      flat.push_back(param.tensor.detach().reshape({-1}));
    }
    return ops::cat(flat);
  }

  at::Tensor inputs_, labels_;
  int num_runs_ = 0;
  io::MemEnv env_;
  FakeClock clock_;
  MemoryRunLog log_;
};

const char kWeighed[] = R"pb(
  model {
    sequential { loss { cross_entropy { class_weight: [ 0.3, 1, 2.5 ] } } }
  }
)pb";

TEST_F(MeansTest, ValidationDoesntDependOnTheBatchSize) {
  std::vector<double> losses, accuracies;
  for (const int batch_size : {20, 1, 3, 4, 7}) {
    const auto runner = Create(absl::StrCat(
        kWeighed, "optim_wrapper { optimizer { sgd { lr: 0.1 } } } ",
        "val_evaluator { accuracy {} } val_dataloader { batch_size: ",
        batch_size, " }"));
    const auto metrics = runner->Val();
    ASSERT_THAT(metrics, IsOk());
    losses.push_back(std::get<double>(*FindMetric(*metrics, "val_loss")));
    accuracies.push_back(
        std::get<double>(*FindMetric(*metrics, "accuracy/top1")));
  }
  for (size_t i = 0; i < losses.size(); ++i) {
    EXPECT_NEAR(losses[i], losses[0], 1e-6);
    EXPECT_EQ(accuracies[i], accuracies[0]);
  }
  // Of the 12 that count, whole ones are right.
  EXPECT_EQ(std::remainder(accuracies[0] * 12, 100), 0);
  EXPECT_THAT(Warnings(), IsEmpty());
}

TEST_F(MeansTest, ValidationOfNothingSaysSo) {
  labels_.fill_(kIgnored);
  const auto runner =
      Create(absl::StrCat(kWeighed, "optim_wrapper { optimizer { sgd {} } } ",
                          "val_evaluator { accuracy {} } "
                          "val_dataloader { batch_size: 7 }"));
  const auto metrics = runner->Val();
  ASSERT_THAT(metrics, IsOk());
  for (const char* name : {"accuracy/top1", "loss", "val_loss"}) {
    EXPECT_TRUE(std::isnan(std::get<double>(*FindMetric(*metrics, name))))
        << name;
  }
  EXPECT_THAT(Warnings(),
              Contains("accuracy is nan: none of the targets counts"));
  EXPECT_THAT(Warnings(),
              Contains("loss \"loss\" is nan: none of its targets counts"));
}

TEST_F(MeansTest, WindowsBySamplesAreTheBigBatch) {
  const std::string sgd = "optimizer { sgd { lr: 0.5 momentum: 0.9 } } ";
  const auto big = Create(absl::StrCat(
      kWeighed, "train_dataloader { batch_size: 20 } optim_wrapper { ", sgd,
      "}"));
  ASSERT_THAT(big->Train(), IsOk());
  for (const auto& [batch_size, count] :
       std::vector<std::pair<int, int>>{{4, 5}, {1, 20}, {3, 7}}) {
    const auto small = Create(
        absl::StrCat(kWeighed, "train_dataloader { batch_size: ", batch_size,
                     " } optim_wrapper { ", sgd, "accumulate_by: SAMPLES ",
                     "accumulative_counts: ", count, " }"));
    ASSERT_THAT(small->Train(), IsOk());
    EXPECT_EQ(small->context().updates(), big->context().updates());
    EXPECT_LT(Weights(*small).sub(Weights(*big)).abs().max().item<double>(),
              2e-6);
  }
}

TEST_F(MeansTest, BatchOfNothingIsNoStepBySamples) {
  const std::string optim =
      absl::StrCat(kWeighed,
                   "optim_wrapper { optimizer { sgd { lr: 0.5 momentum: 0.9 "
                   "} } accumulate_by: ");
  const auto by_samples = Create(optim + "SAMPLES }");
  ASSERT_THAT(by_samples->Train(), IsOk());
  EXPECT_EQ(by_samples->context().updates(), 8);  // Four of five, twice.
  const auto by_iterations = Create(optim + "ITERATIONS }");
  ASSERT_THAT(by_iterations->Train(), IsOk());
  EXPECT_EQ(by_iterations->context().updates(), 10);
  for (Runner* runner : {by_samples.get(), by_iterations.get()}) {
    EXPECT_TRUE(Weights(*runner).isfinite().all().item<bool>());
  }
}

TEST_F(MeansTest, ModelOfNaNIsNeverTheBest) {
  inputs_[5][0].fill_(NAN);  // All weights are, from its batch on.
  const auto runner = Create(R"pb(
    model { sequential { loss { cross_entropy {} } } }
    optim_wrapper { optimizer { sgd { lr: 0.1 } } }
    val_evaluator { accuracy {} }
    val_dataloader { batch_size: 7 }
    train_cfg { max_epochs: 2 }
    default_hooks {
      checkpoint { interval: 1 save_best: "accuracy/top1" rule: "greater" }
    }
  )pb");
  ASSERT_THAT(runner->Train(), IsOk());
  ASSERT_FALSE(Weights(*runner).isfinite().all().item<bool>());
  EXPECT_THAT(Warnings(), Contains("accuracy: the outputs of 12 of 12 samples "
                                   "are not finite"));
  const auto names = env_.ListDir("/run");
  ASSERT_THAT(names, IsOk());
  EXPECT_THAT(*names, Contains("epoch_2"));
  EXPECT_THAT(*names, Not(Contains(HasSubstr("best"))));
}

}  // namespace
}  // namespace grapnel
