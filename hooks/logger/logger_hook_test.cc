#include "grapnel/hooks/logger/logger_hook.h"

#include <fstream>
#include <memory>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/string_view.h"
#include "gmock/gmock.h"
#include "google/protobuf/text_format.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/data/data.pb.h"
#include "grapnel/data/data_loader.h"
#include "grapnel/data/sample.h"
#include "grapnel/data/tensor_dataset.h"
#include "grapnel/io/env.h"
#include "grapnel/loggers/run_log.h"
#include "grapnel/models/log_vars.h"
#include "grapnel/runner/fake_run_context.h"
#include "grapnel/runner/log_processor.pb.h"
#include "grapnel/tests/golden/golden_report.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
namespace grapnel {
#include "grapnel/runner/log_processor.pb.h"
namespace {
#include "grapnel/runner/log_processor.pb.h"
using ::testing::ElementsAre;
#include "grapnel/runner/log_processor.pb.h"
using ::testing::IsEmpty;
#include "grapnel/runner/log_processor.pb.h"
using ::testing::IsSupersetOf;
#include "grapnel/runner/log_processor.pb.h"
using ::testing::SizeIs;
#include "grapnel/runner/log_processor.pb.h"
using ::testing::StartsWith;
#include "grapnel/runner/log_processor.pb.h"
using ::testing::TestWithParam;
#include "grapnel/runner/log_processor.pb.h"
using ::testing::ValuesIn;
#include "grapnel/runner/log_processor.pb.h"
using Json = ::nlohmann::json;
#include "grapnel/runner/log_processor.pb.h"
// The texts and records themselves are tested in tests/golden:log_lines_test;
#include "grapnel/runner/log_processor.pb.h"
// here stands when they are written.
#include "grapnel/runner/log_processor.pb.h"
struct IntervalCase {
#include "grapnel/runner/log_processor.pb.h"
  std::string name;
#include "grapnel/runner/log_processor.pb.h"
  std::string config;
#include "grapnel/runner/log_processor.pb.h"
  bool by_epoch;
#include "grapnel/runner/log_processor.pb.h"
  int64_t num_batches;  // Of the loader.
#include "grapnel/runner/log_processor.pb.h"
  int64_t iterations;  // Epoch-based: of two epochs.
#include "grapnel/runner/log_processor.pb.h"
  std::vector<int64_t> logged;  // 1-based iterations with a record.
#include "grapnel/runner/log_processor.pb.h"
  int exp_names;  // Lines that name the experiment.
#include "grapnel/runner/log_processor.pb.h"
};
#include "grapnel/runner/log_processor.pb.h"
void PrintTo(const IntervalCase& c, std::ostream* os) { *os << c.config; }
#include "grapnel/runner/log_processor.pb.h"
class LoggerIntervalTest : public TestWithParam<IntervalCase> {};
#include "grapnel/runner/log_processor.pb.h"
INSTANTIATE_TEST_SUITE_P(
#include "grapnel/runner/log_processor.pb.h"
    , LoggerIntervalTest,
#include "grapnel/runner/log_processor.pb.h"
    ValuesIn(std::vector<IntervalCase>{
#include "grapnel/runner/log_processor.pb.h"
        {"EveryIntervalOfEachEpoch",
#include "grapnel/runner/log_processor.pb.h"
         "interval: 2",
#include "grapnel/runner/log_processor.pb.h"
         true,
#include "grapnel/runner/log_processor.pb.h"
         5,
#include "grapnel/runner/log_processor.pb.h"
         10,
#include "grapnel/runner/log_processor.pb.h"
         {2, 4, 7, 9},
#include "grapnel/runner/log_processor.pb.h"
         2},
#include "grapnel/runner/log_processor.pb.h"
        {"LastOfAnEpochIfAsked",
#include "grapnel/runner/log_processor.pb.h"
         "interval: 2 ignore_last: false",
#include "grapnel/runner/log_processor.pb.h"
         true,
#include "grapnel/runner/log_processor.pb.h"
         5,
#include "grapnel/runner/log_processor.pb.h"
         10,
#include "grapnel/runner/log_processor.pb.h"
         {2, 4, 5, 7, 9, 10},
#include "grapnel/runner/log_processor.pb.h"
         2},
#include "grapnel/runner/log_processor.pb.h"
        {"ShortEpochLogsItsLast", "interval: 10", true, 3, 6, {3, 6}, 2},
#include "grapnel/runner/log_processor.pb.h"
        {"TenByDefault", "", true, 25, 50, {10, 20, 35, 45}, 2},
#include "grapnel/runner/log_processor.pb.h"
        {"LastOfAnIterationBasedRun", "interval: 3", false, 4, 8, {3, 6, 8}, 1},
#include "grapnel/runner/log_processor.pb.h"
        {"ExperimentIsNamedAtItsInterval",
#include "grapnel/runner/log_processor.pb.h"
         "interval: 5 interval_exp_name: 2",
#include "grapnel/runner/log_processor.pb.h"
         true,
#include "grapnel/runner/log_processor.pb.h"
         5,
#include "grapnel/runner/log_processor.pb.h"
         5,
#include "grapnel/runner/log_processor.pb.h"
         {5},
#include "grapnel/runner/log_processor.pb.h"
         3},
#include "grapnel/runner/log_processor.pb.h"
    }),
#include "grapnel/runner/log_processor.pb.h"
    [](const auto& info) { return info.param.name; });
#include "grapnel/runner/log_processor.pb.h"
TEST_P(LoggerIntervalTest, LogsAt) {
#include "grapnel/runner/log_processor.pb.h"
  const IntervalCase& c = GetParam();
#include "grapnel/runner/log_processor.pb.h"
  LoggerHook::Config config;
#include "grapnel/runner/log_processor.pb.h"
  ASSERT_TRUE(google::protobuf::TextFormat::ParseFromString(c.config, &config));
#include "grapnel/runner/log_processor.pb.h"
  auto hook = LoggerHook::Create(config);
#include "grapnel/runner/log_processor.pb.h"
  ASSERT_THAT(hook, IsOk());
#include "grapnel/runner/log_processor.pb.h"
  FakeRunContext run;
#include "grapnel/runner/log_processor.pb.h"
  auto processor = LogProcessor::Create({}, c.by_epoch);
#include "grapnel/runner/log_processor.pb.h"
  ASSERT_THAT(processor, IsOk());
#include "grapnel/runner/log_processor.pb.h"
  run.processor = *std::move(processor);
#include "grapnel/runner/log_processor.pb.h"
  run.counts_epochs = c.by_epoch;
#include "grapnel/runner/log_processor.pb.h"
  run.total_iters = c.iterations;
#include "grapnel/runner/log_processor.pb.h"
  run.total_epochs = c.iterations / c.num_batches;
#include "grapnel/runner/log_processor.pb.h"
  const Batch batch;
#include "grapnel/runner/log_processor.pb.h"
  IterInfo info;
#include "grapnel/runner/log_processor.pb.h"
  info.batch = &batch;
#include "grapnel/runner/log_processor.pb.h"
  info.num_batches = c.num_batches;
#include "grapnel/runner/log_processor.pb.h"
  run.hub.Scalar("train/lr").Add(0.1);
#include "grapnel/runner/log_processor.pb.h"
  for (run.iters = 0; run.iters < c.iterations; ++run.iters) {
#include "grapnel/runner/log_processor.pb.h"
    info.batch_idx = c.by_epoch ? run.iters % c.num_batches : run.iters;
#include "grapnel/runner/log_processor.pb.h"
    run.epochs = c.by_epoch ? run.iters / c.num_batches : 0;
#include "grapnel/runner/log_processor.pb.h"
    ASSERT_THAT((*hook)->AfterTrainIter(run, info, LogVars()), IsOk());
#include "grapnel/runner/log_processor.pb.h"
  }
#include "grapnel/runner/log_processor.pb.h"
  std::vector<int64_t> logged;
#include "grapnel/runner/log_processor.pb.h"
  for (const Record& record : run.records) logged.push_back(record.step);
#include "grapnel/runner/log_processor.pb.h"
  EXPECT_EQ(logged, c.logged);
#include "grapnel/runner/log_processor.pb.h"
  int exp_names = 0;
#include "grapnel/runner/log_processor.pb.h"
  for (const std::string& line : run.run_log.messages()) {
#include "grapnel/runner/log_processor.pb.h"
    if (line == "Exp name: experiment_20260102_030405") ++exp_names;
#include "grapnel/runner/log_processor.pb.h"
  }
#include "grapnel/runner/log_processor.pb.h"
  EXPECT_EQ(exp_names, c.exp_names);
#include "grapnel/runner/log_processor.pb.h"
}
#include "grapnel/runner/log_processor.pb.h"
std::unique_ptr<LoggerHook> New(const std::string& config) {
#include "grapnel/runner/log_processor.pb.h"
  LoggerHook::Config parsed;
#include "grapnel/runner/log_processor.pb.h"
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(config, &parsed));
#include "grapnel/runner/log_processor.pb.h"
  auto hook = LoggerHook::Create(parsed);
#include "grapnel/runner/log_processor.pb.h"
  EXPECT_THAT(hook, IsOk());
#include "grapnel/runner/log_processor.pb.h"
  return *std::move(hook);
#include "grapnel/runner/log_processor.pb.h"
}
#include "grapnel/runner/log_processor.pb.h"
class LoggerOutDirTest : public testing::Test {
#include "grapnel/runner/log_processor.pb.h"
 protected:
#include "grapnel/runner/log_processor.pb.h"
  LoggerOutDirTest() {
#include "grapnel/runner/log_processor.pb.h"
    run_.work = "/wd/exp/";
#include "grapnel/runner/log_processor.pb.h"
    run_.logs = "/wd/exp/ts";
#include "grapnel/runner/log_processor.pb.h"
    for (const char* const name :
#include "grapnel/runner/log_processor.pb.h"
         {"ts.log", "ts.json", "vis_data/scalars.json",
#include "grapnel/runner/log_processor.pb.h"
          "vis_data/config.textproto",
#include "grapnel/runner/log_processor.pb.h"
          "vis_data/events.out.tfevents.1.host.2.0",
#include "grapnel/runner/log_processor.pb.h"
          "vis_data/wandb/offline-run-1-a/run-a.wandb"}) {
#include "grapnel/runner/log_processor.pb.h"
      Write(name, name);
#include "grapnel/runner/log_processor.pb.h"
    }
#include "grapnel/runner/log_processor.pb.h"
  }
#include "grapnel/runner/log_processor.pb.h"
  void Write(const std::string& name, const std::string& content) {
#include "grapnel/runner/log_processor.pb.h"
    const std::string path = io::JoinPath(run_.logs, name);
#include "grapnel/runner/log_processor.pb.h"
    ASSERT_THAT(run_.env().CreateDir(io::Dirname(path)), IsOk());
#include "grapnel/runner/log_processor.pb.h"
    ASSERT_THAT(io::WriteFileAtomically(run_.env(), path, content), IsOk());
#include "grapnel/runner/log_processor.pb.h"
  }
#include "grapnel/runner/log_processor.pb.h"
  // Names of files under a folder, with their folders.
#include "grapnel/runner/log_processor.pb.h"
  std::vector<std::string> Files(const std::string& dir,
#include "grapnel/runner/log_processor.pb.h"
                                 const std::string& prefix = "") {
#include "grapnel/runner/log_processor.pb.h"
    std::vector<std::string> files;
#include "grapnel/runner/log_processor.pb.h"
    const auto names = run_.env().ListDir(dir);
#include "grapnel/runner/log_processor.pb.h"
    if (!names.ok()) return files;
#include "grapnel/runner/log_processor.pb.h"
    for (const std::string& name : *names) {
#include "grapnel/runner/log_processor.pb.h"
      const std::string path = io::JoinPath(dir, name);
#include "grapnel/runner/log_processor.pb.h"
      if (!run_.env().IsDirectory(path)) {
#include "grapnel/runner/log_processor.pb.h"
        files.push_back(prefix + name);
#include "grapnel/runner/log_processor.pb.h"
        continue;
#include "grapnel/runner/log_processor.pb.h"
      }
#include "grapnel/runner/log_processor.pb.h"
      for (std::string& file : Files(path, prefix + name + "/")) {
#include "grapnel/runner/log_processor.pb.h"
        files.push_back(std::move(file));
#include "grapnel/runner/log_processor.pb.h"
      }
#include "grapnel/runner/log_processor.pb.h"
    }
#include "grapnel/runner/log_processor.pb.h"
    return files;
#include "grapnel/runner/log_processor.pb.h"
  }
#include "grapnel/runner/log_processor.pb.h"
  FakeRunContext run_;
#include "grapnel/runner/log_processor.pb.h"
};
#include "grapnel/runner/log_processor.pb.h"
TEST_F(LoggerOutDirTest, CopiesWhatMatchesAndKeepsItByDefault) {
#include "grapnel/runner/log_processor.pb.h"
  auto hook = New("out_dir: '/out'");
#include "grapnel/runner/log_processor.pb.h"
  ASSERT_THAT(hook->AfterRun(run_), IsOk());
#include "grapnel/runner/log_processor.pb.h"
  EXPECT_THAT(Files("/out"), ElementsAre("exp/ts.json", "exp/ts.log",
#include "grapnel/runner/log_processor.pb.h"
                                         "exp/vis_data/config.textproto",
#include "grapnel/runner/log_processor.pb.h"
                                         "exp/vis_data/scalars.json"));
#include "grapnel/runner/log_processor.pb.h"
  EXPECT_EQ(io::ReadFile(run_.env(), "/out/exp/vis_data/scalars.json").value(),
#include "grapnel/runner/log_processor.pb.h"
            "vis_data/scalars.json");
#include "grapnel/runner/log_processor.pb.h"
  EXPECT_THAT(Files(run_.logs), SizeIs(6));
#include "grapnel/runner/log_processor.pb.h"
}
#include "grapnel/runner/log_processor.pb.h"
Json EdgeCase(const std::string& name) {
#include "grapnel/runner/log_processor.pb.h"
  const Json golden = Json::parse(std::ifstream("tests/golden/edge.json"));
#include "grapnel/runner/log_processor.pb.h"
  for (const Json& edge : golden["cases"]) {
#include "grapnel/runner/log_processor.pb.h"
    if (edge["name"] == name) return edge;
#include "grapnel/runner/log_processor.pb.h"
  }
#include "grapnel/runner/log_processor.pb.h"
  ADD_FAILURE() << "no case " << name;
#include "grapnel/runner/log_processor.pb.h"
  return Json();
#include "grapnel/runner/log_processor.pb.h"
}
#include "grapnel/runner/log_processor.pb.h"
TEST_F(LoggerOutDirTest, ALaterCallReplacesTheCopies) {
#include "grapnel/runner/log_processor.pb.h"
  const std::string name = "LoggerHook.out_dir after train() and val()";
#include "grapnel/runner/log_processor.pb.h"
  auto hook = New("out_dir: '/out' out_suffix: '.json' out_suffix: '.log'");
#include "grapnel/runner/log_processor.pb.h"
  ASSERT_THAT(run_.env().DeleteFile(run_.logs + "/ts.json"), IsOk());
#include "grapnel/runner/log_processor.pb.h"
  Write("vis_data/ts.json", "");
#include "grapnel/runner/log_processor.pb.h"
  ASSERT_THAT(hook->AfterRun(run_), IsOk());
#include "grapnel/runner/log_processor.pb.h"
  Write("ts.log", "more");
#include "grapnel/runner/log_processor.pb.h"
  ASSERT_THAT(hook->AfterRun(run_), IsOk());
#include "grapnel/runner/log_processor.pb.h"
  EXPECT_EQ(io::ReadFile(run_.env(), "/out/exp/ts.log").value(), "more");
#include "grapnel/runner/log_processor.pb.h"
  const Json edge = EdgeCase(name);
#include "grapnel/runner/log_processor.pb.h"
  std::vector<std::string> golden;
#include "grapnel/runner/log_processor.pb.h"
  for (const std::string file : edge["observed"]) {
#include "grapnel/runner/log_processor.pb.h"
    if (absl::StartsWith(file, "out/exp/exp/")) continue;
#include "grapnel/runner/log_processor.pb.h"
    golden.push_back(absl::StrReplaceAll(file, {{"<ts>", "ts"}}));
#include "grapnel/runner/log_processor.pb.h"
  }
#include "grapnel/runner/log_processor.pb.h"
  EXPECT_THAT(Files("/", ""), IsSupersetOf(golden));
#include "grapnel/runner/log_processor.pb.h"
  EXPECT_THAT(Files("/out"), SizeIs(golden.size()));
#include "grapnel/runner/log_processor.pb.h"
  NoteGoldenCase("edge.json", "cases/" + name,
#include "grapnel/runner/log_processor.pb.h"
                 "c3: work_dir's name is joined once, not again in every call");
#include "grapnel/runner/log_processor.pb.h"
}
#include "grapnel/runner/log_processor.pb.h"
TEST_F(LoggerOutDirTest, ARelativeOneStartsWhereTheConfigsPathsDo) {
#include "grapnel/runner/log_processor.pb.h"
  ASSERT_THAT(New("out_dir: 'out' out_suffix: '.log'")->AfterRun(run_), IsOk());
#include "grapnel/runner/log_processor.pb.h"
  EXPECT_THAT(Files("/base/out"), ElementsAre("exp/ts.log"));
#include "grapnel/runner/log_processor.pb.h"
}
#include "grapnel/runner/log_processor.pb.h"
TEST_F(LoggerOutDirTest, DeletesWhatItCopiedIfAsked) {
#include "grapnel/runner/log_processor.pb.h"
  auto hook =
#include "grapnel/runner/log_processor.pb.h"
      New("out_dir: '/out' out_suffix: '.wandb' out_suffix: '.log' "
#include "grapnel/runner/log_processor.pb.h"
          "keep_local: false");
#include "grapnel/runner/log_processor.pb.h"
  ASSERT_THAT(hook->AfterRun(run_), IsOk());
#include "grapnel/runner/log_processor.pb.h"
  EXPECT_THAT(Files("/out"),
#include "grapnel/runner/log_processor.pb.h"
              ElementsAre("exp/ts.log",
#include "grapnel/runner/log_processor.pb.h"
                          "exp/vis_data/wandb/offline-run-1-a/run-a.wandb"));
#include "grapnel/runner/log_processor.pb.h"
  EXPECT_THAT(Files(run_.logs),
#include "grapnel/runner/log_processor.pb.h"
              ElementsAre("ts.json", "vis_data/config.textproto",
#include "grapnel/runner/log_processor.pb.h"
                          "vis_data/events.out.tfevents.1.host.2.0",
#include "grapnel/runner/log_processor.pb.h"
                          "vis_data/scalars.json"));
#include "grapnel/runner/log_processor.pb.h"
}
#include "grapnel/runner/log_processor.pb.h"
TEST_F(LoggerOutDirTest, AnEmptySuffixIsAllOfThem) {
#include "grapnel/runner/log_processor.pb.h"
  ASSERT_THAT(New("out_dir: '/out' out_suffix: ''")->AfterRun(run_), IsOk());
#include "grapnel/runner/log_processor.pb.h"
  EXPECT_EQ(Files("/out/exp"), Files(run_.logs));
#include "grapnel/runner/log_processor.pb.h"
}
#include "grapnel/runner/log_processor.pb.h"
TEST_F(LoggerOutDirTest, IsWhereTheCheckpointHooksWouldBe) {
#include "grapnel/runner/log_processor.pb.h"
  for (const char* work_dir : {"/runs/exp/", "/runs/exp/.", "/runs/a/../exp"}) {
#include "grapnel/runner/log_processor.pb.h"
    run_.work = work_dir;
#include "grapnel/runner/log_processor.pb.h"
    ASSERT_THAT(New("out_dir: '/out'")->Setup(run_), IsOk());
#include "grapnel/runner/log_processor.pb.h"
    EXPECT_THAT(*run_.env().ListDir("/out"), ElementsAre("exp")) << work_dir;
#include "grapnel/runner/log_processor.pb.h"
  }
#include "grapnel/runner/log_processor.pb.h"
}
#include "grapnel/runner/log_processor.pb.h"
TEST_F(LoggerOutDirTest, WithoutOneNothingIsCopied) {
#include "grapnel/runner/log_processor.pb.h"
  ASSERT_THAT(New("")->AfterRun(run_), IsOk());
#include "grapnel/runner/log_processor.pb.h"
  EXPECT_THAT(Files("/"), SizeIs(6));
#include "grapnel/runner/log_processor.pb.h"
}
#include "grapnel/runner/log_processor.pb.h"
TEST_F(LoggerOutDirTest, ACopyThatFailsIsAnErrorAndDeletesNothing) {
#include "grapnel/runner/log_processor.pb.h"
  ASSERT_THAT(io::WriteFileAtomically(run_.env(), "/out", ""), IsOk());
#include "grapnel/runner/log_processor.pb.h"
  const absl::Status status =
#include "grapnel/runner/log_processor.pb.h"
      New("out_dir: '/out' keep_local: false")->AfterRun(run_);
#include "grapnel/runner/log_processor.pb.h"
  EXPECT_FALSE(status.ok());
#include "grapnel/runner/log_processor.pb.h"
  EXPECT_THAT(std::string(status.message()), StartsWith("out_dir: /out"));
#include "grapnel/runner/log_processor.pb.h"
  EXPECT_THAT(Files(run_.logs), SizeIs(6));
#include "grapnel/runner/log_processor.pb.h"
}
#include "grapnel/runner/log_processor.pb.h"
TEST_F(LoggerOutDirTest, AFolderThatCannotBeMadeIsKnownBeforeTheRun) {
#include "grapnel/runner/log_processor.pb.h"
  ASSERT_THAT(io::WriteFileAtomically(run_.env(), "/out", ""), IsOk());
#include "grapnel/runner/log_processor.pb.h"
  const absl::Status status = New("out_dir: '/out'")->Setup(run_);
#include "grapnel/runner/log_processor.pb.h"
  EXPECT_FALSE(status.ok());
#include "grapnel/runner/log_processor.pb.h"
  EXPECT_THAT(std::string(status.message()), StartsWith("out_dir: /out"));
#include "grapnel/runner/log_processor.pb.h"
  EXPECT_THAT(New("out_dir: '/new/out'")->Setup(run_), IsOk());
#include "grapnel/runner/log_processor.pb.h"
  EXPECT_TRUE(run_.env().IsDirectory("/new/out/exp"));
#include "grapnel/runner/log_processor.pb.h"
}
#include "grapnel/runner/log_processor.pb.h"
struct BadOptionCase {
#include "grapnel/runner/log_processor.pb.h"
  std::string golden;
#include "grapnel/runner/log_processor.pb.h"
  std::string config;
#include "grapnel/runner/log_processor.pb.h"
  std::string difference;
#include "grapnel/runner/log_processor.pb.h"
};
#include "grapnel/runner/log_processor.pb.h"
// Each is an error, of protobuf's or ours.
#include "grapnel/runner/log_processor.pb.h"
TEST(LoggerHookTest, OptionsThatMmengineRefuses) {
#include "grapnel/runner/log_processor.pb.h"
  for (const auto& [golden, config, difference] : std::vector<BadOptionCase>{
#include "grapnel/runner/log_processor.pb.h"
           {"'interval': '100'", "interval: '100'", ""},
#include "grapnel/runner/log_processor.pb.h"
           {"'interval': 0", "interval: 0", ""},
#include "grapnel/runner/log_processor.pb.h"
           {"'interval': -1", "interval: -1", ""},
#include "grapnel/runner/log_processor.pb.h"
           {"'ignore_last': 'x'", "ignore_last: 'x'", ""},
#include "grapnel/runner/log_processor.pb.h"
           {"'interval_exp_name': 0", "interval_exp_name: 0", ""},
#include "grapnel/runner/log_processor.pb.h"
           {"'out_dir': 1", "out_dir: 1", ""},
#include "grapnel/runner/log_processor.pb.h"
           {"'keep_local': 1", "out_dir: '/out' keep_local: 2",
#include "grapnel/runner/log_processor.pb.h"
            "1 is true in protobuf's text; 2 is refused"},
#include "grapnel/runner/log_processor.pb.h"
           {"'out_suffix': [1]", "out_dir: '/out' out_suffix: [1]", ""},
#include "grapnel/runner/log_processor.pb.h"
           {"'file_client_args': {'a': 1}", "file_client_args { a: 1 }",
#include "grapnel/runner/log_processor.pb.h"
            "there is no such option, whatever out_dir is"},
#include "grapnel/runner/log_processor.pb.h"
       }) {
#include "grapnel/runner/log_processor.pb.h"
    SCOPED_TRACE(config);
#include "grapnel/runner/log_processor.pb.h"
    const std::string name = "LoggerHook({" + golden + "})";
#include "grapnel/runner/log_processor.pb.h"
    EXPECT_TRUE(EdgeCase(name).contains("raised"));
#include "grapnel/runner/log_processor.pb.h"
    LoggerHook::Config parsed;
#include "grapnel/runner/log_processor.pb.h"
    EXPECT_TRUE(
#include "grapnel/runner/log_processor.pb.h"
        !google::protobuf::TextFormat::ParseFromString(config, &parsed) ||
#include "grapnel/runner/log_processor.pb.h"
        LoggerHook::Create(parsed).status().code() ==
#include "grapnel/runner/log_processor.pb.h"
            absl::StatusCode::kInvalidArgument);
#include "grapnel/runner/log_processor.pb.h"
    NoteGoldenCase("edge.json", "cases/" + name, difference);
#include "grapnel/runner/log_processor.pb.h"
  }
#include "grapnel/runner/log_processor.pb.h"
}
#include "grapnel/runner/log_processor.pb.h"
// A log with a terminal, which keeps what is shown at its foot.
#include "grapnel/runner/log_processor.pb.h"
class TerminalLog : public RunLog {
#include "grapnel/runner/log_processor.pb.h"
 public:
#include "grapnel/runner/log_processor.pb.h"
  void Write(Level, absl::string_view) override {}
#include "grapnel/runner/log_processor.pb.h"
  void Warning(absl::string_view) override {}
#include "grapnel/runner/log_processor.pb.h"
  absl::Status Flush() override { return absl::OkStatus(); }
#include "grapnel/runner/log_processor.pb.h"
  void SetStatusLine(absl::string_view text) override {
#include "grapnel/runner/log_processor.pb.h"
    // As far as the percentage.
#include "grapnel/runner/log_processor.pb.h"
    shown.emplace_back(text.substr(0, text.find('%')));
#include "grapnel/runner/log_processor.pb.h"
  }
#include "grapnel/runner/log_processor.pb.h"
  int StatusColumns() override { return 80; }
#include "grapnel/runner/log_processor.pb.h"
  std::vector<std::string> shown;
#include "grapnel/runner/log_processor.pb.h"
};
#include "grapnel/runner/log_processor.pb.h"
struct TerminalRun : public FakeRunContext {
#include "grapnel/runner/log_processor.pb.h"
  RunLog& log() override { return terminal; }
#include "grapnel/runner/log_processor.pb.h"
  TerminalLog terminal;
#include "grapnel/runner/log_processor.pb.h"
};
#include "grapnel/runner/log_processor.pb.h"
// Time passes by 250 ms whenever somebody looks, so that each unit is drawn.
#include "grapnel/runner/log_processor.pb.h"
class LoggerProgressTest : public testing::Test {
#include "grapnel/runner/log_processor.pb.h"
 protected:
#include "grapnel/runner/log_processor.pb.h"
  LoggerProgressTest() {
#include "grapnel/runner/log_processor.pb.h"
    run_.processor = LogProcessor::Create({}, true).value();
#include "grapnel/runner/log_processor.pb.h"
    run_.total_epochs = 2;
#include "grapnel/runner/log_processor.pb.h"
    run_.total_iters = 8;
#include "grapnel/runner/log_processor.pb.h"
    AddLoader(Mode::kTrain, 4);
#include "grapnel/runner/log_processor.pb.h"
    AddLoader(Mode::kVal, 2);
#include "grapnel/runner/log_processor.pb.h"
    AddLoader(Mode::kTest, 2);
#include "grapnel/runner/log_processor.pb.h"
    info_.batch = &batch_;
#include "grapnel/runner/log_processor.pb.h"
  }
#include "grapnel/runner/log_processor.pb.h"
  void AddLoader(Mode mode, int64_t num_batches) {
#include "grapnel/runner/log_processor.pb.h"
    data::v1::DataLoaderConfig config;
#include "grapnel/runner/log_processor.pb.h"
    config.set_batch_size(1);
#include "grapnel/runner/log_processor.pb.h"
    auto dataset = TensorDataset::Create(ops::zeros({num_batches}),
#include "grapnel/runner/log_processor.pb.h"
                                         ops::zeros({num_batches}, at::kLong));
#include "grapnel/runner/log_processor.pb.h"
    ASSERT_THAT(dataset, IsOk());
#include "grapnel/runner/log_processor.pb.h"
    auto loader = DataLoader::Create(config, *std::move(dataset), {});
#include "grapnel/runner/log_processor.pb.h"
    ASSERT_THAT(loader, IsOk());
#include "grapnel/runner/log_processor.pb.h"
    loaders_.push_back(*std::move(loader));
#include "grapnel/runner/log_processor.pb.h"
    run_.loaders[static_cast<int>(mode)] = loaders_.back().get();
#include "grapnel/runner/log_processor.pb.h"
  }
#include "grapnel/runner/log_processor.pb.h"
  std::unique_ptr<LoggerHook> SetUp(const std::string& config) {
#include "grapnel/runner/log_processor.pb.h"
    auto hook = New(config);
#include "grapnel/runner/log_processor.pb.h"
    EXPECT_THAT(hook->Setup(run_), IsOk());
#include "grapnel/runner/log_processor.pb.h"
    return hook;
#include "grapnel/runner/log_processor.pb.h"
  }
#include "grapnel/runner/log_processor.pb.h"
  // Batches `begin` to `end` - 1.
#include "grapnel/runner/log_processor.pb.h"
  void Train(LoggerHook& hook, int64_t begin, int64_t end) {
#include "grapnel/runner/log_processor.pb.h"
    info_.num_batches = 4;
#include "grapnel/runner/log_processor.pb.h"
    for (info_.batch_idx = begin; info_.batch_idx < end; ++info_.batch_idx) {
#include "grapnel/runner/log_processor.pb.h"
      ASSERT_THAT(hook.AfterTrainIter(run_, info_, LogVars()), IsOk());
#include "grapnel/runner/log_processor.pb.h"
      ++run_.iters;
#include "grapnel/runner/log_processor.pb.h"
    }
#include "grapnel/runner/log_processor.pb.h"
  }
#include "grapnel/runner/log_processor.pb.h"
  void Validate(LoggerHook& hook) {
#include "grapnel/runner/log_processor.pb.h"
    ASSERT_THAT(hook.BeforeEpoch(run_, Mode::kVal), IsOk());
#include "grapnel/runner/log_processor.pb.h"
    info_.num_batches = 2;
#include "grapnel/runner/log_processor.pb.h"
    for (info_.batch_idx = 0; info_.batch_idx < 2; ++info_.batch_idx) {
#include "grapnel/runner/log_processor.pb.h"
      ASSERT_THAT(hook.AfterValIter(run_, info_, Predictions()), IsOk());
#include "grapnel/runner/log_processor.pb.h"
    }
#include "grapnel/runner/log_processor.pb.h"
    ASSERT_THAT(hook.AfterVal(run_), IsOk());
#include "grapnel/runner/log_processor.pb.h"
  }
#include "grapnel/runner/log_processor.pb.h"
  TerminalRun run_;
#include "grapnel/runner/log_processor.pb.h"
  std::vector<std::unique_ptr<DataLoader>> loaders_;
#include "grapnel/runner/log_processor.pb.h"
  const Batch batch_;
#include "grapnel/runner/log_processor.pb.h"
  IterInfo info_;
#include "grapnel/runner/log_processor.pb.h"
};
#include "grapnel/runner/log_processor.pb.h"
TEST_F(LoggerProgressTest, EveryLoopHasItsBar) {
#include "grapnel/runner/log_processor.pb.h"
  auto hook = SetUp("");
#include "grapnel/runner/log_processor.pb.h"
  ASSERT_THAT(hook->BeforeEpoch(run_, Mode::kTrain), IsOk());
#include "grapnel/runner/log_processor.pb.h"
  Train(*hook, 0, 4);
#include "grapnel/runner/log_processor.pb.h"
  run_.epochs = 1;
#include "grapnel/runner/log_processor.pb.h"
  Validate(*hook);
#include "grapnel/runner/log_processor.pb.h"
  ASSERT_THAT(hook->AfterRun(run_), IsOk());
#include "grapnel/runner/log_processor.pb.h"
  EXPECT_THAT(run_.terminal.shown,
#include "grapnel/runner/log_processor.pb.h"
              ElementsAre("Epoch(train) [1/2]   0", "Epoch(train) [1/2]  25",
#include "grapnel/runner/log_processor.pb.h"
                          "Epoch(train) [1/2]  50", "Epoch(train) [1/2]  75",
#include "grapnel/runner/log_processor.pb.h"
                          "Epoch(train) [1/2] 100", "Epoch(val) [1/2]   0",
#include "grapnel/runner/log_processor.pb.h"
                          "Epoch(val) [1/2]  50", "Epoch(val) [1/2] 100", ""));
#include "grapnel/runner/log_processor.pb.h"
}
#include "grapnel/runner/log_processor.pb.h"
TEST_F(LoggerProgressTest, AResumeAmidAnEpochBeginsThere) {
#include "grapnel/runner/log_processor.pb.h"
  auto hook = SetUp("");
#include "grapnel/runner/log_processor.pb.h"
  run_.epochs = 1;
#include "grapnel/runner/log_processor.pb.h"
  // The first epoch had 6 batches.
#include "grapnel/runner/log_processor.pb.h"
  run_.iters = 9;
#include "grapnel/runner/log_processor.pb.h"
  run_.iters_in_epoch = 3;
#include "grapnel/runner/log_processor.pb.h"
  ASSERT_THAT(hook->BeforeEpoch(run_, Mode::kTrain), IsOk());
#include "grapnel/runner/log_processor.pb.h"
  Train(*hook, 3, 4);
#include "grapnel/runner/log_processor.pb.h"
  EXPECT_THAT(run_.terminal.shown,
#include "grapnel/runner/log_processor.pb.h"
              ElementsAre("Epoch(train) [2/2]  75", "Epoch(train) [2/2] 100"));
#include "grapnel/runner/log_processor.pb.h"
}
#include "grapnel/runner/log_processor.pb.h"
TEST_F(LoggerProgressTest, IterationBasedTrainingIsOneLoopAroundItsValidation) {
#include "grapnel/runner/log_processor.pb.h"
  auto hook = SetUp("");
#include "grapnel/runner/log_processor.pb.h"
  run_.counts_epochs = false;
#include "grapnel/runner/log_processor.pb.h"
  run_.iters = 4;
#include "grapnel/runner/log_processor.pb.h"
  ASSERT_THAT(hook->BeforeEpoch(run_, Mode::kTrain), IsOk());
#include "grapnel/runner/log_processor.pb.h"
  Train(*hook, 4, 6);
#include "grapnel/runner/log_processor.pb.h"
  Validate(*hook);
#include "grapnel/runner/log_processor.pb.h"
  Train(*hook, 6, 7);
#include "grapnel/runner/log_processor.pb.h"
  EXPECT_THAT(
#include "grapnel/runner/log_processor.pb.h"
      run_.terminal.shown,
#include "grapnel/runner/log_processor.pb.h"
      ElementsAre("Iter(train)  50", "Iter(train)  62", "Iter(train)  75",
#include "grapnel/runner/log_processor.pb.h"
                  "Iter(val)   0", "Iter(val)  50", "Iter(val) 100",
#include "grapnel/runner/log_processor.pb.h"
                  "Iter(train)  75", "Iter(train)  87"));
#include "grapnel/runner/log_processor.pb.h"
}
#include "grapnel/runner/log_processor.pb.h"
TEST_F(LoggerProgressTest, ATestOfItsOwnHasNoEpoch) {
#include "grapnel/runner/log_processor.pb.h"
  auto hook = SetUp("");
#include "grapnel/runner/log_processor.pb.h"
  run_.in_training = false;
#include "grapnel/runner/log_processor.pb.h"
  ASSERT_THAT(hook->BeforeEpoch(run_, Mode::kTest), IsOk());
#include "grapnel/runner/log_processor.pb.h"
  info_.num_batches = 2;
#include "grapnel/runner/log_processor.pb.h"
  ASSERT_THAT(hook->AfterTestIter(run_, info_, Predictions()), IsOk());
#include "grapnel/runner/log_processor.pb.h"
  EXPECT_THAT(run_.terminal.shown,
#include "grapnel/runner/log_processor.pb.h"
              ElementsAre("Epoch(test)   0", "Epoch(test)  50"));
#include "grapnel/runner/log_processor.pb.h"
}
#include "grapnel/runner/log_processor.pb.h"
TEST_F(LoggerProgressTest, IsOffIfAsked) {
#include "grapnel/runner/log_processor.pb.h"
  auto hook = SetUp("progress_bar: false");
#include "grapnel/runner/log_processor.pb.h"
  ASSERT_THAT(hook->BeforeEpoch(run_, Mode::kTrain), IsOk());
#include "grapnel/runner/log_processor.pb.h"
  Train(*hook, 0, 4);
#include "grapnel/runner/log_processor.pb.h"
  Validate(*hook);
#include "grapnel/runner/log_processor.pb.h"
  ASSERT_THAT(hook->AfterRun(run_), IsOk());
#include "grapnel/runner/log_processor.pb.h"
  EXPECT_THAT(run_.terminal.shown, IsEmpty());
#include "grapnel/runner/log_processor.pb.h"
}
#include "grapnel/runner/log_processor.pb.h"
}  // namespace
#include "grapnel/runner/log_processor.pb.h"
}  // namespace grapnel
#include "grapnel/runner/log_processor.pb.h"
