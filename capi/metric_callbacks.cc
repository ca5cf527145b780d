#include "grapnel/capi/metric_callbacks.h"

#include <cstddef>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/capi/fill_handles.h"
#include "grapnel/capi/guard.h"
#include "grapnel/capi/handles.h"
#include "grapnel/data/sample.h"
#include "grapnel/models/metric_value.h"
#include "grapnel/models/model.h"

namespace grapnel::capi {
namespace {

class CallbackMetric final : public Metric {
 public:
  CallbackMetric(const grapnel_metric_callbacks& callbacks, void* user_data)
      : callbacks_(callbacks, user_data) {}

  LentData* lent() { return callbacks_.lent(); }

  // It can't fail here: what comes next does then.
  void Reset() override {
    reset_ = Named("reset", FromC(callbacks_->reset(callbacks_.data())));
  }

  absl::Status Process(const Predictions& predictions,
                       const Batch& batch) override {
    GRAPNEL_RETURN_IF_ERROR(reset_);
    const absl::Status status = CatchAsStatus([&]() -> absl::Status {
      GRAPNEL_RETURN_IF_ERROR(FillTensors(predictions, &predictions_));
      GRAPNEL_RETURN_IF_ERROR(FillTensors(batch, &batch_));
      return FromC(
          callbacks_->process(callbacks_.data(), &predictions_, &batch_));
    });
    predictions_.Clear();
    batch_.Clear();
    return Named("process", status);
  }

  absl::Status Compute(Metrics* metrics) override {
    GRAPNEL_RETURN_IF_ERROR(reset_);
    values_.Clear();
    GRAPNEL_RETURN_IF_ERROR(Named(
        "compute", FromC(callbacks_->compute(callbacks_.data(), &values_))));
    for (size_t i = 0; i < values_.size; ++i) {
      metrics->emplace_back(values_.slots[i].first, values_.slots[i].second);
    }
    return absl::OkStatus();
  }

  absl::Status SaveCounts(std::string*) override {
    return absl::UnimplementedError(
        "a metric of callbacks can't be gathered over ranks");
  }

 private:
  static absl::Status Named(absl::string_view callback, absl::Status status) {
    if (status.ok()) return status;
    return WithContext(WithContext(std::move(status), callback),
                       "metric callback");
  }

  Callbacks<grapnel_metric_callbacks> callbacks_;
  absl::Status reset_;
  // Kept for their slots.
  grapnel_tensors predictions_, batch_;
  grapnel_scalars values_;
};

}  // namespace

absl::StatusOr<Made<std::unique_ptr<Metric>>> MakeMetric(
    const grapnel_metric_callbacks* callbacks, void* user_data) {
  GRAPNEL_ASSIGN_OR_RETURN(
      const grapnel_metric_callbacks known,
      Callbacks<grapnel_metric_callbacks>::Read(callbacks, "callbacks"));
  GRAPNEL_RETURN_IF_ERROR(MustBeSet(known.reset, "callbacks: reset"));
  GRAPNEL_RETURN_IF_ERROR(MustBeSet(known.process, "callbacks: process"));
  GRAPNEL_RETURN_IF_ERROR(MustBeSet(known.compute, "callbacks: compute"));
  auto metric = std::make_unique<CallbackMetric>(known, user_data);
  LentData* const lent = metric->lent();
  return Made<std::unique_ptr<Metric>>{std::move(metric), lent};
}

}  // namespace grapnel::capi
