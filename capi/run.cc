#include "grapnel/capi/run.h"

#include <cstdint>
#include <utility>

#include "ATen/core/Tensor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/capi/fill_handles.h"
#include "grapnel/dist/process_group.h"
#include "grapnel/loggers/run_log.h"
#include "grapnel/models/find_tensor.h"
#include "grapnel/runner/history_buffer.h"
#include "grapnel/runner/mode.h"

namespace grapnel::capi {
namespace {

static_assert(static_cast<int>(Mode::kTrain) == GRAPNEL_TRAIN &&
              static_cast<int>(Mode::kVal) == GRAPNEL_VAL &&
              static_cast<int>(Mode::kTest) == GRAPNEL_TEST);

bool IsGoingOn(const grapnel_run* run) {
  return run != nullptr && run->context != nullptr;
}

// Runs `body` for a run that is going on, and gives the caller what comes of
// it.
template <typename Body>
grapnel_status* Do(grapnel_run* run, Body&& body) {
  return Guard([&]() -> absl::Status {
    GRAPNEL_RETURN_IF_ERROR(NotNull(run, "run"));
    if (run->context == nullptr) {
      return absl::FailedPreconditionError(
          "run: the call that it was handed to is over");
    }
    return body();
  });
}

absl::Status NotHere(absl::string_view what, absl::string_view where) {
  return absl::FailedPreconditionError(
      absl::StrCat("there is ", what, " only at ", where));
}

absl::Status CheckName(absl::string_view name) {
  for (const Mode mode : {Mode::kTrain, Mode::kVal, Mode::kTest}) {
    const std::string prefix = absl::StrCat(ModeName(mode), "/");
    if (absl::StartsWith(name, prefix) && name.size() > prefix.size()) {
      return absl::OkStatus();
    }
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "name: must begin with \"train/\", \"val/\" or \"test/\", is \"", name,
      "\""));
}

}  // namespace

absl::StatusOr<double> NewestScalar(const MessageHub& hub,
                                    absl::string_view name) {
  const HistoryBuffer* const history = hub.FindScalar(name);
  if (history == nullptr) {
    return absl::NotFoundError(
        absl::StrCat("there is no history \"", name, "\""));
  }
  return history->Current();
}

absl::Status RequestStop(RunContext* run, grapnel_stop at, const char* reason,
                         size_t reason_size) {
  absl::string_view text;
  GRAPNEL_RETURN_IF_ERROR(ReadText(reason, reason_size, "reason", &text));
  switch (at) {
    case GRAPNEL_STOP_AFTER_EPOCH:
      run->RequestStop(text, StopAt::kAfterEpoch);
      return absl::OkStatus();
    case GRAPNEL_STOP_NOW:
      run->RequestStop(text, StopAt::kNow);
      return absl::OkStatus();
    default:
      return absl::InvalidArgumentError(absl::StrCat("at: there is no ", at));
  }
}

}  // namespace grapnel::capi

namespace capi = grapnel::capi;

void grapnel_run::End() {
  context = nullptr;
  at_hand = capi::AtHand();
  batch.Release();
  predictions.Release();
  log_vars.Release();
  metrics.Release();
  error.reset();
}

int64_t grapnel_run_epoch(const grapnel_run* run) {
  return capi::IsGoingOn(run) ? run->context->epoch() : 0;
}

int64_t grapnel_run_iter(const grapnel_run* run) {
  return capi::IsGoingOn(run) ? run->context->iter() : 0;
}

int64_t grapnel_run_max_epochs(const grapnel_run* run) {
  return capi::IsGoingOn(run) ? run->context->max_epochs() : 0;
}

int64_t grapnel_run_max_iters(const grapnel_run* run) {
  return capi::IsGoingOn(run) ? run->context->max_iters() : 0;
}

grapnel_mode grapnel_run_mode(const grapnel_run* run) {
  if (!capi::IsGoingOn(run)) return 0;
  return static_cast<grapnel_mode>(run->context->mode());
}

int32_t grapnel_run_training(const grapnel_run* run) {
  return capi::IsGoingOn(run) && run->context->training() ? 1 : 0;
}

