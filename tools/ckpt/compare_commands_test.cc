#include "grapnel/tools/ckpt/compare_commands.h"

#include <unistd.h>

#include <cstdint>
#include <limits>
#include <memory>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/checkpoint_manifest.pb.h"
#include "grapnel/io/env.h"
#include "grapnel/io/env_wrapper.h"
#include "grapnel/io/pth_writer.h"
#include "grapnel/io/rejected_checkpoints.h"
#include "grapnel/io/safetensors.h"
#include "grapnel/tools/ckpt/checkpoints_for_test.h"
#include "grapnel/tools/ckpt/ckpt_command.h"
#include "grapnel/tools/exit_code.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace grapnel {
namespace {

using Code = absl::StatusCode;
using testing::AllOf;
using testing::EndsWith;
using testing::HasSubstr;
using testing::Not;
using testing::SizeIs;
using testing::StartsWith;

using CompareCommandsTest = CheckpointCommandTest;

TEST_F(CompareCommandsTest, VerifyNamesEveryDamagedTensorAndFile) {
  for (const int epoch : {1, 2}) Save(epoch);
  Damage("/w/epoch_2/ema.safetensors");
  Damage("/w/epoch_2/optimizer.safetensors");
  Damage("/w/epoch_2/state.pb");
  const auto before = Files("/w");
  const std::string text =
      Output(VerifyCheckpoints, {"verify", "/w"}, kBadCheckpoint);
  EXPECT_THAT(text, StartsWith("/w/epoch_1: ok, 4 files, 4 tensors, "));
  EXPECT_THAT(text, HasSubstr("/w/epoch_2: optimizer.safetensors: tensor "
                              "\"conv.weight/momentum_buffer\": bytes differ"));
  EXPECT_THAT(text, HasSubstr("/w/epoch_2: ema.safetensors: tensor "
                              "\"conv.weight\": bytes differ"));
  EXPECT_THAT(text, HasSubstr("/w/epoch_2: state.pb: bytes differ"));
  EXPECT_THAT(text, Not(HasSubstr("/w/epoch_2: ok")));
  const auto json =
      JsonOutput(VerifyCheckpoints, {"verify", "/w"}, kBadCheckpoint);
  EXPECT_EQ(json["ok"], false);
  EXPECT_EQ(json["checkpoints"][0]["ok"], true);
  EXPECT_EQ(json["checkpoints"][0]["tensors"], 4);
  ASSERT_THAT(json["checkpoints"][1]["damages"], SizeIs(3));
  EXPECT_EQ(json["checkpoints"][1]["damages"][0]["tensor"],
            "conv.weight/momentum_buffer");
  EXPECT_TRUE(json["checkpoints"][1]["damages"][2]["tensor"].is_null());
  EXPECT_EQ(Files("/w"), before);
}

TEST_F(CompareCommandsTest, VerifyTakesSeveralPaths) {
  for (const int epoch : {1, 2}) Save(epoch);
  Damage("/w/epoch_1/manifest.pb");
  const auto json =
      JsonOutput(VerifyCheckpoints, {"verify", "/w/epoch_2", "/w/epoch_1/"},
                 kBadCheckpoint);
  EXPECT_EQ(json["checkpoints"][0]["ok"], true);
  EXPECT_EQ(json["checkpoints"][1]["damages"][0]["file"], "manifest.pb");
  EXPECT_THAT(Output(VerifyCheckpoints, {"verify", "/w/epoch_2"}),
              HasSubstr(": ok"));
  EXPECT_THAT(Run(VerifyCheckpoints, {"verify", "/w/epoch_3"}).exit_code,
              StatusIs(Code::kNotFound, HasSubstr("epoch_1, epoch_2")));
}

TEST_F(CompareCommandsTest, VerifyFindsOneThatLostItsManifest) {
  Save(1);
  ASSERT_THAT(env_.DeleteFile("/w/epoch_1/manifest.pb"), IsOk());
  EXPECT_EQ(Output(VerifyCheckpoints, {"verify", "/w"}, kBadCheckpoint),
            "/w/epoch_1: manifest.pb: is missing\n");
}

TEST_F(CompareCommandsTest, VerifyOfAFolderLeavesOutWhatIsSetAside) {
  for (const int epoch : {1, 2}) Save(epoch);
  Damage("/w/epoch_1/model.safetensors");
  ASSERT_THAT(io::SetAsideCheckpoint(env_, "/w/epoch_1"), IsOk());
  const auto json = JsonOutput(VerifyCheckpoints, {"verify", "/w"});
  EXPECT_THAT(json["checkpoints"], SizeIs(1));
  EXPECT_THAT(Output(VerifyCheckpoints, {"verify", "/w/epoch_1.damaged"},
                     kBadCheckpoint),
              HasSubstr("manifest.pb: is of \"epoch_1\""));
}

// A training that goes on deletes epoch_1 when its weights are opened for the
// nth time.
class DeletingEnv : public io::EnvWrapper {
 public:
  DeletingEnv(io::Env& target, int nth)
      : EnvWrapper(target), target_(target), left_(nth) {}

