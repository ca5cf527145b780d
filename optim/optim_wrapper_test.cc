#include "grapnel/optim/optim_wrapper.h"

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "google/protobuf/text_format.h"
#include "google/protobuf/wrappers.pb.h"
#include "grapnel/base/registry.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/optim/optim_wrapper.pb.h"
#include "grapnel/optim/optimizer.h"
#include "grapnel/optim/optimizers/torch_optimizer.h"
#include "grapnel/optim/param_groups.h"
#include "grapnel/tests/golden/golden_report.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "torch/nn/utils/clip_grad.h"
#include "torch/optim/sgd.h"
#include "torch/types.h"

namespace grapnel {
namespace {

using ::google::protobuf::TextFormat;
using ::grapnel::optim::v1::OptimWrapperConfig;
using ::grapnel::optim::v1::OptimWrapperState;
using ::nlohmann::json;
using ::testing::DoubleEq;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pointwise;

OptimWrapperConfig Parse(const std::string& text) {
  OptimWrapperConfig config;
  EXPECT_TRUE(TextFormat::ParseFromString(text, &config)) << text;
  return config;
}

std::unique_ptr<OptimWrapper> Make(const std::string& text,
                                   const std::vector<NamedTensor>& params) {
  auto wrapper = OptimWrapper::Create(Parse(text), params);
  EXPECT_THAT(wrapper, IsOk()) << text;
  return wrapper.ok() ? *std::move(wrapper) : nullptr;
}

at::Tensor Leaf(std::vector<double> values) {
  return torch::tensor(values, at::kDouble).requires_grad_();
}

class RecordingObserver : public StepObserver {
 public:
  absl::Status BeforeOptimizerStep() override {
    events.push_back("before");
    if (on_before) on_before();
    return before_status;
  }
  absl::Status AfterOptimizerStep(const StepResult& result) override {
    events.push_back(result.stepped ? "stepped" : "skipped");
    grad_norm = result.grad_norm;
    scale = result.scale;
    return after_status;
  }

  std::vector<std::string> events;
  std::function<void()> on_before;
  absl::Status before_status;
  absl::Status after_status;
  at::Tensor grad_norm;
  double scale = 0;
};

// ---- Accumulation ----

// The golden table's model: item i is [i + 1, -(i + 1) / 2], the loss w * x.
class GoldenRun {
 public:
  explicit GoldenRun(int64_t accumulative_counts,
                     std::vector<double> start = {1, 2})
      : w_(Leaf(std::move(start))),
        wrapper_(Make("optimizer { sgd { lr: 0.01 } } accumulative_counts: " +
                          std::to_string(accumulative_counts),
                      {{"w", w_}})) {}

  OptimWrapper& wrapper() { return *wrapper_; }
  const at::Tensor& w() const { return w_; }

  void Iterate(int64_t iter, int64_t num_items) {
    const double item = static_cast<double>(iter % num_items) + 1;
    const at::Tensor x = torch::tensor({item, -item / 2}, at::kDouble);
    ASSERT_THAT(wrapper_->Update((w_ * x).sum()), IsOk());
  }

  void AppendW(std::vector<double>* elements) const {
    for (int k = 0; k < 2; ++k) elements->push_back(w_[k].item<double>());
  }

