#include "grapnel/tools/ckpt/keep_commands.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "grapnel/base/fake_clock.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/checkpoint_manifest.pb.h"
#include "grapnel/io/env.h"
#include "grapnel/io/run_checkpoints.h"
#include "grapnel/runner/run_lock.h"
#include "grapnel/tools/ckpt/checkpoints_for_test.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using Code = absl::StatusCode;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;
using testing::StartsWith;

class KeepCommandsTest : public CheckpointCommandTest {
 protected:
  // Names in /w that aren't hidden, last_checkpoint apart.
  std::vector<std::string> Left() {
    std::vector<std::string> left;
    const auto names = env_.ListDir("/w");
    EXPECT_THAT(names, IsOk());
    for (const std::string& name : *names) {
      if (name[0] != '.' && name != "last_checkpoint") left.push_back(name);
    }
    return left;
  }

  void Put(const std::string& dir, const std::string& file,
           const std::string& bytes) {
    ASSERT_THAT(env_.CreateDir(dir), IsOk());
    ASSERT_THAT(io::WriteFileAtomically(env_, io::JoinPath(dir, file), bytes),
                IsOk());
  }

  // A training that goes on.
  std::unique_ptr<RunLock> Train() {
    RunLock::Options options;
    options.clock = &clock_;
    auto lock = RunLock::Take(env_, {{"work_dir", "/w"}}, options);
    EXPECT_THAT(lock, IsOk());
    return *std::move(lock);
  }

  std::string Last() {
    return io::ReadFile(env_, "/w/last_checkpoint").value_or("none");
  }

  FakeClock clock_;
};

TEST_F(KeepCommandsTest, GcWithoutRulesDeletesLeftoversAlone) {
  for (const int epoch : {1, 2}) Save(epoch);
  Put("/w/.tmp-epoch_3-0123abcd", "model.safetensors", "123");
  Put("/w/.trash-epoch_0-0123abcd", "model.safetensors", "4567");
  ASSERT_THAT(env_.Rename("/w/epoch_1", "/w/.old-epoch_1-0123abcd"), IsOk());
  Put("/w/.git", "config", "x");

  const auto before = Files("/w");
  const std::string preview = Output(CollectGarbage, {"gc", "/w", "--dry-run"});
  EXPECT_EQ(Files("/w"), before);
  EXPECT_THAT(preview,
              AllOf(HasSubstr("/w/.tmp-epoch_3-0123abcd "),
                    HasSubstr("leftover: would be put back as epoch_1\n"),
                    HasSubstr("leftover: would be deleted\n"),
                    HasSubstr("would free 7 B; nothing was changed\n")));

  const auto json = JsonOutput(CollectGarbage, {"gc", "/w"});
  EXPECT_EQ(json["dry_run"], false);
  EXPECT_EQ(json["bytes"], 7);
  ASSERT_THAT(json["leftovers"], SizeIs(3));
  EXPECT_THAT(json["problems"], IsEmpty());
  EXPECT_THAT(Left(), ElementsAre("epoch_1", "epoch_2"));
  EXPECT_FALSE(env_.FileExists("/w/.tmp-epoch_3-0123abcd"));
  EXPECT_FALSE(env_.FileExists("/w/.trash-epoch_0-0123abcd"));
  EXPECT_TRUE(env_.FileExists("/w/.git/config"));
}

TEST_F(KeepCommandsTest, GcDoesWhatItsPreviewSays) {
  for (const int epoch : {1, 2, 3, 4, 5, 6}) Save(epoch);
  ASSERT_THAT(io::PinCheckpoint(env_, "/w/epoch_1", true), IsOk());
  std::vector<std::string> args = {"gc",
                                   "/w",
                                   "--keep-last=1",
                                   "--keep-every=4",
                                   "--keep-best=1",
                                   "--metric=accuracy/top1",
                                   "--dry-run"};
  const auto before = Files("/w");
  const auto preview = JsonOutput(CollectGarbage, args);
  EXPECT_EQ(Files("/w"), before);
  ASSERT_THAT(preview["checkpoints"], SizeIs(6));
  std::vector<std::string> stays;
  for (const auto& checkpoint : preview["checkpoints"]) {
    EXPECT_EQ(checkpoint["stays"].get<bool>(), !checkpoint["reasons"].empty());
    if (checkpoint["stays"].get<bool>()) {
      stays.push_back(io::Basename(checkpoint["path"].get<std::string>()));
    }
  }
  EXPECT_THAT(stays, ElementsAre("epoch_1", "epoch_2", "epoch_4", "epoch_6"));
  EXPECT_THAT(Output(CollectGarbage, args),
              AllOf(HasSubstr("/w/epoch_3 "), HasSubstr("would be deleted\n"),
                    HasSubstr("stays: pinned")));
  args.pop_back();
  EXPECT_THAT(Output(CollectGarbage, args),
              AllOf(HasSubstr("  deleted\n"), HasSubstr("freed ")));
  EXPECT_THAT(Left(), stays);
}

