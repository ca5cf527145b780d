// Mount points in MMEngine's order: golden/calls.json.

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "grapnel/base/fake_clock.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/hooks/early_stopping/early_stopping_hook.h"
#include "grapnel/hooks/early_stopping/early_stopping_hook.pb.h"
#include "grapnel/io/mem_env.h"
#include "grapnel/loggers/memory_run_log.h"
#include "grapnel/runner/run_context.h"
#include "grapnel/runner/runner.h"
#include "grapnel/runner/runner_config.pb.h"
#include "grapnel/runner/train_plan.h"
#include "grapnel/tests/golden/golden_report.h"
#include "grapnel/tests/golden/golden_run.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::Eq;
using ::testing::Pointwise;

// Writes down every one of MMEngine's points as golden/calls.json does:
// "before_train_iter epoch=0 iter=1 batch_idx=1".
class Tracer : public Hook {
 public:
  explicit Tracer(std::vector<std::string>* trace) : trace_(trace) {}

  absl::string_view name() const override { return "tracer"; }

  absl::Status BeforeRun(RunContext& run) override {
    return Note(run, Stage::kBeforeRun);
  }
  absl::Status AfterRun(RunContext& run) override {
    return Note(run, Stage::kAfterRun);
  }
  absl::Status AfterLoadCheckpoint(RunContext& run,
                                   io::CheckpointContents&) override {
    return Note(run, Stage::kAfterLoadCheckpoint);
  }
  absl::Status BeforeSaveCheckpoint(RunContext& run,
                                    io::CheckpointContents&) override {
    return Note(run, Stage::kBeforeSaveCheckpoint);
  }
  absl::Status BeforeTrain(RunContext& run) override {
    return Note(run, Stage::kBeforeTrain);
  }
  absl::Status AfterTrain(RunContext& run) override {
    return Note(run, Stage::kAfterTrain);
  }
  absl::Status BeforeTrainEpoch(RunContext& run) override {
    return Note(run, Stage::kBeforeTrainEpoch);
  }
  absl::Status AfterTrainEpoch(RunContext& run) override {
    return Note(run, Stage::kAfterTrainEpoch);
  }
  absl::Status BeforeTrainIter(RunContext& run, const IterInfo& info) override {
    return Note(run, Stage::kBeforeTrainIter, info.batch_idx);
  }
  absl::Status AfterTrainIter(RunContext& run, const IterInfo& info,
                              const LogVars&) override {
    return Note(run, Stage::kAfterTrainIter, info.batch_idx);
  }
  absl::Status BeforeVal(RunContext& run) override {
    return Note(run, Stage::kBeforeVal);
  }
  absl::Status AfterVal(RunContext& run) override {
    return Note(run, Stage::kAfterVal);
  }
  absl::Status BeforeValEpoch(RunContext& run) override {
    return Note(run, Stage::kBeforeValEpoch);
  }
  absl::Status AfterValEpoch(RunContext& run, const Metrics&) override {
    return Note(run, Stage::kAfterValEpoch);
  }
  absl::Status BeforeValIter(RunContext& run, const IterInfo& info) override {
    return Note(run, Stage::kBeforeValIter, info.batch_idx);
  }
  absl::Status AfterValIter(RunContext& run, const IterInfo& info,
                            const Predictions&) override {
    return Note(run, Stage::kAfterValIter, info.batch_idx);
  }
  absl::Status BeforeTest(RunContext& run) override {
    return Note(run, Stage::kBeforeTest);
  }
  absl::Status AfterTest(RunContext& run) override {
    return Note(run, Stage::kAfterTest);
  }
  absl::Status BeforeTestEpoch(RunContext& run) override {
    return Note(run, Stage::kBeforeTestEpoch);
  }
  absl::Status AfterTestEpoch(RunContext& run, const Metrics&) override {
    return Note(run, Stage::kAfterTestEpoch);
  }
  absl::Status BeforeTestIter(RunContext& run, const IterInfo& info) override {
    return Note(run, Stage::kBeforeTestIter, info.batch_idx);
  }
  absl::Status AfterTestIter(RunContext& run, const IterInfo& info,
                             const Predictions&) override {
    return Note(run, Stage::kAfterTestIter, info.batch_idx);
  }

