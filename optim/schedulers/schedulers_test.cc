// All schedulers, through the registry: what they compute against the golden
// tables, and what they refuse.

#include <cstdint>
#include <fstream>
#include <limits>
#include <map>
#include <memory>
#include <ostream>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "google/protobuf/text_format.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/optim/param_groups.h"
#include "grapnel/optim/param_scheduler.h"
#include "grapnel/optim/param_scheduler.pb.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace grapnel {
namespace {

using ::google::protobuf::TextFormat;
using ::grapnel::optim::v1::ParamSchedulerConfig;
using ::grapnel::optim::v1::ParamSchedulerState;
using ::nlohmann::json;
using ::testing::HasSubstr;

using Schedulers = std::vector<std::unique_ptr<ParamScheduler>>;

// Groups of any options.
class FakeGroups : public ParamGroups {
 public:
  explicit FakeGroups(std::vector<std::map<std::string, double>> groups)
      : groups_(std::move(groups)) {}
  int num_groups() const override { return static_cast<int>(groups_.size()); }
  double* option(int group, absl::string_view name) override {
    const auto found = groups_[group].find(std::string(name));
    return found == groups_[group].end() ? nullptr : &found->second;
  }
  std::vector<std::map<std::string, double>>& values() { return groups_; }

 private:
  std::vector<std::map<std::string, double>> groups_;
};

ParamSchedulerConfig Parse(const std::string& text) {
  ParamSchedulerConfig config;
  EXPECT_TRUE(TextFormat::ParseFromString(text, &config)) << text;
  return config;
}

std::unique_ptr<ParamScheduler> Make(const std::string& text,
                                     ParamGroups& groups,
                                     const RunLength& length = {}) {
  auto scheduler = ParamSchedulerRegistry::Create(Parse(text), groups, length);
  EXPECT_THAT(scheduler, IsOk()) << text;
  return scheduler.ok() ? *std::move(scheduler) : nullptr;
}

double Lr(FakeGroups& groups, int group = 0) {
  return *groups.option(group, "lr");
}

// ---- The golden tables ----

json ReadCases(const std::string& file) {
  std::ifstream in("tests/golden/" + file);
  EXPECT_TRUE(in.is_open()) << file;
  return json::parse(in).at("cases");
}

// The config that stands for a golden scheduler's arguments.
ParamSchedulerConfig GoldenConfig(const json& arguments, RunLength* length) {
  // Python's classes name the option, ours have a field.
  static const std::map<std::string, std::pair<std::string, std::string>>
      kKinds = {{"LinearLR", {"linear", "lr"}},
                {"LinearMomentum", {"linear", "momentum"}},
                {"CosineAnnealingLR", {"cosine_annealing", "lr"}},
                {"CosineAnnealingMomentum", {"cosine_annealing", "momentum"}}};
  static const std::map<std::string, std::string> kFields = {
      {"T_max", "t_max"}};
  const auto& [kind, option] = kKinds.at(arguments["cls"]);
  std::string fields = "param_name: \"" + option + "\" ";
  // Upstream's unset end is 1e9.
  if (!arguments.contains("end")) fields += "end: 1000000000 ";
  for (const auto& [name, value] : arguments.items()) {
    if (name == "cls" || name == "last_step") continue;
    if (name == "epoch_length") {
      length->epoch_length = value;
      fields += "convert_to_iter_based: true ";
      continue;
    }
    const auto renamed = kFields.find(name);
    fields += (renamed == kFields.end() ? name : renamed->second) + ": " +
              value.dump() + " ";
  }
  return Parse(kind + " { " + fields + "}");
}

FakeGroups GoldenGroups(const json& test) {
  const json& optimizer = test["optimizer"];
  std::map<std::string, double> defaults = {
      {"lr", optimizer.value("lr", 0.05)}};
  if (optimizer.contains("momentum")) {
    defaults["momentum"] = optimizer["momentum"];
  }
  // Python's Adam, unless it says otherwise.
  if (optimizer.value("type", "") == "Adam") defaults["momentum"] = 0.9;
  if (optimizer.contains("betas")) {
    defaults["momentum"] = optimizer["betas"][0];
  }
  std::vector<std::map<std::string, double>> groups;
  if (!optimizer.contains("groups")) groups.push_back(defaults);
  for (const json& group : optimizer.value("groups", json::array())) {
    groups.push_back(defaults);
    if (group.contains("lr")) groups.back()["lr"] = group["lr"];
  }
  // The wrapper's base group.
  if (test["wrapped"]) groups.push_back(defaults);
  return FakeGroups(std::move(groups));
}

bool IsOurs(const json& test) {
  static const std::set<std::string> kOurs = {"LinearLR", "LinearMomentum",
                                              "CosineAnnealingLR",
                                              "CosineAnnealingMomentum"};
  for (const json& scheduler : test["schedulers"]) {
    if (kOurs.count(scheduler["cls"]) == 0) return false;
  }
  return true;
}

Schedulers MakeGolden(const json& test, FakeGroups& groups) {
  Schedulers schedulers;
  for (const json& arguments : test["schedulers"]) {
    RunLength length;
    const ParamSchedulerConfig config = GoldenConfig(arguments, &length);
    auto scheduler = ParamSchedulerRegistry::Create(config, groups, length);
    EXPECT_THAT(scheduler, IsOk());
    if (!scheduler.ok()) return {};
    schedulers.push_back(*std::move(scheduler));
  }
  return schedulers;
}

// Option "lr", or "momentum" if that is all that was recorded, or both.
void ExpectRow(const json& test, const json& row, FakeGroups& groups,
               size_t step) {
  ASSERT_EQ(row.size(), groups.values().size());
  for (size_t g = 0; g < row.size(); ++g) {
    if (row[g].is_array()) {
      for (size_t k = 0; k < row[g].size(); ++k) {
        const std::string name = test["record"][k];
        const json& value = row[g][k];
        EXPECT_EQ(groups.values()[g].at(name == "betas" ? "momentum" : name),
                  (value.is_array() ? value[0] : value).get<double>())
            << "step " << step << ", group " << g << ", " << name;
      }
    } else {
      const std::string name = test["record"][0];
      EXPECT_EQ(groups.values()[g].at(name), row[g].get<double>())
          << "step " << step << ", group " << g;
    }
  }
}

// Runs `test` and compares every value, bit for bit.
void RunGolden(const json& test) {
  FakeGroups groups = GoldenGroups(test);
  Schedulers schedulers = MakeGolden(test, groups);
  ASSERT_EQ(schedulers.size(), test["schedulers"].size());
  const json& arguments = test["schedulers"][0];
  if (arguments.contains("last_step")) {
    // Upstream's way to go on at a step, which ours is loading a state.
    ParamSchedulerState state;
    ASSERT_THAT(schedulers[0]->SaveState(&state), IsOk());
    state.set_last_step(arguments["last_step"]);
    state.set_base_values(0, test["init"]["initial_lr"]);
    groups.values()[0]["lr"] = test["init"]["lr"];
    ASSERT_THAT(schedulers[0]->LoadState(state), IsOk());
  }
  for (auto& scheduler : schedulers) scheduler->Apply();
  const json& rows = test["values"];
  for (size_t step = 0; step < rows.size(); ++step) {
    if (step > 0) {
      for (auto& scheduler : schedulers) scheduler->Step();
    }
    ExpectRow(test, rows[step], groups, step);
  }
  for (size_t i = 0; i < schedulers.size(); ++i) {
    ParamSchedulerState state;
    ASSERT_THAT(schedulers[i]->SaveState(&state), IsOk());
    EXPECT_EQ(state.last_step(), test["counters"][i]["last_step"]);
    EXPECT_EQ(state.global_step(), test["counters"][i]["global_step"]);
    EXPECT_EQ(schedulers[i]->num_steps(), state.global_step());
  }
}

struct GoldenFile {
  const char* file;
  size_t run;  // Cases that must match bit for bit.
  // Cases that don't, with the reason. Those that are the next issue's have
  // schedulers that we don't have yet.
  std::map<std::string, const char*> differ;
  size_t later;
};

void PrintTo(const GoldenFile& file, std::ostream* out) { *out << file.file; }

class SchedulersGoldenTest : public ::testing::TestWithParam<GoldenFile> {};

TEST_P(SchedulersGoldenTest, EveryValueHasTheSameBits) {
  const GoldenFile& file = GetParam();
  size_t run = 0;
  size_t differ = 0;
  size_t later = 0;
  for (const json& test : ReadCases(file.file)) {
    SCOPED_TRACE(test["name"].get<std::string>());
    if (file.differ.count(test["name"]) > 0) {
      ++differ;
    } else if (!IsOurs(test)) {
      ++later;
    } else {
      ++run;
      RunGolden(test);
    }
  }
  EXPECT_EQ(run, file.run);
  EXPECT_EQ(differ, file.differ.size());
  EXPECT_EQ(later, file.later);
}

INSTANTIATE_TEST_SUITE_P(
    Tables, SchedulersGoldenTest,
    ::testing::Values(
        GoldenFile{"scheduler_LinearLR.json",
                   11,
                   {{"start_zero",
                     "upstream divides by zero: LinearFromZeroReachesTheEnd"}},
                   0},
        GoldenFile{
            "scheduler_CosineAnnealingLR.json",
            10,
            {{"T_max_zero",
              "upstream takes 0 for unset: SchedulersErrorTest.TMaxZero"},
             {"both_floors",
              "an error here as there: SchedulersErrorTest.BothFloors"}},
            0},
        // Later: linear_then_multistep, linear_times_multistep_overlap,
        // exp_gap_cosine, constant_times_constant, warmup_off_by_one (Step),
        // cosine_restart_overrides, onecycle_overrides, order_matters_initial
        // (Constant).
        GoldenFile{"scheduler_chains.json", 3, {}, 8},
        // Later: Step, MultiStep, Constant, Exponential, CosineRestart, Poly
        // and Plateau, each for SGD and Adam.
        GoldenFile{"scheduler_momentum.json",
                   5,
                   {{"no_momentum_support",
                     "an error here as there: "
                     "SchedulersErrorTest.UnknownOption"}},
                   14}),
    [](const auto& info) {
      const std::string file = info.param.file;
      return file.substr(10, file.find('.') - 10);
    });

TEST(SchedulersGoldenTest, ResumedAtEveryCutEqualsUninterrupted) {
  int num_cuts = 0;
  for (const json& test : ReadCases("scheduler_chains.json")) {
    if (!IsOurs(test)) continue;
    SCOPED_TRACE(test["name"].get<std::string>());
    const json& rows = test["values"];
    for (size_t cut = 0; cut < rows.size(); ++cut) {
      SCOPED_TRACE(cut);
      ++num_cuts;
      FakeGroups before = GoldenGroups(test);
      Schedulers first = MakeGolden(test, before);
      for (auto& scheduler : first) scheduler->Apply();
      for (size_t step = 0; step < cut; ++step) {
        for (auto& scheduler : first) scheduler->Step();
      }
      // A new process: schedulers are made, then the state comes.
      FakeGroups after = GoldenGroups(test);
      Schedulers second = MakeGolden(test, after);
      for (size_t i = 0; i < first.size(); ++i) {
        ParamSchedulerState state;
        ASSERT_THAT(first[i]->SaveState(&state), IsOk());
        ParamSchedulerState copy;
        ASSERT_TRUE(copy.ParseFromString(state.SerializeAsString()));
        ASSERT_THAT(second[i]->LoadState(copy), IsOk());
        EXPECT_FALSE(second[i]->settings_changed());
        second[i]->Apply();  // Does nothing: step 0 is done.
      }
      after.values() = before.values();
      for (size_t step = cut; step < rows.size(); ++step) {
        if (step > cut) {
          for (auto& scheduler : second) scheduler->Step();
        }
        ExpectRow(test, rows[step], after, step);
      }
    }
  }
  EXPECT_EQ(num_cuts, 19 + 6 + 10);
}

// ---- Where ours differs from upstream ----

TEST(SchedulersTest, ConstructionWritesNothing) {
  FakeGroups groups({{{"lr", 0.1}}});
  auto scheduler = Make("linear { start_factor: 0.5 end: 3 }", groups);
  EXPECT_EQ(Lr(groups), 0.1);
  EXPECT_EQ(scheduler->num_steps(), 0);
  scheduler->Apply();
  EXPECT_EQ(Lr(groups), 0.05);
  EXPECT_EQ(scheduler->num_steps(), 0);
  scheduler->Apply();
  EXPECT_EQ(Lr(groups), 0.05);
  scheduler->Step();
  EXPECT_EQ(scheduler->num_steps(), 1);
}

// Golden case start_zero: upstream gives 0, then divides by zero.
TEST(SchedulersTest, LinearFromZeroReachesTheEnd) {
  FakeGroups groups({{{"lr", 0.5}}});
  auto scheduler = Make("linear { start_factor: 0 end: 5 }", groups);
  scheduler->Apply();
  EXPECT_EQ(Lr(groups), 0);
  for (const double expected : {0.125, 0.25, 0.375, 0.5, 0.5}) {
    scheduler->Step();
    EXPECT_DOUBLE_EQ(Lr(groups), expected);
  }
}

TEST(SchedulersTest, LinearFromZeroToZeroStaysThere) {
  FakeGroups groups({{{"lr", 0.5}}});
  auto scheduler =
      Make("linear { start_factor: 0 end_factor: 0 end: 3 }", groups);
  scheduler->Apply();
  for (int i = 0; i < 4; ++i) {
    scheduler->Step();
    EXPECT_EQ(Lr(groups), 0);
  }
}

// ---- Windows ----

TEST(SchedulersTest, EndDefaultsToTheRuns) {
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
  };
  for (const Case& test : cases) {
    SCOPED_TRACE(test.name);
    FakeGroups groups({{{"lr", 0.1}}});
    auto scheduler = Make(test.config, groups, test.length);
    ASSERT_NE(scheduler, nullptr);
    ParamSchedulerState state;
    ASSERT_THAT(scheduler->SaveState(&state), IsOk());
    EXPECT_THAT(state.settings(), HasSubstr(test.settings));
    EXPECT_EQ(state.global_step(), -1);
    EXPECT_EQ(scheduler->by_epoch(),
              state.settings().find("by_epoch: true") != std::string::npos);
  }
}

