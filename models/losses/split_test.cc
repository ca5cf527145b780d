// However a set of samples is cut into batches, its loss and the gradient of
// its step are those of one batch that holds them all: for each of our losses
// and for a user's.

#include <cmath>
#include <cstdint>
#include <functional>
#include <memory>
#include <numeric>
#include <ostream>
#include <string>
#include <tuple>
#include <utility>
#include <variant>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "google/protobuf/text_format.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/data/sample.h"
#include "grapnel/models/log_vars.h"
#include "grapnel/models/loss.h"
#include "grapnel/models/loss.pb.h"
#include "grapnel/models/metric.h"
#include "grapnel/models/model.h"
#include "grapnel/models/supervised_model.h"
#include "grapnel/optim/optim_wrapper.h"
#include "grapnel/optim/optim_wrapper.pb.h"
#include "gtest/gtest.h"
#include "torch/types.h"

namespace grapnel {
namespace {

using ::testing::Combine;
using ::testing::IsEmpty;
using ::testing::TestWithParam;
using ::testing::ValuesIn;

constexpr int64_t kSamples = 24;
constexpr int64_t kInputs = 5;
constexpr int64_t kClasses = 4;

// A user's: squares where a target is there, which is not NaN. Knows nothing of
// batches without one, where its mean is NaN.
class MaskedLoss : public Loss {
 public:
  absl::StatusOr<at::Tensor> Compute(const at::Tensor& outputs,
                                     const Batch& batch) const override {
    const at::Tensor there = batch.targets.isnan().logical_not();
    return outputs.masked_select(there)
        .sub(batch.targets.masked_select(there))
        .square()
        .mean();
  }
  absl::StatusOr<at::Tensor> Weight(const at::Tensor& /*outputs*/,
                                    const Batch& batch) const override {
    return batch.targets.isnan().logical_not().sum().to(at::kDouble);
  }
};

at::Tensor Inputs() {
  return at::linspace(-2, 2, kSamples * kInputs, at::kFloat)
      .mul(7)
      .sin()
      .reshape({kSamples, kInputs});
}

// In a mixed order, `size` at each sample.
at::Tensor MixedLabels(at::IntArrayRef size = {}) {
  std::vector<int64_t> shape = {kSamples};
  shape.insert(shape.end(), size.begin(), size.end());
  const int64_t numel = std::accumulate(shape.begin(), shape.end(), int64_t{1},
                                        std::multiplies<int64_t>());
  return at::arange(numel, at::kLong)
      .mul(7)
      .add(3)
      .remainder(11)
      .remainder(kClasses)
      .reshape(shape);
}

// Samples 0 to 3 and 12 to 15, and one in three of the others.
at::Tensor Gaps() {
  at::Tensor gaps = at::arange(kSamples).remainder(3).eq(1);
  gaps.slice(0, 0, 4).fill_(true);
  gaps.slice(0, 12, 16).fill_(true);
  return gaps;
}

at::Tensor LabelsWithGaps(int64_t value, at::IntArrayRef size = {}) {
  const at::Tensor labels = MixedLabels(size);
  std::vector<int64_t> shape(labels.dim(), 1);
  shape[0] = kSamples;
  return labels.masked_fill(Gaps().reshape(shape), value);
}

at::Tensor Values() {
  return Inputs().slice(1, 0, kClasses).mul(3).cos().contiguous();
}

struct SplitCase {
  std::string name;
  std::string loss;  // "" for the user's.
  at::Tensor targets;
  std::vector<int64_t> pixels = {};  // Outputs are (N, C) and these.
};

void PrintTo(const SplitCase& c, std::ostream* os) { *os << c.name; }

std::vector<SplitCase> SplitCases() {
  const std::string weights = "class_weight: [0.3, 1, 2.5, 0.7] ";
  const at::Tensor values = Values();
  return {
      {"CrossEntropy", "cross_entropy {}", MixedLabels()},
      {"Ignored", "cross_entropy {}", LabelsWithGaps(-100)},
      {"IgnoredClass", "cross_entropy { ignore_index: 2 }", LabelsWithGaps(2)},
      {"ClassWeights", "cross_entropy { " + weights + "}", MixedLabels()},
      {"ClassThatWeighsNothing",
       "cross_entropy { class_weight: [0.3, 0, 2.5, 0.7] }", LabelsWithGaps(1)},
      {"Smoothed", "cross_entropy { label_smoothing: 0.2 }", MixedLabels()},
      {"SmoothedAndIgnored", "cross_entropy { label_smoothing: 0.2 }",
       LabelsWithGaps(-100)},
      {"SmoothedWithClassWeights",
       "cross_entropy { label_smoothing: 0.2 " + weights + "}",
       LabelsWithGaps(-100)},
      {"Probabilities", "cross_entropy { label_smoothing: 0.2 " + weights + "}",
       values.softmax(1)},
      {"Pixels",
       "cross_entropy { " + weights + "}",
       LabelsWithGaps(-100, {2, 3}),
       {2, 3}},
      {"SmoothedPixels",
       "cross_entropy { label_smoothing: 0.2 }",
       LabelsWithGaps(-100, {2, 3}),
       {2, 3}},
      {"ProbabilitiesOfPixels",
       "cross_entropy {}",
       values.softmax(1)
           .reshape({kSamples, kClasses, 1, 1})
           .expand({kSamples, kClasses, 2, 3}),
       {2, 3}},
      {"Mse", "mse {}", values},
      {"L1", "l1 {}", values},
      {"SmoothL1", "smooth_l1 { beta: 0.5 }", values},
      {"BceWithLogits", "bce_with_logits {}", values.sigmoid()},
      {"Masked", "", values.masked_fill(Gaps().reshape({kSamples, 1}), NAN)},
  };
}

std::unique_ptr<Loss> NewLoss(const std::string& text) {
  if (text.empty()) return std::make_unique<MaskedLoss>();
  models::v1::LossConfig config;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &config))
      << text;
  auto loss = LossRegistry::Create(config);
  EXPECT_THAT(loss, IsOk());
  return *std::move(loss);
}

