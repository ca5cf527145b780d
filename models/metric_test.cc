// Tests the metrics as users get them, by config and through the Evaluator.

#include "grapnel/models/metric.h"

#include <cmath>
#include <cstdint>
#include <memory>
#include <ostream>
#include <stdexcept>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "ATen/core/Tensor.h"
#include "gmock/gmock.h"
#include "google/protobuf/text_format.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/data/sample.h"
#include "grapnel/models/metric.pb.h"
#include "grapnel/models/model.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::TestWithParam;
using ::testing::ValuesIn;

using Configs = google::protobuf::RepeatedPtrField<models::v1::MetricConfig>;

Configs Parse(const std::vector<std::string>& texts) {
  Configs configs;
  for (const std::string& text : texts) {
    EXPECT_TRUE(
        google::protobuf::TextFormat::ParseFromString(text, configs.Add()))
        << text;
  }
  return configs;
}

std::unique_ptr<Evaluator> NewEvaluator(const std::vector<std::string>& texts) {
  auto evaluator = Evaluator::Create(Parse(texts));
  EXPECT_THAT(evaluator, IsOk());
  return *std::move(evaluator);
}

struct Step {
  Predictions predictions;
  Batch batch;
};

Step NewStep(const at::Tensor& outputs, const at::Tensor& targets) {
  Step step;
  step.predictions.outputs = outputs;
  step.batch.targets = targets;
  step.batch.indices.resize(outputs.size(0));
  return step;
}

Step Ignoring(Step step, int64_t index) {
  step.predictions.ignore_index = index;
  return step;
}

absl::Status Process(Evaluator& evaluator, const Step& step) {
  return evaluator.Process(step.predictions, step.batch);
}

std::vector<std::pair<std::string, double>> Doubles(const Metrics& metrics) {
  std::vector<std::pair<std::string, double>> values;
  for (const auto& metric : metrics) {
    values.emplace_back(metric.first, std::get<double>(metric.second));
  }
  return values;
}

at::Tensor Floats(const std::vector<float>& values, at::IntArrayRef shape) {
  return ops::tensor(values).reshape(shape);
}

at::Tensor Labels(const std::vector<int64_t>& values) {
  return ops::tensor(values, at::kLong);
}

struct ValueCase {
  std::string name;
  std::string config;
  std::vector<Step> steps;
  std::vector<std::pair<std::string, double>> values;
};

void PrintTo(const ValueCase& c, std::ostream* os) { *os << c.config; }

class MetricValueTest : public TestWithParam<ValueCase> {};

std::vector<ValueCase> ValueCases() {
  // Ranks of the targets: first, second, third.
  const Step three =
      NewStep(Floats({5, 1, 0, 3, 4, 0, 2, 1, 0}, {3, 3}), Labels({0, 0, 2}));
  const Step one = NewStep(Floats({0, 0, 9}, {1, 3}), Labels({2}));
  const Step pair =
      NewStep(Floats({1, 2, 3, 4}, {2, 2}), Floats({0, 2, 5, 4}, {2, 2}));
  const Step single = NewStep(Floats({3, 1}, {1, 2}), Floats({0, 1}, {1, 2}));
  return {
      {"Top1IsTheDefault",
       "accuracy {}",
       {three},
       {{"accuracy/top1", 100. / 3}}},
      {"TopKInTheOrderOfTheConfig",
       "accuracy { topk: [3, 1, 2] }",
       {three},
       {{"accuracy/top3", 100},
        {"accuracy/top1", 100. / 3},
        {"accuracy/top2", 200. / 3}}},
      {"SamplesCountNotBatches",
       "accuracy {}",
       {three, one},
       {{"accuracy/top1", 50}}},
      {"Mse", "mse {}", {pair}, {{"mse", 5. / 4}}},
      {"MseOverElementsOfAllBatches",
       "mse {}",
       {pair, single},
       {{"mse", 14. / 6}}},
      {"Mae", "mae {}", {pair, single}, {{"mae", 6. / 6}}},
      {"IgnoredTargetsDontCount",
       "accuracy { topk: [1, 2] ignore_index: 0 }",
       {three, one},
       {{"accuracy/top1", 50}, {"accuracy/top2", 50}}},
      {"TheLossSaysWhatIsIgnored",
       "accuracy {}",
       {Ignoring(three, 0), Ignoring(one, 0)},
       {{"accuracy/top1", 50}}},
      {"OwnIgnoreIndexWins",
       "accuracy { ignore_index: -1 }",
       {Ignoring(three, 0), Ignoring(one, 0)},
       {{"accuracy/top1", 50}}},
      {"NoByteIsNegative",  // Or 156 would be ignored.
       "accuracy { ignore_index: -100 }",
       {NewStep(ops::arange(400, at::kFloat).reshape({2, 200}),
                Labels({156, 199}).to(at::kByte))},
       {{"accuracy/top1", 50}}},
      {"MasksAreFinite",
       "accuracy {}",
       {NewStep(Floats({-INFINITY, 1, 0, 2, -INFINITY, -INFINITY}, {2, 3}),
                Labels({1, 2}))},
       {{"accuracy/top1", 50}}},
      {"IgnoredSamplesMayBeNaN",
       "accuracy { ignore_index: 2 }",
       {NewStep(Floats({0, 1, NAN, NAN}, {2, 2}), Labels({1, 2}))},
       {{"accuracy/top1", 100}}},
      {"ErrorsTakeIntegerTargets",
       "mae {}",
       {NewStep(Floats({1.5, 3}, {2}), Labels({1, 3}))},
       {{"mae", 0.25}}},
  };
}

