#include "grapnel/hooks/iter_timer/iter_timer_hook.h"

#include <memory>

#include "grapnel/base/status_matchers.h"
#include "grapnel/data/sample.h"
#include "grapnel/models/log_vars.h"
#include "grapnel/models/model.h"
#include "grapnel/runner/fake_run_context.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

// The fake clock goes on by 0.25 s at each look.
class IterTimerHookTest : public ::testing::Test {
 protected:
  IterTimerHookTest() {
    auto hook = IterTimerHook::Create({});
    EXPECT_THAT(hook, IsOk());
    hook_ = *std::move(hook);
    EXPECT_THAT(hook_->Setup(run_), IsOk());
    info_.batch = &batch_;
  }

  void TrainIter() {
    EXPECT_THAT(hook_->BeforeTrainIter(run_, info_), IsOk());
    EXPECT_THAT(hook_->AfterTrainIter(run_, info_, LogVars()), IsOk());
    ++run_.iters;
  }

  double Current(absl::string_view name) {
    const HistoryBuffer* history = run_.hub.FindScalar(name);
    return history == nullptr ? -1 : *history->Current();
  }
  double Eta() { return std::get<double>(*run_.hub.FindInfo("eta")); }

  Batch batch_;
  IterInfo info_;
  FakeRunContext run_;
  std::unique_ptr<IterTimerHook> hook_;
};

TEST_F(IterTimerHookTest, TimeIncludesTheWaitForData) {
  run_.total_iters = 4;
  ASSERT_THAT(hook_->BeforeTrain(run_), IsOk());
  ASSERT_THAT(hook_->BeforeTrainEpoch(run_), IsOk());
  TrainIter();
  EXPECT_DOUBLE_EQ(Current("train/data_time"), 0.25);
  EXPECT_DOUBLE_EQ(Current("train/time"), 0.5);
}

TEST_F(IterTimerHookTest, WhatComesAfterItCountsTowardsTheNextDataTime) {
  run_.total_iters = 4;
  ASSERT_THAT(hook_->BeforeTrain(run_), IsOk());
  ASSERT_THAT(hook_->BeforeTrainEpoch(run_), IsOk());
  TrainIter();
  run_.fake_clock.Advance(absl::Seconds(2));  // A checkpoint is written.
  TrainIter();
  EXPECT_DOUBLE_EQ(Current("train/data_time"), 2.25);
}

TEST_F(IterTimerHookTest, EtaIsMeanTimesWhatIsLeft) {
  run_.total_iters = 4;
  ASSERT_THAT(hook_->BeforeTrain(run_), IsOk());
  ASSERT_THAT(hook_->BeforeTrainEpoch(run_), IsOk());
  TrainIter();
  EXPECT_DOUBLE_EQ(Eta(), 1.5);  // Three more of 0.5 s.
  TrainIter();
  TrainIter();
  TrainIter();
  EXPECT_DOUBLE_EQ(Eta(), 0);
}

TEST_F(IterTimerHookTest, ResumedRunEstimatesFromItsOwnIterations) {
  run_.total_iters = 10;
  run_.iters = 8;
  ASSERT_THAT(hook_->BeforeTrain(run_), IsOk());
  ASSERT_THAT(hook_->BeforeTrainEpoch(run_), IsOk());
  TrainIter();
  EXPECT_DOUBLE_EQ(Eta(), 0.5);  // One more.
}

TEST_F(IterTimerHookTest, EveryEvaluationIsEstimatedByItself) {
  info_.num_batches = 2;
  for (int evaluation = 0; evaluation < 2; ++evaluation) {
    ASSERT_THAT(hook_->BeforeValEpoch(run_), IsOk());
    info_.batch_idx = 0;
    ASSERT_THAT(hook_->BeforeValIter(run_, info_), IsOk());
    ASSERT_THAT(hook_->AfterValIter(run_, info_, Predictions()), IsOk());
    EXPECT_DOUBLE_EQ(Eta(), 0.5);
    info_.batch_idx = 1;
    ASSERT_THAT(hook_->BeforeValIter(run_, info_), IsOk());
    ASSERT_THAT(hook_->AfterValIter(run_, info_, Predictions()), IsOk());
    EXPECT_DOUBLE_EQ(Eta(), 0);
    ASSERT_THAT(hook_->AfterValEpoch(run_, Metrics()), IsOk());
  }
  EXPECT_DOUBLE_EQ(Current("val/time"), 0.5);
  EXPECT_EQ(run_.hub.FindScalar("train/time"), nullptr);
}

}  // namespace
}  // namespace grapnel
