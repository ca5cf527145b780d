#include "grapnel/hooks/ema/ema_hook.h"

#include <atomic>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "google/protobuf/text_format.h"
#include "grapnel/base/fake_clock.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/data/sample.h"
#include "grapnel/data/tensor_dataset.h"
#include "grapnel/hooks/ema/ema_hook.pb.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/mem_env.h"
#include "grapnel/loggers/memory_run_log.h"
#include "grapnel/loggers/run_log.h"
#include "grapnel/models/log_vars.h"
#include "grapnel/models/metric.h"
#include "grapnel/models/model.h"
#include "grapnel/runner/config_file.h"
#include "grapnel/runner/fake_run_context.h"
#include "grapnel/runner/hook_registry.h"
#include "grapnel/runner/runner.h"
#include "grapnel/runner/runner_config.pb.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::google::protobuf::TextFormat;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// One weight, w, that each training step moves up by 1; a buffer that counts.
class CountingModel final : public Model {
 public:
  // `exported`: where Export says what w was.
  explicit CountingModel(float* exported = nullptr) : exported_(exported) {
    parameters_.push_back({"w", ops::zeros({2}).set_requires_grad(true)});
    buffers_.push_back({"seen", ops::zeros({})});
  }
  absl::Status ComputeLosses(const Batch& batch, LogVars* losses) override {
    // SGD with a rate of 1.
    losses->Add("loss", parameters_[0].tensor.sum().neg());
    buffers_[0].tensor.add_(1);
    return fail_training ? absl::InternalError("no training")
                         : absl::OkStatus();
  }
  absl::Status ValStep(const Batch& batch, Predictions* predictions) override {
    evaluated.push_back(weight());
    if (fail_validation) return absl::InternalError("no validation");
    predictions->outputs = batch.targets;
    return absl::OkStatus();
  }
  const std::vector<NamedTensor>& parameters() const override {
    return parameters_;
  }
  const std::vector<NamedTensor>& buffers() const override { return buffers_; }
  absl::Status Export(const std::string&) override {
    *exported_ = weight();
    return fail_export ? absl::InternalError("no export") : absl::OkStatus();
  }
  void SetTraining(bool training) override { training_ = training; }
  bool training() const override { return training_; }

  float weight() const { return parameters_[0].tensor[0].item<float>(); }

  std::vector<float> evaluated;  // w at each validation step.
  bool fail_training = false, fail_validation = false, fail_export = false;

 private:
  float* const exported_;
  std::vector<NamedTensor> parameters_, buffers_;
  bool training_ = true;
};

class NoMetric final : public Metric {
 public:
  void Reset() override {}
  absl::Status Process(const Predictions&, const Batch&) override {
    return absl::OkStatus();
  }
  absl::Status Compute(Metrics*) override { return absl::OkStatus(); }
};

EMAHook::Config Config(const std::string& text) {
  EMAHook::Config config;
  EXPECT_TRUE(TextFormat::ParseFromString(text, &config)) << text;
  return config;
}

struct Options {
  Options(std::vector<std::string> hooks, std::string config = "",
          bool for_training = true)
      : hooks(std::move(hooks)),
        config(std::move(config)),
        for_training(for_training) {}

  std::vector<std::string> hooks;  // Configs.
  std::string config;              // More of the run's.
  bool for_training;
  std::unique_ptr<Hook> observer;
  int interrupt_at = 0;  // Validation step.
};

// Stops the process, as a signal would, at a validation step.
class Interrupt : public Hook {
 public:
  Interrupt(int at, std::atomic<int>* flag) : at_(at), flag_(flag) {}
  absl::string_view name() const override { return "interrupt"; }
  absl::Status AfterValIter(RunContext&, const IterInfo&,
                            const Predictions&) override {
    if (++done_ == at_) *flag_ = 1;
    return absl::OkStatus();
  }

 private:
  const int at_;
  std::atomic<int>* const flag_;
  int done_ = 0;
};

