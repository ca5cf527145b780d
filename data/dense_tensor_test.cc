#include "grapnel/data/dense_tensor.h"

#include <cstdint>
#include <vector>

#include "gmock/gmock.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_ops.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::HasSubstr;

TEST(DenseTensorTest, NewTensorsAreOrdinary) {
  const at::Tensor tensor = NewTensor({2, 3}, at::kFloat);
  EXPECT_TRUE(tensor.is_contiguous());
  EXPECT_EQ(tensor.sizes(), at::IntArrayRef({2, 3}));
  EXPECT_EQ(tensor.key_set(), ops::empty({2, 3}, at::kFloat).key_set());
  EXPECT_EQ(NewTensor({}, at::kLong).numel(), 1);
  EXPECT_EQ(NewTensor({0, 3}, at::kLong).numel(), 0);
}

TEST(DenseTensorTest, DenseMakesAnyStridesContiguous) {
  const at::Tensor base = ops::arange(24, at::kShort).reshape({2, 3, 4});
  const std::vector<at::Tensor> views = {
      base,
      base.permute({2, 0, 1}),
      base.transpose(1, 2),
      base.slice(2, 1, 4, 2),
      base.select(1, 1),
      base.select(1, 1).t(),
      base.slice(1, 0, 1).expand({2, 5, 4}),
      base.slice(0, 0, 0),
  };
  for (const at::Tensor& view : views) {
    const at::Tensor dense = Dense(view);
    EXPECT_TRUE(dense.is_contiguous());
    EXPECT_TRUE(ops::equal(dense, view)) << Describe(view);
    EXPECT_EQ(dense.is_same(view), view.is_contiguous());
  }
}

TEST(DenseTensorTest, RefusesWhatIsNoPlainMemory) {
  EXPECT_THAT(CheckPlain(ops::zeros({2})), IsOk());
  EXPECT_THAT(CheckPlain(at::Tensor()),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("must be defined")));
  EXPECT_THAT(CheckPlain(ops::empty({2}, at::device(at::kMeta))),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("meta")));
  EXPECT_THAT(
      CheckPlain(ops::zeros({2}, at::kComplexFloat).conj()),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("complex64 (2)")));
  EXPECT_THAT(
      CheckPlain(ops::zeros({2, 2}).to_sparse()),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("sparse")));
}

TEST(DenseTensorTest, DescribesDtypeAndShape) {
  EXPECT_EQ(Describe(ops::zeros({3, 28, 28})), "float32 (3, 28, 28)");
  EXPECT_EQ(Describe(ops::zeros({}, at::kLong)), "int64 ()");
  EXPECT_EQ(Describe(at::Tensor()), "undefined");
}

}  // namespace
}  // namespace grapnel
