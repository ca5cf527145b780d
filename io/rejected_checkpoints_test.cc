#include "grapnel/io/rejected_checkpoints.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "gmock/gmock.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/checkpoint_manifest.pb.h"
#include "grapnel/io/env.h"
#include "grapnel/io/env_wrapper.h"
#include "grapnel/io/fault_injection_env.h"
#include "grapnel/io/mem_env.h"
#include "grapnel/io/run_checkpoints.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace io {
namespace {

using testing::_;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

constexpr char kFile[] = "/run/epoch_2/model.safetensors";

// epoch_1 and epoch_2 in /run, which last_checkpoint names.
void WriteTwo(Env& env) {
  for (int epoch = 1; epoch <= 2; ++epoch) {
    CheckpointContents contents;
    TensorMap model;
    ASSERT_THAT(model.Add("fc.weight", ops::ones({3, 2})), IsOk());
    ASSERT_THAT(model.Add("fc.bias", ops::ones({3})), IsOk());
    contents.sections.emplace_back("model", model);
    contents.blobs.emplace_back("state", "x");
    contents.manifest().set_run_uuid("0123456789abcdef");
    contents.manifest().mutable_progress()->set_epoch(epoch);
    contents.manifest().mutable_progress()->set_iter(10 * epoch);
    const std::string name = absl::StrCat("epoch_", epoch);
    ASSERT_THAT(WriteCheckpoint(env, "/run", name, contents), IsOk());
    ASSERT_THAT(WriteLastCheckpoint(env, "/run", JoinPath("/run", name)),
                IsOk());
  }
}

// As a training does with also_write.
void AddCopyOf(Env& env, const std::string& path, const std::string& ending,
               absl::string_view content) {
  ASSERT_THAT(WriteFileAndSync(env, "/run/.tmp-x-01234567", content), IsOk());
  ASSERT_THAT(AddCopy(env, path, ending, "/run/.tmp-x-01234567"), IsOk());
}

void FlipABit(Env& env, const std::string& path, int64_t from_the_end) {
  std::string bytes = *ReadFile(env, path);
  bytes[bytes.size() - static_cast<size_t>(from_the_end)] ^= 1;
  ASSERT_THAT(WriteFileAndSync(env, path, bytes), IsOk());
}

void CutOff(Env& env, const std::string& path, int64_t bytes) {
  std::string content = *ReadFile(env, path);
  content.resize(content.size() - static_cast<size_t>(bytes));
  ASSERT_THAT(WriteFileAndSync(env, path, content), IsOk());
}

// What is wrong with the newest checkpoint, and whether it is damage.
struct DamageCase {
  std::string name;
  void (*damage)(Env& env);
  std::string message;  // Of the first that was rejected.
  bool damaged;
};

class SetAsideTest : public testing::TestWithParam<DamageCase> {};

INSTANTIATE_TEST_SUITE_P(
    , SetAsideTest,
    testing::ValuesIn(std::vector<DamageCase>{
        {"AFlippedBit", [](Env& env) { FlipABit(env, kFile, 1); },
         "/run/epoch_2/model.safetensors: tensor \"fc.weight\": bytes differ "
         "from those that were written",
         true},
        {"CutOff", [](Env& env) { CutOff(env, kFile, 1); },
         "the first bad tensor is \"fc.weight\"", true},
        {"CutOffMore", [](Env& env) { CutOff(env, kFile, 30); },
         "the first bad tensor is \"fc.bias\"", true},
        {"AFileIsMissing",
         [](Env& env) { ASSERT_THAT(env.DeleteFile(kFile), IsOk()); },
         "the first bad tensor is \"fc.bias\"", true},
        {"ABadManifest",
         [](Env& env) { FlipABit(env, "/run/epoch_2/manifest.pb", 1); },
         "/run/epoch_2/manifest.pb", true},
        {"ACopyThatWasCutShort",
         [](Env& env) {
           ASSERT_THAT(env.DeleteFile("/run/epoch_2/manifest.pb"), IsOk());
         },
         "/run/epoch_2: no checkpoint: has no manifest.pb", true},
        {"AFolderOfThatName",
         [](Env& env) {
           ASSERT_THAT(DeleteRecursively(env, "/run/epoch_2"), IsOk());
           ASSERT_THAT(env.CreateDir("/run/epoch_2/images"), IsOk());
         },
         "/run/epoch_2: no checkpoint: has no manifest.pb", false},
        {"SomebodyRenamedIt",
         [](Env& env) {
           ASSERT_THAT(DeleteCheckpoint(env, "/run/epoch_1"), IsOk());
           ASSERT_THAT(env.Rename("/run/epoch_2", "/run/epoch_1"), IsOk());
           ASSERT_THAT(DeleteRecursively(env, "/run/last_checkpoint"), IsOk());
         },
         "/run/epoch_1/manifest.pb: is of \"epoch_2\"", false},
        {"ABadLastCheckpoint",
         [](Env& env) {
           ASSERT_THAT(WriteFileAndSync(env, "/run/last_checkpoint", ""),
                       IsOk());
         },
         "/run/last_checkpoint: is empty", false},
        {"DeletedByHand",
         [](Env& env) {
           ASSERT_THAT(DeleteCheckpoint(env, "/run/epoch_2"), IsOk());
         },
         "/run/epoch_2: no checkpoint: is no directory", false},
    }),
    [](const auto& info) { return info.param.name; });

TEST_P(SetAsideTest, IsForDamageAndNothingElse) {
  MemEnv env;
  WriteTwo(env);
  GetParam().damage(env);
  std::vector<RejectedCheckpoint> rejected;
  const auto latest = SearchLatestCheckpoint(env, "/run", &rejected);
  ASSERT_EQ(rejected.size(), 1u);
  EXPECT_THAT(std::string(rejected[0].status.message()),
              HasSubstr(GetParam().message));
  EXPECT_EQ(IsDamaged(env, rejected[0]), GetParam().damaged);
  // Both ways of asking say the same.
  std::vector<std::string> lines;
  const auto read = ReadLatestCheckpoint(env, "/run", &lines);
  EXPECT_THAT(lines, ElementsAre(std::string(rejected[0].status.message())));
  EXPECT_EQ(read.ok(), latest.ok());
  if (!GetParam().damaged) return;
  ASSERT_THAT(latest, IsOk());
  EXPECT_EQ(latest->path, "/run/epoch_1");

  const std::vector<std::string> files = *env.ListDir("/run/epoch_2");
  const auto path = SetAsideCheckpoint(env, "/run/epoch_2/");
  ASSERT_THAT(path, IsOk());
  EXPECT_EQ(*path, "/run/epoch_2.damaged");
  EXPECT_EQ(*env.ListDir("/run/epoch_2.damaged"), files);
  EXPECT_FALSE(env.FileExists("/run/epoch_2"));
}

TEST(SetAsideCheckpointTest, IsNeverFoundAgain) {
  MemEnv env;
  WriteTwo(env);
  FlipABit(env, kFile, 1);
  ASSERT_THAT(SetAsideCheckpoint(env, "/run/epoch_2"), IsOk());
  ASSERT_THAT(WriteLastCheckpoint(env, "/run", "/run/epoch_1"), IsOk());
  std::vector<std::string> rejected;
  EXPECT_EQ(*FindLatestCheckpoint(env, "/run", &rejected), "/run/epoch_1");
  EXPECT_THAT(rejected, IsEmpty());
  EXPECT_THAT(ReadCheckpoint(env, "/run/epoch_2.damaged"), Not(IsOk()));
}

TEST(SetAsideCheckpointTest, NothingIsReplaced) {
  MemEnv env;
  for (const char* name :
       {"epoch_2.damaged", "epoch_2.damaged-2", "epoch_2.damaged-3"}) {
    WriteTwo(env);
    const auto path = SetAsideCheckpoint(env, "/run/epoch_2");
    ASSERT_THAT(path, IsOk());
    EXPECT_EQ(Basename(*path), name);
    EXPECT_TRUE(IsSetAsideName(name));
  }
  EXPECT_THAT(*env.ListDir("/run"),
              ElementsAre("epoch_1", "epoch_2.damaged", "epoch_2.damaged-2",
                          "epoch_2.damaged-3", "last_checkpoint"));
}

// They may be whole. Files of others stay where they are.
TEST(SetAsideCheckpointTest, ItsCopiesGoAlongAndAreKnown) {
  MemEnv env;
  WriteTwo(env);
  AddCopyOf(env, "/run/epoch_1", ".pth", "of epoch_1");
  AddCopyOf(env, "/run/epoch_2", ".pth", "of epoch_2");
  AddCopyOf(env, "/run/epoch_2", ".safetensors", "weights");
  ASSERT_THAT(WriteFileAndSync(env, "/run/epoch_2.safetensors", "changed"),
              IsOk());
  FlipABit(env, kFile, 1);
  ASSERT_THAT(SetAsideCheckpoint(env, "/run/epoch_2"), IsOk());
  EXPECT_THAT(*env.ListDir("/run"),
              ElementsAre("epoch_1", "epoch_1.pth", "epoch_2.damaged",
                          "epoch_2.damaged.pth", "epoch_2.safetensors",
                          "last_checkpoint"));
  EXPECT_THAT(ListCopies(env, "/run/epoch_2.damaged"),
              ElementsAre("/run/epoch_2.damaged.pth"));
  EXPECT_EQ(*ReadFile(env, "/run/epoch_2.damaged.pth"), "of epoch_2");
  EXPECT_EQ(*ReadFile(env, "/run/epoch_2.safetensors"), "changed");
}

TEST(SetAsideCheckpointTest, NoFileIsReplacedByACopy) {
  MemEnv env;
  WriteTwo(env);
  AddCopyOf(env, "/run/epoch_2", ".pth", "of epoch_2");
  ASSERT_THAT(WriteFileAndSync(env, "/run/epoch_2.damaged.pth", "mine"),
              IsOk());
  EXPECT_EQ(*SetAsideCheckpoint(env, "/run/epoch_2"), "/run/epoch_2.damaged-2");
  EXPECT_EQ(*ReadFile(env, "/run/epoch_2.damaged.pth"), "mine");
  EXPECT_EQ(*ReadFile(env, "/run/epoch_2.damaged-2.pth"), "of epoch_2");
}

// Counts how often a file is opened, which fails if it is told so.
class OneFileEnv : public EnvWrapper {
 public:
  OneFileEnv(Env& target, std::string path, absl::Status status)
      : EnvWrapper(target),
        path_(std::move(path)),
        status_(std::move(status)) {}