// 3 epochs of 2 iterations, with a validation of 2 after each: w is 2, 4, 6.
struct TestRun {
  TestRun(io::Env* env, Options wanted) {
    runner::v1::RunnerConfig config;
    EXPECT_TRUE(TextFormat::ParseFromString(
        R"pb(
          work_dir: "/run"
          experiment_name: "ema"
          randomness { seed: 1 }
          train_dataloader { batch_size: 1 }
          val_dataloader { batch_size: 1 }
          test_dataloader { batch_size: 1 }
          train_cfg { max_epochs: 3 }
          optim_wrapper { optimizer { sgd { lr: 1 } } }
          default_hooks { checkpoint { interval: 1 } }
        )pb",
        &config));
    EXPECT_TRUE(TextFormat::MergeFromString(wanted.config, &config));
    for (const std::string& hook : wanted.hooks) {
      config.add_custom_hooks()->mutable_config()->PackFrom(Config(hook));
    }
    RunnerOptions options;
    options.env = env;
    options.clock = &clock;
    options.log = &log;
    options.interrupt = &interrupt;
    options.for_training = wanted.for_training;
    auto own_model = std::make_unique<CountingModel>(&exported);
    model = own_model.get();
    options.model = std::move(own_model);
    for (auto* dataset : {&options.train_dataset, &options.val_dataset,
                          &options.test_dataset}) {
      auto tensors =
          TensorDataset::Create(ops::ones({2, 1}), ops::ones({2, 1}));
      EXPECT_THAT(tensors, IsOk());
      *dataset = *std::move(tensors);
    }
    options.val_metrics.push_back(std::make_unique<NoMetric>());
    options.test_metrics.push_back(std::make_unique<NoMetric>());
    if (wanted.interrupt_at > 0) {
      options.hooks.push_back(Schedule(
          std::make_unique<Interrupt>(wanted.interrupt_at, &interrupt)));
    }
    if (wanted.observer != nullptr) {
      options.hooks.push_back(Schedule(std::move(wanted.observer)));
    }
    auto created = Runner::Create(config, std::move(options));
    EXPECT_THAT(created, IsOk());
    if (created.ok()) runner = *std::move(created);
  }

  FakeClock clock{absl::Milliseconds(250)};
  MemoryRunLog log;
  std::atomic<int> interrupt{0};
  float exported = -1;
  CountingModel* model = nullptr;
  std::unique_ptr<Runner> runner;
};

constexpr char kHalf[] = "momentum: 0.5";
// With it w averages to 1, 1.5, 2.25, 3.125, 4.0625, 5.03125.

float SavedWeight(io::Env& env, const std::string& name,
                  const std::string& section) {
  const auto contents = io::ReadCheckpoint(env, absl::StrCat("/run/", name));
  EXPECT_THAT(contents, IsOk());
  if (!contents.ok()) return -1;
  const TensorMap* tensors = contents->FindSection(section);
  EXPECT_NE(tensors, nullptr) << section;
  return tensors == nullptr ? -1 : (*tensors->Find("w"))[0].item<float>();
}

TEST(EMAHookTest, ValidationHasTheAverageAndTrainingItsOwnWeights) {
  const auto env = std::make_unique<io::MemEnv>();
  TestRun run(env.get(), {{kHalf}});
  ASSERT_THAT(run.runner->Train(), IsOk());
  EXPECT_THAT(run.model->evaluated,
              ElementsAre(1.5, 1.5, 3.125, 3.125, 5.03125, 5.03125));
  EXPECT_EQ(run.model->weight(), 6);
  for (const auto& [name, weight, average] :
       {std::tuple("epoch_1", 2, 1.5F), std::tuple("epoch_2", 4, 3.125F),
        std::tuple("epoch_3", 6, 5.03125F)}) {
    EXPECT_EQ(SavedWeight(*env, name, "model"), weight) << name;
    EXPECT_EQ(SavedWeight(*env, name, "ema"), average) << name;
  }
}

