// What golden/edge.json says of resuming, of what a checkpoint holds, of what
// hooks see, and of wrong arguments. The rest of it is run by
// checkpoint_phases_test, ema_hook_test and the tests of the logger's parts.

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "c10/core/GradMode.h"
#include "google/protobuf/text_format.h"
#include "grapnel/base/fake_clock.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/hooks/checkpoint/checkpoint_hook.pb.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/checkpoint_manifest.pb.h"
#include "grapnel/io/mem_env.h"
#include "grapnel/loggers/memory_run_log.h"
#include "grapnel/loggers/run_log.h"
#include "grapnel/models/model.h"
#include "grapnel/optim/param_scheduler.pb.h"
#include "grapnel/runner/config_file.h"
#include "grapnel/runner/hook.h"
#include "grapnel/runner/hook_registry.h"
#include "grapnel/runner/message_hub.h"
#include "grapnel/runner/message_hub.pb.h"
#include "grapnel/runner/run_checkpoint.h"
#include "grapnel/runner/run_context.h"
#include "grapnel/runner/run_state.pb.h"
#include "grapnel/runner/runner.h"
#include "grapnel/runner/runner_config.pb.h"
#include "grapnel/tests/golden/golden_report.h"
#include "grapnel/tests/golden/golden_run.h"
#include "grapnel/tests/golden/rate_recorder.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::Contains;
using ::testing::DoubleEq;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::Eq;
using ::testing::HasSubstr;

GoldenCase Edge(const std::string& name, const std::string& difference = "") {
  return GoldenCase("edge.json", absl::StrCat("cases/", name), difference);
}

Json Observed(const std::string& name) {
  Json golden = ReadGoldenCase("edge", name);
  EXPECT_TRUE(golden.contains("observed")) << name;
  return golden["observed"];
}

class EdgeTest : public testing::Test {
 protected:
  // Adds a hook to the run that is created next.
  template <typename H, typename... Args>
  void Add(Args&&... args) {
    hooks_.push_back(
        Schedule(std::make_unique<H>(std::forward<Args>(args)...)));
  }

  // `more`: fields of a RunnerConfig, as text.
  absl::StatusOr<std::unique_ptr<Runner>> Create(const Json& config,
                                                 const std::string& more = "") {
    RunnerOptions options;
    options.env = &env_;
    options.clock = &clock_;
    options.log = &log_;
    options.hooks = std::move(hooks_);
    hooks_.clear();
    runner::v1::RunnerConfig parsed;
    if (!more.empty()) {
      GRAPNEL_ASSIGN_OR_RETURN(
          parsed, ParseRunnerConfig(more, ConfigFormat::kText, "more"));
    }
    return CreateGoldenRunner(config, std::move(options), parsed);
  }

  std::unique_ptr<Runner> Train(const Json& config,
                                const std::string& more = "") {
    auto runner = Create(config, more);
    EXPECT_THAT(runner, IsOk());
    if (!runner.ok()) return nullptr;
    EXPECT_THAT((*runner)->Train(), IsOk());
    return *std::move(runner);
  }

  // The rate of each iteration.
  std::vector<double> TrainedRates(const Json& config) {
    std::vector<double> rates;
    Add<RateRecorder>(&rates);
    Train(config);
    return rates;
  }

  std::vector<std::string> Warnings() const {
    return log_.messages(RunLog::Level::kWarning);
  }

  io::MemEnv env_;
  FakeClock clock_;
  MemoryRunLog log_;

 private:
  std::vector<ScheduledHook> hooks_;
};

Json Epochs(int64_t epochs, int64_t n_train) {
  return {{"train_cfg", {{"by_epoch", true}, {"max_epochs", epochs}}},
          {"n_train", n_train},
          {"ckpt", {{"interval", 1}}}};
}

// `config`, for a run that goes on with it to the end of epoch `epochs`.
Json Resumed(Json config, int64_t epochs) {
  config["train_cfg"]["max_epochs"] = epochs;
  config["resume"] = true;
  return config;
}

// ----------------------------------------------------------------- resuming

