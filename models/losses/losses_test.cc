// Tests the losses as users get them: by config.

#include <cmath>
#include <memory>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include "ATen/core/Formatting.h"
#include "ATen/core/Reduction.h"
#include "ATen/core/Tensor.h"
#include "absl/status/statusor.h"
#include "gmock/gmock.h"
#include "google/protobuf/text_format.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/data/sample.h"
#include "grapnel/models/functional.h"
#include "grapnel/models/loss.h"
#include "grapnel/models/loss.pb.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::HasSubstr;
using ::testing::TestWithParam;
using ::testing::ValuesIn;

LossRegistry::Result NewLoss(const std::string& text) {
  models::v1::LossConfig config;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &config))
      << text;
  return LossRegistry::Create(config);
}

absl::StatusOr<at::Tensor> Compute(const std::string& config,
                                   const at::Tensor& outputs,
                                   const at::Tensor& targets) {
  auto loss = NewLoss(config);
  if (!loss.ok()) return loss.status();
  Batch batch;
  batch.targets = targets;
  return (*loss)->Compute(outputs, batch);
}

at::Tensor Floats(const std::vector<float>& values, at::IntArrayRef shape) {
  return ops::tensor(values).reshape(shape);
}

at::Tensor Labels(const std::vector<int64_t>& values) {
  return ops::tensor(values, at::kLong);
}

// -log of the softmax of `logits` at `label`, in double precision.
double NegativeLogLikelihood(const std::vector<double>& logits, int label) {
  double sum = 0;
  for (const double logit : logits) sum += std::exp(logit);
  return std::log(sum) - logits[label];
}

struct ValueCase {
  std::string name;
  std::string config;
  at::Tensor outputs;
  at::Tensor targets;
  double value;
};

void PrintTo(const ValueCase& c, std::ostream* os) { *os << c.config; }

class LossValueTest : public TestWithParam<ValueCase> {};

const std::vector<double> kA = {1, 2, 0};
const std::vector<double> kB = {0, -1, 3};
const double kFirst = NegativeLogLikelihood(kA, 1);
const double kSecond = NegativeLogLikelihood(kB, 0);

// Of all classes, each times its factor.
double Nll(const std::vector<double>& logits,
           const std::vector<double>& factors) {
  double sum = 0;
  for (size_t i = 0; i < factors.size(); ++i) {
    sum += factors[i] * NegativeLogLikelihood(logits, static_cast<int>(i));
  }
  return sum;
}

