// What a run begins with, what an evaluation loads, and text that is not UTF-8
// on its way into checkpoints.

#include "grapnel/io/weights.h"

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <variant>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "gmock/gmock.h"
#include "google/protobuf/wrappers.pb.h"
#include "grapnel/base/fake_clock.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/data/dataset.h"
#include "grapnel/data/sample.h"
#include "grapnel/data/tensor_dataset.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/env.h"
#include "grapnel/io/mem_env.h"
#include "grapnel/io/pth_writer.h"
#include "grapnel/io/safetensors.h"
#include "grapnel/loggers/memory_run_log.h"
#include "grapnel/models/log_vars.h"
#include "grapnel/models/metric.h"
#include "grapnel/models/model.h"
#include "grapnel/runner/config_file.h"
#include "grapnel/runner/hook.h"
#include "grapnel/runner/hook_registry.h"
#include "grapnel/runner/message_hub.h"
#include "grapnel/runner/parse_config_for_test.h"
#include "grapnel/runner/run_checkpoint.h"
#include "grapnel/runner/run_context.h"
#include "grapnel/runner/run_state.pb.h"
#include "grapnel/runner/runner.h"
#include "grapnel/runner/runner_config.pb.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;

// `config` with what the texts set.
template <typename... Texts>
runner::v1::RunnerConfig With(runner::v1::RunnerConfig config,
                              const Texts&... texts) {
  config.MergeFrom(ParseConfig(absl::StrCat(texts...)));
  return config;
}

// Two layers, the second with `outputs`: 12 samples in batches of 4.
runner::v1::RunnerConfig Config(int outputs = 1,
                                const std::string& second = "head") {
  runner::v1::RunnerConfig config = ParseConfig(R"pb(
    work_dir: "/run"
    randomness { seed: 1 }
    model {
      sequential {
        layers {
          linear { out_features: 3 }
          name: "body"
        }
        layers { linear {} }
        loss { mse {} }
      }
    }
    train_dataloader { batch_size: 4 }
    val_dataloader { batch_size: 4 }
    test_dataloader { batch_size: 4 }
    train_cfg { max_epochs: 2 }
    optim_wrapper { optimizer { sgd { lr: 0.1 } } }
    val_evaluator { mse {} }
    test_evaluator { mse {} }
    default_hooks { checkpoint { interval: 1 } }
  )pb");
  auto& layer =
      *config.mutable_model()->mutable_sequential()->mutable_layers(1);
  layer.mutable_linear()->set_out_features(outputs);
  layer.set_name(second);
  return config;
}

class WeightsTest : public ::testing::Test {
 protected:
  absl::StatusOr<std::unique_ptr<Runner>> Create(
      const runner::v1::RunnerConfig& config, RunnerOptions options = {},
      int64_t outputs = 1) {
    if (options.env == nullptr) options.env = &env_;
    options.clock = &clock_;
    options.log = &log_;
    const auto data = [&](std::unique_ptr<Dataset>* dataset) {
      auto tensors = TensorDataset::Create(ops::full({12, 2}, 0.5),
                                           ops::ones({12, outputs}));
      EXPECT_THAT(tensors, IsOk());
      *dataset = *std::move(tensors);
    };
    data(&options.train_dataset);
    data(&options.val_dataset);
    data(&options.test_dataset);
    return Runner::Create(config, std::move(options));
  }

  std::unique_ptr<Runner> New(const runner::v1::RunnerConfig& config,
                              RunnerOptions options = {}, int64_t outputs = 1) {
    auto runner = Create(config, std::move(options), outputs);
    EXPECT_THAT(runner, IsOk());
    return *std::move(runner);
  }

  // For an evaluation, as the command line makes it.
  std::unique_ptr<Runner> NewTest(const runner::v1::RunnerConfig& config) {
    RunnerOptions options;
    options.for_training = false;
    return New(config, std::move(options));
  }

  void Train(const runner::v1::RunnerConfig& config) {
    ASSERT_THAT(New(config)->Train(), IsOk());
  }

  const at::Tensor& Param(Runner& runner, absl::string_view name) {
    for (const NamedTensor& p : runner.context().model().parameters()) {
      if (p.name == name) return p.tensor;
    }
    ADD_FAILURE() << name;
    return runner.context().model().parameters()[0].tensor;
  }

