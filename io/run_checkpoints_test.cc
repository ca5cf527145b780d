#include "grapnel/io/run_checkpoints.h"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "gmock/gmock.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/checkpoint_manifest.pb.h"
#include "grapnel/io/env.h"
#include "grapnel/io/env_wrapper.h"
#include "grapnel/io/fault_injection_env.h"
#include "grapnel/io/meanwhile_env.h"
#include "grapnel/io/mem_env.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace io {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr char kMine[] = "0123456789abcdef";
constexpr char kOthers[] = "fedcba9876543210";

void Write(Env& env, const std::string& path, int64_t iter,
           const std::string& run_uuid, bool partial = false) {
  CheckpointContents contents;
  contents.blobs.emplace_back("state", "x");
  contents.manifest().set_run_uuid(run_uuid);
  contents.manifest().set_partial(partial);
  contents.manifest().mutable_progress()->set_iter(iter);
  ASSERT_THAT(WriteCheckpoint(env, Dirname(path), Basename(path), contents),
              IsOk());
}

std::vector<std::string> Names(const std::vector<RunCheckpoint>& found) {
  std::vector<std::string> names;
  for (const RunCheckpoint& checkpoint : found) {
    names.push_back(absl::StrCat(checkpoint.name, " at ", checkpoint.iter));
  }
  return names;
}

TEST(RunCheckpointsTest, OnesOwnAreListedOldestFirstWhateverTheirNames) {
  MemEnv env;
  Write(env, "/run/a", 20, kMine);
  Write(env, "/run/z", 10, kMine);
  Write(env, "/other/m", 15, kMine);
  Write(env, "/run/theirs", 5, kOthers);
  Write(env, "/run/published", 6, kMine, /*partial=*/true);
  Write(env, "/run/best_z", 7, kMine);
  ASSERT_THAT(env.CreateDir("/run/no_checkpoint"), IsOk());
  const auto all_but_best = [](absl::string_view name) {
    return !absl::StartsWith(name, "best_");
  };
  EXPECT_THAT(Names(ListRunCheckpoints(env, {"/run", "/other", "/nowhere"},
                                       kMine, all_but_best)),
              ElementsAre("z at 10", "m at 15", "a at 20"));
  EXPECT_THAT(
      Names(ListRunCheckpoints(env, {"/run", "/run"}, kMine, all_but_best)),
      ElementsAre("z at 10", "a at 20"));
  EXPECT_THAT(ListRunCheckpoints(env, {"/nowhere"}, kMine, all_but_best),
              IsEmpty());
}

// Row 60 of the list of bad inputs.
TEST(RunCheckpointsTest, Row060OnlyOnesOwnAreDeleted) {
  MemEnv mem;
  FaultInjectionEnv env(mem, "/");
  Write(mem, "/run/mine", 1, kMine);
  Write(mem, "/run/theirs", 1, kOthers);
  Write(mem, "/run/damaged", 1, kMine);
  ASSERT_THAT(WriteFileAtomically(mem, "/run/damaged/manifest.pb", "no"),
              IsOk());
  const auto remove = [&](const std::string& path) {
    return DeleteRunCheckpoint(env, path, kMine);
  };
  EXPECT_THAT(remove("/run/theirs"),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("another run made it")));
  EXPECT_THAT(remove("/run/damaged"),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("/run/damaged")));
  EXPECT_THAT(remove("/run/never_there"), IsOk());

  env.FailOperation(0, absl::PermissionDeniedError("not yours"));
  EXPECT_THAT(remove("/run/mine"), StatusIs(absl::StatusCode::kPermissionDenied,
                                            HasSubstr("not yours")));
  env.StopFailing();
  EXPECT_TRUE(mem.FileExists("/run/mine"));
  EXPECT_THAT(remove("/run/mine"), IsOk());
  EXPECT_FALSE(mem.FileExists("/run/mine"));
  EXPECT_TRUE(mem.FileExists("/run/theirs"));
  EXPECT_TRUE(mem.FileExists("/run/damaged"));
}

