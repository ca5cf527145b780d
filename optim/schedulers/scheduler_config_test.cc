// What schedulers refuse: a bad value for every field of every config, by name.

#include <map>
#include <memory>
#include <ostream>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/text_format.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/text_proto.h"
#include "grapnel/optim/param_scheduler.h"
#include "grapnel/optim/param_scheduler.pb.h"
#include "grapnel/optim/schedulers/fake_groups.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::google::protobuf::Descriptor;
using ::google::protobuf::FieldDescriptor;
using ::google::protobuf::TextFormat;
using ::grapnel::optim::v1::ParamSchedulerConfig;
using ::testing::HasSubstr;

struct Bad {
  std::string kind;
  std::string field;   // That the value is of.
  std::string config;  // In text, what is inside of the kind's braces.
  std::string error;
  RunLength length = {10, 100, 10};
};

void PrintTo(const Bad& bad, std::ostream* out) {
  *out << bad.kind << " { " << bad.config << " }";
}

absl::Status Refusal(const Bad& bad) {
  ParamSchedulerConfig config;
  GRAPNEL_RETURN_IF_ERROR(
      ParseTextProto(absl::StrCat(bad.kind, " { ", bad.config, " }"), &config));
  FakeGroups groups({{{"lr", 0.1}}, {{"lr", 0.1}}});
  auto scheduler = ParamSchedulerRegistry::Create(config, groups, bad.length);
  EXPECT_EQ(groups.lr(), 0.1);
  return scheduler.status();
}

// What a config of each kind needs besides the field that is looked at.
const std::map<std::string, std::string>& Required() {
  static const auto& required = *new std::map<std::string, std::string>{
      {"constant", ""},
      {"cosine_annealing", ""},
      {"cosine_restart", "periods: 3 eta_min: 0"},
      {"exponential", "gamma: 0.5"},
      {"inverse_sqrt", ""},
      {"linear", ""},
      {"multi_step", "milestones: 3"},
      {"one_cycle", "eta_max: 1"},
      {"poly", ""},
      {"reduce_on_plateau", ""},
      {"step", "step_size: 3"},
      {"warmup_stable_decay", ""}};
  return required;
}

// Of the fields that (nearly) all kinds have.
std::vector<Bad> BadWindows(const std::string& kind) {
  const auto bad = [&](const std::string& field, const std::string& config,
                       const std::string& error) {
    return Bad{kind, field, absl::StrCat(config, " ", Required().at(kind)),
               error};
  };
  std::vector<Bad> all = {
      bad("begin", "begin: -1", "begin: must be >= 0, is -1"),
      bad("end", "begin: 3 end: 3", "end: must be > begin, which is 3, is 3"),
      bad("param_name", "param_name: ''", "param_name: must not be empty"),
      bad("param_name", "param_name: 'momentum'", "param_name: ")};
  if (kind == "reduce_on_plateau") return all;  // Always by epoch, and open.
  all.push_back(bad("by_epoch", "by_epoch: maybe",
                    "Invalid value for boolean field \"by_epoch\""));
  all.push_back(bad("convert_to_iter_based",
                    "by_epoch: false convert_to_iter_based: true",
                    "convert_to_iter_based: needs by_epoch, which is false"));
  return all;
}

