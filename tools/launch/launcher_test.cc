// grapnel launch as a process, with shell programs as ranks.

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/io/env.h"
#include "grapnel/tools/launch/sockets.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ContainsRegex;
using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;

constexpr absl::Duration kTimeout = absl::Seconds(30);

std::string Read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

template <typename Condition>
bool WaitUntil(Condition condition) {
  const absl::Time end = absl::Now() + kTimeout;
  while (!condition()) {
    if (absl::Now() > end) return false;
    absl::SleepFor(absl::Milliseconds(5));
  }
  return true;
}

// Not to -1, which would mean every process there is.
bool Kill(pid_t pid, int signal) { return pid > 1 && kill(pid, signal) == 0; }

// A running launcher, with its output in files or, for a reader of the test's
// own, at `out_fd`.
class Launcher {
 public:
  Launcher(const std::string& dir, const std::string& name,
           const std::vector<std::string>& args, int out_fd = -1)
      : out_(absl::StrCat(dir, "/", name, ".out")),
        err_(absl::StrCat(dir, "/", name, ".err")) {
    std::vector<std::string> all = {
        absl::StrCat(getenv("TEST_SRCDIR"), "/", getenv("TEST_WORKSPACE"),
                     "/tools/launch/launch_for_test")};
    all.insert(all.end(), args.begin(), args.end());
    std::vector<char*> argv;
    for (std::string& arg : all) argv.push_back(arg.data());
    argv.push_back(nullptr);
    pid_ = fork();
    if (pid_ != 0) return;
    // As a shell with job control does.
    setpgid(0, 0);
    if (chdir(dir.c_str()) != 0) _exit(97);
    if (out_fd < 0) out_fd = open(out_.c_str(), O_WRONLY | O_CREAT, 0644);
    dup2(out_fd, STDOUT_FILENO);
    dup2(open(err_.c_str(), O_WRONLY | O_CREAT, 0644), STDERR_FILENO);
    execv(argv[0], argv.data());
    _exit(98);
  }

  ~Launcher() {
    if (pid_ <= 0) return;
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }

  std::string out() const { return Read(out_); }
  std::string err() const { return Read(err_); }

  void Signal(int signal) { EXPECT_TRUE(Kill(pid_, signal)); }

  // As a key of the terminal does.
  void SignalGroup(int signal) {
    if (pid_ > 1) kill(-pid_, signal);
  }

  bool WaitForErr(absl::string_view text) {
    return WaitUntil([&] { return absl::StrContains(err(), text); });
  }

  // Its exit code; 1000 and the signal that killed it; -1 if it doesn't end.
  int Wait() {
    int status = 0;
    if (!WaitUntil([&] { return waitpid(pid_, &status, WNOHANG) == pid_; })) {
      return -1;
    }
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
  }

 private:
  const std::string out_;
  const std::string err_;
  pid_t pid_ = -1;
};

class LauncherTest : public testing::Test {
 protected:
  LauncherTest()
      : dir_(absl::StrCat(testing::TempDir(), "/", Name())),
        mark_(absl::StrCat("LAUNCHER_TEST=", getpid(), Name())) {
    EXPECT_THAT(io::Env::Posix().CreateDir(dir_), IsOk());
    const std::pair<std::string, std::string> mark =
        absl::StrSplit(mark_, absl::MaxSplits('=', 1));
    setenv(mark.first.c_str(), mark.second.c_str(), 1);
    unsetenv("OMP_NUM_THREADS");
    unsetenv("JOIN_TIMEOUT");
  }

  ~LauncherTest() override {
    unsetenv("LAUNCHER_TEST");
    EXPECT_TRUE(IsEverythingGone());
  }

  static std::string Name() {
    std::string name =
        testing::UnitTest::GetInstance()->current_test_info()->name();
    std::replace(name.begin(), name.end(), '/', '_');
    return name;
  }

  // Processes that a launcher of this test started, and what those started:
  // whoever has its environment.
  std::vector<pid_t> Ours() const {
    std::vector<pid_t> found;
    const auto entries = io::Env::Posix().ListDir("/proc");
    for (const std::string& name :
         entries.value_or(std::vector<std::string>())) {
      pid_t pid;
      if (!absl::SimpleAtoi(name, &pid) || pid == getpid()) continue;
      if (absl::StrContains(Read(absl::StrCat("/proc/", name, "/environ")),
                            mark_)) {
        found.push_back(pid);
      }
    }
    return found;
  }

  // The keeper of the launcher that has `flag`, or of any; -1 if there is none.
  pid_t FindKeeper(absl::string_view flag = "") const {
    for (const pid_t pid : Ours()) {
      const std::string proc = absl::StrCat("/proc/", pid);
      if (Read(proc + "/comm") == "grapnel-keeper\n" &&
          absl::StrContains(Read(proc + "/cmdline"), flag)) {
        return pid;
      }
    }
    return -1;
  }

  bool IsEverythingGone() const {
    return WaitUntil([this] { return Ours().empty(); });
  }

  struct Result {
    int exit_code;
    std::string out;
    std::string err;
  };