// One matrix, from inputs to outputs.
class Linear : public SupervisedModel {
 public:
  Linear(std::unique_ptr<Loss> loss, std::vector<int64_t> pixels)
      : SupervisedModel(std::move(loss)), shape_({-1, kClasses}) {
    shape_.insert(shape_.end(), pixels.begin(), pixels.end());
    const int64_t outputs = std::accumulate(
        pixels.begin(), pixels.end(), kClasses, std::multiplies<int64_t>());
    parameters_ = {{"w", at::linspace(-1, 1, kInputs * outputs, at::kFloat)
                             .mul(5)
                             .cos()
                             .reshape({kInputs, outputs})
                             .requires_grad_(true)}};
  }
  absl::StatusOr<at::Tensor> Forward(const Batch& batch) override {
    return Outputs(w(), batch.inputs);
  }
  at::Tensor Outputs(const at::Tensor& w, const at::Tensor& inputs) const {
    return inputs.matmul(w).reshape(shape_);
  }
  const at::Tensor& w() const { return parameters_[0].tensor; }
  const std::vector<NamedTensor>& parameters() const override {
    return parameters_;
  }
  const std::vector<NamedTensor>& buffers() const override { return buffers_; }
  void SetTraining(bool /*training*/) override {}
  bool training() const override { return true; }

 private:
  std::vector<int64_t> shape_;
  std::vector<NamedTensor> parameters_, buffers_;
};

// Numbers of samples in each batch.
using Split = std::vector<int64_t>;

std::vector<Batch> Batches(const at::Tensor& targets, const Split& split) {
  std::vector<Batch> batches;
  int64_t begin = 0;
  for (const int64_t size : split) {
    Batch batch;
    batch.inputs = Inputs().narrow(0, begin, size);
    batch.targets = targets.narrow(0, begin, size);
    batch.indices.resize(size);
    batches.push_back(std::move(batch));
    begin += size;
  }
  EXPECT_EQ(begin, kSamples);
  return batches;
}

