#include "grapnel/hooks/checkpoint/checkpoint_hook.h"

#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "google/protobuf/message.h"
#include "google/protobuf/text_format.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/env.h"
#include "grapnel/models/log_vars.h"
#include "grapnel/runner/fake_run_context.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::TestWithParam;
using ::testing::ValuesIn;

std::unique_ptr<CheckpointHook> NewHook(const std::string& text) {
  CheckpointHook::Config config;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &config));
  auto hook = CheckpointHook::Create(config);
  EXPECT_THAT(hook, IsOk());
  return *std::move(hook);
}

// A small checkpoint under /work_dir.
void Write(FakeRunContext& run, const std::string& name) {
  io::CheckpointContents contents;
  contents.blobs.emplace_back("state", "x");
  ASSERT_THAT(io::WriteCheckpoint(*run.mem_env, run.work, name, contents),
              IsOk());
}

// Does what a runner does with the requests: writes them, and says so.
void WriteSaves(CheckpointHook& hook, FakeRunContext& run,
                std::vector<std::string>* written) {
  for (const SaveRequest& request : run.saves) {
    Write(run, request.name);
    written->push_back(request.name);
    SavedCheckpoint saved;
    saved.name = request.name;
    saved.path = io::JoinPath(run.work, request.name);
    saved.is_last = request.update_last_checkpoint;
    ASSERT_THAT(hook.AfterSaveCheckpoint(run, saved), IsOk());
  }
  run.saves.clear();
}

struct RunCase {
  std::string name;
  std::string config;
  int64_t epochs;
  int64_t iters_per_epoch;
  std::vector<std::string> written;
  std::vector<std::string> left;  // Sorted, as in the folder.
};

void PrintTo(const RunCase& c, std::ostream* os) { *os << c.config; }

class CheckpointRunTest : public TestWithParam<RunCase> {};

// Rows 1 to 13 and 38 to 40 of parity.md 7, but that an old file goes after the
// new one is written (8.3, c2).
INSTANTIATE_TEST_SUITE_P(
    , CheckpointRunTest,
    ValuesIn(std::vector<RunCase>{
        {"EveryEpoch",
         "interval: 1",
         3,
         4,
         {"epoch_1", "epoch_2", "epoch_3"},
         {"epoch_1", "epoch_2", "epoch_3"}},
        {"EverySecondAndTheLast",
         "interval: 2",
         5,
         4,
         {"epoch_2", "epoch_4", "epoch_5"},
         {"epoch_2", "epoch_4", "epoch_5"}},
        {"WithoutTheLast",
         "interval: 2 save_last: false",
         5,
         4,
         {"epoch_2", "epoch_4"},
         {"epoch_2", "epoch_4"}},
        {"OnlyTheLastByDefault", "", 4, 4, {"epoch_4"}, {"epoch_4"}},
        {"Never", "save_last: false", 4, 4, {}, {}},
        {"IntervalZeroIsNever", "interval: 0", 3, 4, {"epoch_3"}, {"epoch_3"}},
        {"BeginIsTheFirst",
         "interval: 2 save_begin: 5",
         11,
         1,
         {"epoch_5", "epoch_7", "epoch_9", "epoch_11"},
         {"epoch_11", "epoch_5", "epoch_7", "epoch_9"}},
        {"LastIgnoresBegin",
         "interval: 1 save_begin: 10",
         4,
         1,
         {"epoch_4"},
         {"epoch_4"}},
        {"KeepOne",
         "interval: 1 max_keep_ckpts: 1",
         3,
         4,
         {"epoch_1", "epoch_2", "epoch_3"},
         {"epoch_3"}},
        {"KeepThreeOfFive",
         "interval: 1 max_keep_ckpts: 3",
         5,
         4,
         {"epoch_1", "epoch_2", "epoch_3", "epoch_4", "epoch_5"},
         {"epoch_3", "epoch_4", "epoch_5"}},
        {"LastTakesASlot",
         "interval: 2 max_keep_ckpts: 2",
         7,
         4,
         {"epoch_2", "epoch_4", "epoch_6", "epoch_7"},
         {"epoch_6", "epoch_7"}},
        {"KeepZeroIsUnlimited",
         "interval: 1 max_keep_ckpts: 0",
         2,
         4,
         {"epoch_1", "epoch_2"},
         {"epoch_1", "epoch_2"}},
        {"ByIteration",
         "by_epoch: false interval: 3",
         2,
         5,
         {"iter_3", "iter_6", "iter_9", "iter_10"},
         {"iter_10", "iter_3", "iter_6", "iter_9"}},
        {"ByIterationKeepTwo",
         "by_epoch: false interval: 2 max_keep_ckpts: 2",
         2,
         5,
         {"iter_2", "iter_4", "iter_6", "iter_8", "iter_10"},
         {"iter_10", "iter_8"}},
        {"ByIterationFromBegin",
         "by_epoch: false interval: 3 save_begin: 4",
         3,
         4,
         {"iter_4", "iter_7", "iter_10", "iter_12"},
         {"iter_10", "iter_12", "iter_4", "iter_7"}},
    }),
    [](const auto& info) { return info.param.name; });