 private:
  at::Tensor w_;
  std::unique_ptr<OptimWrapper> wrapper_;
};

json ReadCases() {
  std::ifstream in("tests/golden/grad_accum.json");
  EXPECT_TRUE(in.is_open());
  return json::parse(in).at("cases");
}

// Both elements of w of each iteration.
std::vector<double> GoldenW(const json& test) {
  std::vector<double> elements;
  for (const json& row : test["w"]) {
    for (const json& element : row) elements.push_back(element.get<double>());
  }
  return elements;
}

TEST(OptimWrapperGoldenTest, WindowsAreUpstreams) {
  size_t run = 0;
  for (const json& test : ReadCases()) {
    if (test.contains("resumed_iter")) continue;  // The next test.
    const std::string name = test["name"];
    SCOPED_TRACE(name);
    ++run;
    GoldenRun golden(test["accum"]);
    golden.wrapper().InitializeCounts(0, test["max_counts"]);
    ASSERT_FALSE(test["w"].empty());
    std::vector<double> w;
    for (size_t i = 0; i < test["w"].size(); ++i) {
      golden.Iterate(i, test["n_train"]);
      golden.AppendW(&w);
    }
    EXPECT_EQ(golden.wrapper().accumulated(), 0);
    EXPECT_GOLDEN(GoldenCase("grad_accum.json", "cases/" + name), w,
                  Pointwise(DoubleEq(), GoldenW(test)));
  }
  EXPECT_EQ(run, 6u);
}

// Case resume_inside_accumulation. Upstream loses the gradient of iteration 4:
// so do we if only the count is restored. With our checkpoint it is kept, and
// the run is that without a break, which the case's rows are not.
TEST(OptimWrapperGoldenTest, ResumedInsideAWindow) {
  constexpr int64_t kItems = 4;
  json golden;
  for (const json& test : ReadCases()) {
    if (test.contains("resumed_iter")) golden = test;
  }
  ASSERT_EQ(golden["name"], "resume_inside_accumulation");
  const int64_t cut = golden["resumed_iter"];
  const int64_t max_iters = golden["max_iters"];
  const int64_t accum = golden["accum"];

  GoldenRun lossy(accum, {0.98, 2.01});
  lossy.wrapper().InitializeCounts(cut, max_iters);
  std::vector<double> w;
  for (int64_t i = cut; i < max_iters; ++i) {
    lossy.Iterate(i, kItems);
    lossy.AppendW(&w);
  }
  EXPECT_THAT(w, Pointwise(DoubleEq(), GoldenW(golden)));

  GoldenRun first(accum);
  first.wrapper().InitializeCounts(0, max_iters);
  for (int64_t i = 0; i < cut; ++i) first.Iterate(i, kItems);
  OptimWrapperState state;
  TensorMap tensors, gradients;
  ASSERT_THAT(first.wrapper().SaveState(&state, &tensors, &gradients), IsOk());
  GoldenRun second(accum, {0.98, 2.01});
  second.wrapper().InitializeCounts(cut, max_iters);
  ASSERT_THAT(second.wrapper().LoadState(state, tensors, gradients), IsOk());
  for (int64_t i = cut; i < max_iters; ++i) second.Iterate(i, kItems);
  // 0.98 - 0.01 * (4 + 1 + 2) / 3 - 0.01 * (3 + 4 + 1) / 3; upstream's is
  // 0.9433.
  EXPECT_GOLDEN(
      GoldenCase("grad_accum.json", "cases/resume_inside_accumulation",
                 "c12: the half-filled window is in the checkpoint, so the "
                 "gradient of iteration 4 isn't lost"),
      second.w()[0].item<double>(), DoubleEq(0.93));
}

// ---- Gradients from elsewhere ----

// Two parameters, of which the loss of odd iterations has only the first.
struct TwoParams {
  at::Tensor w = Leaf({1, 2, 3});
  at::Tensor b = Leaf({0.5});
  std::vector<NamedTensor> Named() const { return {{"w", w}, {"b", b}}; }
};

at::Tensor LossOf(const TwoParams& params, int64_t iter) {
  const double x = static_cast<double>(iter % 5) - 1.5;
  const at::Tensor loss = (params.w * x).pow(2).sum() * 0.3;
  return iter % 2 == 0 ? loss + (params.b * x).exp().sum() : loss;
}

// What backward gives, without leaving it in the parameters.
TensorMap GradientsOf(const TwoParams& params, int64_t iter) {
  TwoParams copy;
  copy.w = params.w.detach().clone().requires_grad_();
  copy.b = params.b.detach().clone().requires_grad_();
  LossOf(copy, iter).backward();
  TensorMap gradients;
  for (const auto& [name, param] : copy.Named()) {
    if (param.grad().defined()) {
      EXPECT_THAT(gradients.Add(name, param.grad()), IsOk());
    }
  }
  return gradients;
}

struct GradientsCase {
  std::string name;
  std::string config;
  double tolerance = 0;
};

class OptimWrapperGradientsTest
    : public ::testing::TestWithParam<GradientsCase> {};

TEST_P(OptimWrapperGradientsTest, StepAsTheLossTheyAreOf) {
  TwoParams by_loss, by_gradients;
  const auto one = Make(GetParam().config, by_loss.Named());
  const auto other = Make(GetParam().config, by_gradients.Named());
  RecordingObserver first, second;
  one->set_step_observer(&first);
  other->set_step_observer(&second);
  one->InitializeCounts(0, 11);
  other->InitializeCounts(0, 11);
  for (int64_t iter = 0; iter < 11; ++iter) {
    const double weight = static_cast<double>(iter % 3);
    ASSERT_THAT(one->Update(LossOf(by_loss, iter), weight), IsOk());
    const TensorMap gradients = GradientsOf(by_gradients, iter);
    const at::Tensor before = gradients.Find("w")->clone();
    ASSERT_THAT(other->UpdateFromGradients(gradients, weight), IsOk());
    // Clipping and accumulating are done on copies.
    EXPECT_TRUE(gradients.Find("w")->equal(before));
    EXPECT_EQ(one->accumulated(), other->accumulated());
    for (const auto& [ours, theirs] : {std::pair(by_gradients.w, by_loss.w),
                                       std::pair(by_gradients.b, by_loss.b)}) {
      ASSERT_LE(ours.sub(theirs).abs().max().item<double>(),
                GetParam().tolerance)
          << "iteration " << iter;
    }
  }
  EXPECT_EQ(first.events, second.events);
}

INSTANTIATE_TEST_SUITE_P(
    All, OptimWrapperGradientsTest,
    ::testing::Values(
        GradientsCase{"sgd", "optimizer { sgd { lr: 0.1 momentum: 0.9 } }"},
        GradientsCase{"adamw_clipped",
                      "optimizer { adamw { lr: 0.1 } } "
                      "clip_grad { max_norm: 0.5 }"},
        GradientsCase{"bfloat16",
                      "optimizer { adam { lr: 0.1 } } amp { dtype: BFLOAT16 }"},
        // Divided after, not before the backward: a rounding or two of each
        // gradient, of steps that are 0.1 long.
        GradientsCase{"windows",
                      "optimizer { adamw { lr: 0.1 } } accumulative_counts: 3",
                      1e-14},
        GradientsCase{"by_samples",
                      "optimizer { adamw { lr: 0.1 } } accumulative_counts: 3 "
                      "accumulate_by: SAMPLES",
                      1e-14}),
    [](const auto& info) { return info.param.name; });

TEST(OptimWrapperTest, HalfFilledWindowOfGradientsIsSavedAndLoaded) {
  const std::string config =
      "optimizer { adamw { lr: 0.1 } } accumulative_counts: 2";
  TwoParams params;
  const auto first = Make(config, params.Named());
  ASSERT_THAT(first->UpdateFromGradients(GradientsOf(params, 0)), IsOk());
  OptimWrapperState state;
  TensorMap tensors, window;
  ASSERT_THAT(first->SaveState(&state, &tensors, &window), IsOk());
  TwoParams restored;
  const auto second = Make(config, restored.Named());
  ASSERT_THAT(second->LoadState(state, tensors, window), IsOk());
  ASSERT_THAT(first->UpdateFromGradients(GradientsOf(params, 1)), IsOk());
  ASSERT_THAT(second->UpdateFromGradients(GradientsOf(restored, 1)), IsOk());
  EXPECT_TRUE(restored.w.equal(params.w));
  EXPECT_TRUE(restored.b.equal(params.b));
}

TEST(OptimWrapperTest, GradientsThatDoNotFitAreRefusedAndDoNothing) {
  const TwoParams params;
  const auto wrapper = Make(
      "optimizer { sgd { lr: 0.1 } } accumulative_counts: 2", params.Named());
  const auto refused = [&](const std::string& name, const at::Tensor& gradient,
                           const std::string& message) {
    TensorMap gradients;
    EXPECT_THAT(gradients.Add("b", torch::ones({1}, at::kDouble)), IsOk());
    EXPECT_THAT(gradients.Add(name, gradient), IsOk());
    EXPECT_THAT(
        wrapper->UpdateFromGradients(gradients),
        StatusIs(absl::StatusCode::kInvalidArgument,
                 HasSubstr("gradient of \"" + name + "\": " + message)));
    EXPECT_EQ(wrapper->accumulated(), 0);
    EXPECT_FALSE(params.b.grad().defined());
  };
  refused("w", torch::ones({4}, at::kDouble),
          "has the shape [4], the parameter's is [3]");
  refused("w", torch::ones({3}, at::kFloat),
          "is Float, the parameter is Double");
  refused("w", at::Tensor(), "has no value");
  refused("w", torch::ones({3}, at::kDouble).to_sparse(), "must be dense");
  refused("bb", torch::ones({1}, at::kDouble),
          "no parameter that requires a gradient has this name; did you mean "
          "\"b\"?");
  TensorMap gradients;
  ASSERT_THAT(gradients.Add("w", torch::ones({3}, at::kDouble)), IsOk());
  EXPECT_THAT(
      Make("optimizer { sgd { lr: 0.1 } } amp { dtype: FLOAT16 }",
           params.Named())
          ->UpdateFromGradients(gradients),
      StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("FLOAT16")));
}

TEST(OptimWrapperTest, UnknownLengthDividesByTheConfiguredCount) {
  GoldenRun run(3);
  run.wrapper().InitializeCounts(0, -1);
  for (int64_t i = 0; i < 4; ++i) {
    run.Iterate(i, 100);
    EXPECT_EQ(run.wrapper().accumulated(), (i + 1) % 3);
  }
  EXPECT_DOUBLE_EQ(run.w()[0].item<double>(), 0.98);
}

TEST(OptimWrapperTest, GoesOnPastTheEnd) {
  GoldenRun run(3);
  run.wrapper().InitializeCounts(0, 3);
  for (int64_t i = 0; i < 6; ++i) run.Iterate(i, 100);
  // Two whole windows: (1 + 2 + 3) / 3 and (4 + 5 + 6) / 3.
  EXPECT_DOUBLE_EQ(run.w()[0].item<double>(), 0.93);
}

TEST(OptimWrapperTest, GoesOnPastTheEndOfAShortWindow) {
  GoldenRun run(4);
  run.wrapper().InitializeCounts(0, 6);
  for (int64_t i = 0; i < 6; ++i) run.Iterate(i, 100);
  EXPECT_EQ(run.wrapper().accumulated(), 0);
  for (int64_t i = 0; i < 3; ++i) {
    run.Iterate(i, 100);
    EXPECT_EQ(run.wrapper().accumulated(), i + 1);
  }
  const double before = run.w()[0].item<double>();
  run.Iterate(3, 100);
  EXPECT_NEAR(before - run.w()[0].item<double>(), 0.025, 1e-12);
}

// ---- Accumulation by samples ----

// What a step's gradient is a mean over.
struct SamplesCase {
  const char* name;
  std::vector<int64_t> batches;  // Numbers of samples; a step after all.
  const char* config;            // Besides sgd.
  double tolerance = 1e-14;
};

void PrintTo(const SamplesCase& test, std::ostream* out) { *out << test.name; }

class OptimWrapperSamplesTest : public ::testing::TestWithParam<SamplesCase> {};

TEST_P(OptimWrapperSamplesTest, StepIsThatOfTheBigBatch) {
  const std::vector<int64_t>& batches = GetParam().batches;
  int64_t total = 0;
  for (const int64_t size : batches) total += size;
  torch::manual_seed(11);
  const at::Tensor x = torch::randn({total, 3}, at::kDouble);
  const at::Tensor y = torch::randn({total}, at::kDouble);
  const auto loss = [](const at::Tensor& w, const at::Tensor& x,
                       const at::Tensor& y) {
    return (x.matmul(w).tanh() - y).square().mean();
  };
  const std::string optimizer = "optimizer { sgd { lr: 0.5 } } ";

  const at::Tensor big = Leaf({0.5, -1, 2});
  ASSERT_THAT(Make(optimizer + GetParam().config, {{"w", big}})
                  ->Update(loss(big, x, y), total),
              IsOk());

  const at::Tensor small = Leaf({0.5, -1, 2});
  auto wrapper = Make(optimizer + GetParam().config +
                          " accumulate_by: SAMPLES "
                          "accumulative_counts: " +
                          std::to_string(batches.size()),
                      {{"w", small}});
  int64_t begin = 0;
  for (const int64_t size : batches) {
    EXPECT_EQ(small[0].item<double>(), 0.5);
    ASSERT_THAT(wrapper->Update(loss(small, x.narrow(0, begin, size),
                                     y.narrow(0, begin, size)),
                                size),
                IsOk());
    begin += size;
  }
  EXPECT_EQ(wrapper->accumulated(), 0);
  EXPECT_NE(big[0].item<double>(), 0.5);
  EXPECT_TRUE(torch::allclose(small, big, GetParam().tolerance, 1e-15))
      << small - big;
}

INSTANTIATE_TEST_SUITE_P(
    , OptimWrapperSamplesTest,
    ::testing::Values(
        SamplesCase{"EqualBatches", {4, 4, 4}, ""},
        SamplesCase{"ShortLastBatch", {8, 8, 1}, ""},
        SamplesCase{"ShortFirstBatch", {1, 9}, ""},
        SamplesCase{"AllDifferent", {5, 2, 11, 3}, ""},
        SamplesCase{"OneBatch", {6}, "", 0},
        SamplesCase{
            "ClippedAfterTheMean", {7, 2, 3}, "clip_grad { max_norm: 0.01 }"},
        SamplesCase{"Scaled",  // Gradients are unscaled by a float32.
                    {7, 2, 3},
                    "amp { dtype: FLOAT16 }",
                    1e-7}),
    [](const auto& info) { return std::string(info.param.name); });

TEST(OptimWrapperTest, ByIterationsAShortBatchWeighsAsMuch) {
  const at::Tensor w = Leaf({0});
  auto wrapper =
      Make("optimizer { sgd { lr: 1 } } accumulative_counts: 2", {{"w", w}});
  ASSERT_THAT(wrapper->Update((w * 4).sum(), 100), IsOk());
  ASSERT_THAT(wrapper->Update((w * 2).sum(), 1), IsOk());
  EXPECT_EQ(w.item<double>(), -3);
}

// The last window of the run is short, and its mean over its own samples.
TEST(OptimWrapperTest, BySamplesTheLastWindowHoldsWhatIsLeft) {
  const at::Tensor w = Leaf({0});
  auto wrapper = Make(
      "optimizer { sgd { lr: 1 } } accumulative_counts: 3 "
      "accumulate_by: SAMPLES",
      {{"w", w}});
  wrapper->InitializeCounts(0, 5);
  for (int i = 0; i < 3; ++i) {
    ASSERT_THAT(wrapper->Update((w * 6).sum(), 10), IsOk());
  }
  EXPECT_DOUBLE_EQ(w.item<double>(), -6);
  ASSERT_THAT(wrapper->Update((w * 1).sum(), 2), IsOk());
  ASSERT_THAT(wrapper->Update((w * 5).sum(), 6), IsOk());
  EXPECT_DOUBLE_EQ(w.item<double>(), -10);  // By (2 * 1 + 6 * 5) / 8.
}

// A run that went on from a checkpoint without the optimizer's state, and saves
// before its first step.
TEST(OptimWrapperTest, BySamplesAWindowWithoutItsBeginningIsSavedAndLoaded) {
  constexpr char kBySamples[] =
      "optimizer { sgd { lr: 1 } } accumulative_counts: 5 "
      "accumulate_by: SAMPLES";
  auto first = Make(kBySamples, {{"w", Leaf({0})}});
  first->InitializeCounts(23, 100);
  OptimWrapperState state;
  TensorMap tensors, gradients;
  ASSERT_THAT(first->SaveState(&state, &tensors, &gradients), IsOk());
  const at::Tensor w = Leaf({0});
  auto second = Make(kBySamples, {{"w", w}});
  second->InitializeCounts(0, 100);
  ASSERT_THAT(second->LoadState(state, tensors, gradients), IsOk());
  EXPECT_EQ(second->accumulated(), 3);
  ASSERT_THAT(second->Update((w * 1).sum(), 2), IsOk());
  ASSERT_THAT(second->Update((w * 5).sum(), 6), IsOk());
  EXPECT_DOUBLE_EQ(w.item<double>(), -4);  // By (2 * 1 + 6 * 5) / 8.
}

TEST(OptimWrapperTest, BySamplesWeightsAreFiniteAndNotNegative) {
  for (const auto& [weight, is] : std::vector<std::pair<double, std::string>>{
           {-1, "is -1"}, {NAN, "is nan"}, {INFINITY, "is inf"}}) {
    const at::Tensor w = Leaf({1});
    const std::string sgd = "optimizer { sgd { lr: 1 } } ";
    auto wrapper = Make(sgd + "accumulate_by: SAMPLES", {{"w", w}});
    EXPECT_TRUE(wrapper->wants_weight());
    EXPECT_THAT(wrapper->Update(w.sum(), weight),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         "weight: must be finite and >= 0, " + is));
    EXPECT_EQ(wrapper->accumulated(), 0);
    EXPECT_FALSE(w.grad().defined());
    // By iterations nobody looks at them.
    auto by_iterations = Make(sgd, {{"w", w}});
    EXPECT_FALSE(by_iterations->wants_weight());
    ASSERT_THAT(by_iterations->Update(w.sum(), weight), IsOk());
    EXPECT_EQ(w.item<double>(), 0);
  }
}

