#include "grapnel/tests/capi/runs/guest.h"

#include <stdlib.h>
#include <string.h>

static const char kConfig[] =
    "model {\n"
    "  sequential {\n"
    "    layers { linear { out_features: 8 } }\n"
    "    layers { batch_norm1d {} }\n"
    "    layers { relu {} }\n"
    "    layers { dropout { p: 0.25 } }\n"
    "    layers { linear { out_features: 1 } }\n"
    "    loss { mse {} }\n"
    "  }\n"
    "}\n"
    "val_dataloader { batch_size: 8 }\n"
    "val_evaluator { mse {} }\n"
    "optim_wrapper { optimizer { adamw { lr: 0.01 } } }\n"
    "custom_hooks { config { [hooks/EMAHook] { momentum: 0.1 } } }\n";

enum { kSamples = 32, kFeatures = 2 };

static int failed(grapnel_status* status, guest* it) {
  if (status == NULL) return 0;
  text_append(&it->error, "%d: %s\n", (int)grapnel_status_code(status),
              grapnel_status_message(status));
  grapnel_status_destroy(status);
  return 1;
}

static grapnel_status* error_of(const char* message) {
  return grapnel_status_create(GRAPNEL_UNAVAILABLE, message, strlen(message));
}

// The error that the plan has for a call of this callback. The calls of a
// dataset come one at a time, but there are two of them.
static grapnel_status* planned_error(guest* it, const char* callback) {
  if (it->plan.failing == NULL || strcmp(it->plan.failing, callback) != 0) {
    return NULL;
  }
  const int64_t calls = __atomic_fetch_add(&it->calls, 1, __ATOMIC_RELAXED);
  return calls < it->plan.failing_from ? NULL : error_of("as planned");
}

// ---------------------------------------------------------------------- data

// y = x0 + 2 x1.
static void write_sample(int64_t index, float* input, float* target) {
  input[0] = (float)index / kSamples;
  input[1] = (float)(index % 3);
  *target = input[0] + 2 * input[1];
}

static grapnel_status* get(void* user_data, int64_t index,
                           grapnel_tensors* sample) {
  const int64_t shape[] = {kFeatures}, one[] = {1};
  float input[kFeatures], target = 0;
  grapnel_status* status = planned_error(user_data, "get");
  if (status != NULL) return status;
  write_sample(index, input, &target);
  status = grapnel_tensors_add_copy(sample, "input", 5, GRAPNEL_FLOAT32, shape,
                                    1, input, sizeof(input));
  if (status != NULL) return status;
  return grapnel_tensors_add_copy(sample, "target", 6, GRAPNEL_FLOAT32, one, 1,
                                  &target, sizeof(target));
}

static grapnel_status* get_batch(void* user_data, const int64_t* indices,
                                 size_t count, grapnel_tensors* batch) {
  const int64_t shape[] = {(int64_t)count, kFeatures};
  const int64_t column[] = {(int64_t)count, 1};
  float inputs[kFeatures * kSamples], targets[kSamples];
  grapnel_status* status = planned_error(user_data, "get_batch");
  if (status != NULL) return status;
  if (count > kSamples) return error_of("a large batch");
  for (size_t i = 0; i < count; ++i) {
    write_sample(indices[i], inputs + kFeatures * i, targets + i);
  }
  status =
      grapnel_tensors_add_copy(batch, "input", 5, GRAPNEL_FLOAT32, shape, 2,
                               inputs, count * kFeatures * sizeof(float));
  if (status != NULL) return status;
  return grapnel_tensors_add_copy(batch, "target", 6, GRAPNEL_FLOAT32, column,
                                  2, targets, count * sizeof(float));
}

// ---------------------------------------------------------------------- hook

static grapnel_status* on_stage(void* user_data, grapnel_stage stage,
                                grapnel_run* run) {
  guest* const it = user_data;
  const grapnel_scalars* log_vars = NULL;
  double loss = 0;
  grapnel_status* status = planned_error(it, "on_stage");
  if (status != NULL) return status;
  if (grapnel_run_iter(run) != it->state.iters) {
    return error_of("the hook's state is of another iteration");
  }
  if (stage != GRAPNEL_AFTER_TRAIN_ITER) return NULL;
  status = grapnel_run_log_vars(run, &log_vars);
  if (status == NULL) {
    status = grapnel_scalars_find(log_vars, "loss", 4, &loss);
  }
  if (status == NULL) {
    status = grapnel_run_add_scalar(run, "train/sum", 9, it->state.sum);
  }
  if (status != NULL) return status;
  ++it->state.iters;
  it->state.sum += loss;
  return NULL;
}

static grapnel_status* save_state(void* user_data, grapnel_bytes* state) {
  guest* const it = user_data;
  grapnel_status* const status = planned_error(it, "save_state");
  if (status != NULL) return status;
  return grapnel_bytes_assign(state, &it->state, sizeof(it->state));
}

static grapnel_status* load_state(void* user_data, const void* state,
                                  size_t state_size) {
  guest* const it = user_data;
  grapnel_status* const status = planned_error(it, "load_state");
  if (status != NULL) return status;
  if (state_size != sizeof(it->state)) return error_of("no state of ours");
  memcpy(&it->state, state, state_size);
  return NULL;
}

// -------------------------------------------------------------------- a run

static void destroy(void* user_data) { ++((guest*)user_data)->destroyed; }

