#include "grapnel/tests/capi/runs/digits_train.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "grapnel/grapnel.h"

const char digits_config[] =
    "model {\n"
    "  sequential {\n"
    "    layers { flatten {} }\n"
    "    layers { linear { out_features: 24 } }\n"
    "    layers { relu {} }\n"
    "    layers { dropout { p: 0.2 } }\n"
    "    layers { linear { out_features: 10 } }\n"
    "    loss { cross_entropy {} }\n"
    "  }\n"
    "}\n"
    "train_dataloader {\n"
    "  batch_size: 64\n"
    "  num_workers: 2\n"
    "  sampler { shuffle: true }\n"
    "}\n"
    "val_dataloader { batch_size: 90 }\n"
    "train_cfg { max_epochs: 3 }\n"
    "optim_wrapper {\n"
    "  optimizer { adamw { lr: 0.01 weight_decay: 0.05 } }\n"
    "  accumulative_counts: 2\n"
    "}\n"
    "param_scheduler { linear { start_factor: 0.1 by_epoch: false end: 20 } }\n"
    "val_evaluator { accuracy { topk: 1 } }\n"
    "default_hooks {\n"
    "  checkpoint {\n"
    "    interval: 1\n"
    "    save_best: \"accuracy/top1\"\n"
    "    rule: \"greater\"\n"
    "  }\n"
    "}\n"
    "custom_hooks { config { [hooks/EMAHook] { momentum: 0.1 } } }\n"
    "randomness { seed: 3 }\n";

const char digits_extra_save[] = "extra_2";

// -------------------------------------------------------------------- traces

void digits_note(text* trace, const digits_event* event) {
  text_append(trace,
              "%s epoch %lld of %lld iter %lld of %lld mode %d training %d "
              "batch %lld of %lld\n",
              event->stage, (long long)event->epoch,
              (long long)event->max_epochs, (long long)event->iter,
              (long long)event->max_iters, event->mode, event->training,
              (long long)event->batch_idx, (long long)event->num_batches);
}

void digits_note_number(text* trace, const char* name, double value) {
  text_append(trace, "  %s %a\n", name, value);
}

void digits_note_text(text* trace, const char* name, const char* value) {
  text_append(trace, "  %s %s\n", name, value);
}

// Whether something failed; its message is kept.
static int failed(grapnel_status* status, text* error) {
  if (status == NULL) return 0;
  text_append(error, "%d: %s\n", (int)grapnel_status_code(status),
              grapnel_status_message(status));
  grapnel_status_destroy(status);
  return 1;
}

static grapnel_status* error_of(const char* message) {
  return grapnel_status_create(GRAPNEL_INTERNAL, message, strlen(message));
}

// ---------------------------------------------------------------------- data

// A pair of IDX files.
typedef struct data {
  int64_t size;
  unsigned char* pixels;  // size * 64
  unsigned char* labels;  // size
  int* destroyed;
} data;

enum { kPixels = 64 };

// The bytes behind the header of an IDX file of that many dimensions, the first
// of which is *size; NULL if it isn't one.
static unsigned char* read_idx(const char* dir, const char* name, int rank,
                               int64_t* size) {
  char path[1024];
  unsigned char header[16];
  unsigned char* bytes = NULL;
  snprintf(path, sizeof(path), "%s/%s", dir, name);
  FILE* const file = fopen(path, "rb");
  if (file == NULL) return NULL;
  const size_t header_size = 4 + 4 * (size_t)rank;
  if (fread(header, 1, header_size, file) == header_size && header[0] == 0 &&
      header[1] == 0 && header[2] == 8 && header[3] == rank) {
    size_t total = 1;
    for (int i = 0; i < rank; ++i) {
      const unsigned char* const b = header + 4 + 4 * i;
      const size_t n = (size_t)b[0] << 24 | (size_t)b[1] << 16 |
                       (size_t)b[2] << 8 | (size_t)b[3];
      if (i == 0) *size = (int64_t)n;
      total *= n;
    }
    bytes = malloc(total);
    if (bytes != NULL && fread(bytes, 1, total, file) != total) {
      free(bytes);
      bytes = NULL;
    }
  }
  fclose(file);
  return bytes;
}

static void destroy_data(void* user_data) {
  data* const it = user_data;
  ++*it->destroyed;
  free(it->pixels);
  free(it->labels);
  free(it);
}

