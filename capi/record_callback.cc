#include "grapnel/capi/record_callback.h"

#include <string>
#include <variant>

#include "absl/status/status.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/capi/guard.h"
#include "grapnel/capi/handles.h"
#include "grapnel/capi/library_thread.h"

namespace grapnel::capi {
namespace {

grapnel_mode ModeOf(Record::Kind kind) {
  switch (kind) {
    case Record::Kind::kTrain:
      return GRAPNEL_TRAIN;
    case Record::Kind::kVal:
      return GRAPNEL_VAL;
    case Record::Kind::kTest:
      return GRAPNEL_TEST;
  }
  return GRAPNEL_TRAIN;
}

class CallbackBackend final : public LogBackend {
 public:
  CallbackBackend(grapnel_record_callback callback, void* user_data)
      : callback_(callback), user_data_(user_data) {}

  absl::Status WriteRecord(const Record& record) override {
    const CallbackScope scope;
    scalars_.Clear();
    for (const auto& [name, value] : record.scalars) {
      const double number = std::visit(
          [](auto given) { return static_cast<double>(given); }, value);
      GRAPNEL_RETURN_IF_ERROR(scalars_.Add(name, number));
    }
    return FromC(
        callback_(user_data_, ModeOf(record.kind), record.step, &scalars_));
  }

  absl::Status Close() override { return absl::OkStatus(); }

 private:
  const grapnel_record_callback callback_;
  void* const user_data_;
  grapnel_scalars scalars_;  // Kept for its slots.
};

}  // namespace

std::unique_ptr<LogBackend> MakeRecordBackend(grapnel_record_callback callback,
                                              void* user_data) {
  return std::make_unique<CallbackBackend>(callback, user_data);
}

}  // namespace grapnel::capi
