#include "grapnel/runner/run_lock.h"

#include <unistd.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "grapnel/base/clock.h"
#include "grapnel/base/fake_clock.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/io/env.h"
#include "grapnel/io/fault_injection_env.h"
#include "grapnel/io/mem_env.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class RunLockTest : public testing::Test {
 protected:
  absl::StatusOr<std::unique_ptr<RunLock>> Take(
      const std::vector<RunLock::Folder>& folders,
      RunLock::Options options = {}) {
    options.clock = &clock_;
    return RunLock::Take(env_, folders, options);
  }

  std::vector<std::string> List(const std::string& dir) {
    return env_.ListDir(dir).value_or(std::vector<std::string>{"none"});
  }

  io::MemEnv env_;
  FakeClock clock_;
};

TEST_F(RunLockTest, SaysWhoHasTheFolder) {
  auto first = Take({{"work_dir", "/w"}});
  ASSERT_THAT(first, IsOk());
  EXPECT_THAT(
      Take({{"work_dir", "/w"}}),
      StatusIs(absl::StatusCode::kAborted,
               AllOf(HasSubstr("work_dir: /w is in use by another run: host "),
                     HasSubstr(absl::StrCat(", process ", getpid(), ", ")),
                     HasSubstr("started 2026-01-02 03:04:05 "))));
  // It doesn't harm the first one.
  EXPECT_THAT(Take({{"work_dir", "/w"}}),
              StatusIs(absl::StatusCode::kAborted, HasSubstr("/w")));
  first->reset();
  EXPECT_THAT(Take({{"work_dir", "/w"}}), IsOk());
}

TEST_F(RunLockTest, AFileThatSaysNothingIsAnotherRuns) {
  ASSERT_THAT(env_.CreateDir("/w"), IsOk());
  const auto lock = env_.LockFile("/w/.lock");
  ASSERT_THAT(lock, IsOk());
  for (const char* content : {"", "host: h\npid", "\xff\n\n"}) {
    ASSERT_THAT((*lock)->Write(content), IsOk());
    EXPECT_THAT(Take({{"work_dir", "/w"}}),
                StatusIs(absl::StatusCode::kAborted,
                         "work_dir: /w is in use by another run"));
  }
}

TEST_F(RunLockTest, EachFolderIsProtected) {
  auto first = Take({{"work_dir", "/a"}, {"out_dir", "/out"}});
  ASSERT_THAT(first, IsOk());
  EXPECT_THAT(Take({{"work_dir", "/b"}, {"out_dir", "/out"}}),
              StatusIs(absl::StatusCode::kAborted,
                       HasSubstr("out_dir: /out is in use")));
  // The one that was refused leaves nothing.
  EXPECT_FALSE(env_.FileExists("/b"));
  EXPECT_THAT(Take({{"work_dir", "/b"}, {"out_dir", "/other"}}), IsOk());
}

TEST_F(RunLockTest, OneFolderByTwoPathsIsNotInItsOwnWay) {
  EXPECT_THAT(Take({{"work_dir", "/a"}, {"out_dir", "/b/../a"}}), IsOk());
}

TEST_F(RunLockTest, WhatWasMadeGoesUnlessItIsKept) {
  ASSERT_THAT(env_.CreateDir("/there"), IsOk());
  for (const bool keep : {false, true}) {
    auto lock = Take({{"work_dir", "/there/x/y/"}, {"out_dir", "/out/y"}});
    ASSERT_THAT(lock, IsOk());
    EXPECT_TRUE(env_.FileExists("/there/x/y/.lock"));
    if (keep) (*lock)->Keep();
    lock->reset();
    EXPECT_EQ(env_.FileExists("/there/x/y/.lock"), keep);
    EXPECT_EQ(env_.FileExists("/out"), keep);
    EXPECT_EQ(env_.FileExists("/there/x"), keep);
  }
  EXPECT_TRUE(env_.FileExists("/there"));
}

TEST_F(RunLockTest, WhatOthersPutThereStays) {
  auto lock = Take({{"work_dir", "/x/y"}});
  ASSERT_THAT(lock, IsOk());
  ASSERT_THAT(io::WriteFileAtomically(env_, "/x/notes", "mine"), IsOk());
  lock->reset();
  EXPECT_THAT(List("/x"), ElementsAre("notes"));
}

