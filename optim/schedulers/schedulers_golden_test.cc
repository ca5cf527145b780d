// What the schedulers compute, through the registry, against MMEngine's golden
// tables.

#include <fstream>
#include <limits>
#include <map>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "google/protobuf/repeated_ptr_field.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/optim/param_scheduler.h"
#include "grapnel/optim/param_scheduler.pb.h"
#include "grapnel/optim/schedulers/fake_groups.h"
#include "grapnel/optim/schedulers/scheduler_replay.h"
#include "grapnel/tests/golden/golden_report.h"
#include "grapnel/tests/golden/golden_scheduler.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace grapnel {
namespace {

using ::google::protobuf::RepeatedPtrField;
using ::grapnel::optim::v1::ParamSchedulerConfig;
using ::grapnel::optim::v1::ParamSchedulerState;
using ::testing::DoubleEq;
using ::testing::ElementsAre;
using ::testing::Eq;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pointwise;

using Json = nlohmann::ordered_json;

Json ReadGolden(const std::string& file) {
  std::ifstream in("tests/golden/" + file);
  EXPECT_TRUE(in.is_open()) << file;
  return Json::parse(in);
}

FakeGroups GoldenGroups(const Json& test) {
  const Json& optimizer = test["optimizer"];
  FakeGroups::Options defaults = {{"lr", optimizer.value("lr", 0.05)}};
  for (const char* name : {"momentum", "weight_decay"}) {
    if (optimizer.contains(name)) defaults[name] = optimizer[name];
  }
  // Python's Adam, unless it says otherwise.
  if (optimizer.value("type", "") == "Adam") defaults["momentum"] = 0.9;
  if (optimizer.contains("betas")) {
    defaults["momentum"] = optimizer["betas"][0];
  }
  std::vector<FakeGroups::Options> groups;
  if (!optimizer.contains("groups")) groups.push_back(defaults);
  for (const Json& group : optimizer.value("groups", Json::array())) {
    groups.push_back(defaults);
    if (group.contains("lr")) groups.back()["lr"] = group["lr"];
  }
  if (test["wrapped"]) groups.push_back(defaults);
  return FakeGroups(std::move(groups), test["wrapped"]);
}

absl::StatusOr<Schedulers> MakeGolden(const Json& specs, ParamGroups& groups) {
  Schedulers schedulers;
  for (Json arguments : specs) {
    RunLength length;
    length.epoch_length = arguments.value("epoch_length", -1);
    // Upstream's unset end, which two of ours set by themselves.
    if (!arguments.contains("end") && !arguments.contains("total_steps") &&
        arguments["cls"] != "ReduceOnPlateauLR") {
      arguments["end"] = 1000000000;
    }
    const auto config = GoldenSchedulerConfig(arguments);
    if (!config.ok()) return config.status();
    auto scheduler = ParamSchedulerRegistry::Create(*config, groups, length);
    if (!scheduler.ok()) return scheduler.status();
    schedulers.push_back(*std::move(scheduler));
  }
  return schedulers;
}

// One step of all of them; `metrics` is null without a validation.
void StepAll(Schedulers& schedulers, const Json& metrics) {
  for (auto& scheduler : schedulers) scheduler->Step();
  for (auto& scheduler : schedulers) {
    if (scheduler->monitor() == nullptr || !metrics.is_object()) continue;
    ASSERT_TRUE(metrics.contains(*scheduler->monitor()));
    const Json& value = metrics[*scheduler->monitor()];
    scheduler->StepMetric(value == "nan"
                              ? std::numeric_limits<double>::quiet_NaN()
                              : value.get<double>());
  }
}

Json MetricsOf(const Json& test, size_t step) {
  return test.contains("metrics") && step > 0 ? test["metrics"][step - 1]
                                              : Json();
}

// A row in one form: for each group the values of test["record"], of betas the
// first. In the file it is a number a group if there is one to record.
Json GoldenRow(const Json& row) {
  Json groups = Json::array();
  for (const Json& group : row) {
    Json values = Json::array();
    for (const Json& value : group.is_array() ? group : Json::array({group})) {
      values.push_back(value.is_array() ? value[0] : value);
    }
    groups.push_back(values);
  }
  return groups;
}

Json GoldenRows(const Json& rows) {
  Json golden = Json::array();
  for (const Json& row : rows) golden.push_back(GoldenRow(row));
  return golden;
}

Json OurRow(const Json& test, const FakeGroups& groups) {
  Json ours = Json::array();
  for (const FakeGroups::Options& group : groups.values()) {
    Json values = Json::array();
    for (const std::string name : test["record"]) {
      values.push_back(group.at(name == "betas" ? "momentum" : name));
    }
    ours.push_back(values);
  }
  return ours;
}

// Upstream's way to go on at a step, which ours is loading a state.
absl::Status GoOnAt(const Json& test, Schedulers& schedulers,
                    FakeGroups& groups) {
  ParamSchedulerState state;
  EXPECT_THAT(schedulers[0]->SaveState(&state), IsOk());
  state.set_last_step(test["schedulers"][0]["last_step"]);
  state.clear_base_values();
  if (test.contains("init")) {
    state.add_base_values(test["init"]["initial_lr"]);
    groups.Set(0, "lr", test["init"]["lr"]);
  }
  return schedulers[0]->LoadState(state);
}

absl::Status MakeAndGoOn(const Json& test, FakeGroups& groups,
                         Schedulers* schedulers) {
  auto made = MakeGolden(test["schedulers"], groups);
  if (!made.ok()) return made.status();
  *schedulers = *std::move(made);
  if (!test["schedulers"][0].contains("last_step")) return absl::OkStatus();
  return GoOnAt(test, *schedulers, groups);
}

void ExpectSameBits(const GoldenCase& golden_case, const Json& test) {
  FakeGroups groups = GoldenGroups(test);
  Schedulers schedulers;
  ASSERT_THAT(MakeAndGoOn(test, groups, &schedulers), IsOk());
  for (auto& scheduler : schedulers) scheduler->Apply();
  const Json golden = GoldenRows(test["values"]);
  ASSERT_FALSE(golden.empty());
  Json rows = Json::array();
  for (size_t step = 0; step < golden.size(); ++step) {
    if (step > 0) StepAll(schedulers, MetricsOf(test, step));
    rows.push_back(OurRow(test, groups));
  }
  for (size_t i = 0; i < schedulers.size(); ++i) {
    ParamSchedulerState state;
    ASSERT_THAT(schedulers[i]->SaveState(&state), IsOk());
    EXPECT_EQ(state.last_step(), test["counters"][i]["last_step"]);
    EXPECT_EQ(state.global_step(), test["counters"][i]["global_step"]);
    EXPECT_EQ(schedulers[i]->num_steps(), state.global_step());
  }
  EXPECT_GOLDEN(golden_case, rows, Eq(golden));
}

// Of a case with one group.
void ExpectRates(const GoldenCase& golden_case, const Json& test,
                 const std::vector<double>& expected) {
  FakeGroups groups = GoldenGroups(test);
  Schedulers schedulers;
  ASSERT_THAT(MakeAndGoOn(test, groups, &schedulers), IsOk());
  for (auto& scheduler : schedulers) scheduler->Apply();
  std::vector<double> rates;
  for (size_t step = 0; step < expected.size(); ++step) {
    if (step > 0) StepAll(schedulers, MetricsOf(test, step));
    rates.push_back(groups.lr());
  }
  EXPECT_GOLDEN(golden_case, rates, Pointwise(DoubleEq(), expected));
}

void ExpectError(const GoldenCase& golden_case, const Json& test,
                 const std::string& message) {
  FakeGroups groups = GoldenGroups(test);
  Schedulers schedulers;
  EXPECT_GOLDEN(
      golden_case, MakeAndGoOn(test, groups, &schedulers),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(message)));
}