std::vector<ValueCase> ValueCases() {
  const at::Tensor logits = Floats({1, 2, 0, 0, -1, 3}, {2, 3});
  const at::Tensor probabilities =
      Floats({0.2f, 0.5f, 0.3f, 0.1f, 0, 0.9f}, {2, 3});
  const double smooth_first = (NegativeLogLikelihood({1, 2, 0}, 0) + kFirst +
                               NegativeLogLikelihood({1, 2, 0}, 2)) /
                              3;
  const double smooth_second = (kSecond + NegativeLogLikelihood({0, -1, 3}, 1) +
                                NegativeLogLikelihood({0, -1, 3}, 2)) /
                               3;
  return {
      {"CrossEntropyIsTheMean", "cross_entropy {}", logits, Labels({1, 0}),
       (kFirst + kSecond) / 2},
      {"LabelSmoothingMixesInTheUniform",
       "cross_entropy { label_smoothing: 0.3 }", logits, Labels({1, 0}),
       (0.7 * (kFirst + kSecond) + 0.3 * (smooth_first + smooth_second)) / 2},
      {"IgnoredTargetsDontCount", "cross_entropy {}", logits, Labels({1, -100}),
       kFirst},
      {"IgnoreIndexIsASetting", "cross_entropy { ignore_index: 0 }", logits,
       Labels({1, 0}), kFirst},
      {"ClassWeightsWeighTheMean", "cross_entropy { class_weight: [3, 1, 0] }",
       logits, Labels({1, 0}), (kFirst + 3 * kSecond) / 4},
      {"SmoothingIgnoresToo", "cross_entropy { label_smoothing: 0.3 }", logits,
       Labels({-100, 0}), 0.7 * kSecond + 0.3 * smooth_second},
      // The uniform part is weighed by its own classes, and divided by the
      // targets' weights as the rest.
      {"SmoothingWithClassWeights",
       "cross_entropy { label_smoothing: 0.3 class_weight: [3, 1, 0.5] }",
       logits, Labels({1, 0}),
       (0.7 * (kFirst + 3 * kSecond) +
        0.1 * (Nll(kA, {3, 1, 0.5}) + Nll(kB, {3, 1, 0.5}))) /
           4},
      {"Probabilities", "cross_entropy {}", logits, probabilities,
       (Nll(kA, {0.2, 0.5, 0.3}) + Nll(kB, {0.1, 0, 0.9})) / 2},
      {"ProbabilitiesAreNotIgnored", "cross_entropy { ignore_index: 1 }",
       logits, Floats({0, 1, 0, 1, 0, 0}, {2, 3}), (kFirst + kSecond) / 2},
      {"ProbabilitiesAreWeighedAndNotDivided",
       "cross_entropy { class_weight: [3, 1, 0.5] }", logits, probabilities,
       (Nll(kA, {0.6, 0.5, 0.15}) + Nll(kB, {0.3, 0, 0.45})) / 2},
      {"ProbabilitiesAreSmoothed", "cross_entropy { label_smoothing: 0.3 }",
       logits, probabilities,
       (Nll(kA, {0.24, 0.45, 0.31}) + Nll(kB, {0.17, 0.1, 0.73})) / 2},
      {"ProbabilitiesOfPixels", "cross_entropy {}",
       Floats({1, 0, 2, -1, 0, 3}, {1, 3, 2}),
       Floats({0.2, 0.1, 0.5, 0, 0.3, 0.9}, {1, 3, 2}),
       (Nll(kA, {0.2, 0.5, 0.3}) + Nll(kB, {0.1, 0, 0.9})) / 2},
      {"PixelsHaveClassesToo", "cross_entropy {}",
       Floats({1, 0, 2, -1, 0, 3}, {1, 3, 2}), Labels({1, 0}).unsqueeze(0),
       (kFirst + kSecond) / 2},
      {"Mse", "mse {}", Floats({1, 2, 3, 4}, {2, 2}),
       Floats({0, 2, 5, 4}, {2, 2}), 5.0 / 4},
      {"L1", "l1 {}", Floats({1, 2, 3, 4}, {2, 2}),
       Floats({0, 2, 5, 4}, {2, 2}), 3.0 / 4},
      {"SmoothL1", "smooth_l1 {}", Floats({1, 2, 3, 4}, {2, 2}),
       Floats({0.5, 2, 5, 4}, {2, 2}), (0.5 * 0.25 + 1.5) / 4},
      {"SmoothL1Beta", "smooth_l1 { beta: 4 }", Floats({1, 2, 3, 4}, {2, 2}),
       Floats({1, 2, 5, 10}, {2, 2}), (0.5 * 4 / 4 + 4) / 4},
      {"BceWithLogits", "bce_with_logits {}", Floats({0, 2}, {2, 1}),
       Floats({1, 0}, {2, 1}), (std::log(2.0) + std::log1p(std::exp(2.0))) / 2},
  };
}

INSTANTIATE_TEST_SUITE_P(, LossValueTest, ValuesIn(ValueCases()),
                         [](const auto& info) { return info.param.name; });

TEST_P(LossValueTest, IsWhatThePaperSays) {
  const auto loss =
      Compute(GetParam().config, GetParam().outputs, GetParam().targets);
  ASSERT_THAT(loss, IsOk());
  EXPECT_EQ(loss->dim(), 0);
  EXPECT_NEAR(loss->item<double>(), GetParam().value, 1e-6);
}

TEST_P(LossValueTest, HasAGradient) {
  const at::Tensor outputs = GetParam().outputs.clone().requires_grad_(true);
  const auto loss = Compute(GetParam().config, outputs, GetParam().targets);
  ASSERT_THAT(loss, IsOk());
  loss->backward();
  ASSERT_TRUE(outputs.grad().defined());
  EXPECT_GT(outputs.grad().abs().sum().item<double>(), 0);
}

TEST(CrossEntropyLossTest, ClassWeightsFollowTheOutputsType) {
  const auto loss = NewLoss("cross_entropy { class_weight: [3, 1, 0] }");
  ASSERT_THAT(loss, IsOk());
  Batch batch;
  batch.targets = Labels({1, 0});
  const at::Tensor logits = Floats({1, 2, 0, 0, -1, 3}, {2, 3});
  for (const at::ScalarType dtype :
       {at::kFloat, at::kFloat, at::kDouble, at::kFloat}) {
    const auto value = (*loss)->Compute(logits.to(dtype), batch);
    ASSERT_THAT(value, IsOk());
    EXPECT_EQ(value->scalar_type(), dtype);
    EXPECT_NEAR(value->item<double>(), (kFirst + 3 * kSecond) / 4, 1e-6);
  }
}