class SplitTest : public TestWithParam<std::tuple<SplitCase, Split>> {
 protected:
  const SplitCase& test() const { return std::get<0>(GetParam()); }
  const Split& split() const { return std::get<1>(GetParam()); }

  std::unique_ptr<Linear> NewModel() const {
    return std::make_unique<Linear>(NewLoss(test().loss), test().pixels);
  }

  // The loss of all samples at once, in double precision, and its gradient.
  std::pair<double, at::Tensor> OneBigBatch(const Linear& model) const {
    Batch all = Batches(test().targets, {kSamples})[0];
    if (all.targets.is_floating_point()) {
      all.targets = all.targets.to(at::kDouble);
    }
    const at::Tensor w = model.w().detach().to(at::kDouble);
    w.requires_grad_(true);
    const auto loss =
        NewLoss(test().loss)
            ->Compute(model.Outputs(w, all.inputs.to(at::kDouble)), all);
    EXPECT_THAT(loss, IsOk());
    loss->backward();
    EXPECT_GT(w.grad().abs().max().item<double>(), 1e-3);
    return {loss->item<double>(), w.grad()};
  }
};

TEST_P(SplitTest, LossOfAnEvaluationIsThatOfOneBigBatch) {
  const auto model = NewModel();
  Evaluator evaluator({});
  Predictions predictions;
  predictions.losses.set_wants_weights(true);
  for (const Batch& batch : Batches(test().targets, split())) {
    ASSERT_THAT(model->ValStep(batch, &predictions), IsOk());
    ASSERT_THAT(evaluator.Process(predictions, batch), IsOk());
  }
  std::vector<std::string> notes;
  const auto metrics = evaluator.Compute("val", &notes);
  ASSERT_THAT(metrics, IsOk());
  const double expected = OneBigBatch(*model).first;
  EXPECT_NEAR(std::get<double>(*FindMetric(*metrics, "val_loss")), expected,
              1e-6 * std::abs(expected));
  EXPECT_THAT(notes, IsEmpty());
}

TEST_P(SplitTest, StepBySamplesIsThatOfOneBigBatch) {
  const auto model = NewModel();
  const at::Tensor before = model->w().detach().clone();
  const at::Tensor expected = OneBigBatch(*model).second;
  optim::v1::OptimWrapperConfig config;
  ASSERT_TRUE(google::protobuf::TextFormat::ParseFromString(
      absl::StrCat("optimizer { sgd { lr: 1 } } accumulate_by: SAMPLES "
                   "accumulative_counts: ",
                   split().size()),
      &config));
  auto optim = OptimWrapper::Create(config, model->parameters());
  ASSERT_THAT(optim, IsOk());
  LogVars log_vars;
  for (const Batch& batch : Batches(test().targets, split())) {
    EXPECT_TRUE(model->w().equal(before));
    ASSERT_THAT(model->TrainStep(batch, **optim, &log_vars), IsOk());
  }
  const at::Tensor step = before.sub(model->w().detach()).to(at::kDouble);
  EXPECT_LT(step.sub(expected).abs().max().item<double>(), 1e-6);
}

INSTANTIATE_TEST_SUITE_P(
    , SplitTest,
    Combine(ValuesIn(SplitCases()),
            ValuesIn(std::vector<Split>{
                {24},
                {8, 8, 8},
                {5, 2, 11, 6},
                {23, 1},
                {4, 20},       // Where there are gaps, the first batch has
                {4, 8, 4, 8},  // nothing that counts, and the third neither.
                {12, 4, 8},
                {1, 1, 2, 1, 19},
            })),
    [](const auto& info) {
      std::string name = std::get<0>(info.param).name;
      for (const int64_t size : std::get<1>(info.param)) {
        absl::StrAppend(&name, "_", size);
      }
      return name;
    });

}  // namespace
}  // namespace grapnel