INSTANTIATE_TEST_SUITE_P(, MetricValueTest, ValuesIn(ValueCases()),
                         [](const auto& info) { return info.param.name; });

TEST_P(MetricValueTest, EqualsTheOneByHand) {
  const auto evaluator = NewEvaluator({GetParam().config});
  // A second evaluation knows nothing of the first.
  for (int evaluation = 0; evaluation < 2; ++evaluation) {
    evaluator->Reset();
    for (const Step& step : GetParam().steps) {
      ASSERT_THAT(Process(*evaluator, step), IsOk());
    }
    std::vector<std::string> notes = {"of before"};
    const auto metrics = evaluator->Compute("val", &notes);
    ASSERT_THAT(metrics, IsOk());
    EXPECT_EQ(Doubles(*metrics), GetParam().values);
    EXPECT_THAT(notes, IsEmpty());
  }
}

struct NoNumberCase {
  std::string name;
  std::string config;
  std::vector<Step> steps;
  std::vector<std::string> names;  // Of values, all NaN.
  std::string note;
};

void PrintTo(const NoNumberCase& c, std::ostream* os) { *os << c.name; }

class NoNumberTest : public TestWithParam<NoNumberCase> {};

std::vector<NoNumberCase> NoNumberCases() {
  const Step good = NewStep(Floats({1, 0, 0, 1}, {2, 2}), Labels({0, 0}));
  const auto bad = [](float first, float second) {
    return NewStep(Floats({first, second}, {1, 2}), Labels({0}));
  };
  const std::string note = "accuracy: the outputs of ";
  return {
      {"NaN",
       "accuracy { topk: [1, 2] }",
       {good, bad(NAN, 1)},
       {"accuracy/top1", "accuracy/top2"},
       note + "1 of 3 samples are not finite"},
      {"NaNOfAnotherClass",
       "accuracy {}",
       {good, bad(1, NAN)},
       {"accuracy/top1"},
       note + "1 of 3 samples are not finite"},
      {"Infinity",
       "accuracy {}",
       {bad(INFINITY, 1), bad(0, INFINITY)},
       {"accuracy/top1"},
       note + "2 of 2 samples are not finite"},
      {"NothingButMasks",
       "accuracy {}",
       {good, bad(-INFINITY, -INFINITY)},
       {"accuracy/top1"},
       note + "1 of 3 samples are not finite"},
      {"AmongIgnored",
       "accuracy { ignore_index: 1 }",
       {good, bad(NAN, NAN),
        NewStep(ops::full({3, 2}, NAN), Labels({1, 1, 0}))},
       {"accuracy/top1"},
       note + "2 of 4 samples are not finite"},
      {"NothingCounts",
       "accuracy {}",
       {Ignoring(good, 0)},
       {"accuracy/top1"},
       "accuracy is nan: none of the targets counts"},
      {"Mse",
       "mse {}",
       {NewStep(Floats({1, NAN}, {2}), Floats({1, 1}, {2}))},
       {"mse"},
       "\"mse\" is nan"},
      {"Mae",
       "mae {}",
       {NewStep(Floats({INFINITY, -1}, {2}), Floats({INFINITY, 1}, {2}))},
       {"mae"},
       "\"mae\" is nan"},
  };
}