static data* read_data(const char* dir, const char* part, int* destroyed) {
  char name[64];
  int64_t num_labels = -1;
  data* const it = calloc(1, sizeof(*it));
  if (it == NULL) return NULL;
  it->destroyed = destroyed;
  snprintf(name, sizeof(name), "%s-images-idx3-ubyte", part);
  it->pixels = read_idx(dir, name, 3, &it->size);
  snprintf(name, sizeof(name), "%s-labels-idx1-ubyte", part);
  it->labels = read_idx(dir, name, 1, &num_labels);
  if (it->pixels == NULL || it->labels == NULL || num_labels != it->size) {
    destroy_data(it);
    return NULL;
  }
  return it;
}

// Pixels are 0 to 16.
static void write_image(const data* from, int64_t index, float* to) {
  const unsigned char* const pixels = from->pixels + index * kPixels;
  for (int i = 0; i < kPixels; ++i) to[i] = (float)pixels[i] * 0.0625f;
}

static grapnel_status* get(void* user_data, int64_t index,
                           grapnel_tensors* sample) {
  const data* const from = user_data;
  const int64_t shape[] = {1, 8, 8};
  float image[kPixels];
  const int64_t label = from->labels[index];
  write_image(from, index, image);
  grapnel_status* const status = grapnel_tensors_add_copy(
      sample, "input", 5, GRAPNEL_FLOAT32, shape, 3, image, sizeof(image));
  if (status != NULL) return status;
  return grapnel_tensors_add_copy(sample, "target", 6, GRAPNEL_INT64, NULL, 0,
                                  &label, sizeof(label));
}

static grapnel_status* get_batch(void* user_data, const int64_t* indices,
                                 size_t count, grapnel_tensors* batch) {
  const data* const from = user_data;
  const int64_t shape[] = {(int64_t)count, 1, 8, 8};
  float* const images = malloc(count * kPixels * sizeof(float));
  int64_t* const labels = malloc(count * sizeof(int64_t));
  grapnel_status* status = NULL;
  if (images == NULL || labels == NULL) {
    status = error_of("out of memory");
  } else {
    for (size_t i = 0; i < count; ++i) {
      write_image(from, indices[i], images + i * kPixels);
      labels[i] = from->labels[indices[i]];
    }
    status =
        grapnel_tensors_add_copy(batch, "input", 5, GRAPNEL_FLOAT32, shape, 4,
                                 images, count * kPixels * sizeof(float));
    if (status == NULL) {
      status =
          grapnel_tensors_add_copy(batch, "target", 6, GRAPNEL_INT64, shape, 1,
                                   labels, count * sizeof(int64_t));
    }
  }
  free(images);
  free(labels);
  return status;
}

// ---------------------------------------------------------------------- hook

// By grapnel_stage.
static const char* const kStageNames[] = {
    "setup",
    "before_run",
    "after_load_checkpoint",
    "after_restore",
    "before_train",
    "before_train_epoch",
    "before_train_iter",
    "before_optimizer_step",
    "after_optimizer_step",
    "after_train_iter",
    "after_train_epoch",
    "before_val",
    "before_val_epoch",
    "before_val_iter",
    "after_val_iter",
    "after_val_epoch",
    "after_val",
    "before_test",
    "before_test_epoch",
    "before_test_iter",
    "after_test_iter",
    "after_test_epoch",
    "after_test",
    "before_save_checkpoint",
    "after_save_checkpoint",
    "before_export",
    "after_export",
    "after_train",
    "on_error",
    "after_run",
};
enum { kNumStages = sizeof(kStageNames) / sizeof(kStageNames[0]) };

typedef struct tracer {
  text* trace;
  int64_t events;  // What is kept in checkpoints.
  int* destroyed;
} tracer;

static grapnel_status* note_scalars(text* trace,
                                    const grapnel_scalars* scalars) {
  const int64_t size = grapnel_scalars_size(scalars);
  for (int64_t i = 0; i < size; ++i) {
    digits_note_number(trace, grapnel_scalars_name(scalars, i),
                       grapnel_scalars_value(scalars, i));
  }
  return NULL;
}

