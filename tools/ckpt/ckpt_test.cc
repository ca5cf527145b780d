#include "grapnel/tools/ckpt/ckpt.h"

#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gmock/gmock.h"
#include "grapnel/io/env.h"
#include "grapnel/io/env_wrapper.h"
#include "grapnel/tools/ckpt/checkpoints_for_test.h"
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

}  // namespace
}  // namespace grapnel