INSTANTIATE_TEST_SUITE_P(, NoNumberTest, ValuesIn(NoNumberCases()),
                         [](const auto& info) { return info.param.name; });

TEST_P(NoNumberTest, IsNaNAndSaysSo) {
  const auto evaluator = NewEvaluator({GetParam().config});
  for (const Step& step : GetParam().steps) {
    ASSERT_THAT(Process(*evaluator, step), IsOk());
  }
  // Twice: notes don't add up.
  for (int i = 0; i < 2; ++i) {
    std::vector<std::string> notes;
    const auto metrics = evaluator->Compute("val", &notes);
    ASSERT_THAT(metrics, IsOk());
    std::vector<std::string> names;
    for (const auto& [name, value] : Doubles(*metrics)) {
      names.push_back(name);
      EXPECT_TRUE(std::isnan(value)) << name;
    }
    EXPECT_EQ(names, GetParam().names);
    EXPECT_THAT(notes, ElementsAre(GetParam().note));
  }
  // The next evaluation knows nothing of it.
  evaluator->Reset();
  const at::Tensor outputs = Floats({0, 1}, {1, 2});
  const bool labels = GetParam().config.find("accuracy") == 0;
  ASSERT_THAT(
      Process(*evaluator, NewStep(outputs, labels ? Labels({0}) : outputs)),
      IsOk());
  std::vector<std::string> notes;
  const auto metrics = evaluator->Compute("val", &notes);
  ASSERT_THAT(metrics, IsOk());
  EXPECT_FALSE(std::isnan(Doubles(*metrics)[0].second));
  EXPECT_THAT(notes, IsEmpty());
}

// A user's metric without notes.
class FixedMetric : public Metric {
 public:
  void Reset() override {}
  absl::Status Process(const Predictions&, const Batch&) override {
    return absl::OkStatus();
  }
  absl::Status Compute(Metrics* metrics) override {
    *metrics = {{"good", 1.0},         {"high", HUGE_VAL},
                {"low", -HUGE_VAL},    {"none", std::nan("")},
                {"count", int64_t{3}}, {"text", std::string("nan")}};
    return absl::OkStatus();
  }
};

TEST(EvaluatorTest, SaysWhichValuesAreNoNumbers) {
  std::vector<std::unique_ptr<Metric>> metrics;
  metrics.push_back(std::make_unique<FixedMetric>());
  Evaluator evaluator(std::move(metrics));
  ASSERT_THAT(Process(evaluator, NewStep(ops::zeros({1}), ops::zeros({1}))),
              IsOk());
  std::vector<std::string> notes;
  ASSERT_THAT(evaluator.Compute("val", &notes), IsOk());
  EXPECT_THAT(notes, ElementsAre("\"high\" is inf", "\"low\" is -inf",
                                 "\"none\" is nan"));
}

struct BadStepCase {
  std::string name;
  std::string config;
  at::Tensor outputs;
  at::Tensor targets;
  std::string says;
};

void PrintTo(const BadStepCase& c, std::ostream* os) { *os << c.name; }

class MetricMismatchTest : public TestWithParam<BadStepCase> {};

