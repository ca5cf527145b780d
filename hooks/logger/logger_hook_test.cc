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
namespace {

using ::testing::ElementsAre;
using ::testing::Eq;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::StartsWith;
using ::testing::TestWithParam;
using ::testing::UnorderedElementsAreArray;
using ::testing::ValuesIn;
using Json = ::nlohmann::json;

// The texts and records themselves are tested in tests/golden:log_lines_test;
// here stands when they are written.
struct IntervalCase {
  std::string name;
  std::string config;
  bool by_epoch;
  int64_t num_batches;          // Of the loader.
  int64_t iterations;           // Epoch-based: of two epochs.
  std::vector<int64_t> logged;  // 1-based iterations with a record.
  int exp_names;                // Lines that name the experiment.
};

void PrintTo(const IntervalCase& c, std::ostream* os) { *os << c.config; }

class LoggerIntervalTest : public TestWithParam<IntervalCase> {};

INSTANTIATE_TEST_SUITE_P(
    , LoggerIntervalTest,
    ValuesIn(std::vector<IntervalCase>{
        {"EveryIntervalOfEachEpoch",
         "interval: 2",
         true,
         5,
         10,
         {2, 4, 7, 9},
         2},
        {"LastOfAnEpochIfAsked",
         "interval: 2 ignore_last: false",
         true,
         5,
         10,
         {2, 4, 5, 7, 9, 10},
         2},
        {"ShortEpochLogsItsLast", "interval: 10", true, 3, 6, {3, 6}, 2},
        {"TenByDefault", "", true, 25, 50, {10, 20, 35, 45}, 2},
        {"LastOfAnIterationBasedRun", "interval: 3", false, 4, 8, {3, 6, 8}, 1},
        {"ExperimentIsNamedAtItsInterval",
         "interval: 5 interval_exp_name: 2",
         true,
         5,
         5,
         {5},
         3},
    }),
    [](const auto& info) { return info.param.name; });

TEST_P(LoggerIntervalTest, LogsAt) {
  const IntervalCase& c = GetParam();
  LoggerHook::Config config;
  ASSERT_TRUE(google::protobuf::TextFormat::ParseFromString(c.config, &config));
  auto hook = LoggerHook::Create(config);
  ASSERT_THAT(hook, IsOk());
  FakeRunContext run;
  auto processor = LogProcessor::Create({}, c.by_epoch);
  ASSERT_THAT(processor, IsOk());
  run.processor = *std::move(processor);
  run.counts_epochs = c.by_epoch;
  run.total_iters = c.iterations;
  run.total_epochs = c.iterations / c.num_batches;
  const Batch batch;
  IterInfo info;
  info.batch = &batch;
  info.num_batches = c.num_batches;
  run.hub.Scalar("train/lr").Add(0.1);
  for (run.iters = 0; run.iters < c.iterations; ++run.iters) {
    info.batch_idx = c.by_epoch ? run.iters % c.num_batches : run.iters;
    run.epochs = c.by_epoch ? run.iters / c.num_batches : 0;
    ASSERT_THAT((*hook)->AfterTrainIter(run, info, LogVars()), IsOk());
  }
  std::vector<int64_t> logged;
  for (const Record& record : run.records) logged.push_back(record.step);
  EXPECT_EQ(logged, c.logged);
  int exp_names = 0;
  for (const std::string& line : run.run_log.messages()) {
    if (line == "Exp name: experiment_20260102_030405") ++exp_names;
  }
  EXPECT_EQ(exp_names, c.exp_names);
}

std::unique_ptr<LoggerHook> New(const std::string& config) {
  LoggerHook::Config parsed;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(config, &parsed));
  auto hook = LoggerHook::Create(parsed);
  EXPECT_THAT(hook, IsOk());
  return *std::move(hook);
}

class LoggerOutDirTest : public testing::Test {
 protected:
  LoggerOutDirTest() {
    run_.work = "/wd/exp/";
    run_.logs = "/wd/exp/ts";
    for (const char* const name :
         {"ts.log", "ts.json", "vis_data/scalars.json",
          "vis_data/config.textproto",
          "vis_data/events.out.tfevents.1.host.2.0",
          "vis_data/wandb/offline-run-1-a/run-a.wandb"}) {
      Write(name, name);
    }
  }

  void Write(const std::string& name, const std::string& content) {
    const std::string path = io::JoinPath(run_.logs, name);
    ASSERT_THAT(run_.env().CreateDir(io::Dirname(path)), IsOk());
    ASSERT_THAT(io::WriteFileAtomically(run_.env(), path, content), IsOk());
  }

