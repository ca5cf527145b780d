#include "grapnel/tools/bench/measure.h"

#include <cmath>
#include <string>

#include "gtest/gtest.h"

namespace grapnel {
namespace {

TEST(AATest, AVerdictNeedsTheRatioNearOne) {
  for (const double a_a : {0.98, 0.995, 1.0, 1.02}) {
    EXPECT_STREQ(Goal(a_a, "(at most 8)"), "(at most 8)") << a_a;
    EXPECT_STREQ(NoResult(a_a), "") << a_a;
  }
  for (const double a_a : {0.9799, 1.0201, 0.0, 3.0, std::nan("")}) {
    EXPECT_STREQ(Goal(a_a, "(at most 8)"), "") << a_a;
    EXPECT_NE(std::string(NoResult(a_a)).find("no result"), std::string::npos)
        << a_a;
  }
}

}  // namespace
}  // namespace grapnel