INSTANTIATE_TEST_SUITE_P(
    , MetricMismatchTest,
    ValuesIn(std::vector<BadStepCase>{
        {"MoreThanTheClasses", "accuracy { topk: [1, 5] }", ops::zeros({2, 3}),
         Labels({0, 0}),
         "topk: must be at most the number of classes, 3, is 5"},
        {"OtherBatchSize", "accuracy {}", ops::zeros({2, 3}), Labels({0}),
         "outputs (2, 3) and targets (1,)"},
        {"NoTargets", "accuracy {}", ops::zeros({2, 3}), at::Tensor(),
         "targets: must be class labels, are undefined"},
        {"TargetsOfFloats", "accuracy {}", ops::zeros({2, 3}), ops::zeros({2}),
         "targets: must be class labels, are Float"},
        {"ColumnAgainstRow", "mse {}", ops::zeros({2, 1}), ops::zeros({2}),
         "outputs (2, 1) and targets (2,)"},
        {"NoTargetsForMae", "mae {}", ops::zeros({2, 1}), at::Tensor(),
         "targets: must be defined"},
    }),
    [](const auto& info) { return info.param.name; });

TEST_P(MetricMismatchTest, SaysWhatDoesntFit) {
  const auto evaluator = NewEvaluator({GetParam().config});
  EXPECT_THAT(
      Process(*evaluator, NewStep(GetParam().outputs, GetParam().targets)),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(GetParam().says)));
}

struct BadCase {
  std::string says;
  std::string config;
};

void PrintTo(const BadCase& c, std::ostream* os) { *os << c.config; }

class MetricBadConfigTest : public TestWithParam<BadCase> {};

INSTANTIATE_TEST_SUITE_P(
    , MetricBadConfigTest,
    ValuesIn(std::vector<BadCase>{
        {"must be set, to one of: accuracy", ""},
        {"topk: must be >= 1, is 0", "accuracy { topk: [1, 0] }"},
        {"topk: must be distinct, has 5 twice", "accuracy { topk: [5, 1, 5] }"},
        {"must be another one than [0]: two metrics would have one name",
         "mse {}"},
    }));

TEST_P(MetricBadConfigTest, NamesIndexAndField) {
  EXPECT_THAT(Evaluator::Create(Parse({"mse {}", GetParam().config})),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("[1]: " + GetParam().says)));
}

// --- Losses of the validation ---

Step LossStep(int64_t num_samples,
              const std::vector<std::pair<std::string, float>>& losses) {
  Step step =
      NewStep(ops::zeros({num_samples, 1}), ops::zeros({num_samples, 1}));
  for (const auto& loss : losses) {
    step.predictions.losses.Add(loss.first, ops::full({}, loss.second));
  }
  return step;
}

TEST(EvaluatorTest, LossesAreMeansOverSamples) {
  const auto evaluator = NewEvaluator({"mse {}"});
  // A short last batch weighs less.
  ASSERT_THAT(Process(*evaluator, LossStep(3, {{"loss", 1}})), IsOk());
  ASSERT_THAT(Process(*evaluator, LossStep(1, {{"loss", 5}})), IsOk());
  const auto metrics = evaluator->Compute("val");
  ASSERT_THAT(metrics, IsOk());
  EXPECT_THAT(Doubles(*metrics), ElementsAre(std::make_pair("mse", 0.0),
                                             std::make_pair("loss", 2.0),
                                             std::make_pair("val_loss", 2.0)));
}

TEST(EvaluatorTest, TotalSumsThoseNamedLoss) {
  const auto evaluator = NewEvaluator({});
  ASSERT_THAT(
      Process(*evaluator,
              LossStep(2, {{"loss_cls", 1}, {"acc", 50}, {"loss_box", 2}})),
      IsOk());
  const auto metrics = evaluator->Compute("test");
  ASSERT_THAT(metrics, IsOk());
  EXPECT_THAT(Doubles(*metrics), ElementsAre(std::make_pair("loss_cls", 1.0),
                                             std::make_pair("acc", 50.0),
                                             std::make_pair("loss_box", 2.0),
                                             std::make_pair("test_loss", 3.0)));
}

TEST(EvaluatorTest, LossThatOnlySomeBatchesGiveIsAveragedOverThose) {
  const auto evaluator = NewEvaluator({});
  ASSERT_THAT(Process(*evaluator, LossStep(2, {{"loss", 1}})), IsOk());
  ASSERT_THAT(Process(*evaluator, LossStep(2, {{"loss", 3}, {"aux", 8}})),
              IsOk());
  const auto metrics = evaluator->Compute("val");
  ASSERT_THAT(metrics, IsOk());
  EXPECT_EQ(std::get<double>(*FindMetric(*metrics, "aux")), 8);
  EXPECT_EQ(std::get<double>(*FindMetric(*metrics, "loss")), 2);
}

