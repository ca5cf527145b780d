#include "grapnel/models/sync_batch_norm.h"

#include <cstdint>
#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "google/protobuf/text_format.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/dist/fake_process_group.h"
#include "grapnel/dist/process_group.h"
#include "grapnel/dist/single_process_group.h"
#include "grapnel/models/functional.h"
#include "grapnel/models/layer.h"
#include "grapnel/models/layer.pb.h"
#include "grapnel/models/layer_chain.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::AllOf;
using ::testing::Each;
using ::testing::HasSubstr;
using ::testing::Values;

constexpr double kMomentum = 0.1;
constexpr double kEps = 1e-5;

// Values that every run has again, of about 1.
at::Tensor Filled(std::vector<int64_t> shape, double seed,
                  at::ScalarType dtype = at::kFloat) {
  int64_t numel = 1;
  for (const int64_t size : shape) numel *= size;
  return ops::arange(numel, at::kDouble)
      .mul(0.7)
      .add(seed)
      .sin()
      .view(shape)
      .to(dtype);
}

// The tensors of a batch norm of 3 channels.
struct Norm {
  explicit Norm(bool affine, at::ScalarType dtype = at::kFloat)
      : running_mean(ops::zeros({3}, dtype)),
        running_var(ops::ones({3}, dtype)) {
    if (!affine) return;
    weight = Filled({3}, 1, dtype).requires_grad_();
    bias = Filled({3}, 2, dtype).requires_grad_();
  }

  at::Tensor Alone(const at::Tensor& input) const {
    return functional::batch_norm(input, weight, bias, running_mean,
                                  running_var, /*training=*/true, kMomentum,
                                  kEps, /*cudnn_enabled=*/true);
  }
  at::Tensor Synced(const at::Tensor& input, ProcessGroup& group) const {
    return BatchNormOverRanks(input, weight, bias, running_mean, running_var,
                              kMomentum, kEps, group);
  }

  at::Tensor weight, bias, running_mean, running_var;
};

// What came of a step, its tensors without a graph.
struct Step {
  at::Tensor output, input_grad, weight_grad, bias_grad, running_mean,
      running_var;
};

// One step of the sum of `output * above`.
Step StepOf(const Norm& norm, const at::Tensor& batch, const at::Tensor& above,
            const std::function<at::Tensor(const at::Tensor&)>& forward) {
  const at::Tensor input = batch.clone().requires_grad_();
  const at::Tensor output = forward(input);
  output.mul(above).sum().backward();
  Step step;
  step.output = output.detach();
  step.input_grad = input.grad();
  if (norm.weight.defined()) {
    step.weight_grad = norm.weight.grad().clone();
    step.bias_grad = norm.bias.grad().clone();
    norm.weight.mutable_grad().reset();
    norm.bias.mutable_grad().reset();
  }
  step.running_mean = norm.running_mean.clone();
  step.running_var = norm.running_var.clone();
  return step;
}

// How far apart, for tensors of the same shape and type.
double Distance(const at::Tensor& a, const at::Tensor& b) {
  EXPECT_EQ(a.sizes(), b.sizes());
  EXPECT_EQ(a.scalar_type(), b.scalar_type());
  return a.sub(b).abs().max().item().toDouble();
}

struct WholeBatchCase {
  std::string name;
  std::vector<int64_t> samples;  // By rank.
  std::vector<int64_t> shape;    // Of a sample.
  bool affine = true;
  at::ScalarType dtype = at::kFloat;
  double tolerance = 1e-6;

  friend void PrintTo(const WholeBatchCase& c, std::ostream* out) {
    *out << c.name;
  }
};

class WholeBatchTest : public ::testing::TestWithParam<WholeBatchCase> {
 protected:
  std::vector<int64_t> Shape(int64_t samples) const {
    std::vector<int64_t> shape = {samples};
    shape.insert(shape.end(), GetParam().shape.begin(), GetParam().shape.end());
    return shape;
  }
};