// What a window of weights makes of losses 8 w, whose means are as given.
struct WeightsCase {
  const char* name;
  std::vector<std::pair<double, double>> updates;  // Gradient, weight.
  double step;                                     // 0 if there is none.
  const char* config = "";
};

void PrintTo(const WeightsCase& test, std::ostream* out) { *out << test.name; }

class OptimWrapperWeightsTest : public ::testing::TestWithParam<WeightsCase> {};

TEST_P(OptimWrapperWeightsTest, StepIsTheMeanByWeights) {
  const at::Tensor w = Leaf({0});
  const auto& updates = GetParam().updates;
  auto wrapper = Make(
      "optimizer { sgd { lr: 1 } } accumulate_by: SAMPLES "
      "accumulative_counts: " +
          std::to_string(updates.size()) + " " + GetParam().config,
      {{"w", w}});
  std::vector<std::string> events;
  RecordingObserver observer;
  wrapper->set_step_observer(&observer);
  // The second window knows nothing of the first.
  for (int window = 1; window <= 2; ++window) {
    for (size_t i = 0; i < updates.size(); ++i) {
      EXPECT_EQ(wrapper->accumulated(), static_cast<int64_t>(i));
      ASSERT_THAT(
          wrapper->Update((w * updates[i].first).sum(), updates[i].second),
          IsOk());
    }
    EXPECT_EQ(wrapper->accumulated(), 0);
    EXPECT_NEAR(w.item<double>(), -GetParam().step * window, 1e-6);
    if (GetParam().step == 0) {
      events.push_back("skipped");
    } else {
      events.insert(events.end(), {"before", "stepped"});
    }
    EXPECT_EQ(observer.events, events);
    wrapper->BeginStep();
    EXPECT_FALSE(w.grad().defined());
  }
}

INSTANTIATE_TEST_SUITE_P(
    , OptimWrapperWeightsTest,
    ::testing::Values(
        WeightsCase{"Fractions", {{4, 0.5}, {8, 1.5}}, 7},
        WeightsCase{"FirstIsNothing", {{NAN, 0}, {4, 1}, {8, 3}}, 7},
        WeightsCase{"MiddleIsNothing", {{4, 1}, {NAN, 0}, {8, 3}}, 7},
        WeightsCase{"LastIsNothing", {{4, 1}, {8, 3}, {NAN, 0}}, 7},
        WeightsCase{"OneIsAll", {{NAN, 0}, {NAN, 0}, {4, 0.25}}, 4},
        WeightsCase{"NoneIsNoStep", {{NAN, 0}, {4, 0}}, 0},
        WeightsCase{"WindowOfOne", {{4, 0.25}}, 4},
        WeightsCase{"WindowOfOneThatIsNothing", {{4, 0}}, 0},
        WeightsCase{"Scaled",
                    {{NAN, 0}, {4, 1}, {8, 3}},
                    7,
                    "amp { dtype: FLOAT16 loss_scale { init_scale: 8 } }"},
        WeightsCase{"ScaledNothing",
                    {{NAN, 0}},
                    0,
                    "amp { dtype: FLOAT16 loss_scale { init_scale: 8 "
                    "growth_interval: 1 } }"},
        WeightsCase{"NothingIsNotClipped",
                    {{4, 0}},
                    0,
                    "clip_grad { max_norm: 1 error_if_nonfinite: true }"}),
    [](const auto& info) { return std::string(info.param.name); });

// A step that wasn't made says nothing about the scale.
TEST(OptimWrapperScaleTest, WindowOfNothingLeavesTheScale) {
  const at::Tensor w = Leaf({0});
  auto wrapper = Make(
      "optimizer { sgd { lr: 1 } } accumulate_by: SAMPLES "
      "amp { dtype: FLOAT16 loss_scale { init_scale: 8 growth_interval: 1 } }",
      {{"w", w}});
  RecordingObserver observer;
  wrapper->set_step_observer(&observer);
  for (const double weight : {0, 0, 1, 0}) {
    ASSERT_THAT(wrapper->Update((w * 2).sum(), weight), IsOk());
  }
  EXPECT_EQ(observer.scale, 16);  // Grown by the one step.
  EXPECT_EQ(w.item<double>(), -2);
}

// ---- State ----

const char kResumeConfig[] = R"pb(
  optimizer { adamw { lr: 0.05 weight_decay: 0.1 } }
  accumulative_counts: 3
  clip_grad { max_norm: 0.5 }
  paramwise_cfg { bias_lr_mult: 2 }
)pb";

struct Model {
  explicit Model(const std::string& config = kResumeConfig)
      : weight(torch::arange(6, at::kDouble).div(7).reshape({2, 3})),
        bias(Leaf({0.5, -0.25})),
        wrapper(nullptr) {
    weight.requires_grad_();
    wrapper = Make(config, {{"fc.weight", weight}, {"fc.bias", bias}});
  }

  void Iterate(int64_t iter) {
    torch::manual_seed(iter);
    const at::Tensor x = torch::randn({4, 3}, at::kDouble);
    // The bias takes no part in every third iteration.
    at::Tensor y = torch::matmul(x, weight.t());
    if (iter % 3 != 0) y = y + bias;
    // Of another size in every iteration, to those who look at it.
    ASSERT_THAT(wrapper->Update(y.square().mean(), 1 + iter % 4), IsOk());
  }

  at::Tensor weight;
  at::Tensor bias;
  std::unique_ptr<OptimWrapper> wrapper;
};

TensorMap Copy(const TensorMap& tensors) {
  TensorMap copy;
  for (const NamedTensor& entry : tensors) {
    EXPECT_THAT(copy.Add(entry.name, entry.tensor.clone()), IsOk());
  }
  return copy;
}

class OptimWrapperResumeTest
    : public ::testing::TestWithParam<std::pair<const char*, const char*>> {};

TEST_P(OptimWrapperResumeTest, AtEveryCutEqualsUninterrupted) {
  constexpr int64_t kIters = 11;  // The last window has two.
  const std::string config = std::string(kResumeConfig) + GetParam().second;
  Model expected(config);
  expected.wrapper->InitializeCounts(0, kIters);
  for (int64_t i = 0; i < kIters; ++i) expected.Iterate(i);

  for (int64_t cut = 0; cut <= kIters; ++cut) {
    SCOPED_TRACE(cut);
    Model first(config);
    first.wrapper->InitializeCounts(0, kIters);
    for (int64_t i = 0; i < cut; ++i) first.Iterate(i);
    OptimWrapperState state;
    TensorMap tensors, gradients;
    ASSERT_THAT(first.wrapper->SaveState(&state, &tensors, &gradients), IsOk());
    EXPECT_EQ(gradients.empty(), cut % 3 == 0 || cut == kIters);
    EXPECT_EQ(state.gradients_size(), static_cast<int>(gradients.size()));

    Model second(config);
    {
      torch::NoGradGuard no_grad;
      second.weight.copy_(first.weight);
      second.bias.copy_(first.bias);
    }
    second.wrapper->InitializeCounts(cut, kIters);
    ASSERT_THAT(
        second.wrapper->LoadState(state, Copy(tensors), Copy(gradients)),
        IsOk());
    EXPECT_EQ(second.wrapper->accumulated(), first.wrapper->accumulated());
    for (int64_t i = cut; i < kIters; ++i) second.Iterate(i);
    EXPECT_TRUE(torch::equal(second.weight, expected.weight));
    EXPECT_TRUE(torch::equal(second.bias, expected.bias));
  }
}

INSTANTIATE_TEST_SUITE_P(
    , OptimWrapperResumeTest,
    ::testing::Values(
        std::make_pair("ByIterations", ""),
        std::make_pair("BySamples", "accumulate_by: SAMPLES"),
        // From a scale at which the first windows overflow, and one that grows.
        std::make_pair("Scaled",
                       "amp { dtype: FLOAT16 loss_scale { init_scale: 3e38 "
                       "backoff_factor: 1e-30 growth_interval: 1 } }"),
        std::make_pair("ScaledBySamples",
                       "accumulate_by: SAMPLES amp { dtype: FLOAT16 }")),
    [](const auto& info) { return std::string(info.param.first); });

