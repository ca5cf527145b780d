#include "grapnel/runner/hook_list.h"

#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/runner/fake_run_context.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Writes its name down at BeforeTrain.
class Tracer : public Hook {
 public:
  Tracer(std::string name, std::vector<std::string>* trace)
      : name_(std::move(name)), trace_(trace) {}
  absl::string_view name() const override { return name_; }
  absl::Status BeforeTrain(RunContext&) override {
    trace_->push_back(name_);
    return absl::OkStatus();
  }

 private:
  const std::string name_;
  std::vector<std::string>* const trace_;
};

ScheduledHook Traced(const std::string& name, int priority,
                     std::vector<std::string>* trace) {
  ScheduledHook hook = Schedule(std::make_unique<Tracer>(name, trace));
  hook.priority = priority;
  return hook;
}

TEST(HookListTest, SmallerPriorityIsFirstAndEqualsKeepTheirOrder) {
  std::vector<std::string> trace;
  HookList hooks;
  ASSERT_THAT(hooks.Add(Traced("p70", 70, &trace)), IsOk());
  ASSERT_THAT(hooks.Add(Traced("n1", 50, &trace)), IsOk());
  ASSERT_THAT(hooks.Add(Traced("n2", 50, &trace)), IsOk());
  ASSERT_THAT(hooks.Add(Traced("p10", 10, &trace)), IsOk());
  ASSERT_THAT(hooks.Add(Traced("p0", 0, &trace)), IsOk());
  ASSERT_THAT(hooks.Add(Traced("p100", 100, &trace)), IsOk());
  FakeRunContext run;
  RunContext& context = run;
  ASSERT_THAT(hooks.Call(points::kBeforeTrain, context), IsOk());
  EXPECT_THAT(trace, ElementsAre("p0", "p10", "n1", "n2", "p70", "p100"));
}

TEST(HookListTest, TwoHooksOfOneNameAreRefused) {
  std::vector<std::string> trace;
  HookList hooks;
  ASSERT_THAT(hooks.Add(Traced("a", 50, &trace)), IsOk());
  EXPECT_THAT(hooks.Add(Traced("a", 10, &trace)),
              StatusIs(absl::StatusCode::kAlreadyExists, HasSubstr("\"a\"")));
}

TEST(HookListTest, FindsByName) {
  std::vector<std::string> trace;
  HookList hooks;
  ASSERT_THAT(hooks.Add(Traced("a", 50, &trace)), IsOk());
  ASSERT_THAT(hooks.Add(Traced("b", 10, &trace)), IsOk());
  ASSERT_NE(hooks.Find("a"), nullptr);
  EXPECT_EQ(hooks.Find("a")->name(), "a");
  EXPECT_EQ(hooks.Find("c"), nullptr);
}

class Failing : public Hook {
 public:
  absl::string_view name() const override { return "failing"; }
  absl::Status BeforeTrain(RunContext&) override {
    return absl::DataLossError("torn");
  }
  absl::Status AfterTrain(RunContext&) override {
    throw std::runtime_error("thrown");
  }
  void OnError(RunContext&, const absl::Status& error) override {
    heard = std::string(error.message());
    throw std::runtime_error("again");
  }
  std::string heard;
};

TEST(HookListTest, ErrorNamesHookAndPoint) {
  HookList hooks;
  ASSERT_THAT(hooks.Add(Schedule(std::make_unique<Failing>())), IsOk());
  FakeRunContext run;
  RunContext& context = run;
  EXPECT_THAT(hooks.Call(points::kBeforeTrain, context),
              StatusIs(absl::StatusCode::kDataLoss,
                       "hook \"failing\": BeforeTrain: torn"));
}

TEST(HookListTest, ExceptionIsAnErrorLikeOthers) {
  HookList hooks;
  ASSERT_THAT(hooks.Add(Schedule(std::make_unique<Failing>())), IsOk());
  FakeRunContext run;
  RunContext& context = run;
  EXPECT_THAT(hooks.Call(points::kAfterTrain, context),
              StatusIs(absl::StatusCode::kInternal,
                       "hook \"failing\": AfterTrain: thrown"));
}

TEST(HookListTest, OnErrorReachesTheHookAndCannotFail) {
  HookList hooks;
  auto owned = std::make_unique<Failing>();
  const Failing& failing = *owned;
  ASSERT_THAT(hooks.Add(Schedule(std::move(owned))), IsOk());
  FakeRunContext run;
  hooks.CallOnError(run, absl::DataLossError("torn"));
  EXPECT_EQ(failing.heard, "torn");
  EXPECT_THAT(run.run_log.messages(RunLog::Level::kWarning),
              testing::ElementsAre("hook \"failing\": OnError: again"));
}

// ------------------------------------------------- which points are overridden

class Generic : public Hook {
 public:
  absl::string_view name() const override { return "generic"; }
  absl::Status AfterIter(RunContext&, Mode mode, const IterInfo&) override {
    modes.push_back(ModeName(mode));
    return absl::OkStatus();
  }
  std::vector<std::string> modes;
};

class GenericWithOwnVal : public Generic {
 public:
  absl::Status AfterValIter(RunContext&, const IterInfo&,
                            const Predictions&) override {
    modes.push_back("own val");
    return absl::OkStatus();
  }
};

TEST(OverriddenStagesTest, OnlyOverriddenPointsCount) {
  StageMask tracer;
  tracer.Add(Stage::kBeforeTrain);
  EXPECT_TRUE(OverriddenStages<Tracer>() == tracer);
}

TEST(OverriddenStagesTest, GenericPointCountsInEveryMode) {
  StageMask expected;
  expected.Add(Stage::kAfterTrainIter);
  expected.Add(Stage::kAfterValIter);
  expected.Add(Stage::kAfterTestIter);
  EXPECT_TRUE(OverriddenStages<Generic>() == expected);
  EXPECT_TRUE(OverriddenStages<GenericWithOwnVal>() == expected);
}

TEST(OverriddenStagesTest, HookKnownByItsInterfaceIsCalledEverywhere) {
  std::unique_ptr<Hook> hook = std::make_unique<Generic>();
  EXPECT_TRUE(Schedule(std::move(hook)).stages == StageMask::All());
}

TEST(StageTest, TableListsHooksInTheirOrder) {
  std::vector<std::string> trace;
  HookList hooks;
  ASSERT_THAT(hooks.Add(Traced("late", 90, &trace)), IsOk());
  ASSERT_THAT(hooks.Add(Traced("early", 10, &trace)), IsOk());
  EXPECT_EQ(hooks.Table(), "before_train: early (10), late (90)\n");
}

// ------------------------------------------------------------------ priorities

TEST(ParsePriorityTest, TakesNumbersAndNamesInAnyCase) {
  EXPECT_EQ(*ParsePriority("0"), 0);
  EXPECT_EQ(*ParsePriority("100"), 100);
  EXPECT_EQ(*ParsePriority("VERY_HIGH"), 10);
  EXPECT_EQ(*ParsePriority("below_normal"), 60);
}

TEST(ParsePriorityTest, RefusesOthersByName) {
  for (const char* bad : {"-1", "101", "1.5", "HIGHER", ""}) {
    EXPECT_THAT(ParsePriority(bad),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(bad)))
        << bad;
  }
}

}  // namespace
}  // namespace grapnel
