// A GradientReducer for the ranks of tests, which are threads.

#ifndef GRAPNEL_DIST_FAKE_GRADIENT_REDUCER_H_
#define GRAPNEL_DIST_FAKE_GRADIENT_REDUCER_H_

#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/dist/gradient_reducer.h"
#include "grapnel/dist/process_group.h"

namespace grapnel {

// Averages gradients one after another when the backward pass is over. Every
// parameter must have one.
class FakeGradientReducer final : public GradientReducer {
 public:
  // `group` outlives it.
  FakeGradientReducer(ProcessGroup& group, std::vector<NamedTensor> params)
      : group_(group), params_(std::move(params)) {}

  absl::Status BeginForward(bool sync) override {
    sync_ = sync;
    return absl::OkStatus();
  }
  absl::Status BeginBackward(const at::Tensor& /*loss*/) override {
    return absl::OkStatus();
  }
  absl::Status EndBackward() override {
    if (!sync_) return absl::OkStatus();
    for (const NamedTensor& param : params_) {
      const at::Tensor grad = param.tensor.grad();
      GRAPNEL_RETURN_IF_ERROR(group_.AllReduce(grad, ReduceOp::kSum));
      grad.div_(group_.world_size());
    }
    return absl::OkStatus();
  }
  absl::Status EndFailedBackward(const absl::Status& failure) override {
    return failure;
  }

 private:
  ProcessGroup& group_;
  const std::vector<NamedTensor> params_;
  bool sync_ = true;
};

}  // namespace grapnel

#endif  // GRAPNEL_DIST_FAKE_GRADIENT_REDUCER_H_
