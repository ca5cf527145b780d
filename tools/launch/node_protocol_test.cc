#include "grapnel/tools/launch/node_protocol.h"

#include <signal.h>

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "grapnel/base/status_matchers.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

TEST(MessagesTest, AreReadAsTheyWereWritten) {
  const auto hello = DecodeHello(Encode(Hello{1, 2, 3, 4}));
  ASSERT_THAT(hello, IsOk());
  EXPECT_EQ(Encode(*hello), Encode(Hello{1, 2, 3, 4}));

  Report report;
  report.kind = Report::Kind::kFailed;
  report.attempt = 2;
  report.failure = {-1, 137, true, "rank 1: bad\nthing \x1b"};
  auto read_report = DecodeReport(Encode(report));
  ASSERT_THAT(read_report, IsOk());
  EXPECT_EQ(read_report->failure.rank, -1);
  EXPECT_EQ(read_report->failure.exit_code, 137);
  EXPECT_TRUE(read_report->failure.is_final);
  EXPECT_EQ(read_report->failure.text, "rank 1: bad?thing ?");
  for (const auto kind :
       {Report::Kind::kDone, Report::Kind::kStopped, Report::Kind::kSignal}) {
    report.kind = kind;
    report.signal = 15;
    read_report = DecodeReport(Encode(report));
    ASSERT_THAT(read_report, IsOk());
    EXPECT_EQ(read_report->kind, kind);
    EXPECT_EQ(Encode(*read_report), Encode(report));
  }

  Command command;
  command.attempt = 1;
  command.master_port = 29500;
  command.resume = true;
  command.run_id = "id";
  command.exit_code = 3;
  command.signal = SIGTERM;
  command.failure = report.failure;
  for (const auto kind :
       {Command::Kind::kStart, Command::Kind::kStop, Command::Kind::kEnd}) {
    command.kind = kind;
    const auto read_command = DecodeCommand(Encode(command));
    ASSERT_THAT(read_command, IsOk());
    EXPECT_EQ(read_command->kind, kind);
    EXPECT_EQ(Encode(*read_command), Encode(command));
  }
}

TEST(MessagesTest, WhatIsNoneIsRefused) {
  for (const std::string line :
       {"", "GET / HTTP/1.1", "hello", "done", "done x", "done -1", "done 1 2",
        "signal 99", "failed 1", "failed 1 0 256 0 text",
        "done 99999999999999999999"}) {
    EXPECT_THAT(DecodeReport(line), StatusIs(kInvalid, HasSubstr(line)));
  }
  for (const std::string line :
       {"", "start", "start 0 0 0 id 0 0 0 ", "start 0 99999 0 id 0 0 0 ",
        "stop", "stop 0", "end 1", "end x 0 0 0 "}) {
    EXPECT_THAT(DecodeCommand(line), StatusIs(kInvalid, HasSubstr(line)));
  }
  EXPECT_THAT(DecodeHello("grapnel-launch-2 1 2 3 4"),
              StatusIs(kInvalid, HasSubstr("grapnel-launch-2")));
}

TEST(MessagesTest, OfNodesThatDontFitTheFlagIsNamed) {
  const Hello mine = {0, 3, 4, 1};
  EXPECT_THAT(CheckHello(mine, {1, 3, 4, 1}), IsOk());
  EXPECT_THAT(CheckHello(mine, {1, 2, 4, 1}),
              StatusIs(kInvalid, "--nnodes: is 2 on node 1 and 3 on node 0"));
  EXPECT_THAT(CheckHello(mine, {2, 3, 2, 1}),
              StatusIs(kInvalid, HasSubstr("--nproc-per-node: is 2")));
  EXPECT_THAT(CheckHello(mine, {2, 3, 4, 0}),
              StatusIs(kInvalid, HasSubstr("--max-restarts: is 0")));
  for (const int node : {0, 3}) {
    EXPECT_THAT(CheckHello(mine, {node, 3, 4, 1}),
                StatusIs(kInvalid, HasSubstr(absl::StrCat("is ", node))));
  }
}

// Commands in short.
std::vector<std::string> Short(const std::vector<Command>& commands) {
  std::vector<std::string> all;
  for (const Command& command : commands) {
    all.push_back(command.kind == Command::Kind::kStart
                      ? absl::StrCat("start ", command.attempt)
                  : command.kind == Command::Kind::kStop
                      ? absl::StrCat("stop ", command.signal)
                      : absl::StrCat("end ", command.exit_code));
  }
  return all;
}

