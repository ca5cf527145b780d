#include "grapnel/tools/verify_resume/likely_owner.h"

#include <ostream>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/runner/parse_config_for_test.h"
#include "grapnel/runner/run_state.pb.h"
#include "grapnel/runner/runner_config.pb.h"
#include "grapnel/tools/verify_resume/resume_trace.h"
#include "grapnel/tools/verify_resume/run_difference.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Source = RunDifference::Source;

RunDifference At(const std::string& kind, const std::string& field) {
  RunDifference difference;
  difference.kind = kind;
  difference.field = field;
  difference.iter = 5;
  return difference;
}

RunDifference In(Source source, const std::string& kind,
                 const std::string& field) {
  RunDifference difference = At(kind, field);
  difference.source = source;
  return difference;
}

RunParticulars WithHook() {
  RunParticulars run;
  run.hooks_without_state = {"mine"};
  return run;
}

// With a part of its own at each place, and no hook to blame.
RunParticulars WithOwnParts() {
  RunParticulars run;
  for (const char* place :
       {"train_dataloader.dataset", "val_dataloader.dataset",
        "model.sequential.layers.1", "param_scheduler.0",
        "optim_wrapper.optimizer", "val_evaluator.0"}) {
    run.own_parts.push_back({place, "acme.Own"});
  }
  return run;
}

RunParticulars With(RunParticulars run, void (*change)(RunParticulars*)) {
  change(&run);
  return run;
}

struct Case {
  std::string name;
  std::vector<RunDifference> differences;
  RunParticulars run;
  std::string owner;  // Part of it.
};

void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

class LikelyOwnerTest : public testing::TestWithParam<Case> {};

TEST_P(LikelyOwnerTest, IsNamed) {
  EXPECT_THAT(LikelyOwner(GetParam().differences, GetParam().run),
              HasSubstr(GetParam().owner));
}

INSTANTIATE_TEST_SUITE_P(
    , LikelyOwnerTest,
    testing::ValuesIn(std::vector<Case>{
        {"OtherSamples",
         {At("before_iter", "indices"), At("before_iter", "batch")},
         RunParticulars(),
         "train_dataloader: the order of its samples"},
        {"OtherBatch",
         {At("before_iter", "batch"), At("before_iter", "generator")},
         WithOwnParts(),
         "train_dataloader.dataset (acme.Own), which has a generator"},
        {"OtherBatchOfNoOwnPart",
         {At("before_iter", "batch")},
         RunParticulars(),
         "train_dataloader: its dataset or a transform, which has"},
        {"OtherBatchBehindATransform",
         {At("before_iter", "batch")},
         With(WithOwnParts(),
              [](RunParticulars* run) {
                run->own_parts.push_back(
                    {"train_dataloader.transforms.1", "acme.Noise"});
              }),
         "train_dataloader.transforms.1 (acme.Noise), which has a generator"},
        {"OtherBatchOfADatasetThatVaries",
         {At("before_iter", "batch")},
         With(WithOwnParts(),
              [](RunParticulars* run) {
                run->own_parts.push_back(
                    {"train_dataloader.transforms.1", "acme.Noise"});
                run->varying_datasets = {"train_dataloader.dataset"};
              }),
         "train_dataloader.dataset (acme.Own), which reads a sample otherwise"},
        {"OtherBatchAndTheDefaultGeneratorMoved",
         {At("before_iter", "batch")},
         With(WithOwnParts(),
              [](RunParticulars* run) { run->default_generator_moved = true; }),
         "draws from LibTorch's default generator"},
        {"OtherBatchOfAValidation",
         {At("val_batch", "batch")},
         WithOwnParts(),
         "val_dataloader.dataset (acme.Own)"},
        {"OtherLoss",
         {At("step", "log/loss"), At("step", "weights")},
         WithOwnParts(),
         "model.sequential.layers.1 (acme.Own), which has something"},
        {"OtherRate",
         {At("before_iter", "option/lr"), At("before_iter", "options")},
         WithHook(),
         "hook \"mine\", which saves no state"},
        {"OtherRateOfAScheduler",
         {At("before_iter", "option/lr")},
         WithOwnParts(),
         "param_scheduler.0 (acme.Own)"},
        {"OtherRateSinceSchedulersAreNotSaved",
         {At("before_iter", "option/lr")},
         With(WithHook(),
              [](RunParticulars* run) { run->saves_schedulers = false; }),
         "save_param_scheduler: false"},
        {"OtherStep",
         {At("step", "weights")},
         WithOwnParts(),
         "optim_wrapper.optimizer (acme.Own)"},
        {"OtherStepSinceTheOptimizerIsNotSaved",
         {At("step", "weights")},
         With(WithHook(),
              [](RunParticulars* run) { run->saves_optimizer = false; }),
         "save_optimizer: false"},
        {"OtherWeightsBehindTheStep",
         {At("after_iter", "weights")},
         WithHook(),
         "hook \"mine\""},
        {"OneOfTwoHooks",
         {At("after_iter", "weights")},
         With(WithHook(),
              [](RunParticulars* run) {
                run->hooks_without_state.push_back("other");
              }),
         "hook \"mine\" or \"other\", which saves no state"},
        {"AHookThatSavesSomething",
         {At("after_iter", "weights")},
         With(RunParticulars(),
              [](RunParticulars* run) { run->hooks_with_state = {"mine"}; }),
         "hook \"mine\", whose saved state may lack something"},
        {"OtherBuffers",
         {At("after_iter", "buffers")},
         WithHook(),
         "the model"},
        {"OtherMetric",
         {At("after_val", "metric/acc")},
         WithOwnParts(),
         "val_evaluator.0 (acme.Own)"},
        {"OtherGenerator",
         {At("before_iter", "generator")},
         WithHook(),
         "hook \"mine\""},
        {"AnIterationMore", {At("before_iter", "")}, WithHook(), "hook \"mine"},
        {"Record",
         {In(Source::kRecord, "record", "x")},
         WithHook(),
         "hook \"mine\""},
        {"HooksState",
         {In(Source::kCheckpoint, "hooks", "yours/count")},
         WithHook(),
         "hook \"yours\", whose saved state"},
        {"OptimizersTensors",
         {In(Source::kCheckpoint, "optimizer", "w/m")},
         WithOwnParts(),
         "optim_wrapper.optimizer (acme.Own)"},
        {"Nobody",
         {At("after_iter", "weights")},
         RunParticulars(),
         "none of the run's parts"},
    }),
    [](const auto& info) { return info.param.name; });

