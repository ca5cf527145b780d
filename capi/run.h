// What a hook of the C API sees of a run.

#ifndef GRAPNEL_CAPI_RUN_H_
#define GRAPNEL_CAPI_RUN_H_

#include <cstddef>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "grapnel/capi/guard.h"
#include "grapnel/capi/handles.h"
#include "grapnel/grapnel.h"
#include "grapnel/models/log_vars.h"
#include "grapnel/models/metric_value.h"
#include "grapnel/models/model.h"
#include "grapnel/runner/hook.h"
#include "grapnel/runner/message_hub.h"
#include "grapnel/runner/run_context.h"

namespace grapnel::capi {

// What there is at a mount point: null for what isn't.
struct AtHand {
  const IterInfo* iter = nullptr;
  const LogVars* log_vars = nullptr;
  const Predictions* predictions = nullptr;
  const Metrics* metrics = nullptr;
  const std::string* saved_path = nullptr;
  const absl::Status* error = nullptr;
};

// A handle that is made when it is asked for, and kept for its slots.
template <typename Handle>
class OnDemand {
 public:
  // The handle, after fill(Handle*) if that wasn't called since Release.
  template <typename F>
  absl::StatusOr<const Handle*> Get(F&& fill) {
    if (!filled_) {
      if (!handle_.has_value()) handle_.emplace();
      filled_ = true;  // Or partly; then it is let go of all the same.
      const absl::Status status =
          CatchAsStatus([&] { return fill(&*handle_); });
      if (!status.ok()) {
        Release();
        return status;
      }
    }
    return &*handle_;
  }

  void Release() {
    if (filled_) handle_->Clear();
    filled_ = false;
  }

 private:
  std::optional<Handle> handle_;
  bool filled_ = false;
};

// The newest value of a history; kNotFound if it has none.
absl::StatusOr<double> NewestScalar(const MessageHub& hub,
                                    absl::string_view name);

// As grapnel_run_request_stop.
absl::Status RequestStop(RunContext* run, grapnel_stop at, const char* reason,
                         size_t reason_size);

}  // namespace grapnel::capi

// One for each hook, which uses it again in each of its calls. A call costs a
// few pointers: what a callback asks for is made then.
struct grapnel_run {
  void Begin(grapnel::RunContext* run, const grapnel::capi::AtHand& what) {
    context = run;
    at_hand = what;
  }
  void End();

  grapnel::RunContext* context = nullptr;  // Null between calls.
  grapnel::capi::AtHand at_hand;

  grapnel::capi::OnDemand<grapnel_tensors> batch;
  grapnel::capi::OnDemand<grapnel_tensors> predictions;
  grapnel::capi::OnDemand<grapnel_scalars> log_vars;
  grapnel::capi::OnDemand<grapnel_scalars> metrics;
  std::unique_ptr<grapnel_status, grapnel::capi::DestroyStatus> error;
};

#endif  // GRAPNEL_CAPI_RUN_H_
