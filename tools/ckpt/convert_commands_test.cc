#include "grapnel/tools/ckpt/convert_commands.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "gmock/gmock.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/checkpoint_manifest.pb.h"
#include "grapnel/io/env.h"
#include "grapnel/io/safetensors.h"
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

class ConvertCommandsTest : public CheckpointCommandTest {
 protected:
  // The weights in a file, which has nothing else beside it that is hidden.
  TensorMap Weights(const std::string& path) {
    auto weights = io::ReadSafetensors(env_, path);
    EXPECT_THAT(weights, IsOk());
    return weights.value_or(TensorMap());
  }

  std::vector<std::string> Hidden(const std::string& dir) {
    std::vector<std::string> hidden;
    for (const auto& [path, content] : Files(dir)) {
      if (absl::StartsWith(io::Basename(path), ".")) hidden.push_back(path);
    }
    return hidden;
  }
};

TEST_F(ConvertCommandsTest, ExportWritesTheModel) {
  Save(3);
  EXPECT_THAT(Output(ExportWeights, {"export", "/w/epoch_3", "/m.safetensors"}),
              StartsWith("/m.safetensors: safetensors, 2 tensors, "));
  const TensorMap weights = Weights("/m.safetensors");
  ASSERT_EQ(weights.size(), 2u);
  EXPECT_TRUE(ops::equal(*weights.Find("conv.weight"), ops::full({4, 3}, 3.0)));
  EXPECT_THAT(Hidden("/"), IsEmpty());
  const auto json = JsonOutput(ExportWeights,
                               {"export", "/w/epoch_3", "/m", "--safetensors"});
  EXPECT_EQ(json["path"], "/m");
  EXPECT_EQ(json["format"], "safetensors");
  EXPECT_EQ(json["tensors"], 2);
  EXPECT_EQ(io::ReadFile(env_, "/m").value_or("a"),
            io::ReadFile(env_, "/m.safetensors").value_or("b"));
}

TEST_F(ConvertCommandsTest, ExportWritesPth) {
  Save(3);
  for (const char* const name : {"/m.pth", "/m.pt", "/m.bin", "/m.ckpt"}) {
    EXPECT_THAT(Output(ExportWeights, {"export", "/w/epoch_3", name}),
                StartsWith(std::string(name) + ": pth, 2 tensors, "));
    EXPECT_TRUE(absl::StartsWith(io::ReadFile(env_, name).value_or(""), "PK"));
  }
  Output(ExportWeights, {"export", "/w/epoch_3", "/m", "--pth"});
  EXPECT_THAT(Hidden("/"), IsEmpty());
}

TEST_F(ConvertCommandsTest, ExportOfAnAverageHasTheModelsBuffers) {
  Save(3);
  Output(ExportWeights,
         {"export", "/w/epoch_3", "/m.safetensors", "--average=ema"});
  const TensorMap weights = Weights("/m.safetensors");
  EXPECT_TRUE(ops::equal(*weights.Find("conv.weight"), ops::full({4, 3}, 1.5)));
  EXPECT_EQ(weights.Find("bn.num_batches_tracked")->item<int64_t>(), 3);
  EXPECT_THAT(
      Run(ExportWeights, {"export", "/w/epoch_3", "/n.pth", "--average=eam"})
          .exit_code,
      StatusIs(Code::kNotFound, AllOf(HasSubstr("/w/epoch_3: --average: "),
                                      HasSubstr("did you mean \"ema\"?"))));
  EXPECT_THAT(Run(ExportWeights,
                  {"export", "/w/epoch_3", "/n.pth", "--average=optimizer"})
                  .exit_code,
              StatusIs(Code::kNotFound, HasSubstr("is no average")));
  EXPECT_FALSE(env_.FileExists("/n.pth"));
}

// Of half a window of accumulation: by names and shapes they could be one.
TEST_F(ConvertCommandsTest, GradientsAreNoAverage) {
  io::CheckpointContents contents = Contents(3);
  TensorMap gradients;
  Add("conv.weight", ops::full({4, 3}, 0.1), &gradients);
  contents.sections.emplace_back("gradients", std::move(gradients));
  ASSERT_THAT(io::WriteCheckpoint(env_, "/w", "epoch_3", contents), IsOk());
  EXPECT_THAT(Run(ExportWeights,
                  {"export", "/w/epoch_3", "/n.pth", "--average=gradients"})
                  .exit_code,
              StatusIs(Code::kNotFound,
                       HasSubstr("\"gradients\" is no average of the model; "
                                 "there is ema")));
  EXPECT_FALSE(env_.FileExists("/n.pth"));
}

