// Calls of the C API in the form that costs Go least: results by value, so that
// no output parameter has to be on Go's heap, and several reads in one
// crossing.

#ifndef GRAPNEL_BINDINGS_GO_NATIVE_H_
#define GRAPNEL_BINDINGS_GO_NATIVE_H_

#include <grapnel/grapnel.h>
#include <string.h>

#include "progress.h"

// Shapes of up to that many dimensions travel by value too.
#define GRAPNEL_GO_RANK 8
typedef struct grapnel_go_shape {
  int64_t sizes[GRAPNEL_GO_RANK];
} grapnel_go_shape;

typedef struct grapnel_go_number {
  grapnel_status* status;
  double value;
} grapnel_go_number;

typedef struct grapnel_go_text {
  grapnel_status* status;
  grapnel_bytes bytes;
} grapnel_go_text;

typedef struct grapnel_go_handle {
  grapnel_status* status;
  void* object;
} grapnel_go_handle;

typedef struct grapnel_go_step {
  grapnel_status* status;
  int32_t more;
  int64_t epoch;
  int64_t iter;
} grapnel_go_step;

typedef struct grapnel_go_elements {
  grapnel_dtype dtype;
  int64_t numel;
  void* data;
} grapnel_go_elements;

typedef struct grapnel_go_scalar {
  const char* name;
  size_t name_size;
  double value;
} grapnel_go_scalar;

// ------------------------------------------------------------------- tensors

static inline grapnel_go_handle grapnel_go_tensor_create(grapnel_dtype dtype,
                                                         grapnel_go_shape shape,
                                                         int32_t rank,
                                                         const void* data,
                                                         size_t size) {
  grapnel_go_handle out = {NULL, NULL};
  out.status = grapnel_tensor_create(dtype, shape.sizes, rank, data, size,
                                     (grapnel_tensor**)&out.object);
  return out;
}

static inline grapnel_go_handle grapnel_go_tensor_share(
    const grapnel_tensor* tensor) {
  grapnel_go_handle out = {NULL, NULL};
  out.status = grapnel_tensor_share(tensor, (grapnel_tensor**)&out.object);
  return out;
}

static inline grapnel_go_elements grapnel_go_tensor_elements(
    const grapnel_tensor* tensor) {
  const grapnel_go_elements out = {grapnel_tensor_dtype(tensor),
                                   grapnel_tensor_numel(tensor),
                                   grapnel_tensor_data(tensor)};
  return out;
}

static inline grapnel_go_handle grapnel_go_tensor_from_dlpack(void* dlpack) {
  grapnel_go_handle out = {NULL, NULL};
  out.status =
      grapnel_tensor_from_dlpack(dlpack, (grapnel_tensor**)&out.object);
  return out;
}

static inline grapnel_go_handle grapnel_go_tensor_to_dlpack(
    const grapnel_tensor* tensor) {
  grapnel_go_handle out = {NULL, NULL};
  out.status = grapnel_tensor_to_dlpack(
      tensor, (struct DLManagedTensorVersioned**)&out.object);
  return out;
}

// Zeros in host memory, of another tensor's shape and dtype.
grapnel_go_handle grapnel_go_tensor_zeros_like(const grapnel_tensor* tensor);

static inline grapnel_go_handle grapnel_go_tensors_create(void) {
  grapnel_go_handle out = {NULL, NULL};
  out.status = grapnel_tensors_create((grapnel_tensors**)&out.object);
  return out;
}

static inline grapnel_go_handle grapnel_go_tensors_add_new(
    grapnel_tensors* tensors, const char* name, size_t name_size,
    grapnel_dtype dtype, grapnel_go_shape shape, int32_t rank) {
  grapnel_go_handle out = {NULL, NULL};
  out.status = grapnel_tensors_add_new(tensors, name, name_size, dtype,
                                       shape.sizes, rank, &out.object);
  return out;
}

static inline grapnel_status* grapnel_go_tensors_add_copy(
    grapnel_tensors* tensors, const char* name, size_t name_size,
    grapnel_dtype dtype, grapnel_go_shape shape, int32_t rank, const void* data,
    size_t size) {
  return grapnel_tensors_add_copy(tensors, name, name_size, dtype, shape.sizes,
                                  rank, data, size);
}

static inline grapnel_status* grapnel_go_tensors_add_shared(
    grapnel_tensors* tensors, const char* name, size_t name_size,
    const grapnel_tensor* tensor) {
  grapnel_tensor* shared = NULL;
  grapnel_status* status = grapnel_tensor_share(tensor, &shared);
  if (status != NULL) return status;
  status = grapnel_tensors_add(tensors, name, name_size, shared);
  if (status != NULL) grapnel_tensor_destroy(shared);
  return status;
}

static inline grapnel_go_scalar grapnel_go_scalars_at(
    const grapnel_scalars* scalars, int64_t index) {
  grapnel_go_scalar out;
  out.name = grapnel_scalars_name(scalars, index);
  out.name_size = out.name == NULL ? 0 : strlen(out.name);
  out.value = grapnel_scalars_value(scalars, index);
  return out;
}

