// The command, as a process, over runs with a fault of each kind planted.

#include <sys/wait.h>

#include <cstddef>
#include <ostream>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/io/env.h"
#include "grapnel/tools/verify_resume/child_process.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace grapnel {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::TestWithParam;
using Json = nlohmann::json;

constexpr char kProgram[] = "tools/verify_resume/planted_grapnel";
constexpr char kConfig[] = "tools/verify_resume/testdata/planted.textproto";

// Each test has a folder of its own, empty.
std::string Dir() {
  const auto* info = testing::UnitTest::GetInstance()->current_test_info();
  std::string name = absl::StrCat(info->test_suite_name(), "_", info->name());
  for (char& c : name) c = c == '/' ? '_' : c;
  const std::string dir = io::JoinPath(testing::TempDir(), name);
  io::Env& env = io::Env::Posix();
  if (env.FileExists(dir)) {
    EXPECT_THAT(io::DeleteRecursively(env, dir), IsOk());
  }
  EXPECT_THAT(env.CreateDir(dir), IsOk());
  return dir;
}

struct Result {
  int exit_code = -1;
  std::string output;  // And errors.
  Json report;         // The last line, if it is one.
};

// With its output in `dir`.
Result RunCommand(const std::string& dir,
                  const std::vector<std::string>& command) {
  const std::string output = io::JoinPath(dir, "output");
  auto child = ChildProcess::Start(command, {}, output);
  EXPECT_THAT(child.status(), IsOk());
  Result result;
  if (!child.ok()) return result;
  const auto status = (*child)->Wait(absl::Minutes(4));
  if (!status.has_value() || !WIFEXITED(*status)) {
    ADD_FAILURE() << "doesn't end as it should";
    return result;
  }
  result.exit_code = WEXITSTATUS(*status);
  result.output = io::ReadFile(io::Env::Posix(), output).value_or("");
  const size_t begin = result.output.rfind("\n{");
  if (begin != std::string::npos) {
    result.report = Json::parse(result.output.substr(begin + 1),
                                /*cb=*/nullptr, /*allow_exceptions=*/false);
  }
  return result;
}

Result VerifyResume(const std::string& dir, std::vector<std::string> args) {
  std::vector<std::string> command = {kProgram, "verify-resume"};
  command.insert(command.end(), args.begin(), args.end());
  for (const std::string& arg :
       {"--work-dir=" + dir, std::string("--threads=1")}) {
    command.push_back(arg);
  }
  return RunCommand(dir, command);
}

void ExpectNothingLeft(const std::string& dir) {
  const auto left = io::Env::Posix().ListDir(dir);
  ASSERT_THAT(left, IsOk());
  EXPECT_THAT(*left, testing::ElementsAre("output"));
}

size_t CountOf(absl::string_view part, absl::string_view text) {
  const std::vector<absl::string_view> between = absl::StrSplit(text, part);
  return between.size() - 1;
}

int CountWhere(const Json& report, const std::string& where) {
  int count = 0;
  for (const Json& kill : report["kills"]) {
    if (absl::StrContains(kill["where"].get<std::string>(), where)) ++count;
  }
  return count;
}

TEST(VerifyResumeTest, AnHonestRunIsEqualAndLeavesNothing) {
  const std::string dir = Dir();
  const Result result = VerifyResume(
      dir, {kConfig, "--json", "--kills=12", "--kill-seed=3", "--seed=1",
            "--cfg-options",
            "custom_hooks.1.config={[planted/PlantedHook] {fault: RATE "
            "remembers: true}}"});
  EXPECT_EQ(result.exit_code, 0) << result.output;
  ASSERT_TRUE(result.report.is_object()) << result.output;
  EXPECT_EQ(result.report["verdict"], "equal");
  EXPECT_EQ(result.report["seed"], 1);
  EXPECT_EQ(result.report["kill_seed"], 3);
  EXPECT_EQ(result.report["iters"], 48);
  EXPECT_EQ(result.report["saves"], "every 7 iterations, as configured");
  EXPECT_EQ(result.report["kills"].size(), 12);
  // Of six that are meant to be there: a machine is never quite as fast as
  // before.
  EXPECT_GE(CountWhere(result.report, "inside the save") +
                CountWhere(result.report, "inside the validation"),
            2)
      << result.output;
  ExpectNothingLeft(dir);
}

