#include "grapnel/io/weights.h"

#include <sys/stat.h>

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

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
#include "grapnel/io/mem_env.h"
#include "grapnel/io/pth.h"
#include "grapnel/io/pth_writer.h"
#include "grapnel/io/safetensors.h"
#include "grapnel/io/sharded_weights.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace io {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::UnorderedElementsAre;

constexpr absl::StatusCode kInvalidArgument =
    absl::StatusCode::kInvalidArgument;
constexpr absl::StatusCode kNotFound = absl::StatusCode::kNotFound;

class WeightsTest : public ::testing::Test {
 protected:
  WeightsTest() {
    EXPECT_THAT(env_.CreateDir("/d/hub"), IsOk());
    EXPECT_THAT(tensors_.Add("fc.weight", ops::full({2}, 3.0)), IsOk());
    EXPECT_THAT(tensors_.Add("fc.bias", ops::full({1}, 4.0)), IsOk());
    EXPECT_THAT(other_.Add("fc.weight", ops::full({2}, 9.0)), IsOk());
  }

  void ExpectTheTensors(const absl::StatusOr<TensorMap>& read) {
    ASSERT_THAT(read, IsOk());
    ASSERT_EQ(read->size(), 2u);
    for (const NamedTensor& tensor : tensors_) {
      const at::Tensor* found = read->Find(tensor.name);
      ASSERT_NE(found, nullptr) << tensor.name;
      EXPECT_TRUE(found->equal(tensor.tensor)) << tensor.name;
    }
  }

  // Of a file of weights alone, at `path` or in that folder.
  void ExpectTheTensorsAlone(const std::string& path) {
    SCOPED_TRACE(path);
    ExpectTheTensors(ReadWeights(env_, path));
    const auto more = ReadWeightsAndMore(env_, path);
    ASSERT_THAT(more, IsOk());
    EXPECT_EQ(more->sections.size(), 1u);
    EXPECT_TRUE(more->blobs.empty());
  }

  void ExpectFormat(const std::string& path, WeightsFormat format,
                    const std::string& found) {
    const auto source = FindWeights(env_, path);
    ASSERT_THAT(source, IsOk());
    EXPECT_EQ(source->format, format) << path;
    EXPECT_EQ(source->path, found);
  }

  void Put(const std::string& path, const std::string& bytes) {
    ASSERT_THAT(WriteFileAtomically(env_, path, bytes), IsOk());
  }

  MemEnv env_;
  TensorMap tensors_;
  TensorMap other_;
};

TEST_F(WeightsTest, AreTheSectionModelOfACheckpoint) {
  CheckpointContents contents;
  contents.sections.emplace_back("model", tensors_);
  contents.sections.emplace_back("ema", other_);
  ASSERT_THAT(WriteCheckpoint(env_, "/d", "epoch_1", contents), IsOk());
  ExpectFormat("/d/epoch_1", WeightsFormat::kCheckpoint, "/d/epoch_1");
  ExpectTheTensors(ReadWeights(env_, "/d/epoch_1"));
  const auto more = ReadWeightsAndMore(env_, "/d/epoch_1");
  ASSERT_THAT(more, IsOk());
  EXPECT_NE(more->FindSection("ema"), nullptr);
  EXPECT_EQ(more->manifest().name(), "epoch_1");
}

TEST_F(WeightsTest, AreAllOfAFileWhateverItsName) {
  for (const char* const path : {"/d/w.safetensors", "/d/w.pth", "/d/w"}) {
    ASSERT_THAT(WriteSafetensors(env_, path, tensors_), IsOk());
    ExpectFormat(path, WeightsFormat::kSafetensors, path);
    ExpectTheTensorsAlone(path);
    ASSERT_THAT(WritePthWeights(env_, path, tensors_), IsOk());
    ExpectFormat(path, WeightsFormat::kPth, path);
    ExpectTheTensorsAlone(path);
  }
}

