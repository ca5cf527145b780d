#include "grapnel/capi/runner_options.h"

#include <cstdint>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "grapnel/base/check_field.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/capi/callbacks.h"
#include "grapnel/capi/dataset_callbacks.h"
#include "grapnel/capi/handles.h"
#include "grapnel/capi/hook_callbacks.h"
#include "grapnel/capi/loss_callbacks.h"
#include "grapnel/capi/metric_callbacks.h"
#include "grapnel/capi/model_callbacks.h"
#include "grapnel/capi/record_callback.h"
#include "grapnel/capi/stream_callbacks.h"
#include "grapnel/data/dataset.h"
#include "grapnel/io/env.h"
#include "grapnel/models/loss.h"
#include "grapnel/models/metric.h"
#include "grapnel/models/model.h"
#include "grapnel/runner/config_file.h"
#include "grapnel/runner/hook_registry.h"

namespace grapnel::capi {
namespace {

using runner::v1::RunnerConfig;

// What a run is called whose config was not read from a file.
constexpr char kConfigName[] = "grapnel";

// Runs `body` for options that are not used up.
template <typename Body>
grapnel_status* Do(const grapnel_runner_options* options, Body&& body) {
  return Guard([&]() -> absl::Status {
    GRAPNEL_RETURN_IF_ERROR(CheckOptions(options));
    return body();
  });
}

absl::StatusOr<ConfigFormat> FormatOf(grapnel_encoding encoding) {
  switch (encoding) {
    case GRAPNEL_BINARY:
      return ConfigFormat::kBinary;
    case GRAPNEL_TEXT:
      return ConfigFormat::kText;
    case GRAPNEL_JSON:
      return ConfigFormat::kJson;
    default:
      return absl::InvalidArgumentError(
          absl::StrCat("encoding: there is no value ", encoding));
  }
}

absl::Status NoMode(grapnel_mode mode) {
  return absl::InvalidArgumentError(absl::StrCat("mode: there is no ", mode));
}

// Sets the config, with what is to be on top of it. After an error it is as it
// was.
absl::Status SetConfig(RunnerConfig config, grapnel_runner_options* options) {
  for (const std::string& assignment : options->overrides) {
    GRAPNEL_RETURN_IF_ERROR(
        ApplyOverride(assignment, /*path_base=*/"", &config));
  }
  options->config = std::move(config);
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Dataset>*> DatasetOf(
    grapnel_mode mode, grapnel_runner_options* options) {
  switch (mode) {
    case GRAPNEL_TRAIN:
      return &options->core.train_dataset;
    case GRAPNEL_VAL:
      return &options->core.val_dataset;
    case GRAPNEL_TEST:
      return &options->core.test_dataset;
    default:
      return NoMode(mode);
  }
}

absl::StatusOr<std::vector<std::unique_ptr<Metric>>*> MetricsOf(
    grapnel_mode mode, grapnel_runner_options* options) {
  switch (mode) {
    case GRAPNEL_TRAIN:
      return absl::InvalidArgumentError(
          "mode: must be GRAPNEL_VAL or GRAPNEL_TEST, is GRAPNEL_TRAIN");
    case GRAPNEL_VAL:
      return &options->core.val_metrics;
    case GRAPNEL_TEST:
      return &options->core.test_metrics;
    default:
      return NoMode(mode);
  }
}

}  // namespace

absl::Status CheckOptions(const grapnel_runner_options* options) {
  GRAPNEL_RETURN_IF_ERROR(NotNull(options, "options"));
  return options->used_up ? absl::FailedPreconditionError(
                                "options: are used up: a runner was made of "
                                "them, or should have been")
                          : absl::OkStatus();
}

}  // namespace grapnel::capi

namespace capi = grapnel::capi;

grapnel_status* grapnel_runner_options_create(grapnel_runner_options** out) {
  return capi::Guard([&]() -> absl::Status {
    GRAPNEL_RETURN_IF_ERROR(capi::NotNull(out, "out"));
    *out = new grapnel_runner_options;
    return absl::OkStatus();
  });
}

void grapnel_runner_options_destroy(grapnel_runner_options* options) {
  delete options;
}

grapnel_status* grapnel_runner_options_set_config(
    grapnel_runner_options* options, const void* config, size_t config_size,
    grapnel_encoding encoding) {
  return capi::Do(options, [&]() -> absl::Status {
    absl::string_view bytes;
    GRAPNEL_RETURN_IF_ERROR(
        capi::ReadBytes(config, config_size, "config", &bytes));
    GRAPNEL_ASSIGN_OR_RETURN(const grapnel::ConfigFormat format,
                             capi::FormatOf(encoding));
    GRAPNEL_ASSIGN_OR_RETURN(
        grapnel::runner::v1::RunnerConfig parsed,
        grapnel::ParseRunnerConfig(bytes, format, "config"));
    GRAPNEL_RETURN_IF_ERROR(capi::SetConfig(std::move(parsed), options));
    options->core.config_name = capi::kConfigName;
    return absl::OkStatus();
  });
}

grapnel_status* grapnel_runner_options_set_config_file(
    grapnel_runner_options* options, const char* path, size_t path_size) {
  return capi::Do(options, [&]() -> absl::Status {
    std::string file;
    GRAPNEL_RETURN_IF_ERROR(capi::ReadName(path, path_size, "path", &file));
    GRAPNEL_ASSIGN_OR_RETURN(
        grapnel::runner::v1::RunnerConfig parsed,
        grapnel::LoadRunnerConfig(grapnel::io::Env::Posix(), file));
    GRAPNEL_RETURN_IF_ERROR(capi::SetConfig(std::move(parsed), options));
    options->core.base_dir = grapnel::io::Dirname(file);
    options->core.config_name = grapnel::ConfigName(file);
    return absl::OkStatus();
  });
}

grapnel_status* grapnel_runner_options_override(grapnel_runner_options* options,
                                                const char* assignment,
                                                size_t assignment_size) {
  return capi::Do(options, [&]() -> absl::Status {
    absl::string_view text;
    GRAPNEL_RETURN_IF_ERROR(
        capi::ReadText(assignment, assignment_size, "assignment", &text));
    options->overrides.emplace_back(text);
    const absl::Status status =
        grapnel::ApplyOverride(text, /*path_base=*/"", &options->config);
    if (!status.ok()) options->overrides.pop_back();
    return status;
  });
}

grapnel_status* grapnel_runner_options_set_base_dir(
    grapnel_runner_options* options, const char* dir, size_t dir_size) {
  return capi::Do(options, [&]() -> absl::Status {
    absl::string_view text;
    GRAPNEL_RETURN_IF_ERROR(capi::ReadText(dir, dir_size, "dir", &text));
    options->core.base_dir = std::string(text);
    return absl::OkStatus();
  });
}

grapnel_status* grapnel_runner_options_set_for_training(
    grapnel_runner_options* options, int32_t for_training) {
  return capi::Do(options, [&] {
    options->core.for_training = for_training != 0;
    return absl::OkStatus();
  });
}

grapnel_status* grapnel_runner_options_set_wait_for_lock(
    grapnel_runner_options* options, double seconds) {
  return capi::Do(options, [&]() -> absl::Status {
    GRAPNEL_RETURN_IF_ERROR(
        grapnel::CheckField(seconds >= 0, "seconds", ">= 0", seconds));
    options->core.wait_for_lock = absl::Seconds(seconds);
    return absl::OkStatus();
  });
}

grapnel_status* grapnel_runner_options_set_terminal_fd(
    grapnel_runner_options* options, int32_t fd) {
  return capi::Do(options, [&]() -> absl::Status {
    GRAPNEL_RETURN_IF_ERROR(grapnel::CheckField(fd >= -1, "fd", ">= -1", fd));
    options->core.terminal_fd = fd;
    return absl::OkStatus();
  });
}

grapnel_status* grapnel_runner_options_set_log_callback(
    grapnel_runner_options* options, grapnel_log_callback callback,
    void* user_data) {
  return capi::Do(options, [&]() -> absl::Status {
    GRAPNEL_RETURN_IF_ERROR(capi::MustBeSet(callback, "callback"));
    options->log_callback = callback;
    options->log_data = user_data;
    return absl::OkStatus();
  });
}

grapnel_status* grapnel_runner_options_set_record_callback(
    grapnel_runner_options* options, grapnel_record_callback callback,
    void* user_data) {
  return capi::Do(options, [&]() -> absl::Status {
    GRAPNEL_RETURN_IF_ERROR(capi::MustBeSet(callback, "callback"));
    options->core.log_backends.clear();
    options->core.log_backends.push_back(
        capi::MakeRecordBackend(callback, user_data));
    return absl::OkStatus();
  });
}

grapnel_status* grapnel_runner_options_set_dataset(
    grapnel_runner_options* options, grapnel_mode mode,
    const grapnel_dataset_callbacks* callbacks, void* user_data) {
  return capi::Do(options, [&]() -> absl::Status {
    GRAPNEL_ASSIGN_OR_RETURN(std::unique_ptr<grapnel::Dataset>* const dataset,
                             capi::DatasetOf(mode, options));
    GRAPNEL_ASSIGN_OR_RETURN(auto made,
                             capi::MakeDataset(callbacks, user_data));
    *dataset = std::move(made.product);
    made.lent->Take();
    return absl::OkStatus();
  });
}

grapnel_status* grapnel_runner_options_set_tensors(
    grapnel_runner_options* options, grapnel_mode mode,
    const grapnel_tensors* tensors) {
  return capi::Do(options, [&]() -> absl::Status {
    GRAPNEL_ASSIGN_OR_RETURN(std::unique_ptr<grapnel::Dataset>* const dataset,
                             capi::DatasetOf(mode, options));
    GRAPNEL_RETURN_IF_ERROR(capi::NotNull(tensors, "tensors"));
    GRAPNEL_ASSIGN_OR_RETURN(*dataset, capi::MakeDataset(*tensors));
    return absl::OkStatus();
  });
}

grapnel_status* grapnel_runner_options_set_stream(
    grapnel_runner_options* options, const grapnel_stream_callbacks* callbacks,
    void* user_data) {
  return capi::Do(options, [&]() -> absl::Status {
    GRAPNEL_ASSIGN_OR_RETURN(auto made, capi::MakeStream(callbacks, user_data));
    options->core.train_stream = std::move(made.product);
    made.lent->Take();
    return absl::OkStatus();
  });
}

grapnel_status* grapnel_runner_options_set_model(
    grapnel_runner_options* options, const grapnel_model_callbacks* callbacks,
    const grapnel_tensors* parameters, const grapnel_tensors* buffers,
    void* user_data) {
  return capi::Do(options, [&]() -> absl::Status {
    GRAPNEL_RETURN_IF_ERROR(capi::NotNull(parameters, "parameters"));
    GRAPNEL_ASSIGN_OR_RETURN(
        auto made, capi::MakeModel(callbacks, *parameters, buffers, user_data));
    options->core.model = std::move(made.product);
    made.lent->Take();
    return absl::OkStatus();
  });
}

grapnel_status* grapnel_runner_options_set_loss(
    grapnel_runner_options* options, const grapnel_loss_callbacks* callbacks,
    void* user_data) {
  return capi::Do(options, [&]() -> absl::Status {
    GRAPNEL_ASSIGN_OR_RETURN(auto made, capi::MakeLoss(callbacks, user_data));
    options->core.loss = std::move(made.product);
    made.lent->Take();
    return absl::OkStatus();
  });
}

grapnel_status* grapnel_runner_options_add_metric(
    grapnel_runner_options* options, grapnel_mode mode,
    const grapnel_metric_callbacks* callbacks, void* user_data) {
  return capi::Do(options, [&]() -> absl::Status {
    GRAPNEL_ASSIGN_OR_RETURN(auto* const metrics,
                             capi::MetricsOf(mode, options));
    GRAPNEL_ASSIGN_OR_RETURN(auto made, capi::MakeMetric(callbacks, user_data));
    metrics->push_back(std::move(made.product));
    made.lent->Take();
    return absl::OkStatus();
  });
}

grapnel_status* grapnel_runner_options_add_hook(
    grapnel_runner_options* options, const char* name, size_t name_size,
    const grapnel_hook_callbacks* callbacks, void* user_data) {
  return capi::Do(options, [&]() -> absl::Status {
    std::string hook_name;
    GRAPNEL_RETURN_IF_ERROR(
        capi::ReadName(name, name_size, "name", &hook_name));
    GRAPNEL_ASSIGN_OR_RETURN(
        auto made, capi::MakeHook(std::move(hook_name), callbacks, user_data));
    options->core.hooks.push_back(std::move(made.product));
    made.lent->Take();
    return absl::OkStatus();
  });
}