  absl::StatusOr<std::unique_ptr<io::RandomAccessFile>> NewRandomAccessFile(
      const std::string& path) override {
    if (path == "/w/epoch_1/model.safetensors" && --left_ == 0) {
      EXPECT_THAT(io::DeleteCheckpoint(target_, "/w/epoch_1"), IsOk());
    }
    return EnvWrapper::NewRandomAccessFile(path);
  }

  bool deleted() const { return left_ <= 0; }

 private:
  io::Env& target_;
  int left_;
};

TEST_F(CompareCommandsTest, WhatATrainingDeletesMeanwhileIsNotDamaged) {
  for (const int nth : {1, 2}) {  // While the folder is read, or verified.
    for (const int epoch : {1, 2}) Save(epoch);
    DeletingEnv env(env_, nth);
    CkptCommand command;
    command.verb = CkptCommand::Verb::kVerify;
    command.paths = {"/w"};
    std::ostringstream out;
    EXPECT_EQ(VerifyCheckpoints(command, env, out).value_or(kBadInput), kDone);
    EXPECT_TRUE(env.deleted());
    EXPECT_THAT(out.str(), StartsWith("/w/epoch_2: ok"));
  }
}

// The disk doesn't give the file at `broken`.
class BrokenEnv : public io::EnvWrapper {
 public:
  BrokenEnv(io::Env& target, std::string broken)
      : EnvWrapper(target), broken_(std::move(broken)) {}
  absl::StatusOr<std::unique_ptr<io::RandomAccessFile>> NewRandomAccessFile(
      const std::string& path) override {
    if (path == broken_) {
      return absl::UnavailableError(path + ": cannot open: input/output error");
    }
    return EnvWrapper::NewRandomAccessFile(path);
  }

