#include "grapnel/hooks/param_scheduler/param_scheduler_hook.h"

#include <memory>
#include <string>
#include <utility>

#include "grapnel/base/status_matchers.h"
#include "grapnel/models/log_vars.h"
#include "grapnel/optim/param_scheduler.h"
#include "grapnel/runner/fake_run_context.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

// Counts its steps.
class CountingScheduler : public ParamScheduler {
 public:
  explicit CountingScheduler(bool by_epoch) : by_epoch_(by_epoch) {}
  const std::string& param_name() const override { return name_; }
  bool by_epoch() const override { return by_epoch_; }
  void Apply() override {}
  void Step() override { ++steps_; }
  int64_t num_steps() const override { return steps_; }
  absl::Status SaveState(optim::v1::ParamSchedulerState*) const override {
    return absl::OkStatus();
  }
  absl::Status LoadState(const optim::v1::ParamSchedulerState&) override {
    return absl::OkStatus();
  }

 private:
  const std::string name_ = "lr";
  const bool by_epoch_;
  int64_t steps_ = 0;
};

TEST(ParamSchedulerHookTest, EachSchedulerStepsInItsOwnUnit) {
  auto hook = ParamSchedulerHook::Create({});
  ASSERT_THAT(hook, IsOk());
  FakeRunContext run;
  run.schedulers.push_back(std::make_unique<CountingScheduler>(true));
  run.schedulers.push_back(std::make_unique<CountingScheduler>(false));
  ASSERT_THAT((*hook)->Setup(run), IsOk());
  for (int epoch = 0; epoch < 2; ++epoch) {
    for (int iter = 0; iter < 3; ++iter) {
      ASSERT_THAT((*hook)->AfterTrainIter(run, IterInfo(), LogVars()), IsOk());
    }
    ASSERT_THAT((*hook)->AfterTrainEpoch(run), IsOk());
  }
  EXPECT_EQ(run.schedulers[0]->num_steps(), 2);
  EXPECT_EQ(run.schedulers[1]->num_steps(), 6);
}

TEST(ParamSchedulerHookTest, WithoutSchedulersItDoesNothing) {
  auto hook = ParamSchedulerHook::Create({});
  ASSERT_THAT(hook, IsOk());
  FakeRunContext run;
  EXPECT_THAT((*hook)->Setup(run), IsOk());
  EXPECT_THAT((*hook)->AfterTrainIter(run, IterInfo(), LogVars()), IsOk());
  EXPECT_THAT((*hook)->AfterTrainEpoch(run), IsOk());
}

}  // namespace
}  // namespace grapnel
