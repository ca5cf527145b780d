#include "ATen/ops/cross_entropy_loss.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>

#include "ATen/core/Reduction.h"
#include "ATen/core/Tensor.h"
#include "ATen/ops/empty.h"
#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/data/sample.h"
#include "grapnel/models/loss.h"
#include "grapnel/models/losses/target_checks.h"
#include "grapnel/models/model.pb.h"
#include "grapnel/models/shape.h"

namespace grapnel {
namespace {

class CrossEntropyLoss : public Loss {
 public:
  using Config = models::v1::CrossEntropyLossConfig;

  static absl::StatusOr<std::unique_ptr<Loss>> Create(const Config& config);

  explicit CrossEntropyLoss(const Config& config);

  absl::StatusOr<at::Tensor> Compute(const at::Tensor& outputs,
                                     const Batch& batch) const override;

 private:
  absl::Status CheckShapes(const at::Tensor& outputs,
                           const at::Tensor& targets) const;

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
      ignore_index_(config.has_ignore_index() ? config.ignore_index() : -100) {
  if (config.class_weight().empty()) return;
  class_weight_ = at::empty({config.class_weight_size()}, at::kDouble);
  std::copy(config.class_weight().begin(), config.class_weight().end(),
            class_weight_.mutable_data_ptr<double>());
}

absl::StatusOr<at::Tensor> CrossEntropyLoss::Compute(const at::Tensor& outputs,
                                                     const Batch& batch) const {
  const at::Tensor& targets = batch.targets;
  GRAPNEL_RETURN_IF_ERROR(CheckShapes(outputs, targets));
  at::Tensor loss;
  const absl::Status status = CatchAsStatus([&] {
    loss = at::cross_entropy_loss(outputs, targets, WeightFor(outputs),
                                  at::Reduction::Mean, ignore_index_,
                                  label_smoothing_);
    return absl::OkStatus();
  });
  if (!status.ok()) return Explain(status, targets, outputs.size(1));
  return loss;
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
  if (!targets.defined() || targets.scalar_type() != at::kLong) {
    return absl::InvalidArgumentError(
        absl::StrCat("targets: must be int64 class labels, are ",
                     targets.defined() ? c10::toString(targets.scalar_type())
                                       : "undefined"));
  }
  const at::IntArrayRef out = outputs.sizes();
  const at::IntArrayRef want = targets.sizes();
  if (out.size() < 2 || want.size() != out.size() - 1 || want[0] != out[0] ||
      want.slice(1) != out.slice(2)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "outputs ", ShapeString(out), " and targets ", ShapeString(want),
        " don't fit: must be (N, C, ...) and (N, ...)"));
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
  if (!targets.is_cpu()) return status;
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
