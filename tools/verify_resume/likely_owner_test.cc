#include "grapnel/tools/verify_resume/likely_owner.h"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <ostream>
#include <string>
#include <utility>
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
using ::testing::ElementsAreArray;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
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
  run.hooks_without_state = {"\"mine\" (custom_hooks.0)"};
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
        {"OtherSamplesOfAnOwnDataset",
         {At("before_iter", "indices")},
         WithOwnParts(),
         "train_dataloader.dataset (acme.Own), if its size isn't always the "
         "same, else train_dataloader: the order"},
        {"OtherSamplesOfAnOwnDatasetOrAHook",
         {At("before_iter", "indices")},
         With(WithOwnParts(),
              [](RunParticulars* run) {
                run->hooks_without_state = {"\"mine\""};
              }),
         "hook \"mine\", which saves no state; or train_dataloader.dataset "
         "(acme.Own), if its size"},
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
                run->varying_parts = {{"train_dataloader.dataset"}};
                // By something else.
                run->draws.loading = 2;
              }),
         "train_dataloader.dataset (acme.Own), which reads a sample otherwise "
         "each time: it has a generator"},
        {"OtherBatchOfOneOfTwoTransforms",
         {At("before_iter", "batch")},
         With(WithOwnParts(),
              [](RunParticulars* run) {
                run->own_parts.push_back(
                    {"train_dataloader.transforms.1", "acme.Crop"});
                run->own_parts.push_back(
                    {"train_dataloader.transforms.10", "acme.Noise"});
                run->varying_parts = {{"val_dataloader.dataset"},
                                      {"train_dataloader.transforms.10",
                                       /*draws_from_default_generator=*/true}};
              }),
         "train_dataloader.transforms.10 (acme.Noise), which changes a sample "
         "otherwise each time: it draws from LibTorch's default"},
        {"OtherBatchOfThePartWhosePlaceItIsAndNoOther",
         {At("before_iter", "batch")},
         With(RunParticulars(),
              [](RunParticulars* run) {
                run->own_parts = {{"train_dataloader.dataset_2", "acme.Other"},
                                  {"train_dataloader.dataset", "acme.Own"}};
              }),
         "train_dataloader.dataset (acme.Own), which has"},
        {"OtherBatchAndTheDefaultGeneratorMoved",
         {At("before_iter", "batch")},
         With(WithOwnParts(),
              [](RunParticulars* run) { run->draws.loading = 5; }),
         "draws from LibTorch's default generator"},
        {"OtherBatchBeforeTheDefaultGeneratorMoved",
         {At("before_iter", "batch")},
         With(WithOwnParts(),
              [](RunParticulars* run) { run->draws.loading = 6; }),
         "has a generator or a counter of its own"},
        {"OtherBatchBehindAValidationThatDrew",
         {At("before_iter", "batch")},
         With(WithOwnParts(),
              [](RunParticulars* run) {
                run->draws.val_loading = 4;
                run->draws.evaluating = 4;
              }),
         "has a generator or a counter of its own"},
        {"OtherBatchInTwoUninterruptedRuns",
         {At("before_iter", "batch")},
         With(WithOwnParts(),
              [](RunParticulars* run) { run->deterministic = false; }),
         "train_dataloader.dataset (acme.Own), which has random numbers that "
         "no seed fixes"},
        {"OtherBatchOfAValidationThatMovedTheDefaultGenerator",
         {At("val_batch", "batch")},
         With(WithOwnParts(),
              [](RunParticulars* run) { run->draws.val_loading = 5; }),
         "val_dataloader.dataset (acme.Own), which draws from LibTorch's "
         "default generator"},
        {"OtherBatchOfAValidationWhoseMetricsDraw",
         {At("val_batch", "batch")},
         With(WithOwnParts(),
              [](RunParticulars* run) {
                run->draws.loading = 5;
                run->draws.evaluating = 5;
              }),
         "val_dataloader.dataset (acme.Own), which has a generator"},
        {"ABatchMoreInAValidation",
         {At("val_batch", "")},
         WithOwnParts(),
         "val_dataloader.dataset (acme.Own), if its size isn't always the "
         "same"},
        {"OtherBatchOfAValidation",
         {At("val_batch", "batch")},
         WithOwnParts(),
         "val_dataloader.dataset (acme.Own)"},
        {"OtherLoss",
         {At("step", "log/loss"), At("step", "weights")},
         WithOwnParts(),
         "model.sequential.layers.1 (acme.Own), which has something"},
        {"OtherLossOfAModelThatDraws",
         {At("step", "log/loss")},
         With(WithOwnParts(),
              [](RunParticulars* run) { run->draws.in_step = 1; }),
         "model.sequential.layers.1 (acme.Own), which draws from LibTorch's"},
        {"OtherRate",
         {At("before_iter", "option/lr"), At("before_iter", "options")},
         WithHook(),
         "hook \"mine\" (custom_hooks.0), which saves no state"},
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
        // Which is no matter of resuming.
        {"OtherStepInTwoUninterruptedRuns",
         {At("step", "weights")},
         With(WithOwnParts(),
              [](RunParticulars* run) {
                run->deterministic = run->saves_optimizer = false;
              }),
         "optim_wrapper.optimizer (acme.Own), which has random numbers"},
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
                run->hooks_without_state.push_back("\"other\"");
              }),
         "hook \"mine\" (custom_hooks.0) or \"other\", which saves no state"},
        {"AHookThatSavesSomething",
         {At("after_iter", "weights")},
         With(RunParticulars(),
              [](RunParticulars* run) {
                run->hooks_with_state = {"\"mine\""};
              }),
         "hook \"mine\", whose saved state may lack something"},
        {"OtherBuffers",
         {At("after_iter", "buffers")},
         WithHook(),
         "the model"},
        {"OtherMetric",
         {At("after_val", "metric/acc")},
         WithOwnParts(),
         "val_evaluator.0 (acme.Own)"},
        {"OtherMetricThatDraws",
         {At("after_val", "metric/acc")},
         With(WithOwnParts(),
              [](RunParticulars* run) { run->draws.evaluating = 5; }),
         "val_evaluator.0 (acme.Own), which draws from LibTorch's"},
        {"OtherMetricBeforeTheDefaultGeneratorMoved",
         {At("after_val", "metric/acc")},
         With(WithOwnParts(),
              [](RunParticulars* run) { run->draws.evaluating = 6; }),
         "val_evaluator.0 (acme.Own), which keeps something"},
        {"OtherMetricOfGrapnelsOwnPartsAlone",
         {At("after_val", "metric/acc")},
         WithHook(),
         "hook \"mine\" (custom_hooks.0), which saves no state"},
        {"OtherGenerator",
         {At("before_iter", "generator")},
         WithHook(),
         "hook \"mine\""},
        {"AnIterationMore", {At("before_iter", "")}, WithHook(), "hook \"mine"},
        {"Record",
         {In(Source::kRecord, "record", "x")},
         WithHook(),
         "hook \"mine\""},
        {"RecordOfAHookThatMayDraw",
         {In(Source::kRecord, "record", "x")},
         With(WithHook(),
              [](RunParticulars* run) { run->draws.before_val = 5; }),
         "which saves no state, or which draws from LibTorch's"},
        {"RecordOfAHookThatDraws",
         {In(Source::kRecord, "record", "x")},
         With(WithHook(),
              [](RunParticulars* run) {
                run->hooks_with_state = {"\"other\""};
                run->deterministic = false;
                run->draws.before_val = 5;
              }),
         "hook \"mine\" (custom_hooks.0) or \"other\", which draws from "
         "LibTorch's default generator, which no seed fixes"},
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

