// Steps of several ranks, which are threads here: they are those of one process
// that has all their samples.

#include <cmath>
#include <cstdint>
#include <limits>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/dist/fake_gradient_reducer.h"
#include "grapnel/dist/fake_process_group.h"
#include "grapnel/dist/process_group.h"
#include "grapnel/optim/optim_wrapper.h"
#include "grapnel/optim/steps_of_ranks_for_test.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::Each;
using ::testing::HasSubstr;

absl::StatusOr<TensorMap> GradientsOf(const at::Tensor& x) {
  const std::vector<NamedTensor> params = NewParams();
  LossOf(params, x).backward();
  TensorMap gradients;
  for (const NamedTensor& param : params) {
    GRAPNEL_RETURN_IF_ERROR(gradients.Add(param.name, param.tensor.grad()));
  }
  return gradients;
}

struct RanksCase {
  const char* name;
  WindowSizes window;
  const char* config;  // Besides sgd, and how windows are made.
  double tolerance = 1e-14;
};

void PrintTo(const RanksCase& test, std::ostream* out) { *out << test.name; }

class OptimWrapperRanksTest : public ::testing::TestWithParam<RanksCase> {
 protected:
  static int num_ranks() {
    return static_cast<int>(GetParam().window.front().size());
  }

  // What a window leaves behind would be seen in the next.
  static std::vector<WindowSizes> windows() {
    return {GetParam().window, GetParam().window};
  }

  // `params`: of a rank, trained.
  static absl::Status TrainRank(ProcessGroup& group,
                                const std::vector<NamedTensor>& params) {
    GRAPNEL_ASSIGN_OR_RETURN(
        const auto wrapper,
        NewWrapper(
            absl::StrCat(GetParam().config, " accumulate_by: SAMPLES",
                         " accumulative_counts: ", GetParam().window.size()),
            params));
    FakeGradientReducer reducer(group, params);
    GRAPNEL_RETURN_IF_ERROR(wrapper->SetGradientReducer(&reducer));
    return TrainAsRank(windows(), group.rank(), *wrapper, params);
  }
};

TEST_P(OptimWrapperRanksTest, StepIsThatOfAllSamplesInOneProcess) {
  const auto expected = TrainAsOne(windows(), GetParam().config);
  ASSERT_THAT(expected, IsOk());
  EXPECT_THAT(RunRanks(num_ranks(),
                       [&](ProcessGroup& group) -> absl::Status {
                         const std::vector<NamedTensor> params = NewParams();
                         GRAPNEL_RETURN_IF_ERROR(TrainRank(group, params));
                         for (size_t i = 0; i < params.size(); ++i) {
                           EXPECT_TRUE(ops::allclose(
                               params[i].tensor, (*expected)[i].tensor,
                               GetParam().tolerance, 1e-15))
                               << "rank " << group.rank() << " is off by "
                               << params[i]
                                      .tensor.sub((*expected)[i].tensor)
                                      .abs()
                                      .max()
                                      .item<double>();
                         }
                         return absl::OkStatus();
                       }),
              Each(IsOk()));
}

INSTANTIATE_TEST_SUITE_P(
    , OptimWrapperRanksTest,
    ::testing::Values(
        RanksCase{"Equal", {{4, 4}, {4, 4}}, ""},
        RanksCase{"RanksDiffer", {{8, 1}, {8, 1}}, ""},
        RanksCase{"AllDiffer", {{5, 2, 9}, {1, 7, 3}, {4, 4, 1}}, ""},
        RanksCase{"WindowOfOne", {{5, 3}}, ""},
        // Whose loss is NaN, as of masked ones.
        RanksCase{"WindowOfOneWithNothingOnOne", {{5, 0, 2}}, ""},
        RanksCase{"LastIsNothingOnOne", {{5, 2}, {0, 7}}, ""},
        RanksCase{"FirstIsNothingOnOne", {{0, 2}, {3, 7}}, ""},
        RanksCase{"OneHasNothingAtAll", {{5, 0}, {4, 0}}, ""},
        RanksCase{"LastIsNothingOnAll", {{5, 2}, {0, 0}}, ""},
        RanksCase{"NothingAnywhere", {{0, 0}, {0, 0}}, ""},
        RanksCase{"ClippedAfterTheMean",
                  {{7, 2}, {1, 3}},
                  "clip_grad { max_norm: 0.01 }"},
        RanksCase{"Scaled",  // Gradients are unscaled by a float32.
                  {{7, 2}, {0, 3}},
                  "amp { dtype: FLOAT16 }",
                  1e-7}),
    [](const auto& info) { return std::string(info.param.name); });

