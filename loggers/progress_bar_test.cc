#include "grapnel/loggers/progress_bar.h"

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "grapnel/base/fake_clock.h"
#include "grapnel/loggers/run_log.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::TestWithParam;
using ::testing::ValuesIn;

struct FormatCase {
  std::string name;
  LoopProgress progress;
  int columns;
  std::string line;
};

class FormatProgressTest : public TestWithParam<FormatCase> {};

TEST_P(FormatProgressTest, Is) {
  const FormatCase& c = GetParam();
  const std::string line = FormatProgress(c.progress, c.columns);
  EXPECT_EQ(line, c.line);
  EXPECT_LE(line.size(), static_cast<size_t>(c.columns));
}

constexpr char kLabel[] = "Epoch(train) [1/20]";

INSTANTIATE_TEST_SUITE_P(
    , FormatProgressTest,
    ValuesIn<FormatCase>({
        {"Begin",
         {kLabel, 0, 100, 0, 0},
         60,
         "Epoch(train) [1/20]   0% [>                       ]    0/100"},
        {"AmidTheLoop",
         {kLabel, 25, 100, 25, 2},
         80,
         "Epoch(train) [1/20]  25% [====>              ]   25/100  12.5/s  "
         "0:00:02<0:00:06"},
        {"End",
         {kLabel, 100, 100, 100, 0.5},
         80,
         "Epoch(train) [1/20] 100% [====================]  100/100  200/s  "
         "0:00:00<0:00:00"},
        {"ResumedWithinTheLoop",
         {"Iter(train)", 80, 100, 10, 5},
         60,
         "Iter(train)  80% [======> ]   80/100  2.0/s  0:00:05<0:00:10"},
        {"SlowerThanOneASecond",
         {"Iter(train)", 2, 4, 2, 9000},
         66,
         "Iter(train)  50% [=======>       ]  2/4  4500.00s  2:30:00<2:30:00"},
        {"WideTerminalsHaveABarOf40",
         {"Epoch(test)", 1, 2, 0, 0},
         200,
         "Epoch(test)  50% [====================>                   ]  1/2"},
        {"NarrowTerminalsHaveNoBar",
         {kLabel, 25, 100, 25, 2},
         60,
         "Epoch(train) [1/20]  25%   25/100  12.5/s  0:00:02<0:00:06"},
        {"NarrowerOnesAreCut",
         {kLabel, 25, 100, 25, 2},
         20,
         "Epoch(train) [1/20] "},
        {"NoColumns", {kLabel, 25, 100, 25, 2}, 0, ""},
        {"NobodyKnowsHowMany",
         {"Epoch(val)", 7, 0, 7, 3.5},
         40,
         "Epoch(val)  7  2.0/s  0:00:03"},
        {"MoreThanAll", {"Epoch(val)", 7, 5, 0, 0}, 20, "Epoch(val) 100%  7/5"},
        {"YearsAre999Hours",
         {"Epoch(val)", 1, 1000000000, 1, 1e9},
         80,
         "Epoch(val)   0%           1/1000000000  1000000000.00s  "
         "999:00:00<999:00:00"},
    }),
    [](const auto& info) { return info.param.name; });

// A log with a terminal of 60 columns, which keeps what is shown on it.
class StatusLog : public RunLog {
 public:
  void Write(Level, absl::string_view) override {}
  void Warning(absl::string_view) override {}
  absl::Status Flush() override { return absl::OkStatus(); }
  void SetStatusLine(absl::string_view text) override {
    shown.emplace_back(text);
  }
  int StatusColumns() override { return columns; }

  int columns = 60;
  std::vector<std::string> shown;
};

// A clock that counts who looks.
class CountingClock : public FakeClock {
 public:
  int64_t NowNanos() const override {
    ++looks;
    return FakeClock::NowNanos();
  }

  mutable int looks = 0;
};

class ProgressBarTest : public testing::Test {
 protected:
  // Updates from `begin` + 1 to `end`, each `step` after the one before.
  void Run(int64_t begin, int64_t end, absl::Duration step) {
    for (int64_t done = begin + 1; done <= end; ++done) {
      clock_.Advance(step);
      bar_.Update(done);
    }
  }

  StatusLog log_;
  CountingClock clock_;
  ProgressBar bar_{log_, clock_};
};

TEST_F(ProgressBarTest, SlowUnitsAreDrawnOneByOne) {
  bar_.Begin("Epoch(val)", 0, 3);
  Run(0, 3, absl::Seconds(1));
  bar_.End();
  EXPECT_THAT(log_.shown,
              ElementsAre(HasSubstr(" 0/3"), HasSubstr(" 1/3"),
                          HasSubstr(" 2/3"), HasSubstr(" 3/3"), ""));
}

TEST_F(ProgressBarTest, FastUnitsAreDrawnTenTimesASecond) {
  bar_.Begin("Epoch(train)", 0, 100000);
  Run(0, 99999, absl::Microseconds(50));  // 5 seconds.
  EXPECT_GE(log_.shown.size(), 45u);
  EXPECT_LE(log_.shown.size(), 51u);
  // One look for 64 updates, but at the beginning.
  EXPECT_LE(clock_.looks, 100000 / 64 + 10);
}

TEST_F(ProgressBarTest, ManyShortLoopsAreDrawnNoMoreOften) {
  for (int epoch = 0; epoch < 100; ++epoch) {
    bar_.Begin("Epoch(train)", 0, 10);
    Run(0, 10, absl::Milliseconds(1));
  }
  EXPECT_GE(log_.shown.size(), 9u);
  EXPECT_LE(log_.shown.size(), 11u);
}

TEST_F(ProgressBarTest, TheEndOfALoopThatIsSeenIsDrawn) {
  bar_.Begin("Epoch(train)", 0, 1000);
  Run(0, 1000, absl::Microseconds(99));
  EXPECT_THAT(log_.shown, ElementsAre(HasSubstr("   0/1000")));
  bar_.Begin("Epoch(train)", 0, 1000);
  Run(0, 999, absl::Microseconds(101));
  const size_t shown = log_.shown.size();
  Run(999, 1000, absl::Microseconds(101));
  EXPECT_THAT(log_.shown, SizeIs(shown + 1));
  EXPECT_THAT(log_.shown.back(), HasSubstr("1000/1000"));
}

TEST_F(ProgressBarTest, UnitsThatBecomeSlowAreSeenSoon) {
  bar_.Begin("Epoch(train)", 0, 100000);
  Run(0, 10000, absl::Microseconds(1));
  log_.shown.clear();
  Run(10000, 10200, absl::Milliseconds(200));
  EXPECT_GE(log_.shown.size(), 200u - 64);
}

TEST_F(ProgressBarTest, WhatWasDoneBeforeIsNotTimed) {
  bar_.Begin("Iter(train)", 500, 1000);
  Run(500, 510, absl::Milliseconds(500));
  EXPECT_THAT(log_.shown.back(), HasSubstr("2.0/s  0:00:05<0:04:05"));
}

TEST_F(ProgressBarTest, ATerminalThatIsGoneIsLeftAlone) {
  log_.columns = 0;
  bar_.Begin("Epoch(train)", 0, 2);
  Run(0, 2, absl::Seconds(1));
  bar_.End();
  EXPECT_THAT(log_.shown, IsEmpty());
}

}  // namespace
}  // namespace grapnel