  at::Tensor Saved(const std::string& path, absl::string_view name) {
    const auto weights = io::ReadWeights(env_, path);
    EXPECT_THAT(weights, IsOk());
    return *weights->Find(name);
  }

  void ExpectTakes(Runner& runner, absl::string_view name,
                   const std::string& path, absl::string_view saved_name) {
    EXPECT_TRUE(Param(runner, name).equal(Saved(path, saved_name))) << name;
  }

  io::MemEnv env_;
  FakeClock clock_;
  MemoryRunLog log_;
};

// -------------------------------------------------------------- evaluations

TEST_F(WeightsTest, AnEvaluationOfWeightsThatAreNotThereIsRefused) {
  Train(Config());
  for (const bool for_training : {false, true}) {
    RunnerOptions options;
    options.for_training = for_training;
    const auto runner =
        New(With(Config(1, "tail"), "load_from: '/run/epoch_2'"),
            std::move(options));
    const auto metrics = runner->Test();
    EXPECT_THAT(
        metrics.status(),
        StatusIs(absl::StatusCode::kInvalidArgument,
                 "/run/epoch_2: tensors don't match the model's: missing: 2 "
                 "(tail.weight, tail.bias); unexpected: 2 (head.weight, "
                 "head.bias)"));
    EXPECT_EQ(OriginOf(metrics.status()), ErrorOrigin::kCheckpoint);
    EXPECT_FALSE(runner->Val().ok());
    EXPECT_EQ(OriginOf(runner->Export("/x")), ErrorOrigin::kCheckpoint);
  }
}

TEST_F(WeightsTest, AnEvaluationTakesPartOfItIfAskedTo) {
  Train(Config());
  const auto runner =
      NewTest(With(Config(1, "tail"), "load_from: '/run/epoch_2' ",
                   "load_options { strict: false }"));
  ASSERT_THAT(runner->Test(), IsOk());
  ExpectTakes(*runner, "body.weight", "/run/epoch_2", "body.weight");
  EXPECT_THAT(log_.messages(), AllOf(Contains("missing: tail.weight"),
                                     Contains("unexpected: head.bias")));
}

TEST_F(WeightsTest, NothingInCommonIsAlwaysRefused) {
  TensorMap other;
  ASSERT_THAT(other.Add("classifier", ops::ones({2})), IsOk());
  ASSERT_THAT(io::WriteSafetensors(env_, "/other.safetensors", other), IsOk());
  const auto config = With(Config(), "load_from: '/other.safetensors' ",
                           "load_options { strict: false }");
  EXPECT_THAT(NewTest(config)->Test(),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("there is nothing for the model")));
  EXPECT_THAT(New(config)->Train(),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("there is nothing for the model")));
}

// ----------------------------------------------------- starting from weights

TEST_F(WeightsTest, ATrainingLeavesOutWhatDoesNotFitAndSaysSo) {
  Train(Config());
  const std::string load = "work_dir: '/other' load_from: '/run/epoch_2' ";
  const auto fresh = New(Config(4), {}, 4);
  const at::Tensor begun = Param(*fresh, "head.weight").clone();
  const auto runner = New(With(Config(4), load,
                               "train_cfg { max_epochs: 1 } "
                               "optim_wrapper { optimizer { sgd { lr: "
                               "0 } } }"),
                          {}, 4);
  ASSERT_THAT(runner->Train(), IsOk());
  ExpectTakes(*runner, "body.weight", "/run/epoch_2", "body.weight");
  EXPECT_TRUE(Param(*runner, "head.weight").equal(begun));
  EXPECT_THAT(
      log_.messages(),
      AllOf(Contains("mismatched: head.weight: has the shape (1, 3), the "
                     "model's is (4, 3)"),
            Contains("mismatched: head.bias: has the shape (1,), the model's "
                     "is (4,)")));

  EXPECT_THAT(New(With(With(Config(4), load),
                       "work_dir: '/third' load_options { strict: true }"),
                  {}, 4)
                  ->Train(),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("mismatched: 2 (head.weight: has the shape")));
}

