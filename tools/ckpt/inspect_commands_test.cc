#include "grapnel/tools/ckpt/inspect_commands.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/hooks/checkpoint/best_checkpoints.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/checkpoint_manifest.pb.h"
#include "grapnel/io/env.h"
#include "grapnel/io/env_wrapper.h"
#include "grapnel/io/rejected_checkpoints.h"
#include "grapnel/io/run_checkpoints.h"
#include "grapnel/io/safetensors.h"
#include "grapnel/tools/ckpt/checkpoints_for_test.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using Code = absl::StatusCode;
using testing::_;
using testing::AllOf;
using testing::ElementsAre;
using testing::EndsWith;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;
using testing::StartsWith;

class InspectCommandsTest : public CheckpointCommandTest {
 protected:
  static std::vector<std::string> Lines(const std::string& out) {
    return absl::StrSplit(out, '\n', absl::SkipEmpty());
  }
};

TEST_F(InspectCommandsTest, LsIsByIterationAndSaysWhatEachIs) {
  for (const int epoch : {1, 2, 10}) Save(epoch);
  BestCheckpointList best;
  best.Add()->set_indicator("accuracy/top1");
  best[0].set_name("epoch_2");
  ASSERT_THAT(WriteBestCheckpoints(env_, "/w", run_, best), IsOk());
  ASSERT_THAT(env_.CreateDir("/w/logs"), IsOk());
  const std::vector<std::string> lines =
      Lines(Output(ListCheckpoints, {"ls", "/w"}));
  ASSERT_THAT(lines, SizeIs(4));
  EXPECT_THAT(lines[0], StartsWith("checkpoint  epoch  iter  saved"));
  EXPECT_THAT(lines[1], AllOf(StartsWith("epoch_1     1      10    2023-11-1"),
                              HasSubstr("accuracy/top1 0.8   abababab"),
                              Not(HasSubstr("last"))));
  EXPECT_THAT(lines[2], AllOf(StartsWith("epoch_2 "),
                              testing::EndsWith("best accuracy/top1")));
  EXPECT_THAT(lines[3],
              AllOf(StartsWith("epoch_10 "), testing::EndsWith("  last")));
}

TEST_F(InspectCommandsTest, LsNamesWhatIsBadAndWhy) {
  for (const int epoch : {1, 2, 3}) Save(epoch);
  Cut("/w/epoch_2/model.safetensors");
  Damage("/w/epoch_3/manifest.pb");
  ASSERT_THAT(env_.CreateDir("/w/iter_7"), IsOk());
  const auto json = JsonOutput(ListCheckpoints, {"ls", "/w"});
  ASSERT_THAT(json["checkpoints"], SizeIs(4));
  EXPECT_EQ(json["checkpoints"][0]["name"], "epoch_1");
  EXPECT_TRUE(json["checkpoints"][0]["bad"].is_null());
  EXPECT_EQ(json["checkpoints"][1]["name"], "epoch_2");
  EXPECT_THAT(json["checkpoints"][1]["bad"].get<std::string>(),
              AllOf(StartsWith("model.safetensors: has "),
                    HasSubstr("the manifest says"),
                    HasSubstr("the first bad tensor is ")));
  EXPECT_EQ(json["checkpoints"][2]["name"], "epoch_3");
  EXPECT_THAT(json["checkpoints"][2]["bad"].get<std::string>(),
              StartsWith("manifest.pb: "));
  EXPECT_EQ(json["checkpoints"][3]["name"], "iter_7");
  EXPECT_THAT(json["checkpoints"][3]["bad"].get<std::string>(),
              HasSubstr("no checkpoint: has no manifest.pb"));
  const std::string text = Output(ListCheckpoints, {"ls", "/w"});
  EXPECT_THAT(text, HasSubstr("bad: model.safetensors: has "));
}