TEST(OptimWrapperStateTest, RatesComeBackTheBaseGroupsToo) {
  Model first;
  for (const auto& [name, lr] : first.wrapper->logged_lrs()) {
    EXPECT_EQ(*lr, 0.05) << name;
  }
  for (int i = 0; i < 3; ++i) {
    *first.wrapper->scheduled_groups().option(i, "lr") = 0.25 * (i + 1);
  }
  OptimWrapperState state;
  TensorMap tensors, gradients;
  ASSERT_THAT(first.wrapper->SaveState(&state, &tensors, &gradients), IsOk());
  Model second;
  ASSERT_THAT(second.wrapper->LoadState(state, tensors, gradients), IsOk());
  EXPECT_EQ(*second.wrapper->scheduled_groups().option(0, "lr"), 0.25);
  EXPECT_EQ(*second.wrapper->scheduled_groups().option(1, "lr"), 0.5);
  EXPECT_EQ(*second.wrapper->scheduled_groups().option(2, "lr"), 0.75);
}

// The first run's last window is short; the second one's windows start where it
// ended.
TEST(OptimWrapperStateTest, ExtendedRunGoesOnWithWholeWindows) {
  constexpr int64_t kCounts = 4;
  GoldenRun first(kCounts);
  first.wrapper().InitializeCounts(0, 10);
  for (int64_t i = 0; i < 10; ++i) first.Iterate(i, 100);
  OptimWrapperState state;
  TensorMap tensors, gradients;
  ASSERT_THAT(first.wrapper().SaveState(&state, &tensors, &gradients), IsOk());
  EXPECT_TRUE(gradients.empty());

  GoldenRun second(kCounts, {0, 0});
  second.wrapper().InitializeCounts(10, 20);
  ASSERT_THAT(second.wrapper().LoadState(state, tensors, gradients), IsOk());
  // Windows of items 11 to 14, 15 to 18, and 19 and 20.
  const double steps[] = {0, 0, 0, 12.5, 0, 0, 0, 16.5, 0, 19.5};
  double expected = 0;
  for (int64_t i = 10; i < 20; ++i) {
    SCOPED_TRACE(i);
    EXPECT_EQ(second.wrapper().accumulated(), (i - 10) % kCounts);
    second.Iterate(i, 100);
    expected -= 0.01 * steps[i - 10];
    EXPECT_NEAR(second.w()[0].item<double>(), expected, 1e-12);
  }
  EXPECT_EQ(second.wrapper().accumulated(), 0);
}

// Saved inside the last window, which is no longer the last, or the other way
// round: what it holds is divided by what it comes to hold.
TEST(OptimWrapperStateTest, WindowWhoseLengthChangesIsStillAMean) {
  struct Case {
    int64_t max_before;
    int64_t max_after;
    int64_t window;  // Iterations from 8 on.
  };
  for (const Case& test : {Case{10, 20, 4}, Case{20, 10, 2}, Case{-1, 11, 3}}) {
    SCOPED_TRACE(test.max_after);
    GoldenRun first(4);
    first.wrapper().InitializeCounts(0, test.max_before);
    for (int64_t i = 0; i < 9; ++i) first.Iterate(i, 100);
    OptimWrapperState state;
    TensorMap tensors, gradients;
    ASSERT_THAT(first.wrapper().SaveState(&state, &tensors, &gradients),
                IsOk());
    GoldenRun second(4, {0, 0});
    second.wrapper().InitializeCounts(9, test.max_after);
    ASSERT_THAT(second.wrapper().LoadState(state, tensors, gradients), IsOk());
    double sum = 9;
    for (int64_t i = 9; i < 8 + test.window; ++i) {
      EXPECT_EQ(second.w()[0].item<double>(), 0);
      second.Iterate(i, 100);
      sum += static_cast<double>(i + 1);
    }
    EXPECT_NEAR(second.w()[0].item<double>(),
                -0.01 * sum / static_cast<double>(test.window), 1e-12);
  }
}

constexpr char kThreeBySamples[] =
    "optimizer { sgd { lr: 1 } } accumulative_counts: 3 "
    "accumulate_by: SAMPLES";

// Also a window in which nothing has counted so far, or does at all.
TEST(OptimWrapperStateTest, WindowKeepsItsWeights) {
  const std::vector<double> weights = {0, 0.5, 1.5, 0, 0, 0, 2, 0, 6};
  for (size_t cut = 0; cut <= weights.size(); ++cut) {
    SCOPED_TRACE(cut);
    const at::Tensor w = Leaf({0});
    const auto update = [&](OptimWrapper& wrapper, size_t i) {
      const double grad = static_cast<double>(1 << i);
      ASSERT_THAT(wrapper.Update((w * grad).sum(), weights[i]), IsOk());
    };
    auto first = Make(kThreeBySamples, {{"w", w}});
    for (size_t i = 0; i < cut; ++i) update(*first, i);
    OptimWrapperState state;
    TensorMap tensors, gradients;
    ASSERT_THAT(first->SaveState(&state, &tensors, &gradients), IsOk());
    auto second = Make(kThreeBySamples, {{"w", w}});
    ASSERT_THAT(second->LoadState(state, tensors, Copy(gradients)), IsOk());
    EXPECT_EQ(second->accumulated(), static_cast<int64_t>(cut % 3));
    for (size_t i = cut; i < weights.size(); ++i) update(*second, i);
    // (0.5 * 2 + 1.5 * 4) / 2, nothing, and (2 * 64 + 6 * 256) / 8.
    EXPECT_DOUBLE_EQ(w.item<double>(), -(3.5 + 208));
  }
}

// Of before there were weights.
TEST(OptimWrapperStateTest, WindowOfAnOlderCheckpointHasSamples) {
  const at::Tensor w = Leaf({0});
  auto first = Make(kThreeBySamples, {{"w", w}});
  ASSERT_THAT(first->Update((w * 1).sum(), 2), IsOk());
  ASSERT_THAT(first->Update((w * 5).sum(), 6), IsOk());
  OptimWrapperState state;
  TensorMap tensors, gradients;
  ASSERT_THAT(first->SaveState(&state, &tensors, &gradients), IsOk());
  EXPECT_EQ(state.window_weight(), 8);
  EXPECT_EQ(state.first_weight(), 2);
  state.clear_window_weight();
  state.clear_first_weight();
  state.set_window_samples(8);
  state.set_first_samples(2);
  auto second = Make(kThreeBySamples, {{"w", w}});
  ASSERT_THAT(second->LoadState(state, tensors, Copy(gradients)), IsOk());
  ASSERT_THAT(second->Update((w * 10).sum(), 2), IsOk());
  EXPECT_DOUBLE_EQ(w.item<double>(), -5.2);  // (2 * 1 + 6 * 5 + 2 * 10) / 10.
}

TEST(OptimWrapperStateTest, WindowOfAnotherSizeGoesOn) {
  GoldenRun first(3);
  first.Iterate(0, 100);
  OptimWrapperState state;
  TensorMap tensors, gradients;
  ASSERT_THAT(first.wrapper().SaveState(&state, &tensors, &gradients), IsOk());
  GoldenRun second(2);
  ASSERT_THAT(second.wrapper().LoadState(state, tensors, gradients), IsOk());
  EXPECT_EQ(second.wrapper().accumulated(), 1);
  // The first of three is the first of two: (1 + 2) / 2.
  second.Iterate(1, 100);
  EXPECT_DOUBLE_EQ(second.w()[0].item<double>(), 0.985);
  // And the next window is whole: (3 + 4) / 2.
  second.Iterate(2, 100);
  second.Iterate(3, 100);
  EXPECT_DOUBLE_EQ(second.w()[0].item<double>(), 0.95);
}

// Four of eight are there, and a window holds two now: the fifth ends it.
TEST(OptimWrapperStateTest, WindowThatHoldsMoreThanItsNewSizeEndsAtOnce) {
  GoldenRun first(8);
  for (int i = 0; i < 4; ++i) first.Iterate(i, 100);
  OptimWrapperState state;
  TensorMap tensors, gradients;
  ASSERT_THAT(first.wrapper().SaveState(&state, &tensors, &gradients), IsOk());
  GoldenRun second(2);
  ASSERT_THAT(second.wrapper().LoadState(state, tensors, gradients), IsOk());
  second.Iterate(4, 100);
  EXPECT_EQ(second.wrapper().accumulated(), 0);
  // The mean of 1 to 5.
  EXPECT_NEAR(second.w()[0].item<double>(), 0.97, 1e-7);
}

TEST(OptimWrapperStateTest, WindowByAnotherMeanIsDropped) {
  const at::Tensor w = Leaf({1});
  const std::string config =
      "optimizer { sgd { lr: 1 } } accumulative_counts: 2 accumulate_by: ";
  auto first = Make(config + "SAMPLES", {{"w", w}});
  ASSERT_THAT(first->Update((w * 2).sum(), 5), IsOk());
  OptimWrapperState state;
  TensorMap tensors, gradients;
  ASSERT_THAT(first->SaveState(&state, &tensors, &gradients), IsOk());
  auto second = Make(config + "ITERATIONS", {{"w", w}});
  ASSERT_THAT(second->LoadState(state, tensors, gradients), IsOk());
  EXPECT_EQ(second->accumulated(), 0);
  EXPECT_FALSE(w.grad().defined());
}