TEST(RunCheckpointsTest, TheNewestOfTheRunAreKept) {
  MemEnv env;
  for (int i = 1; i <= 4; ++i) {
    Write(env, absl::StrCat("/run/iter_", i), i, kMine);
    Write(env, absl::StrCat("/run/theirs_", i), i, kOthers);
  }
  ASSERT_THAT(KeepNewestCheckpoints(env, "/run", kMine, 2), IsOk());
  EXPECT_THAT(*env.ListDir("/run"),
              ElementsAre("iter_3", "iter_4", "theirs_1", "theirs_2",
                          "theirs_3", "theirs_4"));
  EXPECT_THAT(KeepNewestCheckpoints(env, "/run", kMine, -1),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("keep: must be >= 0, is -1")));
  ASSERT_THAT(KeepNewestCheckpoints(env, "/run", kMine, 0), IsOk());
  EXPECT_THAT(*env.ListDir("/run"), testing::SizeIs(4));
}

TEST(RunCheckpointsTest, WhatTellsWhetherItStaysIsListed) {
  MemEnv env;
  CheckpointContents contents;
  contents.blobs.emplace_back("state", "x");
  contents.manifest().set_run_uuid(kMine);
  contents.manifest().mutable_progress()->set_epoch(3);
  contents.manifest().mutable_progress()->set_iter_in_epoch(7);
  (*contents.manifest().mutable_metrics())["acc"] = 0.5;
  ASSERT_THAT(WriteCheckpoint(env, "/run", "iter_37", contents), IsOk());
  const auto list = [&] {
    return ListRunCheckpoints(env, {"/run"}, kMine,
                              [](absl::string_view) { return true; });
  };
  ASSERT_EQ(list().size(), 1u);
  EXPECT_EQ(list()[0].epoch, 3);
  EXPECT_EQ(list()[0].iter_in_epoch, 7);
  EXPECT_THAT(list()[0].metrics, ElementsAre(testing::Pair("acc", 0.5)));
  EXPECT_FALSE(list()[0].pinned);
  ASSERT_THAT(PinCheckpoint(env, "/run/iter_37", true), IsOk());
  EXPECT_TRUE(list()[0].pinned);
}

TEST(RunCheckpointsTest, PinnedOnesStay) {
  MemEnv env;
  for (int i = 1; i <= 4; ++i) {
    Write(env, absl::StrCat("/run/iter_", i), i, kMine);
  }
  EXPECT_THAT(PinCheckpoint(env, "/run/iter_9", true),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("/run/iter_9")));
  ASSERT_THAT(PinCheckpoint(env, "/run/iter_1/", true), IsOk());
  ASSERT_THAT(PinCheckpoint(env, "/run/iter_1", true), IsOk());
  EXPECT_THAT(DeleteRunCheckpoint(env, "/run/iter_1", kMine),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("it is pinned")));
  ASSERT_THAT(KeepNewestCheckpoints(env, "/run", kMine, 2), IsOk());
  EXPECT_THAT(*env.ListDir("/run"), ElementsAre("iter_1", "iter_3", "iter_4"));

  ASSERT_THAT(PinCheckpoint(env, "/run/iter_1", false), IsOk());
  ASSERT_THAT(PinCheckpoint(env, "/run/iter_1", false), IsOk());
  EXPECT_FALSE(IsPinned(env, "/run/iter_1"));
  ASSERT_THAT(DeleteRunCheckpoint(env, "/run/iter_1", kMine), IsOk());
  EXPECT_FALSE(env.FileExists("/run/iter_1"));
}

TEST(RunCheckpointsTest, PinChangesNothingOfWhatIsRead) {
  MemEnv env;
  Write(env, "/run/iter_1", 1, kMine);
  ASSERT_THAT(PinCheckpoint(env, "/run/iter_1", true), IsOk());
  const auto read = ReadCheckpoint(env, "/run/iter_1");
  ASSERT_THAT(read, IsOk());
  EXPECT_THAT(read->unlisted, IsEmpty());
  // Moved and put back.
  ASSERT_THAT(env.CreateDir("/kept"), IsOk());
  ASSERT_THAT(env.Rename("/run/iter_1", "/kept/iter_1"), IsOk());
  EXPECT_TRUE(IsPinned(env, "/kept/iter_1"));
}

