#include "grapnel/runner/train_plan.h"

#include <ostream>
#include <string>
#include <vector>

#include "google/protobuf/text_format.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/runner/runner_config.pb.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::HasSubstr;
using ::testing::TestWithParam;
using ::testing::ValuesIn;

runner::v1::TrainConfig Parse(const std::string& text) {
  runner::v1::TrainConfig config;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &config))
      << text;
  return config;
}

struct TimingCase {
  std::string name;
  std::string config;
  std::vector<int64_t> validates_at;
};

void PrintTo(const TimingCase& c, std::ostream* os) { *os << c.config; }

class ValidationTimingTest : public TestWithParam<TimingCase> {};

// golden/calls.json's val_timing is run in tests/golden; here stand the rules.
INSTANTIATE_TEST_SUITE_P(
    , ValidationTimingTest,
    ValuesIn(std::vector<TimingCase>{
        {"EveryEpochByDefault", "max_epochs: 3", {1, 2, 3}},
        {"LastIsAlwaysValidated", "max_epochs: 7 val_interval: 3", {3, 6, 7}},
        {"BeginLeavesEarlyOnesOut",
         "max_epochs: 7 val_interval: 3 val_begin: 5",
         {6, 7}},
        {"BeginZeroIsOne", "max_epochs: 3 val_begin: 0", {1, 2, 3}},
        {"BeginBeyondTheEndIsNever", "max_epochs: 3 val_begin: 9", {}},
        {"ThousandIterationsByDefault", "by_epoch: false max_iters: 5", {5}},
        // MMEngine's milestone rules one count early (docs/from_mmengine.md,
        // c16).
        {"IntervalHoldsFromItsMilestone",
         "max_epochs: 12 val_interval: 5 "
         "dynamic_intervals { milestone: 10 interval: 3 }",
         {5, 12}},
        {"SeveralMilestones",
         "max_epochs: 10 val_interval: 4 "
         "dynamic_intervals { milestone: 3 interval: 2 } "
         "dynamic_intervals { milestone: 8 interval: 1 }",
         {4, 6, 8, 9, 10}},
    }),
    [](const auto& info) { return info.param.name; });

TEST_P(ValidationTimingTest, ValidatesAt) {
  const auto plan = TrainPlan::Create(Parse(GetParam().config));
  ASSERT_THAT(plan, IsOk());
  std::vector<int64_t> validated;
  for (int64_t count = 1; count <= plan->total(); ++count) {
    if (plan->ValidationDue(count)) validated.push_back(count);
  }
  EXPECT_EQ(validated, GetParam().validates_at);
}

struct BadCase {
  std::string name;
  std::string config;
  std::string message;
};

void PrintTo(const BadCase& c, std::ostream* os) { *os << c.config; }

class TrainPlanBadConfigTest : public TestWithParam<BadCase> {};

INSTANTIATE_TEST_SUITE_P(
    , TrainPlanBadConfigTest,
    ValuesIn(std::vector<BadCase>{
        {"NoTotal", "", "max_epochs: must be set"},
        {"NoTotalByIter", "by_epoch: false", "max_iters: must be set"},
        {"ZeroEpochs", "max_epochs: 0", "max_epochs: must be >= 1, is 0"},
        {"TheOtherUnit", "max_epochs: 1 max_iters: 5",
         "max_iters: must be unset"},
        {"TheOtherUnitByIter", "by_epoch: false max_epochs: 1 max_iters: 5",
         "max_epochs: must be unset"},
        {"NegativeBegin", "max_epochs: 1 val_begin: -1",
         "val_begin: must be >= 0, is -1"},
        {"ZeroInterval", "max_epochs: 1 val_interval: 0",
         "val_interval: must be >= 1, is 0"},
        {"MilestonesOutOfOrder",
         "max_epochs: 9 dynamic_intervals { milestone: 5 interval: 1 } "
         "dynamic_intervals { milestone: 5 interval: 2 }",
         "dynamic_intervals[1]: milestone: must be >= 6, is 5"},
        {"NoDynamicInterval",
         "max_epochs: 9 dynamic_intervals { milestone: 5 }",
         "dynamic_intervals[0]: interval: must be >= 1"},
    }),
    [](const auto& info) { return info.param.name; });

TEST_P(TrainPlanBadConfigTest, NamesTheField) {
  EXPECT_THAT(TrainPlan::Create(Parse(GetParam().config)),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr(GetParam().message)));
}

}  // namespace
}  // namespace grapnel
