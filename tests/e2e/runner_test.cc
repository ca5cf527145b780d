// What a runner does besides its loops: refuses bad configurations, resumes,
// loads, stops, and fails without losing anything.

#include "grapnel/runner/runner.h"

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "c10/core/GradMode.h"
#include "gmock/gmock.h"
#include "google/protobuf/wrappers.pb.h"
#include "grapnel/base/fake_clock.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/data/dataset.h"
#include "grapnel/data/sample.h"
#include "grapnel/data/tensor_dataset.h"
#include "grapnel/hooks/checkpoint/checkpoint_hook.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/checkpoint_manifest.pb.h"
#include "grapnel/io/env.h"
#include "grapnel/io/fault_injection_env.h"
#include "grapnel/io/mem_env.h"
#include "grapnel/loggers/log_backend.h"
#include "grapnel/loggers/memory_run_log.h"
#include "grapnel/models/metric.h"
#include "grapnel/models/model.h"
#include "grapnel/optim/optim_wrapper.h"
#include "grapnel/runner/parse_config_for_test.h"
#include "grapnel/runner/run_context.h"
#include "grapnel/runner/runner_config.pb.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::_;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::ValuesIn;

// A linear regression on constant data: 12 samples in batches of 4.
const char kConfig[] = R"pb(
  work_dir: "/run"
  randomness { seed: 1 }
  model {
    sequential {
      layers { linear { out_features: 1 } }
      loss { mse {} }
    }
  }
  train_dataloader { batch_size: 4 }
  val_dataloader { batch_size: 4 }
  test_dataloader { batch_size: 4 }
  train_cfg { max_epochs: 3 }
  optim_wrapper { optimizer { sgd { lr: 0.1 } } }
  val_evaluator { mse {} }
  test_evaluator { mse {} }
  default_hooks { checkpoint { interval: 1 } }
)pb";

class RunnerTest : public ::testing::Test {
 protected:
  // A runner for `config`, with data where the config says no dataset.
  absl::StatusOr<std::unique_ptr<Runner>> Create(
      const runner::v1::RunnerConfig& config, RunnerOptions options = {}) {
    if (options.env == nullptr) options.env = &env_;
    options.clock = &clock_;
    options.log = &log_;
    const auto data = [](bool wanted, std::unique_ptr<Dataset>* dataset) {
      if (!wanted || *dataset != nullptr) return;
      auto tensors =
          TensorDataset::Create(ops::full({12, 2}, 0.5), ops::ones({12, 1}));
      EXPECT_THAT(tensors, IsOk());
      *dataset = *std::move(tensors);
    };
    data(config.has_train_dataloader() &&
             !config.train_dataloader().has_dataset(),
         &options.train_dataset);
    data(config.has_val_dataloader(), &options.val_dataset);
    data(config.has_test_dataloader(), &options.test_dataset);
    return Runner::Create(config, std::move(options));
  }

  std::unique_ptr<Runner> New(const runner::v1::RunnerConfig& config,
                              RunnerOptions options = {}) {
    auto runner = Create(config, std::move(options));
    EXPECT_THAT(runner, IsOk());
    return *std::move(runner);
  }

  double Lr(Runner& runner) {
    return *runner.context().optim_wrapper()->logged_lrs()[0].second;
  }

  io::MemEnv env_;
  FakeClock clock_;
  MemoryRunLog log_;
};

// ---------------------------------------------------------------
// what a host program may ask

TEST_F(RunnerTest, HookThatIsConfiguredIsFoundByName) {
  runner::v1::RunnerConfig config = ParseConfig(kConfig);
  config.MergeFrom(ParseConfig(
      "default_hooks { checkpoint { save_best: 'mse' rule: 'less' } }"));
  const auto runner = New(config);
  const auto* hook =
      dynamic_cast<CheckpointHook*>(runner->FindHook("checkpoint"));
  ASSERT_NE(hook, nullptr);
  EXPECT_EQ(hook->last_checkpoint(), "");
  ASSERT_THAT(runner->Train(), IsOk());
  EXPECT_EQ(hook->last_checkpoint(), "/run/epoch_3");
  const auto best = hook->best_checkpoint("mse");
  ASSERT_TRUE(best.has_value());
  const auto manifest = io::ReadManifest(env_, best->path);
  ASSERT_THAT(manifest, IsOk());
  EXPECT_EQ(manifest->metrics().at("mse"), best->value);

  EXPECT_EQ(runner->FindHook("ema"), nullptr);
  for (const std::string& name : runner->HookNames()) {
    ASSERT_NE(runner->FindHook(name), nullptr) << name;
    EXPECT_EQ(runner->FindHook(name)->name(), name);
  }
}

// Writes down which evaluation it is told of.
class Told final : public Metric {
 public:
  explicit Told(std::vector<std::string>* evaluations)
      : evaluations_(*evaluations) {}
  void Reset() override {}
  void Begin(const EvalProgress& progress) override {
    evaluations_.push_back(absl::StrCat(
        progress.loop, progress.training ? " in training" : "", ": ",
        progress.epoch, " epochs, ", progress.iter, " iterations"));
  }
  absl::Status Process(const Predictions&, const Batch&) override {
    return absl::OkStatus();
  }
  absl::Status Compute(Metrics*) override { return absl::OkStatus(); }

 private:
  std::vector<std::string>& evaluations_;
};

TEST_F(RunnerTest, MetricsAreToldHowFarTheModelIsTrained) {
  std::vector<std::string> evaluations;
  RunnerOptions options;
  options.val_metrics.push_back(std::make_unique<Told>(&evaluations));
  options.test_metrics.push_back(std::make_unique<Told>(&evaluations));
  const auto runner = New(ParseConfig(kConfig), std::move(options));
  ASSERT_THAT(runner->Val(), IsOk());
  ASSERT_THAT(runner->Train(), IsOk());
  ASSERT_THAT(runner->Test(), IsOk());
  EXPECT_THAT(evaluations,
              ElementsAre("val: 0 epochs, 0 iterations",
                          "val in training: 1 epochs, 3 iterations",
                          "val in training: 2 epochs, 6 iterations",
                          "val in training: 3 epochs, 9 iterations",
                          "test: 3 epochs, 9 iterations"));
}

