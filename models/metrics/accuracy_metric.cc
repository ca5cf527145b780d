#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/tensor_ops.h"
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

  AccuracyMetric(std::vector<int64_t> topk, std::optional<int64_t> ignore_index)
      : topk_(std::move(topk)),
        max_k_(*std::max_element(topk_.begin(), topk_.end())),
        ignore_index_(ignore_index) {}

  void Reset() override;
  absl::Status Process(const Predictions& predictions,
                       const Batch& batch) override;
  absl::Status Compute(Metrics* metrics) override;
  std::vector<std::string> Notes() const override { return notes_; }

 private:
  const std::vector<int64_t> topk_;
  const int64_t max_k_;
  const std::optional<int64_t> ignore_index_;

  // (max_k_ + 2), int64: of the samples that count, those whose target has that
  // rank, and those whose highest output isn't finite; and those that don't
  // count.
  at::Tensor counts_;
  int64_t num_samples_ = 0;
  std::vector<std::string> notes_;
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
  std::optional<int64_t> ignore_index;
  if (config.has_ignore_index()) ignore_index = config.ignore_index();
  return std::make_unique<AccuracyMetric>(std::move(topk), ignore_index);
}

void AccuracyMetric::Reset() {
  counts_.reset();
  num_samples_ = 0;
  notes_.clear();
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
  const std::optional<int64_t> ignored =
      ignore_index_.has_value() ? ignore_index_ : predictions.ignore_index;
  return CatchAsStatus([&] {
    const auto [values, classes] = outputs.topk(max_k_, 1);
    // In 64 bits: of a smaller type, no target equals an index out of its
    // range.
    const at::Tensor labels = targets.to(at::kLong).unsqueeze(1);
    // A NaN is the highest there is, to topk.
    const at::Tensor bad = values.narrow(1, 0, 1).isfinite().logical_not();
    const at::Tensor hits = classes.eq(labels);
    at::Tensor each;  // (N, max_k_ + 2), bool.
    if (ignored.has_value()) {
      const at::Tensor out = labels.eq(*ignored);
      each = ops::cat({hits, bad}, 1).logical_and(out.logical_not());
      each = ops::cat({each, out}, 1);
    } else {
      each = ops::cat({hits, bad, ops::zeros_like(bad)}, 1);
    }
    const at::Tensor counts = each.sum(0);
    counts_ = counts_.defined() ? counts_.add_(counts) : counts;
    num_samples_ += targets.size(0);
    return absl::OkStatus();
  });
}

absl::Status AccuracyMetric::Compute(Metrics* metrics) {
  notes_.clear();
  if (num_samples_ == 0) {
    return absl::FailedPreconditionError("accuracy: there were no samples");
  }
  return CatchAsStatus([&] {
    const at::Tensor counts = counts_.cpu();
    const int64_t bad = counts[max_k_].item<int64_t>();
    const int64_t counted = num_samples_ - counts[max_k_ + 1].item<int64_t>();
    if (counted == 0) {
      notes_.push_back("accuracy is nan: none of the targets counts");
    } else if (bad > 0) {
      notes_.push_back(absl::StrCat("accuracy: the outputs of ", bad, " of ",
                                    counted, " samples are not finite"));
    }
    for (const int64_t k : topk_) {
      const int64_t right = counts.slice(0, 0, k).sum().item<int64_t>();
      metrics->emplace_back(absl::StrCat("accuracy/top", k),
                            notes_.empty()
                                ? 100.0 * static_cast<double>(right) /
                                      static_cast<double>(counted)
                                : std::numeric_limits<double>::quiet_NaN());
    }
    return absl::OkStatus();
  });
}

GRAPNEL_REGISTER(MetricRegistry, AccuracyMetric);

}  // namespace
}  // namespace grapnel