 private:
  absl::Status Note(RunContext& run, Stage stage, int64_t batch_idx = -1) {
    std::string line = absl::StrCat(
        StageSnakeName(stage), " epoch=", run.epoch(), " iter=", run.iter());
    if (batch_idx >= 0) absl::StrAppend(&line, " batch_idx=", batch_idx);
    trace_->push_back(std::move(line));
    return absl::OkStatus();
  }

  std::vector<std::string>* const trace_;
};

// Where no training loop was built MMEngine has no counters; ours are 0.
int64_t Count(const Json& value) {
  return value.is_null() ? 0 : value.get<int64_t>();
}

std::vector<std::string> ExpectedTrace(const Json& log) {
  std::vector<std::string> trace;
  for (const Json& entry : log) {
    std::string line =
        absl::StrCat(entry[1].get<std::string>(), " epoch=", Count(entry[2]),
                     " iter=", Count(entry[3]));
    if (!entry[4].is_null()) {
      absl::StrAppend(&line, " batch_idx=", Count(entry[4]));
    }
    trace.push_back(std::move(line));
  }
  return trace;
}

TEST(CallsTest, MountPointsAreInMmenginesOrder) {
  const Json golden = ReadGolden("calls");
  for (const Json& c : golden["cases"]) {
    const std::string name = c["name"];
    std::string difference;
    ASSERT_FALSE(c["phases"].empty());
    std::vector<std::string> traces, all_expected;  // Of all phases.
    const auto env = std::make_unique<io::MemEnv>();
    for (const Json& phase : c["phases"]) {
      SCOPED_TRACE(absl::StrCat(name, ": ", phase["call"].get<std::string>()));
      std::vector<std::string> trace;
      const FakeClock clock;
      MemoryRunLog log;
      RunnerOptions options;
      options.env = env.get();
      options.clock = &clock;
      options.log = &log;
      options.hooks.push_back(Schedule(std::make_unique<Tracer>(&trace)));
      if (name == "early_stop") {
        hooks::v1::EarlyStoppingHookConfig config;
        config.set_monitor("acc");
        config.set_patience(2);
        auto stopping = EarlyStoppingHook::Create(config);
        ASSERT_THAT(stopping, IsOk());
        options.hooks.push_back(Schedule(*std::move(stopping)));
      }
      const auto runner =
          CreateGoldenRunner(phase["config"], std::move(options));
      ASSERT_THAT(runner, IsOk());
      if (phase["call"] == "train") {
        ASSERT_THAT((*runner)->Train(), IsOk());
      } else if (phase["call"] == "val") {
        ASSERT_THAT((*runner)->Val(), IsOk());
      } else {
        ASSERT_THAT((*runner)->Test(), IsOk());
      }
      std::vector<std::string> expected = ExpectedTrace(phase["log"]);
      if (name == "early_stop") {
        difference = "c19: a stop is saved";
        ASSERT_EQ(expected.back(), "after_run epoch=3 iter=3");
        expected.insert(expected.end() - 1,
                        "before_save_checkpoint epoch=3 iter=3");
      } else if (name == "best_and_regular_saves") {
        // Theirs saves the best, and then the regular one again.
        difference = "c4: a new best forces no regular save";
        const auto again = std::unique(expected.begin(), expected.end());
        EXPECT_EQ(expected.end() - again, 2);
        expected.erase(again, expected.end());
      }
      EXPECT_EQ(trace.size(), expected.size());
      traces.insert(traces.end(), trace.begin(), trace.end());
      all_expected.insert(all_expected.end(), expected.begin(), expected.end());
    }
    EXPECT_GOLDEN(
        GoldenCase("calls.json", absl::StrCat("cases/", name), difference),
        traces, Pointwise(Eq(), all_expected))
        << name;
  }
}

