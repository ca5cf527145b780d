// Tests the metrics as users get them, by config and through the Evaluator.

#include "grapnel/models/metric.h"

#include <memory>
#include <ostream>
#include <stdexcept>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "ATen/core/Tensor.h"
#include "ATen/ops/full.h"
#include "ATen/ops/tensor.h"
#include "ATen/ops/zeros.h"
#include "gmock/gmock.h"
#include "google/protobuf/text_format.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/data/sample.h"
#include "grapnel/models/metric.pb.h"
#include "grapnel/models/model.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
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
  return at::tensor(values).reshape(shape);
}

at::Tensor Labels(const std::vector<int64_t>& values) {
  return at::tensor(values, at::kLong);
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
    const auto metrics = evaluator->Compute("val");
    ASSERT_THAT(metrics, IsOk());
    EXPECT_EQ(Doubles(*metrics), GetParam().values);
  }
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
        {"MoreThanTheClasses", "accuracy { topk: [1, 5] }", at::zeros({2, 3}),
         Labels({0, 0}),
         "topk: must be at most the number of classes, 3, is 5"},
        {"OtherBatchSize", "accuracy {}", at::zeros({2, 3}), Labels({0}),
         "outputs (2, 3) and targets (1,)"},
        {"NoTargets", "accuracy {}", at::zeros({2, 3}), at::Tensor(),
         "targets: must be class labels, are undefined"},
        {"TargetsOfFloats", "accuracy {}", at::zeros({2, 3}), at::zeros({2}),
         "targets: must be class labels, are Float"},
        {"ColumnAgainstRow", "mse {}", at::zeros({2, 1}), at::zeros({2}),
         "outputs (2, 1) and targets (2,)"},
        {"NoTargetsForMae", "mae {}", at::zeros({2, 1}), at::Tensor(),
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
    }));

TEST_P(MetricBadConfigTest, NamesIndexAndField) {
  EXPECT_THAT(Evaluator::Create(Parse({"mse {}", GetParam().config})),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("[1]: " + GetParam().says)));
}

// --- Losses of the validation ---

Step LossStep(int64_t num_samples,
              const std::vector<std::pair<std::string, float>>& losses) {
  Step step = NewStep(at::zeros({num_samples, 1}), at::zeros({num_samples, 1}));
  for (const auto& loss : losses) {
    step.predictions.losses.Add(loss.first, at::full({}, loss.second));
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
  const auto evaluator = NewEvaluator({"mse {}", "mse {}"});
  ASSERT_THAT(Process(*evaluator, LossStep(1, {})), IsOk());
  EXPECT_THAT(evaluator->Compute("val"),
              StatusIs(absl::StatusCode::kAlreadyExists, HasSubstr("\"mse\"")));
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

TEST(FindMetricTest, FindsByWholeName) {
  const Metrics metrics = {{"acc", 1.0}, {"n", int64_t{3}}};
  EXPECT_EQ(std::get<int64_t>(*FindMetric(metrics, "n")), 3);
  EXPECT_EQ(FindMetric(metrics, "ac"), nullptr);
}

}  // namespace
}  // namespace grapnel
