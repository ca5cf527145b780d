// Rates of whole runs: golden/lr_through_loop.json through the real runner, and
// runs that go on with other schedules.

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "grapnel/base/fake_clock.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/io/mem_env.h"
#include "grapnel/loggers/memory_run_log.h"
#include "grapnel/loggers/run_log.h"
#include "grapnel/optim/param_scheduler.h"
#include "grapnel/optim/param_scheduler.pb.h"
#include "grapnel/runner/hook_registry.h"
#include "grapnel/runner/run_context.h"
#include "grapnel/runner/runner.h"
#include "grapnel/tests/golden/golden_report.h"
#include "grapnel/tests/golden/golden_run.h"
#include "grapnel/tests/golden/rate_recorder.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::Contains;
using ::testing::Each;
using ::testing::Eq;
using ::testing::HasSubstr;
using ::testing::Not;

// Files that outlive a run, for the one that goes on.
struct TestRun {
  explicit TestRun(io::Env* env) : env(env) {}

  absl::Status Create(const Json& config) {
    RunnerOptions options;
    options.env = env;
    options.clock = &clock;
    options.log = &log;
    options.hooks.push_back(Schedule(std::make_unique<RateRecorder>(&rates)));
    auto created = CreateGoldenRunner(config, std::move(options));
    if (!created.ok()) return created.status();
    runner = *std::move(created);
    return absl::OkStatus();
  }

  io::Env* const env;
  FakeClock clock;
  MemoryRunLog log;
  std::vector<double> rates;
  std::unique_ptr<Runner> runner;
};

Json RunConfig(const Json& test) {
  Json config = test;
  config["lr"] = 0.1;
  config["sched"] = test["schedulers"];
  const std::string name = test["name"];
  // A metric that is always 0.5.
  if (name == "plateau" || name == "plateau_val_every2") config["n_val"] = 1;
  if (name == "accum_does_not_slow_scheduler") config["accum"] = 2;
  return config;
}

TEST(LrThroughLoopTest, EveryIterationHasTheGoldenRate) {
  const Json cases = ReadGolden("lr_through_loop")["cases"];
  for (const Json& test : cases) {
    const std::string name = test["name"];
    SCOPED_TRACE(name);
    io::MemEnv env;
    TestRun run(&env);
    const absl::Status created = run.Create(RunConfig(test));
    if (test.contains("raised")) {
      ASSERT_THAT(created, IsOk());
      EXPECT_THAT(run.log.messages(),
                  Contains(HasSubstr("param_scheduler[0]: begin: lies behind "
                                     "the run, which ends at 1 epochs, is 1")));
      ASSERT_THAT(run.runner->Train(), IsOk());
      ASSERT_EQ(run.rates.size(), 6u);
      EXPECT_GOLDEN(
          GoldenCase("lr_through_loop.json", "cases/" + name,
                     "a schedule that begins behind the run does nothing, with "
                     "a warning"),
          run.rates, Each(Eq(Lr(run.runner->context()))));
      continue;
    }
    ASSERT_THAT(created, IsOk());
    ASSERT_THAT(run.runner->Train(), IsOk());
    RunContext& context = run.runner->context();
    EXPECT_EQ(Lr(context), test["lr_after_training"].get<double>());

    bool same_windows = true;
    const auto schedulers = context.param_schedulers();
    ASSERT_EQ(schedulers.size(), test["built"].size());
    for (size_t i = 0; i < schedulers.size(); ++i) {
      const Json& built = test["built"][i];
      optim::v1::ParamSchedulerState state;
      ASSERT_THAT(schedulers[i]->SaveState(&state), IsOk());
      EXPECT_EQ(schedulers[i]->by_epoch(), built["by_epoch"].get<bool>());
      EXPECT_THAT(state.settings(), HasSubstr(absl::StrCat(
                                        "begin: ", built["begin"].get<int>())));
      const auto has_end =
          HasSubstr(absl::StrCat(" end: ", built["end"].get<int>(), " "));
      if (schedulers[i]->monitor() != nullptr) {
        same_windows = false;
        EXPECT_THAT(state.settings(), Not(HasSubstr(" end: ")));
      } else {
        EXPECT_THAT(state.settings(), has_end);
      }
    }
    EXPECT_GOLDEN(
        GoldenCase("lr_through_loop.json", "cases/" + name,
                   same_windows ? ""
                                : "c27: the window has no end; the rates are "
                                  "the same"),
        run.rates, Eq(test["lr_per_iter"].get<std::vector<double>>()));
  }
  EXPECT_EQ(cases.size(), 14u);
}

// ---- Going on with other schedules ----

Json ResumableConfig(const Json& schedulers, int max_epochs) {
  return {{"lr", 0.1},
          {"n_train", 3},
          {"n_val", 1},
          {"train_cfg", {{"by_epoch", true}, {"max_epochs", max_epochs}}},
          {"ckpt", {{"interval", 1}, {"by_epoch", false}}},
          {"sched", schedulers}};
}

std::vector<std::string> Warnings(const TestRun& run) {
  return run.log.messages(RunLog::Level::kWarning);
}

