#include "grapnel/capi/stream_callbacks.h"

#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/capi/dataset_callbacks.h"
#include "grapnel/capi/guard.h"
#include "grapnel/capi/handles.h"
#include "grapnel/capi/library_thread.h"
#include "grapnel/data/sample.h"

namespace grapnel::capi {
namespace {

class CallbackStream final : public IterableDataset {
 public:
  CallbackStream(const grapnel_stream_callbacks& callbacks, void* user_data)
      : callbacks_(callbacks, user_data) {}

  LentData* lent() { return callbacks_.lent(); }

  absl::Status BeginPass(int64_t pass) override {
    const CallbackScope scope;
    return WithContext(FromC(callbacks_->begin_pass(callbacks_.data(), pass)),
                       "begin_pass");
  }

  absl::StatusOr<bool> Next(Sample* sample) override {
    const CallbackScope scope;
    bool is_there = false;
    const absl::Status status = CatchAsStatus([&]() -> absl::Status {
      GRAPNEL_RETURN_IF_ERROR(
          FromC(callbacks_->next(callbacks_.data(), &given_)));
      is_there = given_.size > 0;
      return is_there ? ReadSample(given_, sample) : absl::OkStatus();
    });
    given_.Clear();
    if (!status.ok()) return WithContext(status, "next");
    return is_there;
  }

  bool has_state() const override { return callbacks_->save_state != nullptr; }

  absl::Status SaveState(std::string* state) override {
    const CallbackScope scope;
    return capi::SaveState(callbacks_, state);
  }
  absl::Status LoadState(absl::string_view state) override {
    const CallbackScope scope;
    return capi::LoadState(callbacks_, state);
  }

 private:
  Callbacks<grapnel_stream_callbacks> callbacks_;
  grapnel_tensors given_;  // Kept for its slots.
};

}  // namespace

absl::StatusOr<Made<std::unique_ptr<IterableDataset>>> MakeStream(
    const grapnel_stream_callbacks* callbacks, void* user_data) {
  GRAPNEL_ASSIGN_OR_RETURN(
      const grapnel_stream_callbacks known,
      Callbacks<grapnel_stream_callbacks>::Read(callbacks, "callbacks"));
  GRAPNEL_RETURN_IF_ERROR(MustBeSet(known.begin_pass, "callbacks: begin_pass"));
  GRAPNEL_RETURN_IF_ERROR(MustBeSet(known.next, "callbacks: next"));
  GRAPNEL_RETURN_IF_ERROR(CheckStateCallbacks(known));
  auto stream = std::make_unique<CallbackStream>(known, user_data);
  LentData* const lent = stream->lent();
  return Made<std::unique_ptr<IterableDataset>>{std::move(stream), lent};
}

}  // namespace grapnel::capi
