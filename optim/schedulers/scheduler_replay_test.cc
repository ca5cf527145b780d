// A run that goes on with other schedules has the values of one that had them
// from its beginning.

#include "grapnel/optim/schedulers/scheduler_replay.h"

#include <chrono>
#include <cmath>
#include <limits>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "google/protobuf/repeated_ptr_field.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/optim/param_scheduler.h"
#include "grapnel/optim/param_scheduler.pb.h"
#include "grapnel/optim/schedulers/fake_groups.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::google::protobuf::RepeatedPtrField;
using ::grapnel::optim::v1::ParamSchedulerState;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

using States = RepeatedPtrField<ParamSchedulerState>;

States Save(const Schedulers& schedulers) {
  States states;
  for (const auto& scheduler : schedulers) {
    EXPECT_THAT(scheduler->SaveState(states.Add()), IsOk());
  }
  return states;
}

// A loop's part in scheduling. Epochs have 5 iterations, the run 8 epochs.
struct Loop {
  static constexpr int kEpochLength = 5;
  static constexpr int kEpochs = 8;
  static constexpr int kIters = kEpochs * kEpochLength;

  explicit Loop(const std::vector<std::string>& configs, double lr = 1)
      : groups({{{"lr", lr}, {"momentum", 0.9}},
                {{"lr", lr / 4}, {"momentum", 0.9}}}),
        schedulers(
            MakeSchedulers(configs, groups, {kEpochs, kIters, kEpochLength})) {}

  void Apply() {
    for (auto& scheduler : schedulers) scheduler->Apply();
  }

  // To where `to` iterations are done, with a validation after each epoch whose
  // metric doesn't change.
  void RunTo(int to) {
    while (iter < to) {
      ++iter;
      for (auto& scheduler : schedulers) {
        if (!scheduler->by_epoch()) scheduler->Step();
      }
      if (iter % kEpochLength != 0) continue;
      for (auto& scheduler : schedulers) {
        if (scheduler->by_epoch()) scheduler->Step();
      }
      for (auto& scheduler : schedulers) scheduler->StepMetric(1);
    }
  }

  ResumePoint point() const {
    return {iter / kEpochLength, iter, kEpochLength};
  }

  int iter = 0;
  FakeGroups groups;
  Schedulers schedulers;
};

struct Change {
  const char* name;
  std::vector<std::string> before;
  std::vector<std::string> after;
  std::vector<std::string> warnings;  // Parts of the only one.
};

void PrintTo(const Change& change, std::ostream* out) { *out << change.name; }

class SchedulerReplayTest : public ::testing::TestWithParam<Change> {};

TEST_P(SchedulerReplayTest, HasTheValuesOfTheNewSettingsFromTheBeginning) {
  const Change& change = GetParam();
  for (int cut = 0; cut <= Loop::kIters; ++cut) {
    SCOPED_TRACE(cut);
    Loop before(change.before);
    before.Apply();
    before.RunTo(cut);
    Loop fresh(change.after);
    fresh.Apply();
    fresh.RunTo(cut);

    Loop resumed(change.after);
    resumed.groups.Load(before.groups);
    resumed.iter = cut;
    std::vector<std::string> warnings;
    ASSERT_THAT(RestoreSchedulers(resumed.schedulers, Save(before.schedulers),
                                  before.point(), RestoredOptions(), &warnings),
                IsOk());
    EXPECT_EQ(resumed.groups.values(), fresh.groups.values());
    ASSERT_THAT(warnings, SizeIs(1));
    for (const std::string& part : change.warnings) {
      EXPECT_THAT(warnings[0], HasSubstr(part));
    }
    EXPECT_THAT(
        warnings[0],
        HasSubstr(absl::StrCat(" with the new settings, to epoch ",
                               cut / Loop::kEpochLength, ", iteration ", cut)));
    // And from there on.
    fresh.RunTo(Loop::kIters);
    resumed.RunTo(Loop::kIters);
    EXPECT_EQ(resumed.groups.values(), fresh.groups.values());
  }
}