TEST(RunCheckpointsTest, PinIsOfWhateverIsSavedUnderTheName) {
  MemEnv env;
  Write(env, "/run/iter_1", 1, kMine);
  ASSERT_THAT(PinCheckpoint(env, "/run/iter_1", true), IsOk());
  Write(env, "/run/iter_1", 2, kMine);
  EXPECT_TRUE(IsPinned(env, "/run/iter_1"));
  EXPECT_EQ(ReadManifest(env, "/run/iter_1")->progress().iter(), 2);
  Write(env, "/run/iter_2", 2, kMine);
  EXPECT_FALSE(IsPinned(env, "/run/iter_2"));
}

// A pin that is told of as set is on the disk.
TEST(RunCheckpointsTest, PinOutlivesAPowerCut) {
  MemEnv mem;
  FaultInjectionEnv env(mem, "/");
  Write(env, "/run/iter_1", 1, kMine);
  ASSERT_THAT(PinCheckpoint(env, "/run/iter_1", true), IsOk());
  ASSERT_THAT(env.Crash(), IsOk());
  EXPECT_TRUE(IsPinned(mem, "/run/iter_1"));
}

// As one writes a copy.
absl::Status Copy(Env& env, const std::string& path, const std::string& ending,
                  absl::string_view content) {
  const std::string written = JoinPath(Dirname(path), ".tmp-x-01234567");
  GRAPNEL_RETURN_IF_ERROR(WriteFileAndSync(env, written, content));
  const absl::Status added = AddCopy(env, path, ending, written);
  EXPECT_FALSE(env.FileExists(written)) << added;
  return added;
}

TEST(RunCheckpointsTest, CopiesGoWithTheirCheckpointAndOtherFilesStay) {
  MemEnv env;
  Write(env, "/run/iter_1", 1, kMine);
  EXPECT_THAT(Copy(env, "/run/iter_1", "/../x", "x"),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("ending: must be \".pth\"")));
  ASSERT_THAT(Copy(env, "/run/iter_1", ".pth", "y"), IsOk());
  ASSERT_THAT(Copy(env, "/run/iter_1", ".pth", "x"), IsOk()) << "its own";
  for (const char* file : {"iter_1.safetensors", "iter_1.txt", "iter_10.pth"}) {
    ASSERT_THAT(WriteFileAndSync(env, JoinPath("/run", file), "x"), IsOk());
  }
  EXPECT_THAT(ListCopies(env, "/run/iter_1/"), ElementsAre("/run/iter_1.pth"));
  const auto read = ReadCheckpoint(env, "/run/iter_1");
  ASSERT_THAT(read, IsOk());
  EXPECT_THAT(read->unlisted, IsEmpty());
  ASSERT_THAT(DeleteRunCheckpoint(env, "/run/iter_1", kMine), IsOk());
  EXPECT_THAT(*env.ListDir("/run"),
              ElementsAre("iter_1.safetensors", "iter_1.txt", "iter_10.pth"));
  Write(env, "/other/iter_1", 1, kMine);
  ASSERT_THAT(Copy(env, "/other/iter_1", ".pth", "x"), IsOk());
  ASSERT_THAT(DeleteCheckpoint(env, "/other/iter_1"), IsOk());
  EXPECT_THAT(*env.ListDir("/other"), IsEmpty());
}

TEST(RunCheckpointsTest, CopiesAreNeverWrittenOverOtherFiles) {
  MemEnv env;
  Write(env, "/run/iter_1", 1, kMine);
  ASSERT_THAT(WriteFileAndSync(env, "/run/iter_1.pth", "mine"), IsOk());
  EXPECT_THAT(Copy(env, "/run/iter_1", ".pth", "x"),
              StatusIs(absl::StatusCode::kAlreadyExists,
                       HasSubstr("not made of this checkpoint")));
  EXPECT_EQ(*ReadFile(env, "/run/iter_1.pth"), "mine");
  EXPECT_THAT(ListCopies(env, "/run/iter_1"), IsEmpty());
  ASSERT_THAT(DeleteRunCheckpoint(env, "/run/iter_1", kMine), IsOk());
  EXPECT_EQ(*ReadFile(env, "/run/iter_1.pth"), "mine");
}