// The same numbers, but not one behind the other: they are not read in C++.
at::Tensor Strided(const at::Tensor& labels) {
  return ops::stack({labels, labels}, -1).select(-1, 0);
}

struct NothingCase {
  std::string name;
  std::string config;
  std::vector<int64_t> labels;
};

void PrintTo(const NothingCase& c, std::ostream* os) { *os << c.config; }

class NothingCountsTest : public TestWithParam<NothingCase> {};

INSTANTIATE_TEST_SUITE_P(
    , NothingCountsTest,
    ValuesIn(std::vector<NothingCase>{
        {"Ignored", "cross_entropy {}", {-100, -100}},
        {"IgnoredClass", "cross_entropy { ignore_index: 1 }", {1, 1}},
        {"Smoothed", "cross_entropy { label_smoothing: 0.1 }", {-100, -100}},
        {"OfClassesThatWeighNothing",
         "cross_entropy { class_weight: [0, 2, 0] }",
         {2, 0}},
        {"Both",
         "cross_entropy { class_weight: [0, 2, 0] ignore_index: 1 "
         "label_smoothing: 0.1 }",
         {2, 1}},
    }),
    [](const auto& info) { return info.param.name; });

TEST_P(NothingCountsTest, IsZeroWhateverTheOutputs) {
  for (const at::Tensor& labels :
       {Labels(GetParam().labels), Strided(Labels(GetParam().labels))}) {
    for (const float worst : {1.f, NAN, INFINITY, -INFINITY}) {
      SCOPED_TRACE(worst);
      const at::Tensor outputs =
          Floats({1, worst, 0, worst, worst, worst}, {2, 3})
              .requires_grad_(true);
      const auto loss = Compute(GetParam().config, outputs, labels);
      ASSERT_THAT(loss, IsOk());
      EXPECT_EQ(loss->dim(), 0);
      EXPECT_EQ(loss->item<double>(), 0);
      loss->backward();
      EXPECT_TRUE(outputs.grad().equal(ops::zeros({2, 3}))) << outputs.grad();
    }
  }
}

// As soon as one target counts it is LibTorch's, bit for bit.
TEST(CrossEntropyLossTest, OneTargetThatCountsIsEnough) {
  struct Case {
    std::string config;
    std::vector<double> class_weight;
    double smoothing;
  };
  for (const Case& test :
       {Case{"", {}, 0}, Case{"label_smoothing: 0.1", {}, 0.1},
        Case{"class_weight: [0, 0.3, 0.7]", {0, 0.3, 0.7}, 0},
        Case{"class_weight: [0, 0.3, 0.7] label_smoothing: 0.1",
             {0, 0.3, 0.7},
             0.1}}) {
    SCOPED_TRACE(test.config);
    const at::Tensor logits = Floats({1, 2, 0, 0, -1, 3, 5, 1, 2}, {3, 3});
    const at::Tensor labels = Labels({-100, 0, 2});
    const at::Tensor weight = test.class_weight.empty()
                                  ? at::Tensor()
                                  : ops::tensor(test.class_weight, at::kFloat);
    const at::Tensor expected = logits.clone().requires_grad_(true);
    functional::cross_entropy_loss(expected, labels, weight,
                                   at::Reduction::Mean, -100, test.smoothing)
        .backward();
    for (const at::Tensor& targets : {labels, Strided(labels)}) {
      const at::Tensor outputs = logits.clone().requires_grad_(true);
      const auto loss =
          Compute("cross_entropy { " + test.config + " }", outputs, targets);
      ASSERT_THAT(loss, IsOk());
      EXPECT_TRUE(loss->equal(functional::cross_entropy_loss(
          logits, labels, weight, at::Reduction::Mean, -100, test.smoothing)));
      loss->backward();
      EXPECT_TRUE(outputs.grad().equal(expected.grad()));
    }
  }
}

// --- What the mean was divided by ---

struct WeightCase {
  std::string name;
  std::string config;
  at::Tensor outputs;
  at::Tensor targets;
  double weight;
};

void PrintTo(const WeightCase& c, std::ostream* os) { *os << c.config; }

class LossWeightTest : public TestWithParam<WeightCase> {};