// ---------------------------------------------------------------
// configurations

struct BadConfig {
  std::string name;
  std::string change;  // Applied to kConfig with MergeFrom.
  std::string error;
};

void PrintTo(const BadConfig& c, std::ostream* os) { *os << c.change; }

class RunnerBadConfigTest : public RunnerTest,
                            public ::testing::WithParamInterface<BadConfig> {};

INSTANTIATE_TEST_SUITE_P(
    , RunnerBadConfigTest,
    ValuesIn(std::vector<BadConfig>{
        {"MaxEpochs", "train_cfg { max_epochs: 0 }",
         "train_cfg: max_epochs: must be >= 1, is 0"},
        {"Launcher", "launcher: 'slurm'",
         "launcher: \"slurm\" isn't linked in: depend on //runner:launchers"},
        {"LogLevel", "log_level: 'LOUD'", "log_level: must be DEBUG"},
        {"Seed", "randomness { seed: -1 }",
         "randomness: seed: must be >= 0, is -1"},
        {"BaseBatchSize", "auto_scale_lr { enable: true }",
         "auto_scale_lr: base_batch_size: must be >= 1, is 0"},
        {"LearningRate", "optim_wrapper { optimizer { sgd { lr: -1 } } }",
         "optim_wrapper: optimizer: sgd: lr: must be finite and >= 0, is -1"},
        // By their rows in the list of bad inputs that all readers have.
        {"Row114Infinity", "optim_wrapper { optimizer { sgd { lr: 1e400 } } }",
         "optim_wrapper: optimizer: sgd: lr: must be finite and >= 0, is inf"},
        {"Row115NotANumber", "optim_wrapper { optimizer { sgd { lr: nan } } }",
         "optim_wrapper: optimizer: sgd: lr: must be finite and >= 0, is nan"},
        {"Row120NoHook",
         "custom_hooks { config { "
         "[type.googleapis.com/grapnel.runner.v1.HookSpec] {} } }",
         "custom_hooks[0]: config: no hook for config "
         "\"grapnel.runner.v1.HookSpec\" is linked in; there are: "
         "grapnel.hooks.v1."},
        {"Row120NegativeInterval", "default_hooks { logger { interval: -1 } }",
         "default_hooks: logger: interval: must be >= 1, is -1"},
        {"Row120TwoHooksOfOneName",
         "custom_hooks { config { "
         "[type.googleapis.com/grapnel.hooks.v1.IterTimerHookConfig] {} } }",
         "custom_hooks[0]: two hooks are called \"iter_timer\", the other in "
         "default_hooks: their state"},
        {"TwoCustomHooksOfOneName",
         "custom_hooks { config { "
         "[type.googleapis.com/grapnel.hooks.v1.EMAHookConfig] {} } } "
         "custom_hooks { config { "
         "[type.googleapis.com/grapnel.hooks.v1.EMAHookConfig] {} } }",
         "custom_hooks[1]: two hooks are called \"ema\", the other in "
         "custom_hooks[0]: their state"},
        {"SchedulerWindow", "param_scheduler { linear { begin: 5 end: 2 } }",
         "param_scheduler[0]: end: must be > begin"},
        {"BatchSize", "val_dataloader { batch_size: 0 }",
         "val_dataloader: batch_size"},
        {"InfiniteEpochs", "train_dataloader { sampler { type: INFINITE } }",
         "must not be INFINITE with train_cfg.by_epoch: true"},
        {"InfiniteValidation", "val_dataloader { sampler { type: INFINITE } }",
         "val_dataloader: sampler: type: must not be INFINITE"},
        {"Metric", "val_evaluator {}", "val_evaluator: [1]: must be set"},
        {"Layer",
         "model { sequential { layers { conv2d { out_channels: 2 } } } }",
         "layers[1] conv2d"},
        {"HookOff", "default_hooks { off: 'tmer' }",
         "default_hooks: off: no default hook \"tmer\""},
        {"HookOffAndOn", "default_hooks { off: 'checkpoint' }",
         "default_hooks: checkpoint: is both configured and off"},
        {"HookPriority",
         "default_hooks { priority { key: 'timer' value: 'FIRST' } }",
         "default_hooks: iter_timer: priority: must be"},
        {"HookOffByItsName", "default_hooks { off: 'itr_timer' }",
         "there are runtime_info, iter_timer, dist_sampler_seed, logger, "
         "param_scheduler, checkpoint; did you mean \"iter_timer\"?"},
        {"HookOption", "default_hooks { logger { interval: 0 } }",
         "default_hooks: logger: interval: must be >= 1, is 0"},
        {"CustomHook", "custom_hooks {}",
         "custom_hooks[0]: config: must be set"},
        {"LogProcessor", "log_processor { window_size: 0 }",
         "log_processor: window_size"},
        {"Visualizer", "visualizer { vis_backends {} }",
         "visualizer: vis_backends[0]"},
    }),
    [](const auto& info) { return info.param.name; });

TEST_P(RunnerBadConfigTest, NamesTheField) {
  runner::v1::RunnerConfig config = ParseConfig(kConfig);
  config.MergeFrom(ParseConfig(GetParam().change));
  EXPECT_THAT(Create(config).status(),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr(GetParam().error)));
}

TEST_F(RunnerTest, NamesACheckpointThatIsNotThere) {
  runner::v1::RunnerConfig config = ParseConfig(kConfig);
  config.set_load_from("/nothing");
  EXPECT_THAT(
      Create(config).status(),
      StatusIs(absl::StatusCode::kNotFound, HasSubstr("load_from: /nothing")));
}

// --- batches of one sample

struct OneSampleCase {
  std::string name;
  std::string change;  // Applied to kConfig, with 13 samples, with MergeFrom.
  std::string error;   // "" if it trains.
};

void PrintTo(const OneSampleCase& c, std::ostream* os) { *os << c.change; }

class RunnerOneSampleTest
    : public RunnerTest,
      public ::testing::WithParamInterface<OneSampleCase> {};

