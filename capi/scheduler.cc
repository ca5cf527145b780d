// Schedulers over numbers of the caller's.

#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "grapnel/base/checked_message.h"
#include "grapnel/capi/handles.h"
#include "grapnel/optim/param_groups.h"
#include "grapnel/optim/param_scheduler.h"
#include "grapnel/optim/param_scheduler.pb.h"

namespace grapnel::capi {
namespace {

// A group for each number. What it is called is the config's business.
class CallersGroups final : public ParamGroups {
 public:
  explicit CallersGroups(std::vector<double*> values)
      : values_(std::move(values)) {}

  int num_groups() const override { return static_cast<int>(values_.size()); }
  double* option(int group, absl::string_view) override {
    return values_[static_cast<size_t>(group)];
  }

 private:
  const std::vector<double*> values_;
};

// A run of both lengths has epochs of one length, or none that can be told.
absl::StatusOr<RunLength> ReadLength(int64_t max_epochs, int64_t max_iters) {
  for (const auto& [name, value] : {std::pair("max_epochs", max_epochs),
                                    std::pair("max_iters", max_iters)}) {
    if (value >= -1) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        name, ": must be >= 0, or -1 if it isn't known, is ", value));
  }
  RunLength length;
  length.max_epochs = max_epochs;
  length.max_iters = max_iters;
  if (max_epochs > 0 && max_iters > 0 && max_iters % max_epochs == 0) {
    length.epoch_length = max_iters / max_epochs;
  }
  return length;
}

absl::StatusOr<std::vector<double*>> ReadValues(double* const* values,
                                                size_t num_values) {
  if (num_values == 0 ||
      num_values > static_cast<size_t>(std::numeric_limits<int>::max())) {
    return absl::InvalidArgumentError(
        absl::StrCat("num_values: must be in [1, ",
                     std::numeric_limits<int>::max(), "], is ", num_values));
  }
  GRAPNEL_RETURN_IF_ERROR(NotNull(values, "values"));
  for (size_t i = 0; i < num_values; ++i) {
    const std::string name = absl::StrCat("values[", i, "]");
    GRAPNEL_RETURN_IF_ERROR(NotNull(values[i], name));
    if (!std::isfinite(*values[i])) {
      return absl::InvalidArgumentError(
          absl::StrCat(name, ": must be finite, is ", *values[i]));
    }
  }
  return std::vector<double*>(values, values + num_values);
}

}  // namespace
}  // namespace grapnel::capi

struct grapnel_scheduler : grapnel::capi::Counted {
  explicit grapnel_scheduler(std::vector<double*> values)
      : groups(std::move(values)) {}

  grapnel::capi::CallersGroups groups;
  std::unique_ptr<grapnel::ParamScheduler> scheduler;  // Not null.
};

using grapnel::capi::Guard;
using grapnel::capi::NotNull;
using grapnel::capi::ReadBytes;
using grapnel::optim::v1::ParamSchedulerConfig;
using grapnel::optim::v1::ParamSchedulerState;

grapnel_status* grapnel_scheduler_create(const void* config, size_t config_size,
                                         grapnel_encoding encoding,
                                         double* const* values,
                                         size_t num_values, int64_t max_epochs,
                                         int64_t max_iters,
                                         grapnel_scheduler** out) {
  return Guard([&] {
    absl::string_view bytes;
    GRAPNEL_RETURN_IF_ERROR(ReadBytes(config, config_size, "config", &bytes));
    ParamSchedulerConfig parsed;
    GRAPNEL_RETURN_IF_ERROR(
        grapnel::capi::ParseMessage(bytes, encoding, "config", &parsed));
    GRAPNEL_ASSIGN_OR_RETURN(std::vector<double*> groups,
                             grapnel::capi::ReadValues(values, num_values));
    GRAPNEL_ASSIGN_OR_RETURN(const grapnel::RunLength length,
                             grapnel::capi::ReadLength(max_epochs, max_iters));
    GRAPNEL_RETURN_IF_ERROR(NotNull(out, "out"));
    auto made = std::make_unique<grapnel_scheduler>(std::move(groups));
    auto scheduler =
        grapnel::ParamSchedulerRegistry::Create(parsed, made->groups, length);
    if (!scheduler.ok()) {
      return grapnel::WithContext(scheduler.status(), "config");
    }
    made->scheduler = *std::move(scheduler);
    *out = made.release();
    return absl::OkStatus();
  });
}

void grapnel_scheduler_destroy(grapnel_scheduler* scheduler) {
  delete scheduler;
}

grapnel_status* grapnel_scheduler_apply(grapnel_scheduler* scheduler) {
  return Guard([&] {
    GRAPNEL_RETURN_IF_ERROR(NotNull(scheduler, "scheduler"));
    scheduler->scheduler->Apply();
    return absl::OkStatus();
  });
}

grapnel_status* grapnel_scheduler_step(grapnel_scheduler* scheduler) {
  return Guard([&] {
    GRAPNEL_RETURN_IF_ERROR(NotNull(scheduler, "scheduler"));
    scheduler->scheduler->Step();
    return absl::OkStatus();
  });
}

grapnel_status* grapnel_scheduler_step_metric(grapnel_scheduler* scheduler,
                                              double value) {
  return Guard([&] {
    GRAPNEL_RETURN_IF_ERROR(NotNull(scheduler, "scheduler"));
    if (scheduler->scheduler->monitor() == nullptr) {
      return absl::FailedPreconditionError("scheduler: follows no metric");
    }
    scheduler->scheduler->StepMetric(value);
    return absl::OkStatus();
  });
}

grapnel_status* grapnel_scheduler_save_state(const grapnel_scheduler* scheduler,
                                             grapnel_bytes* state) {
  return Guard([&] {
    GRAPNEL_RETURN_IF_ERROR(NotNull(scheduler, "scheduler"));
    GRAPNEL_RETURN_IF_ERROR(NotNull(state, "state"));
    ParamSchedulerState saved;
    GRAPNEL_RETURN_IF_ERROR(scheduler->scheduler->SaveState(&saved));
    GRAPNEL_ASSIGN_OR_RETURN(const std::string bytes,
                             grapnel::SerializeChecked(saved));
    return grapnel::capi::AssignBytes(bytes, "state", state);
  });
}

grapnel_status* grapnel_scheduler_load_state(grapnel_scheduler* scheduler,
                                             const void* state,
                                             size_t state_size) {
  return Guard([&] {
    GRAPNEL_RETURN_IF_ERROR(NotNull(scheduler, "scheduler"));
    absl::string_view bytes;
    GRAPNEL_RETURN_IF_ERROR(ReadBytes(state, state_size, "state", &bytes));
    // What a newer library has to remember besides is left out.
    ParamSchedulerState saved;
    if (!grapnel::ParseQuietly(bytes, &saved)) {
      return absl::InvalidArgumentError(
          "state: is not what grapnel_scheduler_save_state gave");
    }
    return grapnel::WithContext(scheduler->scheduler->LoadState(saved),
                                "state");
  });
}
