#include "grapnel/tools/verify_resume/verify_resume_command.h"

#include <ostream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "grapnel/base/status_matchers.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::ElementsAre;
using ::testing::Eq;
using ::testing::Optional;

TEST(VerifyResumeHelpTest, FitsAScreen) {
  const std::vector<std::string> lines =
      absl::StrSplit(kVerifyResumeHelp, '\n');
  EXPECT_LE(lines.size(), 24u);
  for (const std::string& line : lines) EXPECT_LE(line.size(), 79u) << line;
}

TEST(ParseVerifyResumeCommandTest, TakesItsOwnFlagsAndLeavesTrainsOwn) {
  const auto command = ParseVerifyResumeCommand(
      {"--kills=7", "c.textproto", "--kill-seed", "12", "--seed", "3",
       "--iters", "40", "--save_every=5", "--cfg-options", "a=1", "b=2",
       "--work-dir=w", "--keep", "--json"});
  ASSERT_THAT(command, IsOk());
  EXPECT_FALSE(command->help);
  EXPECT_TRUE(command->json);
  const VerifyResumeOptions& options = command->options;
  EXPECT_EQ(options.kills, 7);
  EXPECT_THAT(options.kill_seed, Optional(12u));
  EXPECT_THAT(options.iters, Optional(40));
  EXPECT_THAT(options.save_every, Optional(5));
  EXPECT_EQ(options.dir, "w");
  EXPECT_TRUE(options.keep);
  EXPECT_THAT(options.train_args, ElementsAre("c.textproto", "--seed", "3",
                                              "--cfg-options", "a=1", "b=2"));
}

TEST(ParseVerifyResumeCommandTest, HasDefaults) {
  const auto command = ParseVerifyResumeCommand({"c.textproto"});
  ASSERT_THAT(command, IsOk());
  EXPECT_FALSE(command->json);
  EXPECT_EQ(command->options.kills, 5);
  EXPECT_FALSE(command->options.kill_seed.has_value());
  EXPECT_FALSE(command->options.keep);
  EXPECT_NE(command->options.dir, "");
}

TEST(ParseVerifyResumeCommandTest, HelpNeedsNothingElse) {
  const auto command = ParseVerifyResumeCommand({"c", "--help", "--kills=x"});
  ASSERT_THAT(command, IsOk());
  EXPECT_TRUE(command->help);
}

struct BadArgs {
  std::string name;
  std::vector<std::string> args;
  std::string message;  // All of it.
};

void PrintTo(const BadArgs& bad, std::ostream* out) { *out << bad.name; }

class BadVerifyResumeArgsTest : public testing::TestWithParam<BadArgs> {};

TEST_P(BadVerifyResumeArgsTest, AreRefused) {
  EXPECT_THAT(
      ParseVerifyResumeCommand(GetParam().args).status(),
      StatusIs(absl::StatusCode::kInvalidArgument, Eq(GetParam().message)));
}

INSTANTIATE_TEST_SUITE_P(
    , BadVerifyResumeArgsTest,
    testing::ValuesIn(std::vector<BadArgs>{
        {"NoKills",
         {"c", "--kills=0"},
         "--kills: must be an integer in 1..1000000000, is \"0\""},
        {"KillsByWord",
         {"c", "--kills", "many"},
         "--kills: must be an integer in 1..1000000000, is \"many\""},
        {"NegativeSeed",
         {"c", "--kill-seed=-1"},
         "--kill-seed: must be an integer >= 0, is \"-1\""},
        {"NoIterations",
         {"c", "--iters=0"},
         "--iters: must be an integer in 1..1000000000, is \"0\""},
        {"SaveNever",
         {"c", "--save-every=0"},
         "--save-every: must be an integer in 1..1000000000, is \"0\""},
        {"NoValue", {"c", "--iters"}, "--iters needs a value"},
        {"AFlagForAValue", {"c", "--iters", "--keep"}, "--iters needs a value"},
        {"EmptyFolder", {"c", "--work-dir="}, "--work-dir: is empty"},
        {"AValueForNone", {"c", "--keep=1"}, "--keep takes no value"},
        {"Twice", {"c", "--kills=1", "--kills=2"}, "--kills: given twice"},
        {"MisspelledFlag",
         {"c", "--kils", "3"},
         "unknown flag --kils; did you mean --kills?"},
        {"MisspelledFlagOfTrain",
         {"c", "--thread=3"},
         "unknown flag --thread; did you mean --threads?"},
        {"NoSuchFlag", {"c", "--frobnicate"}, "unknown flag --frobnicate"},
    }),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace grapnel
