#include "grapnel/data/sample_rng.h"

#include <array>
#include <cstdint>
#include <set>

#include "gtest/gtest.h"

namespace grapnel {
namespace {

// Exact resume of old runs depends on it.
TEST(SampleRngTest, StreamNeverChanges) {
  SampleRng rng(1, 2, 3);
  EXPECT_EQ(rng.Next(), 0xDD034EA7D44E8739ull);
  EXPECT_EQ(rng.Next(), 0x5B70C9B40C7440B6ull);
  EXPECT_EQ(SampleRng(0, 0, 0).Next(), 0xCC78FB979CE5090ull);
}

TEST(SampleRngTest, StreamsOfNeighboursDiffer) {
  std::set<uint64_t> seen;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    for (uint64_t epoch = 0; epoch < 20; ++epoch) {
      for (uint64_t position = 0; position < 20; ++position) {
        seen.insert(SampleRng(seed, epoch, position).Next());
      }
    }
  }
  EXPECT_EQ(seen.size(), 20u * 20 * 20);
}

TEST(SampleRngTest, UniformStaysInItsRangeAndFillsIt) {
  SampleRng rng(5, 0, 0);
  double sum = 0;
  constexpr int kDraws = 100000;
  for (int i = 0; i < kDraws; ++i) {
    const double x = rng.Uniform(-2, 6);
    ASSERT_GE(x, -2);
    ASSERT_LT(x, 6);
    sum += x;
  }
  // Five standard errors.
  EXPECT_NEAR(sum / kDraws, 2, 5 * 8 / 3.4641 / 316);
}

TEST(SampleRngTest, BelowGivesEachNumberEquallyOften) {
  SampleRng rng(5, 0, 1);
  std::array<int, 7> counts = {};
  constexpr int kDraws = 70000;
  for (int i = 0; i < kDraws; ++i) {
    const int64_t n = rng.Below(7);
    ASSERT_GE(n, 0);
    ASSERT_LT(n, 7);
    ++counts[n];
  }
  for (const int count : counts) EXPECT_NEAR(count, kDraws / 7, 500);
  EXPECT_EQ(rng.Below(1), 0);
}

}  // namespace
}  // namespace grapnel
