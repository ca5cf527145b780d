#include "grapnel/base/log.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

// What LibTorch's and other people's headers leave behind must not matter.
#define LOG(severity) not_ours
#define CHECK(condition) not_ours
#define ERROR 0
#define INFO not_ours

namespace grapnel {
namespace {

TEST(LogTest, WorksAmongForeignMacros) {
  GRAPNEL_LOG(ERROR) << "a message, " << 1;
  GRAPNEL_LOG(INFO) << "another";
  GRAPNEL_CHECK(1 + 1 == 2) << "arithmetic";
}

// A host program may know nothing of glog.
TEST(LogTest, WithoutSetUpThereIsTheMessageAlone) {
  testing::internal::CaptureStderr();
  GRAPNEL_LOG(WARNING) << "half full";
  const std::string text = testing::internal::GetCapturedStderr();
  EXPECT_THAT(text, testing::MatchesRegex(
                        "W[0-9]+ [0-9:.]+ +[0-9]+ log_test.cc:[0-9]+\\] half "
                        "full\n"));
}

TEST(LogTest, ConditionalFormsAreOneStatement) {
  if (true)
    GRAPNEL_VLOG(9) << "not shown";
  else
    FAIL();
}

TEST(LogTest, SkippedMessagesAreNotEvaluated) {
  int evaluated = 0;
  GRAPNEL_LOG_IF(INFO, false) << ++evaluated;
  GRAPNEL_CHECK(true) << ++evaluated;
  EXPECT_EQ(evaluated, 0);
}

TEST(LogDeathTest, FailedCheckSaysWhatAndWhy) {
  EXPECT_DEATH(GRAPNEL_CHECK(1 > 2) << "by a mile",
               "Check failed: 1 > 2 by a mile");
}

}  // namespace
}  // namespace grapnel
