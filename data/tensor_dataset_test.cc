#include "grapnel/data/tensor_dataset.h"

#include <memory>

#include "gmock/gmock.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/data/sample.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::HasSubstr;

TEST(TensorDatasetTest, RowsAreSamples) {
  const at::Tensor inputs = ops::arange(12, at::kFloat).reshape({4, 3});
  const at::Tensor targets = ops::arange(4, at::kLong);
  const auto dataset = TensorDataset::Create(inputs, targets);
  ASSERT_THAT(dataset, IsOk());
  EXPECT_EQ((*dataset)->size(), 4);
  Sample sample;
  ASSERT_THAT((*dataset)->Get(2, &sample), IsOk());
  EXPECT_TRUE(ops::equal(sample.input, inputs.select(0, 2)));
  EXPECT_EQ(sample.target.dim(), 0);
  EXPECT_EQ(sample.target.item<int64_t>(), 2);
}

TEST(TensorDatasetTest, BatchesAreStackedSamples) {
  const at::Tensor inputs =
      ops::arange(24, at::kDouble).reshape({4, 3, 2}).transpose(1, 2);
  const auto dataset =
      TensorDataset::Create(inputs, ops::arange(8, at::kInt).reshape({4, 2}));
  ASSERT_THAT(dataset, IsOk());
  Batch batch;
  ASSERT_TRUE((*dataset)->GetBatch({3, 0, 3}, &batch));
  Sample third, first;
  ASSERT_THAT((*dataset)->Get(3, &third), IsOk());
  ASSERT_THAT((*dataset)->Get(0, &first), IsOk());
  EXPECT_TRUE(ops::equal(batch.inputs,
                         ops::stack({third.input, first.input, third.input})));
  EXPECT_TRUE(ops::equal(
      batch.targets, ops::stack({third.target, first.target, third.target})));
}

TEST(TensorDatasetTest, TargetsMayBeMissing) {
  const auto dataset = TensorDataset::Create(ops::zeros({2, 3}), at::Tensor());
  ASSERT_THAT(dataset, IsOk());
  Sample sample;
  sample.target = ops::zeros({1});
  ASSERT_THAT((*dataset)->Get(0, &sample), IsOk());
  EXPECT_FALSE(sample.target.defined());
  Batch batch;
  ASSERT_TRUE((*dataset)->GetBatch({0, 1}, &batch));
  EXPECT_FALSE(batch.targets.defined());
}

TEST(TensorDatasetTest, RefusesWhatHasNoRows) {
  EXPECT_THAT(TensorDataset::Create(at::Tensor(), at::Tensor()),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("inputs: must be defined")));
  EXPECT_THAT(
      TensorDataset::Create(ops::zeros({}), at::Tensor()),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("float32 ()")));
  EXPECT_THAT(TensorDataset::Create(ops::zeros({0, 3}), at::Tensor()),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("inputs: must have at least one row")));
  EXPECT_THAT(TensorDataset::Create(ops::zeros({2}), ops::zeros({3})),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("targets: must have as many rows")));
  EXPECT_THAT(TensorDataset::Create(ops::zeros({2}),
                                    ops::empty({2}, at::device(at::kMeta))),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("targets: must be on the CPU")));
}

}  // namespace
}  // namespace grapnel