TEST_F(InspectCommandsTest, LsNamesWhatATrainingHasSetAside) {
  for (const int epoch : {1, 2}) Save(epoch);
  Damage("/w/epoch_1/model.safetensors");
  ASSERT_THAT(io::SetAsideCheckpoint(env_, "/w/epoch_1"), IsOk());
  EXPECT_THAT(Output(ListCheckpoints, {"ls", "/w"}),
              HasSubstr("epoch_1.damaged  -      -     -"));
  const auto json = JsonOutput(ListCheckpoints, {"ls", "/w"});
  EXPECT_EQ(json["checkpoints"][0]["set_aside"], false);
  EXPECT_EQ(json["checkpoints"][1]["name"], "epoch_1.damaged");
  EXPECT_EQ(json["checkpoints"][1]["set_aside"], true);
  EXPECT_TRUE(json["checkpoints"][1]["bad"].is_null());
  EXPECT_EQ(json["checkpoints"][1]["pinned"], false);
  ASSERT_THAT(io::PinCheckpoint(env_, "/w/epoch_1.damaged", true), IsOk());
  EXPECT_THAT(Output(ListCheckpoints, {"ls", "/w"}),
              HasSubstr("pinned, damaged, set aside"));
}

TEST_F(InspectCommandsTest, LsNamesFilesThatWereMadeOfCheckpoints) {
  for (const int epoch : {1, 2}) {
    Save(epoch);
    ASSERT_THAT(io::WriteFileAtomically(env_, "/w/.written", "12345"), IsOk());
    ASSERT_THAT(io::AddCopy(env_, absl::StrCat("/w/epoch_", epoch), ".pth",
                            "/w/.written"),
                IsOk());
  }
  // A copy of one that is set aside is so too; this one is the user's.
  Damage("/w/epoch_2/model.safetensors");
  ASSERT_THAT(io::SetAsideCheckpoint(env_, "/w/epoch_2"), IsOk());
  ASSERT_THAT(io::WriteFileAtomically(env_, "/w/epoch_1.safetensors", "12345"),
              IsOk());
  const std::vector<std::string> lines =
      Lines(Output(ListCheckpoints, {"ls", "/w"}));
  ASSERT_THAT(lines, SizeIs(6));
  EXPECT_THAT(lines[1], StartsWith("epoch_1 "));
  EXPECT_THAT(lines[2],
              AllOf(StartsWith("epoch_1.pth          -      -     - "),
                    HasSubstr("  5 B "), EndsWith("  copy")));
  EXPECT_THAT(lines[3], StartsWith("epoch_2.damaged "));
  EXPECT_THAT(lines[4], StartsWith("epoch_2.damaged.pth "));
  EXPECT_THAT(lines[5], StartsWith("last_checkpoint: "));
  const auto json = JsonOutput(ListCheckpoints, {"ls", "/w"});
  ASSERT_THAT(json["checkpoints"][0]["copies"], SizeIs(1));
  EXPECT_EQ(json["checkpoints"][0]["copies"][0]["path"], "/w/epoch_1.pth");
  EXPECT_EQ(json["checkpoints"][0]["copies"][0]["bytes"], 5);
  EXPECT_EQ(json["checkpoints"][1]["copies"][0]["path"],
            "/w/epoch_2.damaged.pth");
}

TEST_F(InspectCommandsTest, LsJsonHasWhatTheManifestSays) {
  Save(3);
  const auto json = JsonOutput(ListCheckpoints, {"ls", "/w"});
  EXPECT_THAT(json["directories"], ElementsAre("/w"));
  EXPECT_EQ(json["last_checkpoint"], "/w/epoch_3");
  EXPECT_TRUE(json["last_checkpoint_problem"].is_null());
  const auto& checkpoint = json["checkpoints"][0];
  EXPECT_EQ(checkpoint["path"], "/w/epoch_3");
  EXPECT_EQ(checkpoint["epoch"], 3);
  EXPECT_EQ(checkpoint["iter"], 30);
  EXPECT_EQ(checkpoint["saved"], "2023-11-14T22:16:20Z");
  EXPECT_EQ(checkpoint["metrics"]["accuracy/top1"], 0.8);
  EXPECT_EQ(checkpoint["run"], "abababababababababababababababab");
  EXPECT_EQ(checkpoint["last"], true);
  EXPECT_EQ(checkpoint["partial"], false);
  EXPECT_GT(checkpoint["bytes"], 500);
}

