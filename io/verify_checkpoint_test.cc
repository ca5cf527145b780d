#include "grapnel/io/verify_checkpoint.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "gmock/gmock.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/checkpoint_manifest.pb.h"
#include "grapnel/io/env.h"
#include "grapnel/io/env_wrapper.h"
#include "grapnel/io/mem_env.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace io {
namespace {

using Code = absl::StatusCode;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class VerifyCheckpointTest : public testing::Test {
 protected:
  void SetUp() override {
    CheckpointContents contents;
    TensorMap model, optimizer;
    // Longer than a piece that is read at once.
    ASSERT_THAT(model.Add("a.weight", ops::arange(300000, at::kFloat)), IsOk());
    ASSERT_THAT(model.Add("b.bias", ops::ones({3})), IsOk());
    ASSERT_THAT(model.Add("c.mask", ops::ones({4}, at::kBool)), IsOk());
    ASSERT_THAT(model.Add("d.empty", ops::ones({0})), IsOk());
    ASSERT_THAT(optimizer.Add("b.bias/exp_avg", ops::ones({3})), IsOk());
    contents.sections.emplace_back("model", std::move(model));
    contents.sections.emplace_back("optimizer", std::move(optimizer));
    contents.blobs.emplace_back("state", "the state");
    ASSERT_THAT(WriteCheckpoint(env_, "/w", "epoch_1", contents), IsOk());
    const auto manifest = ReadManifest(env_, kPath);
    ASSERT_THAT(manifest, IsOk());
    manifest_ = *manifest;
  }

  int64_t OffsetOf(const std::string& tensor) {
    for (const v1::TensorRecord& record : manifest_.tensors()) {
      if (record.name() == tensor) {
        return static_cast<int64_t>(record.file_offset());
      }
    }
    ADD_FAILURE() << tensor;
    return 0;
  }

  void Flip(const std::string& file, int64_t at) {
    const std::string path = JoinPath(kPath, file);
    auto bytes = ReadFile(env_, path);
    ASSERT_THAT(bytes, IsOk());
    (*bytes)[static_cast<size_t>(at)] ^= 4;
    ASSERT_THAT(WriteFileAtomically(env_, path, *bytes), IsOk());
  }

  void Cut(const std::string& file, int64_t size) {
    const std::string path = JoinPath(kPath, file);
    auto bytes = ReadFile(env_, path);
    ASSERT_THAT(bytes, IsOk());
    ASSERT_THAT(WriteFileAtomically(
                    env_, path, bytes->substr(0, static_cast<size_t>(size))),
                IsOk());
  }

  // "file: tensor: what" of each.
  std::vector<std::string> Damages() { return DamagesOf(env_); }

  static std::vector<std::string> DamagesOf(Env& env) {
    std::vector<std::string> damages;
    const auto verified = VerifyCheckpoint(env, kPath);
    EXPECT_THAT(verified, IsOk());
    if (!verified.ok()) return damages;
    for (const CheckpointDamage& damage : verified->damages) {
      damages.push_back(
          absl::StrJoin({damage.file, damage.tensor, damage.what}, ": "));
    }
    // Who reads the checkpoint finds the same.
    const auto read = ReadCheckpoint(env, kPath);
    EXPECT_EQ(read.ok(), damages.empty()) << read.status();
    return damages;
  }

  static constexpr char kPath[] = "/w/epoch_1";
  static constexpr char kDiffer[] = "bytes differ from those that were written";
  MemEnv env_;
  v1::CheckpointManifest manifest_;
};

TEST_F(VerifyCheckpointTest, CountsWhatIsGood) {
  const auto verified = VerifyCheckpoint(env_, kPath);
  ASSERT_THAT(verified, IsOk());
  EXPECT_THAT(verified->damages, IsEmpty());
  EXPECT_EQ(verified->num_files, 3);
  EXPECT_EQ(verified->num_tensors, 5);
  int64_t bytes = 0;
  for (const v1::FileRecord& file : manifest_.files()) {
    bytes += static_cast<int64_t>(file.num_bytes());
  }
  EXPECT_EQ(verified->num_bytes, bytes);
}

TEST_F(VerifyCheckpointTest, NamesEveryDamagedTensorAndBlob) {
  Flip("model.safetensors", OffsetOf("a.weight") + 1199999);
  Flip("model.safetensors", OffsetOf("c.mask") + 3);
  Flip("optimizer.safetensors", OffsetOf("b.bias/exp_avg"));
  Flip("state.pb", 8);
  EXPECT_THAT(
      Damages(),
      ElementsAre(
          absl::StrCat("model.safetensors: a.weight: ", kDiffer),
          absl::StrCat("model.safetensors: c.mask: ", kDiffer),
          absl::StrCat("optimizer.safetensors: b.bias/exp_avg: ", kDiffer),
          absl::StrCat("state.pb: : ", kDiffer)));
}

TEST_F(VerifyCheckpointTest, EveryByteCounts) {
  const std::string path = JoinPath(kPath, "optimizer.safetensors");
  const auto bytes = ReadFile(env_, path);
  ASSERT_THAT(bytes, IsOk());
  for (size_t i = 0; i < bytes->size(); ++i) {
    Flip("optimizer.safetensors", static_cast<int64_t>(i));
    EXPECT_THAT(Damages(), testing::Not(IsEmpty())) << "byte " << i;
    ASSERT_THAT(WriteFileAtomically(env_, path, *bytes), IsOk());
  }
}

TEST_F(VerifyCheckpointTest, APaddingByteIsOutsideOfTensors) {
  // JSON's other white space is not the format's, so the header is bad: here a
  // name in it changes, and then what the manifest lists isn't there.
  Flip("optimizer.safetensors", OffsetOf("b.bias/exp_avg") - 1);
  const std::vector<std::string> damages = Damages();
  ASSERT_EQ(damages.size(), 1u);
  EXPECT_THAT(damages[0], HasSubstr("optimizer.safetensors: : "));
}

TEST_F(VerifyCheckpointTest, WhatACutLeavesWholeIsNotNamed) {
  Cut("model.safetensors", OffsetOf("b.bias") + 5);
  const std::vector<std::string> damages = Damages();
  ASSERT_EQ(damages.size(), 3u) << absl::StrJoin(damages, "\n");
  EXPECT_THAT(damages[0], HasSubstr("model.safetensors: : has "));
  EXPECT_THAT(damages[1], HasSubstr("model.safetensors: b.bias: ends at"));
  EXPECT_THAT(damages[2], HasSubstr("model.safetensors: c.mask: ends at"));
}

TEST_F(VerifyCheckpointTest, MissingFilesAreNamed) {
  ASSERT_THAT(env_.DeleteFile("/w/epoch_1/model.safetensors"), IsOk());
  ASSERT_THAT(env_.DeleteFile("/w/epoch_1/state.pb"), IsOk());
  EXPECT_THAT(Damages(), ElementsAre(HasSubstr("model.safetensors: : "),
                                     HasSubstr("state.pb: : ")));
}

TEST_F(VerifyCheckpointTest, ABadManifestIsOneDamage) {
  Flip("manifest.pb", 60);
  const auto verified = VerifyCheckpoint(env_, kPath);
  ASSERT_THAT(verified, IsOk());
  ASSERT_EQ(verified->damages.size(), 1u);
  EXPECT_EQ(verified->damages[0].file, "manifest.pb");
  EXPECT_THAT(verified->damages[0].what, testing::Not(HasSubstr(kPath)));
}

TEST_F(VerifyCheckpointTest, WhatIsNoCheckpointIsNotFound) {
  EXPECT_THAT(VerifyCheckpoint(env_, "/w"),
              StatusIs(Code::kNotFound, HasSubstr("no checkpoint")));
  EXPECT_THAT(VerifyCheckpoint(env_, "/none"),
              StatusIs(Code::kNotFound, HasSubstr("/none")));
}

// Reads from `begin` on fail.
class BadSectorFile : public RandomAccessFile {
 public:
  BadSectorFile(std::unique_ptr<RandomAccessFile> file, int64_t begin)
      : file_(std::move(file)), begin_(begin) {}
  int64_t size() const override { return file_->size(); }
  absl::Status Read(int64_t offset, int64_t n, char* buffer) const override {
    if (offset + n > begin_) return absl::UnavailableError("i/o error");
    return file_->Read(offset, n, buffer);
  }

 private:
  const std::unique_ptr<RandomAccessFile> file_;
  const int64_t begin_;
};

class BadSectorEnv : public EnvWrapper {
 public:
  BadSectorEnv(Env& base, int64_t begin) : EnvWrapper(base), begin_(begin) {}
  absl::StatusOr<std::unique_ptr<RandomAccessFile>> NewRandomAccessFile(
      const std::string& path) override {
    auto file = EnvWrapper::NewRandomAccessFile(path);
    if (!file.ok() || Basename(path) != "model.safetensors") return file;
    return std::make_unique<BadSectorFile>(*std::move(file), begin_);
  }

 private:
  const int64_t begin_;
};

TEST_F(VerifyCheckpointTest, WhatCannotBeReadIsNamed) {
  BadSectorEnv env(env_, OffsetOf("b.bias"));
  EXPECT_THAT(DamagesOf(env),
              ElementsAre("model.safetensors: b.bias: i/o error",
                          "model.safetensors: c.mask: i/o error"));
}

}  // namespace
}  // namespace io
}  // namespace grapnel