// What ours is where it isn't upstream's.
struct Difference {
  std::string why;
  std::vector<double> rates;  // Or
  std::string error;
};

struct GoldenFile {
  const char* name;
  size_t num_cases;
  std::map<std::string, std::string> errors;  // Here as there.
  std::map<std::string, Difference> differences;
};

void PrintTo(const GoldenFile& file, std::ostream* out) { *out << file.name; }

std::vector<GoldenFile> GoldenFiles() {
  const std::string no_last_step =
      "there is no argument last_step: a state is loaded, and checked";
  return {
      {"ConstantLR",
       8,
       {{"factor_above_one", "factor: must be in [0, 1], is 1.5"}},
       {{"one_step_window",
         {"c28: a window of one step begins and ends in it",
          {0.05, 0.05, 0.05, 0.05, 0.05},
          ""}},
        {"factor_zero",
         {"c28: back to the base value where upstream divides by zero",
          {0, 0, 0.05, 0.05, 0.05},
          ""}}}},
      {"CosineAnnealingLR",
       12,
       {{"both_floors", "eta_min_ratio: can't be set together with eta_min"}},
       {{"T_max_zero",
         {"refused, upstream takes 0 for unset",
          {},
          "t_max: must be >= 1, is 0"}}}},
      {"CosineRestartLR",
       7,
       {{"weights_mismatch",
         "restart_weights: must have as many values as periods, which has 2, "
         "has 1"},
        {"no_floor", "eta_min: must be set, or eta_min_ratio"}},
       {}},
      {"ExponentialLR", 5, {}, {}},
      {"LinearLR",
       12,
       {},
       {{"one_step_window",
         {"c28: the end factor is reached at `end`, upstream stays at the "
          "start",
          {0.025, 0.05, 0.05, 0.05},
          ""}},
        {"start_zero",
         {"c28: goes on from 0 where upstream divides by zero",
          {0, 0.0125, 0.025, 0.0375, 0.05, 0.05},
          ""}}}},
      {"MultiStepLR", 7, {}, {}},
      {"OneCycleLR",
       14,
       {{"bad_strategy",
         "anneal_strategy: must be one of \"cos\", \"linear\", is \"exp\""},
        {"total_negative",
         "total_steps: must be >= 1, and not too large, is -1"},
        {"momentum_param", "param_name: must be \"lr\", is \"momentum\""}},
       {{"overrun",
         {"the window closes with the cycle: the last rate stays, where "
          "upstream turns up again and then fails",
          {0.0040000000000000036, 0.09504846320134738, 0.06112620219362893,
           0.0188258346050237, 4e-07, 4e-07, 4e-07, 4e-07},
          ""}},
        {"peak_step_zero",
         {"starts at the peak where upstream divides by zero",
          {0.1, 0.09698464310077128},
          ""}},
        {"pct_int",
         {"1 is 1.0", {0.0040000000000000036, 0.006894754202276393}, ""}}}},
      {"PolyLR", 7, {}, {}},
      {"ReduceOnPlateauLR",
       23,
       {{"min_value_bad_len",
         "min_value: must have 1 value, or one a group, which is 2, has 3"},
        {"factor_one", "factor: must be in [0, 1), is 1"},
        {"bad_rule", "rule: must be one of \"less\", \"greater\", is \"min\""},
        {"bad_threshold_rule",
         "threshold_rule: must be one of \"rel\", \"abs\", is \"pct\""},
        {"neg_threshold", "threshold: must be finite and >= 0, is -1"},
        {"by_iter", "has no field named \"by_epoch\""}},
       {{"huge_metric",
         {"c27: the first value is the best so far, however large",
          {0.05, 0.05, 0.05, 0.025},
          ""}}}},
      {"StepLR",
       9,
       {},
       {{"manual_last_step_missing_initial",
         {no_last_step,
          {},
          "base_values: the state has 0, the optimizer has 1 groups"}}}},
      {"chains", 11, {}, {}},
      {"momentum",
       20,
       {{"no_momentum_support",
         "param_name: the optimizer has no option \"momentum\""}},
       {}},
      {"other",
       12,
       {{"unknown_param", "param_name: the optimizer has no option \"nope\""},
        {"end_not_after_begin", "end: must be > begin, which is 5, is 5"},
        {"linear_start_gt1", "start_factor: must be in [0, 1], is 1.5"},
        {"linear_end_lt0", "end_factor: must be in [0, 1], is -0.1"},
        {"converted_bad_length",
         "convert_to_iter_based: needs a run whose epochs have a known length"},
        {"converted_by_iter",
         "convert_to_iter_based: needs by_epoch, which is false"}},
       {{"bad_last_step",
         {no_last_step, {}, "last_step: must be >= -1, is -2"}}}},
  };
}