// A warm-up from a tenth of the rate, over in the first of two epochs.
Json WarmUp() {
  Json config = Epochs(2, 3);
  config["sched"] = Json::array({{{"type", "LinearLR"},
                                  {"start_factor", 0.1},
                                  {"by_epoch", false},
                                  {"end", 3}}});
  return config;
}

TEST_F(EdgeTest, HistoryOfTheRateGoesOnBehindTheWarmUp) {
  const std::string name = "resumed lr history (warm-up already over)";
  Train(WarmUp());
  const auto runner = Train(Resumed(WarmUp(), 3));
  ASSERT_NE(runner, nullptr);
  runner::v1::MessageHubState state;
  runner->context().message_hub().SaveState(&state);
  std::vector<double> history;
  for (const auto& scalar : state.scalars()) {
    if (scalar.name() != "train/lr") continue;
    history.assign(scalar.values().begin(), scalar.values().end());
  }
  EXPECT_GOLDEN(Edge(name), history,
                Eq(Observed(name).get<std::vector<double>>()));
}

TEST_F(EdgeTest, MakingTheSchedulersMovesNoRestoredRate) {
  const std::string name = "runner.resume() before train(): lr afterwards";
  const double theirs = Observed(name);
  Train(WarmUp());
  std::vector<double> rates;
  Add<RateRecorder>(&rates);
  const auto runner = Create(Resumed(WarmUp(), 3));
  ASSERT_THAT(runner, IsOk());
  EXPECT_EQ(Lr((*runner)->context()), 0.01);  // As configured.
  ASSERT_THAT((*runner)->Train(), IsOk());
  ASSERT_EQ(rates.size(), 3u);
  EXPECT_DOUBLE_EQ(rates[0] * 0.1, theirs);
  EXPECT_THAT(rates, Each(rates[0]));
  EXPECT_GOLDEN(
      Edge(name,
           "c14: making a scheduler writes nothing, so a resume keeps the 0.01 "
           "of its checkpoint; there is no resume() to call too early"),
      rates, Each(DoubleEq(0.01)));
}

// Halves the rate after every epoch, within the length of the run: two epochs
// end with 0.005.
Json Halving() {
  return {{"type", "StepLR"}, {"step_size", 1}, {"gamma", 0.5}};
}

TEST_F(EdgeTest, SchedulerThatIsNewOnResumeIsReplayed) {
  const std::string name = "one scheduler saved, two configured";
  EXPECT_EQ(Observed(name), Json::array({0.005, 0.0005}));
  Json two = Epochs(4, 1);
  two["sched"] = Json::array(
      {Halving(), {{"type", "StepLR"}, {"step_size", 1}, {"gamma", 0.1}}});
  Json from_the_start = two;
  from_the_start.erase("ckpt");  // Leaves nothing to go on from.
  const std::vector<double> uninterrupted = TrainedRates(from_the_start);
  ASSERT_EQ(uninterrupted.size(), 4u);

  Json one = Epochs(2, 1);
  one["sched"] = Json::array({Halving()});
  Train(one);
  const std::vector<double> rates = TrainedRates(Resumed(two, 4));
  ASSERT_EQ(rates.size(), 2u);
  EXPECT_DOUBLE_EQ(rates[0], 0.01 * 0.25 * 0.01);
  EXPECT_THAT(Warnings(),
              Contains(HasSubstr("param_scheduler[1]: none -> step")));
  EXPECT_GOLDEN(
      Edge(name,
           "c15: the config wins: both are replayed from the run's beginning, "
           "with a warning; the second doesn't start at its step 0"),
      rates, ElementsAre(uninterrupted[2], uninterrupted[3]));
}

TEST_F(EdgeTest, RateStaysWhenNoSchedulerIsLeft) {
  const std::string name = "schedulers saved, none configured";
  Json config = Epochs(2, 1);
  config["sched"] = Json::array({Halving()});
  Train(config);
  config.erase("sched");
  const std::vector<double> rates = TrainedRates(Resumed(config, 4));
  EXPECT_THAT(Warnings(), Contains(HasSubstr("param_scheduler: none is left")));
  EXPECT_GOLDEN(Edge(name), rates,
                Eq(Observed(name).get<std::vector<double>>()));
}

