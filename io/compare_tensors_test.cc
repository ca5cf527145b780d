#include "grapnel/io/compare_tensors.h"

#include <cmath>
#include <cstdint>
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

using Kind = TensorDifference::Kind;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

TensorMap Map(std::vector<NamedTensor> tensors) {
  TensorMap map;
  for (NamedTensor& named : tensors) {
    EXPECT_THAT(map.Add(named.name, named.tensor), IsOk());
  }
  return map;
}

std::vector<TensorDifference> Compare(const TensorMap& a, const TensorMap& b) {
  auto differences = CompareTensors(a, b);
  EXPECT_THAT(differences, IsOk());
  return differences.value_or(std::vector<TensorDifference>());
}

TEST(CompareTensorsTest, OrderAndStridesDoNotCount) {
  const at::Tensor x = ops::arange(6, at::kFloat).view({2, 3});
  const at::Tensor y = ops::ones({3});
  const at::Tensor same = x.t().contiguous().t();
  ASSERT_FALSE(same.is_contiguous());
  EXPECT_THAT(Compare(Map({{"x", x}, {"y", y}}), Map({{"y", y}, {"x", same}})),
              IsEmpty());
}

TEST(CompareTensorsTest, SaysWhatDiffersInEachWay) {
  const TensorMap a = Map({{"gone", ops::ones({1})},
                           {"shape", ops::ones({2, 3})},
                           {"dtype", ops::ones({2})},
                           {"same", ops::ones({2})},
                           {"values", ops::ones({4})}});
  const TensorMap b = Map({{"new", ops::ones({1})},
                           {"shape", ops::ones({3, 2})},
                           {"dtype", ops::ones({2}, at::kHalf)},
                           {"same", ops::ones({2})},
                           {"values", ops::tensor({1.f, 3.f, 1.f, 0.5f})}});
  const std::vector<TensorDifference> found = Compare(a, b);
  ASSERT_THAT(found, SizeIs(5));
  EXPECT_EQ(found[0].name, "gone");
  EXPECT_EQ(found[0].kind, Kind::kOnlyInFirst);
  EXPECT_EQ(found[1].name, "shape");
  EXPECT_EQ(found[1].kind, Kind::kShape);
  EXPECT_EQ(found[1].first, "2, 3");
  EXPECT_EQ(found[1].second, "3, 2");
  EXPECT_EQ(found[2].name, "dtype");
  EXPECT_EQ(found[2].kind, Kind::kDtype);
  EXPECT_EQ(found[2].first, "Float");
  EXPECT_EQ(found[2].second, "Half");
  EXPECT_EQ(found[3].name, "values");
  EXPECT_EQ(found[3].kind, Kind::kValues);
  EXPECT_EQ(found[3].num_elements, 4);
  EXPECT_EQ(found[3].num_different, 2);
  EXPECT_EQ(found[3].max_abs, 2);
  EXPECT_EQ(found[4].name, "new");
  EXPECT_EQ(found[4].kind, Kind::kOnlyInSecond);
}

struct PairCase {
  const char* name;
  at::Tensor a;
  at::Tensor b;
  int64_t num_different;
  double max_abs;
};

class PairTest : public testing::TestWithParam<PairCase> {};

TEST_P(PairTest, HasCountAndLargestDifference) {
  const PairCase& c = GetParam();
  const std::vector<TensorDifference> found =
      Compare(Map({{"t", c.a}}), Map({{"t", c.b}}));
  if (c.num_different == 0) {
    EXPECT_THAT(found, IsEmpty());
    return;
  }
  ASSERT_THAT(found, SizeIs(1));
  EXPECT_EQ(found[0].num_different, c.num_different);
  if (std::isnan(c.max_abs)) {
    EXPECT_TRUE(std::isnan(found[0].max_abs)) << found[0].max_abs;
  } else {
    EXPECT_EQ(found[0].max_abs, c.max_abs);
  }
}