TEST_F(KeepCommandsTest, GcDeletesTheFilesThatWereMadeOfACheckpoint) {
  for (const int epoch : {1, 2}) {
    Save(epoch);
    const std::string path = absl::StrCat("/w/epoch_", epoch);
    ASSERT_THAT(io::NoteCopy(env_, path, ".pth"), IsOk());
    Put("/w", absl::StrCat("epoch_", epoch, ".pth"), std::string(1000, 'x'));
    Put("/w", absl::StrCat("epoch_", epoch, ".safetensors"), "the user's");
  }
  std::vector<std::string> args = {"gc", "/w", "--keep-last=1", "--dry-run"};
  const auto preview = JsonOutput(CollectGarbage, args);
  EXPECT_THAT(Left(), SizeIs(6));
  args.pop_back();
  const auto json = JsonOutput(CollectGarbage, args);
  EXPECT_EQ(json["bytes"], preview["bytes"]);
  EXPECT_GT(json["bytes"].get<int>(), 1000);
  EXPECT_THAT(Left(), ElementsAre("epoch_1.safetensors", "epoch_2",
                                  "epoch_2.pth", "epoch_2.safetensors"));
}

TEST_F(KeepCommandsTest, GcLooksAtEachRunByItself) {
  for (const int epoch : {1, 2}) Save(epoch);
  run_ = std::string(16, '\xcd');
  for (const int epoch : {3, 4}) Save(epoch);
  io::CheckpointContents partial = Contents(1);
  partial.manifest().set_partial(true);
  ASSERT_THAT(io::WriteCheckpoint(env_, "/w", "epoch_1-published", partial),
              IsOk());
  EXPECT_THAT(
      Run(CollectGarbage, {"gc", "/w", "--keep-last=1", "--run=ef"}).exit_code,
      StatusIs(Code::kInvalidArgument,
               AllOf(HasSubstr("none of the runs here"), HasSubstr("abababab"),
                     HasSubstr("cdcdcdcd"))));
  Output(CollectGarbage, {"gc", "/w", "--keep-last=1", "--run=CDCD"});
  EXPECT_THAT(Left(), ElementsAre("epoch_1", "epoch_1-published", "epoch_2",
                                  "epoch_4"));
  Output(CollectGarbage, {"gc", "/w", "--keep-last=1"});
  EXPECT_THAT(Left(), ElementsAre("epoch_1-published", "epoch_2", "epoch_4"));
}

TEST_F(KeepCommandsTest, GcKeepsWhatLastCheckpointNamesAndWhatItCannotRead) {
  for (const int epoch : {1, 2, 3}) Save(epoch);
  ASSERT_THAT(io::WriteLastCheckpoint(env_, "/w", "/w/epoch_1"), IsOk());
  Damage("/w/epoch_2/manifest.pb");
  Output(CollectGarbage, {"gc", "/w", "--keep-last=1"});
  EXPECT_THAT(Left(), ElementsAre("epoch_1", "epoch_2", "epoch_3"));
}

TEST_F(KeepCommandsTest, GcRefusesAMetricThatNobodyHas) {
  Save(1);
  EXPECT_THAT(Run(CollectGarbage,
                  {"gc", "/w", "--keep-best=1", "--metric=accuracy/top2"})
                  .exit_code,
              StatusIs(Code::kInvalidArgument,
                       HasSubstr("did you mean \"accuracy/top1\"?")));
  EXPECT_THAT(
      Run(CollectGarbage, {"gc", "/w", "--keep-best=1", "--metric=speed"})
          .exit_code,
      StatusIs(Code::kInvalidArgument, HasSubstr("--rule greater, or")));
}

TEST_F(KeepCommandsTest, WhileATrainingRunsNothingIsTouched) {
  for (const int epoch : {1, 2}) Save(epoch);
  Damage("/w/epoch_2/model.safetensors");
  Put("/w/.tmp-epoch_3-0123abcd", "model.safetensors", "123");
  const std::unique_ptr<RunLock> training = Train();
  const auto before = Files("/w");
  const auto is_refused =
      StatusIs(Code::kAborted,
               AllOf(HasSubstr("another run: host "), HasSubstr(", process ")));
  EXPECT_THAT(Run(CollectGarbage, {"gc", "/w", "--keep-last=1"}).exit_code,
              is_refused);
  EXPECT_THAT(Run(RepairLastCheckpoint, {"repair-last", "/w"}).exit_code,
              is_refused);
  EXPECT_EQ(Files("/w"), before);
}