  absl::StatusOr<std::unique_ptr<RandomAccessFile>> NewRandomAccessFile(
      const std::string& path) override {
    if (path == path_) {
      ++times_opened_;
      if (!status_.ok()) return status_;
    }
    return EnvWrapper::NewRandomAccessFile(path);
  }

  int times_opened() const { return times_opened_; }

 private:
  const std::string path_;
  const absl::Status status_;
  int times_opened_ = 0;
};

// Or the next one of its name would replace a checkpoint that may be mended.
TEST(SetAsideCheckpointTest, ACopyThatCannotBeReadStaysBehind) {
  MemEnv mem;
  WriteTwo(mem);
  AddCopyOf(mem, "/run/epoch_2", ".pth", "of epoch_2");
  AddCopyOf(mem, "/run/epoch_2", ".safetensors", "weights");
  FlipABit(mem, kFile, 1);
  OneFileEnv env(mem, "/run/epoch_2.pth", absl::UnavailableError("i/o error"));
  EXPECT_EQ(*SetAsideCheckpoint(env, "/run/epoch_2"), "/run/epoch_2.damaged");
  CheckpointContents next;
  next.blobs.emplace_back("state", "next");
  ASSERT_THAT(WriteCheckpoint(env, "/run", "epoch_2", next), IsOk());
  ASSERT_THAT(RemoveLeftovers(env, "/run"), IsOk());
  EXPECT_THAT(*mem.ListDir("/run"),
              ElementsAre("epoch_1", "epoch_2", "epoch_2.damaged",
                          "epoch_2.damaged.safetensors", "epoch_2.pth",
                          "last_checkpoint"));
  EXPECT_EQ(*ReadFile(mem, "/run/epoch_2.pth"), "of epoch_2");
}

TEST(SetAsideCheckpointTest, ANameWithAFileThatCannotBeReadIsTaken) {
  MemEnv mem;
  WriteTwo(mem);
  AddCopyOf(mem, "/run/epoch_2", ".pth", "of epoch_2");
  ASSERT_THAT(WriteFileAndSync(mem, "/run/epoch_2.damaged.pth", "of epoch_2"),
              IsOk());
  OneFileEnv env(mem, "/run/epoch_2.damaged.pth",
                 absl::PermissionDeniedError("not yours"));
  EXPECT_EQ(*SetAsideCheckpoint(env, "/run/epoch_2"), "/run/epoch_2.damaged-2");
  EXPECT_EQ(*ReadFile(mem, "/run/epoch_2.damaged-2.pth"), "of epoch_2");
}

// An attempt before was cut short once the copy had its new name, and then
// somebody put a file in its place.
TEST(SetAsideCheckpointTest, AnAttemptThatFailsReplacesNothing) {
  MemEnv mem;
  WriteTwo(mem);
  AddCopyOf(mem, "/run/epoch_2", ".pth", "of epoch_2");
  ASSERT_THAT(mem.Rename("/run/epoch_2.pth", "/run/epoch_2.damaged.pth"),
              IsOk());
  ASSERT_THAT(WriteFileAndSync(mem, "/run/epoch_2.pth", "mine"), IsOk());
  FaultInjectionEnv env(mem, "/");
  env.FailOperation(0, absl::PermissionDeniedError("not yours"));
  EXPECT_THAT(SetAsideCheckpoint(env, "/run/epoch_2"),
              StatusIs(absl::StatusCode::kPermissionDenied, _));
  EXPECT_EQ(*ReadFile(mem, "/run/epoch_2.pth"), "mine");
  EXPECT_EQ(*ReadFile(mem, "/run/epoch_2.damaged.pth"), "of epoch_2");
}

// A copy that was made anew several times may have many gigabytes.
TEST(SetAsideCheckpointTest, ACopyIsReadOnceHoweverManyNotesTellOfIt) {
  MemEnv mem;
  WriteTwo(mem);
  for (const char* content : {"1", "2", "3", "x"}) {
    AddCopyOf(mem, "/run/epoch_2", ".pth", content);
  }
  ASSERT_THAT(WriteFileAndSync(mem, "/run/epoch_2.pth", "m"), IsOk());
  OneFileEnv env(mem, "/run/epoch_2.pth", absl::OkStatus());
  EXPECT_THAT(SetAsideCheckpoint(env, "/run/epoch_2"), IsOk());
  EXPECT_EQ(env.times_opened(), 1);
}

TEST(SetAsideCheckpointTest, OtherNamesAreFree) {
  for (const char* name :
       {"epoch_2", "damaged", "epoch_2.damaged-", "epoch_2.damaged-x",
        "epoch_2-damaged-2", "-2", "epoch_2.damaged.pth"}) {
    EXPECT_FALSE(IsSetAsideName(name)) << name;
  }
}

TEST(SetAsideCheckpointTest, WhatIsNoCheckpointsNameIsRefused) {
  MemEnv env;
  for (const char* path : {"", "/", "/run/..", "/run/.lock"}) {
    EXPECT_THAT(SetAsideCheckpoint(env, path),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         HasSubstr("does not name a checkpoint")));
  }
}

