#include "grapnel/tools/command_line.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "google/protobuf/text_format.h"
#include "google/protobuf/util/message_differencer.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/env.h"
#include "grapnel/io/mem_env.h"
#include "grapnel/models/metric.h"
#include "grapnel/runner/config_file.h"
#include "grapnel/runner/runner_config.pb.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::google::protobuf::TextFormat;
using ::google::protobuf::util::MessageDifferencer;
using runner::v1::RunnerConfig;
using Verb = CommandLine::Verb;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::Eq;
using ::testing::HasSubstr;
using ::testing::Optional;

CommandLine Parse(std::vector<std::string> args) {
  absl::StatusOr<CommandLine> command = ParseCommandLine(args);
  EXPECT_THAT(command, IsOk()) << absl::StrJoin(args, " ");
  return command.value_or(CommandLine());
}

TEST(HelpTest, FitsAScreen) {
  const std::vector<std::string> lines = absl::StrSplit(kHelp, '\n');
  EXPECT_LE(lines.size(), 24u);
  for (const std::string& line : lines) EXPECT_LE(line.size(), 79u) << line;
}

TEST(ParseCommandLineTest, ReadsEveryFlag) {
  const CommandLine command =
      Parse({"train", "c.textproto", "--work-dir", "w", "--resume",
             "--load-from=l", "--cfg-options", "a.b=1", "c=[2,3]", "--seed",
             "7", "--threads=2", "--wait-for-lock", "1h30m", "--no-strict"});
  EXPECT_EQ(command.verb, Verb::kTrain);
  EXPECT_EQ(command.config, "c.textproto");
  EXPECT_THAT(command.work_dir, Optional(Eq("w")));
  EXPECT_THAT(command.resume, Optional(true));
  EXPECT_THAT(command.load_from, Optional(Eq("l")));
  EXPECT_THAT(command.cfg_options, ElementsAre("a.b=1", "c=[2,3]"));
  EXPECT_THAT(command.seed, Optional(7));
  EXPECT_THAT(command.threads, Optional(2));
  EXPECT_THAT(command.wait_for_lock, Optional(absl::Minutes(90)));
  EXPECT_THAT(command.strict, Optional(false));
}

TEST(ParseCommandLineTest, CheckTakesWhatTrainDoes) {
  const CommandLine command =
      Parse({"check", "c.json", "--resume", "--work-dir", "w"});
  EXPECT_EQ(command.verb, Verb::kCheck);
  EXPECT_THAT(command.resume, Optional(true));
}

TEST(ParseCommandLineTest, UnsetFlagsStayUnset) {
  const CommandLine command = Parse({"config", "c.json"});
  EXPECT_EQ(command.verb, Verb::kConfig);
  EXPECT_FALSE(command.work_dir || command.resume || command.load_from ||
               command.seed || command.threads || command.wait_for_lock ||
               command.strict);
  EXPECT_TRUE(command.cfg_options.empty());
}

TEST(ParseCommandLineTest, FlagsStandAnywhereWithDashesOrUnderscores) {
  const CommandLine command =
      Parse({"--work_dir=w", "test", "--load_from", "l", "c.pb"});
  EXPECT_EQ(command.verb, Verb::kTest);
  EXPECT_EQ(command.config, "c.pb");
  EXPECT_THAT(command.work_dir, Optional(Eq("w")));
  EXPECT_THAT(command.load_from, Optional(Eq("l")));
}

TEST(ParseCommandLineTest, CfgOptionsGatherAndLeaveTheConfigAlone) {
  const CommandLine command =
      Parse({"train", "--cfg-options", "a=1", "b=x y", "c.textproto",
             "--cfg-options=c=--d", "--seed=1"});
  EXPECT_EQ(command.config, "c.textproto");
  EXPECT_THAT(command.cfg_options, ElementsAre("a=1", "b=x y", "c=--d"));
}

