// Predictors: they say what the run's validation would, see no half-made
// weights, and the run and the process are as if they were not there.

#include "grapnel/runner/predictor.h"

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "c10/core/GradMode.h"
#include "gmock/gmock.h"
#include "grapnel/base/fake_clock.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/data/dataset.h"
#include "grapnel/data/sample.h"
#include "grapnel/data/tensor_dataset.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/checkpoint_manifest.pb.h"
#include "grapnel/io/env.h"
#include "grapnel/io/mem_env.h"
#include "grapnel/io/pth_writer.h"
#include "grapnel/io/safetensors.h"
#include "grapnel/loggers/memory_run_log.h"
#include "grapnel/models/log_vars.h"
#include "grapnel/models/model.h"
#include "grapnel/runner/default_generator.h"
#include "grapnel/runner/hook.h"
#include "grapnel/runner/hook_registry.h"
#include "grapnel/runner/parse_config_for_test.h"
#include "grapnel/runner/run_context.h"
#include "grapnel/runner/runner.h"
#include "grapnel/runner/runner_config.pb.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr absl::StatusCode kFailedPrecondition =
    absl::StatusCode::kFailedPrecondition;
constexpr absl::StatusCode kInvalidArgument =
    absl::StatusCode::kInvalidArgument;

// 12 samples, 3 iterations an epoch; layers that train as they don't evaluate.
constexpr char kConfig[] = R"pb(
  work_dir: "/run"
  randomness { seed: 3 }
  train_dataloader {
    batch_size: 4
    sampler { shuffle: true }
  }
  val_dataloader { batch_size: 5 }
  train_cfg { max_epochs: 4 val_interval: 2 }
  optim_wrapper { optimizer { adamw { lr: 0.05 } } }
  val_evaluator { mse {} }
  default_hooks { checkpoint { interval: 1 } }
)pb";
constexpr char kNet[] = R"pb(
  model {
    sequential {
      layers { linear { out_features: 8 } }
      layers { batch_norm1d {} }
      layers { relu {} }
      layers { dropout { p: 0.5 } }
      layers { linear { out_features: 1 } }
      loss { mse {} }
    }
  }
)pb";
constexpr char kEma[] = R"pb(
  custom_hooks {
    config {
      [type.googleapis.com/grapnel.hooks.v1.EMAHookConfig] { momentum: 0.3 }
    }
  }
)pb";
// Of another type, with buffers, and beside one that isn't evaluated.
constexpr char kTwoEmas[] = R"pb(
  custom_hooks {
    config {
      [type.googleapis.com/grapnel.hooks.v1.EMAHookConfig] { momentum: 0.3 }
    }
  }
  custom_hooks {
    config {
      [type.googleapis.com/grapnel.hooks.v1.EMAHookConfig] {
        name: "slow"
        momentum: 0.1
        update_buffers: true
        dtype: "float64"
        evaluate: true
      }
    }
  }
)pb";
constexpr char kLateEma[] = R"pb(
  custom_hooks {
    config {
      [type.googleapis.com/grapnel.hooks.v1.EMAHookConfig] {
        begin_epoch: 4
        dtype: "bfloat16"
      }
    }
  }
)pb";
constexpr char kAmp[] = R"pb(
  optim_wrapper { amp { dtype: BFLOAT16 } }
)pb";
// Until somebody stops it, without a word.
constexpr char kForEver[] = R"pb(
  train_cfg { by_epoch: false max_iters: 1000000000 val_interval: 1000000000 }
  default_hooks {
    logger { interval: 1000000 }
    checkpoint { by_epoch: false interval: -1 }
  }
)pb";

runner::v1::RunnerConfig Config(const std::vector<std::string>& texts,
                                bool for_ever = false) {
  runner::v1::RunnerConfig config = ParseConfig(kConfig);
  for (const std::string& text : texts) config.MergeFrom(ParseConfig(text));
  if (for_ever) {
    config.clear_train_cfg();
    config.MergeFrom(ParseConfig(kForEver));
  }
  return config;
}

at::Tensor Inputs() { return ops::arange(24, at::kFloat).view({12, 2}).sin(); }