TEST(EMAHookTest, ALaterEvaluationUsesWhatTrainingLeft) {
  const auto env = std::make_unique<io::MemEnv>();
  TestRun run(env.get(), {{kHalf}});
  ASSERT_THAT(run.runner->Train(), IsOk());
  run.model->evaluated.clear();
  ASSERT_THAT(run.runner->Val(), IsOk());
  ASSERT_THAT(run.runner->Test(), IsOk());
  ASSERT_THAT(run.runner->Export("/model"), IsOk());
  EXPECT_THAT(run.model->evaluated,
              ElementsAre(5.03125, 5.03125, 5.03125, 5.03125));
  EXPECT_EQ(run.exported, 5.03125);
  EXPECT_EQ(run.model->weight(), 6);
}

TEST(EMAHookTest, AnEvaluationOfACheckpointUsesItsAverage) {
  const auto env = std::make_unique<io::MemEnv>();
  {
    TestRun run(env.get(), {{kHalf}});
    ASSERT_THAT(run.runner->Train(), IsOk());
  }
  for (const bool for_training : {false, true}) {
    for (const char* how : {"load_from: '/run/epoch_2'",
                            "load_from: '/run/epoch_2' resume: true"}) {
      SCOPED_TRACE(absl::StrCat(how, for_training ? ", for training" : ""));
      TestRun run(env.get(), {{kHalf}, how, for_training});
      ASSERT_THAT(run.runner->Test(), IsOk());
      EXPECT_THAT(run.model->evaluated, ElementsAre(3.125, 3.125));
      ASSERT_THAT(run.runner->Export("/model"), IsOk());
      EXPECT_EQ(run.exported, 3.125);
      EXPECT_EQ(run.model->weight(), 4);
    }
  }
}

TEST(EMAHookTest, AnEvaluationOfACheckpointWithoutAverageUsesItsWeights) {
  const auto env = std::make_unique<io::MemEnv>();
  {
    TestRun run(env.get(), Options({}));
    ASSERT_THAT(run.runner->Train(), IsOk());
  }
  TestRun run(env.get(), {{kHalf}, "load_from: '/run/epoch_2'", false});
  ASSERT_THAT(run.runner->Test(), IsOk());
  EXPECT_THAT(run.model->evaluated, ElementsAre(4, 4));
  EXPECT_THAT(run.log.messages(RunLog::Level::kWarning),
              Contains("the checkpoint has no average \"ema\": taking the "
                       "weights that are trained"));
}

TEST(EMAHookTest, TrainingAfterAnEvaluationOfACheckpointStartsOver) {
  const auto env = std::make_unique<io::MemEnv>();
  {
    TestRun run(env.get(), {{kHalf}});
    ASSERT_THAT(run.runner->Train(), IsOk());
  }
  TestRun run(env.get(), {{kHalf}, "load_from: '/run/epoch_2'"});
  ASSERT_THAT(run.runner->Val(), IsOk());
  run.model->evaluated.clear();
  ASSERT_THAT(run.runner->Train(), IsOk());
  // 5 is copied, and 6 comes in: nothing of 3.125.
  EXPECT_EQ(run.model->evaluated[0], 5.5);
}

TEST(EMAHookTest, AResumedRunGoesOnToTheBit) {
  for (const char* hook :
       {kHalf, "momentum: 0.3 begin_iter: 4", "momentum: 0.3 begin_epoch: 3",
        "ema_type { stochastic_weight_average {} } update_buffers: true",
        "momentum: 0.3 interval: 2 dtype: 'float64'"}) {
    const auto whole_env = std::make_unique<io::MemEnv>();
    TestRun whole(whole_env.get(), {{hook}});
    ASSERT_THAT(whole.runner->Train(), IsOk());
    for (int cut = 1; cut < 6; ++cut) {
      SCOPED_TRACE(absl::StrCat(hook, ", interrupted at validation ", cut));
      const auto env = std::make_unique<io::MemEnv>();
      Options options{{hook}};
      options.interrupt_at = cut;
      TestRun before(env.get(), std::move(options));
      ASSERT_THAT(before.runner->Train(),
                  StatusIs(absl::StatusCode::kCancelled, testing::_));
      TestRun after(env.get(), {{hook}, "resume: true"});
      ASSERT_THAT(after.runner->Train(), IsOk());
      EXPECT_EQ(SavedWeight(*env, "epoch_3", "ema"),
                SavedWeight(*whole_env, "epoch_3", "ema"));
      EXPECT_EQ(SavedWeight(*env, "epoch_3", "model"), 6);
    }
  }
}

