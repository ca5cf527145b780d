#include "grapnel/runner/runner.h"

#include <atomic>
#include <cmath>
#include <cstdint>
#include <memory>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "grapnel/base/check_field.h"
#include "grapnel/base/log.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/capi/callback_run_log.h"
#include "grapnel/capi/fill_handles.h"
#include "grapnel/capi/guard.h"
#include "grapnel/capi/handles.h"
#include "grapnel/capi/library_thread.h"
#include "grapnel/capi/run.h"
#include "grapnel/capi/runner_handle.h"
#include "grapnel/capi/runner_options.h"
#include "grapnel/dist/process_group.h"
#include "grapnel/grapnel.h"
#include "grapnel/loggers/run_log.h"
#include "grapnel/loggers/text_run_log.h"
#include "grapnel/models/metric_value.h"
#include "grapnel/models/model.h"
#include "grapnel/runner/config_file.h"
#include "grapnel/runner/history_buffer.h"
#include "grapnel/runner/message_hub.h"
#include "grapnel/runner/run_context.h"
#include "grapnel/runner/runner_config.pb.h"

namespace grapnel::capi {
namespace {

// A call on a runner, unless one is going on.
class Call {
 public:
  explicit Call(const grapnel_runner& runner)
      : busy_(runner.busy),
        begun_(!busy_.exchange(true, std::memory_order_acquire)) {}
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;
  ~Call() {
    if (begun_) busy_.store(false, std::memory_order_release);
  }

  bool begun() const { return begun_; }

 private:
  std::atomic<bool>& busy_;
  const bool begun_;
};

// Runs `body`, and gives the caller what comes of it. kFailedPrecondition while
// another call is going on.
template <typename Body>
grapnel_status* Do(const grapnel_runner* runner, Body&& body) {
  return Guard([&]() -> absl::Status {
    GRAPNEL_RETURN_IF_ERROR(NotNull(runner, "runner"));
    const Call call(*runner);
    if (!call.begun()) {
      return absl::FailedPreconditionError(
          "runner: another call on it is going on; from a callback use what "
          "it was handed");
    }
    const CallScope scope;
    return body();
  });
}

// The same for what has no status; 0 while another call is going on.
template <typename Body>
int64_t Count(const grapnel_runner* runner, Body&& body) {
  if (runner == nullptr) return 0;
  const Call call(*runner);
  return call.begun() ? body(runner->runner->context()) : 0;
}

// What the run's log shows; an unknown one is refused by the runner.
RunLog::Level LevelOf(absl::string_view log_level) {
  if (log_level == "DEBUG") return RunLog::Level::kDebug;
  if (log_level == "WARNING") return RunLog::Level::kWarning;
  if (log_level == "ERROR") return RunLog::Level::kError;
  return RunLog::Level::kInfo;
}

absl::StatusOr<std::unique_ptr<RunLog>> CreateLog(
    const grapnel_runner_options& options) {
  const RunLog::Level level = LevelOf(options.config.log_level());
  std::unique_ptr<RunLog> terminal;
  if (options.core.terminal_fd >= 0) {
    TextRunLogOptions text;
    text.terminal_fd = options.core.terminal_fd;
    text.level = level;
    GRAPNEL_ASSIGN_OR_RETURN(terminal, CreateTextRunLog(text));
  }
  return MakeRunLog(options.log_callback, options.log_data, level,
                    std::move(terminal));
}

absl::StatusOr<std::unique_ptr<grapnel_runner>> CreateRunner(
    grapnel_runner_options* options) {
  options->used_up = true;
  auto runner = std::make_unique<grapnel_runner>();
  if (options->log_callback != nullptr) {
    GRAPNEL_ASSIGN_OR_RETURN(runner->log, CreateLog(*options));
    options->core.log = runner->log.get();
  }
  GRAPNEL_ASSIGN_OR_RETURN(
      runner->runner,
      Runner::Create(options->config, std::move(options->core)));
  return runner;
}

// A fact of the message hub.
struct AsText {
  std::string operator()(bool value) const { return value ? "true" : "false"; }
  std::string operator()(const std::string& value) const { return value; }
  std::string operator()(const std::vector<int64_t>& value) const {
    return absl::StrJoin(value, ",");
  }
  template <typename T>
  std::string operator()(T value) const {
    return absl::StrCat(value);
  }
};

// Metrics as the caller's numbers; they are as they were if that fails.
absl::Status GiveMetrics(const Metrics& metrics, grapnel_scalars* scalars) {
  if (scalars == nullptr) return absl::OkStatus();
  grapnel_scalars given;
  GRAPNEL_RETURN_IF_ERROR(FillScalars(metrics, &given));
  scalars->slots.swap(given.slots);
  scalars->size = given.size;
  return absl::OkStatus();
}

}  // namespace
}  // namespace grapnel::capi

namespace capi = grapnel::capi;

