#include "grapnel/dist/c10d_process_group.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <functional>
#include <memory>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/blocking_counter.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/dist/c10d_handle.h"
#include "grapnel/dist/loopback.h"
#include "grapnel/dist/place.h"
#include "grapnel/dist/process_group.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::AllOf;
using ::testing::AnyOf;
using ::testing::Each;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kProgram[] = "dist/rank_program";

// What a limit is exceeded by where other tests run too: less than what is
// waited for where nothing notices.
constexpr absl::Duration kBusyMachine = absl::Seconds(8);

JoinOptions Timeouts(absl::Duration join_timeout, absl::Duration timeout) {
  JoinOptions options;
  options.join_timeout = join_timeout;
  options.timeout = timeout;
  return options;
}

// Joins as the ranks that `places` says, each in a thread of its own.
std::vector<absl::Status> JoinAs(
    const std::vector<Place>& places, const JoinOptions& options,
    const std::function<absl::Status(ProcessGroup&)>& body) {
  std::vector<absl::Status> statuses(places.size());
  std::vector<std::thread> threads;
  for (size_t i = 0; i < places.size(); ++i) {
    threads.emplace_back([&, i] {
      auto group = JoinProcessGroup(places[i], options);
      statuses[i] = group.ok() ? body(**group) : group.status();
    });
  }
  for (std::thread& thread : threads) thread.join();
  return statuses;
}

absl::Status Nothing(ProcessGroup&) { return absl::OkStatus(); }

TEST(JoinProcessGroupTest, ProcessAloneNeedsNoMaster) {
  const auto group = JoinProcessGroup(Place());
  ASSERT_THAT(group, IsOk());
  EXPECT_EQ((*group)->world_size(), 1);
  EXPECT_EQ(AsC10dProcessGroup(**group), nullptr);
}

TEST(JoinProcessGroupTest, RanksOfAnEarlierAttemptDoNotCount) {
  // The launcher's store, as torchrun's, lives through a restart.
  const int port = FreePort();
  std::vector<Place> host = {LocalPlace(0, 2, port), LocalPlace(1, 2, port)};
  const auto statuses = JoinAs(
      host, Timeouts(absl::Seconds(20), absl::Seconds(20)),
      [port](ProcessGroup& group) -> absl::Status {
        if (group.rank() == 0) {
          std::vector<Place> again = {LocalPlace(0, 2, port),
                                      LocalPlace(1, 2, port)};
          for (Place& place : again) {
            place.launcher_listens = true;
            place.attempt = 1;
          }
          for (const absl::Status& status :
               JoinAs(again, Timeouts(absl::Seconds(20), absl::Seconds(20)),
                      [](ProcessGroup& inner) { return inner.Barrier(); })) {
            EXPECT_THAT(status, IsOk());
          }
        }
        return group.Barrier();
      });
  EXPECT_THAT(statuses, Each(IsOk()));
}

TEST(JoinProcessGroupTest, NobodyAtTheMastersAddressIsADeadline) {
  const absl::Time start = absl::Now();
  const int port = FreePort();
  EXPECT_THAT(
      JoinProcessGroup(LocalPlace(1, 2, port),
                       Timeouts(absl::Seconds(4), absl::Seconds(2))),
      StatusIs(absl::StatusCode::kDeadlineExceeded,
               AllOf(HasSubstr("joining as rank 1 of 2: rank 0 does not "
                               "answer at 127.0.0.1:"),
                     HasSubstr(absl::StrCat(port,
                                            " within 4s: Connection "
                                            "refused")))));
  // c10d's own connecting would take 10 s.
  EXPECT_LT(absl::Now() - start, absl::Seconds(8));
}

TEST(JoinProcessGroupTest, UnknownHostIsNamed) {
  Place place = LocalPlace(1, 2, 29500);
  place.master_address = "no-such-host.invalid";
  EXPECT_THAT(
      JoinProcessGroup(place, Timeouts(absl::Seconds(1), absl::Seconds(1))),
      StatusIs(absl::StatusCode::kFailedPrecondition,
               HasSubstr("MASTER_ADDR: \"no-such-host.invalid\" is no host")));
}