TEST_F(InspectCommandsTest, LsFollowsLastCheckpointToAnotherFolder) {
  ASSERT_THAT(io::WriteCheckpoint(env_, "/out/w", "epoch_1", Contents(1)),
              IsOk());
  ASSERT_THAT(io::WriteLastCheckpoint(env_, "/w", "/out/w/epoch_1"), IsOk());
  const auto json = JsonOutput(ListCheckpoints, {"ls", "/w/"});
  EXPECT_THAT(json["directories"], SizeIs(2));
  ASSERT_THAT(json["checkpoints"], SizeIs(1));
  EXPECT_EQ(json["checkpoints"][0]["last"], true);
  // And from there, where nothing says which is the last.
  const auto other = JsonOutput(ListCheckpoints, {"ls", "/out/w"});
  EXPECT_EQ(other["checkpoints"][0]["path"], "/out/w/epoch_1");
  EXPECT_EQ(other["checkpoints"][0]["last"], false);
}

TEST_F(InspectCommandsTest, LsSaysWhatIsWrongWithLastCheckpoint) {
  Save(1);
  ASSERT_THAT(io::WriteFileAtomically(env_, "/w/last_checkpoint", "epoch_9"),
              IsOk());
  EXPECT_THAT(Output(ListCheckpoints, {"ls", "/w"}),
              HasSubstr("last_checkpoint: names /w/epoch_9, which is no "
                        "checkpoint\n"));
}

TEST_F(InspectCommandsTest, AnEmptyFolderIsNoError) {
  EXPECT_EQ(Output(ListCheckpoints, {"ls", "/w"}), "/w: no checkpoints\n");
  const auto json = JsonOutput(ListCheckpoints, {"ls", "/w"});
  EXPECT_TRUE(json["last_checkpoint"].is_null());
  EXPECT_THAT(json["checkpoints"], SizeIs(0));
}

// /w/gone leads nowhere.
class DanglingEnv : public io::EnvWrapper {
 public:
  using EnvWrapper::EnvWrapper;
  bool IsSymlink(const std::string& path) override { return path == "/w/gone"; }
  absl::StatusOr<std::vector<std::string>> ListDir(
      const std::string& path) override {
    auto names = EnvWrapper::ListDir(path);
    if (names.ok() && path == "/w") names->push_back("gone");
    return names;
  }
};

TEST_F(InspectCommandsTest, ALinkThatLeadsNowhereIsCalledThat) {
  DanglingEnv env(env_);
  commands_env_ = &env;
  for (const char* const path : {"/w/gone", "/w/gone/"}) {
    EXPECT_THAT(Run(ShowCheckpoint, {"show", path}).exit_code,
                StatusIs(Code::kNotFound,
                         absl::StrCat(path, ": is a link that leads nowhere")));
  }
  commands_env_ = &env_;
}

// Sees whether /w/logs/copies is read.
class WatchingEnv : public io::EnvWrapper {
 public:
  using EnvWrapper::EnvWrapper;
  absl::StatusOr<std::unique_ptr<io::RandomAccessFile>> NewRandomAccessFile(
      const std::string& path) override {
    was_read = was_read || path == "/w/logs/copies";
    return EnvWrapper::NewRandomAccessFile(path);
  }
  bool was_read = false;
};

TEST_F(InspectCommandsTest, LsReadsNothingOfOtherFolders) {
  Save(1);
  ASSERT_THAT(env_.CreateDir("/w/logs"), IsOk());
  ASSERT_THAT(io::WriteFileAtomically(env_, "/w/logs/copies", "mine"), IsOk());
  WatchingEnv env(env_);
  commands_env_ = &env;
  EXPECT_THAT(JsonOutput(ListCheckpoints, {"ls", "/w"})["checkpoints"],
              SizeIs(1));
  EXPECT_FALSE(env.was_read);
  commands_env_ = &env_;
}