TEST_P(WholeBatchTest, IsWhatOneProcessComputesOfIt) {
  const WholeBatchCase& c = GetParam();
  const int num_ranks = static_cast<int>(c.samples.size());
  int64_t all = 0;
  for (const int64_t samples : c.samples) all += samples;

  constexpr int kSteps = 3;
  std::vector<at::Tensor> batches, above;
  for (int step = 0; step < kSteps; ++step) {
    // Neither of mean 0, nor alike on all ranks.
    batches.push_back(
        Filled(Shape(all), step, c.dtype)
            .mul(Filled(Shape(all), 7, c.dtype).cumsum(0).add(1.5))
            .add(0.5));
    above.push_back(Filled(Shape(all), 40 + step, c.dtype));
  }
  const Norm whole(c.affine, c.dtype);
  std::vector<Step> expected;
  for (int step = 0; step < kSteps; ++step) {
    expected.push_back(
        StepOf(whole, batches[step], above[step],
               [&](const at::Tensor& input) { return whole.Alone(input); }));
  }

  std::vector<std::vector<Step>> steps(num_ranks);
  EXPECT_THAT(RunRanks(num_ranks,
                       [&](ProcessGroup& group) {
                         const int rank = group.rank();
                         int64_t first = 0;
                         for (int r = 0; r < rank; ++r) first += c.samples[r];
                         const Norm norm(c.affine, c.dtype);
                         return CatchAsStatus([&] {
                           for (int step = 0; step < kSteps; ++step) {
                             const auto own = [&](const at::Tensor& tensor) {
                               return tensor.narrow(0, first, c.samples[rank]);
                             };
                             steps[rank].push_back(StepOf(
                                 norm, own(batches[step]), own(above[step]),
                                 [&](const at::Tensor& input) {
                                   return norm.Synced(input, group);
                                 }));
                           }
                           return absl::OkStatus();
                         });
                       }),
              Each(IsOk()));

  for (int step = 0; step < kSteps; ++step) {
    SCOPED_TRACE(absl::StrCat("step ", step));
    std::vector<at::Tensor> outputs, input_grads;
    at::Tensor weight_grad, bias_grad;
    for (const std::vector<Step>& rank : steps) {
      const Step& own = rank[step];
      outputs.push_back(own.output);
      input_grads.push_back(own.input_grad);
      // The same bits on all, or ranks would drift apart.
      EXPECT_TRUE(ops::equal(own.running_mean, steps[0][step].running_mean));
      EXPECT_TRUE(ops::equal(own.running_var, steps[0][step].running_var));
      if (!c.affine) continue;
      weight_grad = weight_grad.defined() ? weight_grad.add(own.weight_grad)
                                          : own.weight_grad;
      bias_grad =
          bias_grad.defined() ? bias_grad.add(own.bias_grad) : own.bias_grad;
    }
    const Step& want = expected[step];
    EXPECT_LE(Distance(ops::cat(outputs), want.output), c.tolerance);
    EXPECT_LE(Distance(ops::cat(input_grads), want.input_grad), c.tolerance);
    EXPECT_LE(Distance(steps[0][step].running_mean, want.running_mean),
              c.tolerance);
    EXPECT_LE(Distance(steps[0][step].running_var, want.running_var),
              c.tolerance);
    if (!c.affine) continue;
    // Sums over the batch.
    const double scale = static_cast<double>(all);
    EXPECT_LE(Distance(weight_grad, want.weight_grad), c.tolerance * scale);
    EXPECT_LE(Distance(bias_grad, want.bias_grad), c.tolerance * scale);
  }
}

INSTANTIATE_TEST_SUITE_P(
    , WholeBatchTest,
    Values(WholeBatchCase{"Even", {4, 4}, {3}},
           WholeBatchCase{"Uneven", {3, 5, 1, 7}, {3}},
           WholeBatchCase{"OneValueEach", {1, 1}, {3}},
           WholeBatchCase{"Sequences", {2, 3}, {3, 5}},
           WholeBatchCase{"Images", {2, 1, 4}, {3, 6, 5}},
           WholeBatchCase{"NotAffine", {2, 3}, {3, 4, 4}, false},
           WholeBatchCase{
               "Doubles", {3, 2}, {3, 4, 4}, true, at::kDouble, 1e-13}),
    [](const auto& test) { return test.param.name; });

// Sums of squares would have lost the variance here: all digits of a float go
// into the square of the mean.
TEST(SyncBatchNormTest, VarianceBesideALargeMeanKeepsItsDigits) {
  const at::Tensor batch = Filled({64, 3}, 0).add(1000);
  const Norm exact(/*affine=*/false, at::kDouble);
  exact.Alone(batch.to(at::kDouble));
  EXPECT_THAT(
      RunRanks(4,
               [&](ProcessGroup& group) {
                 const Norm norm(/*affine=*/false);
                 return CatchAsStatus([&] {
                   norm.Synced(batch.narrow(0, 16 * group.rank(), 16), group);
                   EXPECT_TRUE(ops::allclose(norm.running_var.to(at::kDouble),
                                             exact.running_var, 1e-6, 0));
                   return absl::OkStatus();
                 });
               }),
      Each(IsOk()));
}