// ----------------------------------------------------------------- a hook's
// run

static inline grapnel_go_handle grapnel_go_run_batch(grapnel_run* run) {
  grapnel_go_handle out = {NULL, NULL};
  out.status = grapnel_run_batch(run, (const grapnel_tensors**)&out.object);
  return out;
}

static inline grapnel_go_handle grapnel_go_run_predictions(grapnel_run* run) {
  grapnel_go_handle out = {NULL, NULL};
  out.status =
      grapnel_run_predictions(run, (const grapnel_tensors**)&out.object);
  return out;
}

static inline grapnel_go_handle grapnel_go_run_log_vars(grapnel_run* run) {
  grapnel_go_handle out = {NULL, NULL};
  out.status = grapnel_run_log_vars(run, (const grapnel_scalars**)&out.object);
  return out;
}

static inline grapnel_go_handle grapnel_go_run_metrics(grapnel_run* run) {
  grapnel_go_handle out = {NULL, NULL};
  out.status = grapnel_run_metrics(run, (const grapnel_scalars**)&out.object);
  return out;
}

static inline grapnel_go_handle grapnel_go_run_saved_path(grapnel_run* run) {
  grapnel_go_handle out = {NULL, NULL};
  out.status = grapnel_run_saved_path(run, (const char**)&out.object);
  return out;
}

static inline grapnel_go_handle grapnel_go_run_error(grapnel_run* run) {
  grapnel_go_handle out = {NULL, NULL};
  out.status = grapnel_run_error(run, (const grapnel_status**)&out.object);
  return out;
}

static inline grapnel_go_handle grapnel_go_run_tensor(grapnel_run* run,
                                                      const char* name,
                                                      size_t name_size) {
  grapnel_go_handle out = {NULL, NULL};
  out.status =
      grapnel_run_tensor(run, name, name_size, (grapnel_tensor**)&out.object);
  return out;
}

static inline grapnel_go_number grapnel_go_run_scalar(grapnel_run* run,
                                                      const char* name,
                                                      size_t name_size) {
  grapnel_go_number out = {NULL, 0};
  out.status = grapnel_run_scalar(run, name, name_size, &out.value);
  return out;
}

// -------------------------------------------------------------------- runners

static inline grapnel_go_handle grapnel_go_runner_options_create(void) {
  grapnel_go_handle out = {NULL, NULL};
  out.status =
      grapnel_runner_options_create((grapnel_runner_options**)&out.object);
  return out;
}

static inline grapnel_go_handle grapnel_go_runner_create(
    grapnel_runner_options* options) {
  grapnel_go_handle out = {NULL, NULL};
  out.status = grapnel_runner_create(options, (grapnel_runner**)&out.object);
  return out;
}

// Where the run is after it comes with the step.
static inline grapnel_go_step grapnel_go_runner_step(
    grapnel_runner* runner, grapnel_go_progress* progress) {
  grapnel_go_step out = {NULL, 0, 0, 0};
  out.status = grapnel_runner_step(runner, &out.more);
  grapnel_go_progress_set(progress, runner);
  out.epoch = grapnel_go_progress_epoch(progress);
  out.iter = grapnel_go_progress_iter(progress);
  return out;
}

static inline grapnel_go_step grapnel_go_runner_train_until(
    grapnel_runner* runner, double unix_seconds) {
  grapnel_go_step out = {NULL, 0, 0, 0};
  out.status = grapnel_runner_train_until(runner, unix_seconds, &out.more);
  return out;
}

static inline grapnel_go_text grapnel_go_runner_config(
    const grapnel_runner* runner) {
  grapnel_go_text out = {NULL, {NULL, 0}};
  out.status = grapnel_runner_config(runner, GRAPNEL_BINARY, &out.bytes);
  return out;
}

static inline grapnel_go_text grapnel_go_runner_stop_reason(
    const grapnel_runner* runner) {
  grapnel_go_text out = {NULL, {NULL, 0}};
  out.status = grapnel_runner_stop_reason(runner, &out.bytes);
  return out;
}

static inline grapnel_go_number grapnel_go_runner_scalar(
    const grapnel_runner* runner, const char* name, size_t name_size) {
  grapnel_go_number out = {NULL, 0};
  out.status = grapnel_runner_scalar(runner, name, name_size, &out.value);
  return out;
}

static inline grapnel_go_text grapnel_go_runner_scalar_names(
    const grapnel_runner* runner) {
  grapnel_go_text out = {NULL, {NULL, 0}};
  out.status = grapnel_runner_scalar_names(runner, &out.bytes);
  return out;
}

static inline grapnel_go_text grapnel_go_runner_info(
    const grapnel_runner* runner, const char* name, size_t name_size) {
  grapnel_go_text out = {NULL, {NULL, 0}};
  out.status = grapnel_runner_info(runner, name, name_size, &out.bytes);
  return out;
}

static inline grapnel_go_handle grapnel_go_runner_get_tensor(
    const grapnel_runner* runner, const char* name, size_t name_size) {
  grapnel_go_handle out = {NULL, NULL};
  out.status = grapnel_runner_get_tensor(runner, name, name_size,
                                         (grapnel_tensor**)&out.object);
  return out;
}

