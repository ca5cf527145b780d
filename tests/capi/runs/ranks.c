// One rank of a training by the C API alone: CONFIG WORK_DIR OUT FAILING_RANK.
// Trains for two epochs, and to the end with a second runner. What its hook and
// the runners say of its place is in OUT.RANK.trace, and the weights are in
// OUT.RANK.weights. On FAILING_RANK, -1 for none, the hook fails in the third
// epoch.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "grapnel/grapnel.h"
#include "grapnel/tests/capi/runs/text.h"

typedef struct place_hook {
  text trace;
  int failing_rank;
} place_hook;

// Whether something failed; then it is said.
static int failed(grapnel_status* status) {
  if (status == NULL) return 0;
  fprintf(stderr, "ranks: %s\n", grapnel_status_message(status));
  grapnel_status_destroy(status);
  return 1;
}

static grapnel_status* on_stage(void* user_data, grapnel_stage stage,
                                grapnel_run* run) {
  place_hook* const it = user_data;
  const int rank = grapnel_run_rank(run);
  const int epoch = (int)grapnel_run_epoch(run) + 1;
  (void)stage;
  text_append(&it->trace, "epoch %d: rank %d of %d, master %d\n", epoch, rank,
              grapnel_run_world_size(run), grapnel_run_is_master(run));
  if (rank != it->failing_rank || epoch != 3) return NULL;
  return grapnel_status_create(GRAPNEL_DATA_LOSS, "planted", 7);
}

static int override(grapnel_runner_options* options, const char* field,
                    const char* value) {
  text assignment = {NULL, 0};
  text_append(&assignment, "%s=%s", field, value);
  const int good = !failed(grapnel_runner_options_override(
      options, assignment.data, assignment.size));
  text_clear(&assignment);
  return good;
}

static int add_hook(grapnel_runner_options* options, place_hook* hook) {
  grapnel_hook_callbacks callbacks;
  memset(&callbacks, 0, sizeof(callbacks));
  callbacks.struct_size = sizeof(callbacks);
  callbacks.stages = (uint64_t)1 << GRAPNEL_AFTER_TRAIN_EPOCH;
  callbacks.priority = 50;
  callbacks.on_stage = on_stage;
  return !failed(
      grapnel_runner_options_add_hook(options, "place", 5, &callbacks, hook));
}

// Trains to that epoch; NULL if that fails.
static grapnel_runner* train(char** argv, const char* max_epochs,
                             place_hook* hook) {
  grapnel_runner_options* options = NULL;
  grapnel_runner* runner = NULL;
  const int good = !failed(grapnel_runner_options_create(&options)) &&
                   !failed(grapnel_runner_options_set_config_file(
                       options, argv[1], strlen(argv[1]))) &&
                   override(options, "work_dir", argv[2]) &&
                   override(options, "train_cfg.max_epochs", max_epochs) &&
                   override(options, "resume", "true") &&
                   add_hook(options, hook) &&
                   !failed(grapnel_runner_create(options, &runner)) &&
                   !failed(grapnel_runner_train(runner));
  grapnel_runner_options_destroy(options);
  if (!good) {
    grapnel_runner_destroy(runner);
    return NULL;
  }
  text_append(&hook->trace, "runner: rank %d of %d, local %d, master %d\n",
              grapnel_runner_rank(runner), grapnel_runner_world_size(runner),
              grapnel_runner_local_rank(runner),
              grapnel_runner_is_master(runner));
  return runner;
}

// Appends what `name`, behind which there is a newline, is called and holds.
static int read_tensor(const grapnel_runner* runner, const char* name,
                       size_t name_size, text* weights) {
  grapnel_tensor* tensor = NULL;
  if (failed(grapnel_runner_get_tensor(runner, name, name_size, &tensor))) {
    return 0;
  }
  const size_t element =
      grapnel_tensor_dtype(tensor) == GRAPNEL_INT64 ? 8 : sizeof(float);
  const size_t size = (size_t)grapnel_tensor_numel(tensor) * element;
  void* const values = malloc(size);
  const int good =
      values != NULL && !failed(grapnel_tensor_read(tensor, values, size));
  text_append_bytes(weights, name, name_size);
  if (good) text_append_bytes(weights, values, size);
  free(values);
  grapnel_tensor_destroy(tensor);
  return good;
}

static int read_weights(const grapnel_runner* runner, text* weights) {
  grapnel_bytes names = {NULL, 0};
  if (failed(grapnel_runner_tensor_names(runner, &names))) return 0;
  int good = 1;
  for (const char* name = names.data; good && *name != '\0';) {
    const size_t name_size = strcspn(name, "\n");
    good = read_tensor(runner, name, name_size, weights);
    name += name_size + 1;
  }
  grapnel_bytes_clear(&names);
  return good;
}

static int write_part(const char* out, int rank, const char* part,
                      const text* content) {
  char path[4096];
  snprintf(path, sizeof(path), "%s.%d.%s", out, rank, part);
  FILE* const file = fopen(path, "wb");
  if (file == NULL) return 0;
  const int written =
      fwrite(content->data, 1, content->size, file) == content->size;
  return fclose(file) == 0 && written;
}

int main(int argc, char** argv) {
  if (argc != 5) return 99;
  place_hook hook = {{NULL, 0}, atoi(argv[4])};
  text weights = {NULL, 0};
  grapnel_runner* runner = train(argv, "2", &hook);
  if (runner != NULL) {
    // Longer than rank 1 waits for it, which then wants to meet again already.
    if (grapnel_runner_is_master(runner)) sleep(3);
    grapnel_runner_destroy(runner);
    runner = train(argv, "4", &hook);
  }
  int good = runner != NULL && read_weights(runner, &weights);
  if (good) {
    const int rank = grapnel_runner_rank(runner);
    good = write_part(argv[3], rank, "trace", &hook.trace) &&
           write_part(argv[3], rank, "weights", &weights);
  }
  grapnel_runner_destroy(runner);
  text_clear(&hook.trace);
  text_clear(&weights);
  if (grapnel_live_objects() != 0) {
    fprintf(stderr, "ranks: something is left\n");
    good = 0;
  }
  return good ? 0 : 1;
}
