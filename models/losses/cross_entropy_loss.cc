
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <optional>

#include "ATen/core/Reduction.h"
#include "ATen/core/Tensor.h"
#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/data/sample.h"
#include "grapnel/models/functional.h"
#include "grapnel/models/loss.h"
#include "grapnel/models/loss.pb.h"
#include "grapnel/models/losses/target_checks.h"
#include "grapnel/models/shape.h"

namespace grapnel {
namespace {

constexpr int64_t kNoIndex = -100;  // LibTorch's; no class has it.

// Probabilities of the classes, not labels.
bool IsSoft(const at::Tensor& targets) {
  return at::isFloatingType(targets.scalar_type());
}

class CrossEntropyLoss : public Loss {
 public:
  using Config = models::v1::CrossEntropyLossConfig;

  static absl::StatusOr<std::unique_ptr<Loss>> Create(const Config& config);

  explicit CrossEntropyLoss(const Config& config);

  absl::StatusOr<at::Tensor> Compute(const at::Tensor& outputs,
                                     const Batch& batch) const override;

  // The sum of class weights over the targets that count; of probabilities
  // their number, as LibTorch divides by.
  absl::StatusOr<at::Tensor> Weight(const at::Tensor& outputs,
                                    const Batch& batch) const override;

  std::optional<int64_t> ignore_index() const override { return ignore_index_; }

 private:
  absl::Status CheckShapes(const at::Tensor& outputs,
                           const at::Tensor& targets) const;

  // Of targets that fit. May throw, as the next ones.
  at::Tensor LossOf(const at::Tensor& outputs, const at::Tensor& targets) const;

  // Whether a target counts, reading labels on the CPU only up to the first
  // that does.
  bool AnyCounts(const at::Tensor& labels) const;

  // What the targets count together, a float64 scalar.
  at::Tensor LabelWeight(const at::Tensor& outputs,
                         const at::Tensor& labels) const;

  // Why LibTorch refused targets that fit: the first label that is no class, or
  // `status`. Reads the labels, so only once something has failed.
  absl::Status Explain(const absl::Status& status, const at::Tensor& targets,
                       int64_t num_classes) const;

  // class_weight_ in the type and on the device of `outputs`.
  at::Tensor WeightFor(const at::Tensor& outputs) const;

  const double label_smoothing_;
  const int64_t ignore_index_;
  at::Tensor class_weight_;  // (C) on the CPU, or undefined.

  // The last one that WeightFor gave: outputs stay what they are, and a copy to
  // the device in every step waits for it.
  mutable absl::Mutex mutex_;
  mutable at::Tensor converted_ ABSL_GUARDED_BY(mutex_);
};

absl::StatusOr<std::unique_ptr<Loss>> CrossEntropyLoss::Create(
    const Config& config) {
  if (!(config.label_smoothing() >= 0 && config.label_smoothing() <= 1)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "label_smoothing: must be in [0, 1], is ", config.label_smoothing()));
  }
  for (int i = 0; i < config.class_weight_size(); ++i) {
    const double weight = config.class_weight(i);
    if (!(weight >= 0) || std::isinf(weight)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "class_weight[", i, "]: must be finite and >= 0, is ", weight));
    }
  }
  return std::make_unique<CrossEntropyLoss>(config);
}

CrossEntropyLoss::CrossEntropyLoss(const Config& config)
    : label_smoothing_(config.label_smoothing()),
      ignore_index_(config.has_ignore_index() ? config.ignore_index()
                                              : kNoIndex) {
  if (config.class_weight().empty()) return;
  class_weight_ = ops::empty({config.class_weight_size()}, at::kDouble);
  std::copy(config.class_weight().begin(), config.class_weight().end(),
            class_weight_.mutable_data_ptr<double>());
}

absl::StatusOr<at::Tensor> CrossEntropyLoss::Compute(const at::Tensor& outputs,
                                                     const Batch& batch) const {
  const at::Tensor& targets = batch.targets;
  GRAPNEL_RETURN_IF_ERROR(CheckShapes(outputs, targets));
  at::Tensor loss;
  const absl::Status status = CatchAsStatus([&] {
    loss = LossOf(outputs, targets);
    return absl::OkStatus();
  });
  if (!status.ok()) return Explain(status, targets, outputs.size(1));
  return loss;
}

absl::StatusOr<at::Tensor> CrossEntropyLoss::Weight(const at::Tensor& outputs,
                                                    const Batch& batch) const {
  const at::Tensor& targets = batch.targets;
  GRAPNEL_RETURN_IF_ERROR(CheckShapes(outputs, targets));
  at::Tensor weight;
  GRAPNEL_RETURN_IF_ERROR(CatchAsStatus([&] {
    weight = IsSoft(targets)
                 ? ops::scalar_tensor(
                       targets.numel() / std::max<int64_t>(targets.size(1), 1),
                       at::kDouble)
                 : LabelWeight(outputs, targets);
    return absl::OkStatus();
  }));
  return weight;
}