class SchedulersGoldenTest : public ::testing::TestWithParam<GoldenFile> {};

TEST_P(SchedulersGoldenTest, EveryValueHasTheSameBits) {
  const GoldenFile& file = GetParam();
  const std::string json = "scheduler_" + std::string(file.name) + ".json";
  size_t errors = 0;
  size_t differences = 0;
  const Json cases = ReadGolden(json)["cases"];
  for (const Json& test : cases) {
    const std::string name = test["name"];
    SCOPED_TRACE(name);
    // The hook looks metrics up: hooks/param_scheduler runs this one.
    if (name == "wrong_key") continue;
    const auto difference = file.differences.find(name);
    const auto error = file.errors.find(name);
    GoldenCase golden_case(json, "cases/" + name);
    if (difference != file.differences.end()) {
      ++differences;
      golden_case.difference = difference->second.why;
      if (difference->second.error.empty()) {
        ExpectRates(golden_case, test, difference->second.rates);
      } else {
        ExpectError(golden_case, test, difference->second.error);
      }
    } else if (error != file.errors.end()) {
      ++errors;
      EXPECT_TRUE(test.contains("raised"));
      ExpectError(golden_case, test, error->second);
    } else {
      EXPECT_FALSE(test.contains("raised"));
      ExpectSameBits(golden_case, test);
    }
  }
  EXPECT_EQ(cases.size(), file.num_cases);
  EXPECT_EQ(errors, file.errors.size());
  EXPECT_EQ(differences, file.differences.size());
}