class HalvesTest : public ::testing::TestWithParam<bool> {};

TEST_P(HalvesTest, AreNormalizedInFloats) {
  const bool affine = GetParam();
  const at::Tensor batch = Filled({8, 3, 4, 4}, 0).mul(3).add(8);
  const at::Tensor above = Filled({8, 3, 4, 4}, 5);
  const Norm whole(affine);
  const Step want =
      StepOf(whole, batch.to(at::kBFloat16).to(at::kFloat), above,
             [&](const at::Tensor& input) { return whole.Alone(input); });
  EXPECT_THAT(
      RunRanks(
          2,
          [&](ProcessGroup& group) {
            const auto own = [&](const at::Tensor& tensor) {
              return tensor.narrow(0, 4 * group.rank(), 4);
            };
            const Norm norm(affine);
            return CatchAsStatus([&] {
              const Step step =
                  StepOf(norm, own(batch.to(at::kBFloat16)), own(above),
                         [&](const at::Tensor& input) {
                           return norm.Synced(input, group);
                         });
              EXPECT_EQ(step.output.scalar_type(), at::kBFloat16);
              EXPECT_EQ(step.input_grad.scalar_type(), at::kBFloat16);
              EXPECT_LE(Distance(step.running_var, want.running_var), 1e-6);
              // Rounded at the end: to 2^-9 of what is up to 2.
              EXPECT_LE(Distance(step.output.to(at::kFloat), own(want.output)),
                        1e-2);
              EXPECT_LE(Distance(step.input_grad.to(at::kFloat),
                                 own(want.input_grad)),
                        1e-2);
              return absl::OkStatus();
            });
          }),
      Each(IsOk()));
}

INSTANTIATE_TEST_SUITE_P(, HalvesTest, Values(false, true),
                         [](const auto& test) {
                           return test.param ? "Affine" : "NotAffine";
                         });

TEST(SyncBatchNormTest, InputWithoutGradientIsGoneBackwardFromAlone) {
  EXPECT_THAT(
      RunRanks(
          2,
          [](ProcessGroup& group) {
            const Norm norm(/*affine=*/true);
            return CatchAsStatus([&] {
              const at::Tensor out = norm.Synced(Filled({4, 3}, 0), group);
              // The other one would be waited for.
              if (group.rank() == 1) return absl::OkStatus();
              out.square().sum().backward();
              EXPECT_TRUE(norm.weight.grad().defined());
              return absl::OkStatus();
            });
          },
          absl::Seconds(10)),
      Each(IsOk()));
}

TEST(SyncBatchNormTest, HasNoSecondDerivative) {
  EXPECT_THAT(RunRanks(2,
                       [](ProcessGroup& group) {
                         const Norm norm(/*affine=*/true);
                         return CatchAsStatus([&] {
                           const at::Tensor input =
                               Filled({4, 3}, group.rank()).requires_grad_();
                           norm.Synced(input, group)
                               .square()
                               .sum()
                               .backward({}, /*retain_graph=*/true,
                                         /*create_graph=*/true);
                           EXPECT_FALSE(input.grad().requires_grad());
                           // Or graph and gradient would keep each other.
                           input.mutable_grad().reset();
                           return absl::OkStatus();
                         });
                       }),
              Each(IsOk()));
}

// What goes wrong on the last of 3 ranks, forward or backward.
class FailureTest : public ::testing::TestWithParam<bool> {};

TEST_P(FailureTest, OfOneRankIsTheOthersWithItsMessage) {
  const bool backward = GetParam();
  const std::vector<absl::Status> ends = RunRanks(3, [&](ProcessGroup& group) {
    const Norm norm(/*affine=*/true);
    const auto fail = [&] {
      const absl::Status failure = absl::DataLossError("it is broken");
      group.ReportFailure(failure);
      return failure;
    };
    return CatchAsStatus([&] {
      if (!backward && group.rank() == 2) return fail();
      const at::Tensor out =
          norm.Synced(Filled({4, 3}, 0).requires_grad_(), group);
      if (backward && group.rank() == 2) return fail();
      out.square().sum().backward();
      return absl::OkStatus();
    });
  });
  for (int rank = 0; rank < 2; ++rank) {
    EXPECT_THAT(ends[rank],
                StatusIs(absl::StatusCode::kUnavailable,
                         AllOf(HasSubstr("synchronizing batch norm: "),
                               HasSubstr("rank 2: it is broken"))));
  }
}

