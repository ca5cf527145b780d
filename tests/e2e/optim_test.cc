// What a run makes of its optim_wrapper: several optimizers, fewer bits, scaled
// losses, windows of samples.

#include <cmath>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ATen/core/Tensor.h"
#include "ATen/ops/softplus_ops.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "grapnel/base/fake_clock.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/data/sample.h"
#include "grapnel/data/tensor_dataset.h"
#include "grapnel/io/mem_env.h"
#include "grapnel/loggers/memory_run_log.h"
#include "grapnel/models/log_vars.h"
#include "grapnel/models/model.h"
#include "grapnel/optim/optim_wrapper.h"
#include "grapnel/runner/hook.h"
#include "grapnel/runner/message_hub.h"
#include "grapnel/runner/parse_config_for_test.h"
#include "grapnel/runner/run_context.h"
#include "grapnel/runner/runner.h"
#include "grapnel/runner/runner_config.pb.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::DoubleNear;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

at::Tensor Softplus(const at::Tensor& input) {
  return at::_ops::softplus::call(input, /*beta=*/1, /*threshold=*/20);
}

// A generator of points and a critic that tells them from the data's, each
// linear, with an optimizer each. The critic learns twice an iteration.
class TinyGan : public Model {
 public:
  TinyGan() {
    parameters_ = {{"generator.weight", ops::ones({2, 2}).requires_grad_()},
                   {"critic.weight", ops::ones({2}).mul(0.1).requires_grad_()}};
  }

  absl::Status TrainStep(const Batch& batch, OptimWrapper& optim,
                         LogVars* log_vars) override {
    GRAPNEL_ASSIGN_OR_RETURN(OptimWrapper * generator, optim.Get("generator"));
    GRAPNEL_ASSIGN_OR_RETURN(OptimWrapper * critic, optim.Get("critic"));
    const at::Tensor& critic_weight = parameters_[1].tensor;
    optim.BeginStep();
    at::Tensor fake;
    for (int i = 0; i < 2; ++i) {
      fake = ops::randn({batch.size(), 2}).matmul(parameters_[0].tensor);
      const at::Tensor real_scores = batch.inputs.matmul(critic_weight);
      const at::Tensor fake_scores = fake.detach().matmul(critic_weight);
      const at::Tensor loss =
          Softplus(ops::cat({real_scores.neg(), fake_scores})).mean();
      GRAPNEL_RETURN_IF_ERROR(critic->Update(loss, batch.size()));
      if (i == 1) log_vars->Add("critic_loss", loss.detach());
    }
    const at::Tensor loss =
        Softplus(fake.matmul(critic_weight.detach()).neg()).mean();
    log_vars->Add("generator_loss", loss.detach());
    return generator->Update(loss, batch.size());
  }

  absl::Status ComputeLosses(const Batch&, LogVars*) override {
    return absl::UnimplementedError("it has a TrainStep of its own");
  }
  absl::Status ValStep(const Batch&, Predictions*) override {
    return absl::UnimplementedError("it isn't validated");
  }
  const std::vector<NamedTensor>& parameters() const override {
    return parameters_;
  }
  const std::vector<NamedTensor>& buffers() const override { return buffers_; }
  void SetTraining(bool training) override { training_ = training; }
  bool training() const override { return training_; }

 private:
  std::vector<NamedTensor> parameters_, buffers_;
  bool training_ = true;
};

// Calls what the test gives it, after each training iteration.
class EachIter : public Hook {
 public:
  explicit EachIter(std::function<void(RunContext&)> call)
      : call_(std::move(call)) {}
  absl::string_view name() const override { return "each_iter"; }
  Priority priority() const override { return Priority::kLowest; }
  absl::Status AfterTrainIter(RunContext& run, const IterInfo&,
                              const LogVars&) override {
    call_(run);
    return absl::OkStatus();
  }

 private:
  const std::function<void(RunContext&)> call_;
};