std::vector<WeightCase> WeightCases() {
  const at::Tensor rows = ops::zeros({4, 3});
  const at::Tensor labels = Labels({1, -100, 0, 1});
  const std::string weights = "cross_entropy { class_weight: [2, 0.25, 8] ";
  const at::Tensor image = ops::zeros({2, 3, 2, 2});
  const at::Tensor pixels =
      Labels({0, 1, 2, -100, -100, -100, 2, 2}).reshape({2, 2, 2});
  return {
      {"Targets", "cross_entropy {}", rows, Labels({0, 1, 2, 0}), 4},
      {"TargetsThatCount", "cross_entropy {}", rows, labels, 3},
      {"IgnoredClass", "cross_entropy { ignore_index: 1 }", rows,
       Labels({1, 2, 0, 1}), 2},
      {"Smoothed", "cross_entropy { label_smoothing: 0.1 }", rows, labels, 3},
      {"ClassWeights", weights + "}", rows, labels, 2.5},
      {"ClassWeightsSmoothed", weights + "label_smoothing: 0.1 }", rows, labels,
       2.5},
      {"Nothing", weights + "}", rows, Labels({-100, -100, -100, -100}), 0},
      {"ClassThatWeighsNothing", "cross_entropy { class_weight: [0, 1, 1] }",
       rows, Labels({0, 0, 0, 0}), 0},
      {"Pixels", "cross_entropy {}", image, pixels, 5},
      {"PixelsOfClasses", weights + "}", image, pixels, 26.25},
      {"StridedPixels", weights + "}", image, Strided(pixels), 26.25},
      {"Probabilities", weights + "ignore_index: 0 }", rows, rows, 4},
      {"ProbabilitiesOfPixels", "cross_entropy {}", image, image, 8},
      {"Mse", "mse {}", rows, rows, 12},
      {"L1", "l1 {}", rows, rows, 12},
      {"SmoothL1", "smooth_l1 {}", rows, rows, 12},
      {"BceWithLogits", "bce_with_logits {}", rows, rows, 12},
  };
}

INSTANTIATE_TEST_SUITE_P(, LossWeightTest, ValuesIn(WeightCases()),
                         [](const auto& info) { return info.param.name; });

TEST_P(LossWeightTest, IsWhatTheMeanWasDividedBy) {
  const auto loss = NewLoss(GetParam().config);
  ASSERT_THAT(loss, IsOk());
  Batch batch;
  batch.targets = GetParam().targets;
  const auto weight = (*loss)->Weight(GetParam().outputs, batch);
  ASSERT_THAT(weight, IsOk());
  EXPECT_EQ(weight->dim(), 0);
  EXPECT_EQ(weight->scalar_type(), at::kDouble);
  EXPECT_EQ(weight->item<double>(), GetParam().weight);
}

TEST(LossTest, IgnoreIndexIsTheCrossEntropys) {
  EXPECT_EQ((*NewLoss("cross_entropy {}"))->ignore_index(), -100);
  EXPECT_EQ((*NewLoss("cross_entropy { ignore_index: 0 }"))->ignore_index(), 0);
  EXPECT_EQ((*NewLoss("mse {}"))->ignore_index(), std::nullopt);
}

class OwnLoss : public Loss {
 public:
  absl::StatusOr<at::Tensor> Compute(const at::Tensor& outputs,
                                     const Batch&) const override {
    return outputs.mean();
  }
};

TEST(LossTest, WeightIsTheNumberOfSamplesUnlessSaid) {
  Batch batch;
  batch.indices = {4, 0, 7};
  const auto weight = OwnLoss().Weight(ops::zeros({3, 2}), batch);
  ASSERT_THAT(weight, IsOk());
  EXPECT_EQ(weight->scalar_type(), at::kDouble);
  EXPECT_EQ(weight->item<double>(), 3);
  EXPECT_EQ(OwnLoss().ignore_index(), std::nullopt);
}

struct MismatchCase {
  std::string name;
  std::string config;
  at::Tensor outputs;
  at::Tensor targets;
  std::vector<std::string> says;
};

void PrintTo(const MismatchCase& c, std::ostream* os) { *os << c.name; }

class LossMismatchTest : public TestWithParam<MismatchCase> {};

