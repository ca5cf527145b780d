#include <algorithm>
#include <cstddef>
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
#include "absl/strings/str_join.h"
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
  absl::Status SaveCounts(std::string* counts) override;
  absl::Status MergeCounts(absl::Span<const std::string> counts) override;

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

absl::Status AccuracyMetric::SaveCounts(std::string* counts) {
  models::v1::AccuracyCounts saved;
  for (const int64_t k : topk_) saved.add_topk(k);
  saved.set_num_samples(num_samples_);
  GRAPNEL_RETURN_IF_ERROR(CatchAsStatus([&] {
    if (!counts_.defined()) return absl::OkStatus();
    const at::Tensor on_host = counts_.cpu();
    for (int64_t i = 0; i < on_host.size(0); ++i) {
      saved.add_counts(on_host[i].item<int64_t>());
    }
    return absl::OkStatus();
  }));
  *counts = saved.SerializeAsString();
  return absl::OkStatus();
}

absl::Status AccuracyMetric::MergeCounts(absl::Span<const std::string> counts) {
  std::vector<int64_t> sums(static_cast<size_t>(max_k_ + 2), 0);
  int64_t num_samples = 0;
  std::string topk;
  for (size_t rank = 0; rank < counts.size(); ++rank) {
    const std::string origin = absl::StrCat("rank ", rank, ": ");
    models::v1::AccuracyCounts saved;
    if (!saved.ParseFromString(counts[rank]) || !saved.has_num_samples() ||
        saved.num_samples() < 0 ||
        saved.num_samples() >
            std::numeric_limits<int64_t>::max() - num_samples) {
      return absl::DataLossError(
          absl::StrCat(origin, "its counts can't be read"));
    }
    // All ranks compare with rank 0, so that all say the same.
    const std::string own_topk = absl::StrJoin(saved.topk(), ", ");
    if (rank == 0) topk = own_topk;
    if (own_topk != topk) {
      return absl::InvalidArgumentError(absl::StrCat(
          origin, "its topk is ", own_topk, ", rank 0's is ", topk));
    }
    if (saved.counts().empty() && saved.num_samples() == 0) continue;
    if (static_cast<size_t>(saved.counts_size()) != sums.size()) {
      return absl::DataLossError(absl::StrCat(origin, "has ",
                                              saved.counts_size(), " counts, ",
                                              sums.size(), " are due"));
    }
    num_samples += saved.num_samples();
    for (size_t i = 0; i < sums.size(); ++i) {
      const int64_t count = saved.counts(static_cast<int>(i));
      if (count < 0 || count > saved.num_samples()) {
        return absl::DataLossError(absl::StrCat(
            origin, "counts ", count, " of ", saved.num_samples(), " samples"));
      }
      sums[i] += count;  // At most num_samples.
    }
  }
  return CatchAsStatus([&] {
    counts_ = ops::tensor(sums);
    num_samples_ = num_samples;
    return absl::OkStatus();
  });
}

GRAPNEL_REGISTER(MetricRegistry, AccuracyMetric);

}  // namespace
}  // namespace grapnel