TEST(EMAHookTest, AResumeWithoutAverageStartsFromItsWeights) {
  const auto env = std::make_unique<io::MemEnv>();
  {
    TestRun run(env.get(), {{}, "train_cfg { max_epochs: 2 }"});
    ASSERT_THAT(run.runner->Train(), IsOk());
  }
  TestRun run(env.get(), {{kHalf}, "resume: true"});
  ASSERT_THAT(run.runner->Train(), IsOk());
  // The validation that was due at the checkpoint comes first.
  EXPECT_THAT(run.model->evaluated, ElementsAre(4, 4, 5.5, 5.5));
  EXPECT_THAT(run.log.messages(RunLog::Level::kWarning),
              Contains("the checkpoint has no average \"ema\": it starts with "
                       "the weights that are trained"));
}

TEST(EMAHookTest, AResumeWithALaterBeginStartsTheAverageOver) {
  const auto env = std::make_unique<io::MemEnv>();
  {
    TestRun run(env.get(), {{kHalf}, "train_cfg { max_epochs: 1 }"});
    ASSERT_THAT(run.runner->Train(), IsOk());
  }
  TestRun run(env.get(),
              {{absl::StrCat(kHalf, " begin_epoch: 3")}, "resume: true"});
  ASSERT_THAT(run.runner->Train(), IsOk());
  EXPECT_THAT(run.model->evaluated, ElementsAre(2, 2, 4, 4, 5.5, 5.5));
  EXPECT_THAT(run.log.messages(RunLog::Level::kWarning),
              Contains("average \"ema\": begins later than it did when it was "
                       "saved: its 2 updates are dropped"));
}

// The state says that there were updates, and there is nothing of them.
TEST(EMAHookTest, ACheckpointThatLostItsSectionStartsTheAverageOver) {
  const auto env = std::make_unique<io::MemEnv>();
  {
    TestRun run(env.get(), {{kHalf}, "train_cfg { max_epochs: 2 }"});
    ASSERT_THAT(run.runner->Train(), IsOk());
  }
  auto contents = io::ReadCheckpoint(*env, "/run/epoch_2");
  ASSERT_THAT(contents, IsOk());
  for (auto section = contents->sections.begin();; ++section) {
    ASSERT_NE(section, contents->sections.end());
    if (section->first != "ema") continue;
    contents->sections.erase(section);
    break;
  }
  ASSERT_THAT(io::WriteCheckpoint(*env, "/run", "epoch_2", *contents), IsOk());
  TestRun run(env.get(), {{kHalf}, "resume: true"});
  ASSERT_THAT(run.runner->Train(), IsOk());
  EXPECT_THAT(run.model->evaluated, ElementsAre(4, 4, 5.5, 5.5));
}

// As of any other part of a checkpoint: the run isn't to go on without it.
TEST(EMAHookTest, AnAverageThatDoesNotFitIsTheCheckpointsFault) {
  const auto env = std::make_unique<io::MemEnv>();
  {
    TestRun run(env.get(), {{kHalf}, "train_cfg { max_epochs: 2 }"});
    ASSERT_THAT(run.runner->Train(), IsOk());
  }
  auto contents = io::ReadCheckpoint(*env, "/run/epoch_2");
  ASSERT_THAT(contents, IsOk());
  for (auto& [name, tensors] : contents->sections) {
    if (name != "ema") continue;
    TensorMap other;
    for (const NamedTensor& tensor : tensors) {
      ASSERT_THAT(other.Add(tensor.name, ops::ones({7, 7})), IsOk());
    }
    tensors = std::move(other);
  }
  ASSERT_THAT(io::WriteCheckpoint(*env, "/run", "epoch_2", *contents), IsOk());
  TestRun run(env.get(), {{kHalf}, "resume: true"});
  for (int call = 0; call < 2; ++call) {
    const absl::Status status = run.runner->Train();
    EXPECT_THAT(status, StatusIs(absl::StatusCode::kInvalidArgument,
                                 HasSubstr("AfterRestore: section \"ema\"")));
    EXPECT_EQ(OriginOf(status), ErrorOrigin::kCheckpoint);
  }
}

