#include "grapnel/loggers/config_json.h"

#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "grapnel/base/status_matchers.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;
using ::testing::TestWithParam;
using ::testing::ValuesIn;

TEST(ConfigJsonTest, FieldsKeepTheirOrderAndBecomeArraysIfRepeated) {
  const auto fields = ConfigTextToJson(R"(
    # A comment.
    work_dir: "a\"b\n" 'c'
    hooks { name: "x" }
    lr: 1e-05, momentum: -0.5f; n: -3
    hooks < name: "y" on: true >
    betas: [0.9, 0.999]
    none: []
    size: 18446744073709551615
    rule: GREATER
    delta: inf  low: -inf
    empty {}
  )");
  ASSERT_THAT(fields, IsOk());
  EXPECT_THAT(
      *fields,
      ElementsAre(
          Pair("work_dir", R"("a\"b\nc")"),
          Pair("hooks", R"([{"name": "x"}, {"name": "y", "on": true}])"),
          Pair("lr", "1e-05"), Pair("momentum", "-0.5"), Pair("n", "-3"),
          Pair("betas", "[0.9, 0.999]"), Pair("size", "18446744073709551615"),
          Pair("rule", R"("GREATER")"), Pair("delta", R"("inf")"),
          Pair("low", R"("-inf")"), Pair("empty", "{}")));
}

TEST(ConfigJsonTest, AnAnyIsUnderItsTypesName) {
  const auto fields = ConfigTextToJson(
      "custom { [type.googleapis.com/my.package.LossConfig] { weight: 2 } }");
  ASSERT_THAT(fields, IsOk());
  EXPECT_THAT(*fields,
              ElementsAre(Pair("custom",
                               R"({"my.package.LossConfig": {"weight": 2}})")));
}

TEST(ConfigJsonTest, NothingIsNoFields) {
  const auto fields = ConfigTextToJson("\n");
  ASSERT_THAT(fields, IsOk());
  EXPECT_THAT(*fields, IsEmpty());
}

struct BadTextCase {
  std::string name;
  std::string text;
  std::string message;
};

class ConfigJsonBadTextTest : public TestWithParam<BadTextCase> {};

TEST_P(ConfigJsonBadTextTest, NamesTheLine) {
  EXPECT_THAT(ConfigTextToJson(GetParam().text),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr(GetParam().message)));
}

std::string Nested(int depth) {
  std::string text;
  for (int i = 0; i < depth; ++i) text += "a {";
  return text + std::string(depth, '}');
}

INSTANTIATE_TEST_SUITE_P(
    , ConfigJsonBadTextTest,
    ValuesIn<BadTextCase>({
        {"NoValue", "a: 1\nb:\n}", "config: line 3: a value is expected"},
        {"NotClosed", "a {\n", "line 2: \"}\" is expected"},
        {"ClosedTwice", "a {} }", "line 1: a field is expected, not \"}\""},
        {"ClosedByAnother", "a { >", "line 1: a field is expected"},
        {"ListNotClosed", "a: [1, 2", "\"]\" is expected"},
        {"TypeNotClosed", "a { [x.y", "\"]\" is expected"},
        {"StringNotClosed", "a: 'x", "line 1: "},
        {"TooDeep", Nested(101), "nesting is too deep"},
    }),
    [](const auto& info) { return info.param.name; });

TEST(ConfigJsonTest, NestingUpToTheLimitIsFine) {
  EXPECT_THAT(ConfigTextToJson(Nested(100)), IsOk());
}

}  // namespace
}  // namespace grapnel