at::Tensor CrossEntropyLoss::LossOf(const at::Tensor& outputs,
                                    const at::Tensor& targets) const {
  const auto mean = [&](const at::Tensor& logits) {
    return functional::cross_entropy_loss(
        logits, targets, WeightFor(logits), at::Reduction::Mean,
        IsSoft(targets) ? kNoIndex : ignore_index_, label_smoothing_);
  };
  if (IsSoft(targets)) return mean(outputs);
  if (targets.is_cpu() && targets.is_contiguous()) {
    // The mean of nothing would be NaN. That of no outputs passes on none.
    return AnyCounts(targets) ? mean(outputs) : outputs.slice(0, 0, 0).sum();
  }
  // Without waiting for a device. What goes in is replaced too: a gradient of 0
  // times the NaN inside would be NaN.
  const at::Tensor any = LabelWeight(outputs, targets).ne(0);
  return mean(outputs.where(any, 0)).where(any, 0);
}

bool CrossEntropyLoss::AnyCounts(const at::Tensor& labels) const {
  const int64_t* const label = labels.const_data_ptr<int64_t>();
  const int64_t num_classes =
      class_weight_.defined() ? class_weight_.numel() : 0;
  const double* const weight =
      num_classes == 0 ? nullptr : class_weight_.const_data_ptr<double>();
  for (int64_t i = 0; i < labels.numel(); ++i) {
    if (label[i] == ignore_index_) continue;
    // A label that is no class is for LibTorch to refuse.
    if (weight == nullptr || label[i] < 0 || label[i] >= num_classes ||
        static_cast<float>(weight[label[i]]) != 0) {
      return true;
    }
  }
  return false;
}

at::Tensor CrossEntropyLoss::LabelWeight(const at::Tensor& outputs,
                                         const at::Tensor& labels) const {
  const at::Tensor counts = labels.ne(ignore_index_);
  if (!class_weight_.defined()) return counts.sum().to(at::kDouble);
  const at::Tensor each =
      WeightFor(outputs)
          .to(at::kDouble)
          .index_select(0,
                        labels.masked_fill(counts.logical_not(), 0).flatten());
  return each.mul(counts.flatten()).sum();
}

at::Tensor CrossEntropyLoss::WeightFor(const at::Tensor& outputs) const {
  if (!class_weight_.defined()) return at::Tensor();
  const absl::MutexLock lock(&mutex_);
  if (!converted_.defined() ||
      converted_.scalar_type() != outputs.scalar_type() ||
      converted_.device() != outputs.device()) {
    converted_ = class_weight_.to(outputs.options());
  }
  return converted_;
}

absl::Status CrossEntropyLoss::CheckShapes(const at::Tensor& outputs,
                                           const at::Tensor& targets) const {
  GRAPNEL_RETURN_IF_ERROR(CheckFloating("outputs", outputs));
  if (!targets.defined() ||
      (targets.scalar_type() != at::kLong && !IsSoft(targets))) {
    return absl::InvalidArgumentError(
        absl::StrCat("targets: must be int64 class labels, or floating "
                     "probabilities, are ",
                     targets.defined() ? c10::toString(targets.scalar_type())
                                       : "undefined"));
  }
  const at::IntArrayRef out = outputs.sizes();
  const at::IntArrayRef want = targets.sizes();
  const bool fit = IsSoft(targets)
                       ? out.size() >= 2 && want == out
                       : out.size() >= 2 && want.size() == out.size() - 1 &&
                             want[0] == out[0] && want.slice(1) == out.slice(2);
  if (!fit) {
    return absl::InvalidArgumentError(absl::StrCat(
        "outputs ", ShapeString(out), " and targets ", ShapeString(want),
        " don't fit: must be (N, C, ...) and ",
        IsSoft(targets) ? "(N, C, ...), of probabilities" : "(N, ...)"));
  }
  if (class_weight_.defined() && class_weight_.numel() != out[1]) {
    return absl::InvalidArgumentError(absl::StrCat(
        "class_weight: must be ", out[1], " numbers, one for each class, are ",
        class_weight_.numel()));
  }
  return absl::OkStatus();
}

absl::Status CrossEntropyLoss::Explain(const absl::Status& status,
                                       const at::Tensor& targets,
                                       int64_t num_classes) const {
  if (!targets.is_cpu() || IsSoft(targets)) return status;
  const at::Tensor labels = targets.contiguous();
  const int64_t* label = labels.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < labels.numel(); ++i) {
    if (label[i] == ignore_index_) continue;
    if (label[i] < 0 || label[i] >= num_classes) {
      return absl::InvalidArgumentError(
          absl::StrCat("targets: label ", label[i], " is no class: there are ",
                       num_classes, ", 0 to ", num_classes - 1));
    }
  }
  return status;
}

GRAPNEL_REGISTER(LossRegistry, CrossEntropyLoss);

}  // namespace
}  // namespace grapnel