TEST_F(WeightsTest, RulesLeaveOutAndRename) {
  Train(Config());
  const auto runner = NewTest(
      With(Config(1, "tail"), "load_from: '/run/epoch_2' ",
           "load_options { rename { pattern: '^head' replacement: 'tail' } }"));
  ASSERT_THAT(runner->Test(), IsOk());
  ExpectTakes(*runner, "tail.weight", "/run/epoch_2", "head.weight");

  const auto excluded =
      New(With(Config(), "work_dir: '/other' load_from: '/run/epoch_2' ",
               "load_options { exclude: '^head\\\\.' exclude: 'nose' }"));
  ASSERT_THAT(excluded->Train(), IsOk());
  EXPECT_THAT(log_.messages(),
              AllOf(Contains("missing: head.weight"),
                    Contains("load_options: exclude[1]: no name matches "
                             "\"nose\"")));

  const auto twice =
      New(With(Config(), "work_dir: '/third' load_from: '/run/epoch_2' ",
               "load_options { rename { pattern: '^(head|body)' } }"));
  EXPECT_THAT(twice->Train(),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("load_options: rename: "),
                             HasSubstr("both become \".weight\""))));
  EXPECT_THAT(Create(With(Config(), "load_options { exclude: '(' }")),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("load_options: exclude[0]: \"(\"")));
}

TEST_F(WeightsTest, AResumedRunTakesAllWhateverTheRulesSay) {
  Train(Config());
  const auto runner =
      New(With(Config(), "resume: true load_options { exclude: 'head' }",
               "train_cfg { max_epochs: 3 }"));
  ASSERT_THAT(runner->Train(), IsOk());
  EXPECT_EQ(runner->context().epoch(), 3);
  EXPECT_THAT(log_.messages(), Contains("resumed epoch: 2, iter: 6"));
}

TEST_F(WeightsTest, ATestOfTheRunsOwnCheckpointTakesAllWhateverTheRulesSay) {
  Train(Config());
  const auto runner =
      NewTest(With(Config(),
                   "resume: true load_options { exclude: 'head' rename { "
                   "pattern: '^' replacement: 'other.' } }"));
  ASSERT_THAT(runner->Test(), IsOk());
  ExpectTakes(*runner, "head.weight", "/run/epoch_2", "head.weight");
}

TEST_F(WeightsTest, AValidationThatIsRefusedDoesNotEndTheTraining) {
  Train(Config());
  const auto runner = New(
      With(Config(1, "tail"), "load_from: '/run/epoch_2' work_dir: '/other'"));
  EXPECT_THAT(runner->Val(), StatusIs(absl::StatusCode::kInvalidArgument,
                                      HasSubstr("missing: 2 (tail.")));
  EXPECT_THAT(runner->Train(), IsOk());
  EXPECT_THAT(log_.messages(), Contains("missing: tail.weight"));
}

TEST_F(WeightsTest, AnEvaluationsConfigNamesTheCheckpointThatItWasOf) {
  runner::v1::RunnerConfig config =
      With(Config(),
           "work_dir: '/run/x' "
           "default_hooks { checkpoint { out_dir: '/run/x/out' } }");
  Train(config);
  config.set_resume(true);
  const auto tested = NewTest(config);
  ASSERT_THAT(tested->Test(), IsOk());
  const auto dumped = [&](const std::string& dir) {
    return io::ReadFile(env_, io::JoinPath(dir, "grapnel.textproto"))
        .value_or("none");
  };
  // Beside the logs, two folders up from them.
  EXPECT_THAT(
      dumped(tested->context().log_dir()),
      AllOf(HasSubstr("load_from: \"../out/x/epoch_2\""),
            HasSubstr("work_dir: \"..\""), Not(HasSubstr("resume: true"))));
  // What is in work_dir goes along when that is moved.
  EXPECT_THAT(dumped("/run/x"), AllOf(HasSubstr("out_dir: \"out\""),
                                      HasSubstr("work_dir: \".\"")));
}