TEST(CallsTest, StagesAreMmenginesInItsOrder) {
  const Json golden = ReadGolden("calls");
  const auto expected = golden["stages"].get<std::vector<std::string>>();
  ASSERT_EQ(expected.size(), 22u);
  std::vector<std::string> stages;
  for (size_t i = 0; i < expected.size(); ++i) {
    stages.emplace_back(StageSnakeName(static_cast<Stage>(i)));
  }
  EXPECT_EQ(stages, expected);

  // And so they are printed. The tracer acts at all of them, and at no other.
  const auto env = std::make_unique<io::MemEnv>();
  const FakeClock clock;
  MemoryRunLog log;
  std::vector<std::string> trace;
  RunnerOptions options;
  options.env = env.get();
  options.clock = &clock;
  options.log = &log;
  options.hooks.push_back(Schedule(std::make_unique<Tracer>(&trace)));
  const auto runner = CreateGoldenRunner(
      {{"train_cfg", {{"by_epoch", true}, {"max_epochs", 1}}}, {"n_train", 1}},
      std::move(options));
  ASSERT_THAT(runner, IsOk());
  std::vector<std::string> printed;
  const std::string table = (*runner)->StageTable();
  for (const absl::string_view line : absl::StrSplit(table, '\n')) {
    if (!absl::StrContains(line, "tracer (50)")) continue;
    printed.emplace_back(line.substr(0, line.find(':')));
  }
  EXPECT_GOLDEN(GoldenCase("calls.json", "stages/*"), printed, Eq(expected));
}

TEST(CallsTest, PredicateEveryNFiresWhereMmenginesDoes) {
  const Json golden = ReadGolden("calls");
  ASSERT_FALSE(golden["every_n"].empty());
  Json ours = golden["every_n"];
  for (Json& c : ours) {
    const int64_t n = c["n"];
    const int64_t start = c["start"];
    Json fires = Json::array();
    for (int64_t count = 1; count <= 12; ++count) {
      if (EveryN(count, n, start)) fires.push_back(count);
    }
    c["fires_at_count"] = fires;
  }
  EXPECT_GOLDEN(GoldenCase("calls.json", "every_n/*"), ours,
                Eq(golden["every_n"]));
}

TEST(CallsTest, ValidationIsTimedAsMmenginesButForMilestones) {
  // MMEngine lets a milestone rule one count early; ours from itself on
  // (docs/from_mmengine.md, c16). What that changes, by total and first
  // milestone:
  const std::vector<std::pair<std::string, std::vector<int64_t>>> different = {
      {"[[10,3]]", {5, 12}},
      {"[[3,2],[8,1]]", {4, 6, 8, 9, 10}},
  };
  size_t differences = 0;
  const Json golden = ReadGolden("calls");
  for (size_t i = 0; i < golden["val_timing"].size(); ++i) {
    const Json& c = golden["val_timing"][i];
    SCOPED_TRACE(c.dump());
    std::string difference;
    const bool by_epoch = c["loop"] == "epoch";
    runner::v1::TrainConfig config;
    config.set_by_epoch(by_epoch);
    (by_epoch ? config.set_max_epochs(c["total"])
              : config.set_max_iters(c["total"]));
    const Json& cfg = c["cfg"];
    if (cfg.contains("val_begin")) config.set_val_begin(cfg["val_begin"]);
    if (cfg.contains("val_interval")) {
      config.set_val_interval(cfg["val_interval"]);
    }
    auto expected = c["validated_at"].get<std::vector<int64_t>>();
    if (cfg.contains("dynamic_intervals")) {
      for (const Json& dynamic : cfg["dynamic_intervals"]) {
        auto* interval = config.add_dynamic_intervals();
        interval->set_milestone(dynamic[0]);
        interval->set_interval(dynamic[1]);
      }
      for (const auto& [intervals, ours] : different) {
        if (cfg["dynamic_intervals"].dump() != intervals) continue;
        EXPECT_NE(expected, ours);
        expected = ours;
        ++differences;
        difference = "c16: a milestone rules from itself on";
      }
    }
    const auto plan = TrainPlan::Create(config);
    ASSERT_THAT(plan, IsOk());
    std::vector<int64_t> validated;
    for (int64_t count = 1; count <= plan->total(); ++count) {
      if (plan->ValidationDue(count)) validated.push_back(count);
    }
    EXPECT_GOLDEN(
        GoldenCase("calls.json", absl::StrCat("val_timing/", i), difference),
        validated, Eq(expected));
  }
  EXPECT_EQ(differences, different.size());
}