// ---- Refusals ----

struct ErrorCase {
  const char* name;
  const char* config;
  const char* message;
  RunLength length = {10, 100, 10};
};

void PrintTo(const ErrorCase& test, std::ostream* out) { *out << test.name; }

class SchedulersErrorTest : public ::testing::TestWithParam<ErrorCase> {};

TEST_P(SchedulersErrorTest, NamesTheField) {
  FakeGroups groups({{{"lr", 0.1}}});
  EXPECT_THAT(ParamSchedulerRegistry::Create(Parse(GetParam().config), groups,
                                             GetParam().length),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr(GetParam().message)));
  EXPECT_EQ(Lr(groups), 0.1);
}

INSTANTIATE_TEST_SUITE_P(
    Configs, SchedulersErrorTest,
    ::testing::Values(
        ErrorCase{"NoKind", "", "must be set, to one of: linear"},
        ErrorCase{"EndBeforeBegin", "linear { begin: 3 end: 2 }",
                  "end: must be > begin, which is 3, is 2"},
        ErrorCase{"EmptyWindow", "linear { begin: 3 end: 3 }",
                  "end: must be > begin, which is 3, is 3"},
        ErrorCase{"NegativeBegin", "linear { begin: -1 }",
                  "begin: must be >= 0, is -1"},
        ErrorCase{"BeginAfterTheRun", "linear { begin: 10 }",
                  "begin: must be < the run's end, which is 10 epochs, is 10"},
        ErrorCase{"ConvertWithoutByEpoch",
                  "linear { by_epoch: false convert_to_iter_based: true }",
                  "convert_to_iter_based: needs by_epoch"},
        ErrorCase{"ConvertWithoutEpochLength",
                  "linear { end: 2 convert_to_iter_based: true }",
                  "convert_to_iter_based: needs a run whose epochs",
                  {10, 100, -1}},
        ErrorCase{"ConvertOverflow",
                  "linear { end: 9223372036854775807 "
                  "convert_to_iter_based: true }",
                  "end: is too large"},
        ErrorCase{"UnknownLength", "linear {}", "end: must be set", {}},
        ErrorCase{"UnknownLengthForTMax",
                  "cosine_annealing {}",
                  "end: must be set",
                  {}},
        ErrorCase{"UnknownOption", "linear { param_name: \"momentum\" }",
                  "param_name: the optimizer has no option \"momentum\""},
        ErrorCase{"EmptyOption", "linear { param_name: \"\" }",
                  "param_name: must not be empty"},
        ErrorCase{"StartFactorAboveOne", "linear { start_factor: 1.5 }",
                  "start_factor: must be in [0, 1], is 1.5"},
        ErrorCase{"StartFactorNaN", "linear { start_factor: nan }",
                  "start_factor: must be in [0, 1], is nan"},
        ErrorCase{"EndFactorNegative", "linear { end_factor: -0.5 }",
                  "end_factor: must be in [0, 1], is -0.5"},
        ErrorCase{"TMaxZero", "cosine_annealing { t_max: 0 }",
                  "t_max: must be >= 1, is 0"},
        ErrorCase{"BothFloors",
                  "cosine_annealing { eta_min: 0.1 eta_min_ratio: 0.1 }",
                  "eta_min_ratio: can't be set together with eta_min"},
        ErrorCase{"FloorInf", "cosine_annealing { eta_min: inf }",
                  "eta_min: must be finite, is inf"},
        ErrorCase{"RatioNaN", "cosine_annealing { eta_min_ratio: nan }",
                  "eta_min_ratio: must be finite, is nan"}),
    [](const auto& info) { return std::string(info.param.name); });