at::Tensor Weights(Runner& runner) {
  std::vector<at::Tensor> flat;
  for (const NamedTensor& param : runner.context().model().parameters()) {
    flat.push_back(param.tensor.detach().reshape({-1}));
  }
  return ops::cat(flat);
}

class OptimRunTest : public ::testing::Test {
 protected:
  // 10 samples of 2 numbers, in batches of 4, 4 and 2.
  absl::StatusOr<std::unique_ptr<Runner>> Create(
      const std::string& config, std::unique_ptr<Model> model = nullptr) {
    // The first one is in /run. Each has its own folder.
    runner::v1::RunnerConfig parsed = ParseConfig(
        "randomness { seed: 1 } train_dataloader { batch_size: 4 }");
    parsed.set_work_dir(runs_ == 0 ? "/run" : absl::StrCat("/run_", runs_));
    ++runs_;
    parsed.MergeFrom(ParseConfig(config));
    RunnerOptions options;
    options.env = &env_;
    options.clock = &clock_;
    options.log = &log_;
    options.model = std::move(model);
    for (auto* dataset : {&options.train_dataset, &options.val_dataset}) {
      if (dataset == &options.val_dataset && !parsed.has_val_dataloader()) {
        continue;
      }
      const at::Tensor inputs = ops::linspace(-1, 2, 20).reshape({10, 2});
      auto tensors = TensorDataset::Create(inputs, inputs.sum(1, true));
      EXPECT_THAT(tensors, IsOk());
      *dataset = *std::move(tensors);
    }
    if (after_iter_) {
      options.hooks.push_back(
          Schedule(std::make_unique<EachIter>(after_iter_)));
    }
    return Runner::Create(parsed, std::move(options));
  }

  // Trained to the end.
  std::unique_ptr<Runner> Train(const std::string& config,
                                std::unique_ptr<Model> model = nullptr) {
    auto runner = Create(config, std::move(model));
    EXPECT_THAT(runner, IsOk());
    EXPECT_THAT((*runner)->Train(), IsOk());
    return *std::move(runner);
  }

  static double Last(RunContext& run, const std::string& scalar) {
    const HistoryBuffer* history = run.message_hub().FindScalar(scalar);
    return history == nullptr ? NAN : history->Current().value_or(NAN);
  }

  int runs_ = 0;
  io::MemEnv env_;
  FakeClock clock_;
  MemoryRunLog log_;
  std::function<void(RunContext&)> after_iter_;
};

const char kGan[] = R"pb(
  train_cfg { max_epochs: 3 }
  optim_wrapper {
    optimizers {
      name: "generator"
      pattern: "^generator"
      optimizer { adam { lr: 0.01 } }
      accumulative_counts: 2
    }
    optimizers {
      name: "critic"
      pattern: "^critic"
      optimizer { sgd { lr: 0.1 momentum: 0.5 } }
      clip_grad { max_norm: 0.2 }
      param_scheduler { linear { start_factor: 0.5 by_epoch: false end: 3 } }
    }
  }
  param_scheduler { cosine_annealing { by_epoch: false } }
)pb";

TEST_F(OptimRunTest, TwoOptimizersTrainAndAreLoggedByName) {
  std::vector<double> generator_lr, critic_lr;
  after_iter_ = [&](RunContext& run) {
    generator_lr.push_back(Last(run, "train/generator.lr"));
    critic_lr.push_back(Last(run, "train/critic.lr"));
  };
  const auto runner = Train(kGan, std::make_unique<TinyGan>());
  RunContext& run = runner->context();
  // The common schedule moves both, the critic's own it alone.
  ASSERT_EQ(generator_lr.size(), 9u);
  EXPECT_EQ(generator_lr[0], 0.01);
  EXPECT_EQ(critic_lr[0], 0.05);
  EXPECT_NEAR(generator_lr[8], 0.01 * 0.5 * (1 + std::cos(M_PI * 8 / 9)), 1e-9);
  EXPECT_NEAR(critic_lr[8], 0.1 * 0.5 * (1 + std::cos(M_PI * 8 / 9)), 1e-9);
  EXPECT_EQ(run.param_schedulers().size(), 3u);

  EXPECT_GT(Last(run, "train/critic.grad_norm"), 0);
  EXPECT_EQ(run.message_hub().FindScalar("train/generator.grad_norm"), nullptr);
  EXPECT_EQ(run.message_hub().FindScalar("train/grad_norm"), nullptr);
  EXPECT_EQ(run.message_hub().FindScalar("train/lr"), nullptr);
  EXPECT_GT(Last(run, "train/generator_loss"), 0);
  // 18 of the critic, and 5 of the generator: 9 iterations in windows of 2.
  EXPECT_EQ(run.updates(), 23);
}