  // `script` is a rank's, for sh.
  std::vector<std::string> Args(std::vector<std::string> flags,
                                const std::string& script) const {
    flags.insert(flags.end(), {"--program=sh", "--", "-c", script, "sh"});
    return flags;
  }

  Result Run(const std::vector<std::string>& flags, const std::string& script) {
    Launcher launcher(dir_, "run", Args(flags, script));
    const int exit_code = launcher.Wait();
    EXPECT_THAT(Ours(), IsEmpty());
    const Result result = {exit_code, launcher.out(), launcher.err()};
    unlink(absl::StrCat(dir_, "/run.out").c_str());
    unlink(absl::StrCat(dir_, "/run.err").c_str());
    return result;
  }

  const std::string dir_;
  const std::string mark_;
};

std::vector<std::string> Lines(absl::string_view text) {
  std::vector<std::string> lines = absl::StrSplit(text, '\n');
  EXPECT_EQ(lines.back(), "");
  lines.pop_back();
  return lines;
}

class RanksTest : public LauncherTest,
                  public testing::WithParamInterface<int> {};

TEST_P(RanksTest, GetTorchrunsVariables) {
  const int n = GetParam();
  setenv("TORCHELASTIC_RUN_ID", "of-another", 1);
  const Result result =
      Run({absl::StrCat("--nproc-per-node=", n), "--max-restarts=7"},
          "echo $RANK $LOCAL_RANK $ROLE_RANK $WORLD_SIZE $LOCAL_WORLD_SIZE "
          "$ROLE_WORLD_SIZE $GROUP_RANK $GROUP_WORLD_SIZE $ROLE_NAME "
          "$MASTER_ADDR $TORCHELASTIC_RESTART_COUNT $TORCHELASTIC_MAX_RESTARTS "
          "$TORCHELASTIC_USE_AGENT_STORE ${OMP_NUM_THREADS-unset} "
          "$TORCH_NCCL_ASYNC_ERROR_HANDLING '|' $MASTER_PORT "
          "$TORCHELASTIC_RUN_ID $(tr '\\0' '\\n' < /proc/$$/environ | "
          "grep -c ^TORCHELASTIC_RUN_ID=)");
  unsetenv("TORCHELASTIC_RUN_ID");
  ASSERT_EQ(result.exit_code, 0) << result.err;
  std::vector<std::string> rest;
  for (int rank = 0; rank < n; ++rank) {
    const std::string expected = absl::StrCat(
        rank == 0 ? "" : absl::StrCat("[rank ", rank, "] "), rank, " ", rank,
        " ", rank, " ", n, " ", n, " ", n, " 0 1 default 127.0.0.1 0 7 False ",
        n > 1 ? "1" : "unset", " 1 | ");
    std::vector<std::string> found;
    for (const std::string& line : Lines(rank == 0 ? result.out : result.err)) {
      if (absl::StartsWith(line, expected)) found.push_back(line);
    }
    ASSERT_EQ(found.size(), 1u) << expected << "\n" << result.err;
    rest.push_back(found[0].substr(expected.size()));
  }
  // One port and one id for all.
  EXPECT_EQ(std::count(rest.begin(), rest.end(), rest[0]), n);
  EXPECT_THAT(rest[0], testing::MatchesRegex("[0-9]+ grapnel_[0-9a-f]+ 1"));
  EXPECT_EQ(absl::StrContains(result.err, "grapnel: OMP_NUM_THREADS is 1"),
            n > 1);
}

TEST_P(RanksTest, ThatFloodDontTearLinesOrLoseAny) {
  const int n = GetParam();
  const int lines = 20000 / n;
  const std::string body(60, 'x');
  const Result result =
      Run({absl::StrCat("--nproc-per-node=", n)},
          absl::StrCat("i=0; while [ $i -lt ", lines, " ]; do echo $i ", body,
                       "; i=$((i+1)); done; printf end"));
  ASSERT_EQ(result.exit_code, 0);
  std::string expected;
  std::vector<int> next(n, 0);
  for (int i = 0; i < lines; ++i)
    absl::StrAppend(&expected, i, " ", body, "\n");
  EXPECT_EQ(result.out, expected + "end") << result.out.size();
  for (const std::string& line : Lines(result.err)) {
    absl::string_view rest = line;
    if (absl::StartsWith(line, "grapnel: ")) continue;
    ASSERT_TRUE(absl::ConsumePrefix(&rest, "[rank ")) << line;
    int rank = 0;
    ASSERT_TRUE(absl::SimpleAtoi(rest.substr(0, rest.find(']')), &rank));
    rest.remove_prefix(rest.find(']') + 2);
    const int i = next.at(rank)++;
    ASSERT_EQ(rest, i == lines ? "end" : absl::StrCat(i, " ", body));
  }
  for (int rank = 1; rank < n; ++rank) EXPECT_EQ(next[rank], lines + 1);
}

