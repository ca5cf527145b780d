// What stands on a terminal when a log's lines and a progress bar share it.

#include <pty.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "grapnel/base/fake_clock.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/io/env.h"
#include "grapnel/io/mem_env.h"
#include "grapnel/loggers/log_thread.h"
#include "grapnel/loggers/progress_bar.h"
#include "grapnel/loggers/run_log.h"
#include "grapnel/loggers/text_run_log.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

// A terminal of so many columns, and what it shows. Knows as much of a terminal
// as the log is to use.
class Terminal {
 public:
  explicit Terminal(int columns) : columns_(columns) {
    winsize size = {};
    size.ws_row = 24;
    size.ws_col = static_cast<unsigned short>(columns);
    EXPECT_EQ(::openpty(&master_, &slave_, nullptr, nullptr, &size), 0);
  }
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;
  ~Terminal() {
    ::close(slave_);
    ::close(master_);
  }

  int fd() const { return slave_; }

  void Resize(int columns) {
    columns_ = columns;
    winsize size = {};
    size.ws_col = static_cast<unsigned short>(columns);
    EXPECT_EQ(::ioctl(slave_, TIOCSWINSZ, &size), 0);
  }

  // Its lines, without blanks at their ends.
  std::vector<std::string> Screen() {
    for (const char c : Read()) Show(c);
    EXPECT_EQ(escape_, "") << "a sequence was cut";
    std::vector<std::string> lines = lines_;
    for (std::string& line : lines) {
      line.erase(line.find_last_not_of(' ') + 1);
    }
    if (lines.back().empty()) lines.pop_back();
    return lines;
  }

 private:
  // What has been written. A mark behind it says where that ends.
  std::string Read() {
    constexpr char kMark = '\x01';
    EXPECT_EQ(::write(slave_, &kMark, 1), 1);
    std::string text;
    char c;
    while (::read(master_, &c, 1) == 1 && c != kMark) text.push_back(c);
    return text;
  }

  void Show(char c) {
    std::string& line = lines_.back();
    if (!escape_.empty()) {
      escape_.push_back(c);
      if (c != 'K') return;
      EXPECT_EQ(escape_, "\x1b[K");
      line.resize(std::min(line.size(), column_));
      escape_.clear();
    } else if (c == '\x1b') {
      escape_.push_back(c);
    } else if (c == '\r') {
      column_ = 0;
    } else if (c == '\n') {
      lines_.emplace_back();
      column_ = 0;
    } else {
      EXPECT_GE(c, ' ');
      line.resize(std::max(line.size(), column_ + 1), ' ');
      line[column_++] = c;
      if (column_ == static_cast<size_t>(columns_)) {
        lines_.emplace_back();  // Wraps.
        column_ = 0;
      }
    }
  }

  int columns_;
  int master_ = -1;
  int slave_ = -1;
  std::vector<std::string> lines_ = {""};
  size_t column_ = 0;
  std::string escape_;
};

class StatusLineTest : public testing::Test {
 protected:
  StatusLineTest() { ::setenv("TERM", "xterm", 1); }

  std::unique_ptr<RunLog> NewLog(int fd) {
    TextRunLogOptions options;
    options.path = "run.log";
    options.terminal_fd = fd;
    options.env = &env_;
    options.clock = &clock_;
    auto log = CreateTextRunLog(options);
    EXPECT_THAT(log, IsOk());
    return *std::move(log);
  }

  io::MemEnv env_;
  FakeClock clock_;  // At 2026-01-02 03:04:05.
  Terminal terminal_{60};
};