static grapnel_status* note_batch(text* trace, grapnel_run* run) {
  const grapnel_tensors* batch = NULL;
  grapnel_status* const status = grapnel_run_batch(run, &batch);
  if (status != NULL) return status;
  const grapnel_tensor* const input = grapnel_tensors_find(batch, "input", 5);
  const grapnel_tensor* const target = grapnel_tensors_find(batch, "target", 6);
  if (input == NULL || target == NULL || grapnel_tensor_rank(input) != 4) {
    return error_of("the batch isn't as it should be");
  }
  const float* const pixels = grapnel_tensor_data(input);
  const int64_t* const labels = grapnel_tensor_data(target);
  if (pixels == NULL || labels == NULL) return error_of("no memory to read");
  double sum = 0;
  const int64_t numel = grapnel_tensor_numel(input);
  for (int64_t i = 0; i < numel; ++i) sum += pixels[i];
  digits_note_number(trace, "size", (double)grapnel_tensor_shape(input)[0]);
  digits_note_number(trace, "pixels", sum);
  digits_note_number(trace, "label", (double)labels[0]);
  return NULL;
}

static grapnel_status* note_after_train_iter(text* trace, grapnel_run* run) {
  const grapnel_scalars* log_vars = NULL;
  double loss = 0;
  grapnel_status* status = grapnel_run_log_vars(run, &log_vars);
  if (status == NULL) status = note_scalars(trace, log_vars);
  if (status == NULL) status = grapnel_run_scalar(run, "train/loss", 10, &loss);
  if (status != NULL) return status;
  digits_note_number(trace, "train/loss", loss);
  return grapnel_run_add_scalar(run, "train/twice", 11, 2 * loss);
}

static grapnel_status* note_predictions(text* trace, grapnel_run* run) {
  const grapnel_tensors* predictions = NULL;
  grapnel_status* const status = grapnel_run_predictions(run, &predictions);
  if (status != NULL) return status;
  const grapnel_tensor* const output =
      grapnel_tensors_find(predictions, "output", 6);
  if (output == NULL) return error_of("there is no output");
  const float* const logits = grapnel_tensor_data(output);
  if (logits == NULL) return error_of("no memory to read");
  digits_note_number(trace, "logit", logits[0]);
  return NULL;
}

static grapnel_status* note_tensor(text* trace, grapnel_run* run) {
  grapnel_tensor* bias = NULL;
  grapnel_status* const status = grapnel_run_tensor(run, "1.bias", 6, &bias);
  if (status != NULL) return status;
  float first = 0;
  const float* const values = grapnel_tensor_data(bias);
  if (values != NULL) first = values[0];
  digits_note_number(trace, "bias", first);
  grapnel_tensor_destroy(bias);
  return NULL;
}

static grapnel_status* note_saved(text* trace, grapnel_run* run) {
  const char* path = NULL;
  grapnel_status* const status = grapnel_run_saved_path(run, &path);
  if (status != NULL) return status;
  const char* const slash = strrchr(path, '/');
  digits_note_text(trace, "saved", slash == NULL ? path : slash + 1);
  return NULL;
}

static grapnel_status* note_error(text* trace, grapnel_run* run) {
  const grapnel_status* error = NULL;
  grapnel_status* const status = grapnel_run_error(run, &error);
  if (status != NULL) return status;
  digits_note_text(trace, "error", grapnel_status_message(error));
  return NULL;
}

static grapnel_status* on_stage(void* user_data, grapnel_stage stage,
                                grapnel_run* run) {
  tracer* const it = user_data;
  if (stage < 0 || stage >= kNumStages) return error_of("an unknown stage");
  digits_event event;
  event.stage = kStageNames[stage];
  event.epoch = grapnel_run_epoch(run);
  event.iter = grapnel_run_iter(run);
  event.max_epochs = grapnel_run_max_epochs(run);
  event.max_iters = grapnel_run_max_iters(run);
  event.mode = grapnel_run_mode(run);
  event.training = grapnel_run_training(run);
  event.batch_idx = grapnel_run_batch_idx(run);
  event.num_batches = grapnel_run_num_batches(run);
  digits_note(it->trace, &event);
  ++it->events;

  switch (stage) {
    case GRAPNEL_BEFORE_TRAIN_ITER:
    case GRAPNEL_BEFORE_VAL_ITER:
      return note_batch(it->trace, run);
    case GRAPNEL_AFTER_TRAIN_ITER:
      return note_after_train_iter(it->trace, run);
    case GRAPNEL_AFTER_OPTIMIZER_STEP:
      return note_tensor(it->trace, run);
    case GRAPNEL_AFTER_TRAIN_EPOCH:
      if (event.epoch + 1 != 2) return NULL;
      return grapnel_run_save(run, digits_extra_save,
                              strlen(digits_extra_save));
    case GRAPNEL_AFTER_VAL_ITER:
      return note_predictions(it->trace, run);
    case GRAPNEL_AFTER_VAL_EPOCH: {
      const grapnel_scalars* metrics = NULL;
      grapnel_status* const status = grapnel_run_metrics(run, &metrics);
      return status != NULL ? status : note_scalars(it->trace, metrics);
    }
    case GRAPNEL_AFTER_SAVE_CHECKPOINT:
      return note_saved(it->trace, run);
    case GRAPNEL_AFTER_RUN:
      return grapnel_run_log(run, GRAPNEL_INFO, "the tracer is done", 18);
    case GRAPNEL_ON_ERROR:
      return note_error(it->trace, run);
    default:
      return NULL;
  }
}