TEST_P(CheckpointRunTest, WritesAndKeeps) {
  const RunCase& c = GetParam();
  const auto hook = NewHook(c.config);
  FakeRunContext run;
  run.total_epochs = c.epochs;
  run.total_iters = c.epochs * c.iters_per_epoch;
  std::vector<std::string> written;
  ASSERT_THAT(hook->BeforeTrain(run), IsOk());
  for (run.epochs = 0; run.epochs < c.epochs; ++run.epochs) {
    for (int64_t i = 0; i < c.iters_per_epoch; ++i) {
      ASSERT_THAT(hook->AfterTrainIter(run, IterInfo(), LogVars()), IsOk());
      WriteSaves(*hook, run, &written);
      ++run.iters;
    }
    ASSERT_THAT(hook->AfterTrainEpoch(run), IsOk());
    WriteSaves(*hook, run, &written);
  }
  ASSERT_THAT(hook->AfterTrain(run), IsOk());
  WriteSaves(*hook, run, &written);
  EXPECT_EQ(written, c.written);
  ASSERT_THAT(run.mem_env->DeleteDir(run.logs), IsOk());
  const auto left = run.mem_env->ListDir(run.work);
  ASSERT_THAT(left, IsOk());
  EXPECT_EQ(*left, c.left);
}

TEST(CheckpointHookTest, StopIsSavedThoughTheEndIsFar) {
  const auto hook = NewHook("interval: 4");
  FakeRunContext run;
  run.total_epochs = 10;
  run.epochs = 3;
  run.stopped = "test";
  ASSERT_THAT(hook->AfterTrain(run), IsOk());
  ASSERT_EQ(run.saves.size(), 1u);
  EXPECT_EQ(run.saves[0].name, "epoch_3");
}

TEST(CheckpointHookTest, StopAtASavedEpochIsNotSavedAgain) {
  const auto hook = NewHook("interval: 1");
  FakeRunContext run;
  run.total_epochs = 10;
  run.epochs = 2;
  ASSERT_THAT(hook->AfterTrainEpoch(run), IsOk());
  run.epochs = 3;
  run.stopped = "test";
  ASSERT_THAT(hook->AfterTrain(run), IsOk());
  EXPECT_EQ(run.saves.size(), 1u);
}

TEST(CheckpointHookTest, CheckpointOfAnInterruptCountsWhenTheRunGoesOn) {
  FakeRunContext run;
  Write(run, "epoch_1");
  Write(run, "iter_7");
  const auto hook = NewHook("interval: 1 max_keep_ckpts: 1");
  hooks::v1::CheckpointHookState state;
  state.add_kept("epoch_1");
  ASSERT_TRUE(
      hook->mutable_state()->ParseFromString(state.SerializeAsString()));
  run.resumed = "/work_dir/iter_7";
  ASSERT_THAT(hook->BeforeTrain(run), IsOk());
  EXPECT_FALSE(run.mem_env->FileExists("/work_dir/epoch_1"));
  EXPECT_TRUE(run.mem_env->FileExists("/work_dir/iter_7"));
}

TEST(CheckpointHookTest, SmallerLimitOnResumeDeletesTheOldest) {
  FakeRunContext run;
  hooks::v1::CheckpointHookState state;
  for (const char* name : {"epoch_2", "epoch_3", "epoch_4"}) {
    Write(run, name);
    state.add_kept(name);
  }
  const auto hook = NewHook("interval: 1 max_keep_ckpts: 2");
  ASSERT_TRUE(
      hook->mutable_state()->ParseFromString(state.SerializeAsString()));
  ASSERT_THAT(hook->BeforeTrain(run), IsOk());
  EXPECT_FALSE(run.mem_env->FileExists("/work_dir/epoch_2"));
  EXPECT_TRUE(run.mem_env->FileExists("/work_dir/epoch_3"));
}

TEST(CheckpointHookTest, CheckpointsOfOthersAreLeftAlone) {
  FakeRunContext run;
  Write(run, "epoch_99");
  const auto hook = NewHook("interval: 1 max_keep_ckpts: 1");
  run.total_epochs = 2;
  std::vector<std::string> written;
  ASSERT_THAT(hook->BeforeTrain(run), IsOk());
  ASSERT_THAT(hook->AfterTrainEpoch(run), IsOk());
  WriteSaves(*hook, run, &written);
  EXPECT_TRUE(run.mem_env->FileExists("/work_dir/epoch_99"));
}

}  // namespace
}  // namespace grapnel
