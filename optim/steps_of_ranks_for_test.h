// Steps of ranks whose batches weigh otherwise, or nothing, and those of one
// process that has all of their samples.

#ifndef GRAPNEL_OPTIM_STEPS_OF_RANKS_FOR_TEST_H_
#define GRAPNEL_OPTIM_STEPS_OF_RANKS_FOR_TEST_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "google/protobuf/text_format.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/optim/optim_wrapper.h"
#include "grapnel/optim/optim_wrapper.pb.h"

namespace grapnel {

// Numbers of samples, by Update of a window and by rank.
using WindowSizes = std::vector<std::vector<int64_t>>;

inline std::vector<NamedTensor> NewParams() {
  return {
      {"w", ops::tensor<double>({0.5, -1, 2}).requires_grad_()},
      {"b", ops::tensor<double>({0.25}).requires_grad_()},
  };
}

// `more`: text of OptimWrapperConfig, besides the optimizer.
inline absl::StatusOr<std::unique_ptr<OptimWrapper>> NewWrapper(
    const std::string& more, const std::vector<NamedTensor>& params) {
  optim::v1::OptimWrapperConfig config;
  GRAPNEL_RET_CHECK(google::protobuf::TextFormat::ParseFromString(
      absl::StrCat("optimizer { sgd { lr: 0.5 momentum: 0.9 } } ", more),
      &config));
  return OptimWrapper::Create(config, params);
}

// (`size`, 3)
inline at::Tensor SamplesOf(size_t window, size_t update, int rank,
                            int64_t size) {
  return ops::arange(size * 3, at::kDouble)
      .add(static_cast<int64_t>(100 * window + 10 * update) + rank)
      .mul(0.7)
      .sin()
      .view({size, 3});
}

// The mean over samples x: (N, 3); NaN of none.
inline at::Tensor LossOf(const std::vector<NamedTensor>& params,
                         const at::Tensor& x) {
  return x.matmul(params[0].tensor)
      .add(params[1].tensor)
      .tanh()
      .sub(0.5)
      .square()
      .mean();
}

// NewParams, trained by one process which has each window as one batch.
inline absl::StatusOr<std::vector<NamedTensor>> TrainAsOne(
    const std::vector<WindowSizes>& windows, const std::string& more = "") {
  std::vector<NamedTensor> params = NewParams();
  GRAPNEL_ASSIGN_OR_RETURN(const auto wrapper, NewWrapper(more, params));
  for (size_t window = 0; window < windows.size(); ++window) {
    std::vector<at::Tensor> all;
    for (size_t i = 0; i < windows[window].size(); ++i) {
      const std::vector<int64_t>& sizes = windows[window][i];
      for (size_t rank = 0; rank < sizes.size(); ++rank) {
        all.push_back(SamplesOf(window, i, rank, sizes[rank]));
      }
    }
    const at::Tensor x = ops::cat(all);
    if (x.size(0) == 0) continue;  // No step.
    GRAPNEL_RETURN_IF_ERROR(wrapper->Update(LossOf(params, x)));
  }
  return params;
}

// Trains `params` by what rank `rank` has of each window, which must be one of
// `wrapper`'s.
inline absl::Status TrainAsRank(const std::vector<WindowSizes>& windows,
                                int rank, OptimWrapper& wrapper,
                                const std::vector<NamedTensor>& params) {
  for (size_t window = 0; window < windows.size(); ++window) {
    for (size_t i = 0; i < windows[window].size(); ++i) {
      const int64_t size = windows[window][i][rank];
      wrapper.BeginStep();
      GRAPNEL_RETURN_IF_ERROR(
          wrapper.Update(LossOf(params, SamplesOf(window, i, rank, size)),
                         static_cast<double>(size)));
    }
    GRAPNEL_RET_CHECK(wrapper.accumulated() == 0);
  }
  return absl::OkStatus();
}

}  // namespace grapnel

#endif  // GRAPNEL_OPTIM_STEPS_OF_RANKS_FOR_TEST_H_