static grapnel_status* save_state(void* user_data, grapnel_bytes* state) {
  const tracer* const it = user_data;
  return grapnel_bytes_assign(state, &it->events, sizeof(it->events));
}

static grapnel_status* load_state(void* user_data, const void* state,
                                  size_t state_size) {
  tracer* const it = user_data;
  if (state_size != sizeof(it->events)) return error_of("no state of ours");
  memcpy(&it->events, state, state_size);
  digits_note_number(it->trace, "loaded", (double)it->events);
  return NULL;
}

static void destroy_tracer(void* user_data) {
  tracer* const it = user_data;
  ++*it->destroyed;
  free(it);
}

// -------------------------------------------------------------------- a run

static void count_line(void* user_data, grapnel_severity severity,
                       const char* message, size_t message_size) {
  int64_t* const lines = user_data;
  if (severity >= GRAPNEL_INFO && severity <= GRAPNEL_ERROR &&
      message_size == strlen(message)) {
    ++*lines;
  }
}

static int add_data(grapnel_runner_options* options, const digits_plan* plan,
                    grapnel_mode mode, digits_outcome* outcome) {
  grapnel_dataset_callbacks callbacks;
  memset(&callbacks, 0, sizeof(callbacks));
  callbacks.struct_size = sizeof(callbacks);
  callbacks.destroy = destroy_data;
  data* const it =
      read_data(plan->data_dir, mode == GRAPNEL_TRAIN ? "train" : "test",
                &outcome->destroyed);
  if (it == NULL) {
    text_append(&outcome->error, "no data in %s\n", plan->data_dir);
    return 0;
  }
  callbacks.size = it->size;
  if (mode == GRAPNEL_TRAIN) {
    callbacks.get = get;
  } else {
    callbacks.get_batch = get_batch;
    callbacks.thread_safe = 1;
  }
  if (failed(grapnel_runner_options_set_dataset(options, mode, &callbacks, it),
             &outcome->error)) {
    destroy_data(it);
    return 0;
  }
  return 1;
}

static int add_tracer(grapnel_runner_options* options,
                      digits_outcome* outcome) {
  grapnel_hook_callbacks callbacks;
  memset(&callbacks, 0, sizeof(callbacks));
  callbacks.struct_size = sizeof(callbacks);
  callbacks.stages = ((uint64_t)1 << kNumStages) - 1;
  callbacks.priority = 100;
  callbacks.on_stage = on_stage;
  callbacks.save_state = save_state;
  callbacks.load_state = load_state;
  callbacks.destroy = destroy_tracer;
  tracer* const it = calloc(1, sizeof(*it));
  if (it == NULL) abort();
  it->trace = &outcome->trace;
  it->destroyed = &outcome->destroyed;
  if (failed(
          grapnel_runner_options_add_hook(options, "tracer", 6, &callbacks, it),
          &outcome->error)) {
    destroy_tracer(it);
    return 0;
  }
  return 1;
}