enum class Saves { kNothing, kMessage, kBytes, kTensors, kSection };

RunParticulars OfAHookThatSaves(Saves saves) {
  runner::v1::RunState state;
  state.add_hooks()->set_name("checkpoint");
  auto* const hook = state.add_hooks();
  hook->set_name("planted");
  io::CheckpointContents contents;
  TensorMap tensors;
  EXPECT_THAT(tensors.Add("planted/a", ops::zeros({1})), IsOk());
  switch (saves) {
    case Saves::kNothing:
      break;
    case Saves::kMessage:
      hook->mutable_state()->set_type_url("x/planted.PlantedHookState");
      break;
    case Saves::kBytes:
      hook->set_bytes("1");
      break;
    case Saves::kTensors:
      contents.sections.emplace_back("hooks", tensors);
      break;
    case Saves::kSection:
      contents.sections.emplace_back("planted", tensors);
      break;
  }
  contents.blobs.emplace_back("state", state.SerializeAsString());
  const auto run = ParticularsOf(ParseConfig(R"(
          train_dataloader { dataset { custom {
            [type.googleapis.com/planted.PlantedDatasetConfig] {
              size: 4 fault: OWN_GENERATOR } } } }
          val_dataloader {
            dataset { custom {
              [type.googleapis.com/planted.PlantedDatasetConfig] {
                size: 4 fault: DEFAULT_GENERATOR } } }
            transforms { scale { factor: 2 } }
            transforms { custom {
              [type.googleapis.com/planted.PlantedTransformConfig] {} } }
          }
          default_hooks { checkpoint { save_optimizer: false } }
          custom_hooks { config {
            [type.googleapis.com/planted.PlantedHookConfig] {} } })"),
                                 /*base_dir=*/"", contents, {});
  EXPECT_THAT(run, IsOk());
  return run.ok() ? *run : RunParticulars();
}