// ---- State ----

TEST(SchedulersStateTest, OtherSettingsAreTakenAndReported) {
  FakeGroups groups({{{"lr", 0.1}}});
  auto saved = Make("linear { start_factor: 0.5 end: 5 }", groups);
  saved->Apply();
  saved->Step();
  ParamSchedulerState state;
  ASSERT_THAT(saved->SaveState(&state), IsOk());

  auto same = Make("linear { end: 5 end_factor: 1 start_factor: 0.5 }", groups);
  ASSERT_THAT(same->LoadState(state), IsOk());
  EXPECT_FALSE(same->settings_changed());

  auto other = Make("linear { start_factor: 0.5 end: 9 }", groups);
  ASSERT_THAT(other->LoadState(state), IsOk());
  EXPECT_TRUE(other->settings_changed());
  EXPECT_EQ(other->num_steps(), 1);
}

// Protobuf promises no spelling from one version to the next.
TEST(SchedulersStateTest, SettingsAreComparedByWhatTheySay) {
  FakeGroups groups({{{"lr", 0.1}}});
  auto scheduler = Make("linear { start_factor: 0.5 end: 5 }", groups);
  ParamSchedulerState state;
  ASSERT_THAT(scheduler->SaveState(&state), IsOk());
  struct Case {
    const char* settings;
    bool changed;
  };
  const Case cases[] = {
      {"end: 5, begin: 0,\n start_factor: 5e-1 end_factor: 1.0 by_epoch: 1 "
       "param_name: 'lr'",
       false},
      {"start_factor: 0.25 end_factor: 1 begin: 0 end: 5 by_epoch: true "
       "param_name: 'lr'",
       true},
      {"", true},
      {"end: five", true},
      {"field_of_a_later_version: 1", true},
  };
  for (const Case& test : cases) {
    state.set_settings(test.settings);
    ASSERT_THAT(scheduler->LoadState(state), IsOk()) << test.settings;
    EXPECT_EQ(scheduler->settings_changed(), test.changed) << test.settings;
  }
}

TEST(SchedulersStateTest, ForeignStatesAreRefusedAndChangeNothing) {
  FakeGroups groups({{{"lr", 0.1}, {"momentum", 0.9}}});
  auto scheduler = Make("linear { start_factor: 0.5 end: 5 }", groups);
  scheduler->Apply();
  scheduler->Step();
  ParamSchedulerState good;
  ASSERT_THAT(scheduler->SaveState(&good), IsOk());

  struct Case {
    const char* message;
    void (*damage)(ParamSchedulerState*);
  };
  const Case cases[] = {
      {"the state is of a \"x\"",
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
       [](ParamSchedulerState* state) { state->set_last_step(-2); }},
  };
  for (const Case& test : cases) {
    ParamSchedulerState bad = good;
    test.damage(&bad);
    EXPECT_THAT(
        scheduler->LoadState(bad),
        StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(test.message)));
    EXPECT_EQ(scheduler->num_steps(), 1);
  }
}

}  // namespace
}  // namespace grapnel
