#include "grapnel/tests/capi/runs/mlp.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "grapnel/grapnel.h"

// ------------------------------------------------------------------ the engine

#define PART(name, rows, cols) \
  { #name, offsetof(mlp_weights, name) / sizeof(double), rows, cols }

const mlp_part mlp_parts[mlp_num_parts] = {
    PART(w1, mlp_hidden, mlp_inputs),
    PART(b1, mlp_hidden, 0),
    PART(w2, mlp_outputs, mlp_hidden),
    PART(b2, mlp_outputs, 0),
};

void mlp_initialize(mlp_weights* weights) {
  double* const all = (double*)weights;
  const size_t size = sizeof(*weights) / sizeof(double);
  for (size_t i = 0; i < size; ++i) all[i] = 0.5 * sin((double)(7 * i + 1));
}

static void hide(const mlp_weights* weights, const double* input,
                 double* hidden) {
  for (int h = 0; h < mlp_hidden; ++h) {
    double sum = weights->b1[h];
    for (int i = 0; i < mlp_inputs; ++i) {
      sum += weights->w1[h * mlp_inputs + i] * input[i];
    }
    hidden[h] = tanh(sum);
  }
}

static void put_out(const mlp_weights* weights, const double* hidden,
                    double* output) {
  for (int o = 0; o < mlp_outputs; ++o) {
    double sum = weights->b2[o];
    for (int h = 0; h < mlp_hidden; ++h) {
      sum += weights->w2[o * mlp_hidden + h] * hidden[h];
    }
    output[o] = sum;
  }
}

void mlp_forward(const mlp_weights* weights, const double* inputs, int64_t n,
                 double* outputs) {
  double hidden[mlp_hidden];
  for (int64_t k = 0; k < n; ++k) {
    hide(weights, inputs + k * mlp_inputs, hidden);
    put_out(weights, hidden, outputs + k * mlp_outputs);
  }
}

double mlp_gradients(const mlp_weights* weights, const double* inputs,
                     const double* targets, int64_t n, mlp_weights* gradients) {
  const double scale = 1.0 / (double)(n * mlp_outputs);
  double loss = 0;
  memset(gradients, 0, sizeof(*gradients));
  for (int64_t k = 0; k < n; ++k) {
    const double* const input = inputs + k * mlp_inputs;
    double hidden[mlp_hidden];
    double output[mlp_outputs];
    double hidden_slope[mlp_hidden] = {0};
    hide(weights, input, hidden);
    put_out(weights, hidden, output);
    for (int o = 0; o < mlp_outputs; ++o) {
      const double residual = output[o] - targets[k * mlp_outputs + o];
      const double slope = 2 * residual * scale;
      loss += residual * residual * scale;
      gradients->b2[o] += slope;
      for (int h = 0; h < mlp_hidden; ++h) {
        gradients->w2[o * mlp_hidden + h] += slope * hidden[h];
        hidden_slope[h] += slope * weights->w2[o * mlp_hidden + h];
      }
    }
    for (int h = 0; h < mlp_hidden; ++h) {
      const double slope = hidden_slope[h] * (1 - hidden[h] * hidden[h]);
      gradients->b1[h] += slope;
      for (int i = 0; i < mlp_inputs; ++i) {
        gradients->w1[h * mlp_inputs + i] += slope * input[i];
      }
    }
  }
  return loss;
}

void mlp_sample(int64_t index, double* input, double* target) {
  for (int i = 0; i < mlp_inputs; ++i) {
    input[i] = sin((double)((i + 2) * index));
  }
  target[0] = input[0] * input[1];
  target[1] = input[2] - 0.25;
}

const char mlp_config[] =
    "train_dataloader {\n"
    "  batch_size: 6\n"
    "  sampler { shuffle: true }\n"
    "}\n"
    "val_dataloader { batch_size: 16 }\n"
    "train_cfg { max_epochs: 4 val_interval: 2 }\n"
    "optim_wrapper {\n"
    "  optimizer { adamw { lr: 0.03 } }\n"
    "  clip_grad { max_norm: 1 }\n"
    "}\n"
    "param_scheduler { cosine_annealing { t_max: 4 } }\n"
    "val_evaluator { mse {} }\n"
    "default_hooks {\n"
    "  checkpoint { interval: 1 save_best: \"mse\" rule: \"less\" }\n"
    "}\n"
    "custom_hooks { config { [hooks/EMAHook] { momentum: 0.2 } } }\n"
    "randomness { seed: 5 }\n";

// ------------------------------------------------------------- by the C API

// The engine, with a copy of the weights that the library trains.
typedef struct engine {
  grapnel_tensor* trained[mlp_num_parts];
  mlp_weights weights;
  int training;
  mlp_outcome* outcome;
} engine;

static int failed(grapnel_status* status, mlp_outcome* outcome) {
  if (status == NULL) return 0;
  text_append(&outcome->error, "%d: %s\n", (int)grapnel_status_code(status),
              grapnel_status_message(status));
  grapnel_status_destroy(status);
  return 1;
}

static grapnel_status* error_of(const char* message) {
  return grapnel_status_create(GRAPNEL_INTERNAL, message, strlen(message));
}

// The elements of what is called so, for `cols` columns; NULL, and *n as it
// was, if it isn't there as it should be.
static const double* find(const grapnel_tensors* batch, const char* name,
                          int64_t cols, int64_t* n) {
  const grapnel_tensor* const tensor =
      grapnel_tensors_find(batch, name, strlen(name));
  if (tensor == NULL || grapnel_tensor_dtype(tensor) != GRAPNEL_FLOAT64 ||
      grapnel_tensor_rank(tensor) != 2 ||
      grapnel_tensor_shape(tensor)[1] != cols) {
    return NULL;
  }
  *n = grapnel_tensor_shape(tensor)[0];
  return grapnel_tensor_data(tensor);
}

static size_t part_bytes(const mlp_part* part) {
  return (size_t)part->rows * (size_t)(part->cols == 0 ? 1 : part->cols) *
         sizeof(double);
}

static grapnel_status* add_part(grapnel_tensors* tensors, const mlp_part* part,
                                const mlp_weights* from) {
  const int64_t shape[] = {part->rows, part->cols};
  return grapnel_tensors_add_copy(
      tensors, part->name, strlen(part->name), GRAPNEL_FLOAT64, shape,
      part->cols == 0 ? 1 : 2, (const double*)from + part->offset,
      part_bytes(part));
}

static grapnel_status* tensors_written(void* user_data) {
  engine* const it = user_data;
  ++it->outcome->copies;
  for (int i = 0; i < mlp_num_parts; ++i) {
    grapnel_status* const status = grapnel_tensor_read(
        it->trained[i], (double*)&it->weights + mlp_parts[i].offset,
        part_bytes(&mlp_parts[i]));
    if (status != NULL) return status;
  }
  return NULL;
}

static grapnel_status* train_step(void* user_data, const grapnel_tensors* batch,
                                  grapnel_tensors* gradients,
                                  grapnel_scalars* losses) {
  engine* const it = user_data;
  int64_t n = 0;
  mlp_weights slopes;
  const double* const inputs = find(batch, "input", mlp_inputs, &n);
  const double* const targets = find(batch, "target", mlp_outputs, &n);
  if (inputs == NULL || targets == NULL || !it->training) {
    return error_of("no batch to train on");
  }
  const double loss = mlp_gradients(&it->weights, inputs, targets, n, &slopes);
  for (int i = 0; i < mlp_num_parts; ++i) {
    grapnel_status* const status = add_part(gradients, &mlp_parts[i], &slopes);
    if (status != NULL) return status;
  }
  return grapnel_scalars_add(losses, "loss", 4, loss);
}

static grapnel_status* val_step(void* user_data, const grapnel_tensors* batch,
                                grapnel_tensors* predictions,
                                grapnel_scalars* losses) {
  engine* const it = user_data;
  int64_t n = 0;
  mlp_weights slopes;
  const double* const inputs = find(batch, "input", mlp_inputs, &n);
  const double* const targets = find(batch, "target", mlp_outputs, &n);
  if (inputs == NULL || targets == NULL || it->training) {
    return error_of("no batch to evaluate");
  }
  const size_t size = (size_t)n * mlp_outputs * sizeof(double);
  const int64_t shape[] = {n, mlp_outputs};
  double* const outputs = malloc(size);
  if (outputs == NULL) return error_of("out of memory");
  mlp_forward(&it->weights, inputs, n, outputs);
  grapnel_status* const status = grapnel_tensors_add_copy(
      predictions, "output", 6, GRAPNEL_FLOAT64, shape, 2, outputs, size);
  free(outputs);
  if (status != NULL) return status;
  return grapnel_scalars_add(
      losses, "loss", 4,
      mlp_gradients(&it->weights, inputs, targets, n, &slopes));
}

static void set_training(void* user_data, int32_t training) {
  engine* const it = user_data;
  it->training = training;
}

static grapnel_status* export_model(void* user_data, const char* path,
                                    size_t path_size) {
  engine* const it = user_data;
  it->outcome->exported = path_size == 4 && memcmp(path, "/net", 4) == 0;
  return NULL;
}

static void destroy_engine(void* user_data) {
  engine* const it = user_data;
  ++it->outcome->destroyed;
  for (int i = 0; i < mlp_num_parts; ++i) {
    grapnel_tensor_destroy(it->trained[i]);
  }
  free(it);
}

// Parameters that the library trains and the engine reads.
static int add_engine(grapnel_runner_options* options, mlp_outcome* outcome) {
  grapnel_model_callbacks callbacks;
  memset(&callbacks, 0, sizeof(callbacks));
  callbacks.struct_size = sizeof(callbacks);
  callbacks.train_step = train_step;
  callbacks.val_step = val_step;
  callbacks.tensors_written = tensors_written;
  callbacks.set_training = set_training;
  callbacks.export_model = export_model;
  callbacks.destroy = destroy_engine;
  engine* const it = calloc(1, sizeof(*it));
  if (it == NULL) abort();
  it->outcome = outcome;
  grapnel_tensors* parameters = NULL;
  int good = !failed(grapnel_tensors_create(&parameters), outcome);
  mlp_weights first;
  mlp_initialize(&first);
  for (int i = 0; good && i < mlp_num_parts; ++i) {
    good = !failed(add_part(parameters, &mlp_parts[i], &first), outcome) &&
           !failed(grapnel_tensor_share(grapnel_tensors_at(parameters, i),
                                        &it->trained[i]),
                   outcome);
  }
  good = good && !failed(grapnel_runner_options_set_model(options, &callbacks,
                                                          parameters, NULL, it),
                         outcome);
  grapnel_tensors_destroy(parameters);
  if (!good) destroy_engine(it);
  return good;
}

// All samples as tensors, which the two loaders share.
static int add_data(grapnel_runner_options* options, mlp_outcome* outcome) {
  double inputs[mlp_samples * mlp_inputs];
  double targets[mlp_samples * mlp_outputs];
  for (int64_t k = 0; k < mlp_samples; ++k) {
    mlp_sample(k, inputs + k * mlp_inputs, targets + k * mlp_outputs);
  }
  const int64_t in[] = {mlp_samples, mlp_inputs};
  const int64_t out[] = {mlp_samples, mlp_outputs};
  grapnel_tensors* tensors = NULL;
  const int good =
      !failed(grapnel_tensors_create(&tensors), outcome) &&
      !failed(grapnel_tensors_add_copy(tensors, "input", 5, GRAPNEL_FLOAT64, in,
                                       2, inputs, sizeof(inputs)),
              outcome) &&
      !failed(grapnel_tensors_add_copy(tensors, "target", 6, GRAPNEL_FLOAT64,
                                       out, 2, targets, sizeof(targets)),
              outcome) &&
      !failed(
          grapnel_runner_options_set_tensors(options, GRAPNEL_TRAIN, tensors),
          outcome) &&
      !failed(grapnel_runner_options_set_tensors(options, GRAPNEL_VAL, tensors),
              outcome);
  grapnel_tensors_destroy(tensors);
  return good;
}

static grapnel_runner* new_runner(const char* work_dir, int resume,
                                  mlp_outcome* outcome) {
  grapnel_runner_options* options = NULL;
  grapnel_runner* runner = NULL;
  text assignment = {NULL, 0};
  text_append(&assignment, "work_dir=\"%s\"", work_dir);
  // Overrides hold whatever config is set after them.
  if (failed(grapnel_runner_options_create(&options), outcome) ||
      failed(grapnel_runner_options_override(options, assignment.data,
                                             assignment.size),
             outcome) ||
      failed(grapnel_runner_options_set_config(
                 options, mlp_config, strlen(mlp_config), GRAPNEL_TEXT),
             outcome) ||
      (resume &&
       failed(grapnel_runner_options_override(options, "resume=true", 11),
              outcome)) ||
      !add_data(options, outcome) || !add_engine(options, outcome) ||
      failed(grapnel_runner_create(options, &runner), outcome)) {
    runner = NULL;
  }
  grapnel_runner_options_destroy(options);
  text_clear(&assignment);
  return runner;
}

static int read_outcome(grapnel_runner* runner, mlp_outcome* outcome) {
  for (int i = 0; i < mlp_num_parts; ++i) {
    const mlp_part* const part = &mlp_parts[i];
    grapnel_tensor* tensor = NULL;
    if (failed(grapnel_runner_get_tensor(runner, part->name, strlen(part->name),
                                         &tensor),
               outcome)) {
      return 0;
    }
    const int bad = failed(
        grapnel_tensor_read(tensor, (double*)&outcome->weights + part->offset,
                            part_bytes(part)),
        outcome);
    grapnel_tensor_destroy(tensor);
    if (bad) return 0;
  }
  grapnel_scalars* metrics = NULL;
  const int good =
      !failed(grapnel_scalars_create(&metrics), outcome) &&
      !failed(grapnel_runner_val(runner, metrics), outcome) &&
      !failed(grapnel_scalars_find(metrics, "loss", 4, &outcome->val_loss),
              outcome);
  grapnel_scalars_destroy(metrics);
  return good && !failed(grapnel_runner_export(runner, "/net", 4), outcome);
}

void mlp_train(const char* work_dir, int64_t steps, mlp_outcome* outcome) {
  grapnel_runner* runner = new_runner(work_dir, 0, outcome);
  int good = runner != NULL;
  for (int64_t i = 0; good && i < steps; ++i) {
    good = !failed(grapnel_runner_step(runner, NULL), outcome);
  }
  if (good && steps >= 0) {
    grapnel_runner_destroy(runner);
    runner = new_runner(work_dir, 1, outcome);
    good = runner != NULL;
  }
  if (good && !failed(grapnel_runner_train(runner), outcome)) {
    read_outcome(runner, outcome);
  }
  grapnel_runner_destroy(runner);
}