TEST(ParseCommandLineTest, WhatFollowsLaunchIsLeftToIt) {
  const CommandLine command =
      Parse({"launch", "--nproc-per-node=2", "--", "trian", "--seed=x"});
  EXPECT_EQ(command.verb, Verb::kLaunch);
  EXPECT_THAT(command.launch,
              ElementsAre("--nproc-per-node=2", "--", "trian", "--seed=x"));
  EXPECT_THAT(Parse({"launch"}).launch, testing::IsEmpty());
  EXPECT_THAT(ParseCommandLine({"--seed=1", "launch"}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("launch comes first")));
  EXPECT_THAT(ParseCommandLine({"train", "c.pb", "--", "--seed=1"}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("-- is for launch")));
  EXPECT_THAT(ParseCommandLine({"lanuch", "--", "train", "c.pb"}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("did you mean \"launch\"?")));
}

TEST(ParseCommandLineTest, WhatFollowsCkptIsLeftToIt) {
  const CommandLine command = Parse({"ckpt", "diff", "--all", "a", "--help"});
  EXPECT_EQ(command.verb, Verb::kCkpt);
  EXPECT_THAT(command.ckpt, ElementsAre("diff", "--all", "a", "--help"));
  EXPECT_THAT(ParseCommandLine({"--seed=1", "ckpt", "ls"}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("ckpt comes first")));
  EXPECT_THAT(ParseCommandLine({"chkpt", "ls"}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("did you mean \"ckpt\"?")));
}

TEST(ArgsToGoOnTest, NoOtherCheckpointIsNamed) {
  for (const std::vector<std::string>& begins :
       {std::vector<std::string>{"--resume=old"},
        {"--resume", "auto"},
        {"--resume"},
        {"--resume=false", "--load_from", "old"},
        {"--load-from=old"},
        {}}) {
    std::vector<std::string> args = {"--seed", "7", "train"};
    args.insert(args.end(), begins.begin(), begins.end());
    args.insert(args.end(), {"c.pb", "--cfg-options", "a=1"});
    const auto to_go_on = ArgsToGoOn(args);
    ASSERT_THAT(to_go_on, IsOk());
    EXPECT_THAT(*to_go_on,
                ElementsAre("--seed", "7", "train", "c.pb", "--cfg-options",
                            "a=1", "--resume", "--cfg-options", "load_from="));
    const CommandLine command = Parse(*to_go_on);
    EXPECT_THAT(command.resume, Optional(true));
    EXPECT_FALSE(command.load_from.has_value());
  }
}

struct ResumeCase {
  const char* name;
  std::vector<std::string> args;
  bool resume;
  const char* load_from;  // Null: unset.
};

class ResumeTest : public testing::TestWithParam<ResumeCase> {};

TEST_P(ResumeTest, Reads) {
  std::vector<std::string> args = {"train"};
  args.insert(args.end(), GetParam().args.begin(), GetParam().args.end());
  args.push_back("c.textproto");
  const CommandLine command = Parse(args);
  EXPECT_EQ(command.config, "c.textproto");
  EXPECT_THAT(command.resume, Optional(GetParam().resume));
  EXPECT_EQ(command.load_from.has_value(), GetParam().load_from != nullptr);
  EXPECT_EQ(command.load_from.value_or(""),
            GetParam().load_from == nullptr ? "" : GetParam().load_from);
}

INSTANTIATE_TEST_SUITE_P(
    All, ResumeTest,
    testing::ValuesIn(std::vector<ResumeCase>{
        {"Bare", {"--resume"}, true, nullptr},
        {"Auto", {"--resume", "auto"}, true, nullptr},
        {"EqualsAuto", {"--resume=auto"}, true, nullptr},
        {"True", {"--resume=true"}, true, nullptr},
        {"False", {"--resume=false"}, false, nullptr},
        {"Path", {"--resume=w/epoch_2"}, true, "w/epoch_2"},
        {"LoadFrom", {"--load-from", "p", "--resume"}, true, "p"},
    }),
    [](const auto& info) { return info.param.name; });