struct Planted {
  std::string name;
  std::vector<std::string> options;  // --cfg-options
  std::string item;                  // Part of the first that differs.
  std::string owner;                 // Part of it.
  std::string verdict = "different";
};

void PrintTo(const Planted& planted, std::ostream* out) {
  *out << planted.name;
}

std::string Hook(const std::string& fault) {
  return absl::StrCat(
      "custom_hooks.1.config={[planted/PlantedHook] {fault: ", fault, "}}");
}

std::string Metric(const std::string& fault) {
  return absl::StrCat(
      "val_evaluator.1={custom {[planted/PlantedMetric] {fault: ", fault,
      "}}}");
}

class PlantedFaultTest : public TestWithParam<Planted> {};

TEST_P(PlantedFaultTest, IsFoundAndItsOwnerNamed) {
  const std::string dir = Dir();
  std::vector<std::string> args = {kConfig,     "--json",
                                   "--kills=3", "--kill-seed=11",
                                   "--seed=1",  "--cfg-options"};
  for (const std::string& option : GetParam().options) args.push_back(option);
  const Result result = VerifyResume(dir, args);
  EXPECT_EQ(result.exit_code, 1) << result.output;
  ASSERT_TRUE(result.report.is_object()) << result.output;
  EXPECT_EQ(result.report["verdict"], GetParam().verdict) << result.output;
  ASSERT_GE(result.report["differences"].size(), 1);
  EXPECT_THAT(result.report["differences"][0]["item"].get<std::string>(),
              HasSubstr(GetParam().item))
      << result.output;
  EXPECT_THAT(result.report["owner"].get<std::string>(),
              HasSubstr(GetParam().owner))
      << result.output;
  // To be looked at.
  const std::string folder = result.report["folder"].get<std::string>();
  EXPECT_TRUE(io::Env::Posix().FileExists(
      absl::StrCat(folder, "/uninterrupted_1/verify_resume_trace")));
}