TEST(JoinProcessGroupTest, PortInUseIsNamed) {
  const LoopbackListener other;
  EXPECT_THAT(
      JoinProcessGroup(LocalPlace(0, 2, other.port()),
                       Timeouts(absl::Seconds(2), absl::Seconds(2))),
      StatusIs(absl::StatusCode::kFailedPrecondition,
               HasSubstr(absl::StrCat("MASTER_PORT: ", other.port(),
                                      " is in use by another program"))));
}

TEST(JoinProcessGroupTest, WhatIsNoStoreIsFoundOut) {
  LoopbackListener other;
  other.Answer();
  const absl::Time start = absl::Now();
  EXPECT_THAT(
      JoinProcessGroup(LocalPlace(1, 2, other.port()),
                       Timeouts(absl::Seconds(2), absl::Seconds(2))),
      StatusIs(absl::StatusCode::kFailedPrecondition,
               HasSubstr(absl::StrCat("what listens at 127.0.0.1:",
                                      other.port(), " is no store of c10d"))));
  EXPECT_LT(absl::Now() - start, absl::Seconds(10) + kBusyMachine);
}

TEST(JoinProcessGroupTest, WhatNeverAnswersIsADeadline) {
  const LoopbackListener other;  // Takes connections, and nothing else.
  const absl::Time start = absl::Now();
  EXPECT_THAT(
      JoinProcessGroup(LocalPlace(1, 2, other.port()),
                       Timeouts(absl::Seconds(1), absl::Seconds(1))),
      StatusIs(absl::StatusCode::kDeadlineExceeded,
               HasSubstr(absl::StrCat(
                   "127.0.0.1:", other.port(),
                   " takes connections, and does not answer within 1s"))));
  EXPECT_LT(absl::Now() - start, absl::Seconds(11) + kBusyMachine);
}

TEST(JoinProcessGroupTest, AnInterruptEndsTheWaitForOthers) {
  for (const int rank : {0, 1}) {  // One that listens, and one that looks.
    std::atomic<int> interrupt{0};
    JoinOptions options = Timeouts(absl::Minutes(1), absl::Minutes(1));
    options.interrupt = &interrupt;
    absl::Time set;
    std::thread setter([&] {
      absl::SleepFor(absl::Milliseconds(300));
      set = absl::Now();
      interrupt = 15;
    });
    EXPECT_THAT(
        JoinProcessGroup(LocalPlace(rank, 2, FreePort()), options),
        StatusIs(absl::StatusCode::kCancelled,
                 absl::StrCat("joining as rank ", rank, " of 2: interrupted")));
    setter.join();
    EXPECT_LT(absl::Now() - set, absl::Seconds(2) + kBusyMachine);
  }
}

TEST(JoinProcessGroupTest, RanksThatDoNotComeAreNamedByAllThatDid) {
  const int port = FreePort();
  const absl::Time start = absl::Now();
  const auto statuses =
      JoinAs({LocalPlace(0, 4, port), LocalPlace(2, 4, port)},
             Timeouts(absl::Seconds(2), absl::Seconds(2)), Nothing);
  EXPECT_THAT(statuses,
              Each(StatusIs(absl::StatusCode::kDeadlineExceeded,
                            HasSubstr("ranks 1, 3 of 4 did not come to"))));
  EXPECT_LT(absl::Now() - start, absl::Seconds(8) + kBusyMachine);
}

TEST(JoinProcessGroupTest, DifferentNumbersOfRanksAreAnErrorOnAll) {
  const int port = FreePort();
  const absl::Time start = absl::Now();
  const auto statuses = JoinAs(
      {LocalPlace(0, 3, port), LocalPlace(1, 2, port), LocalPlace(2, 3, port)},
      Timeouts(absl::Seconds(20), absl::Seconds(20)), Nothing);
  EXPECT_THAT(statuses, Each(AnyOf(StatusIs(absl::StatusCode::kInvalidArgument,
                                            HasSubstr("world size: is ")),
                                   StatusIs(absl::StatusCode::kUnavailable,
                                            HasSubstr(": world size: is ")))));
  EXPECT_LT(absl::Now() - start, absl::Seconds(8) + kBusyMachine);
}