TEST_F(WeightsTest, AreInTheShardsOfAnIndexAndOfAFolder) {
  TensorMap weight, bias;
  ASSERT_THAT(weight.Add("fc.weight", *tensors_.Find("fc.weight")), IsOk());
  ASSERT_THAT(bias.Add("fc.bias", *tensors_.Find("fc.bias")), IsOk());
  ASSERT_THAT(WriteSafetensors(env_, "/d/hub/w-1.safetensors", weight), IsOk());
  ASSERT_THAT(WriteSafetensors(env_, "/d/hub/w-2.safetensors", bias), IsOk());
  ASSERT_THAT(WritePthWeights(env_, "/d/hub/w-1.bin", weight), IsOk());
  ASSERT_THAT(WritePthWeights(env_, "/d/hub/w-2.bin", bias), IsOk());
  for (const std::string ending : {"safetensors", "bin"}) {
    const std::string path = "/d/hub/" +
                             std::string(ending == "bin" ? "pytorch_" : "") +
                             "model." + ending + ".index.json";
    Put(path,
        "{\"metadata\": {\"total_size\": 12}, \"weight_map\": {"
        "\"fc.bias\": \"w-2." +
            ending +
            "\", "
            "\"fc.weight\": \"w-1." +
            ending + "\"}}\n");
    ExpectFormat(path, WeightsFormat::kShardIndex, path);
    ExpectTheTensorsAlone(path);
    ExpectFormat("/d/hub", WeightsFormat::kShardIndex, path);
    ExpectTheTensorsAlone("/d/hub");
    ASSERT_THAT(env_.DeleteFile(path), IsOk());
  }

  // A state that is no tensor is in no shard's tensors.
  const auto writer = PthWriter::Create(env_, "/d/hub/w-1.bin");
  ASSERT_THAT(writer, IsOk());
  (*writer)->BeginDict();
  (*writer)->String("fc.weight");
  (*writer)->Tensor(*tensors_.Find("fc.weight"));
  (*writer)->String("fc._extra_state");
  (*writer)->None();
  (*writer)->End();
  ASSERT_THAT((*writer)->Finish(), IsOk());
  const auto put_index = [&](const std::string& state) {
    Put("/d/hub/i.json", absl::StrCat(R"({"weight_map": {"fc.bias": "w-2.bin",
        "fc.weight": "w-1.bin", ")",
                                      state, R"(": "w-1.bin"}})"));
  };
  put_index("fc._extra_state");
  ExpectTheTensorsAlone("/d/hub/i.json");
  put_index("fc.state");
  EXPECT_THAT(ReadWeights(env_, "/d/hub/i.json"),
              StatusIs(absl::StatusCode::kDataLoss,
                       HasSubstr("tensor \"fc.state\" isn't there")));

  Put("/d/hub/i.json", "{\"weight_map\": {\"fc.bias\": \"i.json\"}}");
  EXPECT_THAT(ReadWeights(env_, "/d/hub/i.json"),
              StatusIs(kInvalidArgument,
                       "/d/hub/i.json: /d/hub/i.json: is neither a file of "
                       "safetensors nor of torch.save"));
}

// Each shard may have a prefix of its own, which isn't the model's.
TEST_F(WeightsTest, APrefixGoesIfAllOfTheModelHaveItInEveryFormat) {
  const auto put = [&](const std::string& path,
                       const std::vector<std::string>& names) {
    TensorMap tensors;
    for (const std::string& name : names) {
      ASSERT_THAT(tensors.Add(name, ops::ones({1})), IsOk());
    }
    ASSERT_THAT(path.back() == 'h'
                    ? WritePthWeights(env_, path, tensors)
                    : WriteSafetensors(env_, path, tensors).status(),
                IsOk());
  };
  const auto names = [&](const std::string& path) {
    std::vector<std::string> found;
    const auto tensors = ReadWeights(env_, path);
    EXPECT_THAT(tensors, IsOk());
    if (!tensors.ok()) return found;
    for (const NamedTensor& tensor : *tensors) found.push_back(tensor.name);
    return found;
  };
  for (const std::string ending : {".pth", ".safetensors"}) {
    SCOPED_TRACE(ending);
    const std::string one = "/d/one" + ending;
    put(one, {"module.a", "module.b", "module.b._extra_state"});
    EXPECT_THAT(names(one), ElementsAre("a", "b"));
    put(one, {"module.a", "head.b"});
    EXPECT_THAT(names(one), UnorderedElementsAre("module.a", "head.b"));
    put(one, {"n_averaged", "module.a"});
    EXPECT_THAT(names(one), ElementsAre("a"));
    const auto more = ReadWeightsAndMore(env_, one);
    ASSERT_THAT(more, IsOk());
    EXPECT_NE(more->FindSection("ema"), nullptr);

    const auto shards = [&](const std::string& first,
                            const std::string& second) {
      put("/d/s1" + ending, {first});
      put("/d/s2" + ending, {second});
      Put("/d/i.json",
          absl::StrCat("{\"weight_map\":{\"", first, "\":\"s1", ending, "\",\"",
                       second, "\":\"s2", ending, "\"}}"));
      return names("/d/i.json");
    };
    EXPECT_THAT(shards("module.a", "head.b"),
                ElementsAre("module.a", "head.b"));
    EXPECT_THAT(shards("module.a", "_orig_mod.b"),
                ElementsAre("module.a", "_orig_mod.b"));
    EXPECT_THAT(shards("module.a", "module.b"), ElementsAre("a", "b"));
  }
  put("/d/bad.safetensors", {"module."});
  EXPECT_THAT(ReadWeights(env_, "/d/bad.safetensors"),
              StatusIs(kInvalidArgument,
                       HasSubstr("/d/bad.safetensors: tensor \"\": name")));
}

