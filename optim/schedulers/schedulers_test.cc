// What schedulers do besides the golden tables' numbers: construction, windows,
// families that MMEngine doesn't have, metrics, states.

#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "grapnel/base/status_matchers.h"
#include "grapnel/optim/param_scheduler.h"
#include "grapnel/optim/param_scheduler.pb.h"
#include "grapnel/optim/schedulers/fake_groups.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::grapnel::optim::v1::ParamSchedulerState;
using ::testing::DoubleEq;
using ::testing::DoubleNear;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pointwise;

FakeGroups OneGroup(double lr = 1) { return FakeGroups({{{"lr", lr}}}); }

// The rates of `count` steps, the first by Apply.
std::vector<double> Rates(ParamScheduler& scheduler, const FakeGroups& groups,
                          int count) {
  std::vector<double> rates;
  for (int i = 0; i < count; ++i) {
    if (i == 0) {
      scheduler.Apply();
    } else {
      scheduler.Step();
    }
    rates.push_back(groups.lr());
  }
  return rates;
}

TEST(SchedulersTest, ConstructionWritesNothing) {
  for (const char* config :
       {"constant {}", "cosine_annealing {}",
        "cosine_restart { periods: 3 eta_min: 0 }", "exponential { gamma: 2 }",
        "inverse_sqrt { warmup_steps: 3 }", "linear {}",
        "multi_step { milestones: 0 }", "one_cycle { eta_max: 3 }",
        "poly { power: 2 }", "reduce_on_plateau {}", "step { step_size: 1 }",
        "warmup_stable_decay { warmup_steps: 2 }"}) {
    SCOPED_TRACE(config);
    FakeGroups groups = OneGroup();
    auto scheduler = MakeScheduler(config, groups, {5, 50, 10});
    EXPECT_EQ(groups.lr(), 1);
    EXPECT_EQ(scheduler->num_steps(), 0);
    scheduler->Apply();
    const double first = groups.lr();
    scheduler->Apply();  // Does nothing: step 0 is done.
    EXPECT_EQ(groups.lr(), first);
    EXPECT_EQ(scheduler->num_steps(), 0);
    scheduler->Step();
    EXPECT_EQ(scheduler->num_steps(), 1);
  }
}

TEST(SchedulersTest, LinearFromZeroToZeroStaysThere) {
  FakeGroups groups = OneGroup();
  auto scheduler =
      MakeScheduler("linear { start_factor: 0 end_factor: 0 end: 3 }", groups);
  EXPECT_THAT(Rates(*scheduler, groups, 5), ElementsAre(0, 0, 0, 0, 0));
}

// ---- Windows ----