int64_t grapnel_run_batch_idx(const grapnel_run* run) {
  if (run == nullptr) return 0;
  return run->at_hand.iter == nullptr ? -1 : run->at_hand.iter->batch_idx;
}

int64_t grapnel_run_num_batches(const grapnel_run* run) {
  if (run == nullptr) return 0;
  return run->at_hand.iter == nullptr ? -1 : run->at_hand.iter->num_batches;
}

int32_t grapnel_run_rank(const grapnel_run* run) {
  return capi::IsGoingOn(run) ? run->context->process_group().rank() : 0;
}

int32_t grapnel_run_world_size(const grapnel_run* run) {
  return capi::IsGoingOn(run) ? run->context->process_group().world_size() : 0;
}

int32_t grapnel_run_is_master(const grapnel_run* run) {
  return capi::IsGoingOn(run) && run->context->is_master() ? 1 : 0;
}

grapnel_status* grapnel_run_batch(grapnel_run* run,
                                  const grapnel_tensors** batch) {
  return capi::Do(run, [&]() -> absl::Status {
    GRAPNEL_RETURN_IF_ERROR(capi::NotNull(batch, "batch"));
    const grapnel::IterInfo* const iter = run->at_hand.iter;
    if (iter == nullptr) {
      return capi::NotHere("a batch", "BEFORE_..._ITER and AFTER_..._ITER");
    }
    GRAPNEL_ASSIGN_OR_RETURN(*batch, run->batch.Get([&](auto* tensors) {
      return capi::FillTensors(*iter->batch, tensors);
    }));
    return absl::OkStatus();
  });
}

grapnel_status* grapnel_run_log_vars(grapnel_run* run,
                                     const grapnel_scalars** log_vars) {
  return capi::Do(run, [&]() -> absl::Status {
    GRAPNEL_RETURN_IF_ERROR(capi::NotNull(log_vars, "log_vars"));
    const grapnel::LogVars* const values = run->at_hand.log_vars;
    if (values == nullptr) {
      return capi::NotHere("what a step gave to log", "AFTER_TRAIN_ITER");
    }
    GRAPNEL_ASSIGN_OR_RETURN(*log_vars, run->log_vars.Get([&](auto* scalars) {
      return capi::FillScalars(*values, scalars);
    }));
    return absl::OkStatus();
  });
}

grapnel_status* grapnel_run_predictions(grapnel_run* run,
                                        const grapnel_tensors** predictions) {
  return capi::Do(run, [&]() -> absl::Status {
    GRAPNEL_RETURN_IF_ERROR(capi::NotNull(predictions, "predictions"));
    const grapnel::Predictions* const values = run->at_hand.predictions;
    if (values == nullptr) {
      return capi::NotHere("what the model says of a batch",
                           "AFTER_VAL_ITER and AFTER_TEST_ITER");
    }
    GRAPNEL_ASSIGN_OR_RETURN(*predictions,
                             run->predictions.Get([&](auto* tensors) {
                               return capi::FillTensors(*values, tensors);
                             }));
    return absl::OkStatus();
  });
}

grapnel_status* grapnel_run_metrics(grapnel_run* run,
                                    const grapnel_scalars** metrics) {
  return capi::Do(run, [&]() -> absl::Status {
    GRAPNEL_RETURN_IF_ERROR(capi::NotNull(metrics, "metrics"));
    const grapnel::Metrics* const values = run->at_hand.metrics;
    if (values == nullptr) {
      return capi::NotHere("what an evaluation came to",
                           "AFTER_VAL_EPOCH and AFTER_TEST_EPOCH");
    }
    GRAPNEL_ASSIGN_OR_RETURN(*metrics, run->metrics.Get([&](auto* scalars) {
      return capi::FillScalars(*values, scalars);
    }));
    return absl::OkStatus();
  });
}

grapnel_status* grapnel_run_saved_path(grapnel_run* run, const char** path) {
  return capi::Do(run, [&]() -> absl::Status {
    GRAPNEL_RETURN_IF_ERROR(capi::NotNull(path, "path"));
    if (run->at_hand.saved_path == nullptr) {
      return capi::NotHere("a saved checkpoint", "AFTER_SAVE_CHECKPOINT");
    }
    *path = run->at_hand.saved_path->c_str();
    return absl::OkStatus();
  });
}

