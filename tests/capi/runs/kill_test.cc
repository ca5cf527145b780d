// A program that is killed at random times, and goes on each time, comes to the
// end of one that nobody disturbed: weights and its hook's state. The program
// is killed.c, or the one that GRAPNEL_PROGRAM names, which has the same
// arguments.

#include <fcntl.h>
#include <signal.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/grapnel.h"
#include "grapnel/io/env.h"
#include "grapnel/tests/capi/runs/took.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

constexpr int64_t kDefaultKills = 5;
constexpr int64_t kIters = 4000;

int64_t FromEnvironment(const char* name, int64_t value) {
  const char* const text = std::getenv(name);
  if (text != nullptr && !absl::SimpleAtoi(text, &value)) {
    ADD_FAILURE() << name << ": is no number: " << text;
  }
  return value;
}

std::string Read(const std::string& path) {
  return io::ReadFile(io::Env::Posix(), path).value_or("can't be read");
}

std::string Program() {
  const char* const path = std::getenv("GRAPNEL_PROGRAM");
  if (path != nullptr) return path;
  return absl::StrCat(std::getenv("TEST_SRCDIR"), "/",
                      std::getenv("TEST_WORKSPACE"), "/tests/capi/runs/killed");
}

// The program's exit code after at most `limit`; -1 if it was killed then.
int RunKilled(const std::string& dir, absl::Duration limit) {
  std::vector<std::string> args = {Program(), dir, absl::StrCat(kIters),
                                   absl::StrCat(dir, ".outcome")};
  const std::string log = absl::StrCat(dir, ".stderr");
  std::vector<char*> argv;
  for (std::string& arg : args) argv.push_back(arg.data());
  argv.push_back(nullptr);
  const pid_t pid = fork();
  if (pid == 0) {
    const int file = open(log.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (file < 0 || dup2(file, STDERR_FILENO) < 0) _exit(99);
    setenv("OMP_NUM_THREADS", "1", 1);
    execv(argv[0], argv.data());
    _exit(98);
  }
  const absl::Time end = absl::Now() + limit;
  int status = 0;
  while (waitpid(pid, &status, WNOHANG) != pid) {
    if (absl::Now() >= end) {
      kill(pid, SIGKILL);
      waitpid(pid, &status, 0);
      break;
    }
    absl::SleepFor(absl::Milliseconds(1));
  }
  // It may have ended just before.
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

// Completed iterations in the newest checkpoint, which is whole; 0 if there is
// none.
int64_t SavedIters(const std::string& dir) {
  grapnel_bytes path = {};
  const absl::Status latest =
      Took(grapnel_checkpoint_latest(dir.data(), dir.size(), &path));
  if (absl::IsNotFound(latest)) return 0;
  EXPECT_THAT(latest, IsOk());
  const std::string newest = Took(&path);
  EXPECT_THAT(Took(grapnel_checkpoint_verify(newest.data(), newest.size())),
              IsOk());
  grapnel_checkpoint* checkpoint = nullptr;
  EXPECT_THAT(
      Took(grapnel_checkpoint_open(newest.data(), newest.size(), &checkpoint)),
      IsOk());
  const int64_t iters =
      checkpoint == nullptr ? -1 : grapnel_checkpoint_iter(checkpoint);
  grapnel_checkpoint_destroy(checkpoint);
  return iters;
}

TEST(KillTest, AKilledRunComesToTheEndOfAnUndisturbedOne) {
  const int64_t kills = FromEnvironment("GRAPNEL_KILLS", kDefaultKills);
  const int64_t seed = FromEnvironment("GRAPNEL_SEED", 1);
  std::printf("seed %lld, %lld kills\n", static_cast<long long>(seed),
              static_cast<long long>(kills));
  std::mt19937_64 random(static_cast<uint64_t>(seed));
  const std::string root = absl::StrCat(testing::TempDir(), "/capi_kill");
  io::Env& env = io::Env::Posix();
  if (env.FileExists(root)) {
    ASSERT_THAT(io::DeleteRecursively(env, root), IsOk());
  }
  ASSERT_THAT(env.CreateDir(root), IsOk());

  const std::string alone = root + "/alone";
  const absl::Time begin = absl::Now();
  ASSERT_EQ(RunKilled(alone, absl::InfiniteDuration()), 0)
      << Read(alone + ".stderr");
  const absl::Duration whole = absl::Now() - begin;
  const std::string expected = Read(alone + ".outcome");

  int64_t killed = 0, before_first_save = 0, runs = 0;
  for (; killed < kills && !HasFailure(); ++runs) {
    const std::string dir = absl::StrCat(root, "/run_", runs);
    int64_t iters = 0;
    int code = -1;
    while (code == -1) {
      SCOPED_TRACE(
          absl::StrCat("run ", runs, ", kill ", killed, " of seed ", seed));
      // Every third one while it starts; in the end it is left alone.
      const absl::Duration longest = killed % 3 == 0 ? whole / 10 : whole / 2;
      const absl::Duration limit =
          killed < kills
              ? longest * (static_cast<double>(random() % 1000) / 1000)
              : absl::InfiniteDuration();
      code = RunKilled(dir, limit);
      if (code != -1) break;
      ++killed;
      const int64_t now = SavedIters(dir);
      if (now == 0) ++before_first_save;
      ASSERT_GE(now, iters) << "what was saved is lost";
      iters = now;
    }
    EXPECT_EQ(code, 0) << Read(dir + ".stderr");
    EXPECT_EQ(SavedIters(dir), kIters);
    EXPECT_TRUE(Read(dir + ".outcome") == expected)
        << "run " << runs << ": another end than alone";
  }
  std::printf(
      "%lld killed in %lld runs, %lld before anything was saved; %.2f s "
      "alone\n",
      static_cast<long long>(killed), static_cast<long long>(runs),
      static_cast<long long>(before_first_save), absl::ToDoubleSeconds(whole));
  EXPECT_EQ(grapnel_live_objects(), 0);
  if (!HasFailure()) {
    EXPECT_THAT(io::DeleteRecursively(env, root), IsOk());
  }
}

}  // namespace
}  // namespace grapnel
