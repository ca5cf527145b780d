// A GradientReducer for the ranks of tests, which are threads.

#ifndef GRAPNEL_DIST_FAKE_GRADIENT_REDUCER_H_
#define GRAPNEL_DIST_FAKE_GRADIENT_REDUCER_H_

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/dist/gradient_reducer.h"
#include "grapnel/dist/process_group.h"

namespace grapnel {

// Averages gradients one after another when the backward pass is over. Every
// parameter must have one, on each rank that counts.
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
    return sync_ ? AverageGradients(/*counts=*/true) : absl::OkStatus();
  }
  absl::Status EndFailedBackward(const absl::Status& failure) override {
    return failure;
  }
  absl::Status AverageGradients(bool counts) override {
    for (const NamedTensor& param : params_) {
      at::Tensor& grad = param.tensor.mutable_grad();
      if (!counts && !grad.defined()) grad = ops::zeros_like(param.tensor);
      GRAPNEL_RETURN_IF_ERROR(group_.AllReduce(grad, ReduceOp::kSum));
      grad.div_(group_.world_size());
    }
    return absl::OkStatus();
  }
  absl::Status AverageNumbers(absl::Span<double> numbers) override {
    const at::Tensor sums = ops::tensor(
        at::ArrayRef<double>(numbers.data(), numbers.size()), at::kDouble);
    GRAPNEL_RETURN_IF_ERROR(group_.AllReduce(sums, ReduceOp::kSum));
    for (size_t i = 0; i < numbers.size(); ++i) {
      numbers[i] = sums.const_data_ptr<double>()[i] / group_.world_size();
    }
    return absl::OkStatus();
  }
  std::vector<int64_t> order() const override { return {}; }
  absl::Status SetOrder(const std::vector<int64_t>&) override {
    return absl::OkStatus();
  }

 private:
  ProcessGroup& group_;
  const std::vector<NamedTensor> params_;
  bool sync_ = true;
};

}  // namespace grapnel

#endif  // GRAPNEL_DIST_FAKE_GRADIENT_REDUCER_H_
