#include "grapnel/io/fault_injection_env.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/io/env.h"
#include "grapnel/io/env_conformance.h"
#include "grapnel/io/mem_env.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace io {
namespace {

using Code = absl::StatusCode;
using testing::ElementsAre;
using testing::HasSubstr;

using Names = FaultInjectionEnv::Names;
using Times = FaultInjectionEnv::Times;

struct Owner {
  MemEnv mem;
  std::unique_ptr<FaultInjectionEnv> env;
};

EnvUnderTest MakeFaultInjection() {
  const auto owner = std::make_shared<Owner>();
  EXPECT_THAT(owner->mem.CreateDir("/dir"), IsOk());
  owner->env = std::make_unique<FaultInjectionEnv>(owner->mem, "/");
  return {owner->env.get(), "/dir", owner};
}

// Without faults it is what it wraps.
INSTANTIATE_TEST_SUITE_P(FaultInjection, EnvTest,
                         testing::Values(&MakeFaultInjection));

class FaultInjectionEnvTest : public testing::Test {
 protected:
  FaultInjectionEnvTest() {
    EXPECT_THAT(mem_.CreateDir("/d"), IsOk());
    EXPECT_THAT(WriteFileAtomically(mem_, "/d/old", "old"), IsOk());
    env_ = std::make_unique<FaultInjectionEnv>(mem_, "/");
  }

  // Writes a file, synced or not.
  void Write(const std::string& path, absl::string_view content, bool sync) {
    auto file = env_->NewWritableFile(path);
    ASSERT_THAT(file, IsOk());
    ASSERT_THAT((*file)->Append(content), IsOk());
    if (sync) {
      ASSERT_THAT((*file)->Sync(), IsOk());
    }
    ASSERT_THAT((*file)->Close(), IsOk());
  }

  std::string Read(const std::string& path) {
    const absl::StatusOr<std::string> content = ReadFile(*env_, path);
    return content.ok() ? *content : "none";
  }