INSTANTIATE_TEST_SUITE_P(Tables, SchedulersGoldenTest,
                         ::testing::ValuesIn(GoldenFiles()),
                         [](const auto& info) {
                           return std::string(info.param.name);
                         });

// ---- Going on ----

// What a checkpoint keeps of them.
RepeatedPtrField<ParamSchedulerState> Save(const Schedulers& schedulers) {
  RepeatedPtrField<ParamSchedulerState> states;
  for (const auto& scheduler : schedulers) {
    ParamSchedulerState state;
    EXPECT_THAT(scheduler->SaveState(&state), IsOk());
    EXPECT_TRUE(states.Add()->ParseFromString(state.SerializeAsString()));
  }
  return states;
}

// Cuts every case of every file at every step.
TEST(SchedulersResumeTest, ResumedAtEveryCutEqualsUninterrupted) {
  int num_cuts = 0;
  for (const GoldenFile& file : GoldenFiles()) {
    const std::string json = "scheduler_" + std::string(file.name) + ".json";
    const Json cases = ReadGolden(json)["cases"];
    for (const Json& test : cases) {
      const std::string name = test["name"];
      if (file.errors.count(name) + file.differences.count(name) > 0 ||
          name == "wrong_key") {
        continue;
      }
      const Json& rows = test["values"];
      for (size_t cut = 0; cut < rows.size(); ++cut) {
        SCOPED_TRACE(json + " " + name + " " + std::to_string(cut));
        ++num_cuts;
        FakeGroups before = GoldenGroups(test);
        Schedulers first;
        ASSERT_THAT(MakeAndGoOn(test, before, &first), IsOk());
        for (auto& scheduler : first) scheduler->Apply();
        for (size_t step = 1; step <= cut; ++step) {
          StepAll(first, MetricsOf(test, step));
        }
        // A new process: schedulers are made, then the optimizer's state comes,
        // then theirs.
        FakeGroups after = GoldenGroups(test);
        auto second = MakeGolden(test["schedulers"], after);
        ASSERT_THAT(second, IsOk());
        after.Load(before);
        std::vector<std::string> warnings;
        ASSERT_THAT(RestoreSchedulers(*second, Save(first), {},
                                      RestoredOptions(), &warnings),
                    IsOk());
        EXPECT_THAT(warnings, IsEmpty());
        for (size_t step = cut; step < rows.size(); ++step) {
          if (step > cut) StepAll(*second, MetricsOf(test, step));
          EXPECT_EQ(OurRow(test, after), GoldenRow(rows[step]))
              << "step " << step;
        }
      }
    }
  }
  EXPECT_GT(num_cuts, 800);
}

const Json kPlain =
    Json::parse(R"({"optimizer": {}, "wrapped": false, "record": ["lr"]})");