TEST_F(InspectCommandsTest, PathsWithTyposSayWhatIsThere) {
  for (const int epoch : {1, 2}) Save(epoch);
  EXPECT_THAT(Run(ShowCheckpoint, {"show", "/w/epcoh_2"}).exit_code,
              StatusIs(Code::kNotFound,
                       AllOf(StartsWith("/w/epcoh_2: there is no such"),
                             HasSubstr("checkpoints in /w: epoch_1, epoch_2"),
                             HasSubstr("did you mean \"epoch_2\"?"))));
  // Which isn't a typo, and not its number.
  EXPECT_THAT(Run(ShowCheckpoint, {"show", "/w/epoch_9"}).exit_code,
              StatusIs(Code::kNotFound, EndsWith("in /w: epoch_1, epoch_2")));
  EXPECT_THAT(Run(ShowCheckpoint, {"show", "/w"}).exit_code,
              StatusIs(Code::kNotFound,
                       HasSubstr("checkpoints in it: epoch_1, epoch_2")));
  EXPECT_THAT(Run(ListCheckpoints, {"ls", "/v"}).exit_code,
              StatusIs(Code::kNotFound, HasSubstr("did you mean \"w\"?")));
  EXPECT_THAT(Run(ListCheckpoints, {"ls", "/w/epoch_1"}).exit_code,
              StatusIs(Code::kInvalidArgument,
                       HasSubstr("is a checkpoint, not a folder of them")));
  EXPECT_THAT(Run(ListCheckpoints, {"ls", "/w/last_checkpoint"}).exit_code,
              StatusIs(Code::kInvalidArgument, HasSubstr("is a file")));
}

TEST_F(InspectCommandsTest, ShowHasProgressPartsAndTensors) {
  Save(3);
  const std::string text = Output(ShowCheckpoint, {"show", "/w/epoch_3"});
  EXPECT_THAT(text, HasSubstr("progress    epoch 3 of 9, iteration 30, "));
  EXPECT_THAT(text, HasSubstr("metrics     accuracy/top1 0.8\n"));
  EXPECT_THAT(text, HasSubstr("settings    2 lines: --config\n"));
  EXPECT_THAT(text, HasSubstr("optimizer  1"));
  EXPECT_THAT(text, HasSubstr("state      -"));
  EXPECT_THAT(text, HasSubstr("conv.weight                  F32    (4, 3)  "
                              "48 B  model\n"));
  EXPECT_THAT(text, HasSubstr("bn.num_batches_tracked       I64    ()      "
                              "8 B   model\n"));
}

TEST_F(InspectCommandsTest, ShowJsonHasAllOfIt) {
  Save(3);
  const auto json = JsonOutput(ShowCheckpoint, {"show", "/w/epoch_3"});
  EXPECT_EQ(json["kind"], "checkpoint");
  EXPECT_EQ(json["name"], "epoch_3");
  EXPECT_EQ(json["progress"]["iter"], 30);
  EXPECT_EQ(json["progress"]["max_epochs"], 9);
  EXPECT_EQ(json["metrics"]["accuracy/top1"], 0.8);
  EXPECT_EQ(json["device"], "cpu");
  ASSERT_THAT(json["parts"], SizeIs(4));
  EXPECT_EQ(json["parts"][0]["name"], "model");
  EXPECT_EQ(json["parts"][0]["kind"], "section");
  EXPECT_EQ(json["parts"][0]["tensors"], 2);
  EXPECT_EQ(json["parts"][3]["name"], "state");
  EXPECT_EQ(json["parts"][3]["kind"], "blob");
  EXPECT_EQ(json["parts"][3]["bytes"], 7);
  ASSERT_THAT(json["tensors"], SizeIs(4));
  EXPECT_EQ(json["tensors"][0]["name"], "conv.weight");
  EXPECT_EQ(json["tensors"][0]["dtype"], "F32");
  EXPECT_THAT(json["tensors"][0]["shape"], ElementsAre(4, 3));
  EXPECT_EQ(json["tensors"][0]["bytes"], 48);
  EXPECT_EQ(json["tensors"][0]["section"], "model");
}

