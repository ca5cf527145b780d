#include "grapnel/models/metric.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <utility>
#include <variant>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "c10/core/GradMode.h"
#include "grapnel/base/kind_name.h"
#include "grapnel/base/read_scalars.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/models/log_vars.h"
#include "grapnel/models/metric.pb.h"

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

// Names those from `begin` on that are no finite numbers.
void NoteNonFinite(const Metrics& metrics, size_t begin,
                   std::vector<std::string>* notes) {
  for (size_t i = begin; i < metrics.size(); ++i) {
    const double* const value = std::get_if<double>(&metrics[i].second);
    if (value == nullptr || std::isfinite(*value)) continue;
    notes->push_back(absl::StrCat("\"", metrics[i].first, "\" is ", *value));
  }
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
  std::vector<std::string> kinds;
  for (int i = 0; i < configs.size(); ++i) {
    for (int other = 0; other < i; ++other) {
      // What a metric of the user's is called is its own business.
      if (!configs[i].has_custom() && configs[other].SerializeAsString() ==
                                          configs[i].SerializeAsString()) {
        return absl::InvalidArgumentError(
            absl::StrCat("[", i, "]: must be another one than [", other,
                         "]: two metrics would have one name"));
      }
    }
    auto metric = MetricRegistry::Create(configs[i]);
    if (!metric.ok()) {
      return WithContext(metric.status(), absl::StrCat("[", i, "]"));
    }
    metrics.push_back(*std::move(metric));
    kinds.push_back(configs[i].has_custom() ? "" : KindName(configs[i]));
  }
  for (auto& metric : more) metrics.push_back(std::move(metric));
  auto evaluator = std::make_unique<Evaluator>(std::move(metrics));
  evaluator->kinds_ = std::move(kinds);
  return evaluator;
}

Evaluator::Evaluator(std::vector<std::unique_ptr<Metric>> metrics)
    : metrics_(std::move(metrics)) {}

void Evaluator::Reset(const EvalProgress& progress) {
  for (const auto& metric : metrics_) {
    metric->Reset();
    metric->Begin(progress);
  }
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
  const LogVars& losses = predictions.losses;
  for (size_t i = 0; i < losses.size(); ++i) {
    GRAPNEL_RETURN_IF_ERROR(CatchAsStatus(
        [&] { return AddLoss(losses[i], losses.weight(i), batch.size()); }));
  }
  num_samples_ += batch.size();
  return absl::OkStatus();
}

absl::Status Evaluator::CheckWeight(absl::string_view loss, double weight) {
  if (std::isfinite(weight) && weight >= 0) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "loss \"", loss, "\": weight: must be finite and >= 0, is ", weight));
}

absl::Status Evaluator::AddLoss(const NamedTensor& loss,
                                const at::Tensor& weight, int64_t num_samples) {
  if (!loss.tensor.defined()) {
    return absl::InvalidArgumentError(
        absl::StrCat("loss \"", loss.name, "\": the model gave no value"));
  }
  auto sum = std::find_if(
      loss_sums_.begin(), loss_sums_.end(),
      [&](const LossSum& candidate) { return candidate.name == loss.name; });
  if (sum == loss_sums_.end()) {
    LossSum added;
    added.name = loss.name;
    added.sum = ops::zeros({}, loss.tensor.options().dtype(at::kDouble));
    sum = loss_sums_.insert(sum, std::move(added));
  }
  const at::Tensor mean =
      loss.tensor.dim() == 0 ? loss.tensor : loss.tensor.mean();
  if (weight.defined() && !weight.is_cpu()) {  // Not waited for.
    const at::Tensor own = weight.to(at::kDouble);
    sum->sum.add_(mean.mul(own).where(own.ne(0), 0).to(sum->sum.device()));
    sum->device_weight =
        sum->device_weight.defined() ? sum->device_weight.add(own) : own;
    return absl::OkStatus();
  }
  const double own = weight.defined() ? weight.item().toDouble()
                                      : static_cast<double>(num_samples);
  GRAPNEL_RETURN_IF_ERROR(CheckWeight(loss.name, own));
  if (own != 0) sum->sum.add_(mean, own);
  sum->weight += own;
  return absl::OkStatus();
}

absl::StatusOr<Metrics> Evaluator::Compute(absl::string_view prefix,
                                           std::vector<std::string>* notes) {
  if (num_samples_ == 0) {
    return absl::FailedPreconditionError("there were no samples to evaluate");
  }
  std::vector<std::string> unused;
  if (notes == nullptr) notes = &unused;
  notes->clear();
  Metrics metrics;
  for (const auto& metric : metrics_) {
    const size_t begin = metrics.size();
    std::vector<std::string> own;
    GRAPNEL_RETURN_IF_ERROR(CatchAsStatus([&] {
      GRAPNEL_RETURN_IF_ERROR(metric->Compute(&metrics));
      own = metric->Notes();
      return absl::OkStatus();
    }));
    if (own.empty()) NoteNonFinite(metrics, begin, notes);
    notes->insert(notes->end(), own.begin(), own.end());
  }
  GRAPNEL_RETURN_IF_ERROR(
      CatchAsStatus([&] { return ComputeLosses(prefix, &metrics, notes); }));
  GRAPNEL_RETURN_IF_ERROR(CheckDistinct(metrics));
  return metrics;
}

absl::StatusOr<std::vector<Evaluator::LossNumbers>> Evaluator::ReadLosses()
    const {
  std::vector<at::Tensor> scalars;
  for (const LossSum& loss : loss_sums_) {
    scalars.push_back(loss.sum);
    if (loss.device_weight.defined()) scalars.push_back(loss.device_weight);
  }
  const std::vector<double> values = ReadScalars(scalars);
  auto value = values.begin();
  std::vector<LossNumbers> numbers;
  for (const LossSum& loss : loss_sums_) {
    LossNumbers one = {*value++, loss.weight};
    if (loss.device_weight.defined()) one.weight += *value++;
    GRAPNEL_RETURN_IF_ERROR(CheckWeight(loss.name, one.weight));
    numbers.push_back(one);
  }
  return numbers;
}

absl::Status Evaluator::ComputeLosses(absl::string_view prefix,
                                      Metrics* metrics,
                                      std::vector<std::string>* notes) const {
  double total = 0;
  bool has_total = false;
  const size_t num_notes = notes->size();
  GRAPNEL_ASSIGN_OR_RETURN(const std::vector<LossNumbers> numbers,
                           ReadLosses());
  for (size_t i = 0; i < loss_sums_.size(); ++i) {
    const LossSum& loss = loss_sums_[i];
    const double weight = numbers[i].weight;
    const double mean = numbers[i].sum / weight;
    metrics->emplace_back(loss.name, mean);
    if (weight == 0) {
      notes->push_back(absl::StrCat("loss \"", loss.name,
                                    "\" is nan: none of its targets counts"));
    } else {
      NoteNonFinite(*metrics, metrics->size() - 1, notes);
    }
    if (!absl::StrContains(loss.name, "loss")) continue;
    total += mean;
    has_total = true;
  }
  if (!has_total) return absl::OkStatus();
  metrics->emplace_back(absl::StrCat(prefix, "_loss"), total);
  // Of a total it is enough to know about its losses.
  if (notes->size() == num_notes) {
    NoteNonFinite(*metrics, metrics->size() - 1, notes);
  }
  return absl::OkStatus();
}

}  // namespace grapnel