// Trains the first iterations with `before`, the others, resumed, with `after`;
// compares with a run that had `after` from its beginning.
void ExpectReplayed(const Json& before, const Json& after, int cut,
                    const std::string& warning) {
  SCOPED_TRACE(cut);
  io::MemEnv whole_env, env;
  TestRun whole(&whole_env);
  ASSERT_THAT(whole.Create(ResumableConfig(after, 4)), IsOk());
  ASSERT_THAT(whole.runner->Train(), IsOk());

  TestRun first(&env);
  ASSERT_THAT(first.Create(ResumableConfig(before, 4)), IsOk());
  ASSERT_THAT(first.runner->Train(), IsOk());
  first.runner.reset();  // The folder is free.
  TestRun second(&env);
  Json config = ResumableConfig(after, 4);
  config["resume"] = true;
  config["load_from"] = absl::StrCat("iter_", cut, ".pth");
  ASSERT_THAT(second.Create(config), IsOk());
  ASSERT_THAT(second.runner->Train(), IsOk());
  EXPECT_EQ(second.rates,
            std::vector<double>(whole.rates.begin() + cut, whole.rates.end()));
  EXPECT_THAT(Warnings(second), Contains(HasSubstr(warning)));
}

TEST(LrThroughLoopTest, ChangedSchedulesAreReplayedOnResume) {
  const Json warm_up = {{"cls", "LinearLR"},
                        {"start_factor", 0.1},
                        {"by_epoch", false},
                        {"end", 4}};
  const Json exponential = {
      {"cls", "ExponentialLR"}, {"gamma", 0.9}, {"by_epoch", false}};
  const auto steps = [](int milestone) -> Json {
    return {{"cls", "MultiStepLR"}, {"milestones", {milestone}}};
  };
  for (const int cut : {2, 5, 6, 7, 11}) {
    ExpectReplayed(
        {warm_up, steps(2)}, {warm_up, steps(1), exponential}, cut,
        "resume: param_scheduler[1]: multi_step: milestones: [2] -> [1]; "
        "param_scheduler[2]: none -> exponential: replayed lr with the "
        "new settings, to epoch ");
  }
}

TEST(LrThroughLoopTest, ALongerRunStretchesItsSchedules) {
  io::MemEnv env;
  const Json cosine = Json::array({{{"cls", "CosineAnnealingLR"}}});
  TestRun first(&env);
  ASSERT_THAT(first.Create(ResumableConfig(cosine, 2)), IsOk());
  ASSERT_THAT(first.runner->Train(), IsOk());
  first.runner.reset();  // The folder is free.
  TestRun second(&env);
  Json config = ResumableConfig(cosine, 4);
  config["resume"] = true;
  ASSERT_THAT(second.Create(config), IsOk());
  ASSERT_THAT(second.runner->Train(), IsOk());
  io::MemEnv whole_env;
  TestRun whole(&whole_env);
  ASSERT_THAT(whole.Create(ResumableConfig(cosine, 4)), IsOk());
  ASSERT_THAT(whole.runner->Train(), IsOk());
  EXPECT_EQ(second.rates,
            std::vector<double>(whole.rates.begin() + 6, whole.rates.end()));
  EXPECT_THAT(Warnings(second),
              Contains("resume: param_scheduler[0]: cosine_annealing: t_max: 2 "
                       "-> 4; param_scheduler[0]: cosine_annealing: end: 2 -> "
                       "4: replayed lr with the new settings, to epoch 1, "
                       "iteration 6"));
}

TEST(LrThroughLoopTest, UnchangedSchedulesGoOnWithoutAWord) {
  io::MemEnv env;
  const Json schedulers = Json::array(
      {{{"cls", "LinearLR"}, {"end", 4}, {"by_epoch", false}},
       {{"cls", "ReduceOnPlateauLR"}, {"monitor", "acc"}, {"patience", 0}}});
  TestRun whole(&env);
  ASSERT_THAT(whole.Create(ResumableConfig(schedulers, 4)), IsOk());
  ASSERT_THAT(whole.runner->Train(), IsOk());
  whole.runner.reset();  // The folder is free.
  for (const int cut : {1, 3, 7, 9}) {
    SCOPED_TRACE(cut);
    TestRun second(&env);
    Json config = ResumableConfig(schedulers, 4);
    config["resume"] = true;
    config["load_from"] = absl::StrCat("iter_", cut, ".pth");
    ASSERT_THAT(second.Create(config), IsOk());
    ASSERT_THAT(second.runner->Train(), IsOk());
    EXPECT_EQ(second.rates, std::vector<double>(whole.rates.begin() + cut,
                                                whole.rates.end()));
    EXPECT_THAT(Warnings(second), Not(Contains(HasSubstr("param_scheduler"))));
  }
}

TEST(LrThroughLoopTest, AMissingMetricEndsTheRun) {
  io::MemEnv env;
  TestRun run(&env);
  ASSERT_THAT(
      run.Create(ResumableConfig(
          Json::array({{{"cls", "ReduceOnPlateauLR"}, {"monitor", "loss"}}}),
          2)),
      IsOk());
  EXPECT_THAT(run.runner->Train(),
              StatusIs(absl::StatusCode::kNotFound,
                       HasSubstr("the validation gave no metric \"loss\", it "
                                 "gave acc")));
}

}  // namespace
}  // namespace grapnel