INSTANTIATE_TEST_SUITE_P(
    Changes, SchedulerReplayTest,
    ::testing::Values(
        Change{"Milestones",
               {"linear { end: 6 by_epoch: false }",
                "multi_step { milestones: [3, 6] }"},
               {"linear { end: 6 by_epoch: false }",
                "multi_step { milestones: [2, 4] }"},
               {"param_scheduler[1]: multi_step: milestones: [3, 6] -> [2, 4]: "
                "replayed lr"}},
        Change{"SeveralFieldsOfTwo",
               {"linear { end: 6 start_factor: 0.25 by_epoch: false }",
                "cosine_annealing { begin: 2 }"},
               {"linear { end: 9 start_factor: 0.5 by_epoch: false }",
                "cosine_annealing { begin: 1 eta_min_ratio: 0.1 }"},
               {"param_scheduler[0]: linear: start_factor: 0.25 -> 0.5; ",
                "param_scheduler[0]: linear: end: 6 -> 9; ",
                "param_scheduler[1]: cosine_annealing: t_max: 6 -> 7; ",
                "param_scheduler[1]: cosine_annealing: eta_min: 0 -> unset; ",
                "param_scheduler[1]: cosine_annealing: eta_min_ratio: unset -> "
                "0.1; ",
                "param_scheduler[1]: cosine_annealing: begin: 2 -> 1: "}},
        // Epochs and iterations take turns in what they do to the value.
        Change{"Interleaved",
               {"exponential { gamma: 0.9 by_epoch: false }"},
               {"poly { eta_min: 0.01 by_epoch: false }",
                "step { step_size: 2 gamma: 0.5 }",
                "cosine_restart { periods: [3, 5] restart_weights: [1, 0.5] "
                "eta_min: 0.1 }"},
               {"param_scheduler[0]: exponential -> poly; "
                "param_scheduler[1]: none -> step; "
                "param_scheduler[2]: none -> cosine_restart: replayed lr"}},
        Change{"Fewer",
               {"linear { end: 6 by_epoch: false }", "step { step_size: 2 }"},
               {"step { step_size: 2 }"},
               {"param_scheduler[0]: linear -> step; param_scheduler[1] of "
                "before: step -> none: replayed lr"}},
        Change{"UnitOfTime",
               {"step { step_size: 2 }"},
               {"step { step_size: 2 convert_to_iter_based: true }"},
               {"step: step_size: 2 -> 10; ", "step: by_epoch: true -> false"}},
        Change{"AnotherOption",
               {"step { step_size: 2 }"},
               {"step { step_size: 2 }",
                "linear { end: 4 param_name: 'momentum' }"},
               {"param_scheduler[1]: none -> linear: replayed momentum"}},
        Change{"TwoOptions",
               {"step { step_size: 2 }",
                "linear { end: 4 param_name: 'momentum' }"},
               {"step { step_size: 3 }",
                "linear { end: 5 param_name: 'momentum' }"},
               {"step: step_size: 2 -> 3; ",
                "linear: end: 4 -> 5: replayed "
                "lr, momentum"}},
        Change{"OneCycle",
               {"one_cycle { eta_max: 1 }"},
               {"one_cycle { eta_max: [1, 2] pct_start: 0.5 }"},
               {"one_cycle: eta_max: [1] -> [1, 2]; ",
                "one_cycle: pct_start: 0.3 -> 0.5"}},
        Change{"WarmupBesideAPlateau",
               {"linear { end: 7 by_epoch: false }",
                "reduce_on_plateau { patience: 1 factor: 0.5 }"},
               {"linear { end: 3 by_epoch: false }",
                "reduce_on_plateau { patience: 1 factor: 0.5 }"},
               {"linear: end: 7 -> 3: "}},
        Change{"FactorOfAPlateau",
               {"exponential { gamma: 0.9 }",
                "reduce_on_plateau { patience: 1 factor: 0.5 cooldown: 1 }"},
               {"exponential { gamma: 0.9 }",
                "reduce_on_plateau { patience: 1 factor: 0.25 cooldown: 1 "
                "min_value: 0.01 }"},
               {"reduce_on_plateau: factor: 0.5 -> 0.25; ",
                "reduce_on_plateau: min_value: [0] -> [0.01]"}},
        Change{"PlateauMoved",
               {"reduce_on_plateau { patience: 0 }", "step { step_size: 2 }"},
               {"step { step_size: 2 }", "reduce_on_plateau { patience: 0 }"},
               {"param_scheduler[0]: reduce_on_plateau -> step; "
                "param_scheduler[1]: step -> reduce_on_plateau"}}),
    [](const auto& info) { return std::string(info.param.name); });