TEST_P(RanksTest, EndWithTheFirstThatFails) {
  const int n = GetParam();
  const Result result =
      Run({absl::StrCat("--nproc-per-node=", n)},
          absl::StrCat("if [ $RANK = ", n - 1,
                       " ]; then echo out; echo first >&2; echo second >&2; "
                       "exit 3; fi; trap 'echo told; exit 5' TERM; "
                       "sleep 30 & wait"));
  EXPECT_EQ(result.exit_code, 3);
  EXPECT_THAT(result.err, EndsWith(absl::StrCat(
                              "grapnel: rank ", n - 1,
                              " failed with exit code 3; its last "
                              "lines:\n[rank ",
                              n - 1, "] first\n[rank ", n - 1, "] second\n")));
  EXPECT_EQ(absl::StrContains(result.err, "; stopping the others\n"), n > 1);
}

INSTANTIATE_TEST_SUITE_P(All, RanksTest, testing::Values(1, 4, 16),
                         [](const auto& info) {
                           return absl::StrCat("Of", info.param);
                         });

TEST_F(LauncherTest, ABadCommandLineIsRefusedBeforeAnythingStarts) {
  Result result = Run({"--program=/no/such/program", "--nproc-per-node=3"}, "");
  EXPECT_EQ(result.exit_code, 2);
  result = Run({"--log-dir=/proc/none"}, "echo started");
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.err, StartsWith("grapnel: --log-dir: /proc/none"));
  EXPECT_EQ(result.out, "");
}

TEST_F(LauncherTest, AProgramThatIsNotThereIsNamed) {
  Launcher launcher(
      dir_, "run",
      {"--nproc-per-node=3", "--max-restarts=3", "--program=/no/such/program"});
  EXPECT_EQ(launcher.Wait(), 2);
  EXPECT_THAT(launcher.err(),
              EndsWith("grapnel: rank 0: /no/such/program: No such file or "
                       "directory\n"));
  EXPECT_THAT(launcher.err(), Not(HasSubstr("restart")));
}

TEST_F(LauncherTest, ARankThatTheSystemCannotStartIsNoBadCommandLine) {
  rlimit limit;
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
  rlimit few = limit;
  few.rlim_cur = 64;
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &few), 0);
  const Result result = Run({"--nproc-per-node=64"}, "sleep 60");
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.err, ContainsRegex("grapnel: rank [1-9][0-9]*: .*: Too "
                                        "many open files\n"));
}

TEST_F(LauncherTest, ThreadsThatTheUserSetStay) {
  setenv("OMP_NUM_THREADS", "3", 1);
  const Result result =
      Run({"--nproc-per-node=2"}, "echo $OMP_NUM_THREADS >&2");
  EXPECT_EQ(result.err.find("grapnel: "), std::string::npos);
  std::vector<std::string> lines = Lines(result.err);
  std::sort(lines.begin(), lines.end());
  EXPECT_THAT(lines, ElementsAre("3", "[rank 1] 3"));
}

TEST_F(LauncherTest, AnyByteIsPassedOn) {
  std::string bytes;
  for (int i = 0; i < 256; ++i) bytes.push_back(static_cast<char>(i));
  for (int i = 0; i < 10; ++i) bytes += bytes;  // A long line, too.
  std::ofstream(dir_ + "/bytes", std::ios::binary) << bytes;
  const Result result = Run({}, "cat bytes; cat bytes >&2");
  EXPECT_TRUE(result.out == bytes) << result.out.size();
  EXPECT_TRUE(result.err == bytes) << result.err.size();
}

TEST_F(LauncherTest, LogDirHasAFileForEachRankAndStream) {
  const std::string script =
      "echo out $RANK $TORCHELASTIC_RESTART_COUNT; printf err$RANK >&2; "
      "[ $RANK$TORCHELASTIC_RESTART_COUNT = 10 ] || exit 0; "
      "while ! [ -s logs/a/rank_0.stderr.log ]; do sleep 0.01; done; exit 1";
  const Result result = Run(
      {"--nproc-per-node=2", "--log-dir=logs/a", "--max-restarts=1"}, script);
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_EQ(result.out, "");
  EXPECT_THAT(result.err, AllOf(HasSubstr("appended to logs/a/rank_N."),
                                HasSubstr("its last lines:\n[rank 1] err1\n")));
  const std::string prefix = dir_ + "/logs/a/rank_";
  EXPECT_EQ(Read(prefix + "0.stdout.log"), "out 0 0\nout 0 1\n");
  EXPECT_EQ(Read(prefix + "1.stdout.log"), "out 1 0\nout 1 1\n");
  EXPECT_EQ(Read(prefix + "1.stderr.log"), "err1err1");
}

TEST_F(LauncherTest, AReaderThatStopsDoesntStopSignals) {
  int pipe_ends[2];
  ASSERT_EQ(pipe2(pipe_ends, O_CLOEXEC), 0);
  OwnedFd reader(pipe_ends[0]);
  OwnedFd writer(pipe_ends[1]);
  Launcher launcher(dir_, "run",
                    Args({"--nproc-per-node=2", "--grace=1s"},
                         "[ $RANK = 1 ] && { echo ready; exec sleep 30; }; "
                         "exec yes"),
                    writer.get());
  // Rank 0's flood, that nobody reads, is not in rank 1's way.
  ASSERT_TRUE(launcher.WaitForErr("[rank 1] ready\n"));
  launcher.Signal(SIGTERM);
  EXPECT_EQ(launcher.Wait(), 128 + SIGTERM);
  // What others have open too isn't changed.
  EXPECT_EQ(fcntl(writer.get(), F_GETFL) & O_NONBLOCK, 0);
}