TEST_F(EdgeTest, ARateThatWasEditedIsTheConfigs) {
  const std::string name = "lr changed in the config on resume";
  Train(Epochs(1, 1));
  EXPECT_EQ(Observed(name).get<double>(), 0.01);
  Json config = Resumed(Epochs(1, 1), 2);
  config["lr"] = 0.05;
  EXPECT_GOLDEN(
      Edge(name,
           "c31: what was edited rules, upstream takes the stored rate without "
           "a word"),
      TrainedRates(config), ElementsAre(0.05));
}

// Draws a number in every iteration, as dropout does.
class Dice : public Hook {
 public:
  explicit Dice(std::vector<double>* draws) : draws_(draws) {}
  absl::string_view name() const override { return "dice"; }
  absl::Status BeforeTrainIter(RunContext& run, const IterInfo&) override {
    draws_->push_back(
        ops::empty({}).uniform_(0, 1, run.generator()).item<double>());
    return absl::OkStatus();
  }

 private:
  std::vector<double>* const draws_;
};

TEST_F(EdgeTest, SeedIsTheCheckpointsAndItsSequenceGoesOn) {
  const std::string name = "seed on resume";
  const Json observed = Observed(name);
  std::vector<double> uninterrupted, resumed;
  Add<Dice>(&uninterrupted);
  Train(Epochs(2, 3), "randomness { seed: 7 }");
  ASSERT_EQ(uninterrupted.size(), 6u);

  Json config = Resumed(Epochs(2, 3), 2);
  config["load_from"] = "epoch_1.pth";
  Add<Dice>(&resumed);
  const auto runner =
      Train(config, absl::StrCat("randomness { seed: ",
                                 observed["config_seed"].get<int64_t>(), " }"));
  ASSERT_NE(runner, nullptr);
  EXPECT_EQ(runner->context().seed(), observed["seed_after_resume"]);
  EXPECT_THAT(Warnings(), Contains(HasSubstr("the checkpoint's, 7, is used and "
                                             "not the configured 0")));
  EXPECT_GOLDEN(
      Edge(name,
           "c13: the checkpoint's seed wins here too; its generator's state as "
           "well, so random numbers go on where they were"),
      resumed,
      ElementsAre(uninterrupted[3], uninterrupted[4], uninterrupted[5]));
}

// -------------------------------------------------- what a checkpoint holds