INSTANTIATE_TEST_SUITE_P(
    , RunnerOneSampleTest,
    ValuesIn(std::vector<OneSampleCase>{
        {"LastBatch", "",
         "train_dataloader: drop_last: must be true for this model with "
         "batch_size 4 and a dataset of 13, whose last batch has one sample: "
         "layers[1] batch_norm1d: has one value per channel in a sample"},
        {"EveryBatch", "train_dataloader { batch_size: 1 }",
         "train_dataloader: batch_size: must be >= 2 for this model, is 1: "
         "layers[1] batch_norm1d"},
        {"EveryBatchOfAnInfiniteStream",
         "train_dataloader { batch_size: 1 sampler { type: INFINITE } } "
         "train_cfg { by_epoch: false max_iters: 2 }",
         "train_dataloader: batch_size: must be >= 2"},
        {"DropLast", "train_dataloader { drop_last: true }", ""},
        {"OtherBatchSize", "train_dataloader { batch_size: 5 }", ""},
        {"Infinite",
         "train_dataloader { sampler { type: INFINITE } } "
         "train_cfg { by_epoch: false max_iters: 9 }",
         ""},
        {"ByIterationToTheLastBatch",
         "train_cfg { by_epoch: false max_iters: 4 }",
         "train_dataloader: drop_last: must be true"},
        {"ByIterationBeforeTheLastBatch",
         "train_cfg { by_epoch: false max_iters: 3 }", ""},
    }),
    [](const auto& info) { return info.param.name; });

TEST_P(RunnerOneSampleTest, IsRefusedWhereItWouldFail) {
  runner::v1::RunnerConfig config = ParseConfig(kConfig);
  if (GetParam().change.find("max_iters") != std::string::npos) {
    config.mutable_train_cfg()->clear_max_epochs();
  }
  config.MergeFrom(
      ParseConfig("model { sequential { layers { batch_norm1d {} } } }"));
  config.MergeFrom(ParseConfig(GetParam().change));
  RunnerOptions options;
  auto data =
      TensorDataset::Create(ops::full({13, 2}, 0.5), ops::ones({13, 1}));
  ASSERT_THAT(data, IsOk());
  options.train_dataset = *std::move(data);
  const auto runner = Create(config, std::move(options));
  if (GetParam().error.empty()) {
    ASSERT_THAT(runner, IsOk());
    EXPECT_THAT((*runner)->Train(), IsOk());
  } else {
    EXPECT_THAT(runner, StatusIs(absl::StatusCode::kInvalidArgument,
                                 HasSubstr(GetParam().error)));
  }
}

TEST_F(RunnerTest, FinishedRunIsNotRefusedForABatchOfOneSample) {
  runner::v1::RunnerConfig config = ParseConfig(kConfig);
  config.MergeFrom(
      ParseConfig("model { sequential { layers { batch_norm1d {} } } }"));
  ASSERT_THAT(New(config)->Train(), IsOk());
  config.set_resume(true);
  const auto create = [&] {
    RunnerOptions options;
    auto data =
        TensorDataset::Create(ops::full({13, 2}, 0.5), ops::ones({13, 1}));
    EXPECT_THAT(data, IsOk());
    options.train_dataset = *std::move(data);
    return Create(config, std::move(options));
  };
  EXPECT_THAT(create(), IsOk());
  config.mutable_train_cfg()->set_max_epochs(4);
  EXPECT_THAT(create(), StatusIs(absl::StatusCode::kInvalidArgument,
                                 HasSubstr("drop_last: must be true")));
}

TEST_F(RunnerTest, HalfATrainingIsRefused) {
  for (const char* field : {"train_dataloader", "train_cfg", "optim_wrapper"}) {
    runner::v1::RunnerConfig config = ParseConfig(kConfig);
    config.GetReflection()->ClearField(
        &config, config.GetDescriptor()->FindFieldByName(field));
    EXPECT_THAT(Create(config),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         HasSubstr(absl::StrCat(field, ": must be set along"))))
        << field;
  }
}

TEST_F(RunnerTest, WhatIsNotConfiguredIsRefusedByName) {
  runner::v1::RunnerConfig config = ParseConfig(kConfig);
  config.clear_test_dataloader();
  config.clear_test_evaluator();
  EXPECT_THAT(New(config)->Test(),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("test_dataloader")));
}

TEST_F(RunnerTest, ResolvedConfigIsInTheWorkDir) {
  New(ParseConfig(kConfig));
  const auto text = io::ReadFile(env_, "/run/grapnel.textproto");
  ASSERT_THAT(text, IsOk());
  EXPECT_THAT(*text, HasSubstr("max_epochs: 3"));
}

TEST_F(RunnerTest, WhatADatasetWarnsOfIsInTheLogAtTheStart) {
  class Halved final : public Dataset {
   public:
    int64_t size() const override { return 4; }
    absl::Status Get(int64_t index, Sample* sample) const override {
      sample->input = ops::full({2}, 0.5);
      sample->target = ops::ones({1});
      return absl::OkStatus();
    }
    std::vector<std::string> warnings() const override { return {"is half"}; }
  };
  RunnerOptions options;
  options.train_dataset = std::make_unique<Halved>();
  New(ParseConfig(kConfig), std::move(options));
  EXPECT_THAT(log_.messages(RunLog::Level::kWarning),
              ElementsAre("train_dataloader: dataset: is half"));
}

TEST_F(RunnerTest, RatesAreScaledByTheBatchSize) {
  runner::v1::RunnerConfig config = ParseConfig(kConfig);
  config.MergeFrom(
      ParseConfig("auto_scale_lr { enable: true base_batch_size: 8 }"));
  const auto runner = New(config);
  EXPECT_DOUBLE_EQ(Lr(*runner), 0.1 * 4 / 8);
}

TEST_F(RunnerTest, SchedulesAreNotAppliedBeforeTraining) {
  runner::v1::RunnerConfig config = ParseConfig(kConfig);
  config.MergeFrom(
      ParseConfig("param_scheduler { linear { start_factor: 0.5 end: 3 } }"));
  const auto runner = New(config);
  EXPECT_DOUBLE_EQ(Lr(*runner), 0.1);
  ASSERT_THAT(runner->Train(), IsOk());
  EXPECT_DOUBLE_EQ(Lr(*runner), 0.1);  // The warm-up is over.
}

