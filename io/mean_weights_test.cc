#include "grapnel/io/mean_weights.h"

#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/tensor_ops.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace io {
namespace {

using Code = absl::StatusCode;
using testing::ElementsAre;
using testing::Eq;
using testing::HasSubstr;

TensorMap Map(std::vector<NamedTensor> tensors) {
  TensorMap map;
  for (NamedTensor& named : tensors) {
    EXPECT_THAT(map.Add(named.name, named.tensor), IsOk());
  }
  return map;
}

TEST(WeightsMeanTest, WeightsCountByTheirPartOfTheSum) {
  WeightsMean mean;
  ASSERT_THAT(mean.Add("a", Map({{"w", ops::tensor({1.0, 0.0})}}), 0.5),
              IsOk());
  ASSERT_THAT(mean.Add("b", Map({{"w", ops::tensor({5.0, 8.0})}}), 0.25),
              IsOk());
  ASSERT_THAT(mean.Add("c", Map({{"w", ops::tensor({9.0, 8.0})}}), 0.25),
              IsOk());
  auto weights = mean.Finish();
  ASSERT_THAT(weights, IsOk());
  EXPECT_TRUE(ops::equal(*weights->Find("w"), ops::tensor({4.0, 4.0})));
}

TEST(WeightsMeanTest, EqualOnesStayEqualToTheBit) {
  for (const at::ScalarType type :
       {at::kFloat, at::kHalf, at::kBFloat16, at::kFloat8_e5m2}) {
    const at::Tensor x =
        ops::cat({ops::randn({1000}), ops::tensor({-0.f, 1e-30f})}).to(type);
    WeightsMean mean;
    for (int i = 0; i < 7; ++i) {
      ASSERT_THAT(mean.Add("a", Map({{"w", x}}), 0.1 * (i + 1)), IsOk());
    }
    auto weights = mean.Finish();
    ASSERT_THAT(weights, IsOk());
    const at::Tensor w = *weights->Find("w");
    ASSERT_EQ(w.scalar_type(), type);
    EXPECT_TRUE(ops::equal(w.view(at::kByte), x.view(at::kByte)))
        << c10::toString(type);
  }
}

TEST(WeightsMeanTest, HoweverLargeOrSmallTheWeights) {
  constexpr float kMax = std::numeric_limits<float>::max();
  constexpr float kMin = std::numeric_limits<float>::denorm_min();
  const at::Tensor x = ops::tensor({kMax, -kMax, kMin, 3.f});
  for (const double weight : {1e-12, 1e12}) {
    WeightsMean mean;
    for (int i = 0; i < 3; ++i) {
      ASSERT_THAT(mean.Add("a", Map({{"w", x}}), weight), IsOk());
    }
    auto weights = mean.Finish();
    ASSERT_THAT(weights, IsOk());
    EXPECT_TRUE(ops::equal(*weights->Find("w"), x)) << weight;
  }
}

TEST(WeightsMeanTest, IntegersAndFlagsAreOfTheLast) {
  const auto with = [](int64_t count, bool flag) {
    return Map({{"count", ops::tensor({count})},
                {"flag", ops::full({1}, flag, at::kBool)},
                {"w", ops::full({1}, static_cast<double>(count), at::kFloat)}});
  };
  WeightsMean mean;
  ASSERT_THAT(mean.Add("a", with(2, true), 1), IsOk());
  ASSERT_THAT(mean.Add("b", with(4, false), 1), IsOk());
  EXPECT_THAT(mean.taken_from_last(), ElementsAre("count", "flag"));
  auto weights = mean.Finish();
  ASSERT_THAT(weights, IsOk());
  EXPECT_EQ(weights->Find("count")->item<int64_t>(), 4);
  EXPECT_FALSE(weights->Find("flag")->item<bool>());
  EXPECT_EQ(weights->Find("w")->item<float>(), 3);
}

TEST(WeightsMeanTest, ComplexOnesHaveAMean) {
  const auto complex = [](std::vector<float> parts) {
    return Map({{"z", ops::tensor(parts).view(at::kComplexFloat)}});
  };
  WeightsMean mean;
  ASSERT_THAT(mean.Add("a", complex({1, 2}), 1), IsOk());
  ASSERT_THAT(mean.Add("b", complex({3, -2}), 1), IsOk());
  auto weights = mean.Finish();
  ASSERT_THAT(weights, IsOk());
  EXPECT_TRUE(ops::equal(weights->Find("z")->view(at::kFloat),
                         ops::tensor({2.f, 0.f})));
}

TEST(WeightsMeanTest, EqualComplexOnesStayEqualToTheBit) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  const at::Tensor parts =
      ops::tensor({kInf, 1.f, -0.f, -kInf, 1.f, -0.f, -0.f, 1e-30f});
  for (const bool conj : {false, true}) {
    for (const at::ScalarType type : {at::kComplexFloat, at::kComplexDouble}) {
      at::Tensor x = parts.view(at::kComplexFloat).to(type).view({2, 2}).t();
      if (conj) x = x.conj();
      WeightsMean mean;
      ASSERT_THAT(mean.Add("a", Map({{"z", x}}), 1), IsOk());
      ASSERT_THAT(mean.Add("b", Map({{"z", x}}), 2), IsOk());
      auto weights = mean.Finish();
      ASSERT_THAT(weights, IsOk());
      const at::Tensor z = weights->Find("z")->contiguous();
      EXPECT_TRUE(ops::equal(z.view(at::kByte),
                             x.resolve_conj().contiguous().view(at::kByte)))
          << type << (conj ? ", conjugated" : "");
    }
  }
}

