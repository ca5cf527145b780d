// Two and three trainings are started in one work_dir at random, with and
// without --resume, and killed at random: one of them has the folder, whole,
// and the others are refused.

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/env.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

constexpr int64_t kDefaultStarts = 6;
constexpr int kEpochs = 40;
constexpr absl::Duration kTimeout = absl::Minutes(2);

int64_t FromEnvironment(const char* name, int64_t value) {
  const char* const text = std::getenv(name);
  if (text != nullptr && !absl::SimpleAtoi(text, &value)) {
    ADD_FAILURE() << name << ": is no number: " << text;
  }
  return value;
}

void Write(const std::string& path, absl::string_view content) {
  ASSERT_THAT(io::WriteFileAtomically(io::Env::Posix(), path, content), IsOk());
}

// Much to write for little to train.
constexpr char kConfig[] = R"(
model { sequential {
  layers { flatten {} }
  layers { linear { out_features: 20000 } }
  layers { linear { out_features: 2 } }
  loss { cross_entropy {} }
} }
train_dataloader {
  batch_size: 4
  sampler { shuffle: true }
  dataset { idx { images: "images" labels: "labels" } }
}
optim_wrapper { optimizer { adamw { lr: 0.001 } } }
default_hooks { checkpoint { interval: 1 max_keep_ckpts: 2 } }
randomness { seed: 3 }
)";

// A `grapnel train` in the work_dir `dir`/w.
class Training {
 public:
  Training(const std::string& dir, const std::string& name, bool resume)
      : log_(absl::StrCat(dir, "/", name, ".stderr")) {
    std::vector<std::string> args = {
        absl::StrCat(getenv("TEST_SRCDIR"), "/", getenv("TEST_WORKSPACE"),
                     "/tools/grapnel"),
        "train",
        absl::StrCat(dir, "/net.textproto"),
        absl::StrCat("--work-dir=", dir, "/w"),
        "--threads=1",
        absl::StrCat("--resume=", resume ? "true" : "false")};
    std::vector<char*> argv;
    for (std::string& arg : args) argv.push_back(arg.data());
    argv.push_back(nullptr);
    pid_ = fork();
    if (pid_ != 0) return;
    const int file = open(log_.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (file < 0 || dup2(file, STDERR_FILENO) < 0) _exit(99);
    execv(argv[0], argv.data());
    _exit(98);
  }
  Training(const Training&) = delete;
  Training& operator=(const Training&) = delete;
  ~Training() {
    if (ended_) return;
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }

  void Kill() {
    if (!Ended()) kill(pid_, SIGKILL);
  }

  bool Ended() {
    int status = 0;
    if (!ended_ && waitpid(pid_, &status, WNOHANG) == pid_) {
      ended_ = true;
      exit_code_ = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    }
    return ended_;
  }

  // -1 if it was killed.
  int exit_code() const { return exit_code_; }
  pid_t pid() const { return pid_; }
  std::string err() const {
    return io::ReadFile(io::Env::Posix(), log_).value_or("");
  }

 private:
  const std::string log_;
  pid_t pid_ = -1;
  bool ended_ = false;
  int exit_code_ = -1;
};

class OneWriterTest : public testing::Test {
 protected:
  OneWriterTest() {
    const char* const dirs = std::getenv("GRAPNEL_ONE_WRITER_DIRS");
    for (const absl::string_view dir : absl::StrSplit(
             dirs != nullptr ? std::string(dirs) : testing::TempDir(), ':')) {
      roots_.push_back(absl::StrCat(dir, "/one_writer"));
    }
    root_ = roots_[0];
    Clear(root_);
    random_.seed(seed_);
  }
  ~OneWriterTest() override {
    if (!HasFailure()) {
      io::DeleteRecursively(io::Env::Posix(), root_).IgnoreError();
    }
  }

  static void Clear(const std::string& dir) {
    io::Env& env = io::Env::Posix();
    if (env.FileExists(dir)) {
      ASSERT_THAT(io::DeleteRecursively(env, dir), IsOk());
    }
    ASSERT_THAT(env.CreateDir(dir), IsOk());
  }