// The gradients in the window are of a loss that was scaled by 8.
TEST(OptimWrapperStateTest, WindowGoesOnWithTheScaleOfTheConfig) {
  const std::string config =
      "optimizer { sgd { lr: 1 } } accumulative_counts: 2 ";
  const auto fixed = [](const char* scale) {
    return std::string("amp { dtype: FLOAT16 loss_scale { dynamic: false ") +
           "init_scale: " + scale + " } }";
  };
  for (const std::string& amp : {std::string(), fixed("8"), fixed("64"),
                                 std::string("amp { dtype: FLOAT16 }"),
                                 std::string("amp { dtype: BFLOAT16 }")}) {
    SCOPED_TRACE(amp);
    const at::Tensor w = Leaf({0});
    auto first = Make(config + fixed("8"), {{"w", w}});
    ASSERT_THAT(first->Update((w * 2).sum()), IsOk());
    EXPECT_EQ(w.grad().item<double>(), 8);
    OptimWrapperState state;
    TensorMap tensors, gradients;
    ASSERT_THAT(first->SaveState(&state, &tensors, &gradients), IsOk());
    auto second = Make(config + amp, {{"w", w}});
    ASSERT_THAT(second->LoadState(state, tensors, gradients), IsOk());
    ASSERT_THAT(second->Update((w * 4).sum()), IsOk());
    EXPECT_EQ(w.item<double>(), -3);
  }
}

TEST(OptimWrapperStateTest, DamagedStatesAreRefusedAndChangeNothing) {
  Model model(std::string(kResumeConfig) +
              "accumulate_by: SAMPLES amp { dtype: FLOAT16 }");
  for (int64_t i = 0; i < 5; ++i) model.Iterate(i);
  OptimWrapperState good;
  TensorMap tensors, gradients;
  ASSERT_THAT(model.wrapper->SaveState(&good, &tensors, &gradients), IsOk());
  const TensorMap before = Copy(gradients);

  struct Case {
    const char* message;
    std::function<void(OptimWrapperState*)> damage;
  };
  const Case cases[] = {
      {"inner_count: must be >= 0, is -1",
       [](OptimWrapperState* state) { state->set_inner_count(-1); }},
      {"window_begin: must be in [0, 5], is 6",
       [](OptimWrapperState* state) { state->set_window_begin(6); }},
      {"window_size: must be more than the window holds, is 2",
       [](OptimWrapperState* state) { state->set_window_size(2); }},
      {"first_weight: must be finite and > 0, is 0",
       [](OptimWrapperState* state) { state->clear_first_weight(); }},
      {"first_weight: must be finite and > 0, is nan",
       [](OptimWrapperState* state) { state->set_first_weight(NAN); }},
      {"window_weight: must be finite and >= 4, is 3.5",
       [](OptimWrapperState* state) { state->set_window_weight(3.5); }},
      {"window_weight: must be finite and >= 4, is inf",
       [](OptimWrapperState* state) { state->set_window_weight(INFINITY); }},
      {"first_weight: must be finite and > 0, is -3",
       [](OptimWrapperState* state) {
         state->clear_window_weight();
         state->clear_first_weight();
         state->set_window_samples(4);
         state->set_first_samples(-3);
       }},
      {"loss_scale: scale: must be > 0 and a float32, is 0",
       [](OptimWrapperState* state) {
         state->mutable_loss_scale()->clear_scale();
       }},
      {"the state is of 1 optimizers, this is one",
       [](OptimWrapperState* state) { state->add_optimizers(); }},
      {"gradients: \"x\" is no parameter",
       [](OptimWrapperState* state) { state->add_gradients("x"); }},
      {"base_options: lr is missing",
       [](OptimWrapperState* state) {
         state->mutable_base_options()->erase("lr");
       }},
      {"base_options: lr: must be finite, is nan",
       [](OptimWrapperState* state) {
         (*state->mutable_base_options())["lr"] =
             std::numeric_limits<double>::quiet_NaN();
       }},
      {"optimizer: the state is of optimizer SGD, this is AdamW",
       [](OptimWrapperState* state) {
         state->mutable_optimizer()->set_type("SGD");
       }},
  };
  for (const Case& test : cases) {
    OptimWrapperState bad = good;
    test.damage(&bad);
    EXPECT_THAT(
        model.wrapper->LoadState(bad, tensors, gradients),
        StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(test.message)));
  }
  EXPECT_THAT(model.wrapper->LoadState(good, tensors, TensorMap()),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("\"fc.weight\" is missing in the state")));
  TensorMap misshapen;
  ASSERT_THAT(misshapen.Add("fc.weight", torch::ones({2})), IsOk());
  EXPECT_THAT(model.wrapper->LoadState(good, tensors, misshapen),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("\"fc.weight\" has another shape or dtype")));
  EXPECT_EQ(model.wrapper->accumulated(), 2);
  EXPECT_TRUE(torch::equal(model.weight.grad(), *before.Find("fc.weight")));
}

// ---- Parameter groups ----

std::vector<NamedTensor> NetParams() {
  std::vector<NamedTensor> params;
  for (const char* name : {"backbone.conv.weight", "backbone.bn.weight",
                           "backbone.bn.bias", "head.weight", "head.bias"}) {
    const bool flat = std::string(name).find("bn") != std::string::npos ||
                      std::string(name).find("bias") != std::string::npos;
    params.push_back(
        {name,
         (flat ? torch::ones({3}) : torch::ones({3, 3})).requires_grad_()});
  }
  params.push_back({"frozen.weight", torch::ones({3})});
  return params;
}

struct GroupsCase {
  const char* name;
  const char* paramwise;
  // "names separated by blanks: lr, weight_decay" with lr 0.5, decay 0.25.
  std::vector<std::string> groups;
};

void PrintTo(const GroupsCase& test, std::ostream* out) { *out << test.name; }

class OptimWrapperGroupsTest : public ::testing::TestWithParam<GroupsCase> {};

TEST_P(OptimWrapperGroupsTest, AreMadeByMultipliers) {
  auto wrapper = Make(
      "optimizer { adamw { lr: 0.5 weight_decay: 0.25 } } paramwise_cfg { " +
          std::string(GetParam().paramwise) + " }",
      NetParams());
  ASSERT_NE(wrapper, nullptr);
  std::vector<std::string> groups;
  Optimizer& optimizer = *wrapper->optimizer();
  for (int i = 0; i < optimizer.num_groups(); ++i) {
    std::string text;
    for (const NamedTensor& param : optimizer.params(i)) {
      text += param.name + " ";
    }
    char numbers[64];
    std::snprintf(numbers, sizeof(numbers), "%g %g", *optimizer.option(i, "lr"),
                  *optimizer.option(i, "weight_decay"));
    groups.push_back(text + numbers);
  }
  EXPECT_EQ(groups, GetParam().groups);

  // The base group has the configured values, and is there only if it is
  // needed.
  ParamGroups& scheduled = wrapper->scheduled_groups();
  const bool several = groups.size() > 1;
  ASSERT_EQ(scheduled.num_groups(), optimizer.num_groups() + several);
  EXPECT_EQ(scheduled.option(0, "lr"), optimizer.option(0, "lr"));
  std::vector<std::string> logged;
  for (const auto& entry : wrapper->logged_lrs()) logged.push_back(entry.first);
  if (several) {
    const int base = scheduled.num_groups() - 1;
    EXPECT_EQ(*scheduled.option(base, "lr"), 0.5);
    EXPECT_EQ(*scheduled.option(base, "weight_decay"), 0.25);
    EXPECT_EQ(scheduled.option(base, "warmth"), nullptr);
    EXPECT_THAT(logged, ElementsAre("base_lr", "lr"));
    EXPECT_EQ(wrapper->logged_lrs()[0].second, scheduled.option(base, "lr"));
  } else {
    EXPECT_THAT(logged, ElementsAre("lr"));
  }
}

INSTANTIATE_TEST_SUITE_P(
    Configs, OptimWrapperGroupsTest,
    ::testing::Values(
        GroupsCase{"None",
                   "",
                   {"backbone.conv.weight backbone.bn.weight backbone.bn.bias "
                    "head.weight head.bias 0.5 0.25"}},
        GroupsCase{"OneRule",
                   "rules { pattern: '^backbone' lr_mult: 0.5 }",
                   {"backbone.conv.weight backbone.bn.weight backbone.bn.bias "
                    "0.25 0.25",
                    "head.weight head.bias 0.5 0.25"}},
        GroupsCase{"FirstRuleWins",
                   "rules { pattern: 'bn' lr_mult: 2 } "
                   "rules { pattern: 'backbone' lr_mult: 0 decay_mult: 0 }",
                   {"backbone.conv.weight 0 0",
                    "backbone.bn.weight backbone.bn.bias 1 0.25",
                    "head.weight head.bias 0.5 0.25"}},
        GroupsCase{
            "BiasAndNorm",
            "bias_lr_mult: 2 bias_decay_mult: 0 norm_decay_mult: 0",
            {"backbone.conv.weight head.weight 0.5 0.25",
             "backbone.bn.weight 0.5 0", "backbone.bn.bias head.bias 1 0"}},
        GroupsCase{"RulesGoBeforeBiasAndNorm",
                   "rules { pattern: 'bn' } bias_lr_mult: 2 norm_decay_mult: 0",
                   {"backbone.conv.weight backbone.bn.weight backbone.bn.bias "
                    "head.weight 0.5 0.25",
                    "head.bias 1 0.25"}},
        GroupsCase{"EqualMultipliersMakeOneGroup",
                   "rules { pattern: 'bn' lr_mult: 1 decay_mult: 1 }",
                   {"backbone.conv.weight backbone.bn.weight backbone.bn.bias "
                    "head.weight head.bias 0.5 0.25"}},
        GroupsCase{"OptionsOfItsOwn",
                   "rules { pattern: 'head' lr: 3 weight_decay: 0 } "
                   "rules { pattern: 'bn' weight_decay: 0.125 lr_mult: 2 }",
                   {"backbone.conv.weight 0.5 0.25",
                    "backbone.bn.weight backbone.bn.bias 1 0.125",
                    "head.weight head.bias 3 0"}},
        GroupsCase{"RulesWithOptionsStayApart",
                   "rules { pattern: 'head' lr: 3 } "
                   "rules { pattern: 'bn' lr: 3 }",
                   {"backbone.conv.weight 0.5 0.25",
                    "backbone.bn.weight backbone.bn.bias 3 0.25",
                    "head.weight head.bias 3 0.25"}},
        GroupsCase{"AnOptionAsConfiguredIsAGroupToo",
                   "rules { pattern: 'head' lr: 0.5 }",
                   {"backbone.conv.weight backbone.bn.weight backbone.bn.bias "
                    "0.5 0.25",
                    "head.weight head.bias 0.5 0.25"}},
        GroupsCase{"RuleForAFrozenParameter",
                   "rules { pattern: 'frozen' lr_mult: 2 }",
                   {"backbone.conv.weight backbone.bn.weight backbone.bn.bias "
                    "head.weight head.bias 0.5 0.25"}}),
    [](const auto& info) { return std::string(info.param.name); });