TEST_F(ConvertCommandsTest, NothingIsReplaced) {
  Save(1);
  const auto before = Files("/w");
  for (const std::vector<std::string>& args :
       std::vector<std::vector<std::string>>{
           {"export", "/w/epoch_1", "/w/last_checkpoint", "--pth"},
           {"export", "/w/epoch_1", "/w/epoch_1", "--pth"}}) {
    EXPECT_THAT(Run(ExportWeights, args).exit_code,
                StatusIs(Code::kAlreadyExists, HasSubstr("is there already")));
  }
  EXPECT_THAT(
      Run(ImportWeights, {"import", "/w/x.pth", "/w/epoch_1"}).exit_code,
      StatusIs(Code::kAlreadyExists, HasSubstr("/w/epoch_1")));
  EXPECT_THAT(
      Run(AverageCheckpoints, {"average", "-o", "/w/epoch_1", "/w/epoch_1"})
          .exit_code,
      StatusIs(Code::kAlreadyExists, HasSubstr("/w/epoch_1")));
  EXPECT_EQ(Files("/w"), before);
}

TEST_F(ConvertCommandsTest, ExportNeedsAFormatAndWeights) {
  Save(1);
  EXPECT_THAT(Run(ExportWeights, {"export", "/w/epoch_1", "/m"}).exit_code,
              StatusIs(Code::kInvalidArgument, HasSubstr("say --pth or")));
  EXPECT_THAT(Run(ExportWeights, {"export", "/w", "/m.pth"}).exit_code,
              StatusIs(Code::kNotFound, HasSubstr("epoch_1")));
  EXPECT_THAT(
      Run(ExportWeights, {"export", "/w/epoch_1", "/none/m.pth"}).exit_code,
      StatusIs(Code::kNotFound, HasSubstr("/none")));
  Damage("/w/epoch_1/model.safetensors");
  EXPECT_THAT(Run(ExportWeights, {"export", "/w/epoch_1", "/m.pth"}).exit_code,
              StatusIs(Code::kDataLoss, HasSubstr("model.safetensors")));
  EXPECT_FALSE(env_.FileExists("/m.pth"));
}

TEST_F(ConvertCommandsTest, ImportMakesACheckpointOfTheWeights) {
  TensorMap weights;
  Add("fc.weight", ops::full({2, 5}, 7.0), &weights);
  ASSERT_THAT(io::WriteSafetensors(env_, "/m.safetensors", weights), IsOk());
  EXPECT_THAT(Output(ImportWeights, {"import", "/m.safetensors", "/w/zoo/"}),
              StartsWith("/w/zoo/: checkpoint, 1 tensor, "));
  const auto contents = io::ReadCheckpoint(env_, "/w/zoo");
  ASSERT_THAT(contents, IsOk());
  // No run goes on from it by itself.
  EXPECT_TRUE(contents->manifest().partial());
  EXPECT_THAT(io::FindLatestCheckpoint(env_, "/w", nullptr),
              StatusIs(Code::kNotFound, testing::_));
  EXPECT_TRUE(ops::equal(*contents->FindSection("model")->Find("fc.weight"),
                         ops::full({2, 5}, 7.0)));
  const auto json =
      JsonOutput(ImportWeights, {"import", "/m.safetensors", "/w/again"});
  EXPECT_EQ(json["format"], "checkpoint");
  EXPECT_THAT(json["sections"], ElementsAre("model"));
}

TEST_F(ConvertCommandsTest, ImportRefusesWhatIsNotForIt) {
  Save(1);
  EXPECT_THAT(
      Run(ImportWeights, {"import", "/w/epoch_1", "/w/x"}).exit_code,
      StatusIs(Code::kInvalidArgument, HasSubstr("is a checkpoint already")));
  EXPECT_THAT(Run(ImportWeights, {"import", "/none.pth", "/w/x"}).exit_code,
              StatusIs(Code::kNotFound, HasSubstr("/none.pth")));
  EXPECT_FALSE(env_.FileExists("/w/x"));
}

// Before anything is read: neither /none.pth nor /w/epoch_9 is there.
TEST_F(ConvertCommandsTest, NamesThatNoSearchFindsAreRefusedAtOnce) {
  Save(1);
  const struct {
    std::string to;
    const char* message;
  } kCases[] = {
      {"/w/epoch_3.damaged", "is called as what a training has set aside"},
      {"/w/epoch_3.damaged-2/", "is called as what a training has set aside"},
      {"/w/.hidden", "doesn't begin with \".\""},
      {"/w/" + std::string(201, 'x'), "1 to 200 printable characters"}};
  for (const auto& c : kCases) {
    EXPECT_THAT(Run(ImportWeights, {"import", "/none.pth", c.to}).exit_code,
                StatusIs(Code::kInvalidArgument,
                         AllOf(StartsWith(c.to + ": "), HasSubstr(c.message))));
    EXPECT_THAT(Run(AverageCheckpoints, {"average", "-o", c.to, "/w/epoch_9"})
                    .exit_code,
                StatusIs(Code::kInvalidArgument, HasSubstr(c.message)));
  }
}