TEST(RestoreSchedulersTest, UnchangedSettingsGoOnFromTheStates) {
  // Moved by something else: a replay would lose it.
  Loop before({"exponential { gamma: 0.5 }"});
  before.Apply();
  before.RunTo(10);
  before.groups.Set(0, "lr", 7);
  Loop after({"exponential { gamma: 0.5 }"}, /*lr=*/100);
  after.groups.Load(before.groups);
  std::vector<std::string> warnings;
  ASSERT_THAT(RestoreSchedulers(after.schedulers, Save(before.schedulers), {},
                                RestoredOptions(), &warnings),
              IsOk());
  EXPECT_THAT(warnings, IsEmpty());
  EXPECT_EQ(after.groups.lr(), 7);
  EXPECT_EQ(after.schedulers[0]->num_steps(), 2);
  after.schedulers[0]->Step();
  EXPECT_EQ(after.groups.lr(), 3.5);
}

// Protobuf promises no spelling from one version to the next.
TEST(RestoreSchedulersTest, SettingsAreComparedByWhatTheySay) {
  struct Case {
    const char* settings;
    std::vector<std::string> warnings;
  };
  const Case cases[] = {
      {"end: 5, begin: 0,\n start_factor: 5e-1 end_factor: 1.0 by_epoch: 1 "
       "param_name: 'lr'",
       {}},
      {"start_factor: 0.25 end_factor: 1 begin: 0 end: 5 by_epoch: true "
       "param_name: 'lr'",
       {"param_scheduler[0]: linear: start_factor: 0.25 -> 0.5: replayed lr "
        "with the new settings, to epoch 1, iteration 5"}},
      {"field_of_a_later_version: 1",
       {"param_scheduler[0]: linear: settings: \"field_of_a_later_version: 1\" "
        "-> \"start_factor: 0.5 end_factor: 1 begin: 0 end: 5 by_epoch: true "
        "param_name: \"lr\"\": replayed lr with the new settings, to epoch 1, "
        "iteration 5"}},
  };
  for (const Case& test : cases) {
    SCOPED_TRACE(test.settings);
    Loop before({"linear { start_factor: 0.5 end: 5 }"});
    before.Apply();
    before.RunTo(5);
    States states = Save(before.schedulers);
    states[0].set_settings(test.settings);
    std::vector<std::string> warnings;
    ASSERT_THAT(RestoreSchedulers(before.schedulers, states, before.point(),
                                  RestoredOptions(), &warnings),
                IsOk());
    EXPECT_EQ(warnings, test.warnings);
  }
}

TEST(RestoreSchedulersTest, AnOptionWithoutSchedulersKeepsItsValue) {
  Loop before({"exponential { gamma: 0.5 }", "step { step_size: 1 }"});
  before.Apply();
  before.RunTo(5);
  Loop after({});
  after.groups.Load(before.groups);
  std::vector<std::string> warnings;
  ASSERT_THAT(RestoreSchedulers(after.schedulers, Save(before.schedulers),
                                before.point(), RestoredOptions(), &warnings),
              IsOk());
  EXPECT_EQ(after.groups.lr(), 0.05);
  EXPECT_THAT(warnings,
              ElementsAre("param_scheduler: none is left of the 2 that moved "
                          "lr, which stays as it is unless another value is "
                          "configured"));
}

// A checkpoint without the schedulers' states, or without the optimizer's.
TEST(RestoreSchedulersTest, WhatIsMissingIsReplayedFromTheConfig) {
  const std::vector<std::string> configs = {
      "exponential { gamma: 0.5 }", "linear { end: 12 by_epoch: false }"};
  Loop before(configs);
  before.Apply();
  before.RunTo(7);

  Loop no_states(configs);
  no_states.groups.Load(before.groups);
  std::vector<std::string> warnings;
  ASSERT_THAT(RestoreSchedulers(no_states.schedulers, {}, before.point(),
                                RestoredOptions(), &warnings),
              IsOk());
  EXPECT_EQ(no_states.groups.values(), before.groups.values());
  EXPECT_THAT(warnings, ElementsAre(HasSubstr("none -> exponential")));

  Loop no_optimizer(configs);
  ResumePoint point = before.point();
  point.options_restored = false;
  warnings.clear();
  ASSERT_THAT(
      RestoreSchedulers(no_optimizer.schedulers, Save(before.schedulers), point,
                        RestoredOptions(), &warnings),
      IsOk());
  EXPECT_EQ(no_optimizer.groups.values(), before.groups.values());
  EXPECT_THAT(warnings, IsEmpty());
}