TEST(ParticularsOfTest, TellsHooksByWhatTheySave) {
  runner::v1::RunState state;
  for (const char* name : {"checkpoint", "ema_slow", "none", "message", "bytes",
                           "tensors", "verify_resume_trace"}) {
    state.add_hooks()->set_name(name);
  }
  state.mutable_hooks(3)->mutable_state()->set_type_url("x/acme.State");
  state.mutable_hooks(4)->set_bytes("1");
  io::CheckpointContents contents;
  TensorMap hooks;
  ASSERT_THAT(hooks.Add("tensors/a", ops::zeros({1})), IsOk());
  contents.sections.emplace_back("hooks", hooks);
  contents.blobs.emplace_back("state", state.SerializeAsString());
  const auto config = ParseConfig(R"(
      default_hooks { checkpoint { save_optimizer: false } })");
  const auto run = ParticularsOf(config, "", contents, {});
  ASSERT_THAT(run, IsOk());
  EXPECT_THAT(run->hooks_without_state, ElementsAre("none"));
  EXPECT_THAT(run->hooks_with_state,
              ElementsAre("message", "bytes", "tensors"));
  EXPECT_FALSE(run->saves_optimizer);
  EXPECT_TRUE(run->saves_schedulers);
  EXPECT_THAT(run->own_parts, IsEmpty());
  EXPECT_FALSE(run->default_generator_moved);
}

TEST(ParticularsOfTest, TheDefaultGeneratorMovedIfItsStateEverChanged) {
  runner::v1::RunState state;
  io::CheckpointContents contents;
  contents.blobs.emplace_back("state", state.SerializeAsString());
  for (const bool moves : {false, true}) {
    const auto run = ParticularsOf(
        runner::v1::RunnerConfig(), "", contents,
        {{trace::kBeforeIter, 1, 0, 0, {{"default_generator", "a"}}},
         {trace::kBeforeIter,
          2,
          0,
          0,
          {{"default_generator", moves ? "b" : "a"}}}});
    ASSERT_THAT(run, IsOk());
    EXPECT_EQ(run->default_generator_moved, moves);
  }
}

}  // namespace
}  // namespace grapnel