TEST(JoinProcessGroupTest, RanksWithOtherConnectionsAreAnErrorOnAll) {
  const int port = FreePort();
  const absl::Time start = absl::Now();
  std::vector<absl::Status> statuses(2);
  const auto join = [&](int rank) {
    JoinOptions options = Timeouts(absl::Seconds(20), absl::Seconds(20));
    options.own_connections = rank == 1;
    statuses[rank] =
        JoinProcessGroup(LocalPlace(rank, 2, port), options).status();
  };
  std::thread other([&] { join(1); });
  join(0);
  other.join();
  EXPECT_THAT(statuses,
              Each(AnyOf(StatusIs(absl::StatusCode::kUnavailable,
                                  HasSubstr(": own_connections")),
                         StatusIs(absl::StatusCode::kFailedPrecondition,
                                  HasSubstr("own_connections, which a "
                                            "run has for "
                                            "sync_batch_norm: is ")))));
  EXPECT_LT(absl::Now() - start, absl::Seconds(8) + kBusyMachine);
}

TEST(JoinProcessGroupTest, SecondProcessOfARankIsRefusedAndTheFirstGoesOn) {
  const int port = FreePort();
  const auto statuses = JoinAs(
      {LocalPlace(0, 2, port), LocalPlace(1, 2, port)},
      Timeouts(absl::Seconds(20), absl::Seconds(20)),
      [port](ProcessGroup& group) -> absl::Status {
        if (group.rank() == 1) {
          EXPECT_THAT(
              JoinProcessGroup(LocalPlace(1, 2, port),
                               Timeouts(absl::Seconds(2), absl::Seconds(2))),
              StatusIs(absl::StatusCode::kAlreadyExists,
                       HasSubstr("rank 1: another process has joined")));
        }
        return group.Barrier();
      });
  EXPECT_THAT(statuses, Each(IsOk()));
}

TEST(JoinProcessGroupTest, OptionsOutOfRangeAreNamed) {
  EXPECT_THAT(
      JoinProcessGroup(LocalPlace(0, 2, 1),
                       Timeouts(absl::Milliseconds(5), absl::Seconds(1))),
      StatusIs(absl::StatusCode::kInvalidArgument,
               HasSubstr("join_timeout: must be from 1s to 24h, is "
                         "5ms")));
  EXPECT_THAT(
      JoinProcessGroup(LocalPlace(0, 2, 1),
                       Timeouts(absl::Seconds(1), absl::InfiniteDuration())),
      StatusIs(absl::StatusCode::kInvalidArgument,
               HasSubstr("timeout: must be from 1ms to 24h, is inf")));
}

TEST(C10dProcessGroupTest, RankThatNeverComesIsADeadlineWithItsNumber) {
  const int port = FreePort();
  absl::BlockingCounter others(2);
  const auto statuses = JoinAs(
      {LocalPlace(0, 3, port), LocalPlace(1, 3, port), LocalPlace(2, 3, port)},
      Timeouts(absl::Seconds(20), absl::Seconds(1)),
      [&](ProcessGroup& group) -> absl::Status {
        if (group.rank() == 2) {
          others.Wait();  // It doesn't go before they are told of it.
          return absl::OkStatus();
        }
        const absl::Time start = absl::Now();
        const absl::Status status = group.Barrier();
        EXPECT_LT(absl::Now() - start, absl::Seconds(4) + kBusyMachine);
        // Nothing goes through after a failure, and at once.
        EXPECT_EQ(group.Barrier(), status);
        others.DecrementCount();
        return status;
      });
  EXPECT_THAT(statuses[2], IsOk());
  for (const int rank : {0, 1}) {
    EXPECT_THAT(statuses[rank],
                AnyOf(StatusIs(absl::StatusCode::kDeadlineExceeded,
                               HasSubstr("Barrier: rank 2 gave no answer")),
                      StatusIs(absl::StatusCode::kUnavailable,
                               HasSubstr("Barrier: rank 2 "))));
  }
}