TEST(EMAHookTest, AnErrorInValidationGivesTheWeightsBack) {
  const auto env = std::make_unique<io::MemEnv>();
  TestRun run(env.get(), {{kHalf}});
  run.model->fail_validation = true;
  EXPECT_THAT(run.runner->Train(), StatusIs(absl::StatusCode::kInternal,
                                            HasSubstr("no validation")));
  EXPECT_THAT(run.model->evaluated, ElementsAre(1.5));
  EXPECT_EQ(run.model->weight(), 2);
  // And the run can go on.
  run.model->fail_validation = false;
  ASSERT_THAT(run.runner->Val(), IsOk());
  EXPECT_THAT(run.model->evaluated, ElementsAre(1.5, 1.5, 1.5));
  EXPECT_EQ(run.model->weight(), 2);
}

TEST(EMAHookTest, AnErrorInExportGivesTheWeightsBack) {
  const auto env = std::make_unique<io::MemEnv>();
  TestRun run(env.get(), {{kHalf}});
  ASSERT_THAT(run.runner->Train(), IsOk());
  run.model->fail_export = true;
  EXPECT_THAT(run.runner->Export("/model"),
              StatusIs(absl::StatusCode::kInternal, HasSubstr("no export")));
  EXPECT_EQ(run.model->weight(), 6);
}

TEST(EMAHookTest, AnInterruptedValidationSavesTheTrainedWeights) {
  const auto env = std::make_unique<io::MemEnv>();
  Options options{{kHalf}, "default_hooks { checkpoint { interval: -1 } }"};
  options.interrupt_at = 3;
  TestRun run(env.get(), std::move(options));
  EXPECT_THAT(run.runner->Train(),
              StatusIs(absl::StatusCode::kCancelled, testing::_));
  EXPECT_EQ(SavedWeight(*env, "epoch_2", "model"), 4);
  EXPECT_EQ(SavedWeight(*env, "epoch_2", "ema"), 3.125);
  EXPECT_EQ(run.model->weight(), 4);
}

// Asks for a checkpoint, before the average has left the model.
class EarlySaver : public Hook {
 public:
  absl::string_view name() const override { return "early_saver"; }
  Priority priority() const override { return Priority::kHighest; }
  absl::Status AfterValEpoch(RunContext& run, const Metrics&) override {
    SaveRequest request;
    request.name = "best_of_all";
    return run.Save(std::move(request));
  }
};

TEST(EMAHookTest, ACheckpointOfAnyHookHasTheTrainedWeights) {
  const auto env = std::make_unique<io::MemEnv>();
  Options options{{kHalf}};
  options.observer = std::make_unique<EarlySaver>();
  TestRun run(env.get(), std::move(options));
  ASSERT_THAT(run.runner->Train(), IsOk());
  EXPECT_EQ(SavedWeight(*env, "best_of_all", "model"), 6);
  EXPECT_EQ(SavedWeight(*env, "best_of_all", "ema"), 5.03125);
}

// --------------------------------------------------------------- many at once

struct EvaluatedCase {
  std::string name;
  std::vector<std::string> hooks;
  std::vector<float> evaluated;  // First step of each validation.
};

class EMAHookEvaluatedTest : public testing::TestWithParam<EvaluatedCase> {};