TEST_F(WeightsTest, AFileOfWeightsIsToStartFromAndToTest) {
  Train(Config());
  const auto weights = io::ReadWeights(env_, "/run/epoch_2");
  ASSERT_THAT(weights, IsOk());
  ASSERT_THAT(io::WritePthWeights(env_, "/run/w.pth", *weights), IsOk());
  ASSERT_THAT(env_.CreateDir("/hub"), IsOk());
  ASSERT_THAT(io::WriteSafetensors(env_, "/hub/model.safetensors", *weights),
              IsOk());
  for (const auto& [path, why] :
       {std::pair<std::string, const char*>("/run/epoch_2/model.safetensors",
                                            "weights alone"),
        {"/run/w.pth", "`grapnel ckpt import`"},
        {"/hub", "weights alone"}}) {
    SCOPED_TRACE(path);
    const std::string load = absl::StrCat("load_from: '", path, "' ");
    const auto tested = NewTest(With(Config(), load));
    ASSERT_THAT(tested->Test(), IsOk());
    ExpectTakes(*tested, "head.weight", "/run/epoch_2", "head.weight");
    const auto trained =
        New(With(Config(), load, "work_dir: '/other' ",
                 "optim_wrapper { optimizer { sgd { lr: 0 } } }"));
    ASSERT_THAT(trained->Train(), IsOk());
    ExpectTakes(*trained, "head.weight", "/run/epoch_2", "head.weight");

    EXPECT_THAT(Create(With(Config(), load, "resume: true")),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         AllOf(HasSubstr(absl::StrCat("resume: ", path)),
                               HasSubstr(why))));
  }
}

// Of Python's averages, which its own evaluations see.
TEST_F(WeightsTest, AnAverageOfPythonsIsTestedWithAnAverageAndWithout) {
  Train(Config());
  const auto weights = io::ReadWeights(env_, "/run/epoch_2");
  ASSERT_THAT(weights, IsOk());
  const auto writer = io::PthWriter::Create(env_, "/average.pth");
  ASSERT_THAT(writer, IsOk());
  (*writer)->BeginDict();
  (*writer)->String("n_averaged");
  (*writer)->Tensor(ops::full({}, 2, at::kLong));
  for (const NamedTensor& tensor : *weights) {
    (*writer)->String(absl::StrCat("module.", tensor.name));
    (*writer)->Tensor(tensor.tensor);
  }
  (*writer)->End();
  ASSERT_THAT((*writer)->Finish(), IsOk());
  for (const char* const hook :
       {"",
        "custom_hooks { config { "
        "[type.googleapis.com/grapnel.hooks.v1.EMAHookConfig] {} } }"}) {
    const auto tested =
        NewTest(With(Config(), "load_from: '/average.pth' ", hook));
    ASSERT_THAT(tested->Test(), IsOk());
    ExpectTakes(*tested, "head.weight", "/run/epoch_2", "head.weight");
    EXPECT_THAT(log_.messages(), Not(Contains(HasSubstr("has no average"))));
  }
}

// -------------------------------------------------------- the resolved config

TEST_F(WeightsTest, TheConfigThatIsSavedIsTheSameRunFromAnywhere) {
  Train(Config());
  const auto weights = io::ReadWeights(env_, "/run/epoch_2");
  ASSERT_THAT(weights, IsOk());
  ASSERT_THAT(env_.CreateDir("/cfg"), IsOk());
  ASSERT_THAT(io::WriteSafetensors(env_, "/cfg/l.safetensors", *weights),
              IsOk());
  RunnerOptions options;
  options.base_dir = "/cfg";
  auto runner =
      New(With(Config(), "work_dir: './runs/a' load_from: 'l.safetensors'"),
          std::move(options));
  EXPECT_EQ(runner->context().work_dir(), "/cfg/runs/a");
  const auto saved = ParseRunnerConfig(runner->context().config_text(),
                                       ConfigFormat::kText, "text");
  ASSERT_THAT(saved, IsOk());
  EXPECT_EQ(saved->work_dir(), "/cfg/runs/a");
  EXPECT_EQ(saved->load_from(), "/cfg/l.safetensors");
  const auto dumped = LoadRunnerConfig(env_, "/cfg/runs/a/grapnel.textproto");
  ASSERT_THAT(dumped, IsOk());
  EXPECT_EQ(dumped->work_dir(), ".");
  EXPECT_EQ(dumped->load_from(), "/cfg/l.safetensors");

  runner.reset();
  RunnerOptions again;
  again.base_dir = "/cfg/runs/a";
  const auto second = Create(*dumped, std::move(again));
  ASSERT_THAT(second, IsOk());
  EXPECT_EQ((*second)->context().work_dir(), "/cfg/runs/a");
}