  MemEnv mem_;
  std::unique_ptr<FaultInjectionEnv> env_;
};

TEST_F(FaultInjectionEnvTest, FailsTheOperationThatWasOrderedOnceOrForEver) {
  env_->FailOperation(1, absl::ResourceExhaustedError("full"));
  EXPECT_THAT(env_->CreateNewDir("/a"), IsOk());
  EXPECT_THAT(env_->Rename("/a", "/b"),
              StatusIs(Code::kResourceExhausted, HasSubstr("/a -> /b: full")));
  EXPECT_TRUE(mem_.FileExists("/a"));
  EXPECT_THAT(env_->Rename("/a", "/b"), IsOk());

  env_->FailOperation(0, absl::UnavailableError("broken"), Times::kFromThenOn);
  EXPECT_FALSE(env_->DeleteDir("/b").ok());
  EXPECT_FALSE(env_->SyncDir("/").ok());
  EXPECT_TRUE(env_->IsDirectory("/b"));  // Reading goes on.
  env_->StopFailing();
  EXPECT_THAT(env_->DeleteDir("/b"), IsOk());
  EXPECT_THAT(env_->operations(),
              ElementsAre("mkdir /a", "rename /a -> /b", "rename /a -> /b",
                          "rmdir /b", "syncdir /", "rmdir /b"));
}

TEST_F(FaultInjectionEnvTest, AShortWriteLeavesHalf) {
  auto file = env_->NewWritableFile("/d/f");
  ASSERT_THAT(file, IsOk());
  env_->set_short_writes(true);
  env_->FailOperation(0, absl::ResourceExhaustedError("full"));
  EXPECT_FALSE((*file)->Append("123456").ok());
  EXPECT_EQ(Read("/d/f"), "123");
}

TEST_F(FaultInjectionEnvTest, APowerCutTakesWhatWasNotSynced) {
  struct Case {
    bool sync_file, sync_dir;
    Names names;
    const char* content;
  };
  const Case cases[] = {{false, false, Names::kAsSynced, "none"},
                        {false, true, Names::kAsSynced, ""},
                        {true, false, Names::kAsSynced, "none"},
                        {true, true, Names::kAsSynced, "new"},
                        {false, false, Names::kAsSeen, ""},
                        {true, false, Names::kAsSeen, "new"}};
  for (const Case& c : cases) {
    SCOPED_TRACE(
        absl::StrCat(c.sync_file, c.sync_dir, static_cast<int>(c.names)));
    Write("/d/f", "new", c.sync_file);
    if (c.sync_dir) {
      ASSERT_THAT(env_->SyncDir("/d"), IsOk());
    }
    ASSERT_THAT(env_->Crash(c.names), IsOk());
    EXPECT_EQ(Read("/d/f"), c.content);
    EXPECT_EQ(Read("/d/old"), "old");
    env_->DeleteFile("/d/f").IgnoreError();
    ASSERT_THAT(env_->SyncDir("/d"), IsOk());
  }
}

TEST_F(FaultInjectionEnvTest, ARenameWithoutSyncDirIsUndone) {
  Write("/d/new", "new", true);
  ASSERT_THAT(env_->SyncDir("/d"), IsOk());
  ASSERT_THAT(env_->Rename("/d/new", "/d/old"), IsOk());
  ASSERT_THAT(env_->Crash(), IsOk());
  EXPECT_EQ(Read("/d/old"), "old");
  EXPECT_EQ(Read("/d/new"), "new");
  ASSERT_THAT(env_->Rename("/d/new", "/d/old"), IsOk());
  ASSERT_THAT(env_->SyncDir("/d"), IsOk());
  ASSERT_THAT(env_->Crash(), IsOk());
  EXPECT_EQ(Read("/d/old"), "new");
  EXPECT_EQ(Read("/d/new"), "none");
}

TEST_F(FaultInjectionEnvTest, ADeletionWithoutSyncDirIsUndone) {
  ASSERT_THAT(DeleteRecursively(*env_, "/d"), IsOk());
  ASSERT_THAT(env_->Crash(), IsOk());
  EXPECT_EQ(Read("/d/old"), "old");
}

TEST_F(FaultInjectionEnvTest, WritingOverAFileLosesItAtOnce) {
  Write("/d/old", "new", false);
  ASSERT_THAT(env_->Crash(), IsOk());
  EXPECT_EQ(Read("/d/old"), "");
}

TEST_F(FaultInjectionEnvTest, FilesOpenAtThePowerCutAreDead) {
  auto file = env_->NewWritableFile("/d/f");
  ASSERT_THAT(file, IsOk());
  ASSERT_THAT(env_->Crash(), IsOk());
  EXPECT_THAT((*file)->Append("x"),
              StatusIs(Code::kUnavailable, HasSubstr("power")));
}

TEST_F(FaultInjectionEnvTest, LocksAreCountedAndEndWithThePower) {
  const auto lock = env_->LockFile("/d/lock");
  ASSERT_THAT(lock, IsOk());
  ASSERT_THAT((*lock)->Write("me"), IsOk());
  EXPECT_THAT(env_->operations(), ElementsAre("lock /d/lock", "write /d/lock"));
  ASSERT_THAT(env_->SyncDir("/d"), IsOk());
  ASSERT_THAT(env_->Crash(), IsOk());
  EXPECT_EQ(Read("/d/lock"), "me");
  EXPECT_THAT(env_->LockFile("/d/lock"), IsOk());
  env_->FailOperation(0, absl::UnavailableError("off"));
  EXPECT_THAT(env_->LockFile("/d/lock"),
              StatusIs(Code::kUnavailable, HasSubstr("lock /d/lock: off")));
}

TEST_F(FaultInjectionEnvTest, WatchesTheDiskToo) {
  Env& posix = Env::Posix();
  const std::string dir = JoinPath(testing::TempDir(), "watched");
  if (posix.FileExists(dir)) {
    ASSERT_THAT(DeleteRecursively(posix, dir), IsOk());
  }
  ASSERT_THAT(posix.CreateDir(dir), IsOk());
  FaultInjectionEnv env(posix, dir);
  ASSERT_THAT(WriteFileAtomically(env, JoinPath(dir, "kept"), "x"), IsOk());
  ASSERT_THAT(env.CreateNewDir(JoinPath(dir, "lost")), IsOk());
  ASSERT_THAT(env.Crash(), IsOk());
  EXPECT_THAT(*posix.ListDir(dir), ElementsAre("kept"));
}

TEST_F(FaultInjectionEnvTest,
       WriteFileAtomicallySurvivesEveryFaultAndPowerCut) {
  for (const Names names : {Names::kAsSynced, Names::kAsSeen}) {
    for (int n = 0;; ++n) {
      SCOPED_TRACE(absl::StrCat("operation ", n));
      ASSERT_THAT(WriteFileAtomically(*env_, "/d/old", "old"), IsOk());
      const size_t before = env_->operations().size();
      env_->FailOperation(n, absl::UnavailableError("off"), Times::kFromThenOn);
      const absl::Status status = WriteFileAtomically(*env_, "/d/old", "new");
      const size_t done = env_->operations().size() - before;
      ASSERT_THAT(env_->Crash(names), IsOk());
      const std::string content = Read("/d/old");
      EXPECT_TRUE(content == "new" || (!status.ok() && content == "old"))
          << content;
      if (status.ok()) {
        EXPECT_EQ(done, n);
        break;
      }
    }
  }
}

}  // namespace
}  // namespace io
}  // namespace grapnel
