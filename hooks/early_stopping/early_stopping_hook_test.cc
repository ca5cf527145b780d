#include "grapnel/hooks/early_stopping/early_stopping_hook.h"

#include <limits>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "google/protobuf/text_format.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/loggers/run_log.h"
#include "grapnel/runner/fake_run_context.h"
#include "gtest/gtest.h"

// The decisions themselves, value by value, are compared with MMEngine's in
// tests/golden/early_stopping_test.cc.

namespace grapnel {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::TestWithParam;
using ::testing::ValuesIn;

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr int kNever = -1;

EarlyStoppingHook::Config Parse(const std::string& text) {
  EarlyStoppingHook::Config config;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &config))
      << text;
  return config;
}

std::unique_ptr<EarlyStoppingHook> NewHook(const std::string& config) {
  auto hook = EarlyStoppingHook::Create(Parse(config));
  EXPECT_THAT(hook, IsOk());
  return *std::move(hook);
}

// Reports values[begin..] as successive validations of one run. Returns the
// index of the one at which the hook asked for a stop, or kNever.
int StopsAt(EarlyStoppingHook& hook, const std::vector<double>& values,
            size_t begin = 0) {
  FakeRunContext run;
  for (size_t i = begin; i < values.size(); ++i) {
    EXPECT_THAT(hook.AfterValEpoch(run, {{"m", values[i]}}), IsOk());
    if (!run.stopped.empty()) return static_cast<int>(i);
  }
  return kNever;
}

struct StopCase {
  std::string name;
  std::string config;
  std::vector<double> values;
  int stops_at;
  std::string reason;
};

void PrintTo(const StopCase& c, std::ostream* os) { *os << c.config; }

class EarlyStoppingStopTest : public TestWithParam<StopCase> {};

const char kMin[] = "monitor: 'm' rule: 'less' min_delta: 0 ";
const char kMax[] = "monitor: 'm' rule: 'greater' min_delta: 0 ";

INSTANTIATE_TEST_SUITE_P(
    , EarlyStoppingStopTest,
    ValuesIn(std::vector<StopCase>{
        {"StopsWhenPatienceRunsOut",
         std::string(kMin) + "patience: 2",
         {3, 2, 2.5, 2.25, 1},
         3,
         "m has not improved on 2 for 2 validations"},
        {"FlatMetricDoesNotImprove",
         std::string(kMax) + "patience: 2",
         {3, 3, 3},
         2,
         "m has not improved on 3 for 2 validations"},
        {"ImprovementStartsTheCountAgain",
         std::string(kMin) + "patience: 2",
         {3, 3, 2, 2, 2},
         4,
         "m has not improved on 2 for 2 validations"},
        {"SlowDriftIsMeasuredFromTheBest",
         "monitor: 'm' rule: 'less' patience: 3 min_delta: 0.5",
         {3, 2.75, 2.5, 2.25, 2},
         kNever,
         ""},
        {"PatienceDefaultsToFive",
         kMin,
         {1, 1, 1, 1, 1, 1},
         5,
         "m has not improved on 1 for 5 validations"},
        {"DeltaDefaultsToATenth",
         "monitor: 'm' rule: 'greater' patience: 1",
         {1, 1.125, 1.1875},
         2,
         "m has not improved on 1.125 for 1 validation"},
        {"ThresholdStopsWhileImproving",
         std::string(kMin) + "stopping_threshold: 1",
         {3, 2, 1, 0.5},
         3,
         "m is 0.5, better than 1"},
        {"NaNStopsAtOnce", kMin, {3, kNaN}, 1, "m is nan"},
        {"NaNStopsTheFirstTime", kMin, {kNaN}, 0, "m is nan"},
        {"InfinityStopsEvenInTheGoodDirection", kMax, {3, kInf}, 1, "m is inf"},
        {"UncheckedInfinityIsNotGoodEnough",
         std::string(kMax) + "check_finite: false stopping_threshold: 1",
         {0, kInf, 2},
         2,
         "m is 2, better than 1"},
        {"UncheckedNaNIsNoImprovement",
         std::string(kMax) + "check_finite: false patience: 2",
         {kNaN, kNaN},
         1,
         "m has not improved for 2 validations"},
    }),
    [](const auto& info) { return info.param.name; });

TEST_P(EarlyStoppingStopTest, StopsAt) {
  const auto hook = NewHook(GetParam().config);
  EXPECT_EQ(StopsAt(*hook, GetParam().values), GetParam().stops_at);
}

// Interrupting the run after any validation changes nothing: before the stop
// the count goes on, after it there is nothing left to train.
TEST_P(EarlyStoppingStopTest, ResumesFromAnyPoint) {
  const std::vector<double>& values = GetParam().values;
  for (size_t cut = 0; cut <= values.size(); ++cut) {
    SCOPED_TRACE(cut);
    const auto before = NewHook(GetParam().config);
    const std::vector<double> head(values.begin(), values.begin() + cut);
    const bool stopped = StopsAt(*before, head) != kNever;

    const auto after = NewHook(GetParam().config);
    ASSERT_TRUE(after->mutable_state()->ParseFromString(
        before->mutable_state()->SerializeAsString()));
    FakeRunContext run;
    ASSERT_THAT(after->BeforeTrain(run), IsOk());
    if (stopped) {
      EXPECT_EQ(run.stopped, GetParam().reason);
      break;
    }
    EXPECT_THAT(run.stopped, IsEmpty());
    EXPECT_EQ(StopsAt(*after, values, cut), GetParam().stops_at);
  }
}

