#include "grapnel/runner/loop_checkpoint.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/optim/averaging/averaged_model.h"
#include "grapnel/optim/averaging/averaging_strategies.h"
#include "grapnel/optim/optimizer.h"
#include "grapnel/optim/optimizer.pb.h"
#include "grapnel/optim/param_groups.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

// A loop over one parameter.
struct Loop {
  explicit Loop(int64_t size = 3, const std::string& name = "weight")
      : name(name) {
    weight = ops::zeros({size}).requires_grad_(true);
    optim::v1::OptimizerConfig config;
    config.mutable_adamw()->set_lr(0.5);
    ParamGroup group;
    group.params.push_back({name, weight});
    auto made = OptimizerRegistry::Create(config, {group});
    EXPECT_THAT(made, IsOk());
    optimizer = *std::move(made);
    AveragingOptions options;
    options.strategy = *EMAStrategy(0.25);
    auto averaged = AveragedModel::Create(std::move(options), Parameters());
    EXPECT_THAT(averaged, IsOk());
    average = *std::move(averaged);
  }

  std::vector<NamedTensor> Parameters() { return {{name, weight}}; }

  LoopParts Parts() {
    return {Parameters(), {}, optimizer.get(), {}, average.get()};
  }

  void Step() {
    weight.mutable_grad() = ops::ones({weight.numel()});
    EXPECT_THAT(optimizer->Step(), IsOk());
    EXPECT_THAT(average->Update(), IsOk());
  }

  const std::string name;
  at::Tensor weight;
  std::unique_ptr<Optimizer> optimizer;
  std::unique_ptr<AveragedModel> average;
};

TEST(LoopCheckpointTest, ALoopThatIsRestoredGoesOnWithTheSameBits) {
  Loop whole;
  for (int i = 0; i < 3; ++i) whole.Step();
  const auto captured = CaptureLoop(whole.Parts(), 3, 9);
  ASSERT_THAT(captured, IsOk());
  const at::Tensor drawn = ops::zeros({4}).normal_();

  // Tensors are shared, so that the other loop restores before this goes on.
  Loop restored;
  std::vector<std::string> warnings;
  const auto iter = RestoreLoop(*captured, restored.Parts(), 9, &warnings);
  ASSERT_THAT(iter, IsOk());
  EXPECT_EQ(*iter, 3);
  EXPECT_THAT(warnings, IsEmpty());
  EXPECT_TRUE(ops::zeros({4}).normal_().equal(drawn));
  for (Loop* loop : {&whole, &restored}) loop->Step();
  EXPECT_TRUE(restored.weight.equal(whole.weight));
  EXPECT_TRUE(restored.average->State()->Find("weight")->equal(
      *whole.average->State()->Find("weight")));
}

TEST(LoopCheckpointTest, PartsThatALoopDoesNotHaveAreLeftOut) {
  Loop loop;
  loop.Step();
  const LoopParts weights_alone = {loop.Parameters(), {}, nullptr, {}, nullptr};
  const auto captured = CaptureLoop(weights_alone, 1, 1);
  ASSERT_THAT(captured, IsOk());
  EXPECT_EQ(captured->FindSection("ema"), nullptr);
  EXPECT_EQ(captured->FindSection("optimizer"), nullptr);
  std::vector<std::string> warnings;
  EXPECT_THAT(RestoreLoop(*captured, weights_alone, 1, &warnings), IsOk());
  EXPECT_THAT(RestoreLoop(*captured, loop.Parts(), 1, &warnings).status(),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("is not a checkpoint of this loop")));
}

TEST(LoopCheckpointTest, NamesThatCouldNotBeReadBackAreRefusedAtTheSave) {
  Loop loop(3, "caf\xe9");
  loop.Step();
  EXPECT_THAT(
      CaptureLoop(loop.Parts(), 1, 1).status(),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("not UTF-8")));
}

TEST(LoopCheckpointTest, AnotherModelIsRefusedAndNothingChanges) {
  Loop small, large(5);
  large.Step();
  const auto captured = CaptureLoop(large.Parts(), 1, 1);
  ASSERT_THAT(captured, IsOk());
  std::vector<std::string> warnings;
  EXPECT_THAT(RestoreLoop(*captured, small.Parts(), 1, &warnings).status(),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("weight: has the shape")));
  EXPECT_TRUE(small.weight.equal(ops::zeros({3})));
}

}  // namespace
}  // namespace grapnel