TEST_F(OptimRunTest, TwoOptimizersResumeExactly) {
  const std::string save =
      "default_hooks { checkpoint { by_epoch: false interval: 1 } } ";
  const auto whole =
      Train(absl::StrCat(kGan, save), std::make_unique<TinyGan>());
  for (int cut = 1; cut < 9; ++cut) {
    SCOPED_TRACE(cut);
    const auto resumed = Train(
        absl::StrCat(kGan, " resume: true load_from: '/run/iter_", cut, "'"),
        std::make_unique<TinyGan>());
    EXPECT_TRUE(Weights(*resumed).equal(Weights(*whole)));
    EXPECT_EQ(resumed->context().updates(), 23);
  }
}

const char kRegression[] = R"pb(
  model {
    sequential {
      layers { linear { out_features: 1 } }
      loss { mse {} }
    }
  }
  train_cfg { max_epochs: 3 }
)pb";

TEST_F(OptimRunTest, AModelOfOneOptimizerSaysWhatSeveralNeed) {
  auto runner = Create(absl::StrCat(kRegression, R"pb(
    optim_wrapper {
      optimizers {
        name: "all"
        pattern: "."
        optimizer { sgd {} }
      }
    })pb"));
  ASSERT_THAT(runner, IsOk());
  EXPECT_THAT((*runner)->Train(),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("there are several optimizers (all): the "
                                 "model must override TrainStep")));
}

TEST_F(OptimRunTest, RatesOfARuleAreScheduledFromTheirOwnValueAndResumed) {
  std::vector<std::vector<double>> rates;  // Of weight, bias and the base.
  after_iter_ = [&](RunContext& run) {
    ParamGroups& groups = run.optim_wrapper()->scheduled_groups();
    ASSERT_EQ(groups.num_groups(), 3);
    rates.emplace_back();
    for (int i = 0; i < 3; ++i) rates.back().push_back(*groups.option(i, "lr"));
    EXPECT_EQ(run.message_hub().FindScalar("train/base_lr") != nullptr, true);
  };
  const auto config = [](const std::string& bias_lr, const std::string& more) {
    return absl::StrCat(
        "model { sequential { layers { linear { out_features: 1 } } "
        "loss { mse {} } } } optim_wrapper { optimizer { sgd { lr: 0.1 } } "
        "paramwise_cfg { rules { pattern: 'bias' lr: ",
        bias_lr,
        " } } } param_scheduler { linear { start_factor: 0.5 by_epoch: false "
        "end: 4 } } ",
        more);
  };
  const auto scheduled = [](double factor, double bias_lr) {
    return ElementsAre(DoubleNear(0.1 * factor, 1e-12),
                       DoubleNear(bias_lr * factor, 1e-12),
                       DoubleNear(0.1 * factor, 1e-12));
  };
  Train(config("0.4", "train_cfg { max_epochs: 1 }"));
  EXPECT_THAT(rates, ElementsAre(scheduled(2.0 / 3, 0.4),
                                 scheduled(2.5 / 3, 0.4), scheduled(1, 0.4)));
  EXPECT_THAT(log_.messages(RunLog::Level::kWarning), IsEmpty());

  rates.clear();
  Train(config("0.8",
               "train_cfg { max_epochs: 2 } load_from: '/run/epoch_1' "
               "resume: true"));
  EXPECT_THAT(rates, ElementsAre(scheduled(1, 0.8), scheduled(1, 0.8),
                                 scheduled(1, 0.8)));
  EXPECT_THAT(log_.messages(RunLog::Level::kWarning),
              Contains(HasSubstr("lr of group 1 (\"0.bias\"): 0.4 -> 0.8")));
}