// Around torch::optim::SGD, as a project's own.
struct TorchSgd {
  using Config = google::protobuf::DoubleValue;
  static absl::StatusOr<std::unique_ptr<Optimizer>> Create(
      const Config& config, std::vector<ParamGroup> groups) {
    std::vector<torch::optim::OptimizerParamGroup> torch_groups;
    std::vector<NamedTensor> params;
    for (const ParamGroup& group : groups) {
      std::vector<at::Tensor> tensors;
      for (const NamedTensor& param : group.params) {
        tensors.push_back(param.tensor);
        params.push_back(param);
      }
      torch_groups.emplace_back(
          std::move(tensors),
          std::make_unique<torch::optim::SGDOptions>(
              torch::optim::SGDOptions(config.value() * group.lr_mult)
                  .momentum(0.5)));
    }
    return WrapTorchOptimizer(
        std::make_shared<torch::optim::SGD>(
            std::move(torch_groups), torch::optim::SGDOptions(config.value())),
        std::move(params));
  }
};
GRAPNEL_REGISTER(OptimizerRegistry, TorchSgd);

// The rule that names a group is what the optimizer steps by.
TEST(OptimWrapperOptionsTest, AreWhatTheGroupIsSteppedWith) {
  struct Case {
    std::string optimizer;
    std::string rule;
    std::string alone;  // The optimizer that "a" should be as one of.
  };
  for (const Case& c : std::vector<Case>{
           {"sgd { lr: 0.5 momentum: 0.9 }", "lr: 0.25 momentum: 0.5",
            "sgd { lr: 0.25 momentum: 0.5 }"},
           {"sgd { lr: 0.5 momentum: 0.9 }", "momentum: 0", "sgd { lr: 0.5 }"},
           {"adam { lr: 0.5 }", "beta1: 0.5 beta2: 0.75 weight_decay: 0.125",
            "adam { lr: 0.5 beta1: 0.5 beta2: 0.75 weight_decay: 0.125 }"},
           {"adamw { lr: 0.5 }", "lr: 2 weight_decay: 0",
            "adamw { lr: 2 weight_decay: 0 }"},
           {"custom { [type.googleapis.com/google.protobuf.DoubleValue] { "
            "value: 0.5 } }",
            "lr: 2 momentum: 0.25", "sgd { lr: 2 momentum: 0.25 }"},
       }) {
    SCOPED_TRACE(c.optimizer + " " + c.rule);
    const auto params = [] {
      return std::vector<NamedTensor>{{"a", torch::ones({3}).requires_grad_()},
                                      {"b", torch::ones({3}).requires_grad_()}};
    };
    const std::vector<NamedTensor> both = params(), alone = params();
    auto grouped =
        Make("optimizer { " + c.optimizer +
                 " } paramwise_cfg { rules { pattern: 'a' " + c.rule + " } }",
             both);
    auto one = Make("optimizer { " + c.alone + " }", alone);
    auto rest = Make("optimizer { " + c.optimizer + " }", {alone[1]});
    ASSERT_NE(grouped, nullptr);
    ASSERT_NE(one, nullptr);
    ASSERT_NE(rest, nullptr);
    for (int i = 0; i < 3; ++i) {
      ASSERT_THAT(grouped->Update(both[0].tensor.square().sum() +
                                  both[1].tensor.square().sum()),
                  IsOk());
      ASSERT_THAT(one->Update(alone[0].tensor.square().sum()), IsOk());
      ASSERT_THAT(rest->Update(alone[1].tensor.square().sum()), IsOk());
    }
    EXPECT_TRUE(both[0].tensor.equal(alone[0].tensor)) << both[0].tensor;
    EXPECT_TRUE(both[1].tensor.equal(alone[1].tensor)) << both[1].tensor;
  }
}

TEST(OptimWrapperOptionsTest, AreScaledWithTheOthers) {
  auto wrapper = Make(
      "optimizer { sgd { lr: 0.5 } } paramwise_cfg { rules { pattern: 'head' "
      "lr: 3 } }",
      NetParams());
  ASSERT_NE(wrapper, nullptr);
  ASSERT_THAT(wrapper->ScaleLr(2), IsOk());
  EXPECT_EQ(*wrapper->optimizer()->option(1, "lr"), 6);
}

// ---- Clipping ----

struct ClipCase {
  const char* name;
  double max_norm;
  double norm_type;
};

void PrintTo(const ClipCase& test, std::ostream* out) { *out << test.name; }

class OptimWrapperClipTest : public ::testing::TestWithParam<ClipCase> {};

