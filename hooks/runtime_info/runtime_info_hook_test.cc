#include "grapnel/hooks/runtime_info/runtime_info_hook.h"

#include <memory>
#include <string>

#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/models/log_vars.h"
#include "grapnel/runner/fake_run_context.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

class RuntimeInfoHookTest : public ::testing::Test {
 protected:
  RuntimeInfoHookTest() {
    auto hook = RuntimeInfoHook::Create({});
    EXPECT_THAT(hook, IsOk());
    hook_ = *std::move(hook);
    EXPECT_THAT(hook_->Setup(run_), IsOk());
  }

  std::string LoopStage() {
    const MessageHub::Info* info = run_.hub.FindInfo("loop_stage");
    return info == nullptr ? "none" : std::get<std::string>(*info);
  }

  FakeRunContext run_;
  std::unique_ptr<RuntimeInfoHook> hook_;
};

TEST_F(RuntimeInfoHookTest, LogVariablesBecomeTrainingScalars) {
  LogVars vars;
  vars.Add("loss", ops::full({}, 0.5));
  vars.Add("acc", ops::full({}, 2.0));
  ASSERT_THAT(hook_->AfterTrainIter(run_, IterInfo(), vars), IsOk());
  EXPECT_EQ(*run_.hub.FindScalar("train/loss")->Current(), 0.5);
  EXPECT_EQ(*run_.hub.FindScalar("train/acc")->Current(), 2.0);
}

TEST_F(RuntimeInfoHookTest, NamesMayChangeBetweenIterations) {
  LogVars vars;
  vars.Add("loss_a", ops::full({}, 1.0));
  ASSERT_THAT(hook_->AfterTrainIter(run_, IterInfo(), vars), IsOk());
  vars.Clear();
  vars.Add("loss_b", ops::full({}, 2.0));
  ASSERT_THAT(hook_->AfterTrainIter(run_, IterInfo(), vars), IsOk());
  EXPECT_EQ(run_.hub.FindScalar("train/loss_a")->num_entries(), 1);
  EXPECT_EQ(*run_.hub.FindScalar("train/loss_b")->Current(), 2.0);
}

TEST_F(RuntimeInfoHookTest, MetricsBecomeScalarsAndTextsFacts) {
  const Metrics metrics = {{"acc", 0.75},
                           {"hits", int64_t{3}},
                           {"per_class", std::string("{'cat': 1}")}};
  ASSERT_THAT(hook_->AfterValEpoch(run_, metrics), IsOk());
  EXPECT_EQ(*run_.hub.FindScalar("val/acc")->Current(), 0.75);
  EXPECT_EQ(*run_.hub.FindScalar("val/hits")->Current(), 3);
  EXPECT_EQ(run_.hub.FindScalar("val/per_class"), nullptr);
  EXPECT_EQ(std::get<std::string>(*run_.hub.FindInfo("val/per_class")),
            "{'cat': 1}");
}

TEST_F(RuntimeInfoHookTest, LoopStageIsTrainAgainAfterANestedValidation) {
  ASSERT_THAT(hook_->BeforeTrain(run_), IsOk());
  EXPECT_EQ(LoopStage(), "train");
  ASSERT_THAT(hook_->BeforeVal(run_), IsOk());
  EXPECT_EQ(LoopStage(), "val");
  ASSERT_THAT(hook_->AfterVal(run_), IsOk());
  EXPECT_EQ(LoopStage(), "train");
  ASSERT_THAT(hook_->AfterTrain(run_), IsOk());
  EXPECT_EQ(LoopStage(), "none");
}

TEST_F(RuntimeInfoHookTest, LoopStageIsGoneAfterAStandaloneTest) {
  run_.in_training = false;
  ASSERT_THAT(hook_->BeforeTest(run_), IsOk());
  EXPECT_EQ(LoopStage(), "test");
  ASSERT_THAT(hook_->AfterTest(run_), IsOk());
  EXPECT_EQ(LoopStage(), "none");
}

}  // namespace
}  // namespace grapnel