INSTANTIATE_TEST_SUITE_P(, FailureTest, Values(false, true),
                         [](const auto& test) {
                           return test.param ? "Backward" : "Forward";
                         });

TEST(SyncBatchNormTest, BatchOfNothingIsRefused) {
  SingleProcessGroup group;
  const Norm norm(/*affine=*/true);
  EXPECT_THAT(CatchAsStatus([&] {
                norm.Synced(ops::zeros({0, 3, 2}), group);
                return absl::OkStatus();
              }),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("input is [0, 3, 2]")));
}

// --- The layers ---

std::unique_ptr<LayerChain> NewLayers() {
  models::v1::SequentialLayerConfig config;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(
      R"pb(layers { batch_norm1d {} }
           layers {
             residual {
               layers { sequential { layers { batch_norm1d {} } } }
               shortcut { batch_norm1d { affine: false } }
             }
           }
           layers { batch_norm1d { track_running_stats: false } })pb",
      &config));
  LayerOptions options;
  options.input_shape = {3};
  auto layers = LayerChain::Create(config.layers(), "layers", options);
  EXPECT_THAT(layers, IsOk());
  return *std::move(layers);
}

TEST(SyncBatchNormLayersTest, OfAllDepthsAreSyncedInTraining) {
  const at::Tensor batch = Filled({6, 3}, 0);
  const auto whole = NewLayers();
  const at::Tensor want = whole->Forward(batch).detach();
  EXPECT_THAT(
      RunRanks(
          2,
          [&](ProcessGroup& group) {
            const auto own = [&](const at::Tensor& tensor) {
              return tensor.narrow(0, 3 * group.rank(), 3);
            };
            const auto layers = NewLayers();
            EXPECT_NE(layers->NeedsTwoSamples(), "");
            layers->SyncBatchNorm(group);
            // The other rank has another one.
            EXPECT_EQ(layers->NeedsTwoSamples(), "");
            return CatchAsStatus([&] {
              EXPECT_LE(Distance(layers->Forward(own(batch)), own(want)), 1e-6);
              EXPECT_EQ(layers->buffers().size(), whole->buffers().size());
              for (size_t i = 0; i < whole->buffers().size(); ++i) {
                EXPECT_LE(Distance(layers->buffers()[i].tensor.to(at::kFloat),
                                   whole->buffers()[i].tensor.to(at::kFloat)),
                          1e-6)
                    << whole->buffers()[i].name;
              }
              return absl::OkStatus();
            });
          }),
      Each(IsOk()));
}

TEST(SyncBatchNormLayersTest, InEvaluationEachRankIsByItself) {
  EXPECT_THAT(RunRanks(
                  2,
                  [](ProcessGroup& group) {
                    const auto layers = NewLayers();
                    const auto plain = NewLayers();
                    layers->SyncBatchNorm(group);
                    layers->SetTraining(false);
                    plain->SetTraining(false);
                    // The other one would be waited for.
                    if (group.rank() == 1) return absl::OkStatus();
                    return CatchAsStatus([&] {
                      const at::Tensor batch = Filled({6, 3}, 0);
                      EXPECT_TRUE(ops::equal(layers->Forward(batch),
                                             plain->Forward(batch)));
                      return absl::OkStatus();
                    });
                  },
                  absl::Seconds(10)),
              Each(IsOk()));
}

TEST(SyncBatchNormLayersTest, OneRankHasPlainBatchNormsBits) {
  SingleProcessGroup group;
  const auto layers = NewLayers();
  const auto plain = NewLayers();
  layers->SyncBatchNorm(group);
  EXPECT_EQ(layers->NeedsTwoSamples(), plain->NeedsTwoSamples());
  const at::Tensor batch = Filled({6, 3}, 0);
  EXPECT_TRUE(ops::equal(layers->Forward(batch), plain->Forward(batch)));
}

}  // namespace
}  // namespace grapnel
