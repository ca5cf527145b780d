#include "grapnel/tools/ckpt/ckpt_command.h"

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "grapnel/base/status_matchers.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using Verb = CkptCommand::Verb;
using testing::ElementsAre;
using testing::Eq;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Optional;
using testing::StartsWith;

CkptCommand Parse(const std::vector<std::string>& args) {
  const absl::StatusOr<CkptCommand> command = ParseCkptCommand(args);
  EXPECT_THAT(command, IsOk()) << absl::StrJoin(args, " ");
  return command.value_or(CkptCommand());
}

TEST(CkptHelpTest, EachFitsAScreen) {
  for (const std::string& help : CkptHelps()) {
    const std::vector<std::string> lines = absl::StrSplit(help, '\n');
    EXPECT_LE(lines.size(), 24u) << help;
    for (const std::string& line : lines) EXPECT_LE(line.size(), 79u) << line;
  }
}

TEST(CkptHelpTest, IsOfTheCommandThatIsNamed) {
  EXPECT_THAT(Parse({"--help"}).help, StartsWith("grapnel ckpt looks after"));
  EXPECT_THAT(Parse({"-h"}).help, StartsWith("grapnel ckpt looks after"));
  EXPECT_THAT(Parse({"gc", "--help"}).help, StartsWith("grapnel ckpt gc "));
  EXPECT_THAT(Parse({"diff", "-h", "--wrong"}).help,
              StartsWith("grapnel ckpt diff "));
  EXPECT_THAT(Parse({"ls"}).help, IsEmpty());
}

TEST(ParseCkptCommandTest, ReadsEveryFlag) {
  CkptCommand command = Parse({"ls", "w", "--json"});
  EXPECT_EQ(command.verb, Verb::kLs);
  EXPECT_THAT(command.paths, ElementsAre("w"));
  EXPECT_TRUE(command.json);

  EXPECT_TRUE(Parse({"show", "--all", "w"}).all);
  EXPECT_TRUE(Parse({"show", "w", "--config"}).config);
  EXPECT_THAT(Parse({"verify", "a", "b", "c"}).paths,
              ElementsAre("a", "b", "c"));

  command = Parse({"diff", "a", "--section=ema", "b", "--all"});
  EXPECT_THAT(command.paths, ElementsAre("a", "b"));
  EXPECT_THAT(command.section, Optional(Eq("ema")));
  EXPECT_TRUE(command.all);

  command = Parse({"gc", "w", "--dry-run", "--keep-last", "3", "--keep_best=2",
                   "--metric", "acc", "--rule=less", "--keep-every=5",
                   "--keep-per=1h30m", "--run=1a2b"});
  EXPECT_TRUE(command.dry_run);
  EXPECT_THAT(command.keep_last, Optional(3));
  EXPECT_THAT(command.keep_best, Optional(2));
  EXPECT_THAT(command.keep_every, Optional(5));
  EXPECT_THAT(command.keep_per, Optional(absl::Minutes(90)));
  EXPECT_THAT(command.metric, Optional(Eq("acc")));
  EXPECT_THAT(command.rule, Optional(Eq("less")));
  EXPECT_THAT(command.run, Optional(Eq("1a2b")));

  EXPECT_TRUE(Parse({"pin", "a", "b", "--remove"}).remove);
  EXPECT_EQ(Parse({"repair_last", "w"}).verb, Verb::kRepairLast);
  command = Parse({"export", "a", "b", "--pth", "--average=ema"});
  EXPECT_THAT(command.format, Optional(CkptCommand::Format::kPth));
  EXPECT_THAT(command.average, Optional(Eq("ema")));
  EXPECT_THAT(Parse({"export", "a", "b", "--safetensors"}).format,
              Optional(CkptCommand::Format::kSafetensors));

  command =
      Parse({"average", "-o", "out", "--weights=0.5,1,2e-1", "a", "b", "c"});
  EXPECT_THAT(command.output, Optional(Eq("out")));
  EXPECT_THAT(command.weights, ElementsAre(0.5, 1, 0.2));
  EXPECT_THAT(command.paths, ElementsAre("a", "b", "c"));
}

TEST(ParseCkptCommandTest, UnsetFlagsStayUnset) {
  const CkptCommand command = Parse({"gc", "w"});
  EXPECT_FALSE(command.json || command.all || command.config ||
               command.dry_run || command.remove);
  EXPECT_FALSE(command.section || command.keep_last || command.keep_best ||
               command.keep_every || command.keep_per || command.metric ||
               command.rule || command.run || command.format ||
               command.average || command.output);
  EXPECT_THAT(command.weights, IsEmpty());
  EXPECT_THAT(Parse({"ls"}).paths, IsEmpty());
}

TEST(ParseCkptCommandTest, TwoDashesEndTheFlags) {
  EXPECT_THAT(Parse({"diff", "--", "--json", "-x"}).paths,
              ElementsAre("--json", "-x"));
}

