#ifndef GRAPNEL_EXAMPLES_REGRESSION_COVERAGE_METRIC_H_
#define GRAPNEL_EXAMPLES_REGRESSION_COVERAGE_METRIC_H_

#include <cstdint>

#include "absl/status/status.h"
#include "grapnel/data/sample.h"
#include "grapnel/models/metric.h"
#include "grapnel/models/model.h"

namespace examples {

// "coverage": which part of the targets is at most the output.
class CoverageMetric final : public grapnel::Metric {
 public:
  void Reset() override { covered_ = total_ = 0; }
  absl::Status Process(const grapnel::Predictions& predictions,
                       const grapnel::Batch& batch) override;
  absl::Status Compute(grapnel::Metrics* metrics) override;

 private:
  int64_t covered_ = 0;
  int64_t total_ = 0;
};

}  // namespace examples

#endif  // GRAPNEL_EXAMPLES_REGRESSION_COVERAGE_METRIC_H_