TEST_F(OptimRunTest, ASchedulersErrorSaysWhoseItIs) {
  std::string bad = kGan;
  bad.replace(bad.find("end: 3"), 6, "end: 0");
  EXPECT_THAT(
      Create(bad, std::make_unique<TinyGan>()),
      StatusIs(absl::StatusCode::kInvalidArgument,
               HasSubstr("optim_wrapper: optimizers[1]: param_scheduler[0]: "
                         "end: must be > begin")));
}

// Data in batches of 4, 4 and 2 as one window is data in one batch of 10.
TEST_F(OptimRunTest, WindowsOfSamplesAreTheBigBatch) {
  const std::string optimizer = "optimizer { sgd { lr: 0.1 } } ";
  const auto small =
      Train(absl::StrCat(kRegression, "optim_wrapper { ", optimizer,
                         "accumulative_counts: 3 accumulate_by: SAMPLES }"));
  const auto big = Train(absl::StrCat(
      kRegression, "train_dataloader { batch_size: 10 } optim_wrapper { ",
      optimizer, "}"));
  EXPECT_EQ(small->context().updates(), big->context().updates());
  EXPECT_TRUE(Weights(*small).allclose(Weights(*big), 1e-6, 1e-7));
  const auto unweighted = Train(absl::StrCat(
      kRegression, "optim_wrapper { ", optimizer, "accumulative_counts: 3 }"));
  EXPECT_FALSE(Weights(*unweighted).allclose(Weights(*big), 1e-4, 1e-5));
}

TEST_F(OptimRunTest, Bfloat16IsTrainedAndResumedExactly) {
  const std::string config = absl::StrCat(kRegression, R"pb(
    optim_wrapper {
      optimizer { adamw { lr: 0.1 } }
      accumulative_counts: 2
      accumulate_by: SAMPLES
      amp { dtype: BFLOAT16 }
    })pb");
  const std::string save =
      "default_hooks { checkpoint { by_epoch: false interval: 1 } } ";
  const auto whole = Train(config + save);
  for (int cut = 1; cut < 9; ++cut) {
    SCOPED_TRACE(cut);
    const auto resumed = Train(
        absl::StrCat(config, " resume: true load_from: '/run/iter_", cut, "'"));
    EXPECT_TRUE(Weights(*resumed).equal(Weights(*whole)));
  }
  std::string exact = config;
  exact.replace(exact.find("amp { dtype: BFLOAT16 }"), 23, "");
  const at::Tensor expected = Weights(*Train(exact));
  EXPECT_FALSE(Weights(*whole).equal(expected));
  EXPECT_TRUE(Weights(*whole).allclose(expected, 0.05, 0.01));
}

// A model that notes what it computes in.
class Watched : public Model {
 public:
  explicit Watched(std::vector<at::ScalarType>* seen) : seen_(seen) {
    parameters_ = {{"weight", ops::zeros({2, 1}).requires_grad_()}};
  }
  absl::Status ComputeLosses(const Batch& batch, LogVars* losses) override {
    losses->Add("loss", Outputs(batch).sub(batch.targets).square().mean());
    return absl::OkStatus();
  }
  absl::Status ValStep(const Batch& batch, Predictions* predictions) override {
    predictions->outputs = Outputs(batch);
    return absl::OkStatus();
  }
  const std::vector<NamedTensor>& parameters() const override {
    return parameters_;
  }
  const std::vector<NamedTensor>& buffers() const override { return buffers_; }
  void SetTraining(bool training) override { training_ = training; }
  bool training() const override { return training_; }