TEST(ParseCommandLineTest, HelpAndVersionNeedNothingElse) {
  EXPECT_EQ(Parse({"--help"}).verb, Verb::kHelp);
  EXPECT_EQ(Parse({"-h"}).verb, Verb::kHelp);
  EXPECT_EQ(Parse({"train", "--help"}).verb, Verb::kHelp);
  EXPECT_EQ(Parse({"--version"}).verb, Verb::kVersion);
}

struct BadArgs {
  const char* name;
  std::vector<std::string> args;
  const char* message;  // All of it.
};

class BadArgsTest : public testing::TestWithParam<BadArgs> {};

TEST_P(BadArgsTest, AreRefused) {
  EXPECT_THAT(
      ParseCommandLine(GetParam().args),
      StatusIs(absl::StatusCode::kInvalidArgument, Eq(GetParam().message)));
}

INSTANTIATE_TEST_SUITE_P(
    All, BadArgsTest,
    testing::ValuesIn(std::vector<BadArgs>{
        {"Nothing",
         {},
         "no command: train, test, export, check, config, launch, ckpt or "
         "verify-resume; see grapnel --help"},
        {"NoConfig", {"train"}, "no configuration: grapnel train CONFIG"},
        {"UnknownVerb",
         {"trian", "c"},
         "unknown command \"trian\"; did you mean \"train\"?"},
        {"ConfigForVerb", {"c.textproto"}, "unknown command \"c.textproto\""},
        {"UnknownFlag",
         {"train", "c", "--workdir", "w"},
         "unknown flag --workdir; did you mean --work-dir?"},
        {"UnknownFlagWithValue",
         {"train", "c", "--sed=1"},
         "unknown flag --sed; did you mean --seed?"},
        {"UnlikelyFlag", {"train", "c", "--xyzzy"}, "unknown flag --xyzzy"},
        {"ShortFlag",
         {"train", "c", "-w"},
         "unknown flag -w; flags start with --"},
        {"MissingValue", {"train", "c", "--seed"}, "--seed needs a value"},
        {"FlagForValue",
         {"train", "c", "--work-dir", "--resume"},
         "--work-dir needs a value"},
        {"EmptyValue", {"train", "c", "--work-dir="}, "--work-dir: is empty"},
        {"EmptyResume", {"train", "c", "--resume="}, "--resume: is empty"},
        {"ValueForNoStrict",
         {"test", "c", "--no-strict=1"},
         "--no-strict takes no value"},
        {"NotUtf8",
         {"train", "c", "--work-dir", "caf\xe9"},
         "argument 4: not UTF-8 from byte 3 on: \"caf\\xe9\""},
        {"ConfigNotUtf8",
         {"train", "caf\xe9.textproto"},
         "argument 2: not UTF-8 from byte 3 on: \"caf\\xe9.textproto\""},
        {"ValueForHelp", {"--help=1"}, "--help takes no value"},
        {"NegativeSeed",
         {"train", "c", "--seed", "-1"},
         "--seed: must be an integer >= 0, is \"-1\""},
        {"WordForSeed",
         {"train", "c", "--seed=one"},
         "--seed: must be an integer >= 0, is \"one\""},
        {"NoThreads",
         {"train", "c", "--threads=0"},
         "--threads: must be an integer in 1..4096, is \"0\""},
        {"TooManyThreads",
         {"train", "c", "--threads=99999999999"},
         "--threads: must be an integer in 1..4096, is \"99999999999\""},
        {"WaitWithoutAUnit",
         {"train", "c", "--wait-for-lock=10"},
         "--wait-for-lock: must be a time >= 0 with its unit, as 90s or 10m, "
         "is \"10\""},
        {"NegativeWait",
         {"train", "c", "--wait-for-lock=-1s"},
         "--wait-for-lock: must be a time >= 0 with its unit, as 90s or 10m, "
         "is \"-1s\""},
        {"WaitOfATest",
         {"test", "c", "--wait-for-lock=1s"},
         "--wait-for-lock is for train alone"},
        {"Twice",
         {"train", "c", "--seed=1", "--seed=2"},
         "--seed: given twice"},
        {"NoCfgOption",
         {"train", "--cfg-options", "c"},
         "--cfg-options needs at least one path.to.field=value"},
        {"ExtraArgument", {"train", "c", "d"}, "unexpected argument \"d\""},
        {"ResumeWithASpace",
         {"train", "--resume", "w/epoch_2", "c"},
         "unexpected argument \"c\"; a checkpoint to go on from is "
         "--resume=PATH"},
        {"TwoCheckpoints",
         {"train", "c", "--load-from=a", "--resume=b"},
         "--resume: --load-from and --resume=PATH name two checkpoints"},
    }),
    [](const auto& info) { return info.param.name; });