TEST_P(OptimWrapperClipTest, EqualsLibTorchsClipGradNorm) {
  const ClipCase& test = GetParam();
  for (const at::ScalarType dtype : {at::kDouble, at::kFloat}) {
    torch::manual_seed(3);
    std::vector<at::Tensor> ours, theirs, grads;
    for (const int64_t size : {5, 1, 40}) {
      ours.push_back(torch::zeros({size}, dtype).requires_grad_());
      theirs.push_back(torch::zeros({size}, dtype));
      grads.push_back(torch::randn({size}, dtype));
      theirs.back().mutable_grad() = grads.back().clone();
    }
    const double norm = torch::nn::utils::clip_grad_norm_(theirs, test.max_norm,
                                                          test.norm_type);

    char config[200];
    std::snprintf(config, sizeof(config),
                  "optimizer { sgd { lr: 1 } } clip_grad { max_norm: %g "
                  "norm_type: %g error_if_nonfinite: true }",
                  test.max_norm, test.norm_type);
    auto wrapper =
        Make(config, {{"a", ours[0]}, {"b", ours[1]}, {"c", ours[2]}});
    ASSERT_NE(wrapper, nullptr);
    RecordingObserver observer;
    wrapper->set_step_observer(&observer);
    at::Tensor loss = torch::zeros({}, dtype);
    for (size_t i = 0; i < ours.size(); ++i) {
      loss = loss + (ours[i] * grads[i]).sum();
    }
    ASSERT_THAT(wrapper->Update(loss), IsOk());
    const double tolerance = dtype == at::kDouble ? 1e-14 : 1e-6;
    EXPECT_NEAR(observer.grad_norm.item<double>(), norm, tolerance * norm);
    for (size_t i = 0; i < ours.size(); ++i) {
      EXPECT_TRUE(torch::allclose(-ours[i].detach(), theirs[i].grad(),
                                  tolerance, tolerance));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Norms, OptimWrapperClipTest,
    ::testing::Values(ClipCase{"Two", 0.5, 2},
                      ClipCase{"NothingToClip", 1e6, 2}, ClipCase{"One", 3, 1},
                      ClipCase{"Three", 0.1, 3},
                      ClipCase{"Max", 0.5,
                               std::numeric_limits<double>::infinity()}),
    [](const auto& info) { return std::string(info.param.name); });

TEST(OptimWrapperTest, ClipsByValue) {
  const at::Tensor w = Leaf({0, 0, 0});
  auto wrapper = Make(
      "optimizer { sgd { lr: 1 } } clip_grad { type: VALUE clip_value: 0.5 }",
      {{"w", w}, {"unused", Leaf({1})}});
  RecordingObserver observer;
  wrapper->set_step_observer(&observer);
  const at::Tensor x = torch::tensor({3.0, -3.0, 0.25}, at::kDouble);
  ASSERT_THAT(wrapper->Update((w * x).sum()), IsOk());
  EXPECT_TRUE(torch::equal(w, torch::tensor({-0.5, 0.5, -0.25}, at::kDouble)));
  EXPECT_FALSE(observer.grad_norm.defined());
}

TEST(OptimWrapperTest, NonfiniteNormIsAnErrorOnRequestAndThenNothingSteps) {
  for (const bool strict : {false, true}) {
    const at::Tensor w = Leaf({1});
    auto wrapper = Make(
        std::string("optimizer { sgd { lr: 1 } } clip_grad { max_norm: 1 ") +
            (strict ? "error_if_nonfinite: true }" : "}"),
        {{"w", w}});
    const absl::Status status =
        wrapper->Update((w * std::numeric_limits<double>::infinity()).sum());
    if (strict) {
      EXPECT_THAT(status, StatusIs(absl::StatusCode::kFailedPrecondition,
                                   HasSubstr("the gradients' norm is inf")));
      EXPECT_EQ(w.item<double>(), 1);
    } else {
      EXPECT_THAT(status, IsOk());
      EXPECT_TRUE(std::isnan(w.item<double>()));
    }
  }
}

// A caller that takes the error for a bad batch goes on with the next one.
TEST(OptimWrapperTest, NonfiniteNormEndsTheWindowAndDoesNotCount) {
  const at::Tensor w = Leaf({1, 1});
  auto wrapper = Make(
      "optimizer { sgd { lr: 1 } } accumulative_counts: 2 "
      "clip_grad { max_norm: 1 error_if_nonfinite: true }",
      {{"w", w}});
  ASSERT_THAT(wrapper->Update(w.sum()), IsOk());
  const at::Tensor x = torch::tensor(
      {std::numeric_limits<double>::infinity(), 7.0}, at::kDouble);
  EXPECT_THAT(wrapper->Update((w * x).sum()),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("the gradients' norm is inf")));
  EXPECT_EQ(wrapper->accumulated(), 0);
  EXPECT_EQ(w.grad()[1].item<double>(), 4);  // (1 + 7) / 2, not clipped.
  ASSERT_THAT(wrapper->Update((w * 0.25).sum()), IsOk());
  EXPECT_EQ(wrapper->accumulated(), 1);
  ASSERT_THAT(wrapper->Update((w * 0.75).sum()), IsOk());
  EXPECT_EQ(wrapper->accumulated(), 0);
  EXPECT_DOUBLE_EQ(w[0].item<double>(), 0.5);
}

TEST(OptimWrapperTest, FailedBackwardEndsTheWindow) {
  const at::Tensor w = Leaf({1});
  auto wrapper =
      Make("optimizer { sgd { lr: 1 } } accumulative_counts: 2", {{"w", w}});
  ASSERT_THAT(wrapper->Update((w * 8).sum()), IsOk());
  const at::Tensor y = w.exp();
  const at::Tensor loss = y.sum() + w.sum();
  y.detach().mul_(2);  // What the backward pass of exp needs.
  EXPECT_THAT(std::string(wrapper->Update(loss).message()),
              AllOf(HasSubstr("backward: "), HasSubstr("inplace")));
  EXPECT_EQ(wrapper->accumulated(), 0);
  ASSERT_THAT(wrapper->Update((w * 0.25).sum()), IsOk());
  ASSERT_THAT(wrapper->Update((w * 0.75).sum()), IsOk());
  EXPECT_DOUBLE_EQ(w.item<double>(), 0.5);
}

// ---- The step ----

TEST(OptimWrapperTest, ObserverHearsOfStepsInOrder) {
  const at::Tensor w = Leaf({1});
  auto wrapper = Make(
      "optimizer { sgd { lr: 1 } } accumulative_counts: 2 "
      "clip_grad { max_norm: 0.5 }",
      {{"w", w}});
  RecordingObserver observer;
  wrapper->set_step_observer(&observer);
  double grad = 0;
  observer.on_before = [&] { grad = w.grad().item<double>(); };
  ASSERT_THAT(wrapper->Update((w * 4).sum()), IsOk());
  EXPECT_THAT(observer.events, IsEmpty());
  ASSERT_THAT(wrapper->Update((w * 8).sum()), IsOk());
  EXPECT_THAT(observer.events, ElementsAre("before", "stepped"));
  EXPECT_EQ(grad, 6);  // Whole, and not clipped yet.
  EXPECT_EQ(observer.grad_norm.item<double>(), 6);
  EXPECT_NEAR(w.item<double>(), 0.5, 1e-6);
  EXPECT_TRUE(w.grad().defined());  // Still there to be looked at.
  wrapper->BeginStep();
  EXPECT_FALSE(w.grad().defined());
}

TEST(OptimWrapperTest, ObserversErrorsEndTheUpdate) {
  const at::Tensor w = Leaf({1});
  auto wrapper = Make("optimizer { sgd { lr: 1 } }", {{"w", w}});
  RecordingObserver observer;
  wrapper->set_step_observer(&observer);
  observer.before_status = absl::CancelledError("before");
  EXPECT_THAT(wrapper->Update(w.sum()),
              StatusIs(absl::StatusCode::kCancelled, "before"));
  EXPECT_EQ(w.item<double>(), 1);
  observer.before_status = absl::OkStatus();
  observer.after_status = absl::CancelledError("after");
  EXPECT_THAT(wrapper->Update(w.sum()),
              StatusIs(absl::StatusCode::kCancelled, "after"));
  EXPECT_EQ(w.item<double>(), 0);
  wrapper->BeginStep();
  EXPECT_FALSE(w.grad().defined());  // The step was made.
}

TEST(OptimWrapperTest, SkippedStepEndsItsWindowAndChangesNothing) {
  const at::Tensor w = Leaf({1});
  auto wrapper = Make(
      "optimizer { adamw { lr: 1 } } accumulative_counts: 2 "
      "clip_grad { max_norm: 1 error_if_nonfinite: true }",
      {{"w", w}});
  RecordingObserver observer;
  wrapper->set_step_observer(&observer);
  wrapper->SkipStep();  // No step is due: does nothing.
  observer.on_before = [&] {
    if (!std::isfinite(w.grad().item<double>())) wrapper->SkipStep();
  };
  const double nan = std::numeric_limits<double>::quiet_NaN();
  ASSERT_THAT(wrapper->Update((w * nan).sum()), IsOk());
  ASSERT_THAT(wrapper->Update(w.sum()), IsOk());
  EXPECT_THAT(observer.events, ElementsAre("before", "skipped"));
  EXPECT_FALSE(observer.grad_norm.defined());
  EXPECT_EQ(w.item<double>(), 1);
  EXPECT_EQ(wrapper->accumulated(), 0);
  OptimWrapperState state;
  TensorMap tensors, gradients;
  ASSERT_THAT(wrapper->SaveState(&state, &tensors, &gradients), IsOk());
  EXPECT_TRUE(tensors.empty());
  EXPECT_TRUE(gradients.empty());

  // The next window starts without what the NaN left.
  ASSERT_THAT(wrapper->Update(w.sum()), IsOk());
  ASSERT_THAT(wrapper->Update(w.sum()), IsOk());
  EXPECT_THAT(observer.events,
              ElementsAre("before", "skipped", "before", "stepped"));
  EXPECT_TRUE(std::isfinite(w.item<double>()));
  EXPECT_LT(w.item<double>(), 1);
}

TEST(OptimWrapperTest, HasOneOptimizerWithoutAName) {
  auto wrapper = Make("optimizer { sgd {} }", {{"w", Leaf({1})}});
  EXPECT_THAT(wrapper->Get("generator"),
              StatusIs(absl::StatusCode::kNotFound,
                       HasSubstr("there is one optimizer, without a name")));
}

// ---- Loss scaling ----

TEST(OptimWrapperScaleTest, OthersSeeGradientsUnscaled) {
  const at::Tensor w = Leaf({1, 1});
  auto wrapper = Make(
      "optimizer { sgd { lr: 1 } } clip_grad { max_norm: 0.5 } "
      "amp { dtype: FLOAT16 loss_scale { init_scale: 1024 } }",
      {{"w", w}});
  RecordingObserver observer;
  wrapper->set_step_observer(&observer);
  double grad = 0;
  observer.on_before = [&] { grad = w.grad()[0].item<double>(); };
  const at::Tensor x = torch::tensor({3.0, 4.0}, at::kDouble);
  ASSERT_THAT(wrapper->Update((w * x).sum()), IsOk());
  EXPECT_EQ(grad, 3);
  EXPECT_EQ(observer.scale, 1024);
  EXPECT_EQ(observer.grad_norm.item<double>(), 5);
  EXPECT_NEAR(w[0].item<double>(), 0.7, 1e-6);
}

TEST(OptimWrapperScaleTest, OverflowLeavesTheStepOutAndLowersTheScale) {
  const at::Tensor w = torch::ones({1}).requires_grad_();
  auto wrapper = Make(
      "optimizer { sgd { lr: 1 } } "
      "clip_grad { max_norm: 100 error_if_nonfinite: true } "
      "amp { dtype: FLOAT16 loss_scale { init_scale: 65536 "
      "growth_interval: 2 } }",
      {{"w", w}});
  RecordingObserver observer;
  wrapper->set_step_observer(&observer);
  // A gradient of 1.5 passes through float16, where 65504 is the largest.
  const auto update = [&] {
    ASSERT_THAT(wrapper->Update((w.to(at::kHalf) * 1.5).sum()), IsOk());
  };
  update();
  EXPECT_THAT(observer.events, ElementsAre("before", "skipped"));
  EXPECT_EQ(observer.scale, 65536);
  EXPECT_FALSE(observer.grad_norm.defined());
  EXPECT_EQ(w.item<double>(), 1);
  observer.events.clear();
  update();
  EXPECT_THAT(observer.events, ElementsAre("before", "stepped"));
  EXPECT_EQ(observer.scale, 32768);
  EXPECT_EQ(w.item<double>(), -0.5);
  update();
  EXPECT_EQ(w.item<double>(), -2);
  update();  // Two good steps: the scale has grown, and overflows again.
  EXPECT_EQ(observer.scale, 65536);
  EXPECT_EQ(w.item<double>(), -2);
}

// 2^-26 is zero in float16, and so is its gradient without the scale.
TEST(OptimWrapperScaleTest, SmallGradientsSurviveFloat16) {
  const double tiny = std::ldexp(1, -26);
  for (const bool scaled : {false, true}) {
    const at::Tensor w = torch::zeros({1}).requires_grad_();
    auto wrapper = Make(std::string("optimizer { sgd { lr: 1 } } ") +
                            (scaled ? "amp { dtype: FLOAT16 }" : ""),
                        {{"w", w}});
    ASSERT_THAT(wrapper->Update((w.to(at::kHalf).to(at::kFloat) * tiny).sum()),
                IsOk());
    EXPECT_EQ(w.item<double>(), scaled ? -tiny : 0);
  }
}

TEST(OptimWrapperScaleTest, AHooksSkipSaysNothingAboutTheScale) {
  const at::Tensor w = Leaf({1});
  auto wrapper = Make(
      "optimizer { sgd { lr: 1 } } amp { dtype: FLOAT16 loss_scale { "
      "init_scale: 4 growth_interval: 1 } }",
      {{"w", w}});
  RecordingObserver observer;
  wrapper->set_step_observer(&observer);
  observer.on_before = [&] { wrapper->SkipStep(); };
  for (int i = 0; i < 3; ++i) {
    ASSERT_THAT(wrapper->Update(w.sum()), IsOk());
    EXPECT_EQ(observer.scale, 4);
  }
  EXPECT_EQ(w.item<double>(), 1);
}

TEST(OptimWrapperTest, RefusesLossesThatAutogradCannotUse) {
  const at::Tensor w = Leaf({1, 2});
  auto wrapper = Make("optimizer { sgd { lr: 1 } }", {{"w", w}});
  struct Case {
    at::Tensor loss;
    const char* message;
  };
  const Case cases[] = {
      {at::Tensor(), "loss: is undefined"},
      {w * 2, "loss: must be one floating number, is 2 of Double"},
      {torch::ones({}, at::kLong), "loss: must be one floating number"},
      {w.detach().sum(), "loss: doesn't depend on a parameter"},
  };
  for (const Case& test : cases) {
    EXPECT_THAT(
        wrapper->Update(test.loss),
        StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(test.message)));
  }
  // None of them counted.
  EXPECT_THAT(wrapper->ScaleLr(2), IsOk());
  // LibTorch's own error: a graph is used up by the first backward.
  const at::Tensor loss = w.square().sum();
  ASSERT_THAT(wrapper->Update(loss), IsOk());
  const absl::Status status = wrapper->Update(loss);
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(std::string(status.message()), HasSubstr("backward: "));
}