TEST(SchedulersResumeTest, GoldenSplits) {
  const Json splits = ReadGolden("scheduler_chains.json")["resume_splits"];
  EXPECT_EQ(splits.size(), 12u);
  for (const Json& split : splits) {
    const std::string name = split["name"];
    SCOPED_TRACE(name);
    const Json specs = Json::array({split["spec"]});
    FakeGroups before = GoldenGroups(kPlain);
    auto first = MakeGolden(specs, before);
    ASSERT_THAT(first, IsOk());
    (*first)[0]->Apply();
    for (int step = 0; step < split["cut"]; ++step) (*first)[0]->Step();
    FakeGroups after = GoldenGroups(kPlain);
    auto second = MakeGolden(specs, after);
    ASSERT_THAT(second, IsOk());
    after.Load(before);
    std::vector<std::string> warnings;
    ASSERT_THAT(RestoreSchedulers(*second, Save(*first), {}, RestoredOptions(),
                                  &warnings),
                IsOk());
    EXPECT_THAT(warnings, IsEmpty());
    const Json golden = GoldenRows(split["tail"]);
    ASSERT_FALSE(golden.empty());
    Json tail = Json::array();
    for (size_t i = 0; i < golden.size(); ++i) {
      (*second)[0]->Step();
      tail.push_back(OurRow(kPlain, after));
    }
    EXPECT_GOLDEN(GoldenCase("scheduler_chains.json", "resume_splits/" + name),
                  tail, Eq(golden));
  }
}

TEST(SchedulersResumeTest, GoldenChangedConfig) {
  const Json golden =
      ReadGolden("scheduler_chains.json")["changed_config_on_resume"];
  Json old_spec = golden["old"];
  Json new_spec = golden["new"];
  old_spec["cls"] = new_spec["cls"] = "MultiStepLR";
  FakeGroups before = GoldenGroups(kPlain);
  auto first = MakeGolden(Json::array({old_spec}), before);
  ASSERT_THAT(first, IsOk());
  (*first)[0]->Apply();
  for (int step = 0; step < golden["cut"]; ++step) (*first)[0]->Step();
  EXPECT_DOUBLE_EQ(before.lr(), 0.005);

  FakeGroups after = GoldenGroups(kPlain);
  auto second = MakeGolden(Json::array({new_spec}), after);
  ASSERT_THAT(second, IsOk());
  after.Load(before);
  std::vector<std::string> warnings;
  ASSERT_THAT(RestoreSchedulers(*second, Save(*first), {}, RestoredOptions(),
                                &warnings),
              IsOk());
  EXPECT_EQ(after.lr(), 0.05);
  std::vector<double> tail;
  for (size_t i = 0; i < golden["tail"].size(); ++i) {
    (*second)[0]->Step();
    tail.push_back(after.lr());
  }
  EXPECT_THAT(warnings,
              ElementsAre("param_scheduler[0]: multi_step: milestones: "
                          "[2, 4] -> [5, 8]; "
                          "param_scheduler[0]: multi_step: gamma: 0.1 -> "
                          "0.5; "
                          "param_scheduler[0]: multi_step: end: 6 -> 20: "
                          "replayed lr with the new settings, to epoch 3, "
                          "iteration 0"));
  EXPECT_GOLDEN(
      GoldenCase("scheduler_chains.json", "changed_config_on_resume",
                 "c15: the config wins, with a warning; the value is replayed"),
      tail,
      ElementsAre(0.05, 0.025, 0.025, 0.025, 0.0125, 0.0125, 0.0125, 0.0125));
}

TEST(SchedulersResumeTest, GoldenConstructionAfterTheOptimizersLoad) {
  const Json golden =
      ReadGolden("scheduler_chains.json")["construct_after_optimizer_load"];
  const Json specs =
      Json::array({{{"cls", "LinearLR"}, {"start_factor", 0.1}, {"end", 5}}});
  FakeGroups before = GoldenGroups(kPlain);
  auto first = MakeGolden(specs, before);
  ASSERT_THAT(first, IsOk());
  (*first)[0]->Apply();
  for (int step = 0; step < 4; ++step) (*first)[0]->Step();

  FakeGroups after = GoldenGroups(kPlain);
  const double in_checkpoint = golden["lr_in_checkpoint"];
  after.Set(0, "lr", in_checkpoint);
  auto second = MakeGolden(specs, after);
  ASSERT_THAT(second, IsOk());
  EXPECT_EQ(after.lr(), in_checkpoint);
  std::vector<std::string> warnings;
  ASSERT_THAT(RestoreSchedulers(*second, Save(*first), {}, RestoredOptions(),
                                &warnings),
              IsOk());
  EXPECT_NE(in_checkpoint, golden["lr_after_state_load"].get<double>());
  EXPECT_GOLDEN(
      GoldenCase("scheduler_chains.json", "construct_after_optimizer_load",
                 "c14: construction writes nothing"),
      after.lr(), Eq(in_checkpoint));
}

}  // namespace
}  // namespace grapnel