TEST_F(KeepCommandsTest, PinAndRemove) {
  for (const int epoch : {1, 2}) Save(epoch);
  EXPECT_EQ(Output(PinCheckpoints, {"pin", "/w/epoch_1", "/w/epoch_2"}),
            "/w/epoch_1: pinned\n/w/epoch_2: pinned\n");
  EXPECT_TRUE(io::IsPinned(env_, "/w/epoch_1"));
  EXPECT_EQ(Output(PinCheckpoints, {"pin", "/w/epoch_1"}),
            "/w/epoch_1: pinned already\n");
  const auto json =
      JsonOutput(PinCheckpoints, {"pin", "/w/epoch_1", "--remove"});
  EXPECT_EQ(json["pinned"], false);
  EXPECT_EQ(json["checkpoints"][0]["was_pinned"], true);
  EXPECT_FALSE(io::IsPinned(env_, "/w/epoch_1"));
  EXPECT_TRUE(io::IsPinned(env_, "/w/epoch_2"));
  EXPECT_THAT(io::ReadCheckpoint(env_, "/w/epoch_2"), IsOk());
}

TEST_F(KeepCommandsTest, PinIsOfAllOrNone) {
  Save(1);
  EXPECT_THAT(
      Run(PinCheckpoints, {"pin", "/w/epoch_1", "/w/epoch_3"}).exit_code,
      StatusIs(Code::kNotFound, HasSubstr("epoch_3")));
  EXPECT_FALSE(io::IsPinned(env_, "/w/epoch_1"));
}

TEST_F(KeepCommandsTest, RepairLastTakesTheNewestGoodOne) {
  for (const int epoch : {1, 2, 3}) Save(epoch);
  Damage("/w/epoch_3/optimizer.safetensors");  // All lengths are right.
  const std::string text = Output(RepairLastCheckpoint, {"repair-last", "/w"});
  EXPECT_THAT(text, AllOf(StartsWith("passed over /w/epoch_3"),
                          HasSubstr("conv.weight/momentum_buffer"),
                          HasSubstr("last_checkpoint: was /w/epoch_3, is "
                                    "/w/epoch_2\n")));
  EXPECT_EQ(Last(), "epoch_2");
  EXPECT_TRUE(env_.FileExists("/w/epoch_3/manifest.pb"));
  EXPECT_FALSE(env_.FileExists("/w/.lock"));
  const auto json = JsonOutput(RepairLastCheckpoint, {"repair-last", "/w"});
  EXPECT_EQ(json["changed"], false);
  EXPECT_EQ(json["is"], "/w/epoch_2");
  EXPECT_THAT(json["passed_over"], SizeIs(1));
}

TEST_F(KeepCommandsTest, RepairLastMakesAMissingOne) {
  Save(1);
  ASSERT_THAT(env_.DeleteFile("/w/last_checkpoint"), IsOk());
  EXPECT_EQ(Output(RepairLastCheckpoint, {"repair-last", "/w"}),
            "last_checkpoint: was not there, is /w/epoch_1\n");
  EXPECT_EQ(Last(), "epoch_1");
}

TEST_F(KeepCommandsTest, RepairLastFindsThoseOfAnotherFolder) {
  ASSERT_THAT(io::WriteCheckpoint(env_, "/out/w", "epoch_1", Contents(1)),
              IsOk());
  EXPECT_THAT(Run(RepairLastCheckpoint, {"repair-last", "/w"}).exit_code,
              StatusIs(Code::kDataLoss, HasSubstr("no good checkpoint")));
  EXPECT_EQ(Output(RepairLastCheckpoint, {"repair-last", "/w", "/out/w"}),
            "last_checkpoint: was not there, is /out/w/epoch_1\n");
  EXPECT_EQ(Last(), "../out/w/epoch_1");
}

TEST_F(KeepCommandsTest, RepairLastNeedsAGoodOne) {
  Save(1);
  Damage("/w/epoch_1/model.safetensors");
  EXPECT_THAT(Run(RepairLastCheckpoint, {"repair-last", "/w"}).exit_code,
              StatusIs(Code::kDataLoss,
                       AllOf(HasSubstr("no good checkpoint; passed over: "),
                             HasSubstr("bytes differ"))));
  EXPECT_EQ(Last(), "epoch_1");
}

}  // namespace
}  // namespace grapnel