INSTANTIATE_TEST_SUITE_P(
    , PlantedFaultTest,
    testing::ValuesIn(std::vector<Planted>{
        {"HookMovesTheRate",
         {Hook("RATE")},
         "the option \"lr\"",
         "hook \"planted\" (custom_hooks.1), which saves no state"},
        {"HookChangesWeights",
         {Hook("WEIGHTS")},
         "the weights",
         "hook \"planted\" (custom_hooks.1), which saves no state"},
        {"HookWritesRecords",
         {Hook("RECORD")},
         "the record \"planted\"",
         "hook \"planted\" (custom_hooks.1), which saves no state"},
        {"HookDrawsAtTheStart",
         {Hook("GENERATOR")},
         "the state of the run's generator",
         "hook \"planted\" (custom_hooks.1), which saves no state"},
        {"HookStopsTheRun",
         {Hook("STOP")},
         "that there is such a point",
         "hook \"planted\" (custom_hooks.1), which saves no state"},
        {"DatasetWithItsOwnGenerator",
         {"train_dataloader.dataset.custom.fault=OWN_GENERATOR"},
         "the batch",
         "train_dataloader.dataset (planted.PlantedDatasetConfig), which reads "
         "a sample otherwise each time: it has a generator or a counter"},
        // LibTorch seeds that one otherwise in each process.
        {"DatasetDrawsFromTheDefaultGenerator",
         {"train_dataloader.dataset.custom.fault=DEFAULT_GENERATOR"},
         "the batch",
         "each time: it draws from LibTorch's default generator",
         "not_deterministic"},
        {"DatasetOfTheValidation",
         {"val_dataloader.dataset.custom.fault=OWN_GENERATOR"},
         "the batch",
         "val_dataloader.dataset (planted.PlantedDatasetConfig)"},
        {"DatasetOfTheValidationDrawsFromTheDefaultGenerator",
         {"val_dataloader.dataset.custom.fault=DEFAULT_GENERATOR"},
         "the batch",
         "val_dataloader.dataset (planted.PlantedDatasetConfig), which reads a "
         "sample otherwise each time: it draws from LibTorch's default",
         "not_deterministic"},
        {"MetricDrawsFromTheDefaultGenerator",
         {Metric("DEFAULT_GENERATOR")},
         "the metric \"planted\"",
         "val_evaluator.1 (planted.PlantedMetricConfig), which draws from "
         "LibTorch's default generator",
         "not_deterministic"},
        {"MetricCounts",
         {Metric("COUNT")},
         "the metric \"planted\"",
         "val_evaluator.1 (planted.PlantedMetricConfig), which keeps something "
         "from one validation to the next"},
        {"HookDrawsInTheValidation",
         {Hook("DRAW_IN_VAL")},
         "the record \"planted\"",
         "hook \"planted\" (custom_hooks.1), which draws from LibTorch's "
         "default generator",
         "not_deterministic"},
        {"HookCountsValidations",
         {Hook("COUNT_IN_VAL")},
         "the weights",
         "hook \"planted\" (custom_hooks.1), which saves no state"},
        {"TransformCounts",
         {"train_dataloader.transforms.0={custom {[planted/PlantedTransform] "
          "{}}}"},
         "the batch",
         "train_dataloader.transforms.0 (planted.PlantedTransformConfig)"},
        {"LayerHidesABuffer",
         {"model.sequential.layers.2={custom {[planted/PlantedLayer] {}}}"},
         "\"loss\" of the training step",
         "model.sequential.layers.2 (planted.PlantedLayerConfig), which has "
         "something that is neither"},
        {"OptimizerIsNotSaved",
         {"default_hooks.checkpoint.save_optimizer=false"},
         "",
         "save_optimizer: false"},
    }),
    [](const auto& info) { return info.param.name; });

TEST(VerifyResumeTest, ARunThatIsNeverTheSameIsSaidToBeSo) {
  const Result result = VerifyResume(
      Dir(), {kConfig, "--json", "--iters=16", "--seed=1", "--cfg-options",
              "train_dataloader.dataset.custom.fault=CLOCK"});
  EXPECT_EQ(result.exit_code, 1) << result.output;
  ASSERT_TRUE(result.report.is_object()) << result.output;
  EXPECT_EQ(result.report["verdict"], "not_deterministic");
  EXPECT_EQ(result.report["iters"], 16);
  EXPECT_THAT(result.report["owner"].get<std::string>(),
              AllOf(HasSubstr("train_dataloader.dataset"),
                    HasSubstr("has random numbers that no seed fixes")));
}

TEST(VerifyResumeTest, ARunThatFailsWhenResumedIsShownWithItsLastLines) {
  const Result result =
      VerifyResume(Dir(), {kConfig, "--json", "--kills=4", "--kill-seed=2",
                           "--seed=1", "--cfg-options", Hook("REFUSE")});
  EXPECT_EQ(result.exit_code, 1) << result.output;
  ASSERT_TRUE(result.report.is_object()) << result.output;
  EXPECT_EQ(result.report["verdict"], "run_failed");
  const std::string message = result.report["message"].get<std::string>();
  EXPECT_THAT(message, HasSubstr("a run that was resumed from iter_"));
  EXPECT_THAT(message, HasSubstr("failed with exit code 4"));
  EXPECT_THAT(message,
              HasSubstr("hook \"planted\": AfterRestore: doesn't go on"));
}

struct NoFault {
  std::string name;
  std::string fault;
  std::string message;  // Part of it.
  std::string run = "was resumed from iter_";
  size_t num_kills = 1;  // By verify-resume.
};

void PrintTo(const NoFault& no_fault, std::ostream* out) {
  *out << no_fault.name;
}

