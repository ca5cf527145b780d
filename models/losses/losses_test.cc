// Tests the losses as users get them: by config.

#include <cmath>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "ATen/core/Tensor.h"
#include "ATen/ops/tensor.h"
#include "ATen/ops/zeros.h"
#include "gmock/gmock.h"
#include "google/protobuf/text_format.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/data/sample.h"
#include "grapnel/models/loss.h"
#include "grapnel/models/model.pb.h"
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
  return at::tensor(values).reshape(shape);
}

at::Tensor Labels(const std::vector<int64_t>& values) {
  return at::tensor(values, at::kLong);
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

const double kFirst = NegativeLogLikelihood({1, 2, 0}, 1);
const double kSecond = NegativeLogLikelihood({0, -1, 3}, 0);

std::vector<ValueCase> ValueCases() {
  const at::Tensor logits = Floats({1, 2, 0, 0, -1, 3}, {2, 3});
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

TEST(CrossEntropyLossTest, AllIgnoredIsNaN) {
  const auto loss =
      Compute("cross_entropy {}", at::zeros({1, 3}), Labels({-100}));
  ASSERT_THAT(loss, IsOk());
  EXPECT_TRUE(std::isnan(loss->item<double>()));
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
                              at::zeros({2, 3}),
                              Labels({0, 3}),
                              {"label 3", "there are 3, 0 to 2"}},
                             {"LabelIsNoClassWithSmoothing",
                              "cross_entropy { label_smoothing: 0.1 }",
                              at::zeros({2, 3}),
                              Labels({-1, 2}),
                              {"label -1", "0 to 2"}},
                             {"BatchSizesDiffer",
                              "cross_entropy {}",
                              at::zeros({2, 3}),
                              Labels({0}),
                              {"(2, 3)", "(1,)"}},
                             {"LabelsOfPixelsDontFit",
                              "cross_entropy {}",
                              at::zeros({2, 3, 4, 4}),
                              at::zeros({2, 4, 5}, at::kLong),
                              {"(2, 3, 4, 4)", "(2, 4, 5)"}},
                             {"OutputsWithoutClasses",
                              "cross_entropy {}",
                              at::zeros({2}),
                              Labels({0, 1}),
                              {"(2,)", "(N, C, ...)"}},
                             {"TargetsOfFloats",
                              "cross_entropy {}",
                              at::zeros({2, 3}),
                              at::zeros({2}),
                              {"targets: must be int64", "Float"}},
                             {"TargetsUndefined",
                              "cross_entropy {}",
                              at::zeros({2, 3}),
                              at::Tensor(),
                              {"targets:", "undefined"}},
                             {"OutputsOfIntegers",
                              "cross_entropy {}",
                              at::zeros({2, 3}, at::kLong),
                              Labels({0, 1}),
                              {"outputs: must be floating", "Long"}},
                             {"TooFewClassWeights",
                              "cross_entropy { class_weight: [1, 1] }",
                              at::zeros({2, 3}),
                              Labels({0, 1}),
                              {"class_weight: must be 3", "2"}},
                             // It would broadcast to (2, 2), silently.
                             {"ColumnAgainstRow",
                              "mse {}",
                              at::zeros({2, 1}),
                              at::zeros({2}),
                              {"(2, 1)", "(2,)"}},
                             {"L1TargetsOfIntegers",
                              "l1 {}",
                              at::zeros({2}),
                              Labels({0, 1}),
                              {"targets: must be floating"}},
                             {"SmoothL1ColumnAgainstRow",
                              "smooth_l1 {}",
                              at::zeros({2, 1}),
                              at::zeros({2}),
                              {"(2, 1)", "(2,)"}},
                             {"BceTargetsUndefined",
                              "bce_with_logits {}",
                              at::zeros({2}),
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