// Of windows of two; by rank and Update.
absl::Status TrainFromGradients(ProcessGroup& group, const std::string& config,
                                const std::vector<std::vector<int64_t>>& sizes,
                                const std::vector<NamedTensor>& params) {
  GRAPNEL_ASSIGN_OR_RETURN(
      const auto wrapper,
      NewWrapper(absl::StrCat("accumulative_counts: 2 ", config), params));
  FakeGradientReducer reducer(group, params);
  GRAPNEL_RETURN_IF_ERROR(wrapper->SetGradientReducer(&reducer));
  for (int i = 0; i < 2; ++i) {
    const int64_t size = sizes[group.rank()][i];
    GRAPNEL_ASSIGN_OR_RETURN(const TensorMap gradients,
                             GradientsOf(SamplesOf(0, i, group.rank(), size)));
    wrapper->BeginStep();
    GRAPNEL_RETURN_IF_ERROR(
        wrapper->UpdateFromGradients(gradients, static_cast<double>(size)));
  }
  return absl::OkStatus();
}

// The step's gradient: the mean by `weights` of all batches.
absl::StatusOr<std::vector<at::Tensor>> MeanGradients(
    const std::vector<std::vector<int64_t>>& sizes, bool by_samples) {
  std::vector<at::Tensor> means = {ops::zeros({3}, at::kDouble),
                                   ops::zeros({1}, at::kDouble)};
  double all = 0;
  for (size_t rank = 0; rank < sizes.size(); ++rank) {
    for (int i = 0; i < 2; ++i) {
      const double weight =
          by_samples ? static_cast<double>(sizes[rank][i]) : 1.0;
      if (weight == 0) continue;
      GRAPNEL_ASSIGN_OR_RETURN(
          const TensorMap gradients,
          GradientsOf(SamplesOf(0, i, rank, sizes[rank][i])));
      means[0].add_(*gradients.Find("w"), weight);
      means[1].add_(*gradients.Find("b"), weight);
      all += weight;
    }
  }
  for (at::Tensor& mean : means) mean.div_(all);
  return means;
}

TEST(OptimWrapperRanksGradientsTest, FromElsewhereAreAveraged) {
  const std::vector<std::pair<const char*, std::vector<std::vector<int64_t>>>>
      cases = {
          {"", {{4, 4}, {4, 4}}},
          {"", {{1, 5}, {4, 2}, {3, 3}}},
          {"accumulate_by: SAMPLES", {{1, 5}, {4, 2}, {3, 3}}},
          {"accumulate_by: SAMPLES", {{1, 0}, {0, 0}, {0, 3}}},
      };
  for (const auto& [config, batches] : cases) {
    SCOPED_TRACE(absl::StrCat(config, " of ", batches.size()));
    const std::string text = config;
    const std::vector<std::vector<int64_t>> sizes = batches;
    const auto means = MeanGradients(sizes, !text.empty());
    ASSERT_THAT(means, IsOk());
    const std::vector<absl::Status> ends = RunRanks(
        static_cast<int>(sizes.size()),
        [&](ProcessGroup& group) -> absl::Status {
          const std::vector<NamedTensor> params = NewParams();
          GRAPNEL_RETURN_IF_ERROR(
              TrainFromGradients(group, text, sizes, params));
          const std::vector<NamedTensor> start = NewParams();
          for (size_t i = 0; i < params.size(); ++i) {
            EXPECT_TRUE(ops::allclose(
                params[i].tensor, start[i].tensor.sub((*means)[i], /*lr=*/0.5),
                1e-14, 1e-15))
                << params[i].name << " of rank " << group.rank();
          }
          return absl::OkStatus();
        });
    EXPECT_THAT(ends, Each(IsOk()));
  }
}

// A rank's mistake is no other weight: the others hear of it from the run.
TEST(OptimWrapperRanksErrorTest, AWeightIsCheckedBeforeItIsSent) {
  for (const double weight :
       {-1.0, std::numeric_limits<double>::infinity(), std::nan("")}) {
    const std::vector<absl::Status> ends =
        RunRanks(2, [&](ProcessGroup& group) -> absl::Status {
          const std::vector<NamedTensor> params = NewParams();
          GRAPNEL_ASSIGN_OR_RETURN(
              const auto wrapper, NewWrapper("accumulate_by: SAMPLES", params));
          FakeGradientReducer reducer(group, params);
          GRAPNEL_RETURN_IF_ERROR(wrapper->SetGradientReducer(&reducer));
          const absl::Status status =
              wrapper->Update(LossOf(params, SamplesOf(0, 0, 0, 2)), weight);
          // Nothing was sent: ranks can still meet.
          GRAPNEL_RETURN_IF_ERROR(group.Barrier());
          return status;
        });
    EXPECT_THAT(ends, Each(StatusIs(absl::StatusCode::kInvalidArgument,
                                    HasSubstr("weight: must be finite"))));
  }
}

}  // namespace
}  // namespace grapnel
