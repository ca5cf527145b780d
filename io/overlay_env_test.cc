#include "grapnel/io/overlay_env.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/env.h"
#include "grapnel/io/mem_env.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace io {
namespace {

using ::testing::ElementsAre;
using Code = absl::StatusCode;

class OverlayEnvTest : public testing::Test {
 protected:
  OverlayEnvTest() {
    EXPECT_THAT(base_.CreateDir("/data/deep"), IsOk());
    Put(base_, "/data/a", "base a");
    Put(base_, "/data/b", "base b");
    Put(base_, "/data/deep/c", "base c");
    before_ = Contents(base_, "/");
  }
  // Whatever a test does.
  ~OverlayEnvTest() override { EXPECT_EQ(Contents(base_, "/"), before_); }

  static void Put(Env& env, const std::string& path,
                  const std::string& content) {
    EXPECT_THAT(WriteFileAtomically(env, path, content), IsOk());
  }
  static std::string Get(Env& env, const std::string& path) {
    return ReadFile(env, path).value_or("none");
  }
  std::vector<std::string> List(const std::string& path) {
    return overlay_.ListDir(path).value_or(std::vector<std::string>{"none"});
  }

  // All paths under `dir`, with what files hold.
  static std::vector<std::string> Contents(Env& env, const std::string& dir) {
    std::vector<std::string> contents;
    const auto names = env.ListDir(dir);
    EXPECT_THAT(names, IsOk());
    for (const std::string& name : *names) {
      const std::string path = JoinPath(dir, name);
      if (env.IsDirectory(path)) {
        contents.push_back(path + "/");
        const auto below = Contents(env, path);
        contents.insert(contents.end(), below.begin(), below.end());
      } else {
        contents.push_back(path + ": " + Get(env, path));
      }
    }
    return contents;
  }