static void count_line(void* user_data, grapnel_severity severity,
                       const char* message, size_t message_size) {
  guest* const it = user_data;
  if (severity >= GRAPNEL_INFO && message_size == strlen(message)) ++it->lines;
}

static int add_callbacks(grapnel_runner_options* options, guest* it) {
  grapnel_dataset_callbacks dataset;
  grapnel_hook_callbacks hook;
  memset(&dataset, 0, sizeof(dataset));
  dataset.struct_size = sizeof(dataset);
  dataset.size = kSamples;
  dataset.get = get;
  if (it->plan.failing == NULL || strcmp(it->plan.failing, "get") != 0) {
    dataset.get_batch = get_batch;
  }
  dataset.destroy = destroy;
  for (grapnel_mode mode = GRAPNEL_TRAIN; mode <= GRAPNEL_VAL; ++mode) {
    if (failed(grapnel_runner_options_set_dataset(options, mode, &dataset, it),
               it)) {
      return 0;
    }
    ++it->taken;
  }
  memset(&hook, 0, sizeof(hook));
  hook.struct_size = sizeof(hook);
  hook.stages = (uint64_t)1 << GRAPNEL_BEFORE_TRAIN |
                (uint64_t)1 << GRAPNEL_BEFORE_TRAIN_ITER |
                (uint64_t)1 << GRAPNEL_AFTER_TRAIN_ITER;
  hook.priority = 50;
  hook.on_stage = on_stage;
  hook.save_state = save_state;
  hook.load_state = load_state;
  hook.destroy = destroy;
  if (failed(grapnel_runner_options_add_hook(options, "sum", 3, &hook, it),
             it)) {
    return 0;
  }
  ++it->taken;
  return 1;
}

int guest_create(const guest_plan* plan, guest* it) {
  grapnel_runner_options* options = NULL;
  text config = {NULL, 0};
  it->plan = *plan;
  text_append_bytes(&config, kConfig, strlen(kConfig));
  text_append(&config, "work_dir: \"%s\"\n", plan->work_dir);
  text_append(&config,
              "train_dataloader { batch_size: 4 num_workers: %lld "
              "sampler { shuffle: true } }\n"
              "train_cfg { by_epoch: false max_iters: %lld "
              "val_interval: %lld }\n"
              "default_hooks { checkpoint { by_epoch: false interval: %lld "
              "max_keep_ckpts: 2 } }\n"
              "randomness { seed: %lld }\n"
              "resume: %s\n",
              (long long)plan->num_workers, (long long)plan->max_iters,
              (long long)plan->interval, (long long)plan->interval,
              (long long)plan->seed, plan->resume ? "true" : "false");
  if (plan->extra != NULL) {
    text_append_bytes(&config, plan->extra, strlen(plan->extra));
  }
  const int good =
      !failed(grapnel_runner_options_create(&options), it) &&
      !failed(grapnel_runner_options_set_config(options, config.data,
                                                config.size, GRAPNEL_TEXT),
              it) &&
      !failed(grapnel_runner_options_set_log_callback(options, count_line, it),
              it) &&
      add_callbacks(options, it) &&
      !failed(grapnel_runner_create(options, &it->runner), it);
  grapnel_runner_options_destroy(options);
  text_clear(&config);
  return good;
}

int guest_step(guest* it, int32_t* more) {
  return !failed(grapnel_runner_step(it->runner, more), it);
}

int guest_train(guest* it) {
  return !failed(grapnel_runner_train(it->runner), it);
}

int guest_validate(guest* it) {
  grapnel_scalars* metrics = NULL;
  double mse = 0;
  const int good = !failed(grapnel_scalars_create(&metrics), it) &&
                   !failed(grapnel_runner_val(it->runner, metrics), it) &&
                   !failed(grapnel_scalars_find(metrics, "mse", 3, &mse), it);
  grapnel_scalars_destroy(metrics);
  return good;
}

static int read_tensor(guest* it, const char* name, size_t name_size,
                       text* outcome) {
  grapnel_tensor* tensor = NULL;
  if (failed(grapnel_runner_get_tensor(it->runner, name, name_size, &tensor),
             it)) {
    return 0;
  }
  // Of float, and of int64_t for a number of batches.
  const size_t element =
      grapnel_tensor_dtype(tensor) == GRAPNEL_INT64 ? 8 : sizeof(float);
  const size_t size = (size_t)grapnel_tensor_numel(tensor) * element;
  void* const values = malloc(size);
  const int read =
      values != NULL && !failed(grapnel_tensor_read(tensor, values, size), it);
  text_append_bytes(outcome, name, name_size);
  if (read) text_append_bytes(outcome, values, size);
  free(values);
  grapnel_tensor_destroy(tensor);
  return read;
}

int guest_read(guest* it, text* outcome) {
  grapnel_bytes names = {NULL, 0};
  if (failed(grapnel_runner_tensor_names(it->runner, &names), it)) return 0;
  int good = 1;
  for (const char* name = names.data; good && *name != '\0';) {
    const size_t name_size = strcspn(name, "\n");
    good = read_tensor(it, name, name_size, outcome);
    name += name_size + 1;
  }
  grapnel_bytes_clear(&names);
  text_append_bytes(outcome, &it->state, sizeof(it->state));
  return good;
}

void guest_destroy(guest* it) {
  grapnel_runner_destroy(it->runner);
  it->runner = NULL;
  text_clear(&it->error);
}