TEST_F(EdgeTest, CheckpointHoldsWhatMmenginesDoes) {
  const std::string name = "checkpoint layout";
  const Json observed = Observed(name);
  const auto runner = Train(Epochs(2, 3), "randomness { seed: 7 }");
  ASSERT_NE(runner, nullptr);
  const auto read = io::ReadCheckpoint(env_, "/run/epoch_2");
  ASSERT_THAT(read, IsOk());
  const auto state = ReadRunState(*read);
  ASSERT_THAT(state, IsOk());

  // "state_dict", "optimizer", "message_hub"; "meta" follows.
  EXPECT_EQ(observed["top"],
            Json::array({"message_hub", "meta", "optimizer", "state_dict"}));
  const TensorMap* weights = read->FindSection("model");
  ASSERT_NE(weights, nullptr);
  EXPECT_NE(weights->Find("w"), nullptr);
  EXPECT_NE(read->FindSection("optimizer"), nullptr);
  EXPECT_EQ(state->optim_wrapper().optimizer().groups_size(), 1);
  ASSERT_EQ(read->blobs.size(), 1u);
  EXPECT_EQ(read->blobs[0].first, "state");

  std::map<std::string, int64_t> counts;
  for (const auto& scalar : state->message_hub().scalars()) {
    counts[scalar.name()] = scalar.num_entries();
  }
  EXPECT_EQ(counts,
            (observed["log_scalars"].get<std::map<std::string, int64_t>>()));

  // Those of "runtime_info" that are not facts of the hub.
  const std::set<std::string> elsewhere = {
      "cfg",       "dataset_meta",     "experiment_name",
      "last_ckpt", "mmengine_version", "seed"};
  std::set<std::string> expected, facts;
  for (const std::string info : observed["runtime_info"]) {
    if (elsewhere.count(info) == 0) expected.insert(info);
  }
  for (const auto& [fact, value] : state->message_hub().infos()) {
    facts.insert(fact);
  }

  // And where those are, with what "meta" has.
  EXPECT_EQ(observed["meta"].size(), 8u);
  const io::v1::CheckpointManifest& manifest = read->manifest();
  EXPECT_EQ(manifest.config(), runner->context().config_text());
  EXPECT_THAT(manifest.config(), HasSubstr("experiment_name: \"<exp>\""));
  EXPECT_EQ(state->data().dataset_size(), 3);
  EXPECT_EQ(manifest.progress().epoch(), 2);
  EXPECT_EQ(manifest.progress().iter(), 6);
  EXPECT_TRUE(absl::StartsWith(manifest.producer(), "grapnel "));
  EXPECT_EQ(state->seed(), 7);
  EXPECT_GT(manifest.created_unix_nanos(), 0);
  std::string last;
  for (const auto& hook : state->hooks()) {
    hooks::v1::CheckpointHookState checkpoint;
    if (hook.state().UnpackTo(&checkpoint)) last = checkpoint.last();
  }
  EXPECT_EQ(last, "epoch_2");
  EXPECT_GOLDEN(
      Edge(name,
           "the same, but of the dataset its size and not its metainfo: a "
           "directory with the sections model and optimizer, state.pb, and "
           "what is of meta in the manifest"),
      facts, Eq(expected));
}

TEST_F(EdgeTest, SchedulersStateIsItsStepsAndItsSettings) {
  const std::string name = "scheduler state layout";
  const Json observed = Observed(name);
  Json config = Epochs(1, 1);
  config["sched"] =
      Json::array({{{"type", "LinearLR"}, {"start_factor", 0.5}, {"end", 4}}});
  Train(config);
  const auto read = io::ReadCheckpoint(env_, "/run/epoch_1");
  ASSERT_THAT(read, IsOk());
  const auto run_state = ReadRunState(*read);
  ASSERT_THAT(run_state, IsOk());
  ASSERT_EQ(run_state->param_schedulers_size(), 1);
  const auto& state = run_state->param_schedulers(0);
  Json ours;
  ours["param_name"] = state.param_name();
  ours["by_epoch"] = state.by_epoch();
  ours["_global_step"] = state.global_step();
  ours["last_step"] = state.last_step();
  ours["base_values"] = std::vector<double>(state.base_values().begin(),
                                            state.base_values().end());

  // What theirs has as attributes.
  optim::v1::LinearSchedulerConfig settings;
  EXPECT_EQ(state.type(), settings.GetTypeName());
  ASSERT_TRUE(google::protobuf::TextFormat::ParseFromString(state.settings(),
                                                            &settings));
  ours["start_factor"] = settings.start_factor();
  ours["end_factor"] = settings.end_factor();
  ours["begin"] = settings.begin();
  ours["end"] = settings.end();
  ours["total_iters"] = settings.end() - settings.begin() - 1;

  // And the value that they led to.
  const auto& groups = run_state->optim_wrapper().optimizer().groups();
  ASSERT_EQ(groups.size(), 1);
  ours["_last_value"] = Json::array({groups[0].options().at("lr")});

  Json expected;
  for (const auto& [key, value] : ours.items()) expected[key] = observed[key];
  // And "verbose", which ours doesn't have.
  EXPECT_EQ(observed.size(), ours.size() + 1);
  EXPECT_GOLDEN(
      Edge(name,
           "the same numbers: settings are there to be compared with the "
           "config's (c15), the last value is the optimizer's"),
      ours, Eq(expected));
}

// ----------------------------------------------------------- what hooks see