 private:
  const std::string broken_;
};

TEST_F(CompareCommandsTest, VerifyGoesOnAfterOneThatCannotBeRead) {
  for (const int epoch : {1, 2, 3}) Save(epoch);
  BrokenEnv env(env_, "/w/epoch_1/manifest.pb");
  CkptCommand command;
  command.verb = CkptCommand::Verb::kVerify;
  command.paths = {"/w/epoch_1", "/w/epoch_2", "/w/epoch_3"};
  std::ostringstream out;
  EXPECT_EQ(VerifyCheckpoints(command, env, out).value_or(kBadInput),
            kRunFailed);
  EXPECT_THAT(out.str(),
              AllOf(StartsWith("/w/epoch_1: manifest.pb: cannot open: "
                               "input/output error\n/w/epoch_2: ok"),
                    HasSubstr("/w/epoch_3: ok")));
  Damage("/w/epoch_3/model.safetensors");
  command.json = true;
  std::ostringstream json_out;
  EXPECT_EQ(VerifyCheckpoints(command, env, json_out).value_or(kBadInput),
            kBadCheckpoint);
  const auto json = nlohmann::json::parse(json_out.str(), nullptr, false);
  EXPECT_EQ(json["checkpoints"][0]["ok"], false);
  EXPECT_EQ(json["checkpoints"][0]["error"],
            "manifest.pb: cannot open: input/output error");
  EXPECT_TRUE(json["checkpoints"][1]["error"].is_null());
  EXPECT_THAT(json["checkpoints"][2]["damages"], SizeIs(1));
}

TEST_F(CompareCommandsTest, VerifySaysThatFilesOfWeightsHaveNoDigests) {
  TensorMap weights;
  Add("fc.weight", ops::ones({2}), &weights);
  ASSERT_THAT(io::WriteSafetensors(env_, "/w/m.safetensors", weights), IsOk());
  EXPECT_THAT(
      Output(VerifyCheckpoints, {"verify", "/w/m.safetensors"}),
      AllOf(HasSubstr("ok, 1 file, 1 tensor"), HasSubstr("has no digests")));
  Cut("/w/m.safetensors");
  EXPECT_THAT(
      Output(VerifyCheckpoints, {"verify", "/w/m.safetensors"}, kBadCheckpoint),
      AllOf(StartsWith("/w/m.safetensors: tensor \"fc.weight\": ends "),
            HasSubstr("cut off")));
}

// A model hub's folder /hub: 2 tensors in 2 files, and their index.
TEST_F(CompareCommandsTest, VerifyCountsTheShardsOfAnIndex) {
  int64_t bytes = 0;
  for (const std::string name : {"a", "b"}) {
    TensorMap weights;
    Add(name, ops::ones({2}), &weights);
    const std::string path = absl::StrCat("/hub/", name, ".safetensors");
    ASSERT_THAT(env_.CreateDir("/hub"), IsOk());
    ASSERT_THAT(io::WriteSafetensors(env_, path, weights), IsOk());
    bytes += static_cast<int64_t>(io::ReadFile(env_, path)->size());
  }
  const std::string index =
      R"({"weight_map": {"a": "a.safetensors", "b": "b.safetensors"}})";
  const std::string path = "/hub/model.safetensors.index.json";
  ASSERT_THAT(io::WriteFileAtomically(env_, path, index), IsOk());
  ASSERT_THAT(io::WriteFileAtomically(env_, "/hub/README", "..."), IsOk());
  bytes += static_cast<int64_t>(index.size());
  const auto json = JsonOutput(VerifyCheckpoints, {"verify", "/hub", path});
  for (const auto& verified : json["checkpoints"]) {
    EXPECT_EQ(verified["files"], 3) << verified;
    EXPECT_EQ(verified["tensors"], 2) << verified;
    EXPECT_EQ(verified["bytes"], bytes) << verified;
  }
  // What is damaged in it isn't the end for others.
  Save(1);
  Cut("/hub/b.safetensors");
  EXPECT_THAT(Output(VerifyCheckpoints, {"verify", "/hub", "/w/epoch_1"},
                     kBadCheckpoint),
              AllOf(StartsWith("/hub: model.safetensors.index.json: "
                               "/hub/b.safetensors: "),
                    HasSubstr("\n/w/epoch_1: ok, ")));
}

// The index of /hub can't be read any more once its one shard was.
class BreakingEnv : public io::EnvWrapper {
 public:
  using EnvWrapper::EnvWrapper;
  absl::StatusOr<std::unique_ptr<io::RandomAccessFile>> NewRandomAccessFile(
      const std::string& path) override {
    if (broken_ && path == "/hub/model.safetensors.index.json") {
      return absl::UnavailableError(path + ": cannot open: input/output error");
    }
    broken_ = broken_ || path == "/hub/a.safetensors";
    return EnvWrapper::NewRandomAccessFile(path);
  }

