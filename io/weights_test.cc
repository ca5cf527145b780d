#include "grapnel/io/weights.h"

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gmock/gmock.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/checkpoint_manifest.pb.h"
#include "grapnel/io/env.h"
#include "grapnel/io/mem_env.h"
#include "grapnel/io/safetensors.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace io {
namespace {

using ::testing::HasSubstr;

class WeightsTest : public ::testing::Test {
 protected:
  WeightsTest() {
    EXPECT_THAT(env_.CreateDir("/d"), IsOk());
    EXPECT_THAT(tensors_.Add("fc.weight", ops::full({2}, 3.0)), IsOk());
    EXPECT_THAT(tensors_.Add("fc.bias", ops::full({1}, 4.0)), IsOk());
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

  MemEnv env_;
  TensorMap tensors_;
};

TEST_F(WeightsTest, AreTheSectionModelOfACheckpoint) {
  CheckpointContents contents;
  contents.sections.emplace_back("model", tensors_);
  TensorMap average;
  ASSERT_THAT(average.Add("fc.weight", ops::full({2}, 9.0)), IsOk());
  contents.sections.emplace_back("ema", average);
  ASSERT_THAT(WriteCheckpoint(env_, "/d", "epoch_1", contents), IsOk());
  ExpectTheTensors(ReadWeights(env_, "/d/epoch_1"));
  const auto more = ReadWeightsAndMore(env_, "/d/epoch_1");
  ASSERT_THAT(more, IsOk());
  EXPECT_NE(more->FindSection("ema"), nullptr);
  EXPECT_EQ(more->manifest().name(), "epoch_1");
}

TEST_F(WeightsTest, AreAllOfASafetensorsFile) {
  ASSERT_THAT(WriteSafetensors(env_, "/d/w.safetensors", tensors_), IsOk());
  ExpectTheTensors(ReadWeights(env_, "/d/w.safetensors"));
  const auto more = ReadWeightsAndMore(env_, "/d/w.safetensors");
  ASSERT_THAT(more, IsOk());
  EXPECT_EQ(more->sections.size(), 1u);
  EXPECT_TRUE(more->blobs.empty());
}

TEST_F(WeightsTest, WhatHoldsNoneIsRefusedByName) {
  EXPECT_THAT(
      ReadWeights(env_, "/d/none"),
      StatusIs(absl::StatusCode::kNotFound, HasSubstr("/d/none: no check")));
  EXPECT_THAT(
      ReadWeights(env_, "/d/none.safetensors"),
      StatusIs(absl::StatusCode::kNotFound, HasSubstr("/d/none.safetensors")));
  EXPECT_THAT(ReadWeights(env_, "/d"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("/d: no check")));

  ASSERT_THAT(WriteFileAtomically(env_, "/d/w.pth", "PK"), IsOk());
  EXPECT_THAT(ReadWeights(env_, "/d/w.pth"),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "/d/w.pth: is neither a checkpoint's directory nor a "
                       ".safetensors file"));
  ASSERT_THAT(WriteFileAtomically(env_, "/d/w.safetensors", "PK"), IsOk());
  EXPECT_FALSE(ReadWeights(env_, "/d/w.safetensors").ok());

  CheckpointContents contents;
  contents.blobs.emplace_back("state", "x");
  ASSERT_THAT(WriteCheckpoint(env_, "/d", "epoch_2", contents), IsOk());
  EXPECT_THAT(ReadWeights(env_, "/d/epoch_2"),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "/d/epoch_2: has no section \"model\""));
}

TEST_F(WeightsTest, AFileOfWeightsIsKnownByItsEnding) {
  EXPECT_TRUE(IsWeightsFile("/d/w.safetensors"));
  EXPECT_FALSE(IsWeightsFile("/d/epoch_1"));
}

}  // namespace
}  // namespace io
}  // namespace grapnel
