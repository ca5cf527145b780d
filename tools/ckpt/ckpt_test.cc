#include "grapnel/tools/ckpt/ckpt.h"

#include <atomic>
#include <cstdint>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gmock/gmock.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/io/env.h"
#include "grapnel/io/env_wrapper.h"
#include "grapnel/io/safetensors.h"
#include "grapnel/tools/ckpt/checkpoints_for_test.h"
#include "grapnel/tools/ckpt/interruptible_env.h"
#include "grapnel/tools/exit_code.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using testing::AllOf;
using testing::EndsWith;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

class CkptTest : public CheckpointCommandTest {
 protected:
  // One line on `err`, nothing on `out`.
  void ExpectFails(const std::vector<std::string>& args, ExitCode exit_code,
                   testing::Matcher<std::string> message) {
    std::ostringstream out, err;
    EXPECT_EQ(RunCkpt(args, env_, out, err), exit_code);
    EXPECT_EQ(out.str(), "");
    EXPECT_THAT(err.str(),
                AllOf(StartsWith("grapnel: "), EndsWith("\n"), message));
    EXPECT_EQ(err.str().find('\n'), err.str().size() - 1);
  }
};

TEST_F(CkptTest, EveryCommandIsReached) {
  for (const int epoch : {1, 2}) Save(epoch);
  for (const std::vector<std::string>& args :
       std::vector<std::vector<std::string>>{
           {"ls", "/w"},
           {"show", "/w/epoch_1"},
           {"verify", "/w"},
           {"diff", "/w/epoch_1", "/w/epoch_1"},
           {"du", "/w"},
           {"gc", "/w"},
           {"pin", "/w/epoch_1"},
           {"repair-last", "/w"},
           {"export", "/w/epoch_1", "/m.safetensors"},
           {"import", "/m.safetensors", "/w/imported"},
           {"average", "-o", "/w/mean", "/w/epoch_1", "/w/epoch_2"},
           {"--help"},
           {"gc", "--help"}}) {
    std::ostringstream out, err;
    EXPECT_EQ(RunCkpt(args, env_, out, err), kDone) << args[0];
    EXPECT_NE(out.str(), "") << args[0];
    EXPECT_EQ(err.str(), "") << args[0];
  }
}

TEST_F(CkptTest, ExitCodesTellWhoseFaultItIs) {
  for (const int epoch : {1, 2}) Save(epoch);
  ExpectFails({"shwo", "/w/epoch_1"}, kBadInput,
              HasSubstr("did you mean \"show\"?"));
  ExpectFails({"show", "/w/epoch_3"}, kBadInput, HasSubstr("epoch_1, epoch_2"));
  Damage("/w/epoch_2/manifest.pb");
  ExpectFails({"show", "/w/epoch_2"}, kBadCheckpoint, HasSubstr("manifest.pb"));
  std::ostringstream out, err;
  EXPECT_EQ(RunCkpt({"verify", "/w"}, env_, out, err), kBadCheckpoint);
  EXPECT_EQ(err.str(), "");
}

TEST_F(CkptTest, AFolderThatATrainingHasIsNoBadPath) {
  for (const int epoch : {1, 2}) Save(epoch);
  const auto lock = env_.LockFile("/w/.lock");
  ASSERT_THAT(lock.status(), IsOk());
  ExpectFails({"gc", "/w", "--keep-last=1"}, kRunFailed, HasSubstr("in use"));
  ExpectFails({"repair-last", "/w"}, kRunFailed, HasSubstr("in use"));
}

TEST_F(CkptTest, NothingInAnArgumentIsObeyedByATerminal) {
  for (const std::vector<std::string>& args :
       std::vector<std::vector<std::string>>{
           {"sh\x1b[2Jow"}, {"ls", "/w\x1b[2J\n"}, {"ls", "--a\x1b[2J"}}) {
    ExpectFails(args, kBadInput, Not(HasSubstr("\x1b")));
  }
}

TEST_F(CkptTest, AnOutputThatTakesNothingIsAFailure) {
  Save(1);
  std::ostringstream out, err;
  out.setstate(std::ios::badbit);
  EXPECT_EQ(RunCkpt({"ls", "/w"}, env_, out, err), kRunFailed);
  EXPECT_EQ(err.str(), "grapnel: the output can't be written\n");
  EXPECT_EQ(RunCkpt({"--help"}, env_, out, err), kRunFailed);
}

// Everything written fails: the disk is full.
class FullEnv : public io::EnvWrapper {
 public:
  using EnvWrapper::EnvWrapper;
  absl::StatusOr<std::unique_ptr<io::WritableFile>> NewWritableFile(
      const std::string& path) override {
    return absl::ResourceExhaustedError(path + ": no space left on device");
  }
};

TEST_F(CkptTest, AFullDiskIsAFailureAndLeavesNothing) {
  for (const int epoch : {1, 2}) Save(epoch);
  FullEnv full(env_);
  const auto before = Files("/");
  for (const std::vector<std::string>& args :
       std::vector<std::vector<std::string>>{
           {"export", "/w/epoch_1", "/m.safetensors"},
           {"export", "/w/epoch_1", "/m.pth"},
           {"average", "-o", "/mean", "/w/epoch_1", "/w/epoch_2"}}) {
    std::ostringstream out, err;
    EXPECT_EQ(RunCkpt(args, full, out, err), kRunFailed) << err.str();
    EXPECT_THAT(err.str(), HasSubstr("no space left"));
  }
  EXPECT_EQ(Files("/"), before);
}

TEST_F(CkptTest, WhenItIsStoppedNothingIsHalfMade) {
  for (const int epoch : {1, 2}) Save(epoch);
  ASSERT_THAT(io::WriteSafetensors(env_, "/m.safetensors",
                                   Contents(1).sections[0].second),
              IsOk());
  const auto before = Files("/");
  for (const std::vector<std::string>& args :
       std::vector<std::vector<std::string>>{
           {"export", "/w/epoch_1", "/new.safetensors"},
           {"export", "/w/epoch_1", "/new.pth"},
           {"import", "/m.safetensors", "/new"},
           {"average", "-o", "/new", "/w/epoch_1", "/w/epoch_2"},
           {"average", "-o", "/new.pth", "/w/epoch_1", "/w/epoch_2"}}) {
    EXPECT_TRUE(MakesFiles(args)) << args[0];
    int64_t stop_at = 0;
    while (true) {
      std::atomic<int64_t> calls{0};
      InterruptibleEnv stoppable(env_, [&] { return calls++ >= stop_at; });
      std::ostringstream out, err;
      const ExitCode exit_code = RunCkpt(args, stoppable, out, err);
      if (exit_code == kDone) break;
      EXPECT_EQ(exit_code, kRunFailed) << err.str();
      EXPECT_EQ(out.str(), "");
      EXPECT_THAT(err.str(), HasSubstr("stopped by a signal\n"));
      ASSERT_EQ(Files("/"), before) << args[0] << " " << stop_at;
      ++stop_at;
    }
    // It was stopped in all that is read and written.
    EXPECT_GT(stop_at, 5) << args[0];
    ASSERT_NE(Files("/"), before);
    ASSERT_THAT(io::DeleteRecursively(env_, args[2]), IsOk());
  }
  for (const char* const verb : {"ls", "show", "verify", "gc", "pin"}) {
    EXPECT_FALSE(MakesFiles({verb, "/w"})) << verb;
  }
  EXPECT_FALSE(MakesFiles({"export", "--help"}));
  EXPECT_FALSE(MakesFiles({"export"}));
}

}  // namespace
}  // namespace grapnel