 private:
  bool broken_ = false;
};

TEST_F(CompareCommandsTest, VerifyGoesOnAfterAnIndexThatBreaksMeanwhile) {
  Save(1);
  TensorMap weights;
  Add("a", ops::ones({2}), &weights);
  ASSERT_THAT(env_.CreateDir("/hub"), IsOk());
  ASSERT_THAT(io::WriteSafetensors(env_, "/hub/a.safetensors", weights),
              IsOk());
  const std::string path = "/hub/model.safetensors.index.json";
  ASSERT_THAT(io::WriteFileAtomically(
                  env_, path, R"({"weight_map": {"a": "a.safetensors"}})"),
              IsOk());
  for (const std::string& at : {path, std::string("/hub")}) {
    BreakingEnv env(env_);
    commands_env_ = &env;
    EXPECT_THAT(
        Output(VerifyCheckpoints, {"verify", at, "/w/epoch_1"}, kRunFailed),
        AllOf(HasSubstr("cannot open: input/output error\n"),
              HasSubstr("\n/w/epoch_1: ok, ")));
  }
}

// As a model hub's cache has its files.
TEST_F(CompareCommandsTest, VerifyCountsTheBytesThatLinksLeadTo) {
  io::Env& env = io::Env::Posix();
  commands_env_ = &env;
  const std::string dir = io::JoinPath(testing::TempDir(), "hub_of_links");
  if (env.FileExists(dir)) {
    ASSERT_THAT(io::DeleteRecursively(env, dir), IsOk());
  }
  ASSERT_THAT(env.CreateDir(dir), IsOk());
  TensorMap weights;
  Add("a", ops::ones({2}), &weights);
  const std::string blob = io::JoinPath(dir, "blob");
  const std::string index = io::JoinPath(dir, "blob_of_index");
  ASSERT_THAT(io::WriteSafetensors(env, blob, weights), IsOk());
  ASSERT_THAT(io::WriteFileAtomically(
                  env, index, R"({"weight_map": {"a": "a.safetensors"}})"),
              IsOk());
  const std::string linked = io::JoinPath(dir, "model.safetensors.index.json");
  ASSERT_EQ(::symlink("blob", io::JoinPath(dir, "a.safetensors").c_str()), 0);
  ASSERT_EQ(::symlink("blob_of_index", linked.c_str()), 0);
  const int64_t bytes = static_cast<int64_t>(io::ReadFile(env, blob)->size() +
                                             io::ReadFile(env, index)->size());
  for (const std::string& path : {dir, linked}) {
    const auto json = JsonOutput(VerifyCheckpoints, {"verify", path});
    EXPECT_EQ(json["checkpoints"][0]["files"], 2);
    EXPECT_EQ(json["checkpoints"][0]["bytes"], bytes);
  }
}

TEST_F(CompareCommandsTest, VerifyGoesOnAfterAFileThatCannotBeRead) {
  Save(1);
  ASSERT_THAT(io::WriteFileAtomically(env_, "/w/m.pth", "..."), IsOk());
  BrokenEnv env(env_, "/w/m.pth");
  CkptCommand command;
  command.verb = CkptCommand::Verb::kVerify;
  command.paths = {"/w/m.pth", "/w/epoch_1"};
  std::ostringstream out;
  EXPECT_EQ(VerifyCheckpoints(command, env, out).value_or(kBadInput),
            kRunFailed);
  EXPECT_THAT(out.str(), StartsWith("/w/m.pth: cannot open: input/output "
                                    "error\n/w/epoch_1: ok, "));
}

TEST_F(CompareCommandsTest, EqualCheckpointsAreEqualWhateverTheirNames) {
  Save(1);
  ASSERT_THAT(io::WriteCheckpoint(env_, "/v", "other", Contents(1)), IsOk());
  EXPECT_EQ(Output(DiffCheckpoints, {"diff", "/w/epoch_1", "/v/other"}),
            "equal: 4 tensors, and progress and state\n");
  const auto json =
      JsonOutput(DiffCheckpoints, {"diff", "/w/epoch_1", "/v/other"});
  EXPECT_EQ(json["equal"], true);
  EXPECT_THAT(json["differences"], SizeIs(0));
}

TEST_F(CompareCommandsTest, DiffNamesWhatDiffersAndByHowMuch) {
  Save(1);
  io::CheckpointContents other = Contents(1);
  TensorMap model;
  at::Tensor weight = ops::full({4, 3}, 1.0);
  weight.data_ptr<float>()[5] = 1.25f;
  weight.data_ptr<float>()[6] = 0.5f;
  Add("conv.weight", weight, &model);
  Add("fc.bias", ops::ones({1}), &model);
  other.sections[0].second = model;
  other.sections.erase(other.sections.begin() + 1);
  other.blobs[0].second = "another state";
  other.manifest().mutable_progress()->set_updates(7);
  ASSERT_THAT(io::WriteCheckpoint(env_, "/v", "b", other), IsOk());
  EXPECT_EQ(Output(DiffCheckpoints, {"diff", "/w/epoch_1", "/v/b"}, kRunFailed),
            "part       name                    difference\n"
            "progress   updates                 0 and 7\n"
            "model      conv.weight             max |d| 0.5, 2 of 12 elements\n"
            "model      bn.num_batches_tracked  only in A\n"
            "model      fc.bias                 only in B\n"
            "optimizer                          only in A, with 1 tensor\n"
            "state                              bytes differ: 7 and 13\n");
  const auto json =
      JsonOutput(DiffCheckpoints, {"diff", "/w/epoch_1", "/v/b"}, kRunFailed);
  EXPECT_EQ(json["equal"], false);
  ASSERT_THAT(json["differences"], SizeIs(6));
  const auto& values = json["differences"][1];
  EXPECT_EQ(values["part"], "model");
  EXPECT_EQ(values["tensor"], "conv.weight");
  EXPECT_EQ(values["kind"], "values");
  EXPECT_EQ(values["max_abs"], 0.5);
  EXPECT_EQ(values["different"], 2);
  EXPECT_EQ(values["elements"], 12);
  EXPECT_EQ(json["differences"][0]["field"], "updates");
  EXPECT_EQ(json["differences"][0]["b"], 7);
}

TEST_F(CompareCommandsTest, DiffOfWhatIsNoNumberHasNoSign) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  TensorMap a, b;
  Add("w", ops::tensor({kInf, 0.f}).view(at::kComplexFloat), &a);
  Add("w", ops::tensor({kInf, 1.f}).view(at::kComplexFloat), &b);
  ASSERT_THAT(io::WritePthWeights(env_, "/a.pth", a), IsOk());
  ASSERT_THAT(io::WritePthWeights(env_, "/b.pth", b), IsOk());
  EXPECT_THAT(Output(DiffCheckpoints, {"diff", "/a.pth", "/b.pth"}, kRunFailed),
              HasSubstr("max |d| nan, 1 of 1 element"));
}