TEST(SchedulersTest, SettingsAreWhatTheConfigComesTo) {
  struct Case {
    const char* name;
    const char* config;
    RunLength length;
    const char* settings;
  };
  const Case cases[] = {
      {"Epochs", "linear {}", {7, 70, 10}, "begin: 0 end: 7 by_epoch: true"},
      {"Iterations",
       "linear { by_epoch: false }",
       {7, 70, 10},
       "begin: 0 end: 70 by_epoch: false"},
      {"Converted",
       "linear { begin: 1 convert_to_iter_based: true }",
       {7, -1, 10},
       "begin: 10 end: 70 by_epoch: false"},
      {"ConvertedInAnIterationLoop",
       "linear { convert_to_iter_based: true }",
       {-1, 65, 10},
       "begin: 0 end: 65 by_epoch: false"},
      {"ConvertedEnd",
       "linear { end: 2 convert_to_iter_based: true }",
       {7, 70, 10},
       "begin: 0 end: 20 by_epoch: false"},
      {"TMaxConverted",
       "cosine_annealing { t_max: 3 convert_to_iter_based: true }",
       {7, 70, 10},
       "t_max: 30 eta_min: 0 begin: 0 end: 70"},
      {"TMaxDefault",
       "cosine_annealing { begin: 2 }",
       {7, 70, 10},
       "t_max: 5 eta_min: 0 begin: 2 end: 7"},
      {"Open",
       "cosine_annealing { t_max: 3 }",
       {},
       "t_max: 3 eta_min: 0 begin: 0 by_epoch: true"},
      {"MilestonesConverted",
       "multi_step { milestones: [0, 3] convert_to_iter_based: true }",
       {7, 70, 10},
       "milestones: 0 milestones: 30 gamma: 0.1 begin: 0 end: 70"},
      {"OneCycleTakesTheWindow",
       "one_cycle { eta_max: 1 begin: 2 }",
       {7, 70, 10},
       "total_steps: 5 pct_start: 0.3"},
      {"OneCycleGivesTheWindow",
       "one_cycle { eta_max: 1 begin: 2 total_steps: 3 "
       "convert_to_iter_based: true }",
       {7, 70, 10},
       "begin: 20 end: 50"},
      // c27: the validation after the last epoch counts too.
      {"PlateauIsOpen",
       "reduce_on_plateau {}",
       {7, 70, 10},
       "min_value: 0 eps: 1e-08 begin: 0 param_name: \"lr\""},
      {"WsdDecaysInTheLastFifth",
       "warmup_stable_decay { by_epoch: false }",
       {7, 70, 10},
       "warmup_steps: 0 decay_steps: 14 decay_type: \"1-sqrt\""},
      {"WsdConverted",
       "warmup_stable_decay { warmup_steps: 1 decay_steps: 2 "
       "convert_to_iter_based: true }",
       {7, 70, 10},
       "warmup_steps: 10 decay_steps: 20"},
      {"TimescaleOfTheWarmup",
       "inverse_sqrt { warmup_steps: 2 convert_to_iter_based: true }",
       {7, 70, 10},
       "warmup_steps: 20 timescale: 20 begin: 0 end: 70"},
      {"TimescaleWithoutWarmup",
       "inverse_sqrt {}",
       {},
       "warmup_steps: 0 timescale: 10000 begin: 0 by_epoch: true"},
  };
  for (const Case& test : cases) {
    SCOPED_TRACE(test.name);
    FakeGroups groups = OneGroup();
    auto scheduler = MakeScheduler(test.config, groups, test.length);
    ASSERT_NE(scheduler, nullptr);
    ParamSchedulerState state;
    ASSERT_THAT(scheduler->SaveState(&state), IsOk());
    EXPECT_THAT(state.settings(), HasSubstr(test.settings));
    EXPECT_EQ(state.global_step(), -1);
    EXPECT_EQ(state.by_epoch(), scheduler->by_epoch());
    EXPECT_EQ(scheduler->by_epoch(),
              state.settings().find("by_epoch: false") == std::string::npos);
  }
}

// ---- Families that the golden tables don't have ----

TEST(WarmupStableDecayTest, GoesUpStaysAndGoesDown) {
  struct Case {
    const char* name;
    const char* config;
    std::vector<double> rates;
  };
  const Case cases[] = {
      {"Linear",
       "warmup_steps: 4 decay_steps: 4 end: 10 decay_type: 'linear'",
       {0.25, 0.5, 0.75, 1, 1, 1, 1, 0.75, 0.5, 0.25, 0.25}},
      {"Cosine",
       "decay_steps: 3 end: 4 decay_type: 'cosine'",
       {1, 1, 0.75, 0.25, 0.25}},
      {"Sqrt",
       "decay_steps: 4 end: 5",
       {1, 1, 0.5, 1 - std::sqrt(0.5), 1 - std::sqrt(0.75)}},
      {"FloorIsPartOfTheBase",
       "decay_steps: 2 end: 3 decay_type: 'linear' min_ratio: 0.5",
       {1, 1, 0.75, 0.75}},
      {"NothingIsStable",
       "warmup_steps: 2 decay_steps: 2 end: 4 decay_type: 'linear'",
       {0.5, 1, 1, 0.5, 0.5}},
      {"DecayOnly",
       "decay_steps: 4 end: 4 decay_type: 'linear'",
       {1, 0.75, 0.5, 0.25, 0.25}},
      {"Delayed",
       "warmup_steps: 2 decay_steps: 1 begin: 2 end: 5",
       {1, 1, 0.5, 1, 1, 1}},
  };
  for (const Case& test : cases) {
    SCOPED_TRACE(test.name);
    FakeGroups groups = OneGroup(3);
    auto scheduler = MakeScheduler(
        "warmup_stable_decay { " + std::string(test.config) + " }", groups);
    std::vector<double> factors =
        Rates(*scheduler, groups, static_cast<int>(test.rates.size()));
    for (double& factor : factors) factor /= 3;
    EXPECT_THAT(factors, Pointwise(DoubleNear(1e-15), test.rates));
  }
}

