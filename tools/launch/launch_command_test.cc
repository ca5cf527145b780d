#include "grapnel/tools/launch/launch_command.h"

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_split.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "grapnel/base/status_matchers.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::ElementsAre;
using ::testing::Eq;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Optional;

TEST(LaunchHelpTest, FitsAScreen) {
  const std::vector<std::string> lines = absl::StrSplit(kLaunchHelp, '\n');
  EXPECT_LE(lines.size(), 24u);
  for (const std::string& line : lines) EXPECT_LE(line.size(), 79u) << line;
}

TEST(ParseLaunchCommandTest, ReadsEveryFlag) {
  const auto command = ParseLaunchCommand(
      {"--nproc-per-node", "4", "--max_restarts=3", "--nnodes=2",
       "--node-rank=1", "--master-addr", "host", "--master-port=29500",
       "--log-dir=logs", "--grace", "1m30s", "--program=sh", "--", "-c", "--"});
  ASSERT_THAT(command, IsOk());
  EXPECT_EQ(command->options.nproc_per_node, 4);
  EXPECT_EQ(command->options.max_restarts, 3);
  EXPECT_EQ(command->options.nnodes, 2);
  EXPECT_EQ(command->options.node_rank, 1);
  EXPECT_EQ(command->options.master_addr, "host");
  EXPECT_EQ(command->options.master_port, 29500);
  EXPECT_EQ(command->options.log_dir, "logs");
  EXPECT_EQ(command->options.grace, absl::Seconds(90));
  EXPECT_THAT(command->program, Optional(Eq("sh")));
  EXPECT_THAT(command->args, ElementsAre("-c", "--"));
}

TEST(ParseLaunchCommandTest, WhatRanksRunBeginsWhereFlagsEnd) {
  const auto command =
      ParseLaunchCommand({"--nproc-per-node=2", "train", "c.pb", "--grace=x"});
  ASSERT_THAT(command, IsOk());
  EXPECT_THAT(command->args, ElementsAre("train", "c.pb", "--grace=x"));
  EXPECT_FALSE(command->program.has_value());
  EXPECT_EQ(command->options.grace, absl::Seconds(30));
  const auto program = ParseLaunchCommand({"--program=x"});
  ASSERT_THAT(program, IsOk());
  EXPECT_THAT(program->args, IsEmpty());
  const auto help = ParseLaunchCommand({"--nnodes=2", "--help", "--wrong"});
  ASSERT_THAT(help, IsOk());
  EXPECT_TRUE(help->help);
}

struct BadCase {
  const char* name;
  std::vector<std::string> args;
  const char* message;
};

class BadLaunchCommandTest : public testing::TestWithParam<BadCase> {};

TEST_P(BadLaunchCommandTest, IsNamed) {
  std::vector<std::string> args = GetParam().args;
  args.insert(args.end(), {"--", "train", "c.pb"});
  EXPECT_THAT(ParseLaunchCommand(args),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr(GetParam().message)));
}

INSTANTIATE_TEST_SUITE_P(
    All, BadLaunchCommandTest,
    testing::ValuesIn(std::vector<BadCase>{
        {"Typo",
         {"--nproc-per-nod=2"},
         "unknown flag --nproc-per-nod; did you mean --nproc-per-node?"},
        {"RanksFlag",
         {"--cfg-options", "a=1"},
         "unknown flag --cfg-options; what ranks run stands behind --"},
        {"OneDash", {"-n=2"}, "unknown flag -n=2; flags start with --"},
        {"Twice", {"--nnodes=1", "--nnodes=1"}, "--nnodes: given twice"},
        {"NoValue", {"--grace"}, "--grace needs a value"},
        {"NoRanks",
         {"--nproc-per-node=0"},
         "--nproc-per-node: must be an integer in 1..256, is \"0\""},
        {"ManyRanks", {"--nproc-per-node=257"}, "is \"257\""},
        {"Auto", {"--nproc-per-node=auto"}, "is \"auto\""},
        {"Elastic", {"--nnodes=1:2"}, "--nnodes: must be an integer in 1.."},
        {"NodeRank",
         {"--nnodes=2", "--node-rank=2", "--master-addr=a", "--master-port=1"},
         "--node-rank: must be less than --nnodes, 2, is 2"},
        {"NodeRankAlone", {"--node-rank=1"}, "--nnodes, 1, is 1"},
        {"NoNodeRank",
         {"--nnodes=2", "--master-addr=a", "--master-port=1"},
         "--nnodes=2 needs --node-rank"},
        {"NoMaster",
         {"--nnodes=2", "--node-rank=0", "--master-port=1"},
         "--nnodes=2 needs --master-addr"},
        {"NoPort",
         {"--nnodes=2", "--node-rank=0", "--master-addr=a"},
         "--nnodes=2 needs --master-port"},
        {"Port", {"--master-port=65536"}, "must be an integer in 1..65535"},
        {"Addr", {"--master-addr="}, "--master-addr: is empty"},
        {"Restarts", {"--max-restarts=-1"}, "--max-restarts: must be an int"},
        {"GraceUnit", {"--grace=30"}, "--grace: must be a time in 0..24h"},
        {"NegativeGrace", {"--grace=-1s"}, "is \"-1s\""},
        {"EndlessGrace", {"--grace=inf"}, "is \"inf\""},
        {"LogDir", {"--log-dir="}, "--log-dir: is empty"},
        {"Program", {"--program="}, "--program: is empty"}}),
    [](const auto& info) { return info.param.name; });

TEST(ParseLaunchCommandTest, NothingToLaunchIsRefused) {
  for (const std::vector<std::string>& args :
       {std::vector<std::string>{}, {"--nproc-per-node=2"}, {"--"}}) {
    EXPECT_THAT(ParseLaunchCommand(args),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         HasSubstr("nothing to launch")));
  }
}

}  // namespace
}  // namespace grapnel