TEST_F(CompareCommandsTest, DiffOfOneSectionLooksAtNothingElse) {
  Save(1);
  io::CheckpointContents other = Contents(1);
  other.blobs[0].second = "another state";
  ASSERT_THAT(io::WriteCheckpoint(env_, "/v", "b", other), IsOk());
  EXPECT_EQ(Output(DiffCheckpoints,
                   {"diff", "/w/epoch_1", "/v/b", "--section=model"}),
            "equal: 2 tensors\n");
  EXPECT_THAT(
      Run(DiffCheckpoints, {"diff", "/w/epoch_1", "/v/b", "--section=modle"})
          .exit_code,
      StatusIs(Code::kNotFound, AllOf(HasSubstr("A has model, optimizer, ema"),
                                      HasSubstr("did you mean \"model\"?"))));
}

TEST_F(CompareCommandsTest, DiffNamesTheModelOfADamagedOne) {
  for (const int epoch : {1, 2}) Save(epoch);
  Damage("/w/epoch_2/optimizer.safetensors");
  EXPECT_THAT(
      Run(DiffCheckpoints, {"diff", "/w/epoch_1", "/w/epoch_2"}).exit_code,
      StatusIs(Code::kDataLoss,
               AllOf(StartsWith("/w/epoch_2/optimizer.safetensors: "),
                     EndsWith("; its model alone, read without digests, is "
                              "/w/epoch_2/model.safetensors"))));
  EXPECT_THAT(Output(DiffCheckpoints,
                     {"diff", "/w/epoch_1", "/w/epoch_2/model.safetensors"},
                     kRunFailed),
              HasSubstr("conv.weight"));
}

TEST_F(CompareCommandsTest, DiffWithAFileIsOfTheModel) {
  Save(2);
  const io::CheckpointContents contents = Contents(2);
  ASSERT_THAT(io::WriteSafetensors(env_, "/w/m.safetensors",
                                   contents.sections[0].second),
              IsOk());
  EXPECT_EQ(Output(DiffCheckpoints, {"diff", "/w/m.safetensors", "/w/epoch_2"}),
            "equal: 2 tensors\n");
  Save(3);
  EXPECT_THAT(Output(DiffCheckpoints,
                     {"diff", "/w/m.safetensors", "/w/epoch_3"}, kRunFailed),
              HasSubstr("conv.weight             max |d| 1, 12 of 12 "
                        "elements\n"));
}

TEST_F(CompareCommandsTest, DiffCutsALongList) {
  TensorMap a, b;
  for (int i = 0; i < 30; ++i) {
    Add(absl::StrCat("t", i), ops::zeros({1}), &a);
    Add(absl::StrCat("t", i), ops::ones({1}), &b);
  }
  ASSERT_THAT(io::WriteSafetensors(env_, "/w/a.safetensors", a), IsOk());
  ASSERT_THAT(io::WriteSafetensors(env_, "/w/b.safetensors", b), IsOk());
  const std::vector<std::string> args = {"diff", "/w/a.safetensors",
                                         "/w/b.safetensors"};
  EXPECT_THAT(Output(DiffCheckpoints, args, kRunFailed),
              HasSubstr("... and 10 more: --all\n"));
  EXPECT_THAT(
      Output(DiffCheckpoints, {args[0], args[1], args[2], "--all"}, kRunFailed),
      Not(HasSubstr("more: ")));
  EXPECT_THAT(JsonOutput(DiffCheckpoints, args, kRunFailed)["differences"],
              SizeIs(30));
}

TEST_F(CompareCommandsTest, DiffOfADamagedOneIsAnError) {
  for (const int epoch : {1, 2}) Save(epoch);
  Damage("/w/epoch_2/model.safetensors");
  EXPECT_THAT(
      Run(DiffCheckpoints, {"diff", "/w/epoch_1", "/w/epoch_2"}).exit_code,
      StatusIs(Code::kDataLoss,
               HasSubstr("/w/epoch_2/model.safetensors: tensor "
                         "\"conv.weight\"")));
}

}  // namespace
}  // namespace grapnel