  // A folder with a config and its data; 16 images of 2x2 pixels.
  std::string NewDir(const std::string& name, int epochs = kEpochs) {
    const std::string dir = absl::StrCat(root_, "/", name);
    Clear(dir);
    std::string images("\0\0\x8\x3\0\0\0\x10\0\0\0\x2\0\0\0\x2", 16);
    std::string labels("\0\0\x8\x1\0\0\0\x10", 8);
    for (int i = 0; i < 64; ++i) images.push_back(static_cast<char>(37 * i));
    for (int i = 0; i < 16; ++i) labels.push_back(static_cast<char>(i % 2));
    Write(dir + "/images", images);
    Write(dir + "/labels", labels);
    Write(dir + "/net.textproto",
          absl::StrCat(kConfig, "train_cfg { max_epochs: ", epochs, " }\n"));
    return dir;
  }

  bool Flip() { return random_() % 2 == 0; }
  absl::Duration UpTo(absl::Duration most) {
    return most * std::uniform_real_distribution<double>()(random_);
  }

  static std::string FinalModel(const std::string& dir) {
    return io::ReadFile(
               io::Env::Posix(),
               absl::StrCat(dir, "/w/epoch_", kEpochs, "/model.safetensors"))
        .value_or("none");
  }

  // Every checkpoint in the folder can be read, and there is no other thing of
  // a checkpoint's.
  static void ExpectWhole(const std::string& dir) {
    io::Env& env = io::Env::Posix();
    // All of them may have been killed before they made it.
    if (!env.FileExists(dir + "/w")) return;
    const auto names = env.ListDir(dir + "/w");
    ASSERT_THAT(names, IsOk());
    for (const std::string& name : *names) {
      if (absl::StartsWith(name, "epoch_")) {
        EXPECT_THAT(io::ReadCheckpoint(env, absl::StrCat(dir, "/w/", name)),
                    IsOk());
      }
    }
  }

