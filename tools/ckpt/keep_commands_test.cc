#include "grapnel/tools/ckpt/keep_commands.h"

#include <cstdint>
#include <functional>
#include <memory>
#include <ostream>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "grapnel/base/fake_clock.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/checkpoint_manifest.pb.h"
#include "grapnel/io/env.h"
#include "grapnel/io/env_wrapper.h"
#include "grapnel/io/meanwhile_env.h"
#include "grapnel/io/run_checkpoints.h"
#include "grapnel/runner/run_lock.h"
#include "grapnel/tools/ckpt/checkpoints_for_test.h"
#include "grapnel/tools/ckpt/ckpt_command.h"
#include "grapnel/tools/exit_code.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace grapnel {
namespace {

using Code = absl::StatusCode;
using testing::AllOf;
using testing::ContainsRegex;
using testing::ElementsAre;
using testing::EndsWith;
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

  // "epoch_2: newest 1", "epoch_1: goes" of what gc says of checkpoints.
  std::vector<std::string> Verdicts(const nlohmann::json& json) {
    std::vector<std::string> verdicts;
    for (const auto& checkpoint : json["checkpoints"]) {
      std::string reasons;
      for (const auto& reason : checkpoint["reasons"]) {
        absl::StrAppend(&reasons, reasons.empty() ? "" : ", ",
                        reason.get<std::string>());
      }
      verdicts.push_back(absl::StrCat(checkpoint["path"].get<std::string>(),
                                      ": ",
                                      reasons.empty() ? "goes" : reasons));
    }
    return verdicts;
  }

  std::string Last() {
    return io::ReadFile(env_, "/w/last_checkpoint").value_or("none");
  }

  FakeClock clock_;
};

// Of two leftovers of one name, one gets it.
TEST_F(KeepCommandsTest, GcSaysWhichLeftoverIsPutBack) {
  for (const char* hidden :
       {"/w/.old-epoch_1-0123abcd", "/w/.trash-epoch_1-0123abcd"}) {
    Save(1);
    ASSERT_THAT(io::PinCheckpoint(env_, "/w/epoch_1", true), IsOk());
    ASSERT_THAT(env_.Rename("/w/epoch_1", hidden), IsOk());
  }
  for (const bool dry_run : {true, false}) {
    std::vector<std::string> args = {"gc", "/w"};
    if (dry_run) args.push_back("--dry-run");
    const auto json = JsonOutput(CollectGarbage, args);
    ASSERT_THAT(json["leftovers"], SizeIs(2));
    EXPECT_EQ(json["leftovers"][0]["put_back"], false);
    EXPECT_EQ(json["leftovers"][1]["put_back"], true);
  }
  EXPECT_THAT(Left(), ElementsAre("epoch_1"));
}