// Nor over one that comes while the copy's digest is made.
TEST(RunCheckpointsTest, CopiesAreNotWrittenOverAFileThatHasJustCome) {
  class BusyEnv : public EnvWrapper {
   public:
    using EnvWrapper::EnvWrapper;
    absl::StatusOr<std::unique_ptr<RandomAccessFile>> NewRandomAccessFile(
        const std::string& path) override {
      if (absl::StartsWith(Basename(path), ".tmp-")) {
        EXPECT_THAT(WriteFileAndSync(target(), "/run/iter_1.pth", "mine"),
                    IsOk());
      }
      return EnvWrapper::NewRandomAccessFile(path);
    }
  };
  MemEnv mem;
  Write(mem, "/run/iter_1", 1, kMine);
  BusyEnv env(mem);
  EXPECT_THAT(Copy(env, "/run/iter_1", ".pth", "x"),
              StatusIs(absl::StatusCode::kAlreadyExists, HasSubstr("file")));
  EXPECT_EQ(*ReadFile(mem, "/run/iter_1.pth"), "mine");
}

// Whoever changed one, or has one of its name beside a copy of the checkpoint,
// made it theirs.
TEST(RunCheckpointsTest, OnlyWhatIsAsItWasWrittenIsACopy) {
  for (const char* content : {"copx", "another length"}) {
    SCOPED_TRACE(content);
    MemEnv env;
    Write(env, "/run/iter_1", 1, kMine);
    ASSERT_THAT(Copy(env, "/run/iter_1", ".pth", "copy"), IsOk());
    ASSERT_THAT(WriteFileAndSync(env, "/run/iter_1.pth", content), IsOk());
    EXPECT_THAT(Copy(env, "/run/iter_1", ".pth", "x"),
                StatusIs(absl::StatusCode::kAlreadyExists, HasSubstr("file")));
    ASSERT_THAT(DeleteRunCheckpoint(env, "/run/iter_1", kMine), IsOk());
    EXPECT_EQ(*ReadFile(env, "/run/iter_1.pth"), content);
  }
  MemEnv env;
  Write(env, "/run/iter_1", 1, kMine);
  // Without a size and a digest it tells of nothing.
  for (const char* text : {".pth\n", ".pth 1\n", ".pth 1 x\n"}) {
    SCOPED_TRACE(text);
    ASSERT_THAT(WriteFileAndSync(env, "/run/iter_1/copies", text), IsOk());
    ASSERT_THAT(WriteFileAndSync(env, "/run/iter_1.pth", "x"), IsOk());
    EXPECT_THAT(ListCopies(env, "/run/iter_1"), IsEmpty());
  }
}

TEST(RunCheckpointsTest, CopiesThatCannotBeDeletedKeepTheirCheckpoint) {
  MemEnv mem;
  FaultInjectionEnv env(mem, "/");
  Write(mem, "/run/iter_1", 1, kMine);
  ASSERT_THAT(Copy(mem, "/run/iter_1", ".pth", "x"), IsOk());
  for (int n = 0; n < 3; ++n) {
    env.FailOperation(n, absl::PermissionDeniedError("not yours"));
    EXPECT_THAT(
        DeleteRunCheckpoint(env, "/run/iter_1", kMine),
        StatusIs(absl::StatusCode::kPermissionDenied, HasSubstr("not yours")));
    env.StopFailing();
    EXPECT_THAT(*mem.ListDir("/run"), ElementsAre("iter_1", "iter_1.pth"));
  }
  EXPECT_THAT(env.operations(), testing::Contains("unlink /run/iter_1.pth"));
  ASSERT_THAT(DeleteRunCheckpoint(env, "/run/iter_1", kMine), IsOk());
  EXPECT_THAT(*mem.ListDir("/run"), IsEmpty());
}

TEST(RunCheckpointsTest, CopiesOfWhatIsReplacedGo) {
  MemEnv env;
  Write(env, "/run/iter_1", 1, kMine);
  ASSERT_THAT(Copy(env, "/run/iter_1", ".safetensors", "x"), IsOk());
  ASSERT_THAT(WriteFileAndSync(env, "/run/iter_1.pth", "x"), IsOk());
  Write(env, "/run/iter_1", 2, kMine);
  EXPECT_THAT(*env.ListDir("/run"), ElementsAre("iter_1", "iter_1.pth"));
}