// Writes down "loop_stage" as golden/edge.json does.
class LoopStages : public Hook {
 public:
  explicit LoopStages(Json* seen) : seen_(seen) {}
  absl::string_view name() const override { return "loop_stages"; }
  absl::Status BeforeTrain(RunContext& run) override {
    return Look(run, "before_train");
  }
  absl::Status BeforeVal(RunContext& run) override {
    return Look(run, "before_val");
  }
  absl::Status AfterVal(RunContext& run) override {
    return Look(run, "after_val");
  }
  absl::Status AfterTrain(RunContext& run) override {
    return Look(run, "after_train");
  }

 private:
  absl::Status Look(RunContext& run, const char* point) {
    const auto* stage = run.message_hub().FindInfo("loop_stage");
    const Json value =
        stage == nullptr ? Json() : Json(std::get<std::string>(*stage));
    seen_->push_back(Json::array({point, value}));
    return absl::OkStatus();
  }

  Json* const seen_;
};

TEST_F(EdgeTest, HubTellsTheLoopThatIsGoingOn) {
  const std::string name = "loop_stage in the hub";
  Json seen = Json::array();
  Json config = Epochs(1, 1);
  config["n_val"] = 1;
  Add<LoopStages>(&seen);
  Train(config);
  EXPECT_GOLDEN(Edge(name), seen, Eq(Observed(name)));
}

// Writes down whether the model is in training mode and, in a validation,
// whether autograd is on.
class Modes : public Hook {
 public:
  explicit Modes(Json* seen) : seen_(seen) {}
  absl::string_view name() const override { return "modes"; }
  absl::Status AfterTrainIter(RunContext& run, const IterInfo&,
                              const LogVars&) override {
    seen_->push_back(Json::array({"train_iter", run.model().training()}));
    return absl::OkStatus();
  }
  absl::Status BeforeValEpoch(RunContext& run) override {
    seen_->push_back(Json::array({"before_val_epoch", run.model().training()}));
    return absl::OkStatus();
  }
  absl::Status AfterValIter(RunContext& run, const IterInfo&,
                            const Predictions&) override {
    return LookWithGrad(run, "val_iter");
  }
  absl::Status AfterValEpoch(RunContext& run, const Metrics&) override {
    return LookWithGrad(run, "after_val_epoch");
  }

 private:
  absl::Status LookWithGrad(RunContext& run, const char* point) {
    seen_->push_back(Json::array(
        {point, run.model().training(), c10::GradMode::is_enabled()}));
    return absl::OkStatus();
  }

  Json* const seen_;
};

TEST_F(EdgeTest, ModeAndAutogradAreOffInAValidationsIterations) {
  const std::string name = "train/eval mode and grad mode seen by hooks";
  Json seen = Json::array();
  Json config = Epochs(2, 2);
  config["n_val"] = 1;
  Add<Modes>(&seen);
  Train(config);
  EXPECT_GOLDEN(Edge(name), seen, Eq(Observed(name)));
}

// ----------------------------------------------------------- wrong arguments

// Newer compilers warn of what this class is about.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Woverloaded-virtual"
// Lacks a parameter, and `override`, with which it would not compile.
class WrongSignature : public Hook {
 public:
  absl::Status AfterTrainIter(RunContext&, const IterInfo&) {
    return absl::OkStatus();
  }
};
#pragma GCC diagnostic pop

TEST_F(EdgeTest, PointOfAnotherSignatureDoesNotRegister) {
  const std::string name = "hook with a wrong signature";
  EXPECT_EQ(ReadGoldenCase("edge", name)["raised"]["error"], "TypeError");
  // What the static_assert of a mount point asks.
  const bool accepted =
      internal_hook::kSameSignature<decltype(&WrongSignature::AfterTrainIter),
                                    decltype(&Hook::AfterTrainIter)>;
  EXPECT_GOLDEN(Edge(name, "the compiler's to refuse"), accepted, Eq(false));
}

