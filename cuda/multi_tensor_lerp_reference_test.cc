#include "grapnel/cuda/multi_tensor_lerp_reference.h"

#include <limits>
#include <string>
#include <vector>

#include "ATen/Version.h"
#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/cuda/lerp_pair.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::HasSubstr;

constexpr double kWeights[] = {0,   1e-8, 0.0002, 0.1, 0.49999999, 0.5,
                               0.9, 1,    -0.3,   -2,  3.5};

// Reads the bits: at::equal takes 0 and -0 for equal.
bool SameBits(const at::Tensor& a, const at::Tensor& b) {
  return ops::equal(a.contiguous().view(at::kByte),
                    b.contiguous().view(at::kByte));
}

// Below AVX2 at::lerp_ rounds the product too.
bool LibTorchFuses() {
  const std::string capability = at::get_cpu_capability();
  return capability == "AVX2" || capability == "AVX512";
}

class ReferenceTest : public testing::TestWithParam<at::ScalarType> {};

TEST_P(ReferenceTest, HasTheBitsOfLerp) {
  for (double weight : kWeights) {
    SCOPED_TRACE(weight);
    const at::Tensor dst = ops::randn({1237}).to(GetParam());
    const at::Tensor src = ops::randn({1237}).to(GetParam());
    at::Tensor expected = dst.clone();
    expected.lerp_(src, weight);
    ASSERT_THAT(ReferenceLerp({{dst, src}}, weight), IsOk());
    if (LibTorchFuses()) {
      EXPECT_TRUE(SameBits(dst, expected));
    } else {
      EXPECT_TRUE(dst.allclose(expected, 1e-2, 1e-6));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Types, ReferenceTest,
                         testing::Values(at::kFloat, at::kDouble, at::kHalf,
                                         at::kBFloat16),
                         [](const auto& info) {
                           return std::string(c10::toString(info.param));
                         });

TEST(MultiTensorLerpReferenceTest, AddHasTheBitsOfAdd) {
  if (!LibTorchFuses()) GTEST_SKIP() << "at::add_ doesn't fuse here";
  for (at::ScalarType type : {at::kFloat, at::kDouble}) {
    for (double weight : kWeights) {
      SCOPED_TRACE(weight);
      const at::Tensor dst = ops::randn({1237}, type);
      const at::Tensor src = ops::randn({1237}, type);
      at::Tensor expected = dst.clone();
      expected.add_(src.sub(dst), weight);
      ASSERT_THAT(ReferenceLerp({{dst, src}}, weight, LerpForm::kAdd), IsOk());
      EXPECT_TRUE(SameBits(dst, expected));
    }
  }
}

TEST(MultiTensorLerpReferenceTest, TypesMayDiffer) {
  // Each of these is exact in every type.
  for (at::ScalarType dst_type :
       {at::kFloat, at::kDouble, at::kHalf, at::kBFloat16}) {
    for (at::ScalarType src_type :
         {at::kFloat, at::kDouble, at::kHalf, at::kBFloat16}) {
      SCOPED_TRACE(std::string(c10::toString(dst_type)) + " from " +
                   c10::toString(src_type));
      const at::Tensor dst = ops::zeros({5}, dst_type);
      const at::Tensor src = ops::arange(5).to(src_type);
      ASSERT_THAT(ReferenceLerp({{dst, src}}, 0.25), IsOk());
      EXPECT_TRUE(ops::equal(dst, ops::arange(5).mul(0.25).to(dst_type)));
    }
  }
}

TEST(MultiTensorLerpReferenceTest, RoundsOnceAtTheEnd) {
  // 1 + 2^-9 is no bfloat16: a source rounded to the average's type would be 1.
  const at::Tensor dst = ops::ones({1}, at::kBFloat16);
  const at::Tensor src = ops::full({1}, 1.0 + 1.0 / 512);
  ASSERT_THAT(ReferenceLerp({{dst, src}}, 3), IsOk());
  EXPECT_EQ(dst.item<float>(), 1.0F + 1.0F / 128);
}

TEST(MultiTensorLerpReferenceTest, WeightOneGivesTheSource) {
  const at::Tensor dst = ops::full({3}, 1e8);
  const at::Tensor src = ops::tensor({0.1F, -3.0F, 1e-20F});
  ASSERT_THAT(ReferenceLerp({{dst, src}}, 1), IsOk());
  EXPECT_TRUE(SameBits(dst, src));
}

TEST(MultiTensorLerpReferenceTest, InfinityAndNanSpread) {
  const float inf = std::numeric_limits<float>::infinity();
  const at::Tensor dst = ops::tensor({1.0F, inf, std::nanf("")});
  const at::Tensor src = ops::tensor({inf, 1.0F, 1.0F});
  at::Tensor expected = dst.clone();
  expected.lerp_(src, 0.1);
  ASSERT_THAT(ReferenceLerp({{dst, src}}, 0.1), IsOk());
  EXPECT_TRUE(dst.allclose(expected, 0, 0, /*equal_nan=*/true));
}

TEST(MultiTensorLerpReferenceTest, WorksInTheOrderOfMemory) {
  const at::Tensor dst = ops::zeros({2, 3});
  const at::Tensor src = ops::arange(6).to(at::kFloat).view({2, 3});
  ASSERT_THAT(ReferenceLerp({{dst.t(), src.t()}}, 1), IsOk());
  EXPECT_TRUE(ops::equal(dst, src));
}

TEST(MultiTensorLerpReferenceTest, RefusesWhatThePlanRefuses) {
  EXPECT_THAT(ReferenceLerp({{ops::zeros({2}), ops::zeros({3})}}, 0.1),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("dst is [2], src is [3]")));
  const auto meta = at::TensorOptions().device(at::kMeta);
  EXPECT_THAT(
      ReferenceLerp({{ops::zeros({2}, meta), ops::zeros({2}, meta)}}, 0.1),
      StatusIs(absl::StatusCode::kInvalidArgument,
               HasSubstr("must be on the CPU, are on meta")));
}

}  // namespace
}  // namespace grapnel