// Whenever the power goes out, a copy is there if and only if its checkpoint
// is.
TEST(RunCheckpointsTest, CopiesOfWhatIsReplacedGoAfterAPowerCutToo) {
  using Names = FaultInjectionEnv::Names;
  for (const Names names : {Names::kAsSynced, Names::kAsSeen}) {
    int with_the_old = 0;
    int with_the_new = 0;
    for (int n = 0;; ++n) {
      SCOPED_TRACE(n);
      MemEnv mem;
      FaultInjectionEnv env(mem, "/");
      Write(env, "/run/iter_1", 1, kMine);
      ASSERT_THAT(Copy(env, "/run/iter_1", ".pth", "old"), IsOk());
      const size_t before = env.operations().size();
      env.FailOperation(n, absl::UnavailableError("power is out"),
                        FaultInjectionEnv::Times::kFromThenOn);
      CheckpointContents contents;
      contents.blobs.emplace_back("state", "x");
      contents.manifest().set_run_uuid(kMine);
      contents.manifest().mutable_progress()->set_iter(2);
      WriteCheckpoint(env, "/run", "iter_1", contents).IgnoreError();
      const bool done = env.operations().size() <= before + n;
      ASSERT_THAT(env.Crash(names), IsOk());
      ASSERT_THAT(RemoveLeftovers(env, "/run"), IsOk());
      const auto manifest = ReadManifest(env, "/run/iter_1");
      ASSERT_THAT(manifest, IsOk());
      if (manifest->progress().iter() == 1) {
        ++with_the_old;
        EXPECT_THAT(*env.ListDir("/run"), ElementsAre("iter_1", "iter_1.pth"));
      } else {
        ++with_the_new;
        EXPECT_THAT(*env.ListDir("/run"), ElementsAre("iter_1"));
      }
      if (done) break;
    }
    EXPECT_GT(with_the_old, 5);
    EXPECT_GT(with_the_new, 5);
  }
}

TEST(RunCheckpointsTest, CopiesOfWhatIsDeletedGoAfterAPowerCutToo) {
  using Names = FaultInjectionEnv::Names;
  for (const Names names : {Names::kAsSynced, Names::kAsSeen}) {
    int stayed = 0;
    int went = 0;
    for (int n = 0;; ++n) {
      SCOPED_TRACE(n);
      MemEnv mem;
      FaultInjectionEnv env(mem, "/");
      Write(env, "/run/iter_1", 1, kMine);
      ASSERT_THAT(Copy(env, "/run/iter_1", ".pth", "x"), IsOk());
      env.FailOperation(n, absl::UnavailableError("power is out"),
                        FaultInjectionEnv::Times::kFromThenOn);
      const absl::Status deleted =
          DeleteRunCheckpoint(env, "/run/iter_1", kMine);
      ASSERT_THAT(env.Crash(names), IsOk());
      ASSERT_THAT(RemoveLeftovers(env, "/run"), IsOk());
      if (mem.FileExists("/run/iter_1")) {
        ++stayed;
        EXPECT_THAT(*mem.ListDir("/run"), ElementsAre("iter_1", "iter_1.pth"));
      } else {
        ++went;
        EXPECT_THAT(*mem.ListDir("/run"), IsEmpty());
      }
      if (deleted.ok()) break;
    }
    EXPECT_GE(stayed, 1);
    EXPECT_GE(went, 3);
  }
}

// Writing one leaves the file and what tells of it, or neither.
TEST(RunCheckpointsTest, CopiesAreKnownOfAfterAPowerCut) {
  for (int n = 0;; ++n) {
    SCOPED_TRACE(n);
    MemEnv mem;
    FaultInjectionEnv env(mem, "/");
    Write(env, "/run/iter_1", 1, kMine);
    env.FailOperation(n, absl::UnavailableError("power is out"),
                      FaultInjectionEnv::Times::kFromThenOn);
    const std::string written = "/run/.tmp-x-01234567";
    absl::Status added = WriteFileAndSync(env, written, "x");
    if (added.ok()) added = AddCopy(env, "/run/iter_1", ".pth", written);
    ASSERT_THAT(env.Crash(FaultInjectionEnv::Names::kAsSeen), IsOk());
    ASSERT_THAT(RemoveLeftovers(env, "/run"), IsOk());
    EXPECT_EQ(mem.FileExists("/run/iter_1.pth"),
              !ListCopies(env, "/run/iter_1").empty());
    ASSERT_THAT(DeleteRunCheckpoint(env, "/run/iter_1", kMine), IsOk());
    EXPECT_THAT(*env.ListDir("/run"), IsEmpty());
    if (added.ok()) break;
  }
}

