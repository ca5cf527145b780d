#include "grapnel/base/log.h"

#include <atomic>
#include <chrono>
#include <cstddef>
#include <string>
#include <thread>
#include <utility>
#include <vector>

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

using Lines = std::vector<std::pair<int, std::string>>;

void Keep(void* lines, int severity, const char* text, size_t text_size) {
  static_cast<Lines*>(lines)->emplace_back(severity,
                                           std::string(text, text_size));
}

TEST(LogSinkTest, MessagesGoThereAndNowhereElse) {
  Lines lines;
  testing::internal::CaptureStderr();
  SetLogSink(&Keep, &lines);
  GRAPNEL_LOG(INFO) << "half " << 1;
  GRAPNEL_LOG(ERROR) << "caf\xe9\n";
  SetLogSink(nullptr, nullptr);
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
  EXPECT_EQ(lines, (Lines{{0, "half 1"}, {2, "caf\\xe9"}}));
}

TEST(LogSinkTest, WithoutItTheyGoToStderrAgain) {
  Lines lines;
  SetLogSink(&Keep, &lines);
  SetLogSink(nullptr, nullptr);
  testing::internal::CaptureStderr();
  GRAPNEL_LOG(WARNING) << "back";
  EXPECT_THAT(testing::internal::GetCapturedStderr(),
              testing::EndsWith("] back\n"));
  EXPECT_EQ(lines, Lines());
}

void KeepAndLog(void* lines, int severity, const char* text, size_t text_size) {
  Keep(lines, severity, text, text_size);
  GRAPNEL_LOG(INFO) << "of the sink";
}

TEST(LogSinkTest, WhatASinkLogsIsDropped) {
  Lines lines;
  testing::internal::CaptureStderr();
  SetLogSink(&KeepAndLog, &lines);
  GRAPNEL_LOG(INFO) << "once";
  SetLogSink(nullptr, nullptr);
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
  EXPECT_EQ(lines, (Lines{{0, "once"}}));
}

void KeepAndLeave(void* lines, int severity, const char* text,
                  size_t text_size) {
  Keep(lines, severity, text, text_size);
  SetLogSink(nullptr, nullptr);
}

TEST(LogSinkTest, ASinkCanReplaceItself) {
  Lines lines;
  testing::internal::CaptureStderr();
  SetLogSink(&KeepAndLeave, &lines);
  GRAPNEL_LOG(INFO) << "the last";
  GRAPNEL_LOG(INFO) << "after it";
  EXPECT_THAT(testing::internal::GetCapturedStderr(),
              testing::EndsWith("] after it\n"));
  EXPECT_EQ(lines, (Lines{{0, "the last"}}));
}

struct Slow {
  std::atomic<bool> entered{false};
  std::atomic<bool> left{false};
};

void TakeTime(void* data, int, const char*, size_t) {
  auto* const slow = static_cast<Slow*>(data);
  slow->entered = true;
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  slow->left = true;
}

TEST(LogSinkTest, NoCallOfAnOldSinkIsGoingOnWhenItIsReplaced) {
  Slow slow;
  SetLogSink(&TakeTime, &slow);
  std::thread logger([] { GRAPNEL_LOG(INFO) << "slowly"; });
  while (!slow.entered) std::this_thread::yield();
  SetLogSink(nullptr, nullptr);
  EXPECT_TRUE(slow.left);
  logger.join();
}

TEST(LogSinkTest, MayBeSetWhileOthersLog) {
  std::atomic<bool> stop{false};
  std::atomic<int> calls[2] = {{0}, {0}};
  const LogSink count = [](void* calls, int, const char*, size_t) {
    ++*static_cast<std::atomic<int>*>(calls);
  };
  SetLogSink(count, &calls[0]);
  std::vector<std::thread> loggers;
  for (int i = 0; i < 4; ++i) {
    loggers.emplace_back([&] {
      while (!stop) GRAPNEL_LOG(INFO) << "again";
    });
  }
  for (int i = 0; i < 500; ++i) {
    SetLogSink(count, &calls[1 - i % 2]);
    const int before = calls[i % 2];
    std::this_thread::yield();
    EXPECT_EQ(calls[i % 2], before) << "round " << i;
  }
  stop = true;
  for (std::thread& logger : loggers) logger.join();
  SetLogSink(nullptr, nullptr);
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