 private:
  at::Tensor Outputs(const Batch& batch) {
    const at::Tensor outputs = batch.inputs.matmul(parameters_[0].tensor);
    seen_->push_back(outputs.scalar_type());
    return outputs;
  }

  std::vector<at::ScalarType>* const seen_;
  std::vector<NamedTensor> parameters_;
  std::vector<NamedTensor> buffers_ = {{"bn.running_mean", ops::zeros({1})}};
  bool training_ = true;
};

TEST_F(OptimRunTest, TrainingAndValidationAreInTheConfiguredBits) {
  const std::string validated =
      "train_cfg { max_epochs: 1 } val_dataloader { batch_size: 10 } "
      "val_evaluator { mse {} } optim_wrapper { optimizer { sgd {} } ";
  std::vector<at::ScalarType> seen;
  Train(absl::StrCat(validated, "amp { dtype: BFLOAT16 } }"),
        std::make_unique<Watched>(&seen));
  EXPECT_EQ(seen, std::vector<at::ScalarType>(4, at::kBFloat16));
  seen.clear();
  Train(absl::StrCat(validated, "}"), std::make_unique<Watched>(&seen));
  EXPECT_EQ(seen, std::vector<at::ScalarType>(4, at::kFloat));

  auto evaluated = Create(absl::StrCat(validated, "amp { } }"),
                          std::make_unique<Watched>(&seen));
  EXPECT_THAT(evaluated, StatusIs(absl::StatusCode::kInvalidArgument,
                                  HasSubstr("optim_wrapper: amp: dtype: must "
                                            "be set")));
}

TEST_F(OptimRunTest, SkippedStepsAreNoUpdatesAndTheScaleIsLogged) {
  std::vector<double> scales;
  std::vector<int64_t> updates;
  after_iter_ = [&](RunContext& run) {
    scales.push_back(Last(run, "train/loss_scale"));
    updates.push_back(run.updates());
  };
  std::vector<at::ScalarType> seen;
  const auto runner = Train(
      R"pb(
        train_cfg { max_epochs: 1 }
        optim_wrapper {
          optimizer { sgd {} }
          amp {
            dtype: FLOAT16
            loss_scale { init_scale: 1e37 backoff_factor: 1e-18 }
          }
        })pb",
      std::make_unique<Watched>(&seen));
  EXPECT_EQ(scales.size(), 3u);
  EXPECT_NEAR(scales[0], 1e37, 1e31);
  EXPECT_NEAR(scales[1], 1e19, 1e13);
  EXPECT_NEAR(scales[2], 10, 1e-5);
  EXPECT_THAT(updates, ElementsAre(0, 0, 1));
}

TEST_F(OptimRunTest, AScaleThatFallsBelowOneIsWarnedOf) {
  std::vector<at::ScalarType> seen;
  Train(
      R"pb(
        train_cfg { max_epochs: 2 }
        optim_wrapper {
          optimizer { sgd {} }
          amp {
            dtype: FLOAT16
            loss_scale { init_scale: 1e37 backoff_factor: 1e-30 }
          }
        })pb",
      std::make_unique<Watched>(&seen));
  EXPECT_THAT(
      log_.messages(RunLog::Level::kWarning),
      ElementsAre(AllOf(
          HasSubstr("optim_wrapper: amp: the loss scale fell to 1"),
          HasSubstr("the gradients are infinite or NaN whatever it is"))));
}

TEST_F(OptimRunTest, WarnsOfBatchNormUnderAccumulation) {
  std::vector<at::ScalarType> seen;
  const auto runner = Create(
      "train_cfg { max_epochs: 1 } optim_wrapper { optimizer { sgd {} } "
      "accumulative_counts: 2 }",
      std::make_unique<Watched>(&seen));
  ASSERT_THAT(runner, IsOk());
  EXPECT_THAT(log_.messages(RunLog::Level::kWarning),
              Contains(HasSubstr("accumulative_counts is 2, and the model has "
                                 "batch norm")));
}

}  // namespace
}  // namespace grapnel
