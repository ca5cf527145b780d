#include "grapnel/io/run_checkpoints.h"

#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/checkpoint_manifest.pb.h"
#include "grapnel/io/env.h"
#include "grapnel/io/fault_injection_env.h"
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

TEST(RunCheckpointsTest, OnlyOnesOwnAreDeleted) {
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

}  // namespace
}  // namespace io
}  // namespace grapnel