TEST(ParticularsOfTest, TellsHooksByWhatTheySave) {
  constexpr char kTitle[] = "\"planted\" (custom_hooks.0)";
  const RunParticulars without = OfAHookThatSaves(Saves::kNothing);
  EXPECT_THAT(without.hooks_without_state, ElementsAre(kTitle));
  EXPECT_THAT(without.hooks_with_state, IsEmpty());
  for (const Saves saves :
       {Saves::kMessage, Saves::kBytes, Saves::kTensors, Saves::kSection}) {
    const RunParticulars with = OfAHookThatSaves(saves);
    EXPECT_THAT(with.hooks_without_state, IsEmpty()) << int(saves);
    EXPECT_THAT(with.hooks_with_state, ElementsAre(kTitle)) << int(saves);
  }
}

TEST(ParticularsOfTest, KnowsTheConfigurationsOwnParts) {
  const RunParticulars run = OfAHookThatSaves(Saves::kNothing);
  EXPECT_FALSE(run.saves_optimizer);
  EXPECT_TRUE(run.saves_schedulers);
  ASSERT_THAT(run.own_parts, SizeIs(3));
  EXPECT_EQ(run.own_parts[0].place, "train_dataloader.dataset");
  EXPECT_EQ(run.own_parts[0].type, "planted.PlantedDatasetConfig");
  EXPECT_EQ(run.own_parts[1].place, "val_dataloader.dataset");
  EXPECT_EQ(run.own_parts[2].place, "val_dataloader.transforms.1");
  ASSERT_THAT(run.varying_parts, SizeIs(3));
  EXPECT_EQ(run.varying_parts[0].place, "train_dataloader.dataset");
  EXPECT_FALSE(run.varying_parts[0].draws_from_default_generator);
  EXPECT_EQ(run.varying_parts[1].place, "val_dataloader.dataset");
  EXPECT_TRUE(run.varying_parts[1].draws_from_default_generator);
  // The one before it only scales.
  EXPECT_EQ(run.varying_parts[2].place, "val_dataloader.transforms.1");
  EXPECT_FALSE(run.varying_parts[2].draws_from_default_generator);
}