TEST_F(EdgeTest, WhatIsNoHookIsRefused) {
  const std::string name = "register a non-hook";
  EXPECT_EQ(ReadGoldenCase("edge", name)["raised"]["error"], "TypeError");
  // In code.
  struct NoHook {};
  static_assert(!std::is_assignable_v<decltype((ScheduledHook().hook)),
                                      std::unique_ptr<NoHook>>);
  // In a config.
  EXPECT_GOLDEN(
      Edge(name,
           "an error, as there, in a config; the compiler's to refuse in code"),
      Create(
          Epochs(1, 1),
          "custom_hooks { config { [x/grapnel.runner.v1.TrainConfig] {} } }"),
      StatusIs(absl::StatusCode::kInvalidArgument,
               HasSubstr("custom_hooks[0]: config: no hook for config "
                         "\"grapnel.runner.v1.TrainConfig\"")));
}

TEST_F(EdgeTest, NameOfAPriorityIsTakenInLowerCase) {
  const std::string name = "priority lower-case name";
  EXPECT_TRUE(Observed(name).is_null());  // No error.
  const auto runner =
      Create(Epochs(1, 1),
             "default_hooks { priority { key: 'timer' value: 'lowest' } }");
  ASSERT_THAT(runner, IsOk());
  EXPECT_GOLDEN(Edge(name), (*runner)->HookNames().back(), Eq("iter_timer"));
}

TEST_F(EdgeTest, WrongValuesAreRefusedByName) {
  struct Ours {
    std::string name;
    std::string config;
    std::string error;
    std::string difference = "";
  };
  const auto timer_priority = [](const std::string& priority) {
    return absl::StrCat("default_hooks { priority { key: 'timer' value: '",
                        priority, "' } }");
  };
  const std::string priority_error =
      "default_hooks: iter_timer: priority: must be a number in 0..100 or one "
      "of ";
  const std::vector<Ours> all = {
      {"priority -1", timer_priority("-1"), priority_error},
      {"priority 101", timer_priority("101"), priority_error},
      {"priority 'nope'", timer_priority("nope"), priority_error},
      {"priority 1.5", timer_priority("1.5"), priority_error},
      {"max_epochs 2.5", "train_cfg { max_epochs: 2.5 }",
       "more:1:25: expected integer, got: 2.5"},
      {"max_epochs 2.0", "train_cfg { max_epochs: 2.0 }",
       "more:1:25: expected integer, got: 2.0",
       "2.0 is no integer in protobuf's text; in JSON it is"},
      {"dynamic_intervals as lists",
       "train_cfg { dynamic_intervals: [[3, 2]] }",
       "more:1:33: expected \"{\", found \"[\""},
      {"accumulative_counts 0", "optim_wrapper { accumulative_counts: 0 }",
       "optim_wrapper: accumulative_counts: must be >= 1, is 0"},
      {"clip_grad without arguments", "optim_wrapper { clip_grad {} }",
       "optim_wrapper: clip_grad: max_norm: must be "},
      {"clip_grad unknown type", "optim_wrapper { clip_grad { type: x } }",
       "more:1:35: type: no value x in Type"},
  };
  for (const Ours& ours : all) {
    SCOPED_TRACE(ours.name);
    const Json golden = ReadGoldenCase("edge", ours.name);
    EXPECT_EQ(golden.contains("raised"), ours.difference.empty());
    EXPECT_GOLDEN(
        Edge(ours.name, ours.difference), Create(Epochs(2, 1), ours.config),
        StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(ours.error)));
  }
}

TEST_F(EdgeTest, JsonTakesAWholeNumberWithAPoint) {
  const auto whole = ParseRunnerConfig(R"({"train_cfg": {"max_epochs": 2.0}})",
                                       ConfigFormat::kJson, "whole");
  ASSERT_THAT(whole, IsOk());
  EXPECT_EQ(whole->train_cfg().max_epochs(), 2);
  EXPECT_FALSE(ParseRunnerConfig(R"({"train_cfg": {"max_epochs": 2.5}})",
                                 ConfigFormat::kJson, "half")
                   .ok());
}

}  // namespace
}  // namespace grapnel