TEST_F(InspectCommandsTest, ShowCutsALongListOfTensors) {
  io::CheckpointContents contents = Contents(1);
  for (int i = 0; i < 30; ++i) {
    Add(absl::StrCat("layer_", i), ops::ones({1}),
        &contents.sections[0].second);
  }
  ASSERT_THAT(io::WriteCheckpoint(env_, "/w", "epoch_1", contents), IsOk());
  const std::string cut = Output(ShowCheckpoint, {"show", "/w/epoch_1"});
  EXPECT_THAT(cut, AllOf(HasSubstr("layer_17 "), Not(HasSubstr("layer_18 ")),
                         HasSubstr("... and 14 more: --all\n")));
  const std::string all =
      Output(ShowCheckpoint, {"show", "/w/epoch_1", "--all"});
  EXPECT_THAT(all, AllOf(HasSubstr("layer_29 "), Not(HasSubstr("more: "))));
  EXPECT_THAT(JsonOutput(ShowCheckpoint, {"show", "/w/epoch_1"})["tensors"],
              SizeIs(34));
}

TEST_F(InspectCommandsTest, ShowConfigIsTheRunsOwn) {
  Save(1);
  EXPECT_EQ(Output(ShowCheckpoint, {"show", "/w/epoch_1", "--config"}),
            "model { }\nrandomness { seed: 1 }\n");
  EXPECT_EQ(
      JsonOutput(ShowCheckpoint, {"show", "/w/epoch_1", "--config"})["config"],
      "model { }\nrandomness { seed: 1 }\n");
  io::CheckpointContents contents = Contents(2);
  contents.manifest().clear_config();
  ASSERT_THAT(io::WriteCheckpoint(env_, "/w", "epoch_2", contents), IsOk());
  EXPECT_THAT(Run(ShowCheckpoint, {"show", "/w/epoch_2", "--config"}).exit_code,
              StatusIs(Code::kNotFound, HasSubstr("has no configuration")));
}

TEST_F(InspectCommandsTest, ShowReadsFilesOfWeights) {
  TensorMap weights;
  Add("fc.weight", ops::ones({2, 5}, at::kBFloat16), &weights);
  ASSERT_THAT(io::WriteSafetensors(env_, "/w/m.safetensors", weights), IsOk());
  EXPECT_THAT(Output(ShowCheckpoint, {"show", "/w/m.safetensors"}),
              HasSubstr("fc.weight  BF16   (2, 5)  20 B  model\n"));
  const auto json = JsonOutput(ShowCheckpoint, {"show", "/w/m.safetensors"});
  EXPECT_EQ(json["kind"], "weights");
  EXPECT_EQ(json["bytes"], 20);
  EXPECT_EQ(json["tensors"][0]["dtype"], "BF16");
  EXPECT_THAT(
      Run(ShowCheckpoint, {"show", "/w/m.safetensors", "--config"}).exit_code,
      StatusIs(Code::kInvalidArgument, HasSubstr("is no checkpoint")));
}

TEST_F(InspectCommandsTest, ABadManifestIsDataLoss) {
  Save(1);
  Damage("/w/epoch_1/manifest.pb");
  EXPECT_THAT(Run(ShowCheckpoint, {"show", "/w/epoch_1"}).exit_code,
              StatusIs(Code::kDataLoss, HasSubstr("/w/epoch_1/manifest.pb")));
}