TEST(OptimWrapperTest, ScaleLrMovesAllGroupsBeforeTheFirstStepOnly) {
  Model model;
  ASSERT_THAT(model.wrapper->ScaleLr(0.5), IsOk());
  EXPECT_EQ(*model.wrapper->scheduled_groups().option(0, "lr"), 0.025);
  EXPECT_EQ(*model.wrapper->scheduled_groups().option(1, "lr"), 0.05);
  EXPECT_EQ(*model.wrapper->scheduled_groups().option(2, "lr"), 0.025);
  EXPECT_THAT(model.wrapper->ScaleLr(0),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "factor: must be finite and > 0, is 0"));
  model.Iterate(0);
  EXPECT_THAT(model.wrapper->ScaleLr(2),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("before the first step only")));
}

TEST(OptimWrapperTest, WrapsAnOptimizerOfTheCaller) {
  const at::Tensor w = Leaf({1});
  auto sgd = std::make_shared<torch::optim::SGD>(std::vector<at::Tensor>{w},
                                                 torch::optim::SGDOptions(0.5));
  auto optimizer = WrapTorchOptimizer(sgd, {{"w", w}});
  ASSERT_THAT(optimizer, IsOk());
  auto wrapper = OptimWrapper::Create(Parse("accumulative_counts: 2"),
                                      *std::move(optimizer));
  ASSERT_THAT(wrapper, IsOk());
  ASSERT_THAT((*wrapper)->Update(w.sum()), IsOk());
  ASSERT_THAT((*wrapper)->Update(w.sum()), IsOk());
  EXPECT_EQ(w.item<double>(), 0.5);
  EXPECT_EQ((*wrapper)->scheduled_groups().num_groups(), 1);
}

TEST(OptimWrapperTest, RefusesAConfigThatContradictsTheCallersOptimizer) {
  const at::Tensor w = Leaf({1});
  for (const char* config :
       {"optimizer { sgd {} }", "paramwise_cfg { bias_lr_mult: 2 }",
        "optimizers { name: 'a' }"}) {
    auto optimizer = WrapTorchOptimizer(
        std::make_shared<torch::optim::SGD>(std::vector<at::Tensor>{w},
                                            torch::optim::SGDOptions(0.5)),
        {{"w", w}});
    ASSERT_THAT(optimizer, IsOk());
    EXPECT_THAT(OptimWrapper::Create(Parse(config), *std::move(optimizer)),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         HasSubstr("must be unset around an optimizer")));
  }
  EXPECT_THAT(OptimWrapper::Create(Parse(""), std::unique_ptr<Optimizer>()),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("null")));
}

struct ErrorCase {
  const char* name;
  const char* config;  // Besides sgd.
  const char* message;
};

void PrintTo(const ErrorCase& test, std::ostream* out) { *out << test.name; }

class OptimWrapperErrorTest : public ::testing::TestWithParam<ErrorCase> {};

TEST_P(OptimWrapperErrorTest, NamesTheField) {
  EXPECT_THAT(OptimWrapper::Create(Parse(GetParam().config), NetParams()),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr(GetParam().message)));
}

#define SGD "optimizer { sgd { lr: 0.1 } } "

INSTANTIATE_TEST_SUITE_P(
    Configs, OptimWrapperErrorTest,
    ::testing::Values(
        ErrorCase{"NoOptimizer", "", "optimizer: must be set, to one of: sgd"},
        ErrorCase{"Lr", "optimizer { adamw { lr: -1 } }",
                  "optimizer: adamw: lr: must be finite and >= 0, is -1"},
        ErrorCase{"Accum", SGD "accumulative_counts: 0",
                  "accumulative_counts: must be >= 1, is 0"},
        ErrorCase{"Amp", SGD "amp {}",
                  "amp: dtype: must be set, to BFLOAT16 or FLOAT16"},
        ErrorCase{"LossScale",
                  SGD "amp { dtype: FLOAT16 loss_scale { init_scale: -1 } }",
                  "amp: loss_scale: init_scale: must be > 0"},
        ErrorCase{"NoMaxNorm", SGD "clip_grad {}",
                  "clip_grad: max_norm: must be set"},
        ErrorCase{"MaxNorm", SGD "clip_grad { max_norm: 0 }",
                  "clip_grad: max_norm: must be finite and > 0, is 0"},
        ErrorCase{"NormType", SGD "clip_grad { max_norm: 1 norm_type: nan }",
                  "clip_grad: norm_type: must be > 0, is nan"},
        ErrorCase{"NoClipValue", SGD "clip_grad { type: VALUE }",
                  "clip_grad: clip_value: must be set"},
        ErrorCase{"ClipValue", SGD "clip_grad { type: VALUE clip_value: inf }",
                  "clip_grad: clip_value: must be finite and > 0, is inf"},
        ErrorCase{"ClipValueWithNorm",
                  SGD "clip_grad { max_norm: 1 clip_value: 1 }",
                  "clip_grad: clip_value: is for type VALUE"},
        ErrorCase{"MaxNormWithValue",
                  SGD "clip_grad { type: VALUE clip_value: 1 max_norm: 1 }",
                  "clip_grad: max_norm, norm_type and error_if_nonfinite"},
        ErrorCase{"UnmatchedRule",
                  SGD "paramwise_cfg { rules { pattern: 'head' } "
                      "rules { pattern: 'neck' } }",
                  "paramwise_cfg: rules[1]: pattern: \"neck\" matches no "
                  "parameter"},
        ErrorCase{"BadPattern", SGD "paramwise_cfg { rules { pattern: 'a(' } }",
                  "paramwise_cfg: rules[0]: pattern: \"a(\": missing )"},
        ErrorCase{"NoPattern", SGD "paramwise_cfg { rules { lr_mult: 1 } }",
                  "paramwise_cfg: rules[0]: pattern: must be set"},
        ErrorCase{"RuleLrMult",
                  SGD "paramwise_cfg { rules { pattern: 'head' lr_mult: -1 } }",
                  "paramwise_cfg: rules[0]: lr_mult: must be finite and >= 0"},
        ErrorCase{"LrAndItsMult",
                  SGD "paramwise_cfg { rules { pattern: 'bn' } "
                      "rules { pattern: 'head' lr: 0.5 lr_mult: 1 } }",
                  "paramwise_cfg: rules[1]: lr: must be unset with lr_mult, is "
                  "0.5"},
        ErrorCase{"DecayAndItsMult",
                  SGD "paramwise_cfg { rules { pattern: 'head' weight_decay: 1 "
                      "decay_mult: 1 } }",
                  "paramwise_cfg: rules[0]: weight_decay: must be unset with "
                  "decay_mult"},
        ErrorCase{"RuleLr",
                  SGD "paramwise_cfg { rules { pattern: 'head' lr: -1 } }",
                  "paramwise_cfg: rules[0]: lr: must be finite and >= 0, is "
                  "-1"},
        ErrorCase{"RuleBeta",
                  SGD "paramwise_cfg { rules { pattern: 'head' beta2: 1 } }",
                  "paramwise_cfg: rules[0]: beta2: must be in [0, 1), is 1"},
        ErrorCase{"NoSuchOption",
                  SGD "paramwise_cfg { rules { pattern: 'bn' } "
                      "rules { pattern: 'head' beta1: 0.5 } }",
                  "paramwise_cfg: rules[1]: beta1: must be unset: SGD has no "
                  "such option as it is configured"},
        ErrorCase{"NoMomentum",
                  SGD "paramwise_cfg { rules { pattern: 'head' momentum: 0.5 } "
                      "}",
                  "paramwise_cfg: rules[0]: momentum: must be unset: SGD has "
                  "no such option as it is configured"},
        ErrorCase{"MomentumOfAdam",
                  "optimizer { adam {} } paramwise_cfg { "
                  "rules { pattern: 'head' momentum: 0.5 } }",
                  "paramwise_cfg: rules[0]: momentum: must be unset: Adam has "
                  "no such option, but beta1"},
        ErrorCase{"BiasMult", SGD "paramwise_cfg { bias_decay_mult: nan }",
                  "paramwise_cfg: bias_decay_mult: must be finite and >= 0"}),
    [](const auto& info) { return std::string(info.param.name); });

TEST(OptimWrapperErrorTest, NothingToOptimize) {
  EXPECT_THAT(OptimWrapper::Create(Parse(SGD), {{"w", torch::ones({2})}}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("no parameter requires a gradient")));
}

}  // namespace
}  // namespace grapnel