at::Tensor Doubles(std::vector<double> values) { return ops::tensor(values); }
at::Tensor Longs(std::vector<int64_t> values) { return ops::tensor(values); }

constexpr int64_t kLarge = int64_t{1} << 53;
constexpr int64_t kMin = std::numeric_limits<int64_t>::min();
constexpr int64_t kMax = std::numeric_limits<int64_t>::max();

INSTANTIATE_TEST_SUITE_P(
    All, PairTest,
    testing::Values(
        PairCase{"NaNsOfTheSameBits", Doubles({kNaN, 1}), Doubles({kNaN, 1}), 0,
                 0},
        PairCase{"NaNsOfOtherBits", Doubles({kNaN}), Doubles({-kNaN}), 1, kNaN},
        PairCase{"NaNHidesNoOther", Doubles({kNaN, 1, 2}), Doubles({1, 1, 9}),
                 2, kNaN},
        PairCase{"ALargerOneBehindNaN", Doubles({1, 2}), Doubles({9, kNaN}), 2,
                 kNaN},
        PairCase{"Infinities", Doubles({kInfinity, -kInfinity}),
                 Doubles({kInfinity, 0}), 1, kInfinity},
        PairCase{"NegativeZero", Doubles({0.0}), Doubles({-0.0}), 1, 0},
        PairCase{"LongsBeyondDoubles", Longs({kLarge + 1}), Longs({kLarge}), 1,
                 1},
        PairCase{"LongsThatOverflow", Longs({kMin}), Longs({kMax}), 1,
                 18446744073709551616.0},
        PairCase{"UnsignedLongs", Longs({-1}).view(at::kUInt64),
                 Longs({1}).view(at::kUInt64), 1, 18446744073709551614.0},
        PairCase{"UnsignedInts", Doubles({1, 4e9}).to(at::kUInt32),
                 Doubles({1, 0}).to(at::kUInt32), 1, 4e9},
        PairCase{"Bools", Longs({0, 1, 1}).to(at::kBool),
                 Longs({1, 1, 0}).to(at::kBool), 2, 1},
        PairCase{"Halves", Doubles({1, 2}).to(at::kBFloat16),
                 Doubles({1, 2.5}).to(at::kBFloat16), 1, 0.5},
        PairCase{"Float8", Doubles({1, 2}).to(at::kFloat8_e4m3fn),
                 Doubles({1.5, 2}).to(at::kFloat8_e4m3fn), 1, 0.5},
        PairCase{
            "Complex", Doubles({0}).to(at::kComplexFloat),
            at::Tensor(Doubles({3, 4}).to(at::kFloat)).view(at::kComplexFloat),
            1, 5},
        PairCase{"NoElements", Doubles({}), Doubles({}), 0, 0},
        PairCase{"Scalars", Doubles({1}).view(at::IntArrayRef{}),
                 Doubles({4}).view(at::IntArrayRef{}), 1, 3}),
    [](const auto& info) { return info.param.name; });

TEST(CompareTensorsTest, LooksBeyondTheFirstPiece) {
  const at::Tensor a = ops::zeros({600001}, at::kByte);
  const at::Tensor b = a.clone();
  b.data_ptr<uint8_t>()[3] = 7;
  b.data_ptr<uint8_t>()[600000] = 9;
  const std::vector<TensorDifference> found =
      Compare(Map({{"t", a}}), Map({{"t", b}}));
  ASSERT_THAT(found, SizeIs(1));
  EXPECT_EQ(found[0].num_different, 2);
  EXPECT_EQ(found[0].max_abs, 9);
}

TEST(CompareTensorsTest, SparseOnesAreRefused) {
  const TensorMap dense = Map({{"t", ops::ones({2})}});
  const TensorMap sparse = Map({{"t", ops::ones({2}).to_sparse()}});
  EXPECT_THAT(CompareTensors(dense, sparse),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("\"t\": only dense")));
}

}  // namespace
}  // namespace io
}  // namespace grapnel