// Somebody puts a file where the copy goes while the note is written.
TEST(RunCheckpointsTest, AFileThatHasJustComeIsNotReplacedByACopy) {
  class BusyEnv : public EnvWrapper {
   public:
    using EnvWrapper::EnvWrapper;
    absl::Status Rename(const std::string& from,
                        const std::string& to) override {
      if (to == "/run/iter_1/copies") {
        EXPECT_THAT(WriteFileAndSync(target(), "/run/iter_1.pth", "mine"),
                    IsOk());
      }
      return EnvWrapper::Rename(from, to);
    }
  };
  MemEnv mem;
  Write(mem, "/run/iter_1", 1, kMine);
  BusyEnv env(mem);
  EXPECT_THAT(Copy(env, "/run/iter_1", ".pth", "x"),
              StatusIs(absl::StatusCode::kAlreadyExists, testing::_));
  EXPECT_EQ(*ReadFile(mem, "/run/iter_1.pth"), "mine");
  ASSERT_THAT(DeleteRunCheckpoint(env, "/run/iter_1", kMine), IsOk());
  EXPECT_THAT(*mem.ListDir("/run"), ElementsAre("iter_1.pth"));
}

// Who deletes it sees the pin and puts it back.
TEST(RunCheckpointsTest, OneThatIsRenamedForAMomentCanBePinned) {
  class BusyEnv : public EnvWrapper {
   public:
    using EnvWrapper::EnvWrapper;
    absl::Status SyncDir(const std::string& path) override {
      if (std::exchange(renamed_, true)) return EnvWrapper::SyncDir(path);
      EXPECT_THAT(target().Rename(path, "/run/.trash-iter_1-01234567"), IsOk());
      const absl::Status status = EnvWrapper::SyncDir(path);
      EXPECT_THAT(target().Rename("/run/.trash-iter_1-01234567", path), IsOk());
      return status;
    }

   private:
    bool renamed_ = false;
  };
  MemEnv mem;
  Write(mem, "/run/iter_1", 1, kMine);
  BusyEnv env(mem);
  EXPECT_THAT(PinCheckpoint(env, "/run/iter_1", true), IsOk());
  EXPECT_TRUE(IsPinned(mem, "/run/iter_1"));
}

TEST(RunCheckpointsTest, OnesThatArePinnedWhileTheyAreDeletedStay) {
  MemEnv mem;
  for (int i = 1; i <= 2; ++i) {
    Write(mem, absl::StrCat("/run/iter_", i), i, kMine);
  }
  ASSERT_THAT(Copy(mem, "/run/iter_1", ".pth", "x"), IsOk());
  const std::vector<std::string> before = *mem.ListDir("/run");
  for (const bool by_path : {true, false}) {
    ASSERT_THAT(PinCheckpoint(mem, "/run/iter_1", false), IsOk());
    MeanwhileEnv env(mem, "/run/iter_1", [&] {
      EXPECT_THAT(PinCheckpoint(mem, "/run/iter_1", true), IsOk());
    });
    if (by_path) {
      EXPECT_THAT(DeleteRunCheckpoint(env, "/run/iter_1/", kMine),
                  StatusIs(absl::StatusCode::kFailedPrecondition,
                           HasSubstr("it is pinned")));
    } else {
      EXPECT_THAT(KeepNewestCheckpoints(env, "/run", kMine, 1), IsOk());
    }
    EXPECT_EQ(*mem.ListDir("/run"), before);
    EXPECT_TRUE(IsPinned(mem, "/run/iter_1"));
    EXPECT_THAT(ReadCheckpoint(mem, "/run/iter_1"), IsOk());
  }
}

