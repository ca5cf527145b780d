// Evaluator::Gather: an evaluation that many ranks share.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <typeinfo>
#include <utility>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/types/span.h"
#include "c10/util/Type.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/dist/process_group.h"
#include "grapnel/models/gathered_counts.pb.h"
#include "grapnel/models/metric.h"

namespace grapnel {
namespace {

using models::v1::GatheredCounts;

constexpr uint32_t kVersion = 1;

std::string RankName(size_t rank) { return absl::StrCat("rank ", rank); }

std::string Serialize(GatheredCounts counts, const absl::Status& status) {
  if (!status.ok()) {
    counts.Clear();
    counts.set_error_code(static_cast<int32_t>(status.code()));
    counts.set_error_message(
        std::string(status.message().data(), status.message().size()));
  }
  counts.set_version(kVersion);
  return counts.SerializeAsString();
}

absl::StatusOr<GatheredCounts> Parse(const std::string& bytes) {
  GatheredCounts counts;
  if (!counts.ParseFromString(bytes)) {
    return absl::DataLossError("its counts can't be read");
  }
  if (counts.version() != kVersion) {
    return absl::FailedPreconditionError(
        absl::StrCat("its counts are of version ", counts.version(),
                     ", this program's of ", kVersion));
  }
  if (counts.error_code() != 0) {
    return absl::Status(static_cast<absl::StatusCode>(counts.error_code()),
                        counts.error_message());
  }
  if (!counts.has_num_samples() || counts.num_samples() < 0) {
    return absl::DataLossError(absl::StrCat(
        "its number of samples: must be >= 0, is ",
        counts.has_num_samples() ? absl::StrCat(counts.num_samples())
                                 : "unset"));
  }
  for (const GatheredCounts::Loss& loss : counts.losses()) {
    if (!loss.has_name() || !loss.has_sum() || !loss.has_weight()) {
      return absl::DataLossError("its losses can't be read");
    }
  }
  return counts;
}

// `the metrics "accuracy", "mse"`.
std::string MetricNames(const GatheredCounts& counts) {
  if (counts.metrics().empty()) return "no metrics";
  return absl::StrCat(
      "the metrics ",
      absl::StrJoin(counts.metrics(), ", ",
                    [](std::string* out, const GatheredCounts::Metric& metric) {
                      absl::StrAppend(out, "\"", metric.name(), "\"");
                    }));
}

}  // namespace

absl::Status Metric::SaveCounts(std::string* /*counts*/) {
  return absl::UnimplementedError(
      "can't be gathered over ranks: its class has no SaveCounts");
}

absl::Status Metric::MergeCounts(absl::Span<const std::string> /*counts*/) {
  return absl::UnimplementedError(
      "can't be gathered over ranks: its class has no MergeCounts");
}

absl::Status Evaluator::Gather(ProcessGroup& group) {
  if (group.world_size() == 1) return absl::OkStatus();
  GatheredCounts own;
  absl::Status status = CatchAsStatus([&] { return SaveCounts(&own); });
  if (status.ok() && own.ByteSizeLong() > std::numeric_limits<int>::max()) {
    status = absl::ResourceExhaustedError(
        absl::StrCat("metrics: counts of ", own.ByteSizeLong(),
                     " bytes are too many for one message"));
  }
  const auto all = group.AllGather(Serialize(std::move(own), status));
  if (!all.ok()) return WithContext(all.status(), "gathering metrics");
  GRAPNEL_RET_CHECK(all->size() == static_cast<size_t>(group.world_size()));
  std::vector<GatheredCounts> counts;
  for (size_t rank = 0; rank < all->size(); ++rank) {
    auto parsed = Parse((*all)[rank]);
    if (!parsed.ok()) return WithContext(parsed.status(), RankName(rank));
    counts.push_back(*std::move(parsed));
  }
  return CatchAsStatus([&] { return MergeCounts(std::move(counts)); });
}

absl::Status Evaluator::CheckGather() {
  for (size_t i = 0; i < metrics_.size(); ++i) {
    std::string unused;
    const absl::Status status =
        CatchAsStatus([&] { return metrics_[i]->SaveCounts(&unused); });
    // Others may be over by then: nothing was gathered yet.
    if (absl::IsUnimplemented(status)) {
      return WithContext(status, MetricName(i));
    }
  }
  return absl::OkStatus();
}

std::string Evaluator::MetricName(size_t i) const {
  if (i < kinds_.size() && !kinds_[i].empty()) return kinds_[i];
  const Metric& metric = *metrics_[i];
  return c10::demangle(typeid(metric).name());
}

absl::Status Evaluator::SaveCounts(GatheredCounts* counts) {
  counts->set_num_samples(num_samples_);
  for (size_t i = 0; i < metrics_.size(); ++i) {
    GatheredCounts::Metric& metric = *counts->add_metrics();
    metric.set_name(MetricName(i));
    const absl::Status status = CatchAsStatus(
        [&] { return metrics_[i]->SaveCounts(metric.mutable_counts()); });
    if (!status.ok()) return WithContext(status, metric.name());
  }
  GRAPNEL_ASSIGN_OR_RETURN(const std::vector<LossNumbers> numbers,
                           ReadLosses());
  for (size_t i = 0; i < loss_sums_.size(); ++i) {
    GatheredCounts::Loss& saved = *counts->add_losses();
    saved.set_name(loss_sums_[i].name);
    saved.set_sum(numbers[i].sum);
    saved.set_weight(numbers[i].weight);
  }
  return absl::OkStatus();
}

absl::Status Evaluator::MergeCounts(std::vector<GatheredCounts> counts) {
  // All ranks compare with rank 0, so that all say the same.
  const std::string names = MetricNames(counts[0]);
  int64_t num_samples = 0;
  for (size_t rank = 0; rank < counts.size(); ++rank) {
    const std::string others = MetricNames(counts[rank]);
    if (counts[rank].metrics_size() != counts[0].metrics_size() ||
        others != names) {
      return absl::InvalidArgumentError(absl::StrCat(
          RankName(rank), " has ", others, ", rank 0 has ", names));
    }
    for (const GatheredCounts::Loss& loss : counts[rank].losses()) {
      const absl::Status status = CheckWeight(loss.name(), loss.weight());
      if (!status.ok()) return WithContext(status, RankName(rank));
    }
    if (counts[rank].num_samples() >
        std::numeric_limits<int64_t>::max() - num_samples) {
      return absl::DataLossError(absl::StrCat(RankName(rank), ": ",
                                              counts[rank].num_samples(),
                                              " samples are too many"));
    }
    num_samples += counts[rank].num_samples();
  }
  GRAPNEL_RET_CHECK(static_cast<size_t>(counts[0].metrics_size()) ==
                    metrics_.size());
  for (size_t i = 0; i < metrics_.size(); ++i) {
    std::vector<std::string> of_ranks;
    for (GatheredCounts& of_rank : counts) {
      of_ranks.push_back(std::move(
          *of_rank.mutable_metrics(static_cast<int>(i))->mutable_counts()));
    }
    const absl::Status status =
        CatchAsStatus([&] { return metrics_[i]->MergeCounts(of_ranks); });
    if (!status.ok()) return WithContext(status, MetricName(i));
  }
  MergeLosses(counts);
  num_samples_ = num_samples;
  return absl::OkStatus();
}

void Evaluator::MergeLosses(const std::vector<GatheredCounts>& counts) {
  struct Merged {
    std::string name;
    double sum = 0;
    double weight = 0;
  };
  std::vector<Merged> merged;
  for (const GatheredCounts& of_rank : counts) {
    for (const GatheredCounts::Loss& loss : of_rank.losses()) {
      auto same = std::find_if(
          merged.begin(), merged.end(),
          [&](const Merged& other) { return other.name == loss.name(); });
      if (same == merged.end()) {
        same = merged.insert(same, Merged{loss.name(), 0, 0});
      }
      same->sum += loss.sum();
      same->weight += loss.weight();
    }
  }
  loss_sums_.clear();
  for (Merged& loss : merged) {
    LossSum sum;
    sum.name = std::move(loss.name);
    sum.sum = ops::scalar_tensor(loss.sum, at::kDouble);
    sum.weight = loss.weight;
    loss_sums_.push_back(std::move(sum));
  }
}

}  // namespace grapnel