  // Names of files under a folder, with their folders.
  std::vector<std::string> Files(const std::string& dir,
                                 const std::string& prefix = "") {
    std::vector<std::string> files;
    const auto names = run_.env().ListDir(dir);
    if (!names.ok()) return files;
    for (const std::string& name : *names) {
      const std::string path = io::JoinPath(dir, name);
      if (!run_.env().IsDirectory(path)) {
        files.push_back(prefix + name);
        continue;
      }
      for (std::string& file : Files(path, prefix + name + "/")) {
        files.push_back(std::move(file));
      }
    }
    return files;
  }

  FakeRunContext run_;
};

TEST_F(LoggerOutDirTest, CopiesWhatMatchesAndKeepsItByDefault) {
  auto hook = New("out_dir: '/out'");
  ASSERT_THAT(hook->AfterRun(run_), IsOk());
  EXPECT_THAT(Files("/out"), ElementsAre("exp/ts.json", "exp/ts.log",
                                         "exp/vis_data/config.textproto",
                                         "exp/vis_data/scalars.json"));
  EXPECT_EQ(io::ReadFile(run_.env(), "/out/exp/vis_data/scalars.json").value(),
            "vis_data/scalars.json");
  EXPECT_THAT(Files(run_.logs), SizeIs(6));
}

Json EdgeCase(const std::string& name) {
  const Json golden = Json::parse(std::ifstream("tests/golden/edge.json"));
  for (const Json& edge : golden["cases"]) {
    if (edge["name"] == name) return edge;
  }
  ADD_FAILURE() << "no case " << name;
  return Json();
}

TEST_F(LoggerOutDirTest, ALaterCallReplacesTheCopies) {
  const std::string name = "LoggerHook.out_dir after train() and val()";
  auto hook = New("out_dir: '/out' out_suffix: '.json' out_suffix: '.log'");
  ASSERT_THAT(run_.env().DeleteFile(run_.logs + "/ts.json"), IsOk());
  Write("vis_data/ts.json", "");
  ASSERT_THAT(hook->AfterRun(run_), IsOk());
  Write("ts.log", "more");
  ASSERT_THAT(hook->AfterRun(run_), IsOk());
  EXPECT_EQ(io::ReadFile(run_.env(), "/out/exp/ts.log").value(), "more");
  const Json edge = EdgeCase(name);
  std::vector<std::string> golden;
  for (const std::string file : edge["observed"]) {
    if (absl::StartsWith(file, "out/exp/exp/")) continue;
    golden.push_back(absl::StrReplaceAll(file, {{"<ts>", "ts"}}));
  }
  EXPECT_GOLDEN(
      GoldenCase("edge.json", "cases/" + name,
                 "c3: work_dir's name is joined once, not again in every call"),
      Files("/out", "out/"), UnorderedElementsAreArray(golden));
}

TEST_F(LoggerOutDirTest, ARelativeOneStartsWhereTheConfigsPathsDo) {
  ASSERT_THAT(New("out_dir: 'out' out_suffix: '.log'")->AfterRun(run_), IsOk());
  EXPECT_THAT(Files("/base/out"), ElementsAre("exp/ts.log"));
}

TEST_F(LoggerOutDirTest, DeletesWhatItCopiedIfAsked) {
  auto hook =
      New("out_dir: '/out' out_suffix: '.wandb' out_suffix: '.log' "
          "keep_local: false");
  ASSERT_THAT(hook->AfterRun(run_), IsOk());
  EXPECT_THAT(Files("/out"),
              ElementsAre("exp/ts.log",
                          "exp/vis_data/wandb/offline-run-1-a/run-a.wandb"));
  EXPECT_THAT(Files(run_.logs),
              ElementsAre("ts.json", "vis_data/config.textproto",
                          "vis_data/events.out.tfevents.1.host.2.0",
                          "vis_data/scalars.json"));
}

TEST_F(LoggerOutDirTest, AnEmptySuffixIsAllOfThem) {
  ASSERT_THAT(New("out_dir: '/out' out_suffix: ''")->AfterRun(run_), IsOk());
  EXPECT_EQ(Files("/out/exp"), Files(run_.logs));
}

TEST_F(LoggerOutDirTest, IsWhereTheCheckpointHooksWouldBe) {
  for (const char* work_dir : {"/runs/exp/", "/runs/exp/.", "/runs/a/../exp"}) {
    run_.work = work_dir;
    ASSERT_THAT(New("out_dir: '/out'")->Setup(run_), IsOk());
    EXPECT_THAT(*run_.env().ListDir("/out"), ElementsAre("exp")) << work_dir;
  }
}

TEST_F(LoggerOutDirTest, WithoutOneNothingIsCopied) {
  ASSERT_THAT(New("")->AfterRun(run_), IsOk());
  EXPECT_THAT(Files("/"), SizeIs(6));
}

