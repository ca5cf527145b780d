#include "grapnel/loggers/text_run_log.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "grapnel/base/fake_clock.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/io/env.h"
#include "grapnel/io/mem_env.h"
#include "grapnel/loggers/memory_run_log.h"
#include "grapnel/loggers/run_log.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Level = RunLog::Level;

// A terminal that can be read, or torn off.
class Terminal {
 public:
  Terminal() { EXPECT_EQ(::pipe2(fds_, O_NONBLOCK), 0); }
  ~Terminal() {
    HangUp();
    ::close(fds_[1]);
  }

  int fd() const { return fds_[1]; }

  std::string Read() {
    std::string text;
    char buffer[4096];
    ssize_t n;
    while ((n = ::read(fds_[0], buffer, sizeof(buffer))) > 0) {
      text.append(buffer, n);
    }
    return text;
  }

  void HangUp() {
    if (fds_[0] >= 0) ::close(fds_[0]);
    fds_[0] = -1;
  }

 private:
  int fds_[2];
};

class TextRunLogTest : public testing::Test {
 protected:
  std::unique_ptr<RunLog> NewLog(io::Env& env, Level level = Level::kInfo) {
    TextRunLogOptions options;
    options.path = "run.log";
    options.terminal_fd = terminal_.fd();
    options.level = level;
    options.env = &env;
    options.clock = &clock_;
    auto log = CreateTextRunLog(options);
    EXPECT_THAT(log, IsOk());
    return *std::move(log);
  }

  std::string File() { return io::ReadFile(env_, "run.log").value_or("none"); }

  FakeClock clock_;  // At 2026-01-02 03:04:05.
  io::MemEnv env_;
  Terminal terminal_;
};

TEST_F(TextRunLogTest, LinesHaveMmenginesLayout) {
  auto log = NewLog(env_, Level::kDebug);
  log->Info("Saving checkpoint at 2 epochs");
  log->Write(Level::kDebug, "d");
  log->Warning("w");
  log->Error("e");
  EXPECT_EQ(terminal_.Read(),
            "01/02 03:04:05 - grapnel - INFO - Saving checkpoint at 2 epochs\n"
            "01/02 03:04:05 - grapnel - DEBUG - d\n"
            "01/02 03:04:05 - grapnel - WARNING - w\n"
            "01/02 03:04:05 - grapnel - ERROR - e\n");
  EXPECT_EQ(
      File(),
      "2026/01/02 03:04:05 - grapnel - INFO - Saving checkpoint at 2 epochs\n"
      "2026/01/02 03:04:05 - grapnel - DEBUG - d\n"
      "2026/01/02 03:04:05 - grapnel - WARNING - w\n"
      "2026/01/02 03:04:05 - grapnel - ERROR - e\n");
}

TEST_F(TextRunLogTest, TheTimeIsThatOfTheLine) {
  auto log = NewLog(env_);
  log->Info("a");
  clock_.wall += absl::Milliseconds(999);
  log->Info("b");
  clock_.wall += absl::Milliseconds(1);
  log->Info("c");
  clock_.wall -= absl::Hours(24);  // A clock may be set.
  log->Info("d");
  EXPECT_EQ(terminal_.Read(),
            "01/02 03:04:05 - grapnel - INFO - a\n"
            "01/02 03:04:05 - grapnel - INFO - b\n"
            "01/02 03:04:06 - grapnel - INFO - c\n"
            "01/01 03:04:06 - grapnel - INFO - d\n");
}

TEST_F(TextRunLogTest, LinesBelowTheLevelAreLeftOut) {
  auto log = NewLog(env_, Level::kWarning);
  log->Write(Level::kDebug, "d");
  log->Info("i");
  log->Warning("w");
  log->Error("e");
  EXPECT_EQ(terminal_.Read(),
            "01/02 03:04:05 - grapnel - WARNING - w\n"
            "01/02 03:04:05 - grapnel - ERROR - e\n");
}

TEST_F(TextRunLogTest, MessagesOfManyLinesStaySo) {
  NewLog(env_)->Info("a\n  b\n");
  EXPECT_EQ(terminal_.Read(), "01/02 03:04:05 - grapnel - INFO - a\n  b\n\n");
}

TEST_F(TextRunLogTest, BytesThatAreNoTextAreEscaped) {
  NewLog(env_)->Info("caf\xc3\xa9 caf\xe9");
  EXPECT_EQ(File(),
            "2026/01/02 03:04:05 - grapnel - INFO - caf\xc3\xa9 "
            "caf\\xe9\n");
}

TEST_F(TextRunLogTest, TheSameWarningComesOnce) {
  auto log = NewLog(env_);
  for (int i = 0; i < 3; ++i) {
    log->Warning("gone");
    log->Warning("found");
  }
  EXPECT_EQ(terminal_.Read(),
            "01/02 03:04:05 - grapnel - WARNING - gone\n"
            "01/02 03:04:05 - grapnel - WARNING - found\n");
}