// What a validation gives, batch by batch, and whatever else is to be done.
class Witness : public Hook {
 public:
  struct Seen {
    at::Tensor inputs, outputs;
  };
  absl::string_view name() const override { return "witness"; }
  Priority priority() const override { return Priority::kLowest; }
  absl::Status AfterTrainIter(RunContext& run, const IterInfo&,
                              const LogVars&) override {
    return after_train_iter ? after_train_iter(run) : absl::OkStatus();
  }
  absl::Status AfterValIter(RunContext& run, const IterInfo& info,
                            const Predictions& predictions) override {
    seen.push_back({info.batch->inputs, predictions.outputs.clone()});
    return after_val_iter ? after_val_iter(run) : absl::OkStatus();
  }
  std::vector<Seen> seen;
  std::function<absl::Status(RunContext&)> after_train_iter, after_val_iter;
};

class PredictorTest : public ::testing::Test {
 protected:
  std::unique_ptr<Runner> New(const runner::v1::RunnerConfig& config,
                              std::unique_ptr<Model> model = nullptr,
                              io::MemEnv* env = nullptr) {
    RunnerOptions options;
    options.env = env != nullptr ? env : &env_;
    options.clock = &clock_;
    options.log = &log_;
    options.model = std::move(model);
    const at::Tensor inputs = Inputs();
    for (auto* dataset : {&options.train_dataset, &options.val_dataset}) {
      auto data = TensorDataset::Create(inputs, inputs.sum(1, true));
      EXPECT_THAT(data, IsOk());
      *dataset = *std::move(data);
    }
    auto witness = std::make_unique<Witness>();
    witness_ = witness.get();
    options.hooks.push_back(Schedule(std::move(witness)));
    auto runner = Runner::Create(config, std::move(options));
    EXPECT_THAT(runner, IsOk());
    return *std::move(runner);
  }

  static std::unique_ptr<Predictor> Make(
      Runner& runner, PredictorWeights weights = PredictorWeights::kEvaluated) {
    PredictorOptions options;
    options.weights = weights;
    auto predictor = runner.MakePredictor(options);
    EXPECT_THAT(predictor, IsOk());
    return *std::move(predictor);
  }

  std::unique_ptr<Predictor> Open(
      const std::string& path,
      PredictorWeights weights = PredictorWeights::kEvaluated) {
    PredictorOptions options;
    options.weights = weights;
    options.env = &env_;
    auto predictor = Predictor::Open(path, std::move(options));
    EXPECT_THAT(predictor, IsOk());
    return *std::move(predictor);
  }

  static void Step(Runner& runner, int steps) {
    for (int i = 0; i < steps; ++i) ASSERT_THAT(runner.Step(), IsOk());
  }

  static at::Tensor Outputs(Predictor& predictor,
                            const at::Tensor& inputs = Inputs()) {
    auto outputs = predictor.Predict(inputs);
    EXPECT_THAT(outputs, IsOk());
    return outputs.ok() ? *outputs : at::Tensor();
  }

  // That it says what a validation now does.
  void ExpectValidates(Runner& runner, Predictor& predictor,
                       bool averaged = false) {
    witness_->seen.clear();
    ASSERT_THAT(runner.Val(), IsOk());
    ASSERT_EQ(witness_->seen.size(), 3);
    for (const Witness::Seen& seen : witness_->seen) {
      WeightsInfo used;
      const auto outputs = predictor.Predict(seen.inputs, &used);
      ASSERT_THAT(outputs, IsOk());
      EXPECT_TRUE(ops::equal(*outputs, seen.outputs));
      EXPECT_EQ(used.iter, runner.context().iter());
      EXPECT_EQ(used.averaged, averaged);
    }
  }

  // The tensors of the newest checkpoint, as bytes.
  static std::string Saved(io::Env& env) {
    std::string bytes;
    const auto latest = io::ReadLatestCheckpoint(env, "/run", nullptr);
    EXPECT_THAT(latest, IsOk());
    if (!latest.ok()) return bytes;
    for (const auto& [name, tensors] : latest->contents.sections) {
      for (const NamedTensor& tensor : tensors) {
        absl::StrAppend(&bytes, name, "/", tensor.name, ":",
                        absl::string_view(static_cast<const char*>(
                                              tensor.tensor.const_data_ptr()),
                                          tensor.tensor.nbytes()));
      }
    }
    return bytes;
  }

  io::MemEnv env_;
  FakeClock clock_;
  MemoryRunLog log_;
  Witness* witness_ = nullptr;
};

// ---------------------------------------------------- what validations say