TEST(InverseSqrtTest, FallsWithTheSquareRoot) {
  struct Case {
    const char* name;
    const char* config;
    std::vector<double> rates;
  };
  const Case cases[] = {
      // As in "Attention is all you need", with step t + 1.
      {"WarmedUp",
       "warmup_steps: 3",
       {1 / 3.0, 2 / 3.0, 1, std::sqrt(3 / 4.0), std::sqrt(3 / 5.0),
        std::sqrt(3 / 6.0)}},
      {"OwnTimescale",
       "warmup_steps: 1 timescale: 100",
       {1, std::sqrt(100 / 101.0), std::sqrt(100 / 102.0)}},
      {"NoWarmup", "timescale: 1", {1, std::sqrt(1 / 2.0), std::sqrt(1 / 3.0)}},
  };
  for (const Case& test : cases) {
    SCOPED_TRACE(test.name);
    FakeGroups groups = OneGroup();
    auto scheduler = MakeScheduler(
        "inverse_sqrt { " + std::string(test.config) + " }", groups);
    EXPECT_THAT(Rates(*scheduler, groups, static_cast<int>(test.rates.size())),
                Pointwise(DoubleNear(1e-15), test.rates));
  }
}

// The recurrence must not drift away over a whole training.
TEST(SchedulersTest, LongSchedulesEndWhereTheyShould) {
  constexpr int kSteps = 300000;
  struct Case {
    const char* config;
    double last;
  };
  const Case cases[] = {
      {"linear { start_factor: 0.001 by_epoch: false }", 1},
      {"poly { eta_min: 0.01 by_epoch: false }", 0.01},
      {"cosine_annealing { eta_min: 0.1 t_max: 299999 by_epoch: false }", 0.1},
      {"warmup_stable_decay { warmup_steps: 2000 decay_steps: 100000 "
       "decay_type: 'linear' min_ratio: 0.1 by_epoch: false }",
       0.1 + 0.9 / 100000},
      {"inverse_sqrt { warmup_steps: 3000 by_epoch: false }", 0.1},
  };
  for (const Case& test : cases) {
    FakeGroups groups = OneGroup();
    auto scheduler = MakeScheduler(test.config, groups, {-1, kSteps, -1});
    scheduler->Apply();
    for (int i = 1; i < kSteps; ++i) scheduler->Step();
    EXPECT_NEAR(groups.lr(), test.last, 1e-9) << test.config;
  }
}

TEST(SchedulersTest, FamiliesOfTheirOwnChain) {
  FakeGroups groups = OneGroup();
  auto wsd = MakeScheduler(
      "warmup_stable_decay { warmup_steps: 2 decay_steps: 2 end: 6 "
      "decay_type: 'linear' }",
      groups);
  auto half = MakeScheduler("multi_step { milestones: 3 gamma: 0.5 }", groups,
                            {6, -1, -1});
  std::vector<double> rates;
  for (int i = 0; i < 6; ++i) {
    for (auto* scheduler : {wsd.get(), half.get()}) {
      if (i == 0) {
        scheduler->Apply();
      } else {
        scheduler->Step();
      }
    }
    rates.push_back(groups.lr());
  }
  EXPECT_THAT(rates, Pointwise(DoubleEq(),
                               std::vector<double>{0.5, 1, 1, 0.5, 0.5, 0.25}));
}

// ---- Groups ----