// Of a loop that counts iterations alone: an epoch is stepped at its very end.
TEST(RestoreSchedulersTest, TheStatesKnowTheirSteps) {
  Loop before({"step { step_size: 1 }", "linear { end: 9 by_epoch: false }"});
  before.Apply();
  for (int i = 0; i < 4; ++i) before.schedulers[1]->Step();
  before.schedulers[0]->Step();
  Loop after({"step { step_size: 1 gamma: 0.5 }",
              "linear { end: 9 by_epoch: false }"});
  after.groups.Load(before.groups);
  std::vector<std::string> warnings;
  ASSERT_THAT(RestoreSchedulers(after.schedulers, Save(before.schedulers),
                                {/*epochs=*/0, /*iters=*/4}, RestoredOptions(),
                                &warnings),
              IsOk());
  EXPECT_EQ(after.schedulers[0]->num_steps(), 1);
  EXPECT_EQ(after.schedulers[1]->num_steps(), 4);
  EXPECT_DOUBLE_EQ(after.groups.lr(), before.groups.lr() * 5);
}

TEST(RestoreSchedulersTest, OptimizersAreToldApart) {
  FakeGroups generator({{{"lr", 1}}}), critic({{{"lr", 2}}});
  const auto make = [&](const char* of_generator, const char* of_critic) {
    Schedulers schedulers;
    schedulers.push_back(MakeScheduler(of_generator, generator));
    schedulers.back()->set_optimizer("generator");
    schedulers.push_back(MakeScheduler(of_critic, critic));
    schedulers.back()->set_optimizer("critic");
    return schedulers;
  };
  Schedulers before =
      make("exponential { gamma: 0.5 }", "exponential { gamma: 0.5 }");
  for (auto& scheduler : before) {
    scheduler->Apply();
    scheduler->Step();
    scheduler->Step();
  }
  const States states = Save(before);
  Schedulers after =
      make("exponential { gamma: 0.5 }", "exponential { gamma: 0.25 }");
  std::vector<std::string> warnings;
  ASSERT_THAT(
      RestoreSchedulers(after, states, {}, RestoredOptions(), &warnings),
      IsOk());
  EXPECT_EQ(generator.lr(), 0.25);
  EXPECT_EQ(critic.lr(), 0.125);
  EXPECT_THAT(
      warnings,
      ElementsAre("critic: param_scheduler[0]: exponential: gamma: 0.5 -> "
                  "0.25: replayed critic.lr with the new settings, to epoch 2, "
                  "iteration 0"));
}

// Two epochs of 4 iterations, then epochs of 2: an iteration's schedule has
// taken 8 steps, a converted one of the same option 4.
TEST(RestoreSchedulersTest, EveryClockIsReplayedByItsOwnSteps) {
  const std::vector<std::string> configs = {
      "exponential { gamma: 0.5 by_epoch: false }",
      "exponential { gamma: 0.1 convert_to_iter_based: true }",
      "exponential { gamma: 3 }"};
  FakeGroups before_groups({{{"lr", 1}}});
  const Schedulers before = MakeSchedulers(configs, before_groups, {4, 16, 4});
  for (auto& scheduler : before) scheduler->Apply();
  for (int i = 0; i < 8; ++i) {
    before[0]->Step();
    before[1]->Step();
    if (i % 4 == 3) before[2]->Step();
  }
  FakeGroups groups({{{"lr", 1}}});
  const Schedulers after = MakeSchedulers(configs, groups, {4, 12, 2});
  groups.Load(before_groups);
  ResumePoint point;
  point.epochs = 2;
  point.iters = 8;
  point.epoch_length = 2;
  point.lengths = {{0, 0, 4}, {2, 8, 2}};
  point.converted = 4;
  point.saved_converted = 8;
  point.length = {4, 12, 2};
  point.saved_length = {4, 16, 4};
  std::vector<std::string> warnings;
  ASSERT_THAT(RestoreSchedulers(after, Save(before), point, RestoredOptions(),
                                &warnings),
              IsOk());
  EXPECT_NEAR(groups.lr(), std::pow(0.5, 8) * std::pow(0.1, 4) * 9, 1e-15);
  EXPECT_EQ(after[0]->num_steps(), 8);
  EXPECT_EQ(after[1]->num_steps(), 4);
  EXPECT_EQ(after[2]->num_steps(), 2);
}