TEST_F(PredictorTest, SaysWhatAValidationSays) {
  for (const auto& [text, averaged] :
       {std::pair("", false), std::pair(kEma, true), std::pair(kTwoEmas, true),
        std::pair(kLateEma, true), std::pair(kAmp, false)}) {
    SCOPED_TRACE(text);
    io::MemEnv env;
    const auto runner = New(Config({kNet, text}), nullptr, &env);
    Step(*runner, 5);
    const auto predictor = Make(*runner);
    ExpectValidates(*runner, *predictor, averaged);
    const at::Tensor before = Outputs(*predictor);
    Step(*runner, 1);
    EXPECT_TRUE(ops::equal(Outputs(*predictor), before));
    ASSERT_THAT(predictor->Refresh(), IsOk());
    EXPECT_FALSE(ops::equal(Outputs(*predictor), before));
    ExpectValidates(*runner, *predictor, averaged);
  }
}

TEST_F(PredictorTest, TrainedWeightsAreThoseWithoutAnAverage) {
  const auto runner = New(Config({kNet, kEma}));
  Step(*runner, 5);
  const auto predictor = Make(*runner, PredictorWeights::kTrained);
  io::MemEnv env;
  const auto plain = New(Config({kNet}), nullptr, &env);
  Step(*plain, 5);
  ExpectValidates(*plain, *predictor);
}

TEST_F(PredictorTest, GivesLossesWhereThereAreTargets) {
  const auto runner = New(Config({kNet}));
  Step(*runner, 2);
  const auto predictor = Make(*runner);
  Batch batch;
  batch.inputs = Inputs();
  Predictions predictions;
  ASSERT_THAT(predictor->Predict(batch, &predictions), IsOk());
  EXPECT_TRUE(predictions.losses.empty());
  EXPECT_FALSE(predictions.outputs.requires_grad());
  batch.targets = batch.inputs.sum(1, true);
  predictions.losses.set_wants_weights(true);
  ASSERT_THAT(predictor->Predict(batch, &predictions), IsOk());
  ASSERT_EQ(predictions.losses.size(), 1);
  EXPECT_TRUE(
      ops::allclose(predictions.losses[0].tensor,
                    predictions.outputs.sub(batch.targets).square().mean()));
}

// ------------------------------------------------------- from a checkpoint

TEST_F(PredictorTest, ACheckpointAloneIsEnough) {
  auto runner = New(Config({kNet, kTwoEmas}));
  Step(*runner, 6);
  const auto evaluated = Make(*runner);
  const auto trained = Make(*runner, PredictorWeights::kTrained);
  runner.reset();
  for (const char* const path : {"/run", "/run/epoch_2"}) {
    SCOPED_TRACE(path);
    const auto opened = Open(path);
    EXPECT_TRUE(ops::equal(Outputs(*opened), Outputs(*evaluated)));
    EXPECT_EQ(opened->weights().iter, 6);
    EXPECT_TRUE(opened->weights().averaged);
    const auto averaged = Open(path, PredictorWeights::kAveraged);
    EXPECT_TRUE(ops::equal(Outputs(*averaged), Outputs(*evaluated)));
    const auto opened_trained = Open(path, PredictorWeights::kTrained);
    EXPECT_TRUE(ops::equal(Outputs(*opened_trained), Outputs(*trained)));
    EXPECT_FALSE(opened_trained->weights().averaged);
  }
  EXPECT_FALSE(ops::equal(Outputs(*evaluated), Outputs(*trained)));
}

TEST_F(PredictorTest, OneThatIsOpenedTakesWhatIsSavedSince) {
  auto runner = New(Config({kNet, kAmp}));
  Step(*runner, 3);
  const auto opened = Open("/run");
  EXPECT_EQ(opened->weights().iter, 3);
  Step(*runner, 4);
  ASSERT_THAT(opened->Refresh(), IsOk());
  EXPECT_EQ(opened->weights().iter, 6);
  // The runner is an iteration on.
  EXPECT_FALSE(ops::equal(Outputs(*opened), Outputs(*Make(*runner))));
  EXPECT_TRUE(ops::equal(Outputs(*opened), Outputs(*Open("/run/epoch_2"))));
  // It goes on with what it has.
  const at::Tensor before = Outputs(*opened);
  runner.reset();
  ASSERT_THAT(io::DeleteRecursively(env_, "/run"), IsOk());
  EXPECT_THAT(opened->Refresh(), StatusIs(absl::StatusCode::kNotFound,
                                          HasSubstr("/run: is no checkpoint")));
  EXPECT_TRUE(ops::equal(Outputs(*opened), before));
}