struct BadArgs {
  const char* name;
  std::vector<std::string> args;
  const char* message;  // All of it.
};

class BadCkptArgsTest : public testing::TestWithParam<BadArgs> {};

TEST_P(BadCkptArgsTest, AreRefused) {
  EXPECT_THAT(
      ParseCkptCommand(GetParam().args),
      StatusIs(absl::StatusCode::kInvalidArgument, Eq(GetParam().message)));
}

INSTANTIATE_TEST_SUITE_P(
    All, BadCkptArgsTest,
    testing::ValuesIn(std::vector<BadArgs>{
        {"Nothing",
         {},
         "no command: grapnel ckpt ls, show, verify, ...; see grapnel ckpt "
         "--help"},
        {"Typo",
         {"exprot", "a", "b"},
         "unknown command \"ckpt exprot\"; did you mean \"export\"?"},
        {"NoCommand",
         {"w"},
         "unknown command \"ckpt w\"; see grapnel ckpt --help"},
        {"FlagFirst",
         {"--json", "ls"},
         "--json: what to do comes first, as in grapnel ckpt ls --json"},
        {"UnknownFlag",
         {"gc", "w", "--dry-rnu"},
         "unknown flag --dry-rnu; did you mean --dry-run?"},
        {"UnlikelyFlag",
         {"gc", "w", "--xyzzy=1"},
         "unknown flag --xyzzy; see grapnel ckpt gc --help"},
        {"ShortFlag",
         {"gc", "w", "-n"},
         "unknown flag -n; flags start with --"},
        {"FlagOfAnother",
         {"ls", "--dry-run"},
         "--dry-run is not for ckpt ls; see grapnel ckpt ls --help"},
        {"TooFew", {"diff", "a"}, "too few arguments: grapnel ckpt diff A B"},
        {"TooMany",
         {"show", "a", "b"},
         "unexpected argument \"b\": grapnel ckpt show CKPT"},
        {"EmptyPath", {"show", ""}, "a path is empty"},
        {"Twice",
         {"gc", "w", "--keep-last=1", "--keep-last=2"},
         "--keep-last: given twice"},
        {"NoValue", {"gc", "w", "--keep-last"}, "--keep-last needs a value"},
        {"FlagForValue",
         {"gc", "w", "--metric", "--json"},
         "--metric needs a value"},
        {"ValueForNone", {"ls", "--json=1"}, "--json takes no value"},
        {"KeepNone",
         {"gc", "w", "--keep-last=0"},
         "--keep-last: must be an integer >= 1, is \"0\""},
        {"BestOfWhat",
         {"gc", "w", "--keep-best=1"},
         "--keep-best needs --metric NAME"},
        {"MetricForWhat",
         {"gc", "w", "--metric=acc"},
         "--metric is for --keep-best N"},
        {"RuleForWhat",
         {"gc", "w", "--rule=less"},
         "--rule is for --keep-best N"},
        {"UnknownRule",
         {"gc", "w", "--rule=more"},
         "--rule: must be greater or less, is \"more\""},
        {"PerWithoutAUnit",
         {"gc", "w", "--keep-per=30"},
         "--keep-per: must be a time > 0 with its unit, as 30m or 1h, is "
         "\"30\""},
        {"PerWithoutAnEnd",
         {"gc", "w", "--keep-per=inf"},
         "--keep-per: must be a time > 0 with its unit, as 30m or 1h, is "
         "\"inf\""},
        {"TwoFormats",
         {"export", "a", "b", "--pth", "--safetensors"},
         "--safetensors: one of --pth and --safetensors"},
        {"NoOutput",
         {"average", "a"},
         "average needs -o OUT: a directory, or a .safetensors or .pth file"},
        {"WeightsTooFew",
         {"average", "-o", "x", "a", "b", "--weights=1"},
         "--weights: has 1, there are 2 checkpoints"},
        {"NegativeWeight",
         {"average", "-o", "x", "a", "b", "--weights=1,-1"},
         "--weights: must be numbers > 0 with commas between them, one is "
         "\"-1\""},
        {"InfiniteWeight",
         {"average", "-o", "x", "a", "--weights=inf"},
         "--weights: must be numbers > 0 with commas between them, one is "
         "\"inf\""},
        {"CountersOfWhat",
         {"import", "a", "b", "--epoch=1"},
         "--epoch, --iter and --no-optimizer are for --training CONFIG"},
        {"NegativeEpoch",
         {"import", "a", "b", "--training=c", "--epoch=-1"},
         "--epoch: must be an integer >= 0, is \"-1\""},
        {"TrainingWithAnAverage",
         {"export", "a", "b", "--training", "--average=ema"},
         "--average: --training takes every average along"},
        {"TrainingAsSafetensors",
         {"export", "a", "b", "--training", "--safetensors"},
         "--safetensors: --training is written as .pth"},
        {"AllOfTheConfig",
         {"show", "a", "--config", "--all"},
         "--all: --config prints no tensors"},
    }),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace grapnel