// -------------------------------------------------------------- ResolveConfig

class ResolveConfigTest : public testing::Test {
 protected:
  // Resolves for a user in /home whose file is /home/p/net.textproto.
  absl::StatusOr<RunnerConfig> Resolve(std::vector<std::string> args,
                                       const std::string& file,
                                       const std::string& user = "/home") {
    EXPECT_THAT(env_.CreateDir("/home/p"), IsOk());
    EXPECT_THAT(io::WriteFileAtomically(env_, "/home/p/net.textproto", file),
                IsOk());
    args.insert(args.begin() + 1, "/home/p/net.textproto");
    return ResolveConfig(Parse(args), env_, user);
  }

  void ExpectResolves(std::vector<std::string> args, const std::string& file,
                      const std::string& expected_text) {
    RunnerConfig expected;
    ASSERT_TRUE(TextFormat::ParseFromString(expected_text, &expected));
    absl::StatusOr<RunnerConfig> config = Resolve(args, file);
    ASSERT_THAT(config, IsOk());
    EXPECT_TRUE(MessageDifferencer::Equals(*config, expected))
        << config->ShortDebugString() << "\nis not\n"
        << expected.ShortDebugString();
  }

  void WriteCheckpointTo(const std::string& dir) {
    io::CheckpointContents contents;
    contents.blobs.emplace_back("state", "x");
    const std::string parent = io::Dirname(dir);
    const std::string name = io::Basename(dir);
    ASSERT_THAT(env_.CreateDir(parent), IsOk());
    ASSERT_THAT(io::WriteCheckpoint(env_, parent, name, contents), IsOk());
    ASSERT_THAT(io::WriteLastCheckpoint(env_, parent, dir), IsOk());
  }

  io::MemEnv env_;
};

TEST_F(ResolveConfigTest, DefaultWorkDirIsInTheUsersFolder) {
  ExpectResolves({"train"}, "log_level: 'INFO'",
                 "log_level: 'INFO' work_dir: '/home/work_dirs/net'");
}

TEST_F(ResolveConfigTest, LoadOptionsAreForWhatTheFileLoadsFrom) {
  const std::string file =
      "work_dir: '/w' load_from: '/pretrained' "
      "load_options { exclude: 'head' strict: false }";
  const std::string with =
      "work_dir: '/w' load_from: '/pretrained' "
      "load_options { exclude: 'head' strict: false }";
  ExpectResolves({"train"}, file, with);
  ExpectResolves({"test"}, file, with);
  ExpectResolves({"test", "--load-from=/pretrained"}, file, with);
  ExpectResolves({"test", "--load-from=/other"}, file,
                 "work_dir: '/w' load_from: '/other'");
  ExpectResolves({"test", "--load-from=/other", "--no-strict"}, file,
                 "work_dir: '/w' load_from: '/other' "
                 "load_options { strict: false }");
  // What the run has come to.
  WriteCheckpointTo("/w/epoch_1");
  ExpectResolves({"test"}, file, "work_dir: '/w' resume: true");
  ExpectResolves({"test", "--cfg-options", "load_options.exclude=['x']"}, file,
                 "work_dir: '/w' resume: true load_options { exclude: 'x' }");
}

