#include "grapnel/loggers/number_format.h"

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <string>

#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::TestWithParam;
using ::testing::ValuesIn;

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

struct ReprCase {
  std::string name;
  double value;
  std::string text;  // From Python 3.11.
};

class PythonReprTest : public TestWithParam<ReprCase> {};

TEST_P(PythonReprTest, IsPythons) {
  EXPECT_EQ(PythonRepr(GetParam().value), GetParam().text);
}

INSTANTIATE_TEST_SUITE_P(
    Values, PythonReprTest,
    ValuesIn<ReprCase>({
        {"Zero", 0.0, "0.0"},
        {"MinusZero", -0.0, "-0.0"},
        {"Integer", 3.0, "3.0"},
        {"Hundred", 100.0, "100.0"},
        {"Tenth", 0.1, "0.1"},
        {"Negative", -0.012499999999999956, "-0.012499999999999956"},
        {"SeventeenDigits", 1.6770509831248424, "1.6770509831248424"},
        {"FloatWidened", static_cast<double>(0.1f), "0.10000000149011612"},
        {"LastWithoutExponent", 0.0001, "0.0001"},
        {"FirstWithNegativeExponent", 0.00001, "1e-05"},
        {"NegativeExponentAndDigits", 1.25e-7, "1.25e-07"},
        {"LastInteger", 9999999999999998.0, "9999999999999998.0"},
        {"FirstWithExponent", 1e16, "1e+16"},
        {"TwoToThe53", 9007199254740992.0, "9007199254740992.0"},
        {"ExponentOfThreeDigits", 1.5e300, "1.5e+300"},
        {"Largest", std::numeric_limits<double>::max(),
         "1.7976931348623157e+308"},
        {"Smallest", std::numeric_limits<double>::denorm_min(), "5e-324"},
        {"Mixed", 123456.789, "123456.789"},
        {"NaN", kNaN, "nan"},
        {"NegativeNaN", std::copysign(kNaN, -1.0), "nan"},
        {"Infinity", kInf, "inf"},
        {"MinusInfinity", -kInf, "-inf"},
    }),
    [](const auto& info) { return info.param.name; });

TEST(NumberFormatTest, AnyDoubleReadsBackToItself) {
  std::mt19937_64 random(7);
  for (int i = 0; i < 20000; ++i) {
    const uint64_t bits = random();
    double value;
    std::memcpy(&value, &bits, sizeof(value));
    if (!std::isfinite(value)) continue;
    const std::string text = PythonRepr(value);
    EXPECT_EQ(std::strtod(text.c_str(), nullptr), value) << text;
  }
}

TEST(NumberFormatTest, AppendsToWhatIsThere) {
  std::string text = "x = ";
  AppendPythonRepr(0.5, &text);
  EXPECT_EQ(text, "x = 0.5");
}

}  // namespace
}  // namespace grapnel