// At each operation it fails, or the power goes out: the damaged one is there,
// whole, under one of the two names, and the good one is found. Its copy is
// with it then, or as soon as the next search has set it aside, unless it could
// not be renamed.
TEST(SetAsideCheckpointTest, LosesNothingWhateverFails) {
  for (const auto times : {FaultInjectionEnv::Times::kOnce,
                           FaultInjectionEnv::Times::kFromThenOn}) {
    for (const auto names : {FaultInjectionEnv::Names::kAsSynced,
                             FaultInjectionEnv::Names::kAsSeen}) {
      int failures = 0;
      for (int64_t n = 0;; ++n) {
        MemEnv mem;
        WriteTwo(mem);
        AddCopyOf(mem, "/run/epoch_2", ".pth", "copy");
        FlipABit(mem, kFile, 1);
        const std::vector<std::string> files = *mem.ListDir("/run/epoch_2");
        FaultInjectionEnv env(mem, "/");
        env.FailOperation(n, absl::UnavailableError("i/o error"), times);
        const auto path = SetAsideCheckpoint(env, "/run/epoch_2");
        const bool failed = static_cast<size_t>(n) < env.operations().size();
        ASSERT_THAT(env.Crash(names), IsOk());
        if (failed) ++failures;
        const bool copy_stays = path.ok() && failed;
        EXPECT_EQ(copy_stays,
                  n == 0 && times == FaultInjectionEnv::Times::kOnce);
        const bool was_renamed = env.FileExists("/run/epoch_2.damaged");
        EXPECT_NE(was_renamed, env.FileExists("/run/epoch_2"));
        EXPECT_TRUE(was_renamed || !path.ok());
        EXPECT_EQ(
            *env.ListDir(was_renamed ? "/run/epoch_2.damaged" : "/run/epoch_2"),
            files);
        std::vector<RejectedCheckpoint> rejected;
        const auto latest = SearchLatestCheckpoint(env, "/run", &rejected);
        ASSERT_THAT(latest, IsOk());
        EXPECT_EQ(latest->path, "/run/epoch_1");
        if (!was_renamed) {
          ASSERT_THAT(SetAsideCheckpoint(env, "/run/epoch_2"), IsOk());
        }
        EXPECT_THAT(
            *env.ListDir("/run"),
            ElementsAre("epoch_1", "epoch_2.damaged",
                        copy_stays ? "epoch_2.pth" : "epoch_2.damaged.pth",
                        "last_checkpoint"));
        if (!failed) break;
      }
      EXPECT_GE(failures, 4);
    }
  }
}

// What can't be read now may be good.
TEST(RejectedCheckpointsTest, WhatCannotBeReadIsNotDamaged) {
  MemEnv env;
  WriteTwo(env);
  for (const absl::Status& status :
       {absl::UnavailableError("i/o error"),
        absl::PermissionDeniedError("not yours"),
        absl::ResourceExhaustedError("out of memory"),
        absl::UnimplementedError("newer"), absl::InternalError("?")}) {
    EXPECT_FALSE(IsDamaged(env, {"/run/epoch_2", status})) << status;
  }
  EXPECT_TRUE(IsDamaged(env, {"/run/epoch_2", absl::DataLossError("bad")}));
}

}  // namespace
}  // namespace io
}  // namespace grapnel