std::vector<Bad> AllBad() {
  std::vector<Bad> all = {
      {"constant", "factor", "factor: 1.5",
       "factor: must be in [0, 1], is 1.5"},
      {"constant", "factor", "factor: nan",
       "factor: must be in [0, 1], is nan"},
      {"cosine_annealing", "t_max", "t_max: 0", "t_max: must be >= 1, is 0"},
      {"cosine_annealing", "eta_min", "eta_min: inf",
       "eta_min: must be finite, is inf"},
      {"cosine_annealing", "eta_min_ratio", "eta_min_ratio: nan",
       "eta_min_ratio: must be finite, is nan"},
      {"cosine_annealing", "eta_min_ratio", "eta_min: 1 eta_min_ratio: 1",
       "eta_min_ratio: can't be set together with eta_min"},
      {"cosine_annealing", "end", "", "end: must be set", {}},
      {"cosine_restart", "periods", "eta_min: 0", "periods: must be set"},
      {"cosine_restart", "periods", "periods: 0 eta_min: 0",
       "periods: must be >= 1, is 0"},
      {"cosine_restart", "periods",
       "periods: [9223372036854775807, 1] restart_weights: [1, 1] eta_min: 0",
       "periods: their sum is too large"},
      {"cosine_restart", "restart_weights",
       "periods: 3 restart_weights: -1 eta_min: 0",
       "restart_weights: must be finite and >= 0, is -1"},
      {"cosine_restart", "restart_weights",
       "periods: 3 restart_weights: [1, 1] eta_min: 0",
       "restart_weights: must have as many values as periods, which has 1, "
       "has 2"},
      {"cosine_restart", "eta_min", "periods: 3",
       "eta_min: must be set, or eta_min_ratio"},
      {"cosine_restart", "eta_min", "periods: 3 eta_min: nan",
       "eta_min: must be finite, is nan"},
      {"cosine_restart", "eta_min_ratio", "periods: 3 eta_min_ratio: inf",
       "eta_min_ratio: must be finite, is inf"},
      {"cosine_restart", "eta_min_ratio",
       "periods: 3 eta_min: 0 eta_min_ratio: 1",
       "eta_min_ratio: can't be set together with eta_min"},
      {"exponential", "gamma", "", "gamma: must be set"},
      {"exponential", "gamma", "gamma: -1",
       "gamma: must be finite and >= 0, is -1"},
      {"inverse_sqrt", "warmup_steps", "warmup_steps: -1",
       "warmup_steps: must be >= 0, is -1"},
      {"inverse_sqrt", "timescale", "timescale: 0",
       "timescale: must be >= 1, is 0"},
      {"linear", "start_factor", "start_factor: 1.5",
       "start_factor: must be in [0, 1], is 1.5"},
      {"linear", "start_factor", "start_factor: nan",
       "start_factor: must be in [0, 1], is nan"},
      {"linear", "end_factor", "end_factor: -0.5",
       "end_factor: must be in [0, 1], is -0.5"},
      {"linear", "end", "begin: 3 end: 2",
       "end: must be > begin, which is 3, is 2"},
      {"linear", "end", "", "end: must be set", {}},
      {"linear", "end", "end: 9223372036854775807 convert_to_iter_based: true",
       "end: is too large to be given in iterations, an epoch has 10"},
      {"linear",
       "convert_to_iter_based",
       "end: 2 convert_to_iter_based: true",
       "convert_to_iter_based: needs a run whose epochs have a known length",
       {10, 100, -1}},
      {"multi_step", "milestones", "", "milestones: must be set"},
      {"multi_step", "milestones", "milestones: [3, -1]",
       "milestones: must be >= 0, is -1"},
      {"multi_step", "gamma", "milestones: 3 gamma: inf",
       "gamma: must be finite and >= 0, is inf"},
      {"one_cycle", "eta_max", "", "eta_max: must be set"},
      {"one_cycle", "eta_max", "eta_max: 0",
       "eta_max: must be finite and > 0, is 0"},
      {"one_cycle", "eta_max", "eta_max: [1, 1, 1]",
       "eta_max: must have 1 value, or one a group, which is 2, has 3"},
      {"one_cycle", "total_steps", "eta_max: 1 total_steps: 0",
       "total_steps: must be >= 1, and not too large, is 0"},
      {"one_cycle", "total_steps", "eta_max: 1 total_steps: 0 end: 3",
       "total_steps: must be >= 1, is 0"},
      {"one_cycle", "total_steps",
       "eta_max: 1 begin: 1 total_steps: 9223372036854775807",
       "total_steps: must be >= 1, and not too large"},
      {"one_cycle", "total_steps", "eta_max: 1 total_steps: 3 begin: 2 end: 6",
       "total_steps: must be >= end - begin, which is 4 steps, is 3"},
      {"one_cycle", "end", "eta_max: 1", "end: must be set", {}},
      {"one_cycle", "pct_start", "eta_max: 1 pct_start: 1.5",
       "pct_start: must be in [0, 1], is 1.5"},
      {"one_cycle", "anneal_strategy", "eta_max: 1 anneal_strategy: 'exp'",
       "anneal_strategy: must be one of \"cos\", \"linear\", is \"exp\""},
      {"one_cycle", "div_factor", "eta_max: 1 div_factor: 0",
       "div_factor: must be finite and > 0, is 0"},
      {"one_cycle", "final_div_factor", "eta_max: 1 final_div_factor: nan",
       "final_div_factor: must be finite and > 0, is nan"},
      {"one_cycle", "three_phase", "eta_max: 1 three_phase: maybe",
       "Invalid value for boolean field \"three_phase\""},
      {"poly", "eta_min", "eta_min: inf", "eta_min: must be finite, is inf"},
      {"poly", "power", "power: 0", "power: must be finite and > 0, is 0"},
      {"poly", "end", "", "end: must be set", {}},
      {"reduce_on_plateau", "monitor", "monitor: ''",
       "monitor: must not be empty"},
      {"reduce_on_plateau", "rule", "rule: 'min'",
       "rule: must be one of \"less\", \"greater\", is \"min\""},
      {"reduce_on_plateau", "factor", "factor: 1",
       "factor: must be in [0, 1), is 1"},
      {"reduce_on_plateau", "patience", "patience: -1",
       "patience: must be >= 0, is -1"},
      {"reduce_on_plateau", "threshold", "threshold: nan",
       "threshold: must be finite and >= 0, is nan"},
      {"reduce_on_plateau", "threshold_rule", "threshold_rule: ''",
       "threshold_rule: must be one of \"rel\", \"abs\", is \"\""},
      {"reduce_on_plateau", "cooldown", "cooldown: -2",
       "cooldown: must be >= 0, is -2"},
      {"reduce_on_plateau", "min_value", "min_value: [0, inf]",
       "min_value: must be finite, is inf"},
      {"reduce_on_plateau", "min_value", "min_value: [0, 0, 0]",
       "min_value: must have 1 value, or one a group, which is 2, has 3"},
      {"reduce_on_plateau", "eps", "eps: -1",
       "eps: must be finite and >= 0, is -1"},
      {"step", "step_size", "", "step_size: must be set"},
      {"step", "step_size", "step_size: 0", "step_size: must be >= 1, is 0"},
      {"step", "step_size",
       "step_size: 9223372036854775807 convert_to_iter_based: true",
       "step_size: is too large"},
      {"step", "gamma", "step_size: 3 gamma: nan",
       "gamma: must be finite and >= 0, is nan"},
      {"warmup_stable_decay", "warmup_steps", "warmup_steps: -1",
       "warmup_steps: must be >= 0, is -1"},
      {"warmup_stable_decay", "decay_steps", "decay_steps: 0",
       "decay_steps: must be >= 1, is 0"},
      {"warmup_stable_decay", "decay_steps", "warmup_steps: 8 decay_steps: 3",
       "decay_steps: must be <= end - begin - warmup_steps, which is 2 steps, "
       "is 3"},
      {"warmup_stable_decay", "decay_type", "decay_type: 'exp'",
       "decay_type: must be one of \"linear\", \"cosine\", \"1-sqrt\""},
      {"warmup_stable_decay", "min_ratio", "min_ratio: 1.5",
       "min_ratio: must be in [0, 1], is 1.5"},
      {"warmup_stable_decay", "end", "", "end: must be set", {}},
  };
  for (const auto& [kind, required] : Required()) {
    for (Bad& bad : BadWindows(kind)) all.push_back(std::move(bad));
  }
  return all;
}