// What was reset is replayed; what wasn't keeps its value, no matter what moved
// it.
TEST(RestoreSchedulersTest, GroupsThatWereNotResetKeepTheirValues) {
  FakeGroups before_groups({{{"lr", 1}}, {{"lr", 1}}});
  const Schedulers before =
      MakeSchedulers({"step { step_size: 1 gamma: 0.5 }"}, before_groups);
  for (auto& scheduler : before) scheduler->Apply();
  before[0]->Step();
  before_groups.Set(0, "lr", 0.123);  // A hook.
  FakeGroups groups({{{"lr", 1}}, {{"lr", 3}}});
  const Schedulers after =
      MakeSchedulers({"step { step_size: 1 gamma: 0.5 }"}, groups);
  groups.Set(0, "lr", 0.123);
  RestoredOptions options;
  options.configured_known = true;
  options.reset = {groups.option(1, "lr")};
  ResumePoint point;
  point.epochs = 1;
  point.epoch_length = 4;
  point.iters = 4;
  std::vector<std::string> warnings;
  ASSERT_THAT(RestoreSchedulers(after, Save(before), point, options, &warnings),
              IsOk());
  EXPECT_EQ(groups.lr(0), 0.123);
  EXPECT_EQ(groups.lr(1), 1.5);
  EXPECT_THAT(warnings, IsEmpty());
}

TEST(RestoreSchedulersTest, BadStatesAreNamed) {
  Loop before({"step { step_size: 1 }", "linear { end: 9 by_epoch: false }"});
  before.Apply();
  struct Case {
    const char* message;
    std::vector<std::string> configs;
    void (*damage)(States*);
  };
  const std::vector<std::string> same = {"step { step_size: 1 }",
                                         "linear { end: 9 by_epoch: false }"};
  const std::vector<std::string> other = {"step { step_size: 2 }",
                                          "linear { end: 9 by_epoch: false }"};
  const Case cases[] = {
      {"param_scheduler[1]: global_step: must be >= -1, is -5", same,
       [](States* states) { (*states)[1].set_global_step(-5); }},
      {"param_scheduler[0]: base_values: the state has 3, the optimizer has 2 "
       "groups",
       same, [](States* states) { (*states)[0].add_base_values(1); }},
      {"param_scheduler[0]: base_values: the state has 3, the optimizer has 2 "
       "groups",
       other, [](States* states) { (*states)[0].add_base_values(1); }},
      {"param_scheduler[0]: base_values: must be finite, is inf", other,
       [](States* states) {
         (*states)[0].set_base_values(0,
                                      std::numeric_limits<double>::infinity());
       }},
  };
  for (const Case& test : cases) {
    SCOPED_TRACE(test.message);
    States states = Save(before.schedulers);
    test.damage(&states);
    Loop after(test.configs);
    std::vector<std::string> warnings;
    EXPECT_THAT(
        RestoreSchedulers(after.schedulers, states, {}, RestoredOptions(),
                          &warnings),
        StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(test.message)));
  }
}

TEST(RestoreSchedulersTest, AMillionStepsAreReplayedInNoTime) {
  FakeGroups groups({{{"lr", 1}}, {{"lr", 2}}, {{"lr", 1}}});
  const RunLength length = {100, 1000000, 10000};
  const Schedulers schedulers =
      MakeSchedulers({"linear { end: 5000 by_epoch: false }",
                      "cosine_annealing { begin: 5000 by_epoch: false }",
                      "step { step_size: 30 }"},
                     groups, length);
  std::vector<std::string> warnings;
  const auto start = std::chrono::steady_clock::now();
  ASSERT_THAT(RestoreSchedulers(schedulers, {}, {100, 1000000, 10000},
                                RestoredOptions(), &warnings),
              IsOk());
  const std::chrono::duration<double> took =
      std::chrono::steady_clock::now() - start;
  EXPECT_EQ(schedulers[0]->num_steps(), 1000000);
  EXPECT_EQ(schedulers[2]->num_steps(), 100);
  RecordProperty("seconds", std::to_string(took.count()));
  // Far above what it takes: a busy machine is no failure, a quadratic replay
  // is.
  EXPECT_LT(took.count(), 5);
}

}  // namespace
}  // namespace grapnel