TEST_F(PredictorTest, WhatAPredictorDoesNotNeedNeedNotBeLinkedIn) {
  auto runner = New(Config({kNet}));
  Step(*runner, 3);
  const at::Tensor expected = Outputs(*Make(*runner));
  runner.reset();
  auto contents = io::ReadCheckpoint(env_, "/run/epoch_1");
  ASSERT_THAT(contents, IsOk());
  contents->manifest().mutable_config()->append(R"pb(
    custom_hooks {
      config {
        [type.googleapis.com/somebodys.v1.HookConfig] {
          a: 1
          b {
            c: "}"
            d: [ 1, 2 ]
          }
        }
      }
    }
    of_a_later_version: 3
  )pb");
  ASSERT_THAT(io::WriteCheckpoint(env_, "/other", "x", *contents), IsOk());
  EXPECT_TRUE(ops::equal(Outputs(*Open("/other/x")), expected));
}

TEST_F(PredictorTest, ACheckpointThatSaysTooLittleIsRefused) {
  auto runner = New(Config({kNet, kEma}));
  Step(*runner, 3);
  runner.reset();
  const auto contents = io::ReadCheckpoint(env_, "/run/epoch_1");
  ASSERT_THAT(contents, IsOk());
  PredictorOptions options;
  options.env = &env_;
  const auto open = [&](const std::function<void(io::CheckpointContents*)>& f) {
    io::CheckpointContents changed = *contents;
    f(&changed);
    EXPECT_THAT(io::WriteCheckpoint(env_, "/other", "x", changed), IsOk());
    return Predictor::Open("/other/x", options).status();
  };
  EXPECT_THAT(open([](auto* c) { c->manifest().clear_config(); }),
              StatusIs(kInvalidArgument,
                       AllOf(HasSubstr("/other/x: make_model: must be set"),
                             HasSubstr("no configuration"))));
  EXPECT_THAT(open([](auto* c) { c->manifest().set_config("model {"); }),
              StatusIs(absl::StatusCode::kDataLoss,
                       HasSubstr("/other/x: config: line 1")));
  EXPECT_THAT(open([](auto* c) { c->manifest().set_config("resume: true"); }),
              StatusIs(kInvalidArgument, HasSubstr("given in code")));
  EXPECT_THAT(
      open([](auto* c) { c->manifest().clear_input_shape(); }),
      StatusIs(kInvalidArgument, HasSubstr("input_shape: must be set")));
  options.input_shape = {2};
  EXPECT_THAT(open([](auto* c) { c->manifest().clear_input_shape(); }), IsOk());
  options.input_shape = {3};
  EXPECT_THAT(open([](auto*) {}),
              StatusIs(kInvalidArgument,
                       HasSubstr("/other/x: the weights don't fit the "
                                 "predictor's model: \"0.weight\" has the "
                                 "shape (8, 2), the model's is (8, 3)")));
  options.input_shape.clear();
  // Of older versions: the only one counts.
  EXPECT_THAT(open([](auto* c) { c->manifest().clear_evaluated_section(); }),
              IsOk());
  EXPECT_THAT(open([](auto* c) {
                c->manifest().clear_evaluated_section();
                c->sections.emplace_back("ema_b", c->sections[0].second);
              }),
              StatusIs(kInvalidArgument, HasSubstr("ema, ema_b")));
  options.weights = PredictorWeights::kAveraged;
  EXPECT_THAT(open([](auto* c) { c->manifest().set_evaluated_section(""); }),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("no average")));
  EXPECT_THAT(
      Predictor::Open("/nowhere", options).status(),
      StatusIs(absl::StatusCode::kNotFound, HasSubstr("/nowhere: is no")));
}

// ------------------------------------------------------- beside a training