class NoFaultTest : public TestWithParam<NoFault> {};

TEST_P(NoFaultTest, ARunThatTheMachineEndsIsNoVerdict) {
  const std::string dir = Dir();
  const Result result =
      VerifyResume(dir, {kConfig, "--kills=4", "--kill-seed=2", "--seed=1",
                         "--cfg-options", Hook(GetParam().fault)});
  EXPECT_EQ(result.exit_code, 5) << result.output;
  EXPECT_THAT(result.output,
              AllOf(HasSubstr(absl::StrCat("could not be tested: a run that ",
                                           GetParam().run)),
                    HasSubstr(GetParam().message)));
  EXPECT_EQ(CountOf("\nkill ", result.output), GetParam().num_kills);
  ExpectNothingLeft(dir);
}

INSTANTIATE_TEST_SUITE_P(
    , NoFaultTest,
    testing::ValuesIn(std::vector<NoFault>{
        {"FullDisk", "NO_SPACE",
         "hook \"planted\": AfterRestore: /planted: no space left on device"},
        {"KilledByTheSystem", "KILLED",
         "was killed by signal 9 (Killed), and not by verify-resume"},
        {"KilledBeforeVerifyResumeDoes", "KILLED_WHEN_TRAINED",
         "was killed by signal 9 (Killed), and not by verify-resume",
         "nothing had killed before", 0},
        {"KilledBeforeItWritesAnything", "KILLED_WHEN_MADE",
         "was killed by signal 9 (Killed), and not by verify-resume",
         "nothing had killed before", 0},
        {"ToldToStop", "TERMINATED", "failed with exit code 143, and not by"},
    }),
    [](const auto& info) { return info.param.name; });

// Which checkpoints there are by the clock is another matter in each run.
TEST(VerifyResumeTest, SavesByTheClockAreLeftOut) {
  const std::string dir = Dir();
  const Result result = VerifyResume(
      dir, {kConfig, "--json", "--kills=3", "--kill-seed=3", "--seed=1",
            "--cfg-options", "default_hooks.checkpoint.interval_minutes=0.0001",
            "default_hooks.checkpoint.keep_minutes=0.0005",
            "default_hooks.checkpoint.max_keep_ckpts=2"});
  EXPECT_EQ(result.exit_code, 0) << result.output;
  ASSERT_TRUE(result.report.is_object()) << result.output;
  EXPECT_EQ(result.report["saves"], "every 7 iterations, as configured");
}

TEST(VerifyResumeTest, SavesOfItsOwnWhereNoneAreConfigured) {
  const Result result =
      VerifyResume(Dir(), {kConfig, "--kills=2", "--iters=20", "--cfg-options",
                           "default_hooks.checkpoint={}", "randomness={}"});
  EXPECT_EQ(result.exit_code, 0) << result.output;
  // 20 iterations are 3 epochs of 8.
  EXPECT_THAT(result.output, HasSubstr("uninterrupted: 24 iterations"));
  EXPECT_THAT(result.output,
              HasSubstr("saves: every 3 iterations, since none is configured"));
  EXPECT_THAT(result.output, HasSubstr("equal: killed 2 times"));
}

TEST(VerifyResumeTest, OneOfAKindIsSaidToBeOne) {
  const Result result = VerifyResume(
      Dir(), {kConfig, "--kills=1", "--seed=1", "--iters=8", "--cfg-options",
              "default_hooks.checkpoint={interval: 1}"});
  EXPECT_EQ(result.exit_code, 0) << result.output;
  EXPECT_THAT(result.output,
              AllOf(HasSubstr("saves: every epoch, as configured\n"),
                    HasSubstr("uninterrupted: 8 iterations, 1 validation, "
                              "1 save, "),
                    HasSubstr("equal: killed 1 time, ")));
}

struct Refused {
  std::string name;
  std::vector<std::string> args;
  std::string message;  // Part of it.
};

void PrintTo(const Refused& refused, std::ostream* out) {
  *out << refused.name;
}