Report Done(int attempt) { return {Report::Kind::kDone, attempt, 0, {}}; }
Report Stopped(int attempt) { return {Report::Kind::kStopped, attempt, 0, {}}; }
Report Asked(int signal) { return {Report::Kind::kSignal, 0, signal, {}}; }
Report Failed(int attempt, int exit_code, bool is_final = false) {
  return {Report::Kind::kFailed, attempt, 0, {1, exit_code, is_final, "why"}};
}

class CoordinatorTest : public testing::Test {
 protected:
  CoordinatorTest() {
    EXPECT_THAT(Short(coordinator_.Begin()), ElementsAre("start 0"));
  }

  std::vector<std::string> On(int node, const Report& report) {
    return Short(coordinator_.OnReport(node, report));
  }

  Coordinator coordinator_{2, 1, {4}};
};

TEST_F(CoordinatorTest, EndsWellWhenAllHave) {
  EXPECT_THAT(On(1, Done(0)), IsEmpty());
  EXPECT_THAT(On(0, Done(0)), ElementsAre("end 0"));
  EXPECT_THAT(On(0, Done(0)), IsEmpty());
}

TEST_F(CoordinatorTest, RestartsWhenAllHaveStopped) {
  EXPECT_THAT(On(1, Failed(0, 3)), ElementsAre("stop 15"));
  // The first counts.
  EXPECT_THAT(On(0, Failed(0, 4)), IsEmpty());
  EXPECT_THAT(On(0, Stopped(0)), IsEmpty());
  EXPECT_THAT(On(1, Stopped(0)), ElementsAre("start 1"));
  // What was under way when the new attempt began is not of it.
  EXPECT_THAT(On(0, Failed(0, 5)), IsEmpty());
  EXPECT_THAT(On(0, Stopped(0)), IsEmpty());
  EXPECT_THAT(On(0, Done(1)), IsEmpty());
  EXPECT_THAT(On(1, Failed(1, 6)), ElementsAre("stop 15"));
  EXPECT_THAT(On(1, Stopped(1)), ElementsAre("end 6"));
}

TEST_F(CoordinatorTest, SomeFailuresAreFinal) {
  for (const Report& failed : {Failed(0, 4), Failed(0, 7, true), Failed(0, 129),
                               Failed(0, 130), Failed(0, 143)}) {
    Coordinator coordinator(2, 9, {4});
    coordinator.Begin();
    coordinator.OnReport(1, failed);
    coordinator.OnReport(1, Stopped(0));
    EXPECT_THAT(Short(coordinator.OnReport(0, Stopped(0))),
                ElementsAre(absl::StrCat("end ", failed.failure.exit_code)));
  }
}

TEST_F(CoordinatorTest, ASignalEndsAll) {
  EXPECT_THAT(On(1, Asked(SIGINT)), ElementsAre("stop 2"));
  EXPECT_THAT(On(0, Failed(0, 1)), IsEmpty());
  EXPECT_THAT(On(0, Stopped(0)), IsEmpty());
  EXPECT_THAT(On(1, Stopped(0)), ElementsAre("end 130"));
}

TEST_F(CoordinatorTest, ASignalWhileRanksStopAfterAFailureIsTheLast) {
  EXPECT_THAT(On(1, Failed(0, 3)), ElementsAre("stop 15"));
  EXPECT_THAT(On(0, Asked(SIGTERM)), IsEmpty());
  EXPECT_THAT(On(0, Stopped(0)), IsEmpty());
  EXPECT_THAT(On(1, Stopped(0)), ElementsAre("end 143"));
}

TEST_F(CoordinatorTest, ASecondSignalKills) {
  EXPECT_THAT(On(1, Asked(SIGINT)), ElementsAre("stop 2"));
  EXPECT_THAT(On(0, Asked(SIGTERM)), ElementsAre("stop 9", "end 130"));
}

TEST_F(CoordinatorTest, ALostNodeIsTheEnd) {
  const std::vector<Command> commands = coordinator_.OnLost(1, "gone");
  EXPECT_THAT(Short(commands), ElementsAre("end 1"));
  EXPECT_EQ(commands[0].failure.text, "node 1 is lost: gone");
  EXPECT_THAT(On(0, Stopped(0)), IsEmpty());
}

TEST(CoordinatorStartTest, ASignalBeforeItEnds) {
  Coordinator coordinator(2, 1, {});
  EXPECT_THAT(Short(coordinator.OnReport(1, Asked(SIGHUP))),
              ElementsAre("end 129"));
}

}  // namespace
}  // namespace grapnel