TEST(SchedulerConfigTest, BadValuesAreRefusedByName) {
  for (const Bad& bad : AllBad()) {
    EXPECT_THAT(Refusal(bad), StatusIs(absl::StatusCode::kInvalidArgument,
                                       HasSubstr(bad.error)))
        << ::testing::PrintToString(bad);
    EXPECT_THAT(bad.error, HasSubstr(bad.field)) << "must name the field";
  }
}

TEST(SchedulerConfigTest, EveryFieldOfEveryConfigHasABadValue) {
  std::set<std::string> covered;
  for (const Bad& bad : AllBad()) covered.insert(bad.kind + "." + bad.field);
  std::set<std::string> fields;
  std::set<std::string> types;
  const Descriptor& config = *ParamSchedulerConfig::descriptor();
  for (int i = 0; i < config.field_count(); ++i) {
    const FieldDescriptor& kind = *config.field(i);
    if (kind.name() == "custom") continue;
    types.insert(kind.message_type()->full_name());
    for (int k = 0; k < kind.message_type()->field_count(); ++k) {
      fields.insert(kind.name() + "." + kind.message_type()->field(k)->name());
    }
  }
  EXPECT_EQ(covered, fields);
  RecordProperty("config_fields", static_cast<int>(fields.size()));
  // No kind without an implementation, and none that configs can't name.
  const std::vector<std::string> registered =
      ParamSchedulerRegistry::ConfigNames();
  EXPECT_EQ(std::set<std::string>(registered.begin(), registered.end()), types);
}

TEST(SchedulerConfigTest, TheKindMustBeSet) {
  FakeGroups groups({{{"lr", 0.1}}});
  EXPECT_THAT(ParamSchedulerRegistry::Create(ParamSchedulerConfig(), groups,
                                             RunLength()),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("must be set, to one of: linear")));
}

// So that each refusal above is about the field it names.
TEST(SchedulerConfigTest, WithoutTheBadValueAllAreTaken) {
  for (const auto& [kind, required] : Required()) {
    EXPECT_THAT(Refusal({kind, "", required, ""}), IsOk()) << kind;
  }
}

}  // namespace
}  // namespace grapnel