struct Moved {
  std::string name;
  // The generator's states: as it goes on, then before and after an iteration
  // and at four places of the validation behind it, then before the next
  // iteration.
  std::string states;
  int num_workers = 0;
  int num_val_workers = 0;
  std::vector<std::optional<int64_t>> draws;  // In the order of the struct.
};

void PrintTo(const Moved& moved, std::ostream* out) { *out << moved.name; }

class DefaultGeneratorTest : public testing::TestWithParam<Moved> {};

TEST_P(DefaultGeneratorTest, MovedWhereItsStateChanged) {
  runner::v1::RunState state;
  io::CheckpointContents contents;
  contents.blobs.emplace_back("state", state.SerializeAsString());
  runner::v1::RunnerConfig config;
  config.mutable_train_dataloader()->set_num_workers(GetParam().num_workers);
  config.mutable_val_dataloader()->set_num_workers(GetParam().num_val_workers);
  std::vector<TraceEvent> events;
  for (const auto& [kind, iter] :
       std::vector<std::pair<const char*, int64_t>>{{trace::kTrain, 0},
                                                    {trace::kBeforeIter, 1},
                                                    {trace::kAfterIter, 1},
                                                    {trace::kBeforeVal, 1},
                                                    {trace::kValBatch, 1},
                                                    {trace::kValStep, 1},
                                                    {trace::kAfterVal, 1},
                                                    {trace::kBeforeIter, 2}}) {
    events.emplace_back();
    events.back().kind = kind;
    events.back().iter = iter;
  }
  ASSERT_EQ(GetParam().states.size(), events.size());
  for (size_t i = 0; i < events.size(); ++i) {
    events[i].fields = {
        {"default_generator", std::string(1, GetParam().states[i])}};
  }
  const auto run = ParticularsOf(config, "", contents, events);
  ASSERT_THAT(run, IsOk());
  const RunParticulars::Draws& draws = run->draws;
  EXPECT_THAT((std::vector<std::optional<int64_t>>{
                  draws.loading, draws.in_step, draws.before_val,
                  draws.val_loading, draws.evaluating}),
              ElementsAreArray(GetParam().draws));
}

constexpr std::nullopt_t kNone = std::nullopt;

INSTANTIATE_TEST_SUITE_P(
    , DefaultGeneratorTest,
    testing::ValuesIn(std::vector<Moved>{
        {"Never", "aaaaaaaa", 0, 0, {kNone, kNone, kNone, kNone, kNone}},
        {"BeforeTheFirst", "abbbbbbb", 0, 0, {1, kNone, kNone, kNone, kNone}},
        {"BeforeTheSecond", "aaaaaaab", 0, 0, {2, kNone, kNone, kNone, kNone}},
        {"Twice", "abbbbbbc", 0, 0, {1, kNone, kNone, kNone, kNone}},
        {"WithinAnIteration",
         "aabbbbbb",
         0,
         0,
         {kNone, 1, kNone, kNone, kNone}},
        {"BeforeAValidation",
         "aaabbbbb",
         0,
         0,
         {kNone, kNone, 1, kNone, kNone}},
        {"WhileAValidationLoads",
         "aaaabbbb",
         0,
         0,
         {kNone, kNone, kNone, 1, kNone}},
        {"WhileItEvaluates", "aaaaabbb", 0, 0, {kNone, kNone, kNone, kNone, 1}},
        {"AtItsEnd", "aaaaaabb", 0, 0, {kNone, kNone, kNone, kNone, 1}},
        {"WithinAnIterationWhileWorkersLoad",
         "aabbbbbb",
         2,
         0,
         {1, 1, kNone, kNone, kNone}},
        {"WhileItEvaluatesAndWorkersLoad",
         "aaaaabbb",
         0,
         2,
         {kNone, kNone, kNone, 1, 1}},
    }),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace grapnel