TEST_F(LauncherTest, AReaderThatGoesDoesntEndTheRun) {
  int pipe_ends[2];
  ASSERT_EQ(pipe2(pipe_ends, O_CLOEXEC), 0);
  OwnedFd writer(pipe_ends[1]);
  close(pipe_ends[0]);
  Launcher launcher(dir_, "run",
                    Args({},
                         "i=0; while [ $i -lt 9999 ]; do echo $i; "
                         "i=$((i+1)); done; touch finished"),
                    writer.get());
  EXPECT_EQ(launcher.Wait(), 0);
  EXPECT_EQ(access((dir_ + "/finished").c_str(), F_OK), 0);
}

class SignalTest : public LauncherTest,
                   public testing::WithParamInterface<int> {};

TEST_P(SignalTest, IsPassedOnOnceToEveryRank) {
  // With a shell's trap, each signal is one line.
  Launcher launcher(
      dir_, "run",
      Args({"--nproc-per-node=3", "--max-restarts=5"},
           "for s in HUP INT TERM; do trap \"echo got $s >&2; n=x\" $s; done; "
           "echo ready $RANK >&2; while [ -z \"$n\" ]; do sleep 0.05; done; "
           "sleep 0.3; exit 7"));
  for (int rank = 0; rank < 3; ++rank) {
    ASSERT_TRUE(launcher.WaitForErr(absl::StrCat("ready ", rank)));
  }
  launcher.SignalGroup(GetParam());
  EXPECT_EQ(launcher.Wait(), 128 + GetParam());
  std::vector<std::string> got;
  for (const std::string& line : Lines(launcher.err())) {
    if (absl::StrContains(line, "got")) got.push_back(line);
  }
  std::sort(got.begin(), got.end());
  const std::string name = GetParam() == SIGINT    ? "got INT"
                           : GetParam() == SIGTERM ? "got TERM"
                                                   : "got HUP";
  EXPECT_THAT(got, ElementsAre("[rank 1] " + name, "[rank 2] " + name, name));
  EXPECT_THAT(launcher.err(), Not(HasSubstr("restart")));
}

INSTANTIATE_TEST_SUITE_P(All, SignalTest,
                         testing::Values(SIGINT, SIGTERM, SIGHUP),
                         [](const auto& info) {
                           return info.param == SIGINT    ? "Int"
                                  : info.param == SIGTERM ? "Term"
                                                          : "Hup";
                         });

constexpr char kIgnoresSignals[] =
    "trap '' TERM INT HUP; sleep 600 & setsid sleep 600 & "
    "echo ready $RANK >&2; wait";

TEST_F(LauncherTest, ThoseWhoDontEndAreKilledAfterTheGracePeriod) {
  Launcher launcher(
      dir_, "run",
      Args({"--nproc-per-node=2", "--grace=300ms"}, kIgnoresSignals));
  ASSERT_TRUE(launcher.WaitForErr("ready 0"));
  ASSERT_TRUE(launcher.WaitForErr("ready 1"));
  const absl::Time start = absl::Now();
  launcher.Signal(SIGTERM);
  EXPECT_EQ(launcher.Wait(), 128 + SIGTERM);
  EXPECT_GE(absl::Now() - start, absl::Milliseconds(300));
  EXPECT_THAT(launcher.err(),
              HasSubstr("grapnel: 2 of 2 ranks did not end within 300ms and "
                        "are killed\n"));
  EXPECT_THAT(Ours(), IsEmpty());
}

TEST_F(LauncherTest, ASecondSignalKills) {
  Launcher launcher(dir_, "run", Args({"--nproc-per-node=2"}, kIgnoresSignals));
  ASSERT_TRUE(launcher.WaitForErr("ready 0"));
  ASSERT_TRUE(launcher.WaitForErr("ready 1"));
  launcher.Signal(SIGINT);
  absl::SleepFor(absl::Milliseconds(100));
  EXPECT_TRUE(WaitUntil([this] { return Ours().size() == 8; }));
  launcher.Signal(SIGTERM);
  EXPECT_EQ(launcher.Wait(), 128 + SIGINT);
  EXPECT_THAT(Ours(), IsEmpty());
}

TEST_F(LauncherTest, AnIgnoredSignalStaysIgnored) {
  signal(SIGHUP, SIG_IGN);
  Launcher launcher(dir_, "run",
                    Args({},
                         "echo ready >&2; kill -HUP $$; sleep 0.3; "
                         "echo alive"));
  signal(SIGHUP, SIG_DFL);
  ASSERT_TRUE(launcher.WaitForErr("ready"));
  launcher.Signal(SIGHUP);
  EXPECT_EQ(launcher.Wait(), 0);
  EXPECT_EQ(launcher.out(), "alive\n");
}