// Also if the power goes out before it is seen.
TEST(RunCheckpointsTest, OnesThatArePinnedWhileTheyAreDeletedOutliveAPowerCut) {
  using Names = FaultInjectionEnv::Names;
  for (const Names names : {Names::kAsSynced, Names::kAsSeen}) {
    int pinned_ones = 0;
    for (int n = 0;; ++n) {
      SCOPED_TRACE(n);
      MemEnv mem;
      FaultInjectionEnv fault(mem, "/");
      Write(fault, "/run/iter_1", 1, kMine);
      ASSERT_THAT(Copy(fault, "/run/iter_1", ".pth", "x"), IsOk());
      bool pinned = false;
      MeanwhileEnv env(fault, "/run/iter_1", [&] {
        pinned = PinCheckpoint(fault, "/run/iter_1", true).ok();
      });
      const size_t before = fault.operations().size();
      fault.FailOperation(n, absl::UnavailableError("power is out"),
                          FaultInjectionEnv::Times::kFromThenOn);
      EXPECT_THAT(DeleteRunCheckpoint(env, "/run/iter_1", kMine),
                  testing::Not(IsOk()));
      const bool done = fault.operations().size() <= before + n;
      ASSERT_THAT(fault.Crash(names), IsOk());
      ASSERT_THAT(RemoveLeftovers(fault, "/run"), IsOk());
      if (pinned) {
        ++pinned_ones;
        EXPECT_THAT(*mem.ListDir("/run"), ElementsAre("iter_1", "iter_1.pth"));
        EXPECT_TRUE(IsPinned(mem, "/run/iter_1"));
      }
      if (done) break;
    }
    EXPECT_GE(pinned_ones, 4);
  }
}

// Another writer's one, or somebody's own folder, in its place.
TEST(RunCheckpointsTest, WhatHasTakenTheNameOfTheOneToGoStays) {
  for (const bool is_checkpoint : {true, false}) {
    MemEnv mem;
    Write(mem, "/run/iter_1", 1, kMine);
    MeanwhileEnv env(mem, "/run/iter_1", [&] {
      ASSERT_THAT(mem.Rename("/run/iter_1", "/run/moved"), IsOk());
      if (is_checkpoint) {
        Write(mem, "/run/iter_1", 2, kMine);
      } else {
        ASSERT_THAT(mem.CreateDir("/run/iter_1/notes"), IsOk());
      }
    });
    EXPECT_THAT(DeleteRunCheckpoint(env, "/run/iter_1", kMine),
                StatusIs(absl::StatusCode::kFailedPrecondition,
                         HasSubstr("something else has its name now")));
    EXPECT_THAT(*mem.ListDir("/run"), ElementsAre("iter_1", "moved"));
    EXPECT_EQ(mem.FileExists("/run/iter_1/notes"), !is_checkpoint);
  }
}

TEST(RunCheckpointsTest, OneThatCannotBeDeletedSaysWhyAndWhereItIs) {
  MemEnv mem;
  Write(mem, "/run/iter_1", 1, kMine);
  ASSERT_THAT(Copy(mem, "/run/iter_1", ".pth", "x"), IsOk());
  FaultInjectionEnv fault(mem, "/");
  // After the pin was seen and it has its name back.
  MeanwhileEnv env(fault, "/run/iter_1", [&] {
    EXPECT_THAT(PinCheckpoint(mem, "/run/iter_1", true), IsOk());
  });
  fault.FailOperation(2, absl::UnavailableError("i/o error"));
  EXPECT_THAT(DeleteRunCheckpoint(env, "/run/iter_1", kMine),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("it is pinned")));
  EXPECT_EQ(fault.operations().size(), 3u);
  ASSERT_THAT(PinCheckpoint(mem, "/run/iter_1", false), IsOk());
  // The copy can't be deleted, nor anything be renamed then.
  fault.FailOperation(2, absl::PermissionDeniedError("not yours"),
                      FaultInjectionEnv::Times::kFromThenOn);
  EXPECT_THAT(DeleteRunCheckpoint(fault, "/run/iter_1", kMine),
              StatusIs(absl::StatusCode::kPermissionDenied,
                       HasSubstr("not yours; what was at /run/iter_1 is still "
                                 "called /run/.trash-iter_1-")));
}

