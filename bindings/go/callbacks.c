#include "callbacks.h"

#include "_cgo_export.h"

// The number of the runner whose data, log or record calls back on this thread,
// or 0. It may be a thread that the runner's end waits for.
static _Thread_local uint32_t inside;

int32_t grapnel_go_inside(uint32_t runner) { return inside == runner; }

static uint32_t enter(void* slot) {
  const uint32_t before = inside;
  inside = (uint32_t)((uintptr_t)slot >> 32);
  return before;
}

// ----------------------------------------------------------------------- hooks

static grapnel_status* on_stage(void* slot, grapnel_stage stage,
                                grapnel_run* run) {
  return grapnelGoOnStage((uintptr_t)slot, stage, run);
}

static grapnel_status* save_hook(void* slot, grapnel_bytes* state) {
  return grapnelGoSaveHook((uintptr_t)slot, state);
}

static grapnel_status* load_hook(void* slot, const void* state, size_t size) {
  return grapnelGoLoadHook((uintptr_t)slot, (void*)state, size);
}

static void destroy_hook(void* slot) { grapnelGoDestroyHook((uintptr_t)slot); }

grapnel_status* grapnel_go_add_hook(grapnel_runner_options* options,
                                    const char* name, size_t name_size,
                                    uint64_t stages, int32_t priority,
                                    int32_t has_state, uintptr_t slot) {
  const grapnel_hook_callbacks callbacks = {
      .struct_size = sizeof(callbacks),
      .stages = stages,
      .priority = priority,
      .on_stage = on_stage,
      .save_state = has_state ? save_hook : NULL,
      .load_state = has_state ? load_hook : NULL,
      .destroy = destroy_hook,
  };
  return grapnel_runner_options_add_hook(options, name, name_size, &callbacks,
                                         (void*)slot);
}

// -------------------------------------------------------------------- datasets

static grapnel_status* get(void* slot, int64_t index, grapnel_tensors* sample) {
  const uint32_t before = enter(slot);
  grapnel_status* const status = grapnelGoGet((uintptr_t)slot, index, sample);
  inside = before;
  return status;
}

static grapnel_status* get_batch(void* slot, const int64_t* indices,
                                 size_t count, grapnel_tensors* batch) {
  const uint32_t before = enter(slot);
  grapnel_status* const status =
      grapnelGoGetBatch((uintptr_t)slot, (int64_t*)indices, count, batch);
  inside = before;
  return status;
}

static void destroy_dataset(void* slot) {
  grapnelGoDestroyDataset((uintptr_t)slot);
}

grapnel_status* grapnel_go_set_dataset(grapnel_runner_options* options,
                                       grapnel_mode mode, int64_t size,
                                       int32_t thread_safe,
                                       int32_t has_get_batch, uintptr_t slot) {
  const grapnel_dataset_callbacks callbacks = {
      .struct_size = sizeof(callbacks),
      .size = size,
      .thread_safe = thread_safe,
      .get = get,
      .get_batch = has_get_batch ? get_batch : NULL,
      .destroy = destroy_dataset,
  };
  return grapnel_runner_options_set_dataset(options, mode, &callbacks,
                                            (void*)slot);
}

// --------------------------------------------------------------------- streams

static grapnel_status* begin_pass(void* slot, int64_t pass) {
  const uint32_t before = enter(slot);
  grapnel_status* const status = grapnelGoBeginPass((uintptr_t)slot, pass);
  inside = before;
  return status;
}

static grapnel_status* next(void* slot, grapnel_tensors* sample) {
  const uint32_t before = enter(slot);
  grapnel_status* const status = grapnelGoNext((uintptr_t)slot, sample);
  inside = before;
  return status;
}

static grapnel_status* save_stream(void* slot, grapnel_bytes* state) {
  const uint32_t before = enter(slot);
  grapnel_status* const status = grapnelGoSaveStream((uintptr_t)slot, state);
  inside = before;
  return status;
}

static grapnel_status* load_stream(void* slot, const void* state, size_t size) {
  const uint32_t before = enter(slot);
  grapnel_status* const status =
      grapnelGoLoadStream((uintptr_t)slot, (void*)state, size);
  inside = before;
  return status;
}

static void destroy_stream(void* slot) {
  grapnelGoDestroyStream((uintptr_t)slot);
}

grapnel_status* grapnel_go_set_stream(grapnel_runner_options* options,
                                      int32_t has_state, uintptr_t slot) {
  const grapnel_stream_callbacks callbacks = {
      .struct_size = sizeof(callbacks),
      .begin_pass = begin_pass,
      .next = next,
      .save_state = has_state ? save_stream : NULL,
      .load_state = has_state ? load_stream : NULL,
      .destroy = destroy_stream,
  };
  return grapnel_runner_options_set_stream(options, &callbacks, (void*)slot);
}

// ---------------------------------------------------------------------- models

static grapnel_status* train_step(void* slot, const grapnel_tensors* batch,
                                  grapnel_tensors* gradients,
                                  grapnel_scalars* losses) {
  return grapnelGoTrainStep((uintptr_t)slot, (grapnel_tensors*)batch, gradients,
                            losses);
}