TEST(EarlyStoppingHookTest, StoppedRunGoesOnWithMorePatience) {
  const auto before = NewHook(std::string(kMin) + "patience: 1");
  ASSERT_EQ(StopsAt(*before, {1, 2}), 1);
  const auto after = NewHook(std::string(kMin) + "patience: 3");
  ASSERT_TRUE(after->mutable_state()->ParseFromString(
      before->mutable_state()->SerializeAsString()));
  FakeRunContext run;
  ASSERT_THAT(after->BeforeTrain(run), IsOk());
  EXPECT_THAT(run.stopped, IsEmpty());
  EXPECT_EQ(StopsAt(*after, {2, 2}), 1);
}

TEST(EarlyStoppingHookTest, MissingMetricIsAWarningThatSuggests) {
  const auto hook = NewHook("monitor: 'acuracy/top1' rule: 'greater'");
  FakeRunContext run;
  ASSERT_THAT(hook->AfterValEpoch(run, {{"accuracy/top1", 1.0}, {"f1", 0.5}}),
              IsOk());
  EXPECT_THAT(
      run.run_log.messages(RunLog::Level::kWarning),
      ElementsAre("early_stopping: monitor: there is no metric "
                  "\"acuracy/top1\" among accuracy/top1, f1; did you mean "
                  "\"accuracy/top1\"?"));
  EXPECT_EQ(hook->mutable_state()->ShortDebugString(), "");
}

TEST(EarlyStoppingHookTest, MissingMetricIsAnErrorIfStrict) {
  const auto hook = NewHook("monitor: 'acc' strict: true");
  FakeRunContext run;
  EXPECT_THAT(hook->AfterValEpoch(run, {{"other", 1.0}}),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("\"acc\"")));
}

TEST(EarlyStoppingHookTest, TextIsNoMetric) {
  const auto hook = NewHook("monitor: 'acc'");
  FakeRunContext run;
  EXPECT_THAT(hook->AfterValEpoch(run, {{"acc", std::string("good")}}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("monitor: \"acc\" is a text")));
}

TEST(EarlyStoppingHookTest, IntegersCount) {
  const auto hook = NewHook("monitor: 'hits' rule: 'greater' patience: 1");
  FakeRunContext run;
  ASSERT_THAT(hook->AfterValEpoch(run, {{"hits", int64_t{3}}}), IsOk());
  ASSERT_THAT(hook->AfterValEpoch(run, {{"hits", int64_t{2}}}), IsOk());
  EXPECT_EQ(run.stopped, "hits has not improved on 3 for 1 validation");
}

TEST(EarlyStoppingHookTest, EvaluationOutsideTrainingDoesNotCount) {
  const auto hook = NewHook("monitor: 'acc' strict: true");
  FakeRunContext run;
  run.in_training = false;
  EXPECT_THAT(hook->AfterValEpoch(run, {{"acc", kNaN}}), IsOk());
  EXPECT_THAT(hook->AfterValEpoch(run, {}), IsOk());
  EXPECT_THAT(run.stopped, IsEmpty());
}

TEST(EarlyStoppingHookTest, RunWithoutValidationIsToldSo) {
  FakeRunContext run;
  EXPECT_THAT(NewHook("monitor: 'm' rule: 'less'")->BeforeTrain(run), IsOk());
  EXPECT_THAT(run.run_log.messages(RunLog::Level::kWarning),
              ElementsAre(HasSubstr("there is no validation")));
  EXPECT_THAT(
      NewHook("monitor: 'm' rule: 'less' strict: true")->BeforeTrain(run),
      StatusIs(absl::StatusCode::kFailedPrecondition,
               HasSubstr("monitor: there is no validation")));
}

struct RuleCase {
  std::string monitor;
  std::string better;  // "" if the name doesn't tell.
};

void PrintTo(const RuleCase& c, std::ostream* os) { *os << c.monitor; }

class EarlyStoppingRuleTest : public TestWithParam<RuleCase> {};

// docs/from_mmengine.md, c23: no guessing by a part of a word. The names
// themselves are tested with MetricRule.
INSTANTIATE_TEST_SUITE_P(, EarlyStoppingRuleTest,
                         ValuesIn(std::vector<RuleCase>{
                             {"coco/bbox/mAP", "greater"},
                             {"accuracy/top1", "greater"},
                             {"val_loss", "less"},
                             {"stop_rate", ""},
                             {"recall", ""},
                         }));

TEST_P(EarlyStoppingRuleTest, IsTakenFromAWholeWordOrRefused) {
  const auto hook =
      EarlyStoppingHook::Create(Parse("monitor: '" + GetParam().monitor + "'"));
  if (GetParam().better.empty()) {
    EXPECT_THAT(hook, StatusIs(absl::StatusCode::kInvalidArgument,
                               HasSubstr("rule: must be set")));
    return;
  }
  ASSERT_THAT(hook, IsOk());
  FakeRunContext run;
  ASSERT_THAT((*hook)->BeforeTrain(run), IsOk());
  EXPECT_THAT(run.run_log.messages(RunLog::Level::kWarning),
              testing::Contains(HasSubstr(GetParam().better + " values of \"" +
                                          GetParam().monitor)));
}

}  // namespace
}  // namespace grapnel