  MemEnv base_;
  OverlayEnv overlay_{base_};
  std::vector<std::string> before_;
};

TEST_F(OverlayEnvTest, ShowsWhatIsThere) {
  EXPECT_EQ(Contents(overlay_, "/"), before_);
  EXPECT_TRUE(overlay_.FileExists("/data/a"));
  EXPECT_TRUE(overlay_.IsDirectory("/data"));
  EXPECT_FALSE(overlay_.IsDirectory("/data/a"));
  EXPECT_FALSE(overlay_.FileExists("/data/z"));
  EXPECT_EQ(Get(overlay_, "data/deep/../a"), "base a");
  EXPECT_THAT(overlay_.ListDir("/none"), StatusIs(Code::kNotFound, testing::_));
}

TEST_F(OverlayEnvTest, KeepsWhatIsWritten) {
  Put(overlay_, "/data/a", "new a");
  Put(overlay_, "/data/deep/d", "new d");
  EXPECT_EQ(Get(overlay_, "/data/a"), "new a");
  EXPECT_THAT(List("/data/deep"), ElementsAre("c", "d"));
  auto file = overlay_.NewAppendableFile("/data/b");
  ASSERT_THAT(file, IsOk());
  ASSERT_THAT((*file)->Append(" and more"), IsOk());
  ASSERT_THAT((*file)->Close(), IsOk());
  EXPECT_EQ(Get(overlay_, "/data/b"), "base b and more");
  EXPECT_THAT(overlay_.NewWritableFile("/none/x"),
              StatusIs(Code::kNotFound, testing::_));
  EXPECT_THAT(overlay_.NewWritableFile("/data/deep"),
              StatusIs(Code::kInvalidArgument, testing::_));
}

TEST_F(OverlayEnvTest, MakesDirectories) {
  EXPECT_THAT(overlay_.CreateDir("/data/deep"), IsOk());
  EXPECT_THAT(overlay_.CreateDir("/made/x"), IsOk());
  EXPECT_THAT(overlay_.CreateDir("/data/a/x"),
              StatusIs(Code::kAlreadyExists, testing::_));
  EXPECT_THAT(overlay_.CreateNewDir("/data"),
              StatusIs(Code::kAlreadyExists, testing::_));
  EXPECT_THAT(overlay_.CreateNewDir("/data/new"), IsOk());
  EXPECT_THAT(overlay_.CreateNewDir("/none/new"),
              StatusIs(Code::kNotFound, testing::_));
  EXPECT_THAT(List("/data"), ElementsAre("a", "b", "deep", "new"));
  EXPECT_THAT(overlay_.SyncDir("/made/x"), IsOk());
}

TEST_F(OverlayEnvTest, WhatIsDeletedIsGone) {
  EXPECT_THAT(overlay_.DeleteFile("/data/a"), IsOk());
  EXPECT_THAT(overlay_.DeleteFile("/data/a"),
              StatusIs(Code::kNotFound, testing::_));
  EXPECT_THAT(overlay_.DeleteFile("/data/deep"),
              StatusIs(Code::kInvalidArgument, testing::_));
  EXPECT_THAT(overlay_.DeleteDir("/data/deep"),
              StatusIs(Code::kAlreadyExists, testing::_));
  EXPECT_THAT(DeleteRecursively(overlay_, "/data/deep"), IsOk());
  EXPECT_FALSE(overlay_.FileExists("/data/deep/c"));
  EXPECT_THAT(List("/data"), ElementsAre("b"));
  // And may come back, without what was below it.
  EXPECT_THAT(overlay_.CreateDir("/data/deep"), IsOk());
  EXPECT_THAT(List("/data/deep"), ElementsAre());
  Put(overlay_, "/data/a", "again");
  EXPECT_THAT(List("/data"), ElementsAre("a", "b", "deep"));
}

TEST_F(OverlayEnvTest, Renames) {
  EXPECT_THAT(overlay_.Rename("/data/a", "/data/b"), IsOk());
  EXPECT_EQ(Get(overlay_, "/data/b"), "base a");
  EXPECT_FALSE(overlay_.FileExists("/data/a"));
  EXPECT_THAT(overlay_.Rename("/data/deep", "/moved"), IsOk());
  EXPECT_EQ(Get(overlay_, "/moved/c"), "base c");
  EXPECT_FALSE(overlay_.FileExists("/data/deep/c"));
  EXPECT_THAT(List("/"), ElementsAre("data", "moved"));
  Put(overlay_, "/moved/new", "n");
  EXPECT_THAT(List("/moved"), ElementsAre("c", "new"));
  EXPECT_THAT(overlay_.DeleteFile("/moved/c"), IsOk());
  EXPECT_THAT(overlay_.Rename("/moved", "/again"), IsOk());
  EXPECT_THAT(List("/again"), ElementsAre("new"));
  EXPECT_FALSE(overlay_.FileExists("/moved"));
  // And back to where it was.
  EXPECT_THAT(overlay_.Rename("/again", "/data/deep"), IsOk());
  EXPECT_THAT(List("/data/deep"), ElementsAre("new"));
  EXPECT_THAT(overlay_.Rename("/data/deep", "/moved"), IsOk());
  EXPECT_THAT(overlay_.Rename("/none", "/x"),
              StatusIs(Code::kNotFound, testing::_));
  EXPECT_THAT(overlay_.Rename("/moved", "/data"),
              StatusIs(Code::kAlreadyExists, testing::_));
}

TEST_F(OverlayEnvTest, LocksAreItsOwn) {
  const auto base_lock = base_.LockFile("/data/lock");
  ASSERT_THAT(base_lock, IsOk());
  {
    const auto lock = overlay_.LockFile("/data/lock");
    EXPECT_THAT(lock, IsOk());
    EXPECT_THAT(overlay_.LockFile("/data/lock"),
                StatusIs(Code::kAborted, testing::_));
  }
  EXPECT_THAT(base_.DeleteFile("/data/lock"), IsOk());
}

TEST_F(OverlayEnvTest, HoldsCheckpoints) {
  CheckpointContents contents;
  contents.blobs = {{"state", "x"}};
  ASSERT_THAT(WriteCheckpoint(base_, "/data", "epoch_1", contents), IsOk());
  before_ = Contents(base_, "/");
  contents.blobs = {{"state", "y"}};
  ASSERT_THAT(WriteCheckpoint(overlay_, "/data", "epoch_1", contents), IsOk());
  ASSERT_THAT(WriteCheckpoint(overlay_, "/data", "epoch_2", contents), IsOk());
  EXPECT_EQ(*ReadCheckpoint(overlay_, "/data/epoch_1")->FindBlob("state"), "y");
  EXPECT_THAT(DeleteCheckpoint(overlay_, "/data/epoch_1"), IsOk());
  EXPECT_EQ(FindLatestCheckpoint(overlay_, "/data", nullptr).value_or("none"),
            "/data/epoch_2");
  std::vector<std::string> undeleted;
  EXPECT_THAT(RemoveLeftovers(overlay_, "/data", &undeleted), IsOk());
  EXPECT_THAT(undeleted, ElementsAre());
}

}  // namespace
}  // namespace io
}  // namespace grapnel