// --- Losses with weights ---

void AddLoss(Step* step, const std::string& name, float mean, double weight) {
  step->predictions.losses.Add(name, ops::full({}, mean),
                               ops::full({}, weight, at::kDouble));
}

TEST(EvaluatorTest, LossesAreMeansByTheirWeights) {
  const auto evaluator = NewEvaluator({});
  Step first = LossStep(3, {{"by_samples", 1}});
  AddLoss(&first, "loss", 1, 0.5);
  Step second = LossStep(1, {{"by_samples", 5}});
  AddLoss(&second, "loss", 5, 1.5);
  ASSERT_THAT(Process(*evaluator, first), IsOk());
  ASSERT_THAT(Process(*evaluator, second), IsOk());
  const auto metrics = evaluator->Compute("val");
  ASSERT_THAT(metrics, IsOk());
  // (3 * 1 + 1 * 5) / 4 and (0.5 * 1 + 1.5 * 5) / 2.
  EXPECT_THAT(Doubles(*metrics), ElementsAre(std::make_pair("by_samples", 2.0),
                                             std::make_pair("loss", 4.0),
                                             std::make_pair("val_loss", 4.0)));
}

TEST(EvaluatorTest, WhatDoesntCountIsNotLookedAt) {
  const auto evaluator = NewEvaluator({});
  for (const auto& [mean, weight] : std::vector<std::pair<float, double>>{
           {NAN, 0}, {2, 3}, {INFINITY, 0}, {5, 1}}) {
    Step step = LossStep(4, {});
    AddLoss(&step, "loss", mean, weight);
    ASSERT_THAT(Process(*evaluator, step), IsOk());
  }
  std::vector<std::string> notes;
  const auto metrics = evaluator->Compute("val", &notes);
  ASSERT_THAT(metrics, IsOk());
  EXPECT_EQ(std::get<double>(*FindMetric(*metrics, "loss")), 2.75);
  EXPECT_THAT(notes, IsEmpty());
}

TEST(EvaluatorTest, MeanOfNothingIsNaNAndSaysSo) {
  const auto evaluator = NewEvaluator({});
  for (int i = 0; i < 2; ++i) {
    Step step = LossStep(4, {{"loss_aux", 1}});
    AddLoss(&step, "loss_mask", 0, 0);
    ASSERT_THAT(Process(*evaluator, step), IsOk());
  }
  std::vector<std::string> notes;
  const auto metrics = evaluator->Compute("val", &notes);
  ASSERT_THAT(metrics, IsOk());
  EXPECT_EQ(std::get<double>(*FindMetric(*metrics, "loss_aux")), 1);
  EXPECT_TRUE(std::isnan(std::get<double>(*FindMetric(*metrics, "loss_mask"))));
  EXPECT_TRUE(std::isnan(std::get<double>(*FindMetric(*metrics, "val_loss"))));
  EXPECT_THAT(notes, ElementsAre("loss \"loss_mask\" is nan: none of its "
                                 "targets counts"));
}

TEST(EvaluatorTest, LossThatIsNoNumberIsSaidOnce) {
  const auto evaluator = NewEvaluator({});
  ASSERT_THAT(Process(*evaluator, LossStep(2, {{"loss", NAN}, {"aux", 1}})),
              IsOk());
  std::vector<std::string> notes;
  ASSERT_THAT(evaluator->Compute("val", &notes), IsOk());
  EXPECT_THAT(notes, ElementsAre("\"loss\" is nan"));
}

TEST(EvaluatorTest, WeightsAreFiniteAndNotNegative) {
  for (const auto& [weight, is] : std::vector<std::pair<double, std::string>>{
           {-1, "is -1"}, {NAN, "is nan"}, {INFINITY, "is inf"}}) {
    const auto evaluator = NewEvaluator({});
    Step step = LossStep(4, {});
    AddLoss(&step, "loss", 1, weight);
    EXPECT_THAT(
        Process(*evaluator, step),
        StatusIs(absl::StatusCode::kInvalidArgument,
                 "loss \"loss\": weight: must be finite and >= 0, " + is));
  }
}