TEST_F(ConvertCommandsTest, AModelWhoseOptimizerIsDamagedIsExportedByItsFile) {
  Save(1);
  Damage("/w/epoch_1/optimizer.safetensors");
  const std::string model = "/w/epoch_1/model.safetensors";
  EXPECT_THAT(Run(ExportWeights, {"export", "/w/epoch_1/", "/m.pth"}).exit_code,
              StatusIs(Code::kDataLoss,
                       AllOf(HasSubstr("/optimizer.safetensors: "),
                             HasSubstr("its model alone, read without digests, "
                                       "is " +
                                       model))));
  EXPECT_THAT(Run(AverageCheckpoints, {"average", "-o", "/m.pth", "/w/epoch_1"})
                  .exit_code,
              StatusIs(Code::kDataLoss, HasSubstr(model)));
  EXPECT_THAT(Output(ExportWeights, {"export", model, "/m.pth"}),
              StartsWith("/m.pth: pth, 2 tensors, "));
  // Of the model itself there is no other.
  Damage(model);
  EXPECT_THAT(Run(ExportWeights, {"export", "/w/epoch_1", "/n.pth"}).exit_code,
              StatusIs(Code::kDataLoss, Not(HasSubstr("alone"))));
}

TEST_F(ConvertCommandsTest, AverageIsTheMean) {
  for (const int epoch : {1, 2, 6}) Save(epoch);
  EXPECT_THAT(
      Output(AverageCheckpoints, {"average", "-o", "/m.safetensors",
                                  "/w/epoch_1", "/w/epoch_2", "/w/epoch_6"}),
      AllOf(StartsWith("/m.safetensors: safetensors, 2 tensors, "),
            HasSubstr("\n1 tensor without a mean, of /w/epoch_6: "
                      "bn.num_batches_tracked\n")));
  const TensorMap weights = Weights("/m.safetensors");
  EXPECT_TRUE(ops::equal(*weights.Find("conv.weight"), ops::full({4, 3}, 3.0)));
  EXPECT_EQ(weights.Find("bn.num_batches_tracked")->item<int64_t>(), 6);
}

TEST_F(ConvertCommandsTest, AverageIsWeighted) {
  for (const int epoch : {1, 2}) Save(epoch);
  ASSERT_THAT(io::WriteSafetensors(env_, "/w/6.safetensors",
                                   Contents(6).sections[0].second),
              IsOk());
  const auto json = JsonOutput(
      AverageCheckpoints, {"average", "--output=/w/soup", "--weights=2,1,1",
                           "/w/epoch_1", "/w/epoch_2", "/w/6.safetensors"});
  EXPECT_EQ(json["format"], "checkpoint");
  EXPECT_THAT(json["of"], SizeIs(3));
  EXPECT_THAT(json["taken_from_last"], ElementsAre("bn.num_batches_tracked"));
  const auto soup = io::ReadCheckpoint(env_, "/w/soup");
  ASSERT_THAT(soup, IsOk());
  EXPECT_TRUE(ops::equal(*soup->FindSection("model")->Find("conv.weight"),
                         ops::full({4, 3}, 2.5)));
  EXPECT_THAT(soup->sections, SizeIs(1));
  // It says which model it is of, and is in no run's way.
  EXPECT_TRUE(soup->manifest().partial());
  EXPECT_EQ(soup->manifest().run_uuid(), "");
  EXPECT_EQ(soup->manifest().config(), Contents(1).manifest().config());
  EXPECT_TRUE(soup->manifest().has_evaluated_section());
}

TEST_F(ConvertCommandsTest, AverageTakesFilesAndNamesWhatDoesNotFit) {
  Save(1);
  TensorMap other;
  Add("conv.weight", ops::ones({4, 3}), &other);
  Add("bn.num_batches_tracked", ops::ones({2}, at::kLong), &other);
  ASSERT_THAT(io::WriteSafetensors(env_, "/m.safetensors", other), IsOk());
  EXPECT_THAT(
      Run(AverageCheckpoints,
          {"average", "-o", "/w/soup", "/w/epoch_1", "/m.safetensors"})
          .exit_code,
      StatusIs(Code::kInvalidArgument,
               HasSubstr("/m.safetensors: tensor \"bn.num_batches_tracked\": "
                         "shape is (2), in /w/epoch_1 ()")));
  EXPECT_FALSE(env_.FileExists("/w/soup"));
  EXPECT_THAT(Hidden("/w"), IsEmpty());
  // Before anything is read.
  EXPECT_THAT(Run(AverageCheckpoints,
                  {"average", "-o", "/none/m.pth", "/w/epoch_1", "/w/epoch_9"})
                  .exit_code,
              StatusIs(Code::kNotFound, HasSubstr("there is no folder /none")));
}

}  // namespace
}  // namespace grapnel