TEST_F(ResolveConfigTest, PathsOfTheFileStartInItsFolder) {
  const std::string file =
      "work_dir: 'w' load_from: '../l' "
      "train_dataloader { dataset { idx { images: 'i' labels: '/l' } } }";
  const std::string expected =
      "work_dir: '/home/p/w' load_from: '/home/p/../l' "
      "train_dataloader { "
      "  dataset { idx { images: '/home/p/i' labels: '/l' } } }";
  ExpectResolves({"train"}, file, expected);
  ExpectResolves({"config"}, file, expected);
  ExpectResolves({"train"}, "work_dir: '.'", "work_dir: '/home/p'");
}

TEST_F(ResolveConfigTest, AFolderThatIsNotUtf8IsRefusedWhereAPathNeedsIt) {
  EXPECT_THAT(Resolve({"train"}, "log_level: 'INFO'", "/caf\xe9"),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "work_dir: not UTF-8 from byte 4 on: "
                       "\"/caf\\xe9/work_dirs/net\""));
  EXPECT_THAT(Resolve({"train"}, "work_dir: 'w'", "/caf\xe9"), IsOk());
}

TEST_F(ResolveConfigTest, NoStrictIsALoadOption) {
  ExpectResolves(
      {"config", "--no-strict"},
      "work_dir: '/w' load_options { exclude: 'head' }",
      "work_dir: '/w' load_options { strict: false exclude: 'head' }");
}

TEST_F(ResolveConfigTest, PathsOfTheCommandLineStartInTheUsersFolder) {
  ExpectResolves({"train", "--work-dir=x", "--load-from=y"},
                 "work_dir: 'w' load_from: 'l'",
                 "work_dir: '/home/x' load_from: '/home/y'");
  ExpectResolves({"train", "--cfg-options", "work_dir=x"}, "work_dir: 'w'",
                 "work_dir: '/home/x'");
  ExpectResolves(
      {"train", "--cfg-options", "default_hooks.checkpoint.out_dir=x",
       "default_hooks.logger.out_dir=y"},
      "work_dir: 'w' default_hooks { checkpoint { out_dir: 'ck' } }",
      "work_dir: '/home/p/w' "
      "default_hooks { checkpoint { out_dir: '/home/x' } "
      "logger { out_dir: '/home/y' } }");
  ExpectResolves(
      {"train", "--resume=/abs/epoch_1"}, "work_dir: 'w'",
      "work_dir: '/home/p/w' resume: true load_from: '/abs/epoch_1'");
}

TEST_F(ResolveConfigTest, FlagsWinOverCfgOptionsOverTheFile) {
  ExpectResolves(
      {"train", "--cfg-options", "randomness.seed=2", "--seed=3"},
      "work_dir: 'w' randomness { seed: 1 deterministic: true }",
      "work_dir: '/home/p/w' randomness { seed: 3 deterministic: true }");
  ExpectResolves(
      {"train", "--cfg-options", "randomness.seed=2", "randomness.seed=4"},
      "work_dir: 'w' randomness { seed: 1 }",
      "work_dir: '/home/p/w' randomness { seed: 4 }");
  ExpectResolves({"train", "--resume=false"}, "work_dir: 'w' resume: true",
                 "work_dir: '/home/p/w' resume: false");
}

TEST_F(ResolveConfigTest, NamesTheFlagOfABadOverride) {
  EXPECT_THAT(
      Resolve({"train", "--cfg-options", "train_cfg.max_epoch=3"},
              "work_dir: 'w'"),
      StatusIs(absl::StatusCode::kInvalidArgument,
               "--cfg-options: train_cfg.max_epoch: no field \"max_epoch\" in "
               "TrainConfig; did you mean \"max_epochs\"?"));
}

TEST_F(ResolveConfigTest, TestTakesTheNewestCheckpointOfTheWorkDir) {
  WriteCheckpointTo("/home/p/w/epoch_3");
  ExpectResolves({"test"}, "work_dir: 'w' load_from: 'pretrained'",
                 "work_dir: '/home/p/w' resume: true");
}

