// Mean errors between outputs and targets of one shape.

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/data/sample.h"
#include "grapnel/models/gathered_counts.pb.h"
#include "grapnel/models/losses/target_checks.h"
#include "grapnel/models/metric.h"
#include "grapnel/models/metric.pb.h"
#include "grapnel/models/model.h"

namespace grapnel {
namespace {

struct Squared {
  using Config = models::v1::MeanSquaredErrorConfig;
  static constexpr char kName[] = "mse";
  static at::Tensor Of(const at::Tensor& difference) {
    return difference.square();
  }
};

struct Absolute {
  using Config = models::v1::MeanAbsoluteErrorConfig;
  static constexpr char kName[] = "mae";
  static at::Tensor Of(const at::Tensor& difference) {
    return difference.abs();
  }
};

// Sums in double precision on the device that the predictions are on.
template <typename Error>
class MeanErrorMetric : public Metric {
 public:
  using Config = typename Error::Config;

  static absl::StatusOr<std::unique_ptr<Metric>> Create(
      const Config& /*config*/) {
    return std::make_unique<MeanErrorMetric>();
  }

  void Reset() override {
    sum_.reset();
    count_ = 0;
  }

  absl::Status Process(const Predictions& predictions,
                       const Batch& batch) override {
    const at::Tensor& outputs = predictions.outputs;
    GRAPNEL_RETURN_IF_ERROR(CheckFloating("outputs", outputs));
    if (!batch.targets.defined()) {
      return absl::InvalidArgumentError("targets: must be defined");
    }
    GRAPNEL_RETURN_IF_ERROR(CheckSameShape(outputs, batch.targets));
    return CatchAsStatus([&] {
      const at::Tensor difference = outputs.to(at::kDouble).sub(batch.targets);
      const at::Tensor sum = Error::Of(difference).sum();
      sum_ = sum_.defined() ? sum_.add_(sum) : sum;
      count_ += outputs.numel();
      return absl::OkStatus();
    });
  }

  absl::Status Compute(Metrics* metrics) override {
    if (count_ == 0) {
      return absl::FailedPreconditionError(
          absl::StrCat(Error::kName, ": there were no samples"));
    }
    return CatchAsStatus([&] {
      metrics->emplace_back(Error::kName, sum_.template item<double>() /
                                              static_cast<double>(count_));
      return absl::OkStatus();
    });
  }

  absl::Status SaveCounts(std::string* counts) override {
    models::v1::MeanErrorCounts saved;
    saved.set_count(count_);
    GRAPNEL_RETURN_IF_ERROR(CatchAsStatus([&] {
      saved.set_sum(sum_.defined() ? sum_.template item<double>() : 0);
      return absl::OkStatus();
    }));
    *counts = saved.SerializeAsString();
    return absl::OkStatus();
  }

  absl::Status MergeCounts(absl::Span<const std::string> counts) override {
    double sum = 0;
    int64_t count = 0;
    for (size_t rank = 0; rank < counts.size(); ++rank) {
      models::v1::MeanErrorCounts saved;
      if (!saved.ParseFromString(counts[rank]) || !saved.has_sum() ||
          !saved.has_count() || saved.count() < 0 ||
          saved.count() > std::numeric_limits<int64_t>::max() - count) {
        return absl::DataLossError(
            absl::StrCat("rank ", rank, ": its counts can't be read"));
      }
      sum += saved.sum();
      count += saved.count();
    }
    return CatchAsStatus([&] {
      sum_ = ops::scalar_tensor(sum, at::kDouble);
      count_ = count;
      return absl::OkStatus();
    });
  }

 private:
  at::Tensor sum_;  // A float64 scalar; undefined before the first batch.
  int64_t count_ = 0;
};

using MeanSquaredErrorMetric = MeanErrorMetric<Squared>;
using MeanAbsoluteErrorMetric = MeanErrorMetric<Absolute>;

GRAPNEL_REGISTER(MetricRegistry, MeanSquaredErrorMetric);
GRAPNEL_REGISTER(MetricRegistry, MeanAbsoluteErrorMetric);

}  // namespace
}  // namespace grapnel
