#include "grapnel/models/metric.h"

#include <algorithm>

#include "ATen/ops/zeros.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "c10/core/GradMode.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/torch_status.h"

namespace grapnel {
namespace {

absl::Status CheckDistinct(const Metrics& metrics) {
  for (auto metric = metrics.begin(); metric != metrics.end(); ++metric) {
    const bool seen = std::any_of(
        metrics.begin(), metric,
        [&](const auto& before) { return before.first == metric->first; });
    if (seen) {
      return absl::AlreadyExistsError(
          absl::StrCat("two metrics are called \"", metric->first, "\""));
    }
  }
  return absl::OkStatus();
}

}  // namespace

const MetricValue* FindMetric(const Metrics& metrics, absl::string_view name) {
  for (const auto& metric : metrics) {
    if (metric.first == name) return &metric.second;
  }
  return nullptr;
}

absl::StatusOr<std::unique_ptr<Evaluator>> Evaluator::Create(
    const google::protobuf::RepeatedPtrField<models::v1::MetricConfig>& configs,
    std::vector<std::unique_ptr<Metric>> more) {
  std::vector<std::unique_ptr<Metric>> metrics;
  for (int i = 0; i < configs.size(); ++i) {
    auto metric = MetricRegistry::Create(configs[i]);
    if (!metric.ok()) {
      return WithContext(metric.status(), absl::StrCat("[", i, "]"));
    }
    metrics.push_back(*std::move(metric));
  }
  for (auto& metric : more) metrics.push_back(std::move(metric));
  return std::make_unique<Evaluator>(std::move(metrics));
}

Evaluator::Evaluator(std::vector<std::unique_ptr<Metric>> metrics)
    : metrics_(std::move(metrics)) {}

void Evaluator::Reset() {
  for (const auto& metric : metrics_) metric->Reset();
  loss_sums_.clear();
  num_samples_ = 0;
}

absl::Status Evaluator::Process(const Predictions& predictions,
                                const Batch& batch) {
  const c10::AutoGradMode no_grad(false);
  for (const auto& metric : metrics_) {
    GRAPNEL_RETURN_IF_ERROR(
        CatchAsStatus([&] { return metric->Process(predictions, batch); }));
  }
  for (const NamedTensor& loss : predictions.losses) {
    GRAPNEL_RETURN_IF_ERROR(
        CatchAsStatus([&] { return AddLoss(loss, batch.size()); }));
  }
  num_samples_ += batch.size();
  return absl::OkStatus();
}

absl::Status Evaluator::AddLoss(const NamedTensor& loss, int64_t num_samples) {
  if (!loss.tensor.defined()) {
    return absl::InvalidArgumentError(
        absl::StrCat("loss \"", loss.name, "\": the model gave no value"));
  }
  auto sum = std::find_if(
      loss_sums_.begin(), loss_sums_.end(),
      [&](const LossSum& candidate) { return candidate.name == loss.name; });
  if (sum == loss_sums_.end()) {
    const at::Tensor zero =
        at::zeros({}, loss.tensor.options().dtype(at::kDouble));
    sum = loss_sums_.insert(sum, {loss.name, zero, 0});
  }
  sum->sum.add_(loss.tensor.dim() == 0 ? loss.tensor : loss.tensor.mean(),
                num_samples);
  sum->num_samples += num_samples;
  return absl::OkStatus();
}

absl::StatusOr<Metrics> Evaluator::Compute(absl::string_view prefix) {
  if (num_samples_ == 0) {
    return absl::FailedPreconditionError("there were no samples to evaluate");
  }
  Metrics metrics;
  for (const auto& metric : metrics_) {
    GRAPNEL_RETURN_IF_ERROR(
        CatchAsStatus([&] { return metric->Compute(&metrics); }));
  }
  double total = 0;
  bool has_total = false;
  GRAPNEL_RETURN_IF_ERROR(CatchAsStatus([&] {
    for (const LossSum& loss : loss_sums_) {
      const double mean =
          loss.sum.item<double>() / static_cast<double>(loss.num_samples);
      metrics.emplace_back(loss.name, mean);
      if (!absl::StrContains(loss.name, "loss")) continue;
      total += mean;
      has_total = true;
    }
    return absl::OkStatus();
  }));
  if (has_total) metrics.emplace_back(absl::StrCat(prefix, "_loss"), total);
  GRAPNEL_RETURN_IF_ERROR(CheckDistinct(metrics));
  return metrics;
}

}  // namespace grapnel