static inline grapnel_go_text grapnel_go_runner_tensor_names(
    const grapnel_runner* runner) {
  grapnel_go_text out = {NULL, {NULL, 0}};
  out.status = grapnel_runner_tensor_names(runner, &out.bytes);
  return out;
}

static inline grapnel_go_text grapnel_go_runner_stage_table(
    const grapnel_runner* runner) {
  grapnel_go_text out = {NULL, {NULL, 0}};
  out.status = grapnel_runner_stage_table(runner, &out.bytes);
  return out;
}

static inline grapnel_go_text grapnel_go_runner_work_dir(
    const grapnel_runner* runner) {
  grapnel_go_text out = {NULL, {NULL, 0}};
  out.status = grapnel_runner_work_dir(runner, &out.bytes);
  return out;
}

static inline grapnel_go_handle grapnel_go_runner_predictor(
    grapnel_runner* runner, grapnel_weights weights, int32_t replicas) {
  grapnel_go_handle out = {NULL, NULL};
  out.status = grapnel_runner_predictor(runner, weights, replicas,
                                        (grapnel_predictor**)&out.object);
  return out;
}

// ----------------------------------------------------------------- predictors

static inline grapnel_go_handle grapnel_go_predictor_open(
    const char* path, size_t path_size, grapnel_weights weights,
    int32_t replicas) {
  grapnel_go_handle out = {NULL, NULL};
  out.status = grapnel_predictor_open(path, path_size, weights, replicas,
                                      (grapnel_predictor**)&out.object);
  return out;
}

static inline grapnel_go_handle grapnel_go_predictor_predict(
    grapnel_predictor* predictor, const grapnel_tensor* inputs) {
  grapnel_go_handle out = {NULL, NULL};
  out.status = grapnel_predictor_predict(predictor, inputs,
                                         (grapnel_tensor**)&out.object);
  return out;
}

// ---------------------------------------------------------------- checkpoints

static inline grapnel_go_text grapnel_go_checkpoint_list(const char* dir,
                                                         size_t dir_size) {
  grapnel_go_text out = {NULL, {NULL, 0}};
  out.status = grapnel_checkpoint_list(dir, dir_size, &out.bytes);
  return out;
}

static inline grapnel_go_text grapnel_go_checkpoint_latest(const char* dir,
                                                           size_t dir_size) {
  grapnel_go_text out = {NULL, {NULL, 0}};
  out.status = grapnel_checkpoint_latest(dir, dir_size, &out.bytes);
  return out;
}

static inline grapnel_go_handle grapnel_go_checkpoint_open(const char* path,
                                                           size_t path_size) {
  grapnel_go_handle out = {NULL, NULL};
  out.status = grapnel_checkpoint_open(path, path_size,
                                       (grapnel_checkpoint**)&out.object);
  return out;
}

static inline grapnel_go_text grapnel_go_checkpoint_manifest(
    const grapnel_checkpoint* checkpoint) {
  grapnel_go_text out = {NULL, {NULL, 0}};
  out.status =
      grapnel_checkpoint_manifest(checkpoint, GRAPNEL_BINARY, &out.bytes);
  return out;
}

static inline grapnel_go_text grapnel_go_checkpoint_sections(
    const grapnel_checkpoint* checkpoint) {
  grapnel_go_text out = {NULL, {NULL, 0}};
  out.status = grapnel_checkpoint_sections(checkpoint, &out.bytes);
  return out;
}

static inline grapnel_go_handle grapnel_go_checkpoint_tensors(
    const grapnel_checkpoint* checkpoint, const char* section,
    size_t section_size) {
  grapnel_go_handle out = {NULL, NULL};
  out.status = grapnel_checkpoint_tensors(checkpoint, section, section_size,
                                          (const grapnel_tensors**)&out.object);
  return out;
}

// ---------------------------------------------------------- parts without a
// run

static inline grapnel_go_text grapnel_go_registered_configs(void) {
  grapnel_go_text out = {NULL, {NULL, 0}};
  out.status = grapnel_registered_configs(&out.bytes);
  return out;
}

// `values` is num_values numbers, of memory that C has allocated.
grapnel_go_handle grapnel_go_scheduler_create(const void* config,
                                              size_t config_size,
                                              double* values, size_t num_values,
                                              int64_t max_epochs,
                                              int64_t max_iters);

static inline grapnel_go_text grapnel_go_scheduler_save_state(
    const grapnel_scheduler* scheduler) {
  grapnel_go_text out = {NULL, {NULL, 0}};
  out.status = grapnel_scheduler_save_state(scheduler, &out.bytes);
  return out;
}

static inline grapnel_go_handle grapnel_go_average_create(
    const void* config, size_t config_size, const grapnel_tensors* parameters,
    const grapnel_tensors* buffers) {
  grapnel_go_handle out = {NULL, NULL};
  out.status =
      grapnel_average_create(config, config_size, GRAPNEL_BINARY, parameters,
                             buffers, (grapnel_average**)&out.object);
  return out;
}

#endif  // GRAPNEL_BINDINGS_GO_NATIVE_H_