TEST_P(EMAHookEvaluatedTest, OneAverageIsEvaluated) {
  const auto env = std::make_unique<io::MemEnv>();
  TestRun run(env.get(), {GetParam().hooks});
  ASSERT_THAT(run.runner->Train(), IsOk());
  std::vector<float> evaluated;
  for (size_t i = 0; i < run.model->evaluated.size(); i += 2) {
    evaluated.push_back(run.model->evaluated[i]);
  }
  EXPECT_EQ(evaluated, GetParam().evaluated);
  EXPECT_EQ(run.model->weight(), 6);
}

constexpr char kMean[] =
    "name: 'mean' ema_type { stochastic_weight_average {} } ";

INSTANTIATE_TEST_SUITE_P(
    Hooks, EMAHookEvaluatedTest,
    testing::Values(
        EvaluatedCase{"First", {kHalf, kMean}, {1.5, 3.125, 5.03125}},
        EvaluatedCase{"FirstAlsoIfNamed", {kMean, kHalf}, {1.5, 2.5, 3.5}},
        EvaluatedCase{"Asked",
                      {kHalf, absl::StrCat(kMean, "evaluate: true")},
                      {1.5, 2.5, 3.5}},
        EvaluatedCase{"NotTheOneThatDeclines",
                      {absl::StrCat(kHalf, " evaluate: false"), kMean},
                      {1.5, 2.5, 3.5}},
        EvaluatedCase{
            "None", {absl::StrCat(kHalf, " evaluate: false")}, {2, 4, 6}}),
    [](const auto& info) { return info.param.name; });

TEST(EMAHookTest, EveryAverageHasItsSection) {
  const auto env = std::make_unique<io::MemEnv>();
  TestRun run(env.get(), {{kHalf, kMean}});
  ASSERT_THAT(run.runner->Train(), IsOk());
  EXPECT_EQ(SavedWeight(*env, "epoch_3", "ema"), 5.03125);
  EXPECT_EQ(SavedWeight(*env, "epoch_3", "ema_mean"), 3.5);
}

TEST(EMAHookTest, TwoThatAskToBeEvaluatedAreRefused) {
  const auto env = std::make_unique<io::MemEnv>();
  TestRun run(env.get(), {{absl::StrCat(kHalf, " evaluate: true"),
                           absl::StrCat(kMean, "evaluate: true")}});
  EXPECT_THAT(run.runner->Train(),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("hook \"ema_mean\": Setup: evaluate: is true, "
                                 "and also in the hook \"ema\"")));
}

// ------------------------------------------------------------------- configs

TEST(EMAHookTest, IsNamedInTextAsEverybodyWritesIt) {
  const auto config = ParseRunnerConfig(
      "custom_hooks { config { [hooks/EMAHook] { momentum: 0.001 } } }",
      ConfigFormat::kText, "run.textproto");
  ASSERT_THAT(config, IsOk());
  const auto hook = CreateHook(config->custom_hooks(0).config());
  ASSERT_THAT(hook, IsOk());
  EXPECT_EQ(hook->hook->name(), "ema");
  EXPECT_EQ(hook->priority, 50);
}

TEST(EMAHookTest, BeginsAtTheEpochOrIterationThatIsAsked) {
  struct Case {
    const char* config;
    std::vector<int> steps;  // After each of six iterations of two an epoch.
  };
  for (const Case& c :
       {Case{"", {1, 2, 3, 4, 5, 6}}, Case{"begin_iter: 1", {1, 2, 3, 4, 5, 6}},
        Case{"begin_iter: 3", {0, 0, 1, 2, 3, 4}},
        Case{"begin_iter: 6", {0, 0, 0, 0, 0, 1}},
        Case{"begin_epoch: 1", {1, 2, 3, 4, 5, 6}},
        Case{"begin_epoch: 3", {0, 0, 0, 0, 1, 2}}}) {
    SCOPED_TRACE(c.config);
    const auto hook = EMAHook::Create(Config(c.config));
    ASSERT_THAT(hook, IsOk());
    CountingModel model;
    FakeRunContext run;
    run.the_model = &model;
    run.total_epochs = 3;
    run.total_iters = 6;
    ASSERT_THAT((*hook)->Setup(run), IsOk());
    ASSERT_THAT((*hook)->BeforeRun(run), IsOk());
    ASSERT_THAT((*hook)->BeforeTrain(run), IsOk());
    for (int i = 0; i < 6; ++i) {
      run.iters = i;
      run.epochs = i / 2;
      model.parameters()[0].tensor.detach().fill_(i);
      ASSERT_THAT((*hook)->AfterTrainIter(run, IterInfo(), LogVars()), IsOk());
      EXPECT_EQ((*hook)->steps(), c.steps[i]);
      if (c.steps[i] > 1) continue;
      // Until there is a mixture the average is the weights, for all to see.
      const auto average = (*hook)->AveragedWeights();
      ASSERT_THAT(average, IsOk());
      EXPECT_EQ((*average->Find("w"))[0].item<float>(), i);
    }
  }
}