TEST_F(LauncherTest, NothingIsLeftWhenTheLauncherIsKilled) {
  for (const bool its_group : {false, true}) {
    Launcher launcher(dir_, absl::StrCat("run", its_group),
                      Args({"--nproc-per-node=4"}, kIgnoresSignals));
    for (int rank = 0; rank < 4; ++rank) {
      ASSERT_TRUE(launcher.WaitForErr(absl::StrCat("ready ", rank)));
    }
    // Launcher, keeper, and three for each rank.
    ASSERT_TRUE(WaitUntil([this] { return Ours().size() == 14; }));
    if (its_group) {
      launcher.SignalGroup(SIGKILL);
    } else {
      launcher.Signal(SIGKILL);
    }
    EXPECT_EQ(launcher.Wait(), 1000 + SIGKILL);
    EXPECT_TRUE(IsEverythingGone());
  }
}

TEST_F(LauncherTest, NothingIsLeftWhenTheKeeperIsKilled) {
  Launcher launcher(dir_, "run", Args({"--nproc-per-node=4"}, kIgnoresSignals));
  for (int rank = 0; rank < 4; ++rank) {
    ASSERT_TRUE(launcher.WaitForErr(absl::StrCat("ready ", rank)));
  }
  ASSERT_TRUE(Kill(FindKeeper(), SIGKILL));
  EXPECT_EQ(launcher.Wait(), 128 + SIGKILL);
  EXPECT_THAT(launcher.err(), HasSubstr("was killed by signal 9"));
  EXPECT_THAT(Ours(), IsEmpty());
}

TEST_F(LauncherTest, RanksEndWithTheKeeperWhenNobodyElseCanEndThem) {
  Launcher launcher(dir_, "run",
                    Args({"--nproc-per-node=4"},
                         "echo ready $RANK >&2; trap '' TERM HUP; "
                         "exec sleep 600"));
  for (int rank = 0; rank < 4; ++rank) {
    ASSERT_TRUE(launcher.WaitForErr(absl::StrCat("ready ", rank)));
  }
  launcher.Signal(SIGSTOP);
  ASSERT_TRUE(Kill(FindKeeper(), SIGKILL));
  EXPECT_TRUE(WaitUntil([this] { return Ours().size() == 1; }));
  launcher.Signal(SIGKILL);
  EXPECT_EQ(launcher.Wait(), 1000 + SIGKILL);
}

// As a service manager does, which tells every process.
TEST_F(LauncherTest, ASignalToTheKeeperIsNoSecondOne) {
  Launcher launcher(dir_, "run",
                    Args({},
                         "trap 'sleep 0.3; echo saved; exit 0' TERM; "
                         "echo ready >&2; while :; do sleep 0.05; done"));
  ASSERT_TRUE(launcher.WaitForErr("ready"));
  const pid_t keeper = FindKeeper();
  ASSERT_TRUE(Kill(keeper, SIGTERM));
  launcher.Signal(SIGTERM);
  absl::SleepFor(absl::Milliseconds(100));
  ASSERT_TRUE(Kill(keeper, SIGTERM));
  EXPECT_EQ(launcher.Wait(), 128 + SIGTERM);
  EXPECT_EQ(launcher.out(), "saved\n");
}

TEST_F(LauncherTest, WhatRanksLeaveBehindMayFinishButNotStay) {
  const absl::Time start = absl::Now();
  const Result result = Run(
      {}, "(sleep 0.1; echo late) & setsid sleep 600 >/dev/null & echo early");
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_EQ(result.out, "early\nlate\n");
  EXPECT_LT(absl::Now() - start, absl::Seconds(20));
}

TEST_F(LauncherTest, OfRanksThatEndTogetherTheOneThatWasKilledIsBlamed) {
  // Those that lose it see so while the launcher is stopped.
  Launcher launcher(
      dir_, "run",
      Args({"--nproc-per-node=4"},
           "echo ready $RANK >&2; "
           "[ $RANK = 3 ] && { while ! [ -e go ]; do sleep 0.01; done; "
           "kill -SEGV $$; }; while ! [ -e lost ]; do sleep 0.01; done; "
           "exit 1"));
  for (int rank = 0; rank < 4; ++rank) {
    ASSERT_TRUE(launcher.WaitForErr(absl::StrCat("ready ", rank)));
  }
  const pid_t keeper = FindKeeper();
  ASSERT_TRUE(Kill(keeper, SIGSTOP));
  std::ofstream(dir_ + "/go") << "";
  std::ofstream(dir_ + "/lost") << "";
  // What has ended and waits for the keeper has no environment any more.
  EXPECT_TRUE(WaitUntil([this] { return Ours().size() == 2; }));
  EXPECT_TRUE(Kill(keeper, SIGCONT));
  EXPECT_EQ(launcher.Wait(), 128 + SIGSEGV);
  EXPECT_THAT(launcher.err(), HasSubstr("rank 3 was killed by signal 11"));
}

