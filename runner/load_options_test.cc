#include "grapnel/runner/load_options.h"

#include <ostream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gmock/gmock.h"
#include "google/protobuf/text_format.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/runner/runner_config.pb.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

runner::v1::LoadOptions Parse(const std::string& text) {
  runner::v1::LoadOptions options;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &options))
      << text;
  return options;
}

TensorMap Named(const std::vector<std::string>& names) {
  TensorMap map;
  for (const std::string& name : names) {
    EXPECT_THAT(map.Add(name, ops::zeros({1})), IsOk());
  }
  return map;
}

std::vector<std::string> Names(const TensorMap& map) {
  std::vector<std::string> names;
  for (const NamedTensor& tensor : map) names.push_back(tensor.name);
  return names;
}

// What `options` make of a model with tensors of these names.
absl::StatusOr<std::vector<std::string>> Apply(
    const std::string& options, const std::vector<std::string>& names,
    std::vector<std::string>* warnings) {
  const auto rules = LoadRules::Create(Parse(options));
  EXPECT_THAT(rules, IsOk());
  io::CheckpointContents contents;
  contents.sections.emplace_back("model", Named(names));
  const absl::Status status = rules->Apply(&contents, warnings);
  if (!status.ok()) return status;
  return Names(*contents.FindSection("model"));
}

struct RulesCase {
  const char* name;
  const char* options;
  std::vector<std::string> names;
  std::vector<std::string> become;
  std::vector<std::string> warnings;
};

void PrintTo(const RulesCase& c, std::ostream* os) { *os << c.name; }

class LoadRulesTest : public ::testing::TestWithParam<RulesCase> {};

INSTANTIATE_TEST_SUITE_P(
    , LoadRulesTest,
    ::testing::Values(RulesCase{"None", "strict: false", {"a.w"}, {"a.w"}, {}},
                      RulesCase{"ExcludeMatchesAnywhere",
                                "exclude: 'head'",
                                {"a.w", "head.w", "my_head.b"},
                                {"a.w"},
                                {}},
                      RulesCase{"ExcludeMayBeAnchored",
                                "exclude: '^head\\\\.'",
                                {"head.w", "my.head.b", "header"},
                                {"my.head.b", "header"},
                                {}},
                      RulesCase{"PrefixGoes",
                                "rename { pattern: '^module\\\\.' }",
                                {"module.a.module.w", "module.b"},
                                {"a.module.w", "b"},
                                {}},
                      RulesCase{"GroupsAreTaken",
                                "rename { pattern: '^(\\\\w+)\\\\.gamma$' "
                                "replacement: '\\\\1.weight' }",
                                {"bn1.gamma", "bn1.gamma_of"},
                                {"bn1.weight", "bn1.gamma_of"},
                                {}},
                      RulesCase{"EveryMatchIsReplaced",
                                "rename { pattern: 'x' replacement: 'y' }",
                                {"x.x.w"},
                                {"y.y.w"},
                                {}},
                      RulesCase{"RenamesFollowEachOther",
                                "rename { pattern: '^a' replacement: 'b' } "
                                "rename { pattern: '^b' replacement: 'c' }",
                                {"a1", "b2"},
                                {"c1", "c2"},
                                {}},
                      RulesCase{"ExcludeSeesTheNamesOfTheCheckpoint",
                                "exclude: '^new' exclude: '^old' "
                                "rename { pattern: '^old' replacement: 'new' }",
                                {"old.w", "a"},
                                {"a"},
                                {"exclude[0]: no name matches \"^new\"",
                                 "rename[0]: no name matches \"^old\""}},
                      RulesCase{"NamesMaySwap",
                                "rename { pattern: '^a$' replacement: 't' } "
                                "rename { pattern: '^b$' replacement: 'a' } "
                                "rename { pattern: '^t$' replacement: 'b' }",
                                {"a", "b"},
                                {"b", "a"},
                                {}}),
    [](const auto& info) { return info.param.name; });

TEST_P(LoadRulesTest, ApplyInOrder) {
  std::vector<std::string> warnings;
  const auto names = Apply(GetParam().options, GetParam().names, &warnings);
  ASSERT_THAT(names, IsOk());
  EXPECT_EQ(*names, GetParam().become);
  EXPECT_EQ(warnings, GetParam().warnings);
}

TEST(LoadRulesApplyTest, TwoNamesThatBecomeOneAreRefused) {
  std::vector<std::string> warnings;
  EXPECT_THAT(Apply("rename { pattern: '^m\\\\.' }", {"w", "m.w"}, &warnings),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "rename: \"w\" and \"m.w\" both become \"w\""));
  EXPECT_THAT(Apply("rename { pattern: '.*' }", {"w"}, &warnings),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "rename: nothing is left of the name \"w\""));
}

TEST(LoadRulesApplyTest, AveragesFollowTheModelAndOtherSectionsStay) {
  const auto rules =
      LoadRules::Create(Parse("exclude: 'head' rename { pattern: '^m\\\\.' }"));
  ASSERT_THAT(rules, IsOk());
  io::CheckpointContents contents;
  contents.sections.emplace_back("optimizer", Named({"m.w/momentum"}));
  contents.sections.emplace_back("model", Named({"m.w", "m.b", "head.w"}));
  contents.sections.emplace_back("ema", Named({"m.w", "head.w"}));
  contents.sections.emplace_back("mine", Named({"m.other"}));
  std::vector<std::string> warnings;
  ASSERT_THAT(rules->Apply(&contents, &warnings), IsOk());
  EXPECT_THAT(warnings, IsEmpty());
  EXPECT_THAT(Names(*contents.FindSection("optimizer")),
              ElementsAre("m.w/momentum"));
  EXPECT_THAT(Names(*contents.FindSection("model")), ElementsAre("w", "b"));
  EXPECT_THAT(Names(*contents.FindSection("ema")), ElementsAre("w"));
  EXPECT_THAT(Names(*contents.FindSection("mine")), ElementsAre("m.other"));
}

TEST(LoadRulesCreateTest, BadRulesAreRefusedByField) {
  const auto error = [](const std::string& options) {
    return std::string(LoadRules::Create(Parse(options)).status().message());
  };
  EXPECT_THAT(error("exclude: 'a' exclude: '('"),
              HasSubstr("exclude[1]: \"(\": missing )"));
  EXPECT_EQ(error("exclude: ''"), "exclude[0]: is empty");
  EXPECT_EQ(error("rename { replacement: 'a' }"),
            "rename[0]: pattern: is empty");
  EXPECT_THAT(error("rename { pattern: '[' }"),
              HasSubstr("rename[0]: pattern"));
  EXPECT_THAT(error("rename { pattern: 'a' replacement: '\\\\1' }"),
              HasSubstr("rename[0]: replacement: \"\\1\""));
}

}  // namespace
}  // namespace grapnel