TEST_F(InspectCommandsTest, DuAddsUpToWhatIsThere) {
  for (const int epoch : {1, 2}) Save(epoch);
  ASSERT_THAT(io::WriteFileAtomically(env_, "/w/epoch_2/mine.txt", "12345"),
              IsOk());
  ASSERT_THAT(env_.CreateDir("/w/.tmp-epoch_3-0123abcd"), IsOk());
  ASSERT_THAT(io::WriteFileAtomically(
                  env_, "/w/.tmp-epoch_3-0123abcd/model.safetensors",
                  std::string(1000, 'x')),
              IsOk());
  int64_t in_all = 0, of_epoch_2 = 0;
  for (const auto& [path, content] : Files("/w")) {
    if (content == "folder" || path == "/w/last_checkpoint") continue;
    in_all += static_cast<int64_t>(content.size());
    if (absl::StrContains(path, "epoch_2")) {
      of_epoch_2 += static_cast<int64_t>(content.size());
    }
  }
  const auto json = JsonOutput(ShowDiskUse, {"du", "/w"});
  EXPECT_EQ(json["bytes"], in_all);
  EXPECT_EQ(json["leftovers"], 1000);
  ASSERT_THAT(json["checkpoints"], SizeIs(2));
  const auto& second = json["checkpoints"][1];
  EXPECT_EQ(second["bytes"], of_epoch_2);
  EXPECT_EQ(second["parts"]["state"], 7);
  EXPECT_EQ(second["parts"]["other"],
            json["checkpoints"][0]["parts"]["other"].get<int>() + 5);
  EXPECT_EQ(json["parts"]["state"], 14);

  const std::vector<std::string> lines =
      Lines(Output(ShowDiskUse, {"du", "/w"}));
  ASSERT_THAT(lines, SizeIs(5));
  EXPECT_THAT(lines[0],
              StartsWith("checkpoint  model  optimizer  ema    state  "
                         "other"));
  EXPECT_THAT(lines[3],
              AllOf(StartsWith("leftovers   -      -"), EndsWith("1.0 kB")));
  EXPECT_THAT(lines[4], StartsWith("in all"));
}

TEST_F(InspectCommandsTest, DuCountsFilesThatWereMadeOfCheckpoints) {
  for (const int epoch : {1, 2}) Save(epoch);
  const auto before = JsonOutput(ShowDiskUse, {"du", "/w"});
  EXPECT_THAT(before["files"], IsEmpty());
  const std::string bytes(2'000'000, 'x');
  ASSERT_THAT(io::WriteFileAtomically(env_, "/w/.written", bytes), IsOk());
  ASSERT_THAT(io::AddCopy(env_, "/w/epoch_1", ".pth", "/w/.written"), IsOk());
  // The other one is the user's.
  ASSERT_THAT(io::WriteFileAtomically(env_, "/w/epoch_2.pth", bytes), IsOk());
  const auto json = JsonOutput(ShowDiskUse, {"du", "/w"});
  ASSERT_THAT(json["files"], SizeIs(1));
  EXPECT_EQ(json["files"][0]["name"], "epoch_1.pth");
  EXPECT_EQ(json["files"][0]["path"], "/w/epoch_1.pth");
  EXPECT_EQ(json["files"][0]["bytes"], 2'000'000);
  // The file, and the note of it in the checkpoint's directory.
  EXPECT_GT(json["bytes"].get<int>(), before["bytes"].get<int>() + 2'000'000);
  EXPECT_THAT(Lines(Output(ShowDiskUse, {"du", "/w"})),
              ElementsAre(_, StartsWith("epoch_1 "),
                          AllOf(StartsWith("epoch_1.pth "), EndsWith("2.0 MB")),
                          StartsWith("epoch_2 "), StartsWith("in all ")));
}

TEST_F(InspectCommandsTest, NothingIsChanged) {
  for (const int epoch : {1, 2}) Save(epoch);
  Damage("/w/epoch_1/manifest.pb");
  const auto before = Files("/w");
  Output(ListCheckpoints, {"ls", "/w"});
  Output(ShowCheckpoint, {"show", "/w/epoch_2"});
  Output(ShowDiskUse, {"du", "/w"});
  EXPECT_EQ(Files("/w"), before);
}

TEST_F(InspectCommandsTest, ShowSaysThatOneIsSetAside) {
  Save(1);
  ASSERT_THAT(env_.Rename("/w/epoch_1", "/w/epoch_1.damaged"), IsOk());
  EXPECT_THAT(Run(ShowCheckpoint, {"show", "/w/epoch_1.damaged"}).exit_code,
              StatusIs(absl::StatusCode::kDataLoss,
                       HasSubstr("; it is set aside: a training found it")));
}

}  // namespace
}  // namespace grapnel