static grapnel_runner* new_runner(const digits_plan* plan, int resume,
                                  digits_outcome* outcome) {
  grapnel_runner_options* options = NULL;
  grapnel_runner* runner = NULL;
  text work_dir = {NULL, 0};
  text* const error = &outcome->error;
  text_append(&work_dir, "work_dir=\"%s\"", plan->work_dir);
  if (failed(grapnel_runner_options_create(&options), error) ||
      failed(grapnel_runner_options_set_config(
                 options, digits_config, strlen(digits_config), GRAPNEL_TEXT),
             error) ||
      failed(grapnel_runner_options_override(options, work_dir.data,
                                             work_dir.size),
             error) ||
      (resume &&
       failed(grapnel_runner_options_override(options, "resume=true", 11),
              error)) ||
      failed(grapnel_runner_options_set_log_callback(options, count_line,
                                                     &outcome->log_lines),
             error) ||
      !add_data(options, plan, GRAPNEL_TRAIN, outcome) ||
      !add_data(options, plan, GRAPNEL_VAL, outcome) ||
      !add_tracer(options, outcome) ||
      failed(grapnel_runner_create(options, &runner), error)) {
    runner = NULL;
  }
  grapnel_runner_options_destroy(options);
  text_clear(&work_dir);
  return runner;
}

static int step(grapnel_runner* runner, int64_t steps, int32_t* more,
                digits_outcome* outcome) {
  for (int64_t i = 0; *more && (steps < 0 || i < steps); ++i) {
    if (failed(grapnel_runner_step(runner, more), &outcome->error)) return 0;
  }
  return 1;
}

// Appends what `name`, behind which there is a newline, is called and holds.
static int read_tensor(const grapnel_runner* runner, const char* name,
                       size_t name_size, digits_outcome* outcome) {
  grapnel_tensor* tensor = NULL;
  if (failed(grapnel_runner_get_tensor(runner, name, name_size, &tensor),
             &outcome->error)) {
    return 0;
  }
  const size_t size = (size_t)grapnel_tensor_numel(tensor) * sizeof(float);
  float* const values = malloc(size);
  const int read =
      values != NULL && grapnel_tensor_dtype(tensor) == GRAPNEL_FLOAT32 &&
      !failed(grapnel_tensor_read(tensor, values, size), &outcome->error);
  text_append_bytes(&outcome->weights, name, name_size);
  if (read) text_append_bytes(&outcome->weights, values, size);
  free(values);
  grapnel_tensor_destroy(tensor);
  return read;
}

static int read_weights(const grapnel_runner* runner, digits_outcome* outcome) {
  grapnel_bytes names = {NULL, 0};
  if (failed(grapnel_runner_tensor_names(runner, &names), &outcome->error)) {
    return 0;
  }
  int good = 1;
  for (const char* name = names.data; good && *name != '\0';) {
    const size_t name_size = strcspn(name, "\n");
    good = read_tensor(runner, name, name_size, outcome);
    name += name_size + 1;
  }
  grapnel_bytes_clear(&names);
  return good;
}

static int validate(grapnel_runner* runner, digits_outcome* outcome) {
  grapnel_scalars* metrics = NULL;
  const int good =
      !failed(grapnel_scalars_create(&metrics), &outcome->error) &&
      !failed(grapnel_runner_val(runner, metrics), &outcome->error);
  if (good) note_scalars(&outcome->metrics, metrics);
  grapnel_scalars_destroy(metrics);
  return good;
}

void digits_train(const digits_plan* plan, digits_outcome* outcome) {
  int32_t more = 1;
  grapnel_runner* runner = new_runner(plan, 0, outcome);
  int good = runner != NULL && step(runner, plan->steps, &more, outcome);
  if (good && plan->resume) {
    grapnel_runner_destroy(runner);
    runner = new_runner(plan, 1, outcome);
    good = runner != NULL;
  }
  if (good && plan->mixture) {
    good = validate(runner, outcome) &&
           !failed(grapnel_runner_train_until(runner, 0, &more),
                   &outcome->error) &&
           more && validate(runner, outcome) &&
           !failed(grapnel_runner_train_until(runner, 1e12, &more),
                   &outcome->error);
  }
  if (good && more) {
    good = !failed(grapnel_runner_train(runner), &outcome->error);
  }
  if (good) good = read_weights(runner, outcome) && validate(runner, outcome);
  grapnel_runner_destroy(runner);
}

void digits_outcome_clear(digits_outcome* outcome) {
  text_clear(&outcome->error);
  text_clear(&outcome->trace);
  text_clear(&outcome->weights);
  text_clear(&outcome->metrics);
}