grapnel_status* grapnel_runner_create(grapnel_runner_options* options,
                                      grapnel_runner** out) {
  return capi::Guard([&]() -> absl::Status {
    GRAPNEL_RETURN_IF_ERROR(capi::CheckOptions(options));
    GRAPNEL_RETURN_IF_ERROR(capi::NotNull(out, "out"));
    const capi::CallScope scope;
    GRAPNEL_ASSIGN_OR_RETURN(auto runner, capi::CreateRunner(options));
    *out = runner.release();
    return absl::OkStatus();
  });
}

void grapnel_runner_destroy(grapnel_runner* runner) {
  if (!capi::OnLibraryThread()) {
    delete runner;
    return;
  }
  try {
    std::thread([runner] { delete runner; }).detach();
  } catch (const std::system_error& e) {
    GRAPNEL_LOG(ERROR) << "runner: stays, as there is no thread to destroy it: "
                       << e.what();
  }
}

grapnel_status* grapnel_runner_config(const grapnel_runner* runner,
                                      grapnel_encoding encoding,
                                      grapnel_bytes* config) {
  return capi::Do(runner, [&]() -> absl::Status {
    GRAPNEL_RETURN_IF_ERROR(capi::NotNull(config, "config"));
    GRAPNEL_ASSIGN_OR_RETURN(
        const grapnel::runner::v1::RunnerConfig parsed,
        grapnel::ParseRunnerConfig(runner->runner->context().config_text(),
                                   grapnel::ConfigFormat::kText, "config"));
    std::string printed;
    GRAPNEL_RETURN_IF_ERROR(capi::PrintMessage(parsed, encoding, &printed));
    return capi::AssignBytes(printed, "config", config);
  });
}

// A rank's place stays as it is, so that these look at no call.

int32_t grapnel_runner_rank(const grapnel_runner* runner) {
  if (runner == nullptr) return 0;
  return runner->runner->context().process_group().rank();
}

int32_t grapnel_runner_world_size(const grapnel_runner* runner) {
  if (runner == nullptr) return 0;
  return runner->runner->context().process_group().world_size();
}

int32_t grapnel_runner_is_master(const grapnel_runner* runner) {
  return runner != nullptr && runner->runner->context().is_master() ? 1 : 0;
}

int32_t grapnel_runner_local_rank(const grapnel_runner* runner) {
  if (runner == nullptr) return 0;
  return runner->runner->context().process_group().local_rank();
}

grapnel_status* grapnel_runner_train(grapnel_runner* runner) {
  return capi::Do(runner, [&] { return runner->runner->Train(); });
}

grapnel_status* grapnel_runner_step(grapnel_runner* runner, int32_t* more) {
  return capi::Do(runner, [&]() -> absl::Status {
    GRAPNEL_ASSIGN_OR_RETURN(const bool goes_on, runner->runner->Step());
    if (more != nullptr) *more = goes_on ? 1 : 0;
    return absl::OkStatus();
  });
}

grapnel_status* grapnel_runner_train_until(grapnel_runner* runner,
                                           double unix_seconds, int32_t* more) {
  return capi::Do(runner, [&]() -> absl::Status {
    GRAPNEL_RETURN_IF_ERROR(grapnel::CheckField(
        !std::isnan(unix_seconds), "unix_seconds", "a time", unix_seconds));
    GRAPNEL_ASSIGN_OR_RETURN(
        const bool goes_on,
        runner->runner->TrainUntil(absl::UnixEpoch() +
                                   absl::Seconds(unix_seconds)));
    if (more != nullptr) *more = goes_on ? 1 : 0;
    return absl::OkStatus();
  });
}

grapnel_status* grapnel_runner_val(grapnel_runner* runner,
                                   grapnel_scalars* metrics) {
  return capi::Do(runner, [&]() -> absl::Status {
    GRAPNEL_ASSIGN_OR_RETURN(const grapnel::Metrics values,
                             runner->runner->Val());
    return capi::GiveMetrics(values, metrics);
  });
}

grapnel_status* grapnel_runner_test(grapnel_runner* runner,
                                    grapnel_scalars* metrics) {
  return capi::Do(runner, [&]() -> absl::Status {
    GRAPNEL_ASSIGN_OR_RETURN(const grapnel::Metrics values,
                             runner->runner->Test());
    return capi::GiveMetrics(values, metrics);
  });
}

grapnel_status* grapnel_runner_export(grapnel_runner* runner, const char* path,
                                      size_t path_size) {
  return capi::Do(runner, [&]() -> absl::Status {
    std::string file;
    GRAPNEL_RETURN_IF_ERROR(capi::ReadName(path, path_size, "path", &file));
    return runner->runner->Export(file);
  });
}

grapnel_status* grapnel_runner_save(grapnel_runner* runner, const char* name,
                                    size_t name_size) {
  return capi::Do(runner, [&]() -> absl::Status {
    std::string text;
    GRAPNEL_RETURN_IF_ERROR(capi::ReadName(name, name_size, "name", &text));
    return runner->runner->Save(text);
  });
}