TEST(EvaluatorTest, NoLossesNoTotal) {
  const auto evaluator = NewEvaluator({"mse {}"});
  ASSERT_THAT(Process(*evaluator, LossStep(2, {})), IsOk());
  const auto metrics = evaluator->Compute("val");
  ASSERT_THAT(metrics, IsOk());
  EXPECT_EQ(FindMetric(*metrics, "val_loss"), nullptr);
}

TEST(EvaluatorTest, LongSumsAreInDoublePrecision) {
  const auto evaluator = NewEvaluator({});
  const Step step = LossStep(1, {{"loss", 0.1f}});
  for (int i = 0; i < 20000; ++i) ASSERT_TRUE(Process(*evaluator, step).ok());
  const auto metrics = evaluator->Compute("val");
  ASSERT_THAT(metrics, IsOk());
  EXPECT_NEAR(std::get<double>(*FindMetric(*metrics, "loss")),
              static_cast<double>(0.1f), 1e-12);
}

TEST(EvaluatorTest, TwoMetricsOfOneNameAreAnError) {
  const auto evaluator =
      NewEvaluator({"accuracy {}", "accuracy { topk: [1, 2] }"});
  ASSERT_THAT(Process(*evaluator,
                      NewStep(ops::rand({2, 3}), ops::zeros({2}, at::kLong))),
              IsOk());
  EXPECT_THAT(evaluator->Compute("val"),
              StatusIs(absl::StatusCode::kAlreadyExists,
                       HasSubstr("\"accuracy/top1\"")));
}

TEST(EvaluatorTest, NothingProcessedIsAnError) {
  const auto evaluator = NewEvaluator({"accuracy {}"});
  EXPECT_THAT(
      evaluator->Compute("val"),
      StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("no samples")));
}

// A metric that throws.
class ThrowingMetric : public Metric {
 public:
  void Reset() override {}
  absl::Status Process(const Predictions&, const Batch&) override {
    throw std::runtime_error("no labels");
  }
  absl::Status Compute(Metrics*) override { return absl::OkStatus(); }
};

TEST(EvaluatorTest, ExceptionsOfMetricsBecomeStatuses) {
  std::vector<std::unique_ptr<Metric>> metrics;
  metrics.push_back(std::make_unique<ThrowingMetric>());
  Evaluator evaluator(std::move(metrics));
  EXPECT_THAT(Process(evaluator, LossStep(1, {})),
              StatusIs(absl::StatusCode::kInternal, "no labels"));
}

TEST(EvaluatorTest, MetricsAreToldWhichEvaluationBegins) {
  class Told final : public Metric {
   public:
    explicit Told(std::vector<std::string>* calls) : calls_(*calls) {}
    void Reset() override { calls_.push_back("reset"); }
    void Begin(const EvalProgress& progress) override {
      calls_.push_back(absl::StrCat(progress.loop, " ", progress.training, " ",
                                    progress.epoch, " ", progress.iter));
    }
    absl::Status Process(const Predictions&, const Batch&) override {
      return absl::OkStatus();
    }
    absl::Status Compute(Metrics*) override { return absl::OkStatus(); }

   private:
    std::vector<std::string>& calls_;
  };
  std::vector<std::string> calls;
  std::vector<std::unique_ptr<Metric>> metrics;
  metrics.push_back(std::make_unique<Told>(&calls));
  metrics.push_back(std::make_unique<ThrowingMetric>());  // Needs no Begin.
  Evaluator evaluator(std::move(metrics));
  evaluator.Reset({"val", true, 3, 42});
  EXPECT_THAT(calls, ElementsAre("reset", "val 1 3 42"));
}

TEST(FindMetricTest, FindsByWholeName) {
  const Metrics metrics = {{"acc", 1.0}, {"n", int64_t{3}}};
  EXPECT_EQ(std::get<int64_t>(*FindMetric(metrics, "n")), 3);
  EXPECT_EQ(FindMetric(metrics, "ac"), nullptr);
}

}  // namespace
}  // namespace grapnel