TEST_F(RunLockTest, ALockFileFromBeforeStays) {
  ASSERT_THAT(env_.CreateDir("/w"), IsOk());
  ASSERT_THAT(io::WriteFileAtomically(env_, "/w/.lock", "old"), IsOk());
  ASSERT_THAT(Take({{"work_dir", "/w"}}), IsOk());
  EXPECT_THAT(List("/w"), ElementsAre(".lock"));
}

TEST_F(RunLockTest, WaitsForTheEndOfTheOther) {
  auto first = Take({{"work_dir", "/w"}});
  ASSERT_THAT(first, IsOk());
  (*first)->Keep();
  RunLock::Options options;
  options.wait = absl::Hours(1);
  std::vector<std::string> told;
  std::thread ends;
  options.on_wait = [&](absl::string_view message) {
    told.emplace_back(message);
    ends = std::thread([&] {
      absl::SleepFor(absl::Milliseconds(250));
      first->reset();
    });
  };
  EXPECT_THAT(Take({{"work_dir", "/w"}}, options), IsOk());
  ASSERT_TRUE(ends.joinable());
  ends.join();
  EXPECT_THAT(told, ElementsAre(AllOf(HasSubstr("/w is in use"),
                                      HasSubstr("for up to 1h"))));
}

TEST_F(RunLockTest, WaitsAsLongAsItIsTold) {
  const auto first = Take({{"work_dir", "/w"}});
  ASSERT_THAT(first, IsOk());
  const FakeClock clock(absl::Seconds(20));  // Each look.
  RunLock::Options options;
  options.clock = &clock;
  options.wait = absl::Seconds(30);
  EXPECT_THAT(RunLock::Take(env_, {{"work_dir", "/w"}}, options),
              StatusIs(absl::StatusCode::kAborted, HasSubstr("in use")));
  EXPECT_EQ(clock.NowNanos(), absl::ToInt64Nanoseconds(absl::Seconds(80)));
}

TEST_F(RunLockTest, AnInterruptEndsTheWaiting) {
  const auto first = Take({{"work_dir", "/w"}});
  ASSERT_THAT(first, IsOk());
  std::atomic<int> interrupt{0};
  RunLock::Options options;
  options.wait = absl::InfiniteDuration();
  options.interrupt = &interrupt;
  options.on_wait = [&](absl::string_view) { interrupt = 15; };
  EXPECT_THAT(Take({{"work_dir", "/w"}}, options),
              StatusIs(absl::StatusCode::kCancelled,
                       HasSubstr("work_dir: interrupted while /w is in use")));
}

// A file system without locks.
class LocklessEnv : public io::MemEnv {
 public:
  absl::StatusOr<std::unique_ptr<io::FileLock>> LockFile(
      const std::string& path) override {
    return absl::UnimplementedError(
        absl::StrCat(path, ": cannot lock: function not implemented"));
  }
};

TEST_F(RunLockTest, WithoutLocksItIsSaid) {
  LocklessEnv env;
  RunLock::Options options;
  options.clock = &clock_;
  const auto lock = RunLock::Take(env, {{"work_dir", "/w"}}, options);
  ASSERT_THAT(lock, IsOk());
  EXPECT_THAT((*lock)->warnings(),
              ElementsAre(AllOf(HasSubstr("/w/.lock: cannot lock"),
                                HasSubstr("nothing keeps a second run out"))));
}

TEST_F(RunLockTest, AFolderThatCannotBeMadeIsNamedByItsField) {
  ASSERT_THAT(io::WriteFileAtomically(env_, "/file", ""), IsOk());
  const absl::Status status =
      Take({{"work_dir", "/w"}, {"out_dir", "/file/x"}}).status();
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(std::string(status.message()), HasSubstr("out_dir: /file"));
  EXPECT_THAT(List("/"), ElementsAre("file"));
}

TEST_F(RunLockTest, AFullDiskIsNoReasonToRefuse) {
  io::FaultInjectionEnv full(env_, "/");
  ASSERT_THAT(full.CreateDir("/w"), IsOk());
  full.FailOperation(1, absl::ResourceExhaustedError("no space left"));
  RunLock::Options options;
  options.clock = &clock_;
  const auto lock = RunLock::Take(full, {{"work_dir", "/w"}}, options);
  ASSERT_THAT(lock, IsOk());
  EXPECT_THAT(full.operations(), testing::Contains("write /w/.lock"));
  EXPECT_THAT(Take({{"work_dir", "/w"}}),
              StatusIs(absl::StatusCode::kAborted, HasSubstr("/w")));
}

}  // namespace
}  // namespace grapnel