// Asks for a stop at one iteration, and notes what still happens.
class Stopper : public Hook {
 public:
  Stopper(int64_t at, Json* log) : at_(at), log_(log) {}
  absl::string_view name() const override { return "stopper"; }
  absl::Status AfterTrainIter(RunContext& run, const IterInfo& info,
                              const LogVars&) override {
    log_->push_back({"iter", run.iter()});
    if (run.iter() == at_) run.RequestStop("test");
    return absl::OkStatus();
  }
  absl::Status AfterTrainEpoch(RunContext& run) override {
    log_->push_back({"after_train_epoch", run.epoch(), run.iter()});
    return absl::OkStatus();
  }
  absl::Status BeforeVal(RunContext& run) override {
    log_->push_back({"val", run.epoch(), run.iter()});
    return absl::OkStatus();
  }
  absl::Status AfterTrain(RunContext& run) override {
    log_->push_back({"after_train", run.epoch(), run.iter()});
    return absl::OkStatus();
  }

 private:
  const int64_t at_;
  Json* const log_;
};

TEST(CallsTest, StopTakesEffectWhereMmenginesFlagDoes) {
  const Json golden = ReadGolden("calls");
  ASSERT_FALSE(golden["stop_flag"].empty());
  Json ours = golden["stop_flag"];
  for (Json& c : ours) {
    SCOPED_TRACE(c["loop"].get<std::string>());
    const bool by_epoch = c["loop"] == "epoch";
    Json config = {
        {"train_cfg", by_epoch ? Json{{"by_epoch", true}, {"max_epochs", 3}}
                               : Json{{"by_epoch", false},
                                      {"max_iters", 9},
                                      {"val_interval", 2}}},
        {"n_train", 4},
        {"n_val", 1},
        {"metrics", Json::array({{{"acc", 0.5}}})}};
    const auto env = std::make_unique<io::MemEnv>();
    const FakeClock clock;
    MemoryRunLog log;
    Json trace = Json::array();
    RunnerOptions options;
    options.env = env.get();
    options.clock = &clock;
    options.log = &log;
    options.hooks.push_back(Schedule(std::make_unique<Stopper>(
        c["stop_flag_set_at_iter"].get<int64_t>(), &trace)));
    const auto runner = CreateGoldenRunner(config, std::move(options));
    ASSERT_THAT(runner, IsOk());
    ASSERT_THAT((*runner)->Train(), IsOk());
    EXPECT_EQ((*runner)->stop_reason(), "test");
    c["log"] = trace;
  }
  EXPECT_GOLDEN(GoldenCase("calls.json", "stop_flag/*"), ours,
                Eq(golden["stop_flag"]));
}

TEST(CallsTest, DefaultAndCustomHooksStandInMmenginesOrder) {
  const Json golden = ReadGolden("calls");
  const auto env = std::make_unique<io::MemEnv>();
  const FakeClock clock;
  MemoryRunLog log;
  std::vector<std::string> trace;
  RunnerOptions options;
  options.env = env.get();
  options.clock = &clock;
  options.log = &log;
  class Named : public Tracer {
   public:
    Named(std::string name, std::vector<std::string>* trace)
        : Tracer(trace), name_(std::move(name)) {}
    absl::string_view name() const override { return name_; }

   private:
    const std::string name_;
  };
  for (const Json& registered : golden["priority"]["registered"]) {
    const std::string name = registered;
    ScheduledHook hook = Schedule(std::make_unique<Named>(name, &trace));
    // "p70" has the priority 70, "n1" is NORMAL.
    if (name[0] == 'p') hook.priority = std::stoi(name.substr(1));
    options.hooks.push_back(std::move(hook));
  }
  const auto runner = CreateGoldenRunner(
      {{"train_cfg", {{"by_epoch", true}, {"max_epochs", 1}}}, {"n_train", 1}},
      std::move(options));
  ASSERT_THAT(runner, IsOk());

  const std::vector<std::pair<std::string, std::string>> names = {
      {"RuntimeInfoHook", "runtime_info"},
      {"IterTimerHook", "iter_timer"},
      {"DistSamplerSeedHook", "dist_sampler_seed"},
      {"LoggerHook", "logger"},
      {"ParamSchedulerHook", "param_scheduler"},
      {"CheckpointHook", "checkpoint"}};
  std::vector<std::string> expected;
  for (const Json& entry : golden["priority"]["full_order"]) {
    std::string name = entry;
    for (const auto& [theirs, ours] : names) {
      if (name == theirs) name = ours;
    }
    if (name.rfind("Trace", 0) == 0) name = name.substr(5);
    expected.push_back(name);
  }
  EXPECT_GOLDEN(GoldenCase("calls.json", "priority"), (*runner)->HookNames(),
                Eq(expected));
}

}  // namespace
}  // namespace grapnel