TEST(SchedulersTest, TheBaseGroupHasTheLastOfTheGroupsValues) {
  struct Case {
    const char* config;
    std::vector<double> rates;  // After Apply and two flat metrics.
  };
  const Case cases[] = {
      {"one_cycle { eta_max: [1, 2] total_steps: 4 pct_start: 0 "
       "anneal_strategy: 'linear' final_div_factor: 0.04 }",
       {1, 2, 2}},
      {"one_cycle { eta_max: [1, 2, 4] total_steps: 4 pct_start: 0 "
       "anneal_strategy: 'linear' final_div_factor: 0.04 }",
       {1, 2, 4}},
      {"reduce_on_plateau { min_value: [0.25, 0.75] patience: 0 factor: 0.5 }",
       {0.5, 0.75, 0.75}},
      {"reduce_on_plateau { min_value: 0.75 patience: 0 factor: 0.5 }",
       {0.75, 0.75, 0.75}},
  };
  for (const Case& test : cases) {
    SCOPED_TRACE(test.config);
    FakeGroups groups({{{"lr", 1}}, {{"lr", 1}}, {{"lr", 1}}},
                      /*has_base_group=*/true);
    auto scheduler = MakeScheduler(test.config, groups);
    scheduler->Apply();
    for (int i = 0; i < 2; ++i) scheduler->StepMetric(1);
    EXPECT_THAT((std::vector<double>{groups.lr(0), groups.lr(1), groups.lr(2)}),
                Pointwise(DoubleEq(), test.rates));
  }
}

TEST(SchedulersTest, GroupsKeepTheirRatio) {
  FakeGroups groups({{{"lr", 1}}, {{"lr", 0.25}}});
  auto scheduler =
      MakeScheduler("cosine_annealing { t_max: 7 eta_min_ratio: 0.125 }",
                    groups, {20, -1, -1});
  scheduler->Apply();
  for (int i = 0; i < 20; ++i) {
    EXPECT_DOUBLE_EQ(groups.lr(0), 4 * groups.lr(1));
    scheduler->Step();
  }
}

// ---- Metrics ----

TEST(ReduceOnPlateauTest, BestStartsAtInfinity) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
  struct Case {
    const char* name;
    const char* config;
    std::vector<double> metrics;
    double lr;
  };
  const Case cases[] = {
      {"TheFirstIsBest", "", {1e300, 1e300}, 0.5},
      {"WithAThresholdOfOne", "threshold: 1", {5}, 1},
      {"GreaterFromBelow", "rule: 'greater'", {-1e300}, 1},
      {"GreaterNeedsMore", "rule: 'greater'", {-3, -3.5}, 0.5},
      {"NaNIsNoImprovement", "", {kNaN}, 0.5},
      {"NaNIsNotKept", "", {kNaN, 7}, 0.5},
      {"InfinityIsNone", "", {kInfinity}, 0.5},
      {"MinusInfinityIsNone", "", {-kInfinity}, 0.5},
      {"MinusInfinityIsNotKept", "", {-kInfinity, 7, 5}, 0.5},
      {"GreaterThanAllIsNone", "rule: 'greater'", {kInfinity}, 0.5},
      {"GreaterThanAllIsNotKept", "rule: 'greater'", {kInfinity, -5, -3}, 0.5},
      {"AbsoluteThreshold",
       "threshold_rule: 'abs' threshold: 1",
       {5, 4.5},
       0.5},
      {"BeyondTheAbsoluteThreshold",
       "threshold_rule: 'abs' threshold: 1",
       {5, 3.5},
       1},
  };
  for (const Case& test : cases) {
    SCOPED_TRACE(test.name);
    FakeGroups groups = OneGroup();
    auto scheduler = MakeScheduler(
        "reduce_on_plateau { patience: 0 factor: "
        "0.5 " +
            std::string(test.config) + " }",
        groups);
    scheduler->Apply();
    for (const double metric : test.metrics) {
      scheduler->Step();
      scheduler->StepMetric(metric);
    }
    EXPECT_EQ(groups.lr(), test.lr);
  }
}