TEST_F(LauncherTest, RestartsAllAnewAsOftenAsItMay) {
  const Result result =
      Run({"--nproc-per-node=3", "--max-restarts=2"},
          "echo $RANK:$TORCHELASTIC_RESTART_COUNT:$MASTER_PORT:$* >> ran; "
          "[ $RANK = 1 ] || exec sleep 30; "
          "until [ $(grep -c :$TORCHELASTIC_RESTART_COUNT: ran) = 3 ]; do "
          "sleep 0.01; done; exit 9");
  EXPECT_EQ(result.exit_code, 9);
  EXPECT_THAT(result.err, AllOf(HasSubstr("grapnel: restart 1 of 2\n"),
                                HasSubstr("grapnel: restart 2 of 2\n"),
                                Not(HasSubstr("restart 3"))));
  const std::vector<std::string> ran = Lines(Read(dir_ + "/ran"));
  EXPECT_EQ(ran.size(), 9u);
  for (int rank = 0; rank < 3; ++rank) {
    for (int attempt = 0; attempt < 3; ++attempt) {
      EXPECT_THAT(
          ran, Contains(AllOf(StartsWith(absl::StrCat(rank, ":", attempt, ":")),
                              EndsWith(":"))));
    }
  }
}

TEST_F(LauncherTest, ResumesOnceThereIsACheckpoint) {
  const Result result =
      Run({"--nproc-per-node=2", "--max-restarts=3"},
          "[ $RANK = 0 ] && echo $TORCHELASTIC_RESTART_COUNT:$* >> ran; "
          "[ $RANK = 1 ] && exec sleep 30; sleep 0.1; "
          "case $TORCHELASTIC_RESTART_COUNT in 0) exit 1;; "
          "1) touch checkpoint; exit 1;; esac; exit 4");
  EXPECT_EQ(result.exit_code, 4);
  EXPECT_EQ(Read(dir_ + "/ran"), "0:\n1:\n2:--resume\n");
  EXPECT_THAT(result.err,
              HasSubstr("restart 2 of 3, from the newest checkpoint\n"));
}

struct FinalCase {
  const char* name;
  const char* end;
  int exit_code;
};

class FinalTest : public LauncherTest,
                  public testing::WithParamInterface<FinalCase> {};

TEST_P(FinalTest, IsNotRestarted) {
  const Result result =
      Run({"--nproc-per-node=2", "--max-restarts=3"},
          absl::StrCat("[ $RANK = 0 ] && exec sleep 30; ", GetParam().end));
  EXPECT_EQ(result.exit_code, GetParam().exit_code);
  EXPECT_THAT(result.err, Not(HasSubstr("restart")));
}

INSTANTIATE_TEST_SUITE_P(
    All, FinalTest,
    testing::Values(FinalCase{"BadInput", "exit 2", 2},
                    FinalCase{"BadCheckpoint", "exit 4", 4},
                    FinalCase{"Interrupted", "exit 130", 130},
                    FinalCase{"HungUp", "exit 129", 129},
                    FinalCase{"Terminated", "kill -TERM $$", 143}),
    [](const auto& info) { return info.param.name; });

TEST_F(LauncherTest, AMasterPortInUseIsNamed) {
  const absl::StatusOr<ReservedPort> taken = ReservePort(0);
  ASSERT_THAT(taken, IsOk());
  const auto listening = Listen(taken->port);
  ASSERT_THAT(listening, IsOk());
  for (const char* nnodes : {"--nnodes=1", "--nnodes=2"}) {
    const Result result =
        Run({nnodes, "--node-rank=0", "--master-addr=127.0.0.1",
             absl::StrCat("--master-port=", taken->port)},
            "echo started");
    EXPECT_EQ(result.exit_code, 2);
    EXPECT_EQ(result.out, "");
    EXPECT_THAT(result.err,
                HasSubstr(absl::StrCat("grapnel: --master-port: port ",
                                       taken->port, ": Address already in")));
  }
}

// Launchers of several nodes on loopback.
class NodesTest : public LauncherTest {
 protected:
  NodesTest() {
    absl::StatusOr<ReservedPort> free = ReservePort(0);
    EXPECT_THAT(free, IsOk());
    reserved_ = *std::move(free);
    port_ = reserved_.port;
  }

  std::unique_ptr<Launcher> Node(int node, int nnodes,
                                 std::vector<std::string> flags,
                                 const std::string& script) {
    flags.insert(
        flags.end(),
        {absl::StrCat("--nnodes=", nnodes), absl::StrCat("--node-rank=", node),
         "--master-addr=127.0.0.1", absl::StrCat("--master-port=", port_)});
    return std::make_unique<Launcher>(dir_, absl::StrCat("node", node),
                                      Args(flags, script));
  }

  ReservedPort reserved_;  // Node 0's launcher knows it, and gets it.
  int port_ = 0;
};

