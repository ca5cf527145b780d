// An OptimWrapper over LibTorch's Reducer: steps of ranks whose batches weigh
// otherwise, or nothing, are those of one process.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gmock/gmock.h"
#include "google/protobuf/text_format.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/dist/ddp/ddp_reducer.h"
#include "grapnel/dist/gradient_reducer.h"
#include "grapnel/optim/optim_wrapper.h"
#include "grapnel/optim/optim_wrapper.pb.h"
#include "grapnel/tests/dist/gloo_ranks.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::Each;

// Samples by window, Update of it, and rank.
using Sizes = std::vector<std::vector<std::vector<int64_t>>>;

const Sizes& AllSizes() {
  static const Sizes* const sizes =
      new Sizes{{{5, 2}, {3, 7}}, {{4, 1}, {0, 6}}, {{0, 0}, {0, 0}},
                {{0, 3}, {2, 0}}, {{1, 0}, {1, 0}}, {{6, 2}, {2, 2}}};
  return *sizes;
}

std::vector<NamedTensor> NewParams() {
  return {
      {"w", ops::tensor<double>({0.5, -1, 2}).requires_grad_()},
      {"b", ops::tensor<double>({0.25}).requires_grad_()},
  };
}

absl::StatusOr<std::unique_ptr<OptimWrapper>> Make(
    const std::string& more, const std::vector<NamedTensor>& params) {
  optim::v1::OptimWrapperConfig config;
  GRAPNEL_RET_CHECK(google::protobuf::TextFormat::ParseFromString(
      "optimizer { sgd { lr: 0.5 momentum: 0.9 } } " + more, &config));
  return OptimWrapper::Create(config, params);
}

at::Tensor SamplesOf(size_t window, size_t update, int rank) {
  const int64_t size = AllSizes()[window][update][rank];
  return ops::arange(size * 3, at::kDouble)
      .add(static_cast<int64_t>(100 * window + 10 * update) + rank)
      .mul(0.7)
      .sin()
      .view({size, 3});
}

// NaN of no samples.
at::Tensor LossOf(const std::vector<NamedTensor>& params, const at::Tensor& x) {
  return x.matmul(params[0].tensor)
      .add(params[1].tensor)
      .tanh()
      .sub(0.5)
      .square()
      .mean();
}

// What one process comes to, with each window as one batch.
absl::StatusOr<std::vector<NamedTensor>> TrainOne() {
  std::vector<NamedTensor> params = NewParams();
  GRAPNEL_ASSIGN_OR_RETURN(const auto wrapper, Make("", params));
  for (size_t window = 0; window < AllSizes().size(); ++window) {
    std::vector<at::Tensor> all;
    for (size_t i = 0; i < 2; ++i) {
      for (int rank = 0; rank < 2; ++rank) {
        all.push_back(SamplesOf(window, i, rank));
      }
    }
    const at::Tensor x = ops::cat(all);
    if (x.size(0) == 0) continue;  // No step.
    GRAPNEL_RETURN_IF_ERROR(wrapper->Update(LossOf(params, x)));
  }
  return params;
}

absl::Status TrainRank(const GlooRank& r, const DdpOptions& options,
                       const std::vector<NamedTensor>& params) {
  GRAPNEL_ASSIGN_OR_RETURN(
      const auto wrapper,
      Make("accumulate_by: SAMPLES accumulative_counts: 2", params));
  GRAPNEL_ASSIGN_OR_RETURN(const auto reducer,
                           CreateDdpReducer(r.group, params, {}, options));
  GRAPNEL_RETURN_IF_ERROR(wrapper->SetGradientReducer(reducer.get()));
  for (size_t window = 0; window < AllSizes().size(); ++window) {
    for (size_t i = 0; i < 2; ++i) {
      const at::Tensor x = SamplesOf(window, i, r.rank);
      wrapper->BeginStep();
      GRAPNEL_RETURN_IF_ERROR(wrapper->Update(LossOf(params, x), x.size(0)));
    }
  }
  return absl::OkStatus();
}

TEST(DdpOptimTest, BySamplesStepsAreThoseOfOneProcess) {
  const auto expected = TrainOne();
  ASSERT_THAT(expected, IsOk());
  std::vector<DdpOptions> all_options(3);
  all_options[1].find_unused_parameters = true;
  all_options[2].static_graph = true;
  for (const DdpOptions& options : all_options) {
    const std::vector<absl::Status> ends =
        RunGlooRanks(2, [&](const GlooRank& r) {
          const std::vector<NamedTensor> params = NewParams();
          GRAPNEL_RETURN_IF_ERROR(TrainRank(r, options, params));
          for (size_t i = 0; i < params.size(); ++i) {
            EXPECT_TRUE(ops::allclose(params[i].tensor, (*expected)[i].tensor,
                                      1e-12, 1e-13))
                << params[i].name << " of rank " << r.rank
                << ", find_unused_parameters " << options.find_unused_parameters
                << ", static_graph " << options.static_graph;
          }
          return absl::OkStatus();
        });
    EXPECT_THAT(ends, Each(IsOk()));
  }
}

}  // namespace
}  // namespace grapnel