class RefusedTest : public TestWithParam<Refused> {};

TEST_P(RefusedTest, WithExitCode2) {
  const std::string dir = Dir();
  const Result result = VerifyResume(dir, GetParam().args);
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.output, HasSubstr(GetParam().message));
  ExpectNothingLeft(dir);
}

INSTANTIATE_TEST_SUITE_P(
    , RefusedTest,
    testing::ValuesIn(std::vector<Refused>{
        {"NoConfiguration", {}, "no configuration: grapnel"},
        {"NoFile", {"none.textproto"}, "none.textproto"},
        {"NoFileOfAStrangeName",
         {"no\x1b[31mne.textproto"},
         "no?[31mne.textproto"},
        {"NoConfigFile",
         {"train.textprot"},
         "train.textprot: a config file ends in one of"},
        {"AFileWithATypo",
         {"tools/verify_resume/testdata/plantd.textproto"},
         "; did you mean \"tools/verify_resume/testdata/planted.textproto\"?"},
        {"ResumeAlone", {kConfig, "--resume"}, "--resume: the runs begin in"},
        {"NothingToTrain",
         {kConfig, "--cfg-options", "train_cfg.max_epochs=0"},
         "max_epochs: must be"},
        {"ARunThatFails",
         {kConfig, "--cfg-options",
          "train_dataloader.dataset.custom.fault=WORN_OUT"},
         "which nothing interrupted, failed with exit code 3"},
    }),
    [](const auto& info) { return info.param.name; });

TEST(VerifyResumeTest, AFolderThatIsNotThereIsNotMade) {
  const std::string dir = Dir();
  const std::string none = io::JoinPath(dir, "none");
  const Result result = RunCommand(
      dir, {kProgram, "verify-resume", kConfig, "--work-dir=" + none});
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.output, HasSubstr("none: is no directory"));
  ExpectNothingLeft(dir);
}

TEST(VerifyResumeTest, ARunThatFailsByItselfIsNoVerdict) {
  const std::string dir = Dir();
  const Result result = VerifyResume(
      dir, {kConfig, "--seed=1", "--cfg-options", Hook("GIVE_UP")});
  EXPECT_EQ(result.exit_code, 5);
  EXPECT_THAT(result.output,
              HasSubstr("which nothing interrupted, failed with exit code 1"));
  EXPECT_THAT(result.output, HasSubstr("gives up"));
  ExpectNothingLeft(dir);
}

struct Stopped {
  std::string name;
  // Of bash; "$@" is the command, "$OUT" where its output goes.
  std::string script;
  int exit_code;
};

void PrintTo(const Stopped& stopped, std::ostream* out) {
  *out << stopped.name;
}

class StoppedTest : public TestWithParam<Stopped> {};

TEST_P(StoppedTest, LeavesNothing) {
  const std::string dir = Dir();
  const Result result = RunCommand(
      dir, {"/bin/bash", "-c",
            absl::StrCat("OUT=", dir, "/output; ", GetParam().script), "bash",
            kProgram, "verify-resume", kConfig, "--work-dir=" + dir,
            "--threads=1", "--seed=1"});
  EXPECT_EQ(result.exit_code, GetParam().exit_code) << result.output;
  ExpectNothingLeft(dir);
}

INSTANTIATE_TEST_SUITE_P(
    , StoppedTest,
    testing::ValuesIn(std::vector<Stopped>{
        {"BySigterm",
         "\"$@\" & until grep -q 'the runs are in' $OUT; do sleep 0.05; done; "
         "kill -TERM $!; wait $!",
         128 + 15},
        {"BySigtermBetweenItsRuns",
         "\"$@\" & until grep -q 'kill 1' $OUT; do sleep 0.05; done; "
         "kill -TERM $!; wait $!",
         128 + 15},
        {"ByAPipeThatNobodyReads", "\"$@\" | head -n 1; exit ${PIPESTATUS[0]}",
         128 + 13},
    }),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace grapnel
