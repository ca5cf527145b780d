#include "grapnel/examples/regression/coverage_metric.h"

#include "ATen/core/Tensor.h"
#include "grapnel/base/torch_status.h"

namespace examples {

absl::Status CoverageMetric::Process(const grapnel::Predictions& predictions,
                                     const grapnel::Batch& batch) {
  return grapnel::CatchAsStatus([&] {
    covered_ +=
        batch.targets.le(predictions.outputs).sum().item().to<int64_t>();
    total_ += batch.targets.numel();
    return absl::OkStatus();
  });
}

absl::Status CoverageMetric::Compute(grapnel::Metrics* metrics) {
  if (total_ == 0) return absl::FailedPreconditionError("no sample");
  metrics->emplace_back("coverage", double(covered_) / double(total_));
  return absl::OkStatus();
}

}  // namespace examples