// All of its weights are the number of iterations, whatever is done at once.
class EqualWeights : public Model {
 public:
  EqualWeights() {
    parameters_.push_back({"a", ops::zeros({1}).set_requires_grad(true)});
    parameters_.push_back({"b", ops::zeros({64, 65}).set_requires_grad(true)});
    parameters_.push_back({"c", ops::zeros({257}).set_requires_grad(true)});
    buffers_.push_back({"seen", ops::zeros({3})});
  }
  absl::Status ComputeLosses(const Batch&, LogVars* losses) override {
    // SGD with a rate of 1.
    at::Tensor sum = ops::zeros({});
    for (const NamedTensor& p : parameters_) sum = sum.add(p.tensor.sum());
    losses->Add("loss", sum.neg());
    buffers_[0].tensor.add_(1);
    return absl::OkStatus();
  }
  // (N, 4): least and greatest parameter, least and greatest of the buffer.
  absl::Status ValStep(const Batch& batch, Predictions* predictions) override {
    std::vector<at::Tensor> flat;
    for (const NamedTensor& p : parameters_) {
      flat.push_back(p.tensor.detach().reshape({-1}));
    }
    const at::Tensor all = ops::cat(flat);
    const at::Tensor& seen = buffers_[0].tensor;
    predictions->outputs =
        ops::stack({all.min(), all.max(), seen.min(), seen.max()})
            .expand({batch.inputs.size(0), 4});
    predictions->losses.Clear();
    return absl::OkStatus();
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

runner::v1::RunnerConfig EqualWeightsConfig(const std::string& text) {
  runner::v1::RunnerConfig config =
      Config({text, "optim_wrapper { optimizer { sgd { lr: 1 } } }"},
             /*for_ever=*/true);
  config.clear_val_dataloader();
  config.clear_val_evaluator();
  return config;
}

TEST_F(PredictorTest, WeightsAloneAreEnoughForAModelMadeInCode) {
  const EqualWeights model;
  TensorMap weights;
  for (const auto* const tensors : {&model.parameters(), &model.buffers()}) {
    for (const NamedTensor& tensor : *tensors) {
      ASSERT_THAT(weights.Add(tensor.name, ops::full(tensor.tensor.sizes(), 7)),
                  IsOk());
    }
  }
  ASSERT_THAT(env_.CreateDir("/hub"), IsOk());
  ASSERT_THAT(io::WriteSafetensors(env_, "/hub/model.safetensors", weights),
              IsOk());
  ASSERT_THAT(io::WritePthWeights(env_, "/w.pth", weights), IsOk());
  PredictorOptions options;
  options.env = &env_;
  options.make_model = [] { return std::make_unique<EqualWeights>(); };
  for (const char* const path : {"/hub", "/hub/model.safetensors", "/w.pth"}) {
    SCOPED_TRACE(path);
    const auto predictor = Predictor::Open(path, options);
    ASSERT_THAT(predictor, IsOk());
    EXPECT_TRUE(
        ops::equal(Outputs(**predictor).select(0, 0), ops::full({4}, 7)));
  }
  ASSERT_THAT(io::WriteFileAtomically(env_, "/w.pth", "what?"), IsOk());
  EXPECT_THAT(Predictor::Open("/w.pth", options).status(),
              StatusIs(kInvalidArgument, HasSubstr("/w.pth: holds no weight")));
}

TEST_F(PredictorTest, NoPredictionSeesHalfOfARefresh) {
  constexpr int kRefreshes = 2500;  // Of each of two predictors.
  RunnerOptions options;
  options.env = &env_;
  options.clock = &clock_;
  options.log = &log_;
  options.model = std::make_unique<EqualWeights>();
  auto data = TensorDataset::Create(Inputs(), at::Tensor());
  ASSERT_THAT(data, IsOk());
  options.train_dataset = *std::move(data);
  auto created = Runner::Create(EqualWeightsConfig(kEma), std::move(options));
  ASSERT_THAT(created, IsOk());
  Runner& runner = **created;

  PredictorOptions predictor_options;
  predictor_options.replicas = 2;
  predictor_options.make_model = [] {
    return std::make_unique<EqualWeights>();
  };
  std::vector<std::unique_ptr<Predictor>> predictors;
  for (const PredictorWeights weights :
       {PredictorWeights::kTrained, PredictorWeights::kAveraged}) {
    predictor_options.weights = weights;
    auto predictor = runner.MakePredictor(predictor_options);
    ASSERT_THAT(predictor, IsOk());
    predictors.push_back(*std::move(predictor));
    EXPECT_THAT(predictors.back()->Refresh(),
                StatusIs(kFailedPrecondition, HasSubstr("has not begun")));
    EXPECT_THAT(predictors.back()->Predict(Inputs()).status(),
                StatusIs(kFailedPrecondition, HasSubstr("no weights yet")));
  }
  ASSERT_THAT(runner.Step(), IsOk());

  std::atomic<bool> stop{false};
  std::atomic<int64_t> refreshed{0}, predictions{0};
  std::atomic<int64_t> torn{0}, failed{0}, backwards{0};
  std::vector<std::thread> threads, refreshers;
  std::thread training([&] {
    // Half of it in calls that begin and end all the time, half in one.
    while (refreshed < kRefreshes) EXPECT_THAT(runner.Step(), IsOk());
    EXPECT_THAT(runner.Train(), IsOk());
  });
  for (const auto& owned : predictors) {
    Predictor* const predictor = owned.get();
    EXPECT_THAT(predictor->Refresh(), IsOk());
    refreshers.emplace_back([&, predictor] {
      int64_t last = 0;
      for (int i = 0; i < kRefreshes; ++i) {
        if (!predictor->Refresh().ok()) ++failed;
        ++refreshed;
        const int64_t iter = predictor->weights().iter;
        if (iter < last) ++backwards;
        last = iter;
      }
    });
    for (int i = 0; i < 2; ++i) {
      threads.emplace_back([&, predictor] {
        int64_t last = 0;
        const at::Tensor inputs = ops::ones({3, 1});
        while (!stop) {
          WeightsInfo used;
          const auto outputs = predictor->Predict(inputs, &used);
          if (!outputs.ok()) {
            ++failed;
            continue;
          }
          const at::Tensor row = (*outputs)[0];
          const float least = row[0].item<float>();
          const float greatest = row[1].item<float>();
          // The buffer isn't averaged.
          const auto seen = static_cast<float>(used.iter);
          if (least != greatest || row[2].item<float>() != seen ||
              row[3].item<float>() != seen ||
              (!used.averaged && least != seen)) {
            ++torn;
          }
          if (used.iter < last) ++backwards;
          last = used.iter;
          ++predictions;
        }
      });
    }
  }
  for (std::thread& thread : refreshers) thread.join();
  stop = true;
  for (std::thread& thread : threads) thread.join();
  runner.context().RequestStop("enough");
  training.join();
  EXPECT_EQ(torn, 0);
  EXPECT_EQ(failed, 0);
  EXPECT_EQ(backwards, 0);
  EXPECT_GT(predictions, 0);
  EXPECT_GT(runner.context().iter(), 2);
}

// What a predictor gave is nobody else's, even if it was the weights.
TEST_F(PredictorTest, OutputsStayAsTheyAre) {
  class ItsWeights : public EqualWeights {
    absl::Status ValStep(const Batch&, Predictions* predictions) override {
      predictions->outputs = parameters()[1].tensor;
      return absl::OkStatus();
    }
  };
  runner::v1::RunnerConfig config = EqualWeightsConfig("");
  const auto runner = [&] {
    RunnerOptions options;
    options.env = &env_;
    options.log = &log_;
    options.model = std::make_unique<ItsWeights>();
    auto data = TensorDataset::Create(Inputs(), at::Tensor());
    EXPECT_THAT(data, IsOk());
    options.train_dataset = *std::move(data);
    auto created = Runner::Create(config, std::move(options));
    EXPECT_THAT(created, IsOk());
    return *std::move(created);
  }();
  Step(*runner, 1);
  PredictorOptions options;
  options.make_model = [] { return std::make_unique<ItsWeights>(); };
  const auto predictor = runner->MakePredictor(options);
  ASSERT_THAT(predictor, IsOk());
  const at::Tensor first = Outputs(**predictor);
  Step(*runner, 1);
  ASSERT_THAT((*predictor)->Refresh(), IsOk());
  EXPECT_TRUE(Outputs(**predictor).eq(2).all().item<bool>());
  EXPECT_TRUE(first.eq(1).all().item<bool>());
}

// Uses a weight again and again, so that the order of sums shows in its bits.
class TiedWeights : public EqualWeights {
 public:
  TiedWeights() {
    at::Tensor weight = parameters()[1].tensor.detach();
    weight.copy_(
        ops::arange(64 * 65, at::kFloat).sin().view({64, 65}).mul(0.3));
  }
  at::Tensor Forward(const at::Tensor& inputs) const {
    const at::Tensor& weight = parameters()[1].tensor;
    at::Tensor x = inputs.repeat({1, 32});  // (N, 64)
    for (int i = 0; i < 8; ++i) x = x.matmul(weight).slice(1, 0, 64).sin();
    return x;
  }
  absl::Status ComputeLosses(const Batch& batch, LogVars* losses) override {
    at::Tensor loss = Forward(batch.inputs).sub(0.5).square().mean();
    // All of them have a gradient.
    for (const int unused : {0, 2}) {
      loss = loss.add(parameters()[unused].tensor.sum());
    }
    losses->Add("loss", loss);
    return absl::OkStatus();
  }
  absl::Status ValStep(const Batch& batch, Predictions* predictions) override {
    predictions->outputs = Forward(batch.inputs);
    predictions->losses.Clear();
    return absl::OkStatus();
  }
};

TEST_F(PredictorTest, ARunIsTheSameBesideIt) {
  struct Case {
    const char* name;
    std::vector<std::string> texts;
    std::function<std::unique_ptr<Model>()> make_model;
  };
  const Case cases[] = {
      {"dropout", {kNet, kEma}, nullptr},
      {"autocast",
       {kAmp, "optim_wrapper { optimizer { adamw { lr: 0.01 } } }"},
       [] { return std::make_unique<TiedWeights>(); }},
  };
  for (const Case& test : cases) {
    SCOPED_TRACE(test.name);
    runner::v1::RunnerConfig config = Config(test.texts);
    config.mutable_train_cfg()->set_max_epochs(100);
    config.mutable_train_cfg()->set_val_interval(10);
    config.mutable_default_hooks()->mutable_checkpoint()->set_interval(50);
    if (test.make_model) {  // Its outputs aren't the targets'.
      config.clear_val_dataloader();
      config.clear_val_evaluator();
    }
    std::string saved[2];
    for (const bool beside : {false, true}) {
      io::MemEnv env;
      RunnerOptions options;
      options.env = &env;
      options.clock = &clock_;
      options.log = &log_;
      if (test.make_model) options.model = test.make_model();
      const at::Tensor inputs = Inputs();
      for (auto* dataset : {&options.train_dataset, &options.val_dataset}) {
        if (test.make_model && dataset == &options.val_dataset) continue;
        auto data = TensorDataset::Create(inputs, inputs.sum(1, true));
        ASSERT_THAT(data, IsOk());
        *dataset = *std::move(data);
      }
      auto runner = Runner::Create(config, std::move(options));
      ASSERT_THAT(runner, IsOk());
      std::atomic<bool> stop{false};
      std::vector<std::thread> threads;
      for (int i = 0; beside && i < 2; ++i) {
        threads.emplace_back([&] {
          PredictorOptions own;
          if (test.make_model) {
            own.make_model = [&]() -> absl::StatusOr<std::unique_ptr<Model>> {
              return test.make_model();
            };
          }
          while (!stop) {
            const auto predictor = (*runner)->MakePredictor(own);
            EXPECT_THAT(predictor, IsOk());
            for (int n = 0; n < 20 && !stop; ++n) {
              // Not before the run has begun.
              if (!(*predictor)->Refresh().ok()) continue;
              EXPECT_THAT((*predictor)->Predict(inputs), IsOk());
            }
          }
        });
      }
      EXPECT_THAT((*runner)->Train(), IsOk());
      stop = true;
      for (std::thread& thread : threads) thread.join();
      saved[beside] = Saved(env);
    }
    EXPECT_FALSE(saved[0].empty());
    EXPECT_TRUE(saved[0] == saved[1]);
  }
}

TEST_F(PredictorTest, HooksRefreshItAtOnce) {
  const auto runner = New(Config({kNet, kEma}));
  Step(*runner, 1);
  const auto evaluated = Make(*runner);
  const auto trained = Make(*runner, PredictorWeights::kTrained);
  at::Tensor after_step;
  witness_->after_train_iter = [&](RunContext& run) {
    EXPECT_THAT(trained->Refresh(), IsOk());
    after_step = Outputs(*trained);
    return absl::OkStatus();
  };
  int64_t validated = 0;
  witness_->after_val_iter = [&](RunContext&) {
    EXPECT_THAT(evaluated->Refresh(), IsOk());
    EXPECT_TRUE(ops::equal(Outputs(*evaluated, witness_->seen.back().inputs),
                           witness_->seen.back().outputs));
    EXPECT_THAT(trained->Refresh(),
                StatusIs(kFailedPrecondition, HasSubstr("in an evaluation")));
    ++validated;
    return absl::OkStatus();
  };
  Step(*runner, 5);  // With the validation behind the second epoch.
  EXPECT_EQ(validated, 3);
  ASSERT_THAT(trained->Refresh(), IsOk());
  EXPECT_TRUE(ops::equal(Outputs(*trained), after_step));
}

TEST_F(PredictorTest, ARefreshDuringALongCallIsServedInIt) {
  const auto runner = New(Config({kNet, kEma}, /*for_ever=*/true));
  Step(*runner, 1);
  const auto predictor = Make(*runner);
  std::thread training([&] { EXPECT_THAT(runner->Train(), IsOk()); });
  int64_t last = 1;
  while (last < 10) {  // However late it begins.
    EXPECT_THAT(predictor->Refresh(), IsOk());
    EXPECT_GE(predictor->weights().iter, last);
    last = predictor->weights().iter;
  }
  // Made meanwhile, too.
  const auto second = Make(*runner);
  EXPECT_GE(second->weights().iter, last);
  runner->context().RequestStop("enough");
  training.join();
}

TEST_F(PredictorTest, GoesOnWhenTheRunnerIsGone) {
  auto runner = New(Config({kNet, kEma}));
  Step(*runner, 4);
  const auto predictor = Make(*runner);
  const at::Tensor before = Outputs(*predictor);
  runner.reset();
  EXPECT_THAT(predictor->Refresh(),
              StatusIs(kFailedPrecondition, HasSubstr("the runner is gone")));
  EXPECT_TRUE(ops::equal(Outputs(*predictor), before));
  EXPECT_EQ(predictor->weights().iter, 4);
}

// ------------------------------------------------------------------- errors

TEST_F(PredictorTest, WhatIsWrongIsNamed) {
  const auto runner = New(Config({kNet}));
  PredictorOptions options;
  options.replicas = 0;
  EXPECT_THAT(runner->MakePredictor(options).status(),
              StatusIs(kInvalidArgument, "replicas: must be >= 1, is 0"));
  Step(*runner, 1);
  options.replicas = 1;
  options.weights = PredictorWeights::kAveraged;
  EXPECT_THAT(runner->MakePredictor(options).status(),
              StatusIs(kFailedPrecondition, HasSubstr("no average")));
  options.weights = PredictorWeights::kEvaluated;
  options.make_model = [] { return absl::InternalError("no luck"); };
  EXPECT_THAT(runner->MakePredictor(options).status(),
              StatusIs(absl::StatusCode::kInternal, "make_model: no luck"));
  options.make_model = [] { return std::make_unique<EqualWeights>(); };
  EXPECT_THAT(runner->MakePredictor(options).status(),
              StatusIs(kInvalidArgument, HasSubstr("don't fit")));

  const auto predictor = Make(*runner);
  EXPECT_THAT(predictor->Predict(at::Tensor()).status(),
              StatusIs(kInvalidArgument, "inputs: must be set"));
  EXPECT_THAT(predictor->Predict(ops::zeros({})).status(),
              StatusIs(kInvalidArgument, HasSubstr("(N, ...)")));
  EXPECT_THAT(predictor->Predict(ops::zeros({4, 3})).status(),
              StatusIs(kInvalidArgument,
                       HasSubstr("inputs: have the shape (4, 3), the run's "
                                 "have (N, 2): ")));
  EXPECT_FALSE(predictor->Predict(ops::zeros({4, 2}, at::kLong)).status().ok());
  // And it goes on.
  EXPECT_THAT(predictor->Predict(Inputs()), IsOk());
}

TEST_F(PredictorTest, AModelGivenInCodeMustBeMadeInCode) {
  RunnerOptions options;
  options.env = &env_;
  options.log = &log_;
  options.model = std::make_unique<EqualWeights>();
  auto data = TensorDataset::Create(Inputs(), at::Tensor());
  ASSERT_THAT(data, IsOk());
  options.train_dataset = *std::move(data);
  const auto runner =
      Runner::Create(EqualWeightsConfig(""), std::move(options));
  ASSERT_THAT(runner, IsOk());
  EXPECT_THAT(
      (*runner)->MakePredictor({}).status(),
      StatusIs(kInvalidArgument, AllOf(HasSubstr("make_model: must be set"),
                                       HasSubstr("given in code"))));
}

// ------------------------------------------------------------------- a guest

TEST_F(PredictorTest, TheProcessIsAsItWas) {
  auto runner = New(Config({kNet, kEma, kAmp}));
  Step(*runner, 3);
  const auto before = DefaultGeneratorState();
  ASSERT_THAT(before, IsOk());
  for (const bool grad : {true, false}) {
    const c10::AutoGradMode mode(grad);
    const auto predictor = Make(*runner);
    ASSERT_THAT(predictor->Refresh(), IsOk());
    const at::Tensor outputs = Outputs(*predictor);
    EXPECT_FALSE(outputs.requires_grad());
    EXPECT_FALSE(predictor->Predict(ops::zeros({1, 3})).ok());
    EXPECT_TRUE(ops::equal(Outputs(*Open("/run")), outputs));
    EXPECT_EQ(c10::GradMode::is_enabled(), grad);
  }
  // Nothing is cast any more.
  EXPECT_EQ(ops::ones({2, 2}).matmul(ops::ones({2, 2})).scalar_type(),
            at::kFloat);
  const auto after = DefaultGeneratorState();
  ASSERT_THAT(after, IsOk());
  EXPECT_TRUE(ops::equal(*before, *after));
}

}  // namespace
}  // namespace grapnel