// ------------------------------------------------------------ what isn't UTF-8

TEST_F(WeightsTest, AConfigOfOtherTextIsRefusedBeforeAnythingIsWritten) {
  runner::v1::RunnerConfig config = Config();
  config.set_work_dir("/caf\xe9");
  EXPECT_THAT(Create(config),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("work_dir: not UTF-8 from byte 4 on")));
  EXPECT_FALSE(env_.FileExists("/caf\xe9"));

  RunnerOptions options;
  options.base_dir = "/caf\xe9";
  EXPECT_THAT(Create(Config(), std::move(options)),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("folder: not UTF-8 from byte 4 on")));
  EXPECT_FALSE(env_.FileExists("/run"));
}

// Gives everything a name that is none.
class MisnamingHook : public Hook {
 public:
  absl::string_view name() const override { return "misnaming"; }
  google::protobuf::Message* mutable_state() override { return &state; }
  absl::Status AfterTrainIter(RunContext& run, const IterInfo&,
                              const LogVars&) override {
    MessageHub& hub = run.message_hub();
    hub.Scalar("train/caf\xe9").Add(2.0);
    hub.Scalar("train/caf\xe8").Add(3.0);
    hub.SetInfo("inf\xff", std::string("\xfe"));
    hub.InfoSlot("slot") = std::string("\xfd");
    return absl::OkStatus();
  }

  google::protobuf::StringValue state;
};

class MisnamedMetric : public Metric {
 public:
  absl::Status Process(const Predictions&, const Batch&) override {
    return absl::OkStatus();
  }
  absl::Status Compute(Metrics* metrics) override {
    metrics->emplace_back("m\xe9", 1.0);
    metrics->emplace_back("t\xe9xt", std::string("\xff"));
    return absl::OkStatus();
  }
  void Reset() override {}
};

TEST_F(WeightsTest, NamesThatAreNotTextAreEscapedAndTheRunResumes) {
  const auto options = [] {
    RunnerOptions options;
    options.hooks.push_back(Schedule(std::make_unique<MisnamingHook>()));
    options.val_metrics.push_back(std::make_unique<MisnamedMetric>());
    return options;
  };
  ASSERT_THAT(New(Config(), options())->Train(), IsOk());
  const auto saved = io::ReadCheckpoint(env_, "/run/epoch_2");
  ASSERT_THAT(saved, IsOk());
  EXPECT_THAT(ReadRunState(*saved), IsOk());

  const auto runner = New(
      With(Config(), "resume: true train_cfg { max_epochs: 3 }"), options());
  ASSERT_THAT(runner->Train(), IsOk());
  MessageHub& hub = runner->context().message_hub();
  for (const auto& [name, value] :
       {std::pair("train/caf\\xe9", 2.0), std::pair("train/caf\\xe8", 3.0),
        std::pair("val/m\\xe9", 1.0)}) {
    const HistoryBuffer* history = hub.FindScalar(name);
    ASSERT_NE(history, nullptr) << name;
    EXPECT_EQ(history->GlobalMean().value_or(-1), value) << name;
  }
  EXPECT_EQ(hub.FindScalar("train/caf\xe9")->num_entries(), 9);
  EXPECT_EQ(std::get<std::string>(*hub.FindInfo("inf\xff")), "\\xfe");
  EXPECT_EQ(std::get<std::string>(*hub.FindInfo("val/t\\xe9xt")), "\\xff");
}

TEST_F(WeightsTest, AHooksStateThatCannotBeReadBackIsNotSaved) {
  auto hook = std::make_unique<MisnamingHook>();
  hook->state.set_value("\xff");
  RunnerOptions options;
  options.hooks.push_back(Schedule(std::move(hook)));
  EXPECT_THAT(New(Config(), std::move(options))->Train(),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("hook \"misnaming\": its state: value: not "
                                 "UTF-8 from byte 0 on")));
  EXPECT_FALSE(env_.FileExists("/run/epoch_1"));
}

}  // namespace
}  // namespace grapnel