TEST_F(WeightsTest, OfAFolderOfCheckpointsTheseAreNamed) {
  CheckpointContents contents;
  contents.sections.emplace_back("model", tensors_);
  for (int i = 1; i <= 12; ++i) {
    ASSERT_THAT(
        WriteCheckpoint(env_, "/run", absl::StrCat("iter_", 100 + i), contents),
        IsOk());
  }
  // A run has such files too.
  Put("/run/best.pb", "x");
  ASSERT_THAT(env_.CreateDir("/run/logs"), IsOk());
  EXPECT_THAT(ReadWeights(env_, "/run"),
              StatusIs(kNotFound,
                       "/run: is no checkpoint; checkpoints in it: iter_101, "
                       "iter_102, iter_103, iter_104, iter_105, iter_106, "
                       "iter_107, iter_108, iter_109, iter_110 and 2 more"));
}

// As the hub's own loader looks.
TEST_F(WeightsTest, OfAFolderAreThoseOfItsFirstFile) {
  Put("/d/hub/config.json", "{}");
  EXPECT_THAT(ReadWeights(env_, "/d/hub"),
              StatusIs(kNotFound,
                       "/d/hub: no checkpoint and no model of a hub: has none "
                       "of manifest.pb, model.safetensors, "
                       "model.safetensors.index.json, pytorch_model.bin, "
                       "pytorch_model.bin.index.json"));
  ASSERT_THAT(WritePthWeights(env_, "/d/hub/pytorch_model.bin", tensors_),
              IsOk());
  ExpectTheTensorsAlone("/d/hub");
  ASSERT_THAT(WritePthWeights(env_, "/d/hub/pytorch_model.bin", other_),
              IsOk());
  ASSERT_THAT(WriteSafetensors(env_, "/d/hub/model.safetensors", tensors_),
              IsOk());
  Put("/d/hub/model.safetensors.index.json", "{}");
  ExpectTheTensorsAlone("/d/hub");
}

TEST_F(WeightsTest, OfAnAverageAreThoseThatPythonEvaluates) {
  const auto writer = PthWriter::Create(env_, "/d/mm.pth");
  ASSERT_THAT(writer, IsOk());
  (*writer)->BeginDict();
  (*writer)->String("state_dict");
  (*writer)->BeginOrderedDict();
  for (const NamedTensor& tensor : tensors_) {
    (*writer)->String(tensor.name);
    (*writer)->Tensor(tensor.tensor);
  }
  (*writer)->End();
  (*writer)->String("ema_state_dict");
  (*writer)->BeginOrderedDict();
  (*writer)->String("module.fc.weight");
  (*writer)->Tensor(*other_.Find("fc.weight"));
  (*writer)->End();
  (*writer)->End();
  ASSERT_THAT((*writer)->Finish(), IsOk());
  const auto more = ReadWeightsAndMore(env_, "/d/mm.pth");
  ASSERT_THAT(more, IsOk());
  ASSERT_EQ(more->sections.size(), 2u);
  for (const char* const section : {"model", "ema"}) {
    ASSERT_NE(more->FindSection(section), nullptr);
    ExpectTheTensors(*more->FindSection(section));
  }
}

