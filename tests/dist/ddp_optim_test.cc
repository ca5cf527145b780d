// An OptimWrapper over LibTorch's Reducer: steps of ranks whose batches weigh
// otherwise, or nothing, are those of one process.

#include <cstddef>
#include <iterator>
#include <vector>

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/dist/ddp/ddp_reducer.h"
#include "grapnel/optim/steps_of_ranks_for_test.h"
#include "grapnel/tests/dist/gloo_ranks.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::Each;

// `first`: of windows, the first few.
std::vector<WindowSizes> Windows(std::vector<WindowSizes> first) {
  const WindowSizes more[] = {{{5, 2}, {3, 7}}, {{4, 1}, {0, 6}},
                              {{0, 0}, {0, 0}}, {{0, 3}, {2, 0}},
                              {{1, 0}, {1, 0}}, {{6, 2}, {2, 2}}};
  first.insert(first.end(), std::begin(more), std::end(more));
  return first;
}

absl::Status TrainRank(const GlooRank& r, const DdpOptions& options,
                       const std::vector<WindowSizes>& windows,
                       const std::vector<NamedTensor>& params) {
  GRAPNEL_ASSIGN_OR_RETURN(
      const auto wrapper,
      NewWrapper("accumulate_by: SAMPLES accumulative_counts: 2", params));
  GRAPNEL_ASSIGN_OR_RETURN(const auto reducer,
                           CreateDdpReducer(r.group, params, {}, options));
  GRAPNEL_RETURN_IF_ERROR(wrapper->SetGradientReducer(reducer.get()));
  return TrainAsRank(windows, r.rank, *wrapper, params);
}

void ExpectStepsOfOneProcess(const std::vector<WindowSizes>& windows) {
  const auto expected = TrainAsOne(windows);
  ASSERT_THAT(expected, IsOk());
  std::vector<DdpOptions> all_options(3);
  all_options[1].find_unused_parameters = true;
  all_options[2].static_graph = true;
  for (const DdpOptions& options : all_options) {
    const std::vector<absl::Status> ends =
        RunGlooRanks(2, [&](const GlooRank& r) {
          const std::vector<NamedTensor> params = NewParams();
          GRAPNEL_RETURN_IF_ERROR(TrainRank(r, options, windows, params));
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

TEST(DdpOptimTest, BySamplesStepsAreThoseOfOneProcess) {
  ExpectStepsOfOneProcess(Windows({}));
}

// Nothing has gone backward on all ranks before.
TEST(DdpOptimTest, SoIsTheFirstOneWhereItsLastBatchIsNothingOnOne) {
  ExpectStepsOfOneProcess(Windows({{{4, 1}, {0, 6}}}));
}

}  // namespace
}  // namespace grapnel