TEST(WeightsMeanTest, AComplexScalarHasAMean) {
  const at::Tensor x =
      ops::full({}, c10::Scalar(c10::complex<float>(2, 4)), at::kComplexFloat);
  WeightsMean mean;
  ASSERT_THAT(mean.Add("a", Map({{"z", x}}), 1), IsOk());
  auto weights = mean.Finish();
  ASSERT_THAT(weights, IsOk());
  EXPECT_TRUE(ops::equal(*weights->Find("z"), x));
}

TEST(WeightsMeanTest, WhatItIsGivenStaysAsItIs) {
  const at::Tensor x = ops::tensor({1.0});
  const at::Tensor n = ops::tensor({int64_t{1}});
  const TensorMap map = Map({{"x", x}, {"n", n}});
  WeightsMean mean;
  ASSERT_THAT(mean.Add("a", map, 2), IsOk());
  ASSERT_THAT(mean.Add("b",
                       Map({{"n", ops::tensor({int64_t{7}})},
                            {"x", ops::tensor({4.0})}}),
                       1),
              IsOk());
  ASSERT_THAT(mean.Finish(), IsOk());
  EXPECT_EQ(x.item<double>(), 1);
  EXPECT_EQ(n.item<int64_t>(), 1);
}

struct MismatchCase {
  const char* name;
  std::vector<NamedTensor> second;
  const char* message;
};

class MismatchTest : public testing::TestWithParam<MismatchCase> {};

TEST_P(MismatchTest, NamesTensorAndFile) {
  WeightsMean mean;
  ASSERT_THAT(
      mean.Add("first", Map({{"x", ops::ones({2, 3})}, {"y", ops::ones({1})}}),
               1),
      IsOk());
  EXPECT_THAT(mean.Add("second", Map(GetParam().second), 1),
              StatusIs(Code::kInvalidArgument, Eq(GetParam().message)));
}

INSTANTIATE_TEST_SUITE_P(
    All, MismatchTest,
    testing::Values(
        MismatchCase{"Missing",
                     {{"x", ops::ones({2, 3})}},
                     "second: tensor \"y\": is missing; first has it"},
        MismatchCase{"Extra",
                     {{"x", ops::ones({2, 3})},
                      {"y", ops::ones({1})},
                      {"z", ops::ones({1})}},
                     "second: tensor \"z\": is not in first"},
        MismatchCase{"Renamed",
                     {{"x", ops::ones({2, 3})}, {"z", ops::ones({1})}},
                     "second: tensor \"y\": is missing; first has it"},
        MismatchCase{
            "Dtype",
            {{"x", ops::ones({2, 3}, at::kHalf)}, {"y", ops::ones({1})}},
            "second: tensor \"x\": dtype is Half, in first Float"},
        MismatchCase{"Shape",
                     {{"x", ops::ones({3, 2})}, {"y", ops::ones({1})}},
                     "second: tensor \"x\": shape is (3, 2), in first (2, "
                     "3)"}),
    [](const auto& info) { return info.param.name; });

TEST(WeightsMeanTest, BadWeightsAreRefused) {
  WeightsMean mean;
  for (const double weight :
       {0.0, -1.0, std::nan(""), std::numeric_limits<double>::infinity(), 1e308,
        1e-320, 0.99e-12, 1.01e12}) {
    EXPECT_THAT(mean.Add("a", Map({{"x", ops::ones({1})}}), weight),
                StatusIs(Code::kInvalidArgument,
                         HasSubstr("a: weight: must be in [1e-12, 1e+12]")));
  }
  EXPECT_THAT(mean.Add("a", TensorMap(), 1),
              StatusIs(Code::kInvalidArgument, HasSubstr("has no tensors")));
  EXPECT_THAT(mean.Finish(),
              StatusIs(Code::kFailedPrecondition, HasSubstr("no weights")));
}

}  // namespace
}  // namespace io
}  // namespace grapnel