grapnel_status* grapnel_run_error(grapnel_run* run,
                                  const grapnel_status** error) {
  return capi::Do(run, [&]() -> absl::Status {
    GRAPNEL_RETURN_IF_ERROR(capi::NotNull(error, "error"));
    if (run->at_hand.error == nullptr) {
      return capi::NotHere("an error", "ON_ERROR");
    }
    if (run->error == nullptr) {
      run->error.reset(capi::ToC(*run->at_hand.error));
    }
    *error = run->error.get();
    return absl::OkStatus();
  });
}

grapnel_status* grapnel_run_tensor(grapnel_run* run, const char* name,
                                   size_t name_size, grapnel_tensor** out) {
  return capi::Do(run, [&]() -> absl::Status {
    GRAPNEL_RETURN_IF_ERROR(capi::NotNull(out, "out"));
    std::string text;
    GRAPNEL_RETURN_IF_ERROR(capi::ReadName(name, name_size, "name", &text));
    GRAPNEL_ASSIGN_OR_RETURN(const grapnel::NamedTensor found,
                             grapnel::FindTensor(run->context->model(), text));
    const at::Tensor& tensor = found.tensor;
    // A reference that autograd doesn't keep from being written.
    auto handle = std::make_unique<grapnel_tensor>(tensor.detach());
    // It may be written through its pointer, which nobody would see.
    if (!tensor.is_inference()) tensor.unsafeGetTensorImpl()->bump_version();
    *out = handle.release();
    return absl::OkStatus();
  });
}

grapnel_status* grapnel_run_scalar(grapnel_run* run, const char* name,
                                   size_t name_size, double* value) {
  return capi::Do(run, [&]() -> absl::Status {
    GRAPNEL_RETURN_IF_ERROR(capi::NotNull(value, "value"));
    std::string text;
    GRAPNEL_RETURN_IF_ERROR(capi::ReadName(name, name_size, "name", &text));
    GRAPNEL_ASSIGN_OR_RETURN(
        *value, capi::NewestScalar(run->context->message_hub(), text));
    return absl::OkStatus();
  });
}

grapnel_status* grapnel_run_add_scalar(grapnel_run* run, const char* name,
                                       size_t name_size, double value) {
  return capi::Do(run, [&]() -> absl::Status {
    std::string text;
    GRAPNEL_RETURN_IF_ERROR(capi::ReadName(name, name_size, "name", &text));
    GRAPNEL_RETURN_IF_ERROR(capi::CheckName(text));
    run->context->message_hub().Scalar(text).Add(value);
    return absl::OkStatus();
  });
}

grapnel_status* grapnel_run_save(grapnel_run* run, const char* name,
                                 size_t name_size) {
  return capi::Do(run, [&]() -> absl::Status {
    absl::string_view text;
    GRAPNEL_RETURN_IF_ERROR(capi::ReadText(name, name_size, "name", &text));
    grapnel::SaveRequest request;
    request.name = std::string(text);
    return run->context->Save(std::move(request));
  });
}

grapnel_status* grapnel_run_request_stop(grapnel_run* run, grapnel_stop at,
                                         const char* reason,
                                         size_t reason_size) {
  return capi::Do(run, [&] {
    return capi::RequestStop(run->context, at, reason, reason_size);
  });
}

grapnel_status* grapnel_run_log(grapnel_run* run, grapnel_severity severity,
                                const char* message, size_t message_size) {
  return capi::Do(run, [&]() -> absl::Status {
    absl::string_view text;
    GRAPNEL_RETURN_IF_ERROR(
        capi::ReadText(message, message_size, "message", &text));
    using Level = grapnel::RunLog::Level;
    switch (severity) {
      case GRAPNEL_INFO:
        run->context->log().Write(Level::kInfo, text);
        return absl::OkStatus();
      case GRAPNEL_WARNING:
        run->context->log().Write(Level::kWarning, text);
        return absl::OkStatus();
      case GRAPNEL_ERROR:
        run->context->log().Write(Level::kError, text);
        return absl::OkStatus();
      default:
        return absl::InvalidArgumentError(
            absl::StrCat("severity: there is no ", severity));
    }
  });
}