INSTANTIATE_TEST_SUITE_P(, LossMismatchTest,
                         ValuesIn(std::vector<MismatchCase>{
                             {"LabelIsNoClass",
                              "cross_entropy {}",
                              ops::zeros({2, 3}),
                              Labels({0, 3}),
                              {"label 3", "there are 3, 0 to 2"}},
                             {"LabelIsNoClassWithSmoothing",
                              "cross_entropy { label_smoothing: 0.1 }",
                              ops::zeros({2, 3}),
                              Labels({-1, 2}),
                              {"label -1", "0 to 2"}},
                             {"BatchSizesDiffer",
                              "cross_entropy {}",
                              ops::zeros({2, 3}),
                              Labels({0}),
                              {"(2, 3)", "(1,)"}},
                             {"LabelsOfPixelsDontFit",
                              "cross_entropy {}",
                              ops::zeros({2, 3, 4, 4}),
                              ops::zeros({2, 4, 5}, at::kLong),
                              {"(2, 3, 4, 4)", "(2, 4, 5)"}},
                             {"OutputsWithoutClasses",
                              "cross_entropy {}",
                              ops::zeros({2}),
                              Labels({0, 1}),
                              {"(2,)", "(N, C, ...)"}},
                             {"TargetsOfFloats",
                              "cross_entropy {}",
                              ops::zeros({2, 3}),
                              ops::zeros({2}),
                              {"(2, 3)", "(2,)", "of probabilities"}},
                             {"TargetsOfBytes",
                              "cross_entropy {}",
                              ops::zeros({2, 3}),
                              ops::zeros({2}, at::kByte),
                              {"targets: must be int64", "Byte"}},
                             {"TooFewClassWeightsForProbabilities",
                              "cross_entropy { class_weight: [1, 1] }",
                              ops::zeros({2, 3}),
                              ops::zeros({2, 3}),
                              {"class_weight: must be 3", "2"}},
                             {"TargetsUndefined",
                              "cross_entropy {}",
                              ops::zeros({2, 3}),
                              at::Tensor(),
                              {"targets:", "undefined"}},
                             {"OutputsOfIntegers",
                              "cross_entropy {}",
                              ops::zeros({2, 3}, at::kLong),
                              Labels({0, 1}),
                              {"outputs: must be floating", "Long"}},
                             {"TooFewClassWeights",
                              "cross_entropy { class_weight: [1, 1] }",
                              ops::zeros({2, 3}),
                              Labels({0, 1}),
                              {"class_weight: must be 3", "2"}},
                             // It would broadcast to (2, 2), silently.
                             {"ColumnAgainstRow",
                              "mse {}",
                              ops::zeros({2, 1}),
                              ops::zeros({2}),
                              {"(2, 1)", "(2,)"}},
                             {"L1TargetsOfIntegers",
                              "l1 {}",
                              ops::zeros({2}),
                              Labels({0, 1}),
                              {"targets: must be floating"}},
                             {"SmoothL1ColumnAgainstRow",
                              "smooth_l1 {}",
                              ops::zeros({2, 1}),
                              ops::zeros({2}),
                              {"(2, 1)", "(2,)"}},
                             {"BceTargetsUndefined",
                              "bce_with_logits {}",
                              ops::zeros({2}),
                              at::Tensor(),
                              {"targets:", "undefined"}},
                         }),
                         [](const auto& info) { return info.param.name; });

TEST_P(LossMismatchTest, SaysWhatDoesntFit) {
  const auto loss =
      Compute(GetParam().config, GetParam().outputs, GetParam().targets);
  for (const std::string& part : GetParam().says) {
    EXPECT_THAT(loss,
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(part)));
  }
}

struct BadCase {
  std::string says;
  std::string config;
};

void PrintTo(const BadCase& c, std::ostream* os) { *os << c.config; }

class LossBadConfigTest : public TestWithParam<BadCase> {};

INSTANTIATE_TEST_SUITE_P(
    , LossBadConfigTest,
    ValuesIn(std::vector<BadCase>{
        {"must be set, to one of: cross_entropy", ""},
        {"label_smoothing: must be in [0, 1], is 1.5",
         "cross_entropy { label_smoothing: 1.5 }"},
        {"label_smoothing:", "cross_entropy { label_smoothing: -0.1 }"},
        {"label_smoothing:", "cross_entropy { label_smoothing: nan }"},
        {"class_weight[1]: must be finite and >= 0, is -1",
         "cross_entropy { class_weight: [1, -1] }"},
        {"class_weight[0]:", "cross_entropy { class_weight: [inf] }"},
        {"class_weight[0]:", "cross_entropy { class_weight: [nan] }"},
        {"beta: must be finite and > 0, is 0", "smooth_l1 { beta: 0 }"},
        {"beta: must be finite and > 0, is nan", "smooth_l1 { beta: nan }"},
        {"beta: must be finite and > 0, is inf", "smooth_l1 { beta: inf }"},
    }));

TEST_P(LossBadConfigTest, NamesTheField) {
  EXPECT_THAT(
      NewLoss(GetParam().config),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(GetParam().says)));
}

}  // namespace
}  // namespace grapnel