TEST_F(KeepCommandsTest, GcWithoutRulesDeletesLeftoversAlone) {
  for (const int epoch : {1, 2}) Save(epoch);
  Put("/w/.tmp-epoch_3-0123abcd", "model.safetensors", "123");
  Put("/w/.trash-epoch_0-0123abcd", "model.safetensors", "4567");
  ASSERT_THAT(env_.Rename("/w/epoch_1", "/w/.old-epoch_1-0123abcd"), IsOk());
  Put("/w/.git", "config", "x");

  const auto before = Files("/w");
  const std::string preview = Output(CollectGarbage, {"gc", "/w", "--dry-run"});
  EXPECT_EQ(Files("/w"), before);
  EXPECT_THAT(
      preview,
      AllOf(HasSubstr("/w/.tmp-epoch_3-0123abcd "),
            HasSubstr("leftover: would be put back as epoch_1\n"),
            HasSubstr("leftover: would be deleted\n"),
            HasSubstr("would free 7 B; nothing was changed, nor locked: ")));

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

struct DamageCase {
  std::string name;
  std::string file;  // In epoch_6.
  bool cut = false;  // Else a bit is flipped.
};

void PrintTo(const DamageCase& c, std::ostream* os) { *os << c.name; }

class DamagedNewestTest : public KeepCommandsTest,
                          public testing::WithParamInterface<DamageCase> {};

TEST_P(DamagedNewestTest, IsNoReasonForOthersToGo) {
  for (const int epoch : {4, 5, 6}) Save(epoch);
  const std::string path = "/w/epoch_6/" + GetParam().file;
  if (GetParam().cut) {
    Cut(path);
  } else {
    Damage(path);
  }
  for (const std::string rule : {"--keep-last=1", "--keep-every=6"}) {
    const auto preview =
        JsonOutput(CollectGarbage, {"gc", "/w", rule, "--dry-run"});
    EXPECT_THAT(
        Verdicts(preview),
        testing::UnorderedElementsAre(
            "/w/epoch_4: goes", StartsWith("/w/epoch_5: newest"),
            AllOf(StartsWith("/w/epoch_6: bad: "), HasSubstr(GetParam().file),
                  EndsWith(", last_checkpoint"))))
        << rule;
  }
  const auto json = JsonOutput(CollectGarbage, {"gc", "/w", "--keep-last=1"});
  EXPECT_THAT(Left(), ElementsAre("epoch_5", "epoch_6"));
  EXPECT_THAT(io::ReadCheckpoint(env_, "/w/epoch_5"), IsOk());
}

INSTANTIATE_TEST_SUITE_P(
    Damages, DamagedNewestTest,
    testing::Values(DamageCase{"CutSection", "model.safetensors", true},
                    DamageCase{"FlippedBit", "model.safetensors"},
                    DamageCase{"FlippedBitInABlob", "state.pb"}),
    [](const auto& info) { return info.param.name; });

TEST_F(KeepCommandsTest, GcKeepsAllOfARunWhoseOthersAreBad) {
  for (const int epoch : {1, 2, 3}) Save(epoch);
  Damage("/w/epoch_3/optimizer.safetensors");
  Damage("/w/epoch_2/ema.safetensors");
  ASSERT_THAT(io::PinCheckpoint(env_, "/w/epoch_2", true), IsOk());
  EXPECT_THAT(Verdicts(JsonOutput(CollectGarbage, {"gc", "/w", "--keep-best=1",
                                                   "--metric=accuracy/top1"})),
              testing::UnorderedElementsAre(
                  "/w/epoch_1: newest, best 1 by accuracy/top1",
                  StartsWith("/w/epoch_2: pinned, bad: ema.safetensors: "),
                  StartsWith("/w/epoch_3: bad: optimizer.safetensors: ")));
  EXPECT_THAT(Left(), ElementsAre("epoch_1", "epoch_2", "epoch_3"));
}

TEST_F(KeepCommandsTest, GcKeepsWhatARunThatWentBackGoesOnFrom) {
  for (const int epoch : {3, 5, 6}) Save(epoch);
  io::CheckpointContents again = Contents(4);
  again.manifest().set_created_unix_nanos(
      Contents(7).manifest().created_unix_nanos());
  ASSERT_THAT(io::WriteCheckpoint(env_, "/w", "epoch_4", again), IsOk());
  ASSERT_THAT(io::WriteLastCheckpoint(env_, "/w", "/w/epoch_4"), IsOk());
  EXPECT_THAT(
      Verdicts(JsonOutput(CollectGarbage, {"gc", "/w", "--keep-last=2"})),
      ElementsAre("/w/epoch_3: newest 2",
                  "/w/epoch_4: newest 2, last_checkpoint", "/w/epoch_5: goes",
                  "/w/epoch_6: goes"));
}

TEST_F(KeepCommandsTest, GcSparesOtherRunsInAFolderItIsLedTo) {
  run_ = std::string(16, '\xcd');
  for (const int epoch : {1, 2}) {
    ASSERT_THAT(io::WriteCheckpoint(env_, "/out", absl::StrCat("other_", epoch),
                                    Contents(epoch)),
                IsOk());
  }
  run_ = std::string(16, '\xab');
  for (const int epoch : {1, 2}) {
    ASSERT_THAT(io::WriteCheckpoint(env_, "/out", absl::StrCat("epoch_", epoch),
                                    Contents(epoch)),
                IsOk());
  }
  ASSERT_THAT(io::WriteLastCheckpoint(env_, "/w", "/out/epoch_2"), IsOk());
  EXPECT_THAT(
      Verdicts(JsonOutput(CollectGarbage, {"gc", "/w", "--keep-last=1"})),
      ElementsAre("/w/../out/epoch_1: goes",
                  "/w/../out/epoch_2: newest 1, last_checkpoint"));
  EXPECT_TRUE(env_.FileExists("/out/other_1"));
}

TEST_F(KeepCommandsTest, GcSeesThePinOfEitherCopy) {
  for (const int epoch : {1, 2}) Save(epoch);
  // A copy of epoch_1, byte by byte, and another epoch_2 of that name.
  ASSERT_THAT(env_.CreateDir("/out"), IsOk());
  ASSERT_THAT(env_.CreateDir("/out/epoch_1"), IsOk());
  const auto names = env_.ListDir("/w/epoch_1");
  ASSERT_THAT(names, IsOk());
  for (const std::string& name : *names) {
    Put("/out/epoch_1", name,
        io::ReadFile(env_, "/w/epoch_1/" + name).value_or("?"));
  }
  ASSERT_THAT(io::PinCheckpoint(env_, "/out/epoch_1", true), IsOk());
  io::CheckpointContents other = Contents(1);
  ASSERT_THAT(io::WriteCheckpoint(env_, "/out", "epoch_2", other), IsOk());
  ASSERT_THAT(io::WriteCheckpoint(env_, "/out", "epoch_3", Contents(3)),
              IsOk());
  ASSERT_THAT(io::WriteLastCheckpoint(env_, "/w", "/out/epoch_3"), IsOk());
  EXPECT_THAT(
      Verdicts(JsonOutput(CollectGarbage, {"gc", "/w", "--keep-last=2"})),
      ElementsAre("/w/epoch_1: pinned", "/w/../out/epoch_1: pinned",
                  "/w/../out/epoch_2: goes", "/w/epoch_2: newest 2",
                  "/w/../out/epoch_3: newest 2, last_checkpoint"));
}

TEST_F(KeepCommandsTest, GcNamesAndCountsCopies) {
  for (const int epoch : {1, 2}) {
    Save(epoch);
    const std::string path = absl::StrCat("/w/epoch_", epoch);
    Put("/w", ".written", "12345");
    ASSERT_THAT(io::AddCopy(env_, path, ".pth", "/w/.written"), IsOk());
    Put("/w", absl::StrCat("epoch_", epoch, ".safetensors"), "the user's");
  }
  const std::string text =
      Output(CollectGarbage, {"gc", "/w", "--keep-last=1", "--dry-run"});
  EXPECT_THAT(text, ContainsRegex("/w/epoch_1.pth +5 B +copy: would be "
                                  "deleted\n"));
  EXPECT_THAT(text, ContainsRegex("/w/epoch_2.pth +5 B +copy: stays\n"));
  const auto json = JsonOutput(CollectGarbage, {"gc", "/w", "--keep-last=1"});
  const auto& gone = json["checkpoints"][0];
  EXPECT_EQ(gone["copies"][0]["path"], "/w/epoch_1.pth");
  EXPECT_EQ(gone["copies"][0]["bytes"], 5);
  EXPECT_EQ(json["bytes"].get<int64_t>(), gone["bytes"].get<int64_t>() + 5);
  EXPECT_THAT(Left(), ElementsAre("epoch_1.safetensors", "epoch_2",
                                  "epoch_2.pth", "epoch_2.safetensors"));
}

// The system deletes no weights.
class StuckEnv : public io::EnvWrapper {
 public:
  using EnvWrapper::EnvWrapper;
  absl::Status DeleteFile(const std::string& path) override {
    if (io::Basename(path) == "model.safetensors") {
      return absl::PermissionDeniedError(path + ": cannot delete");
    }
    return EnvWrapper::DeleteFile(path);
  }
};

TEST_F(KeepCommandsTest, GcCountsTheCopyOfWhatCannotBeDeletedWhole) {
  for (const int epoch : {1, 2}) Save(epoch);
  Put("/w", ".written", "12345");
  ASSERT_THAT(io::AddCopy(env_, "/w/epoch_1", ".pth", "/w/.written"), IsOk());
  StuckEnv env(env_);
  CkptCommand command;
  command.verb = CkptCommand::Verb::kGc;
  command.paths = {"/w"};
  command.keep_last = 1;
  std::ostringstream out;
  EXPECT_EQ(CollectGarbage(command, env, out).value_or(kBadInput), kRunFailed);
  EXPECT_THAT(out.str(), HasSubstr("can't be deleted: "));
  EXPECT_THAT(out.str(), ContainsRegex("/w/epoch_1.pth +5 B +copy: deleted\n"));
  EXPECT_THAT(out.str(), HasSubstr("freed 5 B\n"));
  EXPECT_THAT(Left(), ElementsAre("epoch_2"));
}

TEST_F(KeepCommandsTest, GcSparesWhatIsPinnedMeanwhile) {
  for (const int epoch : {1, 2, 3}) Save(epoch);
  io::MeanwhileEnv env(env_, "/w/epoch_1", [this] {
    EXPECT_THAT(io::PinCheckpoint(env_, "/w/epoch_1", true), IsOk());
  });
  commands_env_ = &env;
  const auto json = JsonOutput(CollectGarbage, {"gc", "/w", "--keep-last=1"});
  EXPECT_THAT(Verdicts(json),
              ElementsAre("/w/epoch_1: pinned", "/w/epoch_2: goes",
                          "/w/epoch_3: newest 1, last_checkpoint"));
  EXPECT_EQ(json["checkpoints"][0]["stays"], true);
  EXPECT_THAT(json["problems"], IsEmpty());
  EXPECT_EQ(json["bytes"], json["checkpoints"][1]["bytes"]);
  EXPECT_THAT(Left(), ElementsAre("epoch_1", "epoch_3"));
}

TEST_F(KeepCommandsTest, GcDeletesNothingInAFolderThatItHasNotLocked) {
  for (const int epoch : {1, 2}) Save(epoch);
  ASSERT_THAT(io::WriteCheckpoint(env_, "/out", "epoch_1", Contents(1)),
              IsOk());
  io::MeanwhileEnv env(env_, "/w/.lock", [this] {
    EXPECT_THAT(io::WriteLastCheckpoint(env_, "/w", "/out/epoch_1"), IsOk());
  });
  commands_env_ = &env;
  EXPECT_THAT(
      Run(CollectGarbage, {"gc", "/w", "--keep-last=1"}).exit_code,
      StatusIs(Code::kAborted, HasSubstr("leads to another folder than")));
  EXPECT_THAT(Left(), ElementsAre("epoch_1", "epoch_2"));
}

// A file system without locks.
class LocklessEnv : public io::EnvWrapper {
 public:
  using EnvWrapper::EnvWrapper;
  absl::StatusOr<std::unique_ptr<io::FileLock>> LockFile(
      const std::string& path) override {
    return absl::UnimplementedError(
        absl::StrCat(path, ": cannot lock: function not implemented"));
  }
};

TEST_F(KeepCommandsTest, WithoutLocksGcDeletesNothing) {
  Put("/w/.tmp-epoch_3-0123abcd", "model.safetensors", "123");
  LocklessEnv env(env_);
  commands_env_ = &env;
  Output(CollectGarbage, {"gc", "/w", "--dry-run"});
  EXPECT_THAT(
      Run(CollectGarbage, {"gc", "/w"}).exit_code,
      StatusIs(Code::kFailedPrecondition, HasSubstr("can't be kept out")));
  EXPECT_TRUE(env_.FileExists("/w/.tmp-epoch_3-0123abcd/model.safetensors"));
}

TEST_F(KeepCommandsTest, WithoutLocksRepairLastNamesTheOneAndChangesNothing) {
  for (const int epoch : {1, 2}) Save(epoch);
  LocklessEnv env(env_);
  commands_env_ = &env;
  EXPECT_EQ(Output(RepairLastCheckpoint, {"repair-last", "/w"}),
            "last_checkpoint: /w/epoch_2, which is good\n");
  Damage("/w/epoch_2/model.safetensors");
  const auto before = Files("/w");
  EXPECT_THAT(
      Run(RepairLastCheckpoint, {"repair-last", "/w"}).exit_code,
      StatusIs(Code::kFailedPrecondition,
               AllOf(HasSubstr("can't be kept out"),
                     HasSubstr("the newest good one is /w/epoch_1, "))));
  EXPECT_EQ(Files("/w"), before);
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
  EXPECT_THAT(Output(CollectGarbage, {"gc", "/w", "--dry-run"}),
              HasSubstr("nothing was changed, nor locked"));
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
  Put("/w/epoch_9", "model.safetensors", "");
  EXPECT_THAT(
      Run(PinCheckpoints, {"pin", "/w/epoch_1", "/w/epoch_9"}).exit_code,
      StatusIs(Code::kNotFound,
               HasSubstr("/w/epoch_9: is no checkpoint: has no manifest.pb")));
  EXPECT_FALSE(io::IsPinned(env_, "/w/epoch_1"));
}

TEST_F(KeepCommandsTest, PinSaysThatOneIsSetAside) {
  Save(1);
  ASSERT_THAT(env_.Rename("/w/epoch_1", "/w/epoch_1.damaged"), IsOk());
  EXPECT_EQ(Output(PinCheckpoints, {"pin", "/w/epoch_1.damaged"}),
            "/w/epoch_1.damaged: pinned; it is set aside: a training found it "
            "damaged\n");
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