// ------------------------------------------------------------- load and resume

TEST_F(RunnerTest, SecondTrainDoesNothingMore) {
  const auto runner = New(ParseConfig(kConfig));
  ASSERT_THAT(runner->Train(), IsOk());
  const int64_t iters = runner->context().iter();
  ASSERT_THAT(runner->Train(), IsOk());
  EXPECT_EQ(runner->context().iter(), iters);
}

TEST_F(RunnerTest, LoadFromTakesWeightsAndStartsAtZero) {
  ASSERT_THAT(New(ParseConfig(kConfig))->Train(), IsOk());
  const auto saved = io::ReadCheckpoint(env_, "/run/epoch_3");
  ASSERT_THAT(saved, IsOk());

  runner::v1::RunnerConfig config = ParseConfig(kConfig);
  config.set_work_dir("/other");
  config.set_load_from("/run/epoch_3");
  const auto runner = New(config);
  ASSERT_THAT(runner->Val(), IsOk());
  EXPECT_EQ(runner->context().iter(), 0);
  for (const NamedTensor& p : runner->context().model().parameters()) {
    EXPECT_TRUE(p.tensor.equal(*saved->FindSection("model")->Find(p.name)))
        << p.name;
  }
}

TEST_F(RunnerTest, WithoutTrainingResumeTakesTheNewestWeights) {
  ASSERT_THAT(New(ParseConfig(kConfig))->Train(), IsOk());
  const auto saved = io::ReadCheckpoint(env_, "/run/epoch_3");
  ASSERT_THAT(saved, IsOk());
  runner::v1::RunnerConfig config = ParseConfig(kConfig);
  config.clear_train_dataloader();
  config.clear_train_cfg();
  config.clear_optim_wrapper();
  config.set_resume(true);
  const auto runner = New(config);
  ASSERT_THAT(runner->Val(), IsOk());
  for (const NamedTensor& p : runner->context().model().parameters()) {
    EXPECT_TRUE(p.tensor.equal(*saved->FindSection("model")->Find(p.name)))
        << p.name;
  }
}

TEST_F(RunnerTest, ResumeKeepsTheCheckpointsSeed) {
  ASSERT_THAT(New(ParseConfig(kConfig))->Train(), IsOk());
  runner::v1::RunnerConfig config = ParseConfig(kConfig);
  config.mutable_randomness()->set_seed(7);
  config.set_resume(true);
  const auto runner = New(config);
  EXPECT_EQ(runner->context().seed(), 1);
  EXPECT_THAT(log_.messages(RunLog::Level::kWarning),
              Contains(HasSubstr("seed: the checkpoint's, 1, is used")));
}

TEST_F(RunnerTest, ResumeWithNothingThereStartsFromScratch) {
  runner::v1::RunnerConfig config = ParseConfig(kConfig);
  config.set_resume(true);
  const auto runner = New(config);
  ASSERT_THAT(runner->Train(), IsOk());
  EXPECT_EQ(runner->context().epoch(), 3);
  EXPECT_THAT(log_.messages(RunLog::Level::kWarning),
              Contains(HasSubstr("there is no checkpoint in /run")));
}

TEST_F(RunnerTest, DamagedNewestCheckpointIsPassedOver) {
  ASSERT_THAT(New(ParseConfig(kConfig))->Train(), IsOk());
  ASSERT_THAT(
      io::WriteFileAtomically(env_, "/run/epoch_3/manifest.pb", "damaged"),
      IsOk());
  runner::v1::RunnerConfig config = ParseConfig(kConfig);
  config.set_resume(true);
  const auto runner = New(config);
  ASSERT_THAT(runner->Train(), IsOk());
  EXPECT_THAT(log_.messages(), Contains("resumed epoch: 2, iter: 6"));
  EXPECT_THAT(log_.messages(RunLog::Level::kWarning),
              Contains(HasSubstr("epoch_3")));
}

TEST_F(RunnerTest, LongerRunGoesOnFromAFinishedOne) {
  ASSERT_THAT(New(ParseConfig(kConfig))->Train(), IsOk());
  runner::v1::RunnerConfig config = ParseConfig(kConfig);
  config.mutable_train_cfg()->set_max_epochs(5);
  config.set_resume(true);
  const auto runner = New(config);
  ASSERT_THAT(runner->Train(), IsOk());
  EXPECT_EQ(runner->context().epoch(), 5);
  EXPECT_EQ(runner->context().iter(), 15);
  EXPECT_TRUE(env_.FileExists("/run/epoch_5/manifest.pb"));
}

TEST_F(RunnerTest, ResumeWithoutTheValidationThatWasDueTrainsOn) {
  ASSERT_THAT(New(ParseConfig(kConfig))->Train(), IsOk());
  runner::v1::RunnerConfig config = ParseConfig(kConfig);
  // epoch_2 was saved before its validation.
  config.set_load_from("/run/epoch_2");
  config.set_resume(true);
  config.clear_val_dataloader();
  config.clear_val_evaluator();
  const auto runner = New(config);
  ASSERT_THAT(runner->Train(), IsOk());
  EXPECT_EQ(runner->context().epoch(), 3);
}

TEST_F(RunnerTest, OtherKindOfLoopIsRefused) {
  ASSERT_THAT(New(ParseConfig(kConfig))->Train(), IsOk());
  runner::v1::RunnerConfig config = ParseConfig(kConfig);
  *config.mutable_train_cfg() =
      ParseConfig("train_cfg { by_epoch: false max_iters: 20 }").train_cfg();
  config.set_resume(true);
  EXPECT_THAT(
      Create(config).status(),
      StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("by_epoch")));
}