static grapnel_status* val_step(void* slot, const grapnel_tensors* batch,
                                grapnel_tensors* predictions,
                                grapnel_scalars* losses) {
  return grapnelGoValStep((uintptr_t)slot, (grapnel_tensors*)batch, predictions,
                          losses);
}

static grapnel_status* tensors_written(void* slot) {
  return grapnelGoTensorsWritten((uintptr_t)slot);
}

static void set_training(void* slot, int32_t training) {
  grapnelGoSetTraining((uintptr_t)slot, training);
}

static grapnel_status* export_model(void* slot, const char* path, size_t size) {
  return grapnelGoExportModel((uintptr_t)slot, (char*)path, size);
}

static void destroy_model(void* slot) {
  grapnelGoDestroyModel((uintptr_t)slot);
}

grapnel_status* grapnel_go_set_model(grapnel_runner_options* options,
                                     const grapnel_tensors* parameters,
                                     const grapnel_tensors* buffers,
                                     int32_t has_val_step,
                                     int32_t has_tensors_written,
                                     int32_t has_set_training,
                                     int32_t has_export, uintptr_t slot) {
  const grapnel_model_callbacks callbacks = {
      .struct_size = sizeof(callbacks),
      .train_step = train_step,
      .val_step = has_val_step ? val_step : NULL,
      .tensors_written = has_tensors_written ? tensors_written : NULL,
      .set_training = has_set_training ? set_training : NULL,
      .export_model = has_export ? export_model : NULL,
      .destroy = destroy_model,
  };
  return grapnel_runner_options_set_model(options, &callbacks, parameters,
                                          buffers, (void*)slot);
}

// ---------------------------------------------------------- losses and metrics

static grapnel_status* compute_loss(void* slot, const grapnel_tensor* output,
                                    const grapnel_tensors* batch, double* loss,
                                    grapnel_tensor** grad) {
  return grapnelGoComputeLoss((uintptr_t)slot, (grapnel_tensor*)output,
                              (grapnel_tensors*)batch, loss, grad);
}

static void destroy_loss(void* slot) { grapnelGoDestroyLoss((uintptr_t)slot); }

grapnel_status* grapnel_go_set_loss(grapnel_runner_options* options,
                                    uintptr_t slot) {
  const grapnel_loss_callbacks callbacks = {
      .struct_size = sizeof(callbacks),
      .compute = compute_loss,
      .destroy = destroy_loss,
  };
  return grapnel_runner_options_set_loss(options, &callbacks, (void*)slot);
}

static grapnel_status* reset_metric(void* slot) {
  return grapnelGoResetMetric((uintptr_t)slot);
}

static grapnel_status* process_metric(void* slot,
                                      const grapnel_tensors* predictions,
                                      const grapnel_tensors* batch) {
  return grapnelGoProcessMetric((uintptr_t)slot, (grapnel_tensors*)predictions,
                                (grapnel_tensors*)batch);
}

static grapnel_status* compute_metric(void* slot, grapnel_scalars* metrics) {
  return grapnelGoComputeMetric((uintptr_t)slot, metrics);
}

static void destroy_metric(void* slot) {
  grapnelGoDestroyMetric((uintptr_t)slot);
}

grapnel_status* grapnel_go_add_metric(grapnel_runner_options* options,
                                      grapnel_mode mode, uintptr_t slot) {
  const grapnel_metric_callbacks callbacks = {
      .struct_size = sizeof(callbacks),
      .reset = reset_metric,
      .process = process_metric,
      .compute = compute_metric,
      .destroy = destroy_metric,
  };
  return grapnel_runner_options_add_metric(options, mode, &callbacks,
                                           (void*)slot);
}

// ------------------------------------------------------------ logs and records

static void log_line(void* slot, grapnel_severity severity, const char* message,
                     size_t size) {
  const uint32_t before = enter(slot);
  grapnelGoLog((uintptr_t)slot, severity, (char*)message, size);
  inside = before;
}

static grapnel_status* take_record(void* slot, grapnel_mode mode, int64_t step,
                                   const grapnel_scalars* record) {
  const uint32_t before = enter(slot);
  grapnel_status* const status =
      grapnelGoRecord((uintptr_t)slot, mode, step, (grapnel_scalars*)record);
  inside = before;
  return status;
}

grapnel_status* grapnel_go_set_runner_log(grapnel_runner_options* options,
                                          uintptr_t slot) {
  return grapnel_runner_options_set_log_callback(options, log_line,
                                                 (void*)slot);
}

grapnel_status* grapnel_go_set_records(grapnel_runner_options* options,
                                       uintptr_t slot) {
  return grapnel_runner_options_set_record_callback(options, take_record,
                                                    (void*)slot);
}

void grapnel_go_set_log(uintptr_t slot) {
  grapnel_set_log_callback(slot == 0 ? NULL : log_line, (void*)slot);
}