TEST(C10dProcessGroupTest, GroupWithWorkInFlightEndsWithinItsTimeout) {
  const int port = FreePort();
  const auto statuses =
      JoinAs({LocalPlace(0, 2, port), LocalPlace(1, 2, port)},
             Timeouts(absl::Seconds(20), absl::Seconds(2)),
             [](ProcessGroup& group) -> absl::Status {
               if (group.rank() == 1) {
                 absl::SleepFor(absl::Seconds(1));
                 return absl::OkStatus();
               }
               std::thread waiting(
                   [&group] { EXPECT_THAT(group.Barrier(), Not(IsOk())); });
               absl::SleepFor(absl::Milliseconds(200));
               group.ReportFailure(absl::AbortedError("enough"));
               const absl::Time start = absl::Now();
               waiting.join();
               EXPECT_LT(absl::Now() - start, absl::Seconds(5) + kBusyMachine);
               return absl::OkStatus();
             });
  EXPECT_THAT(statuses, Each(IsOk()));
}

// ---------------------------------------------------------- processes

class Process {
 public:
  Process(int rank, int world_size, int port,
          const std::vector<std::string>& arguments)
      : output_(absl::StrCat(testing::TempDir(), "/", port, "-", rank)) {
    std::vector<std::string> environment = {
        absl::StrCat("RANK=", rank), absl::StrCat("WORLD_SIZE=", world_size),
        "MASTER_ADDR=127.0.0.1", absl::StrCat("MASTER_PORT=", port),
        "OMP_NUM_THREADS=1"};
    std::vector<char*> envp, argv = {const_cast<char*>(kProgram)};
    for (const std::string& e : environment) {
      envp.push_back(const_cast<char*>(e.c_str()));
    }
    for (const std::string& a : arguments) {
      argv.push_back(const_cast<char*>(a.c_str()));
    }
    envp.push_back(nullptr);
    argv.push_back(nullptr);
    const int fd = open(output_.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    pid_ = fork();
    if (pid_ == 0) {
      dup2(fd, 1);
      dup2(fd, 2);
      execve(kProgram, argv.data(), envp.data());
      _exit(127);
    }
    close(fd);
  }
  Process(Process&& other) noexcept
      : pid_(std::exchange(other.pid_, -1)),
        output_(std::move(other.output_)) {}
  ~Process() {
    Signal(SIGKILL);
    Wait(absl::Seconds(10));
  }

  void Signal(int signal) {
    if (pid_ > 0) kill(pid_, signal);
  }

  // Its exit code, or -1 if it was killed or isn't done in time.
  int Wait(absl::Duration limit) {
    const absl::Time end = absl::Now() + limit;
    while (pid_ > 0) {
      int status;
      if (waitpid(pid_, &status, WNOHANG) == pid_) {
        pid_ = -1;
        return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
      }
      if (absl::Now() > end) return -1;
      absl::SleepFor(absl::Milliseconds(5));
    }
    return -1;
  }

  std::string output() const {
    std::ostringstream text;
    text << std::ifstream(output_).rdbuf();
    return text.str();
  }

 private:
  pid_t pid_;
  std::string output_;
};

std::vector<Process> StartRanks(int world_size,
                                const std::vector<std::string>& arguments) {
  const int port = FreePort();
  std::vector<Process> processes;
  for (int rank = 0; rank < world_size; ++rank) {
    processes.emplace_back(rank, world_size, port, arguments);
  }
  return processes;
}

// Until all of them are in their loop.
void WaitForJoin(const std::vector<Process>& processes) {
  const absl::Time end = absl::Now() + absl::Seconds(60);
  for (const Process& process : processes) {
    while (process.output().find("joined in") == std::string::npos) {
      ASSERT_LT(absl::Now(), end) << process.output();
      absl::SleepFor(absl::Milliseconds(20));
    }
  }
  absl::SleepFor(absl::Milliseconds(300));
}

class ProcessesTest : public ::testing::TestWithParam<int> {};

TEST_P(ProcessesTest, CollectTheSameOnEveryRank) {
  const int n = GetParam();
  std::string gathered;
  for (int rank = 0; rank < n; ++rank) {
    absl::StrAppend(&gathered, rank == 0 ? "" : ",",
                    std::string(rank + 1, 'a' + rank));
  }
  auto processes = StartRanks(n, {"collect", "60", "60"});
  for (int rank = 0; rank < n; ++rank) {
    EXPECT_EQ(processes[rank].Wait(absl::Seconds(90)), 0);
    EXPECT_THAT(
        processes[rank].output(),
        AllOf(HasSubstr(n == 1 ? "one process"
                               : absl::StrCat("gloo, rank ", rank, " of ", n)),
              HasSubstr(absl::StrCat("sum ", n * (n + 1) / 2, " gathered ",
                                     gathered, "\n"))));
  }
}

INSTANTIATE_TEST_SUITE_P(, ProcessesTest, ::testing::Values(1, 2, 4, 8));

TEST(RanksTest, KilledRankIsNamedByTheOthers) {
  auto processes = StartRanks(3, {"kill", "60", "20"});
  for (const int rank : {0, 2}) {
    EXPECT_EQ(processes[rank].Wait(absl::Seconds(30)), 1);
    EXPECT_THAT(processes[rank].output(),
                HasSubstr("UNAVAILABLE: AllReduce: rank 1 ended without a "
                          "message"));
  }
}

TEST(RanksTest, FailureOfOneRankIsToldByAll) {
  auto processes = StartRanks(3, {"report", "60", "20"});
  for (const int rank : {0, 1, 2}) {
    EXPECT_EQ(processes[rank].Wait(absl::Seconds(30)), 1);
    EXPECT_THAT(processes[rank].output(),
                HasSubstr("first failure: DATA_LOSS: rank 1: digits is cut "
                          "short"));
  }
  for (const int rank : {0, 2}) {
    EXPECT_THAT(
        processes[rank].output(),
        HasSubstr("\nUNAVAILABLE: AllReduce: rank 1: digits is cut short"));
  }
}

// Stopped, so that its connections stay open: rank 0 has the store, too.
TEST(RanksTest, StoppedRankEndsTheOthersWithinTheTimeout) {
  for (const int stopped : {0, 1}) {
    auto processes = StartRanks(3, {"loop", "60", "3"});
    WaitForJoin(processes);
    const absl::Time start = absl::Now();
    processes[stopped].Signal(SIGSTOP);
    for (int rank = 0; rank < 3; ++rank) {
      if (rank == stopped) continue;
      EXPECT_EQ(processes[rank].Wait(absl::Seconds(30)), 1);
      EXPECT_LT(absl::Now() - start, absl::Seconds(3 + 5) + kBusyMachine);
      EXPECT_THAT(processes[rank].output(),
                  HasSubstr(stopped == 0 ? "rank 0 has ended or stands still"
                                         : "rank 1 gave no answer within 3s"));
    }
  }
}

TEST(RanksTest, DeadHostOfTheStoreIsNamed) {
  auto processes = StartRanks(3, {"loop", "60", "20"});
  WaitForJoin(processes);
  const absl::Time start = absl::Now();
  processes[0].Signal(SIGKILL);
  for (const int rank : {1, 2}) {
    EXPECT_EQ(processes[rank].Wait(absl::Seconds(30)), 1);
    EXPECT_LT(absl::Now() - start, absl::Seconds(8) + kBusyMachine);
    EXPECT_THAT(processes[rank].output(),
                HasSubstr("UNAVAILABLE: AllReduce: rank 0 has ended or stands "
                          "still: its store at 127.0.0.1:"));
  }
}

}  // namespace
}  // namespace grapnel