TEST_F(RunnerTest, SecondTrainAfterAResumeKeepsTheNewestCheckpoint) {
  runner::v1::RunnerConfig config = ParseConfig(kConfig);
  config.mutable_train_cfg()->set_max_epochs(1);
  ASSERT_THAT(New(config)->Train(), IsOk());
  config.mutable_train_cfg()->set_max_epochs(3);
  config.mutable_default_hooks()->mutable_checkpoint()->set_max_keep_ckpts(1);
  config.set_resume(true);
  const auto runner = New(config);
  ASSERT_THAT(runner->Train(), IsOk());
  ASSERT_THAT(runner->Train(), IsOk());
  const auto latest = io::FindLatestCheckpoint(env_, "/run", nullptr);
  ASSERT_THAT(latest, IsOk());
  EXPECT_EQ(*latest, "/run/epoch_3");
}

TEST_F(RunnerTest, FailedResumeIsNotForgotten) {
  ASSERT_THAT(New(ParseConfig(kConfig))->Train(), IsOk());
  runner::v1::RunnerConfig config = ParseConfig(kConfig);
  config.mutable_model()
      ->mutable_sequential()
      ->mutable_layers(0)
      ->mutable_linear()
      ->set_out_features(2);
  config.set_resume(true);
  const auto runner = New(config);
  const absl::Status first = runner->Train();
  EXPECT_THAT(std::string(first.message()), HasSubstr("0.weight"));
  EXPECT_EQ(OriginOf(first), ErrorOrigin::kCheckpoint);
  EXPECT_EQ(runner->Train(), first);
}

TEST_F(RunnerTest, FlippedBitInTheNewestCheckpointGoesBackToTheOneBefore) {
  ASSERT_THAT(New(ParseConfig(kConfig))->Train(), IsOk());
  const char kFile[] = "/run/epoch_3/model.safetensors";
  auto bytes = io::ReadFile(env_, kFile);
  ASSERT_THAT(bytes, IsOk());
  bytes->back() ^= 1;
  ASSERT_THAT(io::WriteFileAtomically(env_, kFile, *bytes), IsOk());
  runner::v1::RunnerConfig config = ParseConfig(kConfig);
  config.set_resume(true);
  ASSERT_THAT(New(config)->Train(), IsOk());
  EXPECT_THAT(log_.messages(), Contains("resumed epoch: 2, iter: 6"));
}

TEST_F(RunnerTest, EvaluationDoesNotTouchWhatATrainerIsWriting) {
  ASSERT_THAT(New(ParseConfig(kConfig))->Train(), IsOk());
  ASSERT_THAT(env_.CreateDir("/run/.tmp-epoch_4-0123abcd"), IsOk());
  const auto config_text = io::ReadFile(env_, "/run/grapnel.textproto");
  runner::v1::RunnerConfig config = ParseConfig(kConfig);
  config.set_resume(true);
  RunnerOptions options;
  options.for_training = false;
  ASSERT_THAT(New(config, std::move(options))->Test(), IsOk());
  EXPECT_TRUE(env_.FileExists("/run/.tmp-epoch_4-0123abcd"));
  EXPECT_EQ(*io::ReadFile(env_, "/run/grapnel.textproto"), *config_text);
}

TEST_F(RunnerTest, EvaluationOfNothingIsRefused) {
  runner::v1::RunnerConfig config = ParseConfig(kConfig);
  config.set_resume(true);
  RunnerOptions options;
  options.for_training = false;
  EXPECT_THAT(Create(config, std::move(options)),
              StatusIs(absl::StatusCode::kNotFound,
                       HasSubstr("there is no checkpoint in /run")));
}

// Asks for a checkpoint where none can be had.
class SavesTooEarly : public Hook {
 public:
  absl::string_view name() const override { return "saves_too_early"; }
  absl::Status BeforeTrainIter(RunContext& run, const IterInfo&) override {
    SaveRequest request;
    request.name = "mine";
    return run.Save(std::move(request));
  }
};

TEST_F(RunnerTest, CheckpointAtAPointThatHasNoneIsRefused) {
  RunnerOptions options;
  options.hooks.push_back(Schedule(std::make_unique<SavesTooEarly>()));
  EXPECT_THAT(New(ParseConfig(kConfig), std::move(options))->Train(),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("BeforeTrainIter")));
}

// Asks for what the checkpoint hook asks for too, and for one of its own.
class SavesToo : public Hook {
 public:
  explicit SavesToo(std::vector<std::string>* saved) : saved_(saved) {}
  absl::string_view name() const override { return "saves_too"; }
  Priority priority() const override { return Priority::kLowest; }
  absl::Status AfterTrainEpoch(RunContext& run) override {
    SaveRequest request;
    request.name = absl::StrCat("epoch_", run.epoch() + 1);
    GRAPNEL_ASSIGN_OR_RETURN(ids_["shared"], run.RequestSave(request));
    request.name = "mine";
    GRAPNEL_ASSIGN_OR_RETURN(ids_["own"], run.RequestSave(request));
    return absl::OkStatus();
  }
  absl::Status AfterSaveCheckpoint(RunContext&,
                                   const SavedCheckpoint& saved) override {
    const char* which = saved.id == ids_["shared"] ? "shared"
                        : saved.id == ids_["own"]  ? "own"
                                                   : "another's";
    saved_->push_back(absl::StrCat(which, " ", saved.path));
    return absl::OkStatus();
  }

 private:
  std::map<std::string, int64_t> ids_;
  std::vector<std::string>* const saved_;
};

TEST_F(RunnerTest, CheckpointThatTwoHooksAskForIsWrittenOnce) {
  std::vector<std::string> saved;
  RunnerOptions options;
  options.hooks.push_back(Schedule(std::make_unique<SavesToo>(&saved)));
  ASSERT_THAT(New(ParseConfig(kConfig), std::move(options))->Train(), IsOk());
  EXPECT_THAT(saved, ElementsAre("shared /run/epoch_1", "own /run/mine",
                                 "shared /run/epoch_2", "own /run/mine",
                                 "shared /run/epoch_3", "own /run/mine"));
}

// Notes what a run is at the two points of a load.
class NotesLoads : public Hook {
 public:
  explicit NotesLoads(std::vector<std::string>* notes) : notes_(notes) {}
  absl::string_view name() const override { return "notes_loads"; }
  absl::Status AfterLoadCheckpoint(RunContext& run,
                                   io::CheckpointContents& contents) override {
    return Note(run, contents);
  }
  absl::Status AfterRestore(RunContext& run,
                            const io::CheckpointContents& contents) override {
    return Note(run, contents);
  }