TEST_F(NodesTest, AreOneWorldWhicheverComesFirst) {
  const std::string script =
      "echo $RANK:$LOCAL_RANK:$WORLD_SIZE:$LOCAL_WORLD_SIZE:$GROUP_RANK:"
      "$GROUP_WORLD_SIZE:$MASTER_ADDR >> ran; "
      "echo $MASTER_PORT $TORCHELASTIC_RUN_ID >> same";
  const auto node2 = Node(2, 3, {"--nproc-per-node=2"}, script);
  const auto node1 = Node(1, 3, {"--nproc-per-node=2"}, script);
  absl::SleepFor(absl::Milliseconds(300));
  const auto node0 = Node(0, 3, {"--nproc-per-node=2"}, script);
  EXPECT_EQ(node0->Wait(), 0) << node0->err();
  EXPECT_EQ(node1->Wait(), 0) << node1->err();
  EXPECT_EQ(node2->Wait(), 0) << node2->err();
  std::vector<std::string> ran = Lines(Read(dir_ + "/ran"));
  std::sort(ran.begin(), ran.end());
  EXPECT_THAT(ran,
              ElementsAre("0:0:6:2:0:3:127.0.0.1", "1:1:6:2:0:3:127.0.0.1",
                          "2:0:6:2:1:3:127.0.0.1", "3:1:6:2:1:3:127.0.0.1",
                          "4:0:6:2:2:3:127.0.0.1", "5:1:6:2:2:3:127.0.0.1"));
  const std::vector<std::string> same = Lines(Read(dir_ + "/same"));
  EXPECT_EQ(std::count(same.begin(), same.end(), same[0]), 6);
  EXPECT_THAT(same[0], Not(StartsWith(absl::StrCat(port_))));
}

TEST_F(NodesTest, AllRestartWhenARankOfOneFails) {
  const std::string script =
      "echo $RANK:$TORCHELASTIC_RESTART_COUNT:$* >> ran; "
      "until [ $(grep -c :$TORCHELASTIC_RESTART_COUNT: ran) = 4 ]; do "
      "sleep 0.01; done; "
      "[ $RANK$TORCHELASTIC_RESTART_COUNT = 30 ] && "
      "{ touch checkpoint; echo the reason >&2; exit 8; }; "
      "[ $RANK$TORCHELASTIC_RESTART_COUNT = 01 ] && kill -9 $$; "
      "[ $TORCHELASTIC_RESTART_COUNT = 2 ] || exec sleep 30";
  const std::vector<std::string> flags = {"--nproc-per-node=2",
                                          "--max-restarts=2"};
  const auto node0 = Node(0, 2, flags, script);
  const auto node1 = Node(1, 2, flags, script);
  EXPECT_EQ(node0->Wait(), 0) << node0->err();
  EXPECT_EQ(node1->Wait(), 0) << node1->err();
  std::vector<std::string> ran = Lines(Read(dir_ + "/ran"));
  std::sort(ran.begin(), ran.end());
  EXPECT_THAT(ran, ElementsAre("0:0:", "0:1:--resume", "0:2:--resume",
                               "1:0:", "1:1:--resume", "1:2:--resume",
                               "2:0:", "2:1:--resume", "2:2:--resume",
                               "3:0:", "3:1:--resume", "3:2:--resume"));
  // Each says why, and of which node.
  EXPECT_THAT(node0->err(),
              HasSubstr("grapnel: rank 3 on node 1 failed with exit code 8: "
                        "the reason\ngrapnel: restart 1 of 2, from"));
  EXPECT_THAT(node1->err(),
              HasSubstr("grapnel: rank 0 on node 0 was killed by signal 9 "
                        "(Killed)\ngrapnel: restart 2 of 2, from"));
}

TEST_F(NodesTest, AllEndWithTheCodeOfTheFirstThatFails) {
  const std::string script =
      "[ $RANK = 1 ] && { sleep 0.2; exit 8; }; exec sleep 30";
  const auto node0 = Node(0, 2, {}, script);
  const auto node1 = Node(1, 2, {}, script);
  EXPECT_EQ(node0->Wait(), 8);
  EXPECT_EQ(node1->Wait(), 8);
}

TEST_F(NodesTest, ASignalToOneStopsAll) {
  for (const int asked : {0, 1}) {
    const std::string script = absl::StrCat("trap 'echo got USER >> got", asked,
                                            "; exit 0' INT; echo ready >&2; "
                                            "while :; do sleep 0.05; done");
    std::unique_ptr<Launcher> nodes[] = {
        Node(0, 2, {"--max-restarts=3"}, script),
        Node(1, 2, {"--max-restarts=3"}, script)};
    for (const auto& node : nodes) ASSERT_TRUE(node->WaitForErr("ready"));
    nodes[asked]->Signal(SIGINT);
    for (const auto& node : nodes) EXPECT_EQ(node->Wait(), 128 + SIGINT);
    EXPECT_EQ(Read(absl::StrCat(dir_, "/got", asked)), "got USER\ngot USER\n");
    unlink((dir_ + "/node0.err").c_str());
    unlink((dir_ + "/node1.err").c_str());
  }
}