TEST_F(StatusLineTest, LinesOfTheLogStandAboveIt) {
  auto log = NewLog(terminal_.fd());
  log->Info("a");
  log->SetStatusLine("a status that is long");
  log->SetStatusLine("status 1");
  EXPECT_THAT(terminal_.Screen(),
              ElementsAre("01/02 03:04:05 - grapnel - INFO - a", "status 1"));
  log->Info("b");
  log->Info("c");
  EXPECT_THAT(terminal_.Screen(),
              ElementsAre("01/02 03:04:05 - grapnel - INFO - a",
                          "01/02 03:04:05 - grapnel - INFO - b",
                          "01/02 03:04:05 - grapnel - INFO - c", "status 1"));
  log->SetStatusLine("");
  log->Info("d");
  log->SetStatusLine("status 2");
  log = nullptr;  // Leaves the prompt a clean line.
  EXPECT_THAT(terminal_.Screen(),
              ElementsAre("01/02 03:04:05 - grapnel - INFO - a",
                          "01/02 03:04:05 - grapnel - INFO - b",
                          "01/02 03:04:05 - grapnel - INFO - c",
                          "01/02 03:04:05 - grapnel - INFO - d"));
  EXPECT_THAT(io::ReadFile(env_, "run.log").value(),
              testing::Not(testing::HasSubstr("status")));
}

TEST_F(StatusLineTest, ABarFitsTheTerminalAsItIsNow) {
  auto log = NewLog(terminal_.fd());
  EXPECT_EQ(log->StatusColumns(), 59);
  ProgressBar bar(*log, clock_);
  bar.Begin("Epoch(val)", 0, 4);
  EXPECT_THAT(terminal_.Screen(),
              ElementsAre("Epoch(val)   0% "
                          "[>                                   ]  0/4"));
  terminal_.Resize(40);
  clock_.Advance(absl::Seconds(2));
  bar.Update(2);
  EXPECT_THAT(terminal_.Screen(),
              ElementsAre("Epoch(val)  50%  2/4  1.0/s  0:00:02<0:"));
  terminal_.Resize(3);
  clock_.Advance(absl::Seconds(1));
  bar.Update(3);
  EXPECT_THAT(terminal_.Screen(), ElementsAre("Ep"));
  bar.End();
  EXPECT_THAT(terminal_.Screen(), IsEmpty());
}

TEST_F(StatusLineTest, ComesThroughTheLogThreadInOrder) {
  auto text_log = NewLog(terminal_.fd());
  LogThread thread;
  ThreadedRunLog log(*text_log, thread);
  EXPECT_EQ(log.StatusColumns(), 59);
  log.Info("a");
  log.SetStatusLine("status");
  log.Info("b");
  ASSERT_THAT(log.Flush(), IsOk());
  EXPECT_THAT(terminal_.Screen(),
              ElementsAre("01/02 03:04:05 - grapnel - INFO - a",
                          "01/02 03:04:05 - grapnel - INFO - b", "status"));
}

TEST_F(StatusLineTest, WithoutATerminalThereIsNone) {
  int fds[2];
  ASSERT_EQ(::pipe(fds), 0);
  for (const int fd : {fds[1], -1}) {
    auto log = NewLog(fd);
    EXPECT_EQ(log->StatusColumns(), 0);
    log->SetStatusLine("status");
  }
  ::close(fds[1]);
  char c;
  EXPECT_EQ(::read(fds[0], &c, 1), 0) << c;
  ::close(fds[0]);
}

TEST_F(StatusLineTest, ADumbTerminalHasNone) {
  for (const char* const term : {"dumb", ""}) {
    ::setenv("TERM", term, 1);
    auto log = NewLog(terminal_.fd());
    EXPECT_EQ(log->StatusColumns(), 0);
    log->SetStatusLine("status");
    log->Info("a");
  }
  EXPECT_THAT(terminal_.Screen(),
              ElementsAre("01/02 03:04:05 - grapnel - INFO - a",
                          "01/02 03:04:05 - grapnel - INFO - a"));
}

TEST_F(StatusLineTest, ATerminalOfUnknownWidthHas79Columns) {
  terminal_.Resize(0);
  EXPECT_EQ(NewLog(terminal_.fd())->StatusColumns(), 79);
}

}  // namespace
}  // namespace grapnel
