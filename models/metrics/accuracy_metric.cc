#include <algorithm>
#include <cstdint>
#include <memory>
#include <tuple>
#include <utility>
#include <vector>

#include "ATen/core/Tensor.h"
#include "ATen/ops/topk.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/data/sample.h"
#include "grapnel/models/losses/target_checks.h"
#include "grapnel/models/metric.h"
#include "grapnel/models/metric.pb.h"
#include "grapnel/models/model.h"
#include "grapnel/models/shape.h"

namespace grapnel {
namespace {

// Counts on the device that the predictions are on, and waits for it only in
// Compute.
class AccuracyMetric : public Metric {
 public:
  using Config = models::v1::AccuracyConfig;

  static absl::StatusOr<std::unique_ptr<Metric>> Create(const Config& config);

  explicit AccuracyMetric(std::vector<int64_t> topk)
      : topk_(std::move(topk)),
        max_k_(*std::max_element(topk_.begin(), topk_.end())) {}

  void Reset() override;
  absl::Status Process(const Predictions& predictions,
                       const Batch& batch) override;
  absl::Status Compute(Metrics* metrics) override;

 private:
  const std::vector<int64_t> topk_;
  const int64_t max_k_;
  at::Tensor hits_;  // (max_k_), int64: samples whose target has that rank.
  int64_t num_samples_ = 0;
};

absl::StatusOr<std::unique_ptr<Metric>> AccuracyMetric::Create(
    const Config& config) {
  std::vector<int64_t> topk(config.topk().begin(), config.topk().end());
  if (topk.empty()) topk = {1};
  for (auto k = topk.begin(); k != topk.end(); ++k) {
    if (*k < 1) {
      return absl::InvalidArgumentError(
          absl::StrCat("topk: must be >= 1, is ", *k));
    }
    if (std::find(topk.begin(), k, *k) != k) {
      return absl::InvalidArgumentError(
          absl::StrCat("topk: must be distinct, has ", *k, " twice"));
    }
  }
  return std::make_unique<AccuracyMetric>(std::move(topk));
}

void AccuracyMetric::Reset() {
  hits_.reset();
  num_samples_ = 0;
}

absl::Status AccuracyMetric::Process(const Predictions& predictions,
                                     const Batch& batch) {
  const at::Tensor& outputs = predictions.outputs;
  const at::Tensor& targets = batch.targets;
  GRAPNEL_RETURN_IF_ERROR(CheckFloating("outputs", outputs));
  if (!targets.defined() ||
      !at::isIntegralType(targets.scalar_type(), /*includeBool=*/false)) {
    return absl::InvalidArgumentError(
        absl::StrCat("targets: must be class labels, are ",
                     targets.defined() ? c10::toString(targets.scalar_type())
                                       : "undefined"));
  }
  if (outputs.dim() != 2 || targets.dim() != 1 ||
      outputs.size(0) != targets.size(0)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "outputs ", ShapeString(outputs.sizes()), " and targets ",
        ShapeString(targets.sizes()), " don't fit: must be (N, C) and (N)"));
  }
  if (max_k_ > outputs.size(1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("topk: must be at most the number of classes, ",
                     outputs.size(1), ", is ", max_k_));
  }
  return CatchAsStatus([&] {
    const at::Tensor classes = std::get<1>(at::topk(outputs, max_k_, 1));
    const at::Tensor hits = classes.eq(targets.unsqueeze(1)).sum(0);
    hits_ = hits_.defined() ? hits_.add_(hits) : hits;
    num_samples_ += targets.size(0);
    return absl::OkStatus();
  });
}

absl::Status AccuracyMetric::Compute(Metrics* metrics) {
  if (num_samples_ == 0) {
    return absl::FailedPreconditionError("accuracy: there were no samples");
  }
  return CatchAsStatus([&] {
    const at::Tensor hits = hits_.cpu();
    for (const int64_t k : topk_) {
      const int64_t right = hits.slice(0, 0, k).sum().item<int64_t>();
      metrics->emplace_back(absl::StrCat("accuracy/top", k),
                            100.0 * static_cast<double>(right) /
                                static_cast<double>(num_samples_));
    }
    return absl::OkStatus();
  });
}

GRAPNEL_REGISTER(MetricRegistry, AccuracyMetric);

}  // namespace
}  // namespace grapnel