TEST(RunCheckpointsTest, WhatADeletedOneHadReplacedDoesNotComeBack) {
  using Names = FaultInjectionEnv::Names;
  for (const Names names : {Names::kAsSynced, Names::kAsSeen}) {
    for (int n = 0;; ++n) {
      SCOPED_TRACE(n);
      MemEnv mem;
      // It could not be deleted.
      Write(mem, "/run/iter_1", 1, kMine);
      ASSERT_THAT(mem.Rename("/run/iter_1", "/run/.old-iter_1-01234567"),
                  IsOk());
      Write(mem, "/run/iter_1", 2, kMine);
      FaultInjectionEnv env(mem, "/");
      env.FailOperation(n, absl::UnavailableError("power is out"),
                        FaultInjectionEnv::Times::kFromThenOn);
      const absl::Status deleted =
          DeleteRunCheckpoint(env, "/run/iter_1", kMine);
      ASSERT_THAT(env.Crash(names), IsOk());
      ASSERT_THAT(RemoveLeftovers(env, "/run"), IsOk());
      if (mem.FileExists("/run/iter_1")) {
        EXPECT_THAT(*mem.ListDir("/run"), ElementsAre("iter_1"));
        EXPECT_EQ(ReadManifest(mem, "/run/iter_1")->progress().iter(), 2);
      } else {
        EXPECT_THAT(*mem.ListDir("/run"), IsEmpty());
      }
      if (deleted.ok()) break;
    }
  }
}

// Asked for by its name, a pinned one goes too. Whatever fails, it is there,
// pinned, or goes; and after a power cut its copy is where it is.
TEST(RunCheckpointsTest, APinnedOneThatIsDeletedIsWholeOrGone) {
  using Names = FaultInjectionEnv::Names;
  using Times = FaultInjectionEnv::Times;
  for (const Times times : {Times::kOnce, Times::kFromThenOn}) {
    for (const Names names : {Names::kAsSynced, Names::kAsSeen}) {
      int stayed = 0;
      int went = 0;
      for (int n = 0;; ++n) {
        SCOPED_TRACE(n);
        MemEnv mem;
        Write(mem, "/run/iter_1", 1, kMine);
        ASSERT_THAT(Copy(mem, "/run/iter_1", ".pth", "x"), IsOk());
        ASSERT_THAT(PinCheckpoint(mem, "/run/iter_1", true), IsOk());
        FaultInjectionEnv env(mem, "/");
        env.FailOperation(n, absl::UnavailableError("i/o error"), times);
        const absl::Status deleted = DeleteCheckpoint(env, "/run/iter_1");
        ASSERT_THAT(env.Crash(names), IsOk());
        ASSERT_THAT(RemoveLeftovers(env, "/run"), IsOk());
        if (mem.FileExists("/run/iter_1")) {
          ++stayed;
          EXPECT_THAT(ReadCheckpoint(mem, "/run/iter_1"), IsOk());
          EXPECT_TRUE(IsPinned(mem, "/run/iter_1"));
          if (times == Times::kFromThenOn) {
            EXPECT_TRUE(mem.FileExists("/run/iter_1.pth"));
          }
        } else {
          ++went;
          EXPECT_THAT(*mem.ListDir("/run"), IsEmpty());
        }
        if (deleted.ok()) break;
      }
      EXPECT_GE(stayed, 2);
      EXPECT_GE(went, 3);
    }
  }
}

TEST(RunCheckpointsTest, PinThatComesOrGoesWhileOneIsReplacedIsTheNewOnes) {
  for (const bool pinned : {true, false}) {
    MemEnv mem;
    Write(mem, "/run/iter_1", 1, kMine);
    ASSERT_THAT(PinCheckpoint(mem, "/run/iter_1", !pinned), IsOk());
    MeanwhileEnv env(mem, "/run/iter_1", [&] {
      EXPECT_THAT(PinCheckpoint(mem, "/run/iter_1", pinned), IsOk());
    });
    Write(env, "/run/iter_1", 2, kMine);
    EXPECT_EQ(IsPinned(mem, "/run/iter_1"), pinned);
    EXPECT_EQ(ReadManifest(mem, "/run/iter_1")->progress().iter(), 2);
    EXPECT_THAT(*mem.ListDir("/run"), ElementsAre("iter_1"));
  }
}

}  // namespace
}  // namespace io
}  // namespace grapnel