TEST(ReduceOnPlateauTest, OnlyItHasAMonitor) {
  FakeGroups groups = OneGroup();
  auto plateau = MakeScheduler("reduce_on_plateau { monitor: 'mAP' }", groups);
  ASSERT_NE(plateau->monitor(), nullptr);
  EXPECT_EQ(*plateau->monitor(), "mAP");
  auto step = MakeScheduler("step { step_size: 1 }", groups);
  EXPECT_EQ(step->monitor(), nullptr);
  step->Apply();
  step->StepMetric(1);
  EXPECT_EQ(groups.lr(), 1);
}

// ---- States ----

TEST(SchedulersStateTest, NameTheirOptimizerAndUnit) {
  FakeGroups groups = OneGroup();
  auto scheduler = MakeScheduler("linear { end: 5 by_epoch: false }", groups);
  EXPECT_EQ(scheduler->optimizer(), "");
  scheduler->set_optimizer("generator");
  ParamSchedulerState state;
  ASSERT_THAT(scheduler->SaveState(&state), IsOk());
  EXPECT_EQ(state.optimizer(), "generator");
  EXPECT_FALSE(state.by_epoch());
}

struct Damage {
  const char* message;
  void (*inflict)(ParamSchedulerState*);
};

void ExpectRefused(ParamScheduler& scheduler, const ParamSchedulerState& good,
                   const std::vector<Damage>& damages) {
  ASSERT_THAT(scheduler.LoadState(good), IsOk());
  for (const Damage& damage : damages) {
    ParamSchedulerState bad = good;
    damage.inflict(&bad);
    EXPECT_THAT(scheduler.LoadState(bad),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         HasSubstr(damage.message)));
    ParamSchedulerState still;
    ASSERT_THAT(scheduler.SaveState(&still), IsOk());
    EXPECT_EQ(still.SerializeAsString(), good.SerializeAsString());
  }
}

TEST(SchedulersStateTest, ForeignStatesAreRefusedAndChangeNothing) {
  FakeGroups groups({{{"lr", 0.1}, {"momentum", 0.9}}});
  auto scheduler = MakeScheduler("linear { start_factor: 0.5 end: 5 }", groups);
  scheduler->Apply();
  scheduler->Step();
  ParamSchedulerState good;
  ASSERT_THAT(scheduler->SaveState(&good), IsOk());
  ExpectRefused(
      *scheduler, good,
      {{"the state is of a \"x\"",
        [](ParamSchedulerState* state) { state->set_type("x"); }},
       {"param_name: is \"momentum\" in the state, \"lr\" here",
        [](ParamSchedulerState* state) { state->set_param_name("momentum"); }},
       {"base_values: the state has 2, the optimizer has 1 groups",
        [](ParamSchedulerState* state) { state->add_base_values(1); }},
       {"base_values: must be finite, is nan",
        [](ParamSchedulerState* state) {
          state->set_base_values(0, std::numeric_limits<double>::quiet_NaN());
        }},
       {"global_step: must be >= -1, is -2",
        [](ParamSchedulerState* state) { state->set_global_step(-2); }},
       {"last_step: must be >= -1, is -2",
        [](ParamSchedulerState* state) { state->set_last_step(-2); }}});
}

TEST(SchedulersStateTest, ForeignStatesOfAPlateauAreRefused) {
  FakeGroups groups = OneGroup();
  auto scheduler = MakeScheduler(
      "reduce_on_plateau { patience: 0 factor: 0.5 cooldown: 2 }", groups);
  scheduler->Apply();
  for (const double metric : {1.0, 1.0, 1.0}) {
    scheduler->Step();
    scheduler->StepMetric(metric);
  }
  ParamSchedulerState good;
  ASSERT_THAT(scheduler->SaveState(&good), IsOk());
  EXPECT_THAT(good.moved_at(), ElementsAre(2));
  EXPECT_EQ(good.reduce_on_plateau().best(), 1);
  EXPECT_EQ(good.reduce_on_plateau().cooldown_left(), 1);
  ExpectRefused(
      *scheduler, good,
      {{"reduce_on_plateau: is missing",
        [](ParamSchedulerState* state) { state->clear_reduce_on_plateau(); }},
       {"best: must be a number",
        [](ParamSchedulerState* state) {
          state->mutable_reduce_on_plateau()->set_best(
              std::numeric_limits<double>::quiet_NaN());
        }},
       {"num_bad: must be >= 0, is -1",
        [](ParamSchedulerState* state) {
          state->mutable_reduce_on_plateau()->set_num_bad(-1);
        }},
       {"cooldown_left: must be >= 0, is -1",
        [](ParamSchedulerState* state) {
          state->mutable_reduce_on_plateau()->set_cooldown_left(-1);
        }},
       {"moved_at: must be in order",
        [](ParamSchedulerState* state) { state->add_moved_at(1); }},
       {"moved_at: must be in order and in [0, global_step]",
        [](ParamSchedulerState* state) { state->add_moved_at(4); }}});
}