TEST_F(WeightsTest, WhatHoldsNoneIsRefusedByName) {
  EXPECT_THAT(
      ReadWeights(env_, "/d/none.pth"),
      StatusIs(kNotFound, "/d/none.pth: no checkpoint and no file of weights"));
  EXPECT_THAT(ReadWeights(env_, "/d"),
              StatusIs(kNotFound, HasSubstr("/d: no checkpoint")));

  // Also under the names of the formats.
  for (const std::string path : {"/d/w.safetensors", "/d/w.pth", "/d/w.json"}) {
    for (const std::string bytes : {"hello, world, what is this?", "PK", "x"}) {
      Put(path, bytes);
      EXPECT_THAT(
          ReadWeights(env_, path),
          StatusIs(kInvalidArgument,
                   path + ": holds no weights: is neither a checkpoint's "
                          "directory nor a file of safetensors, of torch.save "
                          "or of the index of one in shards"));
    }
    Put(path, "");
    EXPECT_THAT(ReadWeights(env_, path),
                StatusIs(kInvalidArgument, HasSubstr(", but empty")));
    Put(path, "{\"architectures\": [\"BertModel\"]}");
    EXPECT_THAT(
        ReadWeights(env_, path),
        StatusIs(kInvalidArgument, path + ": is not an index of shards: has no "
                                          "\"weight_map\""));
  }
}

// A checkpoint's own files: checkpoint_test.cc.
TEST(WeightsOfPosixTest, Row037PipesFoldersAndDevicesAreRefusedAtOnce) {
  Env& env = Env::Posix();
  const std::string dir = JoinPath(testing::TempDir(), "weights");
  if (env.FileExists(dir)) {
    ASSERT_THAT(DeleteRecursively(env, dir), IsOk());
  }
  ASSERT_THAT(env.CreateDir(JoinPath(dir, "folder")), IsOk());
  const std::string pipe = JoinPath(dir, "pipe");
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  const auto refuses = [](const std::string& path) {
    return StatusIs(kInvalidArgument, HasSubstr(path));
  };
  for (const std::string& path :
       {pipe, std::string("/dev/zero"), JoinPath(dir, "folder")}) {
    if (path != JoinPath(dir, "folder")) {
      EXPECT_THAT(ReadWeights(env, path), refuses(path));
    }
    EXPECT_THAT(PthFile::Read(env, path), refuses(path));
    EXPECT_THAT(ReadSafetensors(env, path), refuses(path));
    EXPECT_THAT(ReadShardedWeights(env, path, nullptr), refuses(path));
  }
  for (const std::string shard : {"pipe", "folder"}) {
    const std::string index = JoinPath(dir, "i.json");
    ASSERT_THAT(WriteFileAtomically(
                    env, index,
                    absl::StrCat("{\"weight_map\":{\"a\":\"", shard, "\"}}")),
                IsOk());
    EXPECT_THAT(
        ReadWeights(env, index),
        StatusIs(kInvalidArgument, AllOf(HasSubstr(index), HasSubstr(shard))));
  }
}

TEST_F(WeightsTest, ACheckpointWithoutWeightsOrManifestIsNone) {
  CheckpointContents contents;
  contents.blobs.emplace_back("state", "x");
  ASSERT_THAT(WriteCheckpoint(env_, "/d", "epoch_2", contents), IsOk());
  EXPECT_THAT(
      ReadWeights(env_, "/d/epoch_2"),
      StatusIs(kInvalidArgument, "/d/epoch_2: has no section \"model\""));

  // Its weights may be there, but they are not all of it.
  contents.sections.emplace_back("model", tensors_);
  ASSERT_THAT(WriteCheckpoint(env_, "/d", "epoch_3", contents), IsOk());
  ASSERT_THAT(env_.DeleteFile("/d/epoch_3/manifest.pb"), IsOk());
  EXPECT_THAT(ReadWeights(env_, "/d/epoch_3"),
              StatusIs(kNotFound,
                       "/d/epoch_3: no checkpoint: has state.pb, but no "
                       "manifest.pb"));
}

TEST_F(WeightsTest, WhatIsCutOffIsNeverTakenForAnotherFormat) {
  ASSERT_THAT(WriteSafetensors(env_, "/d/w.safetensors", tensors_), IsOk());
  ASSERT_THAT(WritePthWeights(env_, "/d/w.pth", tensors_), IsOk());
  for (const std::string path : {"/d/w.safetensors", "/d/w.pth"}) {
    const std::string bytes = *ReadFile(env_, path);
    for (size_t size = 0; size < bytes.size(); ++size) {
      Put("/d/cut", bytes.substr(0, size));
      EXPECT_THAT(ReadWeights(env_, "/d/cut").status().message(),
                  AllOf(HasSubstr("/d/cut: "), Not(HasSubstr("JSON"))))
          << path << " of " << size << " bytes";
    }
  }
}

}  // namespace
}  // namespace io
}  // namespace grapnel
