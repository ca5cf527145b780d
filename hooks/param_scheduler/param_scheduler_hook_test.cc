#include "grapnel/hooks/param_scheduler/param_scheduler_hook.h"

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/loggers/run_log.h"
#include "grapnel/models/log_vars.h"
#include "grapnel/models/metric_value.h"
#include "grapnel/optim/param_scheduler.h"
#include "grapnel/optim/param_scheduler.pb.h"
#include "grapnel/runner/fake_run_context.h"
#include "grapnel/tests/golden/golden_report.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Counts its steps, and keeps the values of the metric `monitor`, if not "".
class CountingScheduler : public ParamScheduler {
 public:
  explicit CountingScheduler(bool by_epoch, std::string monitor = "")
      : by_epoch_(by_epoch), monitor_(std::move(monitor)) {}
  const std::string& param_name() const override { return name_; }
  bool by_epoch() const override { return by_epoch_; }
  void Apply() override {}
  void Step() override { ++steps_; }
  int64_t num_steps() const override { return steps_; }
  const std::string* monitor() const override {
    return monitor_.empty() ? nullptr : &monitor_;
  }
  using ParamScheduler::StepMetric;
  void StepMetric(double value, int64_t) override { values.push_back(value); }
  absl::Status SaveState(optim::v1::ParamSchedulerState*) const override {
    return absl::OkStatus();
  }
  absl::Status LoadState(const optim::v1::ParamSchedulerState&) override {
    return absl::OkStatus();
  }
  absl::Status Rewind(absl::Span<const double>) override {
    return absl::OkStatus();
  }

  std::vector<double> values;

 private:
  const std::string name_ = "lr";
  const bool by_epoch_;
  const std::string monitor_;
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

// A hook, set up for one scheduler that waits for `monitor`.
struct Monitored {
  explicit Monitored(const std::string& monitor) {
    auto scheduler = std::make_unique<CountingScheduler>(true, monitor);
    this->scheduler = scheduler.get();
    run.schedulers.push_back(std::move(scheduler));
    hook = *ParamSchedulerHook::Create({});
    EXPECT_THAT(hook->Setup(run), IsOk());
  }

  FakeRunContext run;
  std::unique_ptr<ParamSchedulerHook> hook;
  CountingScheduler* scheduler;
};

TEST(ParamSchedulerHookTest, MetricsOfATrainingsValidationsArePassedOn) {
  Monitored monitored("loss");
  const Metrics metrics[] = {{{"acc", 0.5}, {"loss", 2.5}},
                             {{"loss", int64_t{2}}}};
  for (const Metrics& of_epoch : metrics) {
    ASSERT_THAT(monitored.hook->AfterTrainEpoch(monitored.run), IsOk());
    ASSERT_THAT(monitored.hook->AfterValEpoch(monitored.run, of_epoch), IsOk());
  }
  EXPECT_THAT(monitored.scheduler->values, ElementsAre(2.5, 2));
  EXPECT_EQ(monitored.scheduler->num_steps(), 2);

  monitored.run.in_training = false;
  ASSERT_THAT(monitored.hook->AfterValEpoch(monitored.run, {{"loss", 1.0}}),
              IsOk());
  EXPECT_THAT(monitored.scheduler->values, ElementsAre(2.5, 2));
}

TEST(ParamSchedulerHookTest, AMetricThatIsMissingOrATextIsAnError) {
  Monitored monitored("loss");
  const auto after = [&](const Metrics& metrics) {
    return monitored.hook->AfterValEpoch(monitored.run, metrics);
  };
  EXPECT_GOLDEN(
      GoldenCase("scheduler_ReduceOnPlateauLR.json", "cases/wrong_key"),
      after({{"acc", 1.0}, {"mAP", 1.0}}),
      StatusIs(absl::StatusCode::kNotFound,
               "the validation gave no metric \"loss\", it gave acc, mAP"));
  EXPECT_THAT(after({}),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("it gave none")));
  EXPECT_THAT(after({{"loss", "high"}}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "the metric \"loss\" is a text: \"high\""));
  EXPECT_THAT(monitored.scheduler->values, ElementsAre());
}

TEST(ParamSchedulerHookTest, AMonitorWithoutValidationIsWarnedOf) {
  Monitored monitored("loss");
  EXPECT_THAT(
      monitored.run.run_log.messages(RunLog::Level::kWarning),
      ElementsAre(HasSubstr("one waits for the metric \"loss\" of a "
                            "validation, and there is no val_dataloader")));
}

}  // namespace
}  // namespace grapnel
