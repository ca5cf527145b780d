#include "grapnel/tools/verify_resume/resume_trace.h"

#include <cstddef>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "grapnel/base/status_matchers.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;
using ::testing::SizeIs;

TraceEvent Event(const std::string& kind) {
  TraceEvent event;
  event.kind = kind;
  event.iter = 7;
  event.index = 2;
  event.nanos = 1234567890123;
  event.fields = {{"weights", "00ff"}, {"log/a=b\tc\n\xff", "-1.5"}};
  return event;
}

TEST(ResumeTraceTest, ReadsWhatItWrote) {
  const auto events =
      ParseTrace(absl::StrCat("\n", FormatTraceEvent(Event("step")), "\n",
                              FormatTraceEvent({trace::kStart, 0, 0, 1, {}})));
  ASSERT_THAT(events, IsOk());
  ASSERT_THAT(*events, SizeIs(2));
  const TraceEvent& event = (*events)[0];
  EXPECT_EQ(event.kind, "step");
  EXPECT_EQ(event.iter, 7);
  EXPECT_EQ(event.index, 2);
  EXPECT_EQ(event.nanos, 1234567890123);
  EXPECT_THAT(event.fields, ElementsAre(Pair("weights", "00ff"),
                                        Pair("log/a=b\tc\n\xff", "-1.5")));
  EXPECT_EQ((*events)[1].kind, "start");
}

TEST(ResumeTraceTest, ALineThatAKillCutShortIsLeftOut) {
  const std::string line = FormatTraceEvent(Event("step"));
  const std::string start = FormatTraceEvent({trace::kStart, 0, 0, 1, {}});
  for (size_t size = 1; size + 1 < line.size(); ++size) {
    const std::string cut = line.substr(0, size);
    // The last line, and the last of a process.
    const auto last = ParseTrace(line + cut);
    ASSERT_THAT(last, IsOk()) << size;
    EXPECT_THAT(*last, SizeIs(1)) << size;
    const auto between = ParseTrace(absl::StrCat(cut, "\n", start));
    ASSERT_THAT(between, IsOk()) << size;
    EXPECT_THAT(*between, SizeIs(1)) << size;
    // Elsewhere something is wrong.
    EXPECT_THAT(
        ParseTrace(absl::StrCat(cut, "\n", line)).status(),
        StatusIs(absl::StatusCode::kDataLoss, HasSubstr("line 1 is no event")))
        << size;
  }
}

TEST(KillPointTest, ReadsWhatItWrote) {
  const auto point = ParseKillPoint(
      FormatKillPoint({trace::kValBatch, 28, 3, absl::Microseconds(1500)}));
  ASSERT_TRUE(point.has_value());
  EXPECT_EQ(point->kind, "val_batch");
  EXPECT_EQ(point->iter, 28);
  EXPECT_EQ(point->index, 3);
  EXPECT_EQ(point->delay, absl::Microseconds(1500));
}

TEST(KillPointTest, RefusesWhatIsNone) {
  for (const char* text : {"", "step", "step:1:1", ":1:1:1", "step:x:1:1",
                           "step:1:y:1", "step:1:1:-1", "step:1:2:3:4"}) {
    EXPECT_FALSE(ParseKillPoint(text).has_value()) << text;
  }
}

}  // namespace
}  // namespace grapnel