 private:
  absl::Status Note(RunContext& run, const io::CheckpointContents& contents) {
    const at::Tensor& saved = contents.FindSection("model")->begin()->tensor;
    notes_->push_back(absl::StrCat(
        "iter ", run.iter(), ", weights ",
        run.model().parameters().begin()->tensor.equal(saved) ? "restored"
                                                              : "drawn"));
    return absl::OkStatus();
  }

  std::vector<std::string>* const notes_;
};

TEST_F(RunnerTest, AfterRestoreAllOfTheRunIsThereAgain) {
  ASSERT_THAT(New(ParseConfig(kConfig))->Train(), IsOk());
  for (const bool resume : {true, false}) {
    runner::v1::RunnerConfig config = ParseConfig(kConfig);
    config.mutable_train_cfg()->set_max_epochs(4);
    config.mutable_randomness()->set_seed(4711);
    config.set_load_from("/run/epoch_3");
    config.set_resume(resume);
    config.set_work_dir(resume ? "/run" : "/other");
    std::vector<std::string> notes;
    RunnerOptions options;
    options.hooks.push_back(Schedule(std::make_unique<NotesLoads>(&notes)));
    const auto runner = New(config, std::move(options));
    ASSERT_THAT(runner->Train(), IsOk());
    ASSERT_THAT(runner->Train(), IsOk());
    EXPECT_THAT(notes, ElementsAre("iter 0, weights drawn",
                                   absl::StrCat("iter ", resume ? 9 : 0,
                                                ", weights restored")));
  }
}

TEST_F(RunnerTest, AnotherOrderInsideAnEpochIsRefused) {
  runner::v1::RunnerConfig config = ParseConfig(kConfig);
  config.mutable_default_hooks()->mutable_checkpoint()->set_by_epoch(false);
  config.mutable_train_cfg()->set_max_epochs(1);
  std::atomic<int> interrupt{1};
  RunnerOptions options;
  options.interrupt = &interrupt;
  ASSERT_THAT(New(config, std::move(options))->Train(),
              StatusIs(absl::StatusCode::kCancelled, _));
  config.set_resume(true);
  auto& sampler = *config.mutable_train_dataloader()->mutable_sampler();
  sampler.set_shuffle(!sampler.shuffle());
  EXPECT_THAT(Create(config).status(),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("batches of 4")));
}

// -------------------------------------------------------------- stop and
// errors

TEST_F(RunnerTest, InterruptSavesWhereItStoppedAndResumeGoesOnThere) {
  std::atomic<int> interrupt{1};
  RunnerOptions options;
  options.interrupt = &interrupt;
  ASSERT_THAT(New(ParseConfig(kConfig), std::move(options))->Train(),
              StatusIs(absl::StatusCode::kCancelled, _));
  EXPECT_TRUE(env_.FileExists("/run/iter_1/manifest.pb"));
  runner::v1::RunnerConfig config = ParseConfig(kConfig);
  config.set_resume(true);
  const auto runner = New(config);
  ASSERT_THAT(runner->Train(), IsOk());
  EXPECT_EQ(runner->context().iter(), 9);
  EXPECT_THAT(log_.messages(), Contains("resumed epoch: 0, iter: 1"));
}

// Interrupts the validation of epoch 2.
class InterruptsValidation : public Hook {
 public:
  explicit InterruptsValidation(std::atomic<int>* interrupt)
      : interrupt_(interrupt) {}
  absl::string_view name() const override { return "interrupts_validation"; }
  absl::Status AfterValIter(RunContext& run, const IterInfo&,
                            const Predictions&) override {
    if (run.epoch() == 2) *interrupt_ = 1;
    return absl::OkStatus();
  }

 private:
  std::atomic<int>* const interrupt_;
};

TEST_F(RunnerTest, InterruptedValidationIsMadeAgain) {
  runner::v1::RunnerConfig config = ParseConfig(kConfig);
  config.mutable_default_hooks()->clear_checkpoint();
  config.MergeFrom(ParseConfig(
      "default_hooks { checkpoint { save_best: 'mse' rule: 'less' } }"));
  std::atomic<int> interrupt{0};
  RunnerOptions options;
  options.interrupt = &interrupt;
  options.hooks.push_back(
      Schedule(std::make_unique<InterruptsValidation>(&interrupt)));
  ASSERT_THAT(New(config, std::move(options))->Train(),
              StatusIs(absl::StatusCode::kCancelled, _));
  EXPECT_TRUE(env_.FileExists("/run/epoch_2/manifest.pb"));
  EXPECT_TRUE(env_.FileExists("/run/best_mse_epoch_1/manifest.pb"));
  config.set_resume(true);
  ASSERT_THAT(New(config)->Train(), IsOk());
  EXPECT_THAT(log_.messages(),
              AllOf(Contains("resumed epoch: 2, iter: 6"),
                    Contains(HasSubstr("mse at 2 epoch is saved")),
                    Contains(HasSubstr("mse at 3 epoch is saved"))));
  EXPECT_FALSE(env_.FileExists("/run/best_mse_epoch_2"));
}

// Fills the disk when a checkpoint is to be written in this epoch.
class FillDisk : public Hook {
 public:
  FillDisk(io::FaultInjectionEnv* env, int64_t epoch)
      : env_(env), epoch_(epoch) {}
  absl::string_view name() const override { return "fill_disk"; }
  absl::Status BeforeSaveCheckpoint(RunContext& run,
                                    io::CheckpointContents&) override {
    if (run.epoch() == epoch_) {
      env_->FailOperation(3, absl::ResourceExhaustedError("no space left"),
                          io::FaultInjectionEnv::Times::kFromThenOn);
    }
    return absl::OkStatus();
  }

 private:
  io::FaultInjectionEnv* const env_;
  const int64_t epoch_;
};