TEST_F(NodesTest, TheOthersEndWhenALauncherIsKilled) {
  for (const int killed : {0, 1}) {
    const std::string script = "echo ready >&2; exec sleep 600";
    std::unique_ptr<Launcher> nodes[] = {
        Node(0, 2, {"--max-restarts=3"}, script),
        Node(1, 2, {"--max-restarts=3"}, script)};
    for (const auto& node : nodes) ASSERT_TRUE(node->WaitForErr("ready"));
    nodes[killed]->Signal(SIGKILL);
    EXPECT_EQ(nodes[killed]->Wait(), 1000 + SIGKILL);
    EXPECT_EQ(nodes[1 - killed]->Wait(), 1);
    EXPECT_THAT(nodes[1 - killed]->err(),
                HasSubstr(absl::StrCat("grapnel: node ", killed,
                                       " is lost: its launcher has gone")));
    EXPECT_TRUE(IsEverythingGone());
    unlink((dir_ + "/node0.err").c_str());
    unlink((dir_ + "/node1.err").c_str());
  }
}

TEST_F(NodesTest, ALauncherThatFallsSilentIsLost) {
  // Each says something every 2 s.
  setenv("SILENCE_TIMEOUT", "8s", 1);
  const std::string script = "echo ready >&2; exec sleep 600";
  const auto node0 = Node(0, 2, {}, script);
  const auto node1 = Node(1, 2, {}, script);
  unsetenv("SILENCE_TIMEOUT");
  ASSERT_TRUE(node0->WaitForErr("ready"));
  ASSERT_TRUE(node1->WaitForErr("ready"));
  const pid_t stopped = FindKeeper("--node-rank=1");
  ASSERT_TRUE(Kill(stopped, SIGSTOP));
  EXPECT_EQ(node0->Wait(), 1);
  EXPECT_THAT(node0->err(),
              HasSubstr("node 1 is lost: nothing was heard of it for 8s"));
  EXPECT_TRUE(Kill(stopped, SIGCONT));
  EXPECT_EQ(node1->Wait(), 1);
}

TEST_F(NodesTest, ANodeThatDoesntComeIsNamed) {
  setenv("JOIN_TIMEOUT", "700ms", 1);
  const auto node1 = Node(1, 3, {}, "echo started");
  EXPECT_EQ(node1->Wait(), 1);
  EXPECT_THAT(node1->err(),
              HasSubstr(absl::StrCat("node 0 can't be reached within 700ms: "
                                     "127.0.0.1:",
                                     port_, ": Connection ref")));
  unlink((dir_ + "/node1.err").c_str());
  // It is there before node 0 begins to wait.
  setenv("JOIN_TIMEOUT", "1m", 1);
  const auto again = Node(1, 3, {}, "echo started");
  ASSERT_TRUE(WaitUntil([this] { return FindKeeper() > 0; }));
  setenv("JOIN_TIMEOUT", "3s", 1);
  const auto node0 = Node(0, 3, {}, "echo started");
  EXPECT_EQ(node0->Wait(), 1);
  EXPECT_EQ(again->Wait(), 1);
  EXPECT_THAT(node0->err(), HasSubstr("node 2 did not join within 3s\n"));
  EXPECT_THAT(again->err(), HasSubstr("node 2 did not join within 3s\n"));
  EXPECT_EQ(node0->out() + again->out(), "");
}

TEST_F(NodesTest, WhoDoesntFitIsRefusedAndTheOthersGoOn) {
  const auto node0 = Node(0, 2, {"--nproc-per-node=2"}, "echo started");
  ASSERT_TRUE(node0->WaitForErr("waiting for node 1"));
  // Somebody else's words.
  const auto stranger = Connect("127.0.0.1", port_, kTimeout);
  ASSERT_THAT(stranger, IsOk());
  const std::string words = "GET / HTTP/1.1\r\n\r\n";
  ASSERT_EQ(write(stranger->get(), words.data(), words.size()),
            static_cast<ssize_t>(words.size()));
  ASSERT_TRUE(
      node0->WaitForErr("a launcher was refused: no message of a "
                        "launcher: \"GET / HTTP/1.1?\"\n"));
  const auto other = Node(1, 2, {"--nproc-per-node=3"}, "echo started");
  EXPECT_EQ(other->Wait(), 2);
  EXPECT_THAT(other->err(),
              HasSubstr("grapnel: node 0 refused this node: --nproc-per-node: "
                        "is 3 on node 1 and 2 on node 0\n"));
  const auto node1 = Node(1, 2, {"--nproc-per-node=2"}, "echo started");
  EXPECT_EQ(node1->Wait(), 0) << node1->err();
  EXPECT_EQ(node0->Wait(), 0) << node0->err();
}

TEST_F(NodesTest, WhatIsNoLauncherIsNamed) {
  const auto listening = Listen(port_);
  ASSERT_THAT(listening, IsOk());
  const auto node1 = Node(1, 2, {}, "echo started");
  int accepted = -1;
  ASSERT_TRUE(WaitUntil([&] {
    accepted = accept(listening->get(), nullptr, nullptr);
    return accepted >= 0;
  }));
  ASSERT_EQ(write(accepted, "220 ready\n", 10), 10);
  EXPECT_EQ(node1->Wait(), 2);
  close(accepted);
  EXPECT_THAT(
      node1->err(),
      HasSubstr(absl::StrCat("--master-port: what listens at 127.0.0.1:", port_,
                             " is no launcher\n")));
}

}  // namespace
}  // namespace grapnel