// The best of one metric says nothing of another.
TEST(SchedulersStateTest, APlateauForgetsTheBestOfAnotherMetric) {
  struct Case {
    const char* name;
    const char* config;
    bool forgets;
  };
  const Case cases[] = {{"Same", "monitor: 'a'", false},
                        {"OtherFactor", "monitor: 'a' factor: 0.25", false},
                        {"OtherMetric", "monitor: 'b'", true},
                        {"OtherRule", "monitor: 'a' rule: 'greater'", true}};
  for (const Case& test : cases) {
    SCOPED_TRACE(test.name);
    FakeGroups groups = OneGroup();
    auto before = MakeScheduler("reduce_on_plateau { monitor: 'a' }", groups);
    before->Apply();
    before->Step();
    before->StepMetric(5);
    ParamSchedulerState state;
    ASSERT_THAT(before->SaveState(&state), IsOk());
    auto after = MakeScheduler(
        "reduce_on_plateau { " + std::string(test.config) + " }", groups);
    ASSERT_THAT(after->LoadState(state), IsOk());
    ParamSchedulerState loaded;
    ASSERT_THAT(after->SaveState(&loaded), IsOk());
    EXPECT_EQ(std::isinf(loaded.reduce_on_plateau().best()), test.forgets);
  }
}

// Older versions took -inf for the best, which nothing is better than.
TEST(SchedulersStateTest, APlateauForgetsABestThatIsNoNumber) {
  FakeGroups groups = OneGroup();
  const char kConfig[] = "reduce_on_plateau { patience: 0 factor: 0.5 }";
  auto before = MakeScheduler(kConfig, groups);
  before->Apply();
  ParamSchedulerState state;
  ASSERT_THAT(before->SaveState(&state), IsOk());
  state.mutable_reduce_on_plateau()->set_best(-INFINITY);
  auto after = MakeScheduler(kConfig, groups);
  ASSERT_THAT(after->LoadState(state), IsOk());
  const double lr = groups.lr();
  after->Step();
  after->StepMetric(5);
  EXPECT_EQ(groups.lr(), lr);
  after->Step();
  after->StepMetric(5);
  EXPECT_EQ(groups.lr(), lr / 2);
}

TEST(SchedulersStateTest, RewindGoesBackToBeforeApply) {
  FakeGroups groups({{{"lr", 1}}, {{"lr", 2}}});
  auto scheduler = MakeScheduler("exponential { gamma: 0.5 }", groups);
  EXPECT_THAT(scheduler->Rewind(std::vector<double>{1}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("base_values: the state has 1")));
  EXPECT_THAT(scheduler->Rewind(std::vector<double>{1, INFINITY}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("base_values: must be finite")));
  scheduler->Apply();
  scheduler->Step();
  EXPECT_EQ(groups.lr(1), 1);
  ASSERT_THAT(scheduler->Rewind(std::vector<double>{8, 16}), IsOk());
  EXPECT_EQ(groups.lr(0), 8);
  EXPECT_EQ(groups.lr(1), 16);
  EXPECT_EQ(scheduler->num_steps(), 0);
  scheduler->Apply();
  EXPECT_EQ(groups.lr(0), 8);
  scheduler->Step();
  EXPECT_EQ(groups.lr(0), 4);
}

}  // namespace
}  // namespace grapnel