grapnel_status* grapnel_runner_request_stop(grapnel_runner* runner,
                                            grapnel_stop at, const char* reason,
                                            size_t reason_size) {
  // Any time: it waits for no call.
  return capi::Guard([&]() -> absl::Status {
    GRAPNEL_RETURN_IF_ERROR(capi::NotNull(runner, "runner"));
    return capi::RequestStop(&runner->runner->context(), at, reason,
                             reason_size);
  });
}

grapnel_status* grapnel_runner_stop_reason(const grapnel_runner* runner,
                                           grapnel_bytes* reason) {
  return capi::Do(runner, [&] {
    return capi::AssignBytes(runner->runner->stop_reason(), "reason", reason);
  });
}

int64_t grapnel_runner_epoch(const grapnel_runner* runner) {
  return capi::Count(
      runner, [](const grapnel::RunContext& run) { return run.epoch(); });
}

int64_t grapnel_runner_iter(const grapnel_runner* runner) {
  return capi::Count(runner,
                     [](const grapnel::RunContext& run) { return run.iter(); });
}

grapnel_status* grapnel_runner_scalar(const grapnel_runner* runner,
                                      const char* name, size_t name_size,
                                      double* value) {
  return capi::Do(runner, [&]() -> absl::Status {
    std::string text;
    GRAPNEL_RETURN_IF_ERROR(capi::ReadName(name, name_size, "name", &text));
    GRAPNEL_RETURN_IF_ERROR(capi::NotNull(value, "value"));
    GRAPNEL_ASSIGN_OR_RETURN(
        *value,
        capi::NewestScalar(runner->runner->context().message_hub(), text));
    return absl::OkStatus();
  });
}

grapnel_status* grapnel_runner_scalar_names(const grapnel_runner* runner,
                                            grapnel_bytes* names) {
  return capi::Do(runner, [&]() -> absl::Status {
    GRAPNEL_RETURN_IF_ERROR(capi::NotNull(names, "names"));
    std::vector<std::string> lines;
    for (const grapnel::HistoryBuffer* history :
         runner->runner->context().message_hub().scalars()) {
      lines.push_back(history->name());
    }
    return capi::AssignLines(lines, "names", names);
  });
}

grapnel_status* grapnel_runner_info(const grapnel_runner* runner,
                                    const char* name, size_t name_size,
                                    grapnel_bytes* value) {
  return capi::Do(runner, [&]() -> absl::Status {
    std::string text;
    GRAPNEL_RETURN_IF_ERROR(capi::ReadName(name, name_size, "name", &text));
    GRAPNEL_RETURN_IF_ERROR(capi::NotNull(value, "value"));
    const auto* const info =
        runner->runner->context().message_hub().FindInfo(text);
    if (info == nullptr) {
      return absl::NotFoundError(
          absl::StrCat("there is no fact \"", text, "\""));
    }
    return capi::AssignBytes(std::visit(capi::AsText{}, *info), "value", value);
  });
}

grapnel_status* grapnel_runner_get_tensor(const grapnel_runner* runner,
                                          const char* name, size_t name_size,
                                          grapnel_tensor** out) {
  return capi::Do(runner, [&]() -> absl::Status {
    std::string text;
    GRAPNEL_RETURN_IF_ERROR(capi::ReadName(name, name_size, "name", &text));
    GRAPNEL_RETURN_IF_ERROR(capi::NotNull(out, "out"));
    GRAPNEL_ASSIGN_OR_RETURN(at::Tensor copy, runner->runner->GetTensor(text));
    *out = new grapnel_tensor(std::move(copy));
    return absl::OkStatus();
  });
}

grapnel_status* grapnel_runner_set_tensor(grapnel_runner* runner,
                                          const char* name, size_t name_size,
                                          const grapnel_tensor* value) {
  return capi::Do(runner, [&]() -> absl::Status {
    std::string text;
    GRAPNEL_RETURN_IF_ERROR(capi::ReadName(name, name_size, "name", &text));
    GRAPNEL_RETURN_IF_ERROR(capi::NotNull(value, "value"));
    return runner->runner->SetTensor(text, value->tensor);
  });
}

grapnel_status* grapnel_runner_tensor_names(const grapnel_runner* runner,
                                            grapnel_bytes* names) {
  return capi::Do(runner, [&] {
    const grapnel::Model& model = runner->runner->context().model();
    std::vector<std::string> lines;
    for (const auto* tensors : {&model.parameters(), &model.buffers()}) {
      for (const grapnel::NamedTensor& tensor : *tensors) {
        lines.push_back(tensor.name);
      }
    }
    return capi::AssignLines(lines, "names", names);
  });
}

grapnel_status* grapnel_runner_stage_table(const grapnel_runner* runner,
                                           grapnel_bytes* table) {
  return capi::Do(runner, [&] {
    return capi::AssignBytes(runner->runner->StageTable(), "table", table);
  });
}

grapnel_status* grapnel_runner_work_dir(const grapnel_runner* runner,
                                        grapnel_bytes* path) {
  return capi::Do(runner, [&] {
    return capi::AssignBytes(runner->runner->context().work_dir(), "path",
                             path);
  });
}