TEST_F(LoggerOutDirTest, ACopyThatFailsIsAnErrorAndDeletesNothing) {
  ASSERT_THAT(io::WriteFileAtomically(run_.env(), "/out", ""), IsOk());
  const absl::Status status =
      New("out_dir: '/out' keep_local: false")->AfterRun(run_);
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(std::string(status.message()), StartsWith("out_dir: /out"));
  EXPECT_THAT(Files(run_.logs), SizeIs(6));
}

TEST_F(LoggerOutDirTest, AFolderThatCannotBeMadeIsKnownBeforeTheRun) {
  ASSERT_THAT(io::WriteFileAtomically(run_.env(), "/out", ""), IsOk());
  const absl::Status status = New("out_dir: '/out'")->Setup(run_);
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(std::string(status.message()), StartsWith("out_dir: /out"));
  EXPECT_THAT(New("out_dir: '/new/out'")->Setup(run_), IsOk());
  EXPECT_TRUE(run_.env().IsDirectory("/new/out/exp"));
}

struct BadOptionCase {
  std::string golden;
  std::string config;
  std::string difference;
};

// Each is an error, of protobuf's or ours.
TEST(LoggerHookTest, OptionsThatMmengineRefuses) {
  for (const auto& [golden, config, difference] : std::vector<BadOptionCase>{
           {"'interval': '100'", "interval: '100'", ""},
           {"'interval': 0", "interval: 0", ""},
           {"'interval': -1", "interval: -1", ""},
           {"'ignore_last': 'x'", "ignore_last: 'x'", ""},
           {"'interval_exp_name': 0", "interval_exp_name: 0", ""},
           {"'out_dir': 1", "out_dir: 1", ""},
           {"'keep_local': 1", "out_dir: '/out' keep_local: 2",
            "1 is true in protobuf's text; 2 is refused"},
           {"'out_suffix': [1]", "out_dir: '/out' out_suffix: [1]", ""},
           {"'file_client_args': {'a': 1}", "file_client_args { a: 1 }",
            "there is no such option, whatever out_dir is"},
       }) {
    SCOPED_TRACE(config);
    const std::string name = "LoggerHook({" + golden + "})";
    EXPECT_TRUE(EdgeCase(name).contains("raised"));
    LoggerHook::Config parsed;
    const bool refused =
        !google::protobuf::TextFormat::ParseFromString(config, &parsed) ||
        LoggerHook::Create(parsed).status().code() ==
            absl::StatusCode::kInvalidArgument;
    EXPECT_GOLDEN(GoldenCase("edge.json", "cases/" + name, difference), refused,
                  Eq(true));
  }
}

// A log with a terminal, which keeps what is shown at its foot.
class TerminalLog : public RunLog {
 public:
  void Write(Level, absl::string_view) override {}
  void Warning(absl::string_view) override {}
  absl::Status Flush() override { return absl::OkStatus(); }
  void SetStatusLine(absl::string_view text) override {
    // As far as the percentage.
    shown.emplace_back(text.substr(0, text.find('%')));
  }
  int StatusColumns() override { return 80; }

  std::vector<std::string> shown;
};

struct TerminalRun : public FakeRunContext {
  RunLog& log() override { return terminal; }

  TerminalLog terminal;
};

// Time passes by 250 ms whenever somebody looks, so that each unit is drawn.
class LoggerProgressTest : public testing::Test {
 protected:
  LoggerProgressTest() {
    run_.processor = LogProcessor::Create({}, true).value();
    run_.total_epochs = 2;
    run_.total_iters = 8;
    AddLoader(Mode::kTrain, 4);
    AddLoader(Mode::kVal, 2);
    AddLoader(Mode::kTest, 2);
    info_.batch = &batch_;
  }

  void AddLoader(Mode mode, int64_t num_batches) {
    data::v1::DataLoaderConfig config;
    config.set_batch_size(1);
    auto dataset = TensorDataset::Create(ops::zeros({num_batches}),
                                         ops::zeros({num_batches}, at::kLong));
    ASSERT_THAT(dataset, IsOk());
    auto loader = DataLoader::Create(config, *std::move(dataset), {});
    ASSERT_THAT(loader, IsOk());
    loaders_.push_back(*std::move(loader));
    run_.loaders[static_cast<int>(mode)] = loaders_.back().get();
  }

  std::unique_ptr<LoggerHook> SetUp(const std::string& config) {
    auto hook = New(config);
    EXPECT_THAT(hook->Setup(run_), IsOk());
    return hook;
  }