TEST(EMAHookTest, AveragedWeightsAreTheAverageAlsoWhileTheModelHasThem) {
  const auto hook = EMAHook::Create(
      Config("ema_type { stochastic_weight_average {} } begin_iter: 2"));
  ASSERT_THAT(hook, IsOk());
  const EMAHook& looked_at = **hook;
  CountingModel model;
  FakeRunContext run;
  run.the_model = &model;
  run.total_epochs = 1;
  run.total_iters = 3;
  const auto look = [&] {
    const auto average = looked_at.AveragedWeights();
    EXPECT_THAT(average, IsOk());
    return (*average->Find("w"))[0].item<float>();
  };
  ASSERT_THAT((*hook)->Setup(run), IsOk());
  ASSERT_THAT((*hook)->BeforeRun(run), IsOk());
  ASSERT_THAT((*hook)->BeforeTrain(run), IsOk());
  const at::Tensor w = model.parameters()[0].tensor.detach();
  for (int i = 0; i < 3; ++i) {
    run.iters = i;
    w.fill_(10 * i);
    EXPECT_EQ(look(), i == 2 ? 10 : 10 * i);
    ASSERT_THAT((*hook)->AfterTrainIter(run, IterInfo(), LogVars()), IsOk());
  }
  EXPECT_EQ(look(), 15);
  EXPECT_EQ(looked_at.steps(), 2) << "looking is no update";
  ASSERT_THAT((*hook)->BeforeValEpoch(run), IsOk());
  EXPECT_EQ(model.weight(), 15);
  EXPECT_EQ(look(), 15);
  ASSERT_THAT((*hook)->AfterValEpoch(run, Metrics()), IsOk());
  EXPECT_EQ(model.weight(), 20);
  EXPECT_EQ(look(), 15);
}

TEST(EMAHookTest, WhatTheStrategyWarnsOfIsInTheRunsLog) {
  const auto hook = EMAHook::Create(Config("name: 'slow' momentum: 0.9"));
  ASSERT_THAT(hook, IsOk());
  CountingModel model;
  FakeRunContext run;
  run.the_model = &model;
  run.total_epochs = 1;
  run.total_iters = 3;
  testing::internal::CaptureStderr();
  ASSERT_THAT((*hook)->Setup(run), IsOk());
  ASSERT_THAT((*hook)->BeforeTrain(run), IsOk());
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
  EXPECT_THAT(run.run_log.messages(RunLog::Level::kWarning),
              ElementsAre(HasSubstr(
                  "average \"ema_slow\": momentum: is 0.9, the weight of the "
                  "new value")));
}

TEST(EMAHookTest, BeginningAfterTheLastEpochIsRefused) {
  const auto hook = EMAHook::Create(Config("begin_epoch: 4"));
  ASSERT_THAT(hook, IsOk());
  CountingModel model;
  FakeRunContext run;
  run.the_model = &model;
  run.total_epochs = 3;
  run.total_iters = 6;
  ASSERT_THAT((*hook)->Setup(run), IsOk());
  EXPECT_THAT((*hook)->BeforeTrain(run),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("begin_epoch: must be at most the run's 3 "
                                 "epochs, is 4")));
}

}  // namespace
}  // namespace grapnel