TEST_F(RunnerTest, InterruptThatCannotBeSavedSaysSo) {
  io::FaultInjectionEnv full(env_, "/run");
  std::atomic<int> interrupt{1};
  RunnerOptions options;
  options.env = &full;
  options.interrupt = &interrupt;
  options.hooks.push_back(Schedule(std::make_unique<FillDisk>(&full, 0)));
  EXPECT_THAT(New(ParseConfig(kConfig), std::move(options))->Train(),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       AllOf(HasSubstr("iter_1"), HasSubstr("no space"))));
  EXPECT_THAT(log_.messages(RunLog::Level::kError),
              Contains(HasSubstr("no space")));
}

// Fails at one point, and hears of it.
class Failing : public Hook {
 public:
  explicit Failing(std::string* heard) : heard_(heard) {}
  absl::string_view name() const override { return "failing"; }
  absl::Status AfterTrainIter(RunContext& run, const IterInfo&,
                              const LogVars&) override {
    if (run.iter() == 4) return absl::OutOfRangeError("loss is nan");
    return absl::OkStatus();
  }
  void OnError(RunContext&, const absl::Status& error) override {
    *heard_ = std::string(error.message());
  }

 private:
  std::string* const heard_;
};

TEST_F(RunnerTest, ErrorOfAHookEndsTheRunWithItsName) {
  std::string heard;
  RunnerOptions options;
  options.hooks.push_back(Schedule(std::make_unique<Failing>(&heard)));
  const auto runner = New(ParseConfig(kConfig), std::move(options));
  const char kMessage[] = "hook \"failing\": AfterTrainIter: loss is nan";
  EXPECT_THAT(runner->Train(),
              StatusIs(absl::StatusCode::kOutOfRange, kMessage));
  EXPECT_EQ(heard, kMessage);
  EXPECT_THAT(log_.messages(RunLog::Level::kError), Contains(kMessage));
  // What was saved before is good.
  EXPECT_THAT(io::ReadCheckpoint(env_, "/run/epoch_1"), IsOk());
}

// Logs when it goes.
class LastWords : public Hook {
 public:
  ~LastWords() override { run_->log().Info("gone"); }
  absl::string_view name() const override { return "last_words"; }
  absl::Status Setup(RunContext& run) override {
    run_ = &run;
    return absl::OkStatus();
  }

 private:
  RunContext* run_ = nullptr;
};

TEST_F(RunnerTest, HookMayLogWhenItGoes) {
  RunnerOptions options;
  options.hooks.push_back(Schedule(std::make_unique<LastWords>()));
  ASSERT_THAT(New(ParseConfig(kConfig), std::move(options))->Train(), IsOk());
  EXPECT_EQ(log_.messages().back(), "gone");
}

// Hears how the run's calls end.
class OutcomeBackend : public LogBackend {
 public:
  using Config = google::protobuf::StringValue;
  static absl::StatusOr<std::unique_ptr<OutcomeBackend>> Create(
      const Config&, const LogBackendOptions& options) {
    Outcomes().clear();
    ConfigFields() = options.config_fields;
    return std::make_unique<OutcomeBackend>();
  }
  static std::vector<std::string>& Outcomes() {
    static auto& outcomes = *new std::vector<std::string>;
    return outcomes;
  }
  static std::vector<std::pair<std::string, std::string>>& ConfigFields() {
    static auto& fields = *new std::vector<std::pair<std::string, std::string>>;
    return fields;
  }
  absl::Status WriteRecord(const Record&) override { return absl::OkStatus(); }
  void NoteOutcome(const absl::Status& outcome) override {
    Outcomes().emplace_back(outcome.message());
  }
  absl::Status Close() override { return absl::OkStatus(); }
};

GRAPNEL_REGISTER(LogBackendRegistry, OutcomeBackend);

TEST_F(RunnerTest, LogBackendsGetTheConfigAndHearHowEachCallEnds) {
  auto config = ParseConfig(kConfig);
  config.mutable_visualizer()->add_vis_backends()->mutable_custom()->PackFrom(
      OutcomeBackend::Config());
  std::string heard;
  RunnerOptions options;
  options.hooks.push_back(Schedule(std::make_unique<Failing>(&heard)));
  const auto runner = New(config, std::move(options));
  EXPECT_THAT(runner->Val(), IsOk());
  EXPECT_FALSE(runner->Train().ok());
  EXPECT_THAT(OutcomeBackend::Outcomes(), ElementsAre("", heard));
  EXPECT_THAT(
      OutcomeBackend::ConfigFields(),
      Contains(testing::Pair("train_cfg", HasSubstr("\"max_epochs\": 3"))));
}

TEST_F(RunnerTest, FullDiskEndsTheRunAndLeavesTheLastCheckpointGood) {
  io::FaultInjectionEnv full(env_, "/run");
  RunnerOptions options;
  options.env = &full;
  options.hooks.push_back(Schedule(std::make_unique<FillDisk>(&full, 1)));
  EXPECT_THAT(New(ParseConfig(kConfig), std::move(options))->Train(),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       AllOf(HasSubstr("epoch_2"), HasSubstr("no space"))));
  full.StopFailing();
  const auto latest = io::FindLatestCheckpoint(env_, "/run", nullptr);
  ASSERT_THAT(latest, IsOk());
  EXPECT_EQ(*latest, "/run/epoch_1");
  EXPECT_THAT(io::ReadCheckpoint(env_, *latest), IsOk());
}

// ---------------------------------------------------------------- power cuts

// Notes how far the newest checkpoint is that was said to be on the disk.
class Acknowledged : public Hook {
 public:
  explicit Acknowledged(int64_t* epochs) : epochs_(epochs) {}
  absl::string_view name() const override { return "acknowledged"; }
  absl::Status BeforeSaveCheckpoint(RunContext&,
                                    io::CheckpointContents& contents) override {
    saving_ = contents.manifest().progress().epoch();
    return absl::OkStatus();
  }
  absl::Status AfterSaveCheckpoint(RunContext&,
                                   const SavedCheckpoint& saved) override {
    if (saved.is_last) *epochs_ = saving_;
    return absl::OkStatus();
  }

 private:
  int64_t* const epochs_;
  int64_t saving_ = 0;
};

