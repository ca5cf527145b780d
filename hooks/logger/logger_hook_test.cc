#include "grapnel/hooks/logger/logger_hook.h"

#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "google/protobuf/text_format.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/data/sample.h"
#include "grapnel/models/log_vars.h"
#include "grapnel/runner/fake_run_context.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::TestWithParam;
using ::testing::ValuesIn;

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

}  // namespace
}  // namespace grapnel