TEST_F(TextRunLogTest, AppendsToAFileThatIsThere) {
  NewLog(env_)->Info("a");
  NewLog(env_)->Info("b");
  EXPECT_EQ(File(),
            "2026/01/02 03:04:05 - grapnel - INFO - a\n"
            "2026/01/02 03:04:05 - grapnel - INFO - b\n");
}

TEST_F(TextRunLogTest, WithoutFileOrTerminalNothingHappens) {
  auto log = CreateTextRunLog({});
  ASSERT_THAT(log, IsOk());
  (*log)->Info("a");
  (*log)->Warning("b");
  EXPECT_THAT((*log)->Flush(), IsOk());
}

TEST_F(TextRunLogTest, AFileThatCannotBeOpenedIsAnError) {
  TextRunLogOptions options;
  options.path = "missing/run.log";
  options.env = &env_;
  EXPECT_THAT(
      CreateTextRunLog(options),
      StatusIs(absl::StatusCode::kNotFound, HasSubstr("missing/run.log")));
}

TEST_F(TextRunLogTest, AFullDiskTurnsTheFileOffAndNothingElse) {
  io::MemEnv full(/*capacity=*/60);
  auto log = NewLog(full);
  log->Info("a");
  EXPECT_THAT(log->Flush(), IsOk());
  log->Info("b");
  log->Info("c");
  EXPECT_THAT(log->Flush(), StatusIs(absl::StatusCode::kResourceExhausted,
                                     HasSubstr("run.log")));
  EXPECT_EQ(terminal_.Read(),
            "01/02 03:04:05 - grapnel - INFO - a\n"
            "01/02 03:04:05 - grapnel - INFO - b\n"
            "01/02 03:04:05 - grapnel - WARNING - run log: nothing more is "
            "written there: run.log: cannot write: no space left on device\n"
            "01/02 03:04:05 - grapnel - INFO - c\n");
}

// `grapnel train 2>&1 | head`.
TEST_F(TextRunLogTest, ATerminalThatHangsUpDoesNotEndTheProcess) {
  auto log = NewLog(env_);
  log->Info("a");
  terminal_.HangUp();
  log->Info("b");
  log->Info("c");
  EXPECT_THAT(
      absl::StrSplit(File(), '\n'),
      ElementsAre(HasSubstr("INFO - a"), HasSubstr("INFO - b"),
                  HasSubstr("WARNING - run log: nothing more is written "
                            "there: terminal: cannot write"),
                  HasSubstr("INFO - c"), ""));
  // The signal mask is the caller's again, and no signal waits behind it.
  sigset_t mask, pending;
  ASSERT_EQ(pthread_sigmask(SIG_BLOCK, nullptr, &mask), 0);
  EXPECT_EQ(sigismember(&mask, SIGPIPE), 0);
  ASSERT_EQ(sigpending(&pending), 0);
  EXPECT_EQ(sigismember(&pending, SIGPIPE), 0);
}

TEST_F(TextRunLogTest, ATerminalThatTakesNoMoreIsGivenUp) {
  auto log = NewLog(env_);
  // More than a pipe holds, which nobody reads.
  log->Info(std::string(1 << 20, 'x'));
  log->Info("b");
  EXPECT_THAT(File(), HasSubstr("INFO - b"));
  EXPECT_THAT(terminal_.Read(), testing::Not(HasSubstr("INFO - b")));
}

TEST_F(TextRunLogTest, LinesOfManyThreadsAreWhole) {
  constexpr int kThreads = 8;
  constexpr int kLines = 200;
  auto log = NewLog(env_);
  terminal_.HangUp();
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&log, t] {
      for (int i = 0; i < kLines; ++i) {
        log->Info(absl::StrCat("thread ", t, " line ", i));
        log->Warning("the same");
      }
    });
  }
  for (std::thread& thread : threads) thread.join();

  std::vector<std::string> lines = absl::StrSplit(File(), '\n');
  std::vector<std::string> expected = {
      "", "2026/01/02 03:04:05 - grapnel - WARNING - the same",
      "2026/01/02 03:04:05 - grapnel - WARNING - run log: nothing more is "
      "written there: terminal: cannot write: Broken pipe"};
  for (int t = 0; t < kThreads; ++t) {
    for (int i = 0; i < kLines; ++i) {
      expected.push_back(absl::StrCat(
          "2026/01/02 03:04:05 - grapnel - INFO - thread ", t, " line ", i));
    }
  }
  std::sort(lines.begin(), lines.end());
  std::sort(expected.begin(), expected.end());
  EXPECT_EQ(lines, expected);
}

TEST(MemoryRunLogTest, KeepsMessagesInOrderAndWarningsOnce) {
  MemoryRunLog log;
  log.Info("a");
  log.Warning("b");
  log.Warning("b");
  log.Error("c");
  EXPECT_THAT(log.messages(), ElementsAre("a", "b", "c"));
  EXPECT_THAT(log.messages(Level::kWarning), ElementsAre("b"));
}

}  // namespace
}  // namespace grapnel