struct PowerCut {
  std::string name;
  io::FaultInjectionEnv::Names names;
  std::string options;  // Of the checkpoint hook.
};

void PrintTo(const PowerCut& c, std::ostream* os) { *os << c.name; }

class PowerCutTest : public RunnerTest,
                     public ::testing::WithParamInterface<PowerCut> {
 protected:
  // The mean squared error falls in each epoch, so that each has a new best.
  absl::Status Train(io::Env& env, bool resume, int64_t* acknowledged) {
    runner::v1::RunnerConfig config = ParseConfig(kConfig);
    config.MergeFrom(ParseConfig(absl::StrCat(
        "default_hooks { checkpoint { max_keep_ckpts: 1 save_best: 'mse' "
        "rule: 'less' published_keys: 'model' ",
        GetParam().options, " } }")));
    config.set_resume(resume);
    RunnerOptions options;
    options.env = &env;
    options.log_in_background = false;
    options.hooks.push_back(
        Schedule(std::make_unique<Acknowledged>(acknowledged)));
    const auto runner = Create(config, std::move(options));
    return runner.ok() ? (*runner)->Train() : runner.status();
  }

  // Name and weights of each checkpoint; a name alone of what is left over.
  static std::vector<std::string> WhatIsThere(io::Env& env) {
    std::vector<std::string> found;
    for (const char* dir : {"/run", "/out/run"}) {
      const auto names = env.ListDir(dir);
      if (absl::IsNotFound(names.status())) continue;
      EXPECT_THAT(names, IsOk());
      for (const std::string& name : *names) {
        const std::string path = io::JoinPath(dir, name);
        if (name[0] == '.') found.push_back(path);
        if (!env.FileExists(io::JoinPath(path, "manifest.pb"))) continue;
        const auto contents = io::ReadCheckpoint(env, path);
        EXPECT_THAT(contents, IsOk());
        found.push_back(path);
        for (const NamedTensor& p : *contents->FindSection("model")) {
          absl::StrAppend(&found.back(), " ", p.tensor.sum().item<float>());
        }
      }
    }
    return found;
  }
};

INSTANTIATE_TEST_SUITE_P(
    , PowerCutTest,
    ValuesIn(std::vector<PowerCut>{
        {"AsSynced", io::FaultInjectionEnv::Names::kAsSynced, ""},
        {"AsSeen", io::FaultInjectionEnv::Names::kAsSeen, "keep_best: 2"},
        {"Elsewhere", io::FaultInjectionEnv::Names::kAsSynced,
         "out_dir: '/out'"},
    }),
    [](const auto& info) { return info.param.name; });

TEST_P(PowerCutTest, AtAnyOperationLosesNothingAndLeavesNothing) {
  int64_t acknowledged = 0;
  io::FaultInjectionEnv whole(env_, "/");
  ASSERT_THAT(Train(whole, false, &acknowledged), IsOk());
  const std::vector<std::string> expected = WhatIsThere(whole);
  // The newest, the best ones, and copies of the newest and the best.
  ASSERT_GE(expected.size(), 4u) << absl::StrJoin(expected, ", ");
  const auto operations = static_cast<int64_t>(whole.operations().size());
  ASSERT_GT(operations, 100);
  for (int64_t n = 0; n < operations; ++n) {
    SCOPED_TRACE(absl::StrCat("before ", whole.operations()[n]));
    io::MemEnv disk;
    io::FaultInjectionEnv env(disk, "/");
    env.FailOperation(n, absl::UnavailableError("power"),
                      io::FaultInjectionEnv::Times::kFromThenOn);
    acknowledged = 0;
    // At the very end only the closing of a log is left to fail.
    Train(env, false, &acknowledged).IgnoreError();
    ASSERT_THAT(env.Crash(GetParam().names), IsOk());
    if (acknowledged > 0) {
      ASSERT_THAT(io::RemoveLeftovers(env, "/run"), IsOk());
      const auto latest = io::FindLatestCheckpoint(env, "/run", nullptr);
      ASSERT_THAT(latest, IsOk());
      const auto manifest = io::ReadManifest(env, *latest);
      ASSERT_THAT(manifest, IsOk());
      EXPECT_GE(manifest->progress().epoch(), acknowledged);
    }
    ASSERT_THAT(Train(env, true, &acknowledged), IsOk());
    EXPECT_EQ(WhatIsThere(env), expected);
  }
}

TEST_F(RunnerTest, GradModeOfTheCallerIsAsItWas) {
  const auto runner = New(ParseConfig(kConfig));
  const c10::AutoGradMode off(false);
  ASSERT_THAT(runner->Train(), IsOk());
  EXPECT_FALSE(c10::GradMode::is_enabled());
}

TEST_F(RunnerTest, DefaultHooksGoBySlotAndByName) {
  runner::v1::RunnerConfig config = ParseConfig(kConfig);
  config.MergeFrom(
      ParseConfig("default_hooks { iter_timer {} off: 'dist_sampler_seed' "
                  "priority { key: 'iter_timer' value: '3' } }"));
  const auto runner = New(config);
  EXPECT_THAT(runner->HookNames(),
              ElementsAre("iter_timer", "runtime_info", "logger",
                          "param_scheduler", "checkpoint"));
  ASSERT_NE(runner->FindHook("iter_timer"), nullptr);
  EXPECT_EQ(runner->FindHook("timer"), runner->FindHook("iter_timer"));
  EXPECT_EQ(runner->FindHook("sampler_seed"), nullptr);
}

TEST_F(RunnerTest, TrainsWithAllDefaultHooksOff) {
  runner::v1::RunnerConfig config = ParseConfig(kConfig);
  config.clear_default_hooks();
  for (const char* slot : {"runtime_info", "timer", "sampler_seed", "logger",
                           "param_scheduler", "checkpoint"}) {
    config.mutable_default_hooks()->add_off(slot);
  }
  const auto runner = New(config);
  EXPECT_THAT(runner->HookNames(), IsEmpty());
  EXPECT_THAT(runner->Train(), IsOk());
}

}  // namespace
}  // namespace grapnel