  // Batches `begin` to `end` - 1.
  void Train(LoggerHook& hook, int64_t begin, int64_t end) {
    info_.num_batches = 4;
    for (info_.batch_idx = begin; info_.batch_idx < end; ++info_.batch_idx) {
      ASSERT_THAT(hook.AfterTrainIter(run_, info_, LogVars()), IsOk());
      ++run_.iters;
    }
  }
  void Validate(LoggerHook& hook) {
    ASSERT_THAT(hook.BeforeEpoch(run_, Mode::kVal), IsOk());
    info_.num_batches = 2;
    for (info_.batch_idx = 0; info_.batch_idx < 2; ++info_.batch_idx) {
      ASSERT_THAT(hook.AfterValIter(run_, info_, Predictions()), IsOk());
    }
    ASSERT_THAT(hook.AfterVal(run_), IsOk());
  }

  TerminalRun run_;
  std::vector<std::unique_ptr<DataLoader>> loaders_;
  const Batch batch_;
  IterInfo info_;
};

TEST_F(LoggerProgressTest, EveryLoopHasItsBar) {
  auto hook = SetUp("");
  ASSERT_THAT(hook->BeforeEpoch(run_, Mode::kTrain), IsOk());
  Train(*hook, 0, 4);
  run_.epochs = 1;
  Validate(*hook);
  ASSERT_THAT(hook->AfterRun(run_), IsOk());
  EXPECT_THAT(run_.terminal.shown,
              ElementsAre("Epoch(train) [1/2]   0", "Epoch(train) [1/2]  25",
                          "Epoch(train) [1/2]  50", "Epoch(train) [1/2]  75",
                          "Epoch(train) [1/2] 100", "Epoch(val) [1/2]   0",
                          "Epoch(val) [1/2]  50", "Epoch(val) [1/2] 100", ""));
}

TEST_F(LoggerProgressTest, AResumeWithinAnEpochBeginsThere) {
  auto hook = SetUp("");
  run_.epochs = 1;
  // The first epoch had 6 batches.
  run_.iters = 9;
  run_.iters_in_epoch = 3;
  ASSERT_THAT(hook->BeforeEpoch(run_, Mode::kTrain), IsOk());
  Train(*hook, 3, 4);
  EXPECT_THAT(run_.terminal.shown,
              ElementsAre("Epoch(train) [2/2]  75", "Epoch(train) [2/2] 100"));
}

// Its 3 batches of before and the 3 that are left are no 4.
TEST_F(LoggerProgressTest, AnEpochThatWasSharedOutAnewHasItsOwnLength) {
  auto hook = SetUp("");
  run_.epochs = 1;
  run_.iters = 9;
  run_.iters_in_epoch = 3;
  ASSERT_THAT(hook->BeforeEpoch(run_, Mode::kTrain), IsOk());
  info_.num_batches = 6;
  for (info_.batch_idx = 3; info_.batch_idx < 6; ++info_.batch_idx) {
    ASSERT_THAT(hook->AfterTrainIter(run_, info_, LogVars()), IsOk());
    ++run_.iters;
  }
  EXPECT_THAT(run_.terminal.shown,
              ElementsAre("Epoch(train) [2/2]  75", "Epoch(train) [2/2]  66",
                          "Epoch(train) [2/2]  83", "Epoch(train) [2/2] 100"));
}

TEST_F(LoggerProgressTest, IterationBasedTrainingIsOneLoopAroundItsValidation) {
  auto hook = SetUp("");
  run_.counts_epochs = false;
  run_.iters = 4;
  ASSERT_THAT(hook->BeforeEpoch(run_, Mode::kTrain), IsOk());
  Train(*hook, 4, 6);
  Validate(*hook);
  Train(*hook, 6, 7);
  EXPECT_THAT(
      run_.terminal.shown,
      ElementsAre("Iter(train)  50", "Iter(train)  62", "Iter(train)  75",
                  "Iter(val)   0", "Iter(val)  50", "Iter(val) 100",
                  "Iter(train)  75", "Iter(train)  87"));
}

TEST_F(LoggerProgressTest, ATestOfItsOwnHasNoEpoch) {
  auto hook = SetUp("");
  run_.in_training = false;
  ASSERT_THAT(hook->BeforeEpoch(run_, Mode::kTest), IsOk());
  info_.num_batches = 2;
  ASSERT_THAT(hook->AfterTestIter(run_, info_, Predictions()), IsOk());
  EXPECT_THAT(run_.terminal.shown,
              ElementsAre("Epoch(test)   0", "Epoch(test)  50"));
}

TEST_F(LoggerProgressTest, IsOffIfAsked) {
  auto hook = SetUp("progress_bar: false");
  ASSERT_THAT(hook->BeforeEpoch(run_, Mode::kTrain), IsOk());
  Train(*hook, 0, 4);
  Validate(*hook);
  ASSERT_THAT(hook->AfterRun(run_), IsOk());
  EXPECT_THAT(run_.terminal.shown, IsEmpty());
}

}  // namespace
}  // namespace grapnel