TEST_F(ResolveConfigTest, TestTakesTheNewestCheckpointOfTheOutDir) {
  WriteCheckpointTo("/home/p/ck/w/epoch_3");
  // There is no work_dir, and no last_checkpoint that is looked at.
  ExpectResolves({"test"},
                 "work_dir: 'w' default_hooks { checkpoint { out_dir: 'ck' } }",
                 "work_dir: '/home/p/w' resume: true "
                 "default_hooks { checkpoint { out_dir: '/home/p/ck' } }");
}

TEST_F(ResolveConfigTest, TestTakesTheNamedCheckpoint) {
  WriteCheckpointTo("/home/p/w/epoch_3");
  ExpectResolves({"test", "--load-from", "other"}, "work_dir: 'w'",
                 "work_dir: '/home/p/w' load_from: '/home/other'");
}

TEST_F(ResolveConfigTest, TestFallsBackToTheCheckpointOfTheFile) {
  ExpectResolves({"test"}, "work_dir: 'w' load_from: 'pretrained'",
                 "work_dir: '/home/p/w' load_from: '/home/p/pretrained'");
}

TEST_F(ResolveConfigTest, TestWithoutACheckpointIsRefused) {
  EXPECT_THAT(
      Resolve({"test"}, "work_dir: 'w'"),
      StatusIs(absl::StatusCode::kNotFound,
               AllOf(HasSubstr("/home/p/w"), HasSubstr("--load-from"))));
  EXPECT_THAT(
      Resolve({"test", "--resume"}, "work_dir: 'w' load_from: 'pretrained'"),
      StatusIs(absl::StatusCode::kNotFound, HasSubstr("/home/p/w")));
}

// ----------------------------------------------------------------------
// results

TEST(ExitCodeTest, DependsOnWhatIsWrong) {
  EXPECT_EQ(ExitCodeAtStart(absl::OkStatus()), kDone);
  EXPECT_EQ(ExitCodeAtStart(absl::InvalidArgumentError("lr: ...")), kBadInput);
  EXPECT_EQ(ExitCodeAtStart(absl::NotFoundError("x.textproto")), kBadInput);
  EXPECT_EQ(ExitCodeAtStart(absl::PermissionDeniedError("work_dir: ...")),
            kBadInput);
  EXPECT_EQ(ExitCodeAtStart(absl::DataLossError("train_dataloader: ...")),
            kBadInput);
  EXPECT_EQ(ExitCodeAtStart(absl::NotFoundError("load_from: ...")), kBadInput);
  EXPECT_EQ(ExitCodeAtStart(absl::DataLossError("load_from: ...")),
            kBadCheckpoint);
  EXPECT_EQ(ExitCodeAtStart(absl::UnimplementedError("resume: ...")),
            kBadCheckpoint);
  EXPECT_EQ(ExitCodeAtStart(absl::InternalError("...")), kRunFailed);
  EXPECT_EQ(ExitCodeAtStart(absl::UnavailableError("AllGather: rank 1 ...")),
            kRunFailed);
  EXPECT_EQ(ExitCodeAtStart(absl::DeadlineExceededError("launcher: ...")),
            kRunFailed);
}

TEST(MetricsToJsonTest, IsOneLineOfStrictJson) {
  EXPECT_EQ(MetricsToJson({}), "{}");
  EXPECT_EQ(MetricsToJson({{"accuracy/top1", 96.25},
                           {"count", int64_t{360}},
                           {"loss", 1.0},
                           {"nan", std::nan("")},
                           {"inf", -std::numeric_limits<double>::infinity()},
                           {"t\"\\\n", std::string("caf\xc3\xa9")}}),
            "{\"accuracy/top1\": 96.25, \"count\": 360, \"loss\": 1.0, "
            "\"nan\": null, \"inf\": null, "
            "\"t\\\"\\\\\\n\": \"caf\xc3\xa9\"}");
}

}  // namespace
}  // namespace grapnel
