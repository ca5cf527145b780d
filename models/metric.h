// Metrics of an evaluation: an open set. models/metrics/accuracy_metric.cc is
// the file to imitate.

#ifndef GRAPNEL_MODELS_METRIC_H_
#define GRAPNEL_MODELS_METRIC_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "grapnel/base/registry.h"
#include "grapnel/data/sample.h"
#include "grapnel/models/metric_value.h"
#include "grapnel/models/model.h"

namespace google::protobuf {
template <typename T>
class RepeatedPtrField;
}  // namespace google::protobuf

namespace grapnel::models::v1 {
class GatheredCounts;
class MetricConfig;
}  // namespace grapnel::models::v1

namespace grapnel {

class ProcessGroup;

// The value of that name, or null if there is none.
const MetricValue* FindMetric(const Metrics& metrics, absl::string_view name);

// What is evaluated, and how far it is trained.
struct EvalProgress {
  std::string loop;       // "val" or "test".
  bool training = false;  // A validation within training.

  // Completed ones, as RunContext counts them; 0 where nothing was trained or
  // resumed.
  int64_t epoch = 0;
  int64_t iter = 0;
};

// Gathers over the batches of one evaluation. Thread-compatible.
class Metric {
 public:
  virtual ~Metric() = default;

  // Forgets everything: a new evaluation begins.
  virtual void Reset() = 0;

  // Called after Reset, for metrics that are to know which evaluation it is.
  virtual void Begin(const EvalProgress& progress) {}

  // Takes one batch. Keeps sums and counts, or what Compute needs.
  virtual absl::Status Process(const Predictions& predictions,
                               const Batch& batch) = 0;

  // Appends the metric's values. kFailedPrecondition if there was no batch.
  virtual absl::Status Compute(Metrics* metrics) = 0;

  // What is to be said of these values, sentences for the run's log. Asked for
  // after Compute.
  virtual std::vector<std::string> Notes() const { return {}; }

  // For an evaluation that many ranks share, each with samples of its own.
  //
  // `*counts` becomes what Process gathered since Reset, as bytes that
  // MergeCounts understands: called behind a rank's last batch, or where it had
  // none. It may wait for a device. Default: kUnimplemented.
  virtual absl::Status SaveCounts(std::string* counts);

  // Puts what all ranks saved in place of what was gathered here; next comes
  // Compute. counts: by rank, this one's among them. Every rank has to come to
  // the same, so what rounds is added up in this order. The bytes are another
  // process's: kDataLoss if they aren't SaveCounts' of such a metric. Default:
  // kUnimplemented.
  virtual absl::Status MergeCounts(absl::Span<const std::string> counts);
};

struct MetricTraits {
  using Product = std::unique_ptr<Metric>;
  static constexpr char kWhat[] = "metric";
};
using MetricRegistry = Registry<MetricTraits>;

// The metrics of one loop together.
//
// Where predictions carry losses, their means are added behind the metrics,
// named as they are, and then "<prefix>_loss", the sum of those whose name
// contains "loss". A mean is over all that the loss's weights count, or over
// samples where it has none, however batches cut them up: NaN if nothing
// counts. What a batch gave where nothing counts is not looked at.
// Thread-compatible.
//
// Example:
//
//   google::protobuf::RepeatedPtrField<models::v1::MetricConfig> configs;
//   configs.Add()->mutable_accuracy();  // Of //models/metrics:accuracy_metric.
//   GRAPNEL_ASSIGN_OR_RETURN(const std::unique_ptr<Evaluator> evaluator,
//                            Evaluator::Create(configs));
//   Predictions predictions;
//   predictions.outputs = torch::eye(4);
//   Batch batch;
//   batch.targets = torch::tensor({0, 1, 2, 2}, torch::kLong);
//   batch.indices = {0, 1, 2, 3};
//   evaluator->Reset();
//   GRAPNEL_RETURN_IF_ERROR(evaluator->Process(predictions, batch));
//   GRAPNEL_ASSIGN_OR_RETURN(const Metrics metrics, evaluator->Compute("val"));
//   GRAPNEL_RET_CHECK(AsNumber(*FindMetric(metrics, "accuracy/top1")) == 75);
class Evaluator {
 public:
  // One metric for each config, then `more`. Errors name the config's index.
  static absl::StatusOr<std::unique_ptr<Evaluator>> Create(
      const google::protobuf::RepeatedPtrField<models::v1::MetricConfig>&
          configs,
      std::vector<std::unique_ptr<Metric>> more = {});

  explicit Evaluator(std::vector<std::unique_ptr<Metric>> metrics);

  // A new evaluation begins.
  void Reset(const EvalProgress& progress = {});
  absl::Status Process(const Predictions& predictions, const Batch& batch);

  // Of an evaluation that all ranks share, each with other samples, as many as
  // it likes or none: called by each of them between its last batch and
  // Compute, which then gives on every rank what one process would have come to
  // with all samples: the same counts, and sums that are added up by rank. A
  // loss may be missing on some ranks, as in some batches.
  //
  // One AllGather; nothing at all if there is one rank. What a rank can't give
  // is the error of all, "rank 2: " and why; kInvalidArgument, naming them, if
  // ranks have different metrics. Then, too, all ranks are through with it, and
  // the group can be used. Waits for devices: one copy to the host for each
  // metric, and one for all losses.
  absl::Status Gather(ProcessGroup& group);

  // kUnimplemented, as Gather's would be later, if there is a metric that can't
  // be gathered.
  absl::Status CheckGather();

  // `prefix`: "val" or "test". `*notes`, if not null, becomes what is to be
  // said in the run's log: why a value is no finite number, or at least that it
  // is none. kAlreadyExists if two metrics give one name; kFailedPrecondition
  // if there was no sample; kInvalidArgument if a loss's weights aren't finite
  // or are < 0.
  absl::StatusOr<Metrics> Compute(absl::string_view prefix,
                                  std::vector<std::string>* notes = nullptr);

 private:
  struct LossSum {
    std::string name;
    at::Tensor sum;            // Mean times weight, a float64 scalar.
    double weight = 0;         // What is known on the CPU,
    at::Tensor device_weight;  // and the rest, a float64 scalar or undefined.
  };

  static absl::Status CheckWeight(absl::string_view loss, double weight);

  // `weight` may be undefined: the number of samples.
  absl::Status AddLoss(const NamedTensor& loss, const at::Tensor& weight,
                       int64_t num_samples);

  // Of each of loss_sums_. Waits for each device that they are on once.
  struct LossNumbers {
    double sum;
    double weight;
  };
  absl::StatusOr<std::vector<LossNumbers>> ReadLosses() const;

  // What errors call a metric: the kind that its config names, or its class.
  std::string MetricName(size_t i) const;

  // This rank's part, and then all of them in its place (metric_gather.cc).
  absl::Status SaveCounts(models::v1::GatheredCounts* counts);
  absl::Status MergeCounts(std::vector<models::v1::GatheredCounts> counts);
  void MergeLosses(const std::vector<models::v1::GatheredCounts>& counts);

  // Appends the means of the losses and their total.
  absl::Status ComputeLosses(absl::string_view prefix, Metrics* metrics,
                             std::vector<std::string>* notes) const;

  const std::vector<std::unique_ptr<Metric>> metrics_;
  std::vector<std::string> kinds_;  // Of those from configs; "": by its class.
  std::vector<LossSum> loss_sums_;
  int64_t num_samples_ = 0;
};

}  // namespace grapnel

#endif  // GRAPNEL_MODELS_METRIC_H_
