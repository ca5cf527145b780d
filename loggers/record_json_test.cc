#include "grapnel/loggers/record_json.h"

#include <cstdint>
#include <fstream>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "grapnel/loggers/log_backend.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace grapnel {
namespace {

using ::testing::TestWithParam;
using ::testing::ValuesIn;

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

TEST(RecordJsonTest, IsWhatMmengineWrites) {
  std::ifstream file("tests/golden/log_lines.json");
  const auto golden = nlohmann::ordered_json::parse(file);
  int num_records = 0;
  for (const auto& test_case : golden["cases"]) {
    if (!test_case.contains("json_first_raw")) continue;
    Record record;
    for (const auto& [name, value] : test_case["json_records"][0].items()) {
      if (name == "step") {
        record.step = value;
      } else if (value.is_number_integer()) {
        record.scalars.emplace_back(name, value.get<int64_t>());
      } else {
        record.scalars.emplace_back(name, value.get<double>());
      }
    }
    EXPECT_EQ(RecordToJson(record), test_case["json_first_raw"])
        << test_case["name"];
    ++num_records;
  }
  EXPECT_GE(num_records, 10);
}

struct JsonCase {
  std::string name;
  Record record;
  std::string json;
};

Record Val(std::vector<std::pair<std::string, Scalar>> scalars) {
  return {Record::Kind::kVal, std::move(scalars), 3};
}

class RecordToJsonTest : public TestWithParam<JsonCase> {};

TEST_P(RecordToJsonTest, IsPythons) {
  EXPECT_EQ(RecordToJson(GetParam().record), GetParam().json);
}

INSTANTIATE_TEST_SUITE_P(
    Records, RecordToJsonTest,
    ValuesIn<JsonCase>({
        {"Nothing", Val({}), R"({"step": 3})"},
        {"IntegersStay", Val({{"hits", int64_t{3}}, {"acc", 3.0}}),
         R"({"hits": 3, "acc": 3.0, "step": 3})"},
        {"LargestInteger", Val({{"n", std::numeric_limits<int64_t>::max()}}),
         R"({"n": 9223372036854775807, "step": 3})"},
        {"NotFinite", Val({{"a", kNaN}, {"b", kInf}, {"c", -kInf}}),
         R"({"a": NaN, "b": Infinity, "c": -Infinity, "step": 3})"},
        {"OwnStepIsTheRecords", Val({{"step", int64_t{7}}, {"a", 1.5}}),
         R"({"step": 7, "a": 1.5})"},
        {"TestHasNoStep",
         {Record::Kind::kTest, {{"acc", 0.5}}, 3},
         R"({"acc": 0.5})"},
        {"QuotesAndControls", Val({{"a\"\\\n\r\t\b\f\x01\x7f", 1.0}}),
         R"({"a\"\\\n\r\t\b\f\u0001\u007f": 1.0, "step": 3})"},
        {"NulInside", Val({{std::string("a\0b", 3), 1.0}}),
         R"({"a\u0000b": 1.0, "step": 3})"},
        {"Umlaut", Val({{"\xc3\xa4", 1.0}}), R"({"\u00e4": 1.0, "step": 3})"},
        {"SurrogatePair", Val({{"\xf0\x9f\x98\x80", 1.0}}),
         R"({"\ud83d\ude00": 1.0, "step": 3})"},
        {"NotUtf8", Val({{"a\xff\xc3(\xed\xa0\x80", 1.0}}),
         R"({"a\\xff\\xc3(\\xed\\xa0\\x80": 1.0, "step": 3})"},
        {"Overlong", Val({{"\xc0\xaf\xe0\x80\xaf", 1.0}}),
         R"({"\\xc0\\xaf\\xe0\\x80\\xaf": 1.0, "step": 3})"},
        {"CutShort", Val({{"\xe2\x82", 1.0}}),
         R"({"\\xe2\\x82": 1.0, "step": 3})"},
    }),
    [](const auto& info) { return info.param.name; });

TEST(RecordJsonTest, AppendsToWhatIsThere) {
  std::string text = "x";
  AppendRecordJson(Val({{"a", 1.0}}), &text);
  EXPECT_EQ(text, R"(x{"a": 1.0, "step": 3})");
}

}  // namespace
}  // namespace grapnel