  const uint64_t seed_ =
      static_cast<uint64_t>(FromEnvironment("GRAPNEL_SEED", 1));
  std::mt19937_64 random_;
  std::vector<std::string> roots_;  // One folder by several paths.
  std::string root_;                // The first of them.
};

TEST_F(OneWriterTest, WhileOneTrainsTheOthersAreRefusedAtOnce) {
  const std::string dir = NewDir("busy", /*epochs=*/1000000);
  Training first(dir, "first", false);
  const absl::Time give_up = absl::Now() + kTimeout;
  const std::string saved = dir + "/w/last_checkpoint";
  while (!io::Env::Posix().FileExists(saved) && !first.Ended() &&
         absl::Now() < give_up) {
    absl::SleepFor(absl::Milliseconds(1));
  }
  ASSERT_FALSE(first.Ended()) << first.err();
  ASSERT_TRUE(io::Env::Posix().FileExists(saved)) << first.err();
  for (const bool resume : {false, true}) {
    Training second(dir, "second", resume);
    while (!second.Ended()) absl::SleepFor(absl::Milliseconds(1));
    EXPECT_EQ(second.exit_code(), 2);
    EXPECT_TRUE(absl::StrContains(second.err(), "/w is in use by another run"))
        << second.err();
    EXPECT_TRUE(absl::StrContains(second.err(),
                                  absl::StrCat(", process ", first.pid(), ",")))
        << second.err();
  }
  EXPECT_FALSE(first.Ended()) << first.err();
  first.Kill();
  while (!first.Ended()) absl::SleepFor(absl::Milliseconds(1));
  EXPECT_EQ(first.exit_code(), -1);
  ExpectWhole(dir);
}

TEST_F(OneWriterTest, OneHasTheFolderAndTheOthersAreRefused) {
  const int64_t starts = FromEnvironment("GRAPNEL_STARTS", kDefaultStarts);
  std::printf("seed %llu, %lld starts\n",
              static_cast<unsigned long long>(seed_),
              static_cast<long long>(starts));
  // Undisturbed: what the end is, and how long it takes.
  const std::string alone = NewDir("alone");
  const absl::Time before = absl::Now();
  {
    Training training(alone, "alone", false);
    while (!training.Ended()) absl::SleepFor(absl::Milliseconds(5));
    ASSERT_EQ(training.exit_code(), 0) << training.err();
  }
  const absl::Duration whole = absl::Now() - before;
  const std::string expected = FinalModel(alone);
  ASSERT_NE(expected, "none");

  int finished = 0, refused = 0, killed = 0, behind = 0;
  for (int64_t start = 0; start < starts; ++start) {
    SCOPED_TRACE(absl::StrCat("start ", start, " of seed ", seed_));
    const std::string dir = NewDir(absl::StrCat("start_", start));
    struct Plan {
      absl::Time begin, kill;
      bool resume;
      std::unique_ptr<Training> training;
    };
    std::vector<Plan> plans(2 + random_() % 2);
    const absl::Time now = absl::Now();
    // In every third the first one is killed too: another may follow it.
    const bool kill_first = start % 3 == 2;
    for (size_t i = 0; i < plans.size(); ++i) {
      plans[i].begin = i == 0 ? now : now + UpTo(whole);
      const bool killed = i == 0 ? kill_first : Flip();
      plans[i].kill =
          killed ? plans[i].begin + UpTo(whole) : absl::InfiniteFuture();
      plans[i].resume = Flip();
    }
    std::set<pid_t> pids;
    bool others = false, first_had_it = false;  // Before any other began.
    size_t ended = 0;
    while (ended < plans.size() && absl::Now() < now + kTimeout) {
      ended = 0;
      for (size_t i = 0; i < plans.size(); ++i) {
        Plan& plan = plans[i];
        if (plan.training == nullptr && absl::Now() >= plan.begin) {
          if (i > 0 && !std::exchange(others, true)) {
            first_had_it = absl::StrContains(
                io::ReadFile(io::Env::Posix(), dir + "/w/.lock").value_or(""),
                absl::StrCat("\npid: ", plans[0].training->pid(), "\n"));
          }
          plan.training = std::make_unique<Training>(
              absl::StrCat(roots_[i % roots_.size()], "/start_", start),
              absl::StrCat("run_", i), plan.resume);
          pids.insert(plan.training->pid());
        }
        if (plan.training == nullptr) continue;
        if (absl::Now() >= plan.kill) plan.training->Kill();
        if (plan.training->Ended()) ++ended;
      }
      absl::SleepFor(absl::Milliseconds(1));
    }
    ASSERT_EQ(ended, plans.size()) << "one of them doesn't end";
    if (first_had_it) ++behind;

    for (const Plan& plan : plans) {
      const std::string err = plan.training->err();
      switch (plan.training->exit_code()) {
        case 0:
          ++finished;
          break;
        case -1:
          ++killed;
          break;
        case 2: {
          ++refused;
          EXPECT_TRUE(absl::StrContains(err, "/w is in use by another run"))
              << err;
          // By one of them, if its name was there yet.
          bool named = !absl::StrContains(err, ", process ");
          for (const pid_t pid : pids) {
            named = named || (pid != plan.training->pid() &&
                              absl::StrContains(
                                  err, absl::StrCat(", process ", pid, ",")));
          }
          EXPECT_TRUE(named) << err;
          break;
        }
        default:
          ADD_FAILURE() << "exit code " << plan.training->exit_code() << "\n"
                        << err;
      }
    }
    // The first one is never harmed; before it had the folder, another may
    // have been faster.
    if (!kill_first && plans[0].training->exit_code() != 0) {
      EXPECT_EQ(plans[0].training->exit_code(), 2);
      EXPECT_FALSE(first_had_it);
    }
    ExpectWhole(dir);
    // Whatever was killed: a run that goes on comes to the same end.
    Training last(dir, "last", true);
    while (!last.Ended()) absl::SleepFor(absl::Milliseconds(5));
    EXPECT_EQ(last.exit_code(), 0) << last.err();
    EXPECT_TRUE(FinalModel(dir) == expected) << "other weights than alone";
    ExpectWhole(dir);
    if (!HasFailure()) {
      ASSERT_THAT(io::DeleteRecursively(io::Env::Posix(), dir), IsOk());
    }
  }
  std::printf(
      "%d finished, %d refused, %d killed; %d begun behind one that trained; "
      "%.1f s alone\n",
      finished, refused, killed, behind, absl::ToDoubleSeconds(whole));
  EXPECT_GT(finished, 0);
}

}  // namespace
}  // namespace grapnel
