/* The parts of the C API that need no runner, used as a C program does. */
#define _POSIX_C_SOURCE 200809L

#include <math.h>
#include <sys/stat.h>

#include "tests/capi/require.h"

enum { kPathSize = 4096 };

static void Join(const char* dir, const char* name, char* path) {
  const int size = snprintf(path, kPathSize, "%s/%s", dir, name);
  REQUIRE(size > 0 && size < kPathSize);
}

/* A path below the test's own folder. */
static void InTmp(const char* name, char* path) {
  const char* dir = getenv("TEST_TMPDIR");
  Join(dir == NULL ? "." : dir, name, path);
}

static int Near(double a, double b) { return fabs(a - b) <= 1e-12; }

static void TestVersion(void) {
  REQUIRE(grapnel_version() ==
          (((uint32_t)GRAPNEL_VERSION_MAJOR << 16) | GRAPNEL_VERSION_MINOR));
  REQUIRE(strstr(grapnel_build_info(), "grapnel 0.1.") != NULL);
  REQUIRE(strstr(grapnel_build_info(), "libtorch 2.") != NULL);
  REQUIRE(strstr(grapnel_build_info(), "protobuf ") != NULL);
}

static void TestStatus(void) {
  grapnel_status* status;
  REQUIRE(grapnel_status_create(GRAPNEL_OK, TEXT("unread")) == NULL);
  REQUIRE(grapnel_status_code(NULL) == GRAPNEL_OK);
  REQUIRE(strcmp(grapnel_status_message(NULL), "") == 0);
  grapnel_status_destroy(NULL);

  status = grapnel_status_create(GRAPNEL_ABORTED, "stopped short", 7);
  REQUIRE(grapnel_status_code(status) == GRAPNEL_ABORTED);
  REQUIRE(strcmp(grapnel_status_message(status), "stopped") == 0);
  grapnel_status_destroy(status);

  status = grapnel_status_create(17, TEXT("caf\xe9"));
  REQUIRE(grapnel_status_code(status) == GRAPNEL_UNKNOWN);
  REQUIRE(strcmp(grapnel_status_message(status), "caf\\xe9") == 0);
  grapnel_status_destroy(status);
}

static void TestBytes(void) {
  grapnel_bytes bytes = {NULL, 0};
  REQUIRE_OK(grapnel_bytes_assign(&bytes, "a\0b", 3));
  REQUIRE(bytes.size == 3 && memcmp(bytes.data, "a\0b", 4) == 0);
  REQUIRE_OK(grapnel_bytes_assign(&bytes, bytes.data + 2, 1)); /* Of itself. */
  REQUIRE(bytes.size == 1 && strcmp(bytes.data, "b") == 0);
  REQUIRE_OK(grapnel_bytes_assign(&bytes, NULL, 0));
  REQUIRE(bytes.size == 0 && strcmp(bytes.data, "") == 0);
  grapnel_bytes_clear(&bytes);
  REQUIRE(bytes.data == NULL && bytes.size == 0);
  grapnel_bytes_clear(&bytes);
  grapnel_bytes_clear(NULL);
}

static void TestTensors(void) {
  static const struct {
    grapnel_dtype dtype;
    size_t size;
  } kDtypes[] = {
      {GRAPNEL_BOOL, 1},    {GRAPNEL_UINT8, 1},    {GRAPNEL_INT8, 1},
      {GRAPNEL_INT16, 2},   {GRAPNEL_INT32, 4},    {GRAPNEL_INT64, 8},
      {GRAPNEL_FLOAT16, 2}, {GRAPNEL_BFLOAT16, 2}, {GRAPNEL_FLOAT32, 4},
      {GRAPNEL_FLOAT64, 8},
  };
  const int64_t shape[2] = {2, 3};
  const int64_t empty_shape[2] = {0, 3};
  const float floats[6] = {0, 1, 2, 3, 4, 5};
  float read[6];
  float* data;
  grapnel_tensor* tensor;
  grapnel_tensor* other;
  size_t i, j;

  for (i = 0; i < sizeof(kDtypes) / sizeof(kDtypes[0]); ++i) {
    unsigned char elements[48];
    unsigned char back[48];
    for (j = 0; j < sizeof(elements); ++j) elements[j] = j % 2;
    memset(back, 7, sizeof(back));
    REQUIRE_OK(grapnel_tensor_create(kDtypes[i].dtype, shape, 2, elements,
                                     6 * kDtypes[i].size, &tensor));
    REQUIRE(grapnel_tensor_dtype(tensor) == kDtypes[i].dtype);
    REQUIRE_OK(grapnel_tensor_read(tensor, back, 6 * kDtypes[i].size));
    REQUIRE(memcmp(back, elements, 6 * kDtypes[i].size) == 0);
    REQUIRE(memcmp(grapnel_tensor_data(tensor), elements,
                   6 * kDtypes[i].size) == 0);
    grapnel_tensor_destroy(tensor);
  }

  REQUIRE_OK(grapnel_tensor_create(GRAPNEL_FLOAT32, shape, 2, floats,
                                   sizeof(floats), &tensor));
  REQUIRE(grapnel_tensor_rank(tensor) == 2);
  REQUIRE(grapnel_tensor_numel(tensor) == 6);
  REQUIRE(memcmp(grapnel_tensor_shape(tensor), shape, sizeof(shape)) == 0);
  data = grapnel_tensor_data(tensor);
  REQUIRE(data != floats && data[5] == 5);

  /* One memory, two references. */
  REQUIRE_OK(grapnel_tensor_share(tensor, &other));
  REQUIRE(grapnel_tensor_data(other) == (void*)data);
  data[0] = 7;
  grapnel_tensor_destroy(tensor);
  REQUIRE_OK(grapnel_tensor_read(other, read, sizeof(read)));
  REQUIRE(read[0] == 7 && read[1] == 1);
  REQUIRE_OK(grapnel_tensor_write(other, floats, sizeof(floats)));
  REQUIRE(data[0] == 0);
  grapnel_tensor_destroy(other);

  /* Of rank 0, and without elements. */
  REQUIRE_OK(grapnel_tensor_create(GRAPNEL_FLOAT32, NULL, 0, floats + 2,
                                   sizeof(float), &tensor));
  REQUIRE(grapnel_tensor_rank(tensor) == 0 &&
          grapnel_tensor_numel(tensor) == 1);
  REQUIRE_OK(grapnel_tensor_read(tensor, read, sizeof(float)));
  REQUIRE(read[0] == 2);
  grapnel_tensor_destroy(tensor);
  REQUIRE_OK(
      grapnel_tensor_create(GRAPNEL_FLOAT32, empty_shape, 2, NULL, 0, &tensor));
  REQUIRE(grapnel_tensor_numel(tensor) == 0);
  REQUIRE_OK(grapnel_tensor_read(tensor, NULL, 0));
  REQUIRE_OK(grapnel_tensor_write(tensor, NULL, 0));
  grapnel_tensor_destroy(tensor);
  grapnel_tensor_destroy(NULL);
}

static void TestNamedTensors(void) {
  const int64_t shape[1] = {1};
  char name[16];
  int32_t i;
  int32_t round;
  grapnel_tensors* tensors;
  grapnel_tensor* tensor;
  REQUIRE_OK(grapnel_tensors_create(&tensors));

  /* Written in place: what is read is what was written. */
  {
    const int64_t rows[2] = {2, 3};
    float read[6];
    void* elements = NULL;
    REQUIRE_OK(grapnel_tensors_add_new(tensors, "new", 3, GRAPNEL_FLOAT32, rows,
                                       2, &elements));
    for (i = 0; i < 6; ++i) ((float*)elements)[i] = (float)i;
    REQUIRE(grapnel_tensor_data(grapnel_tensors_at(tensors, 0)) == elements);
    REQUIRE_OK(grapnel_tensor_read(grapnel_tensors_at(tensors, 0), read,
                                   sizeof(read)));
    for (i = 0; i < 6; ++i) REQUIRE(read[i] == (float)i);
    REQUIRE_FAILS(grapnel_tensors_add_new(tensors, "new", 3, GRAPNEL_INT64,
                                          NULL, 0, &elements),
                  GRAPNEL_ALREADY_EXISTS, "new");
    grapnel_tensors_clear(tensors);
  }

  /* Twice: slots that are used again, with and without an index of names. */
  for (round = 0; round < 2; ++round) {
    REQUIRE(grapnel_tensors_size(tensors) == 0);
    for (i = 0; i < 40; ++i) {
      const size_t size = (size_t)snprintf(name, sizeof(name), "t%d", i);
      REQUIRE_OK(grapnel_tensors_add_copy(tensors, name, size, GRAPNEL_INT32,
                                          shape, 1, &i, sizeof(i)));
      REQUIRE_FAILS(grapnel_tensors_add_copy(tensors, name, size, GRAPNEL_INT32,
                                             shape, 1, &i, sizeof(i)),
                    GRAPNEL_ALREADY_EXISTS, name);
    }
    REQUIRE(grapnel_tensors_size(tensors) == 40);
    for (i = 0; i < 40; ++i) {
      const size_t size = (size_t)snprintf(name, sizeof(name), "t%d", i);
      const grapnel_tensor* found = grapnel_tensors_find(tensors, name, size);
      int32_t value = -1;
      REQUIRE(found != NULL && found == grapnel_tensors_at(tensors, i));
      REQUIRE(strcmp(grapnel_tensors_name(tensors, i), name) == 0);
      REQUIRE_OK(grapnel_tensor_read(found, &value, sizeof(value)));
      REQUIRE(value == i);
    }
    REQUIRE(grapnel_tensors_find(tensors, TEXT("t40")) == NULL);
    REQUIRE(grapnel_tensors_find(tensors, TEXT("t")) == NULL);
    REQUIRE(grapnel_tensors_at(tensors, 40) == NULL);
    REQUIRE(grapnel_tensors_at(tensors, -1) == NULL);
    REQUIRE(grapnel_tensors_name(tensors, 40) == NULL);
    grapnel_tensors_clear(tensors);
    REQUIRE(grapnel_tensors_find(tensors, TEXT("t0")) == NULL);
    REQUIRE(grapnel_tensors_find(tensors, TEXT("t39")) == NULL);
  }

  /* One is taken on success only. */
  i = 3;
  REQUIRE_OK(
      grapnel_tensor_create(GRAPNEL_INT32, shape, 1, &i, sizeof(i), &tensor));
  REQUIRE_OK(grapnel_tensors_add(tensors, TEXT("x"), tensor));
  REQUIRE_OK(
      grapnel_tensor_create(GRAPNEL_INT32, shape, 1, &i, sizeof(i), &tensor));
  REQUIRE_FAILS(grapnel_tensors_add(tensors, TEXT("x"), tensor),
                GRAPNEL_ALREADY_EXISTS, "\"x\"");
  grapnel_tensor_destroy(tensor);
  grapnel_tensors_destroy(tensors);
  grapnel_tensors_destroy(NULL);
}

static void TestScalars(void) {
  double value = 0;
  grapnel_scalars* scalars;
  REQUIRE_OK(grapnel_scalars_create(&scalars));
  REQUIRE_OK(grapnel_scalars_add(scalars, TEXT("loss"), 0.5));
  REQUIRE_OK(grapnel_scalars_add(scalars, TEXT("accuracy"), 97));
  REQUIRE_FAILS(grapnel_scalars_add(scalars, TEXT("loss"), 1),
                GRAPNEL_ALREADY_EXISTS, "\"loss\"");
  REQUIRE(grapnel_scalars_size(scalars) == 2);
  REQUIRE(strcmp(grapnel_scalars_name(scalars, 1), "accuracy") == 0);
  REQUIRE(grapnel_scalars_name(scalars, 2) == NULL);
  REQUIRE(grapnel_scalars_value(scalars, 0) == 0.5);
  REQUIRE(isnan(grapnel_scalars_value(scalars, 2)));
  REQUIRE(isnan(grapnel_scalars_value(scalars, -1)));
  REQUIRE_OK(grapnel_scalars_find(scalars, TEXT("accuracy"), &value));
  REQUIRE(value == 97);
  REQUIRE_FAILS(grapnel_scalars_find(scalars, TEXT("top1"), &value),
                GRAPNEL_NOT_FOUND, "\"top1\"");
  REQUIRE(value == 97);
  grapnel_scalars_clear(scalars);
  REQUIRE(grapnel_scalars_size(scalars) == 0);
  REQUIRE_OK(grapnel_scalars_add(scalars, TEXT("accuracy"), 1));
  REQUIRE(grapnel_scalars_size(scalars) == 1);
  grapnel_scalars_destroy(scalars);
  grapnel_scalars_destroy(NULL);
}

static void TestSafetensors(void) {
  const int64_t shape[2] = {3, 1};
  const float weight[3] = {1, -2, 0.5F};
  const unsigned char mask[1] = {1};
  const int64_t one[1] = {1};
  char path[kPathSize];
  float read[3];
  grapnel_tensors* tensors;
  grapnel_tensors* same;
  InTmp("x.safetensors", path);
  REQUIRE_OK(grapnel_tensors_create(&tensors));
  REQUIRE_OK(grapnel_tensors_add_copy(tensors, TEXT("mask"), GRAPNEL_BOOL, one,
                                      1, mask, sizeof(mask)));
  REQUIRE_OK(grapnel_tensors_add_copy(tensors, TEXT("fc.weight"),
                                      GRAPNEL_FLOAT32, shape, 2, weight,
                                      sizeof(weight)));
  /* A second time, over the first. */
  REQUIRE_OK(grapnel_safetensors_write(path, strlen(path), tensors));
  REQUIRE_OK(grapnel_safetensors_write(path, strlen(path), tensors));

  REQUIRE_OK(grapnel_tensors_create(&same));
  REQUIRE_OK(grapnel_safetensors_read(path, strlen(path), same));
  REQUIRE(grapnel_tensors_size(same) == 2);
  REQUIRE_OK(grapnel_tensor_read(grapnel_tensors_find(same, TEXT("fc.weight")),
                                 read, sizeof(read)));
  REQUIRE(memcmp(read, weight, sizeof(read)) == 0);
  REQUIRE(grapnel_tensor_dtype(grapnel_tensors_find(same, TEXT("mask"))) ==
          GRAPNEL_BOOL);

  /* All or none. */
  grapnel_tensors_clear(same);
  REQUIRE_OK(grapnel_tensors_add_copy(same, TEXT("mask"), GRAPNEL_BOOL, one, 1,
                                      mask, sizeof(mask)));
  REQUIRE_FAILS(grapnel_safetensors_read(path, strlen(path), same),
                GRAPNEL_ALREADY_EXISTS, "\"mask\"");
  REQUIRE(grapnel_tensors_size(same) == 1);

  InTmp("none.safetensors", path);
  REQUIRE_FAILS(grapnel_safetensors_read(path, strlen(path), same),
                GRAPNEL_NOT_FOUND, "none.safetensors");
  InTmp("none/x.safetensors", path);
  REQUIRE_FAILS(grapnel_safetensors_write(path, strlen(path), tensors),
                GRAPNEL_NOT_FOUND, "none/");
  grapnel_tensors_destroy(tensors);
  grapnel_tensors_destroy(same);
}

static void CopyFile(const char* from, const char* to, long damaged_byte) {
  FILE* in = fopen(from, "rb");
  FILE* out = fopen(to, "wb");
  long i = 0;
  int c;
  REQUIRE(in != NULL && out != NULL);
  for (; (c = fgetc(in)) != EOF; ++i) {
    REQUIRE(fputc(i == damaged_byte ? c ^ 1 : c, out) != EOF);
  }
  REQUIRE(fclose(in) == 0 && fclose(out) == 0);
}

/* Bazel's runfiles are links, which are refused in a checkpoint. */
static void CopyCheckpoint(const char* to, long damaged_byte) {
  static const char* const kFiles[] = {"manifest.pb", "model.safetensors",
                                       "optimizer.safetensors", "state.pb"};
  size_t i;
  REQUIRE(mkdir(to, 0700) == 0);
  for (i = 0; i < 4; ++i) {
    char source[kPathSize];
    char target[kPathSize];
    Join("io/testdata/v1/epoch_2", kFiles[i], source);
    Join(to, kFiles[i], target);
    CopyFile(source, target, i == 1 ? damaged_byte : -1);
  }
}

static void TestCheckpoints(void) {
  char dir[kPathSize];
  char path[kPathSize];
  const int64_t shape[2] = {2, 3};
  const unsigned char mask[4] = {0, 1, 0, 1};
  unsigned char mask_read[4];
  float weight[6];
  int i;
  grapnel_bytes text = {NULL, 0};
  grapnel_checkpoint* checkpoint;
  const grapnel_tensors* tensors = NULL;
  const grapnel_tensor* tensor;
  InTmp("run", dir);
  REQUIRE(mkdir(dir, 0700) == 0);
  REQUIRE_OK(grapnel_checkpoint_list(dir, strlen(dir), &text));
  REQUIRE(strcmp(text.data, "") == 0);
  REQUIRE_FAILS(grapnel_checkpoint_latest(dir, strlen(dir), &text),
                GRAPNEL_NOT_FOUND, "run");

  Join(dir, "epoch_2", path);
  CopyCheckpoint(path, -1);
  REQUIRE_OK(grapnel_checkpoint_list(dir, strlen(dir), &text));
  REQUIRE(strcmp(text.data, "epoch_2\n") == 0);
  REQUIRE_OK(grapnel_checkpoint_latest(dir, strlen(dir), &text));
  REQUIRE(strcmp(text.data, path) == 0);
  REQUIRE_OK(grapnel_checkpoint_verify(path, strlen(path)));

  REQUIRE_OK(grapnel_checkpoint_open(path, strlen(path), &checkpoint));
  REQUIRE(grapnel_checkpoint_epoch(checkpoint) == 2);
  REQUIRE(grapnel_checkpoint_iter(checkpoint) == 20);
  REQUIRE_OK(grapnel_checkpoint_sections(checkpoint, &text));
  REQUIRE(strcmp(text.data, "model\noptimizer\n") == 0);
  REQUIRE_OK(grapnel_checkpoint_tensors(checkpoint, TEXT("model"), &tensors));
  REQUIRE(grapnel_tensors_size(tensors) == 6);
  REQUIRE(strcmp(grapnel_tensors_name(tensors, 0), "fc.weight") == 0);
  tensor = grapnel_tensors_at(tensors, 0);
  REQUIRE(grapnel_tensor_dtype(tensor) == GRAPNEL_FLOAT32);
  REQUIRE(grapnel_tensor_rank(tensor) == 2);
  REQUIRE(memcmp(grapnel_tensor_shape(tensor), shape, sizeof(shape)) == 0);
  REQUIRE_OK(grapnel_tensor_read(tensor, weight, sizeof(weight)));
  for (i = 0; i < 6; ++i) REQUIRE(weight[i] == (float)i / 8);
  REQUIRE_OK(grapnel_tensor_read(grapnel_tensors_find(tensors, TEXT("mask")),
                                 mask_read, sizeof(mask_read)));
  REQUIRE(memcmp(mask_read, mask, sizeof(mask)) == 0);
  REQUIRE(grapnel_tensor_dtype(grapnel_tensors_find(tensors, TEXT("half"))) ==
          GRAPNEL_BFLOAT16);
  REQUIRE(grapnel_tensor_numel(grapnel_tensors_find(tensors, TEXT("empty"))) ==
          0);
  REQUIRE_FAILS(grapnel_checkpoint_tensors(checkpoint, TEXT("ema"), &tensors),
                GRAPNEL_NOT_FOUND, "\"ema\"");
  REQUIRE_OK(grapnel_checkpoint_manifest(checkpoint, GRAPNEL_TEXT, &text));
  REQUIRE(strstr(text.data, "name: \"epoch_2\"") != NULL);
  REQUIRE_OK(grapnel_checkpoint_manifest(checkpoint, GRAPNEL_JSON, &text));
  REQUIRE(strstr(text.data, "\"name\": \"epoch_2\"") != NULL);
  REQUIRE(strstr(text.data, "\"schema_version\"") != NULL);
  REQUIRE_OK(grapnel_checkpoint_manifest(checkpoint, GRAPNEL_BINARY, &text));
  REQUIRE(text.size > 0);
  grapnel_checkpoint_destroy(checkpoint);
  grapnel_checkpoint_destroy(NULL);

  /* One bit of the last tensor is another one. */
  InTmp("damaged", dir);
  REQUIRE(mkdir(dir, 0700) == 0);
  Join(dir, "epoch_2", path);
  {
    struct stat model;
    REQUIRE(stat("io/testdata/v1/epoch_2/model.safetensors", &model) == 0);
    CopyCheckpoint(path, (long)model.st_size - 1);
  }
  REQUIRE_FAILS(grapnel_checkpoint_verify(path, strlen(path)),
                GRAPNEL_DATA_LOSS, "model.safetensors");
  REQUIRE_FAILS(grapnel_checkpoint_open(path, strlen(path), &checkpoint),
                GRAPNEL_DATA_LOSS, "model.safetensors");
  REQUIRE_FAILS(grapnel_checkpoint_latest(dir, strlen(dir), &text),
                GRAPNEL_NOT_FOUND, "no good checkpoint");
  Join(dir, "none", path);
  REQUIRE_FAILS(grapnel_checkpoint_verify(path, strlen(path)),
                GRAPNEL_NOT_FOUND, "none");
  grapnel_bytes_clear(&text);
}

static void TestSchedulers(void) {
  /* step { step_size: 2 gamma: 0.5 }, then field 99, within it. */
  static const unsigned char kBinary[] = {0x22, 11, 8, 2, 0x11, 0,   0,
                                          0,    0,  0, 0, 0xe0, 0x3f};
  static const unsigned char kUnknown[] = {0x22, 5, 8, 2, 0x98, 6, 1};
  static const struct {
    const void* config;
    size_t size;
    grapnel_encoding encoding;
  } kStep[] = {
      {kBinary, sizeof(kBinary), GRAPNEL_BINARY},
      {TEXT("step { step_size: 2 gamma: 0.5 }"), GRAPNEL_TEXT},
      {TEXT("{\"step\": {\"step_size\": 2, \"gamma\": 0.5}}"), GRAPNEL_JSON},
  };
  static const double kFactors[6] = {1, 1, 0.5, 0.5, 0.25, 0.25};
  double values[2];
  double* const pointers[2] = {&values[0], &values[1]};
  double value = 1;
  double* const pointer = &value;
  grapnel_bytes state = {NULL, 0};
  grapnel_scheduler* scheduler;
  grapnel_scheduler* resumed;
  size_t i;
  int t;

  for (i = 0; i < 3; ++i) {
    values[0] = 0.1;
    values[1] = 8;
    REQUIRE_OK(grapnel_scheduler_create(kStep[i].config, kStep[i].size,
                                        kStep[i].encoding, pointers, 2, -1, -1,
                                        &scheduler));
    REQUIRE(values[0] == 0.1 && values[1] == 8);
    for (t = 0; t < 6; ++t) {
      REQUIRE_OK(t == 0 ? grapnel_scheduler_apply(scheduler)
                        : grapnel_scheduler_step(scheduler));
      REQUIRE(values[0] == 0.1 * kFactors[t]);
      REQUIRE(values[1] == 8 * kFactors[t]);
    }
    grapnel_scheduler_destroy(scheduler);
  }
  grapnel_scheduler_destroy(NULL);
  REQUIRE_FAILS(
      grapnel_scheduler_create(kUnknown, sizeof(kUnknown), GRAPNEL_BINARY,
                               &pointer, 1, -1, -1, &scheduler),
      GRAPNEL_INVALID_ARGUMENT, "config: step: no field number 99");

  REQUIRE_OK(grapnel_scheduler_create(TEXT("cosine_annealing { t_max: 4 }"),
                                      GRAPNEL_TEXT, &pointer, 1, -1, -1,
                                      &scheduler));
  REQUIRE_OK(grapnel_scheduler_apply(scheduler));
  REQUIRE(value == 1);
  REQUIRE_OK(grapnel_scheduler_step(scheduler));
  REQUIRE(Near(value, 0.85355339059327378));
  REQUIRE_OK(grapnel_scheduler_step(scheduler));
  REQUIRE(Near(value, 0.5));

  /* Another one goes on from there. */
  REQUIRE_OK(grapnel_scheduler_save_state(scheduler, &state));
  grapnel_scheduler_destroy(scheduler);
  REQUIRE_OK(grapnel_scheduler_create(TEXT("cosine_annealing { t_max: 4 }"),
                                      GRAPNEL_TEXT, &pointer, 1, -1, -1,
                                      &resumed));
  REQUIRE_OK(grapnel_scheduler_load_state(resumed, state.data, state.size));
  REQUIRE_OK(grapnel_scheduler_apply(resumed)); /* Done. */
  REQUIRE(Near(value, 0.5));
  REQUIRE_OK(grapnel_scheduler_step(resumed));
  REQUIRE(Near(value, 0.14644660940672624));
  REQUIRE_OK(grapnel_scheduler_step(resumed));
  REQUIRE(Near(value, 0));
  grapnel_scheduler_destroy(resumed);

  /* 4 epochs of 5 iterations. */
  value = 1;
  REQUIRE_OK(grapnel_scheduler_create(
      TEXT("linear { start_factor: 0.5 convert_to_iter_based: true end: 1 }"),
      GRAPNEL_TEXT, &pointer, 1, 4, 20, &scheduler));
  REQUIRE_OK(grapnel_scheduler_apply(scheduler));
  REQUIRE(value == 0.5);
  for (t = 1; t < 5; ++t) REQUIRE_OK(grapnel_scheduler_step(scheduler));
  REQUIRE(Near(value, 1));
  REQUIRE_FAILS(grapnel_scheduler_step_metric(scheduler, 1),
                GRAPNEL_FAILED_PRECONDITION, "metric");
  REQUIRE_FAILS(grapnel_scheduler_load_state(scheduler, state.data, state.size),
                GRAPNEL_INVALID_ARGUMENT, "state: the state is of a");
  grapnel_scheduler_destroy(scheduler);

  value = 1;
  REQUIRE_OK(grapnel_scheduler_create(
      TEXT("reduce_on_plateau { factor: 0.5 patience: 0 }"), GRAPNEL_TEXT,
      &pointer, 1, -1, -1, &scheduler));
  REQUIRE_OK(grapnel_scheduler_apply(scheduler));
  for (t = 0; t < 3; ++t) {
    static const double kLosses[3] = {2, 1, 1.5};
    REQUIRE_OK(grapnel_scheduler_step(scheduler));
    REQUIRE_OK(grapnel_scheduler_step_metric(scheduler, kLosses[t]));
    REQUIRE(value == (t == 2 ? 0.5 : 1));
  }
  grapnel_scheduler_destroy(scheduler);
  grapnel_bytes_clear(&state);
}

static float FirstOf(const grapnel_tensor* tensor) {
  float values[2];
  REQUIRE_OK(grapnel_tensor_read(tensor, values, sizeof(values)));
  REQUIRE(values[1] == 2 * values[0]);
  return values[0];
}

static void TestAverages(void) {
  static const char kConfig[] =
      "strategy { exponential_moving_average { momentum: 0.5 } }";
  const int64_t shape[1] = {2};
  float values[2] = {1, 2};
  grapnel_tensor* weight;
  grapnel_tensor* shared;
  grapnel_tensors* parameters;
  grapnel_tensors* state;
  grapnel_average* average;
  grapnel_average* resumed;
  REQUIRE_OK(grapnel_tensor_create(GRAPNEL_FLOAT32, shape, 1, values,
                                   sizeof(values), &weight));
  REQUIRE_OK(grapnel_tensor_share(weight, &shared));
  REQUIRE_OK(grapnel_tensors_create(&parameters));
  REQUIRE_OK(grapnel_tensors_add(parameters, TEXT("w"), shared));
  REQUIRE_OK(grapnel_average_create(TEXT(kConfig), GRAPNEL_TEXT, parameters,
                                    NULL, &average));

  /* 1 is copied; (1 + 3) / 2 = 2; (2 + 4) / 2 = 3. */
  REQUIRE_OK(grapnel_average_update(average));
  values[0] = 3;
  values[1] = 6;
  REQUIRE_OK(grapnel_tensor_write(weight, values, sizeof(values)));
  REQUIRE_OK(grapnel_average_update(average));
  values[0] = 4;
  values[1] = 8;
  REQUIRE_OK(grapnel_tensor_write(weight, values, sizeof(values)));
  REQUIRE_OK(grapnel_average_update(average));
  REQUIRE(grapnel_average_steps(average) == 3);
  REQUIRE(FirstOf(weight) == 4);
  REQUIRE_OK(grapnel_tensors_create(&state));
  REQUIRE_OK(grapnel_average_state(average, state));
  REQUIRE(FirstOf(grapnel_tensors_find(state, TEXT("w"))) == 3);

  REQUIRE_OK(grapnel_average_swap_in(average));
  REQUIRE(FirstOf(weight) == 3);
  REQUIRE_FAILS(grapnel_average_swap_in(average), GRAPNEL_FAILED_PRECONDITION,
                "averaged weights");
  REQUIRE_FAILS(grapnel_average_update(average), GRAPNEL_FAILED_PRECONDITION,
                "averaged weights");
  REQUIRE_OK(grapnel_average_swap_out(average));
  REQUIRE(FirstOf(weight) == 4);
  REQUIRE_FAILS(grapnel_average_swap_out(average), GRAPNEL_FAILED_PRECONDITION,
                "average");

  /* Another one goes on from there: (3 + 4) / 2. */
  REQUIRE_OK(grapnel_average_create(NULL, 0, GRAPNEL_BINARY, parameters, NULL,
                                    &resumed));
  grapnel_average_destroy(resumed);
  REQUIRE_OK(grapnel_average_create(TEXT(kConfig), GRAPNEL_TEXT, parameters,
                                    NULL, &resumed));
  REQUIRE_OK(grapnel_average_load_state(resumed, state, 3));
  REQUIRE(grapnel_average_steps(resumed) == 3);
  REQUIRE_OK(grapnel_average_update(resumed));
  REQUIRE_OK(grapnel_average_swap_in(resumed));
  REQUIRE(FirstOf(weight) == 3.5F);
  grapnel_average_destroy(resumed); /* Swaps out. */
  REQUIRE(FirstOf(weight) == 4);

  grapnel_tensors_clear(state);
  REQUIRE_FAILS(grapnel_average_load_state(average, state, 3),
                GRAPNEL_INVALID_ARGUMENT, "missing: w");
  grapnel_average_destroy(average);
  grapnel_average_destroy(NULL);
  grapnel_tensors_destroy(state);
  grapnel_tensors_destroy(parameters);
  grapnel_tensor_destroy(weight);
}

static void TestRegisteredConfigs(void) {
  grapnel_bytes names = {NULL, 0};
  REQUIRE_OK(grapnel_registered_configs(&names));
  REQUIRE(strstr(names.data, "\ngrapnel.hooks.v1.EMAHookConfig\n") != NULL);
  REQUIRE(strstr(names.data, "\ngrapnel.optim.v1.StepSchedulerConfig\n") !=
          NULL);
  REQUIRE(names.data[names.size - 1] == '\n');
  grapnel_bytes_clear(&names);
}

static void KeepLine(void* line, grapnel_severity severity, const char* message,
                     size_t message_size) {
  const int size =
      snprintf(line, 256, "%d %.*s", (int)severity, (int)message_size, message);
  REQUIRE(size > 0);
}

static void TestLog(void) {
  char line[256] = "";
  grapnel_tensors* none;
  grapnel_average* average;
  REQUIRE_OK(grapnel_tensors_create(&none));
  grapnel_set_log_callback(KeepLine, line);
  REQUIRE_OK(grapnel_average_create(
      TEXT("strategy { exponential_moving_average { momentum: 0.9 } }"),
      GRAPNEL_TEXT, none, NULL, &average));
  grapnel_set_log_callback(NULL, NULL);
  REQUIRE(strstr(line, "1 momentum: is 0.9,") == line);
  grapnel_average_destroy(average);
  grapnel_tensors_destroy(none);
}

int main(void) {
  TestVersion();
  TestStatus();
  TestBytes();
  TestTensors();
  TestNamedTensors();
  TestScalars();
  TestSafetensors();
  TestCheckpoints();
  TestSchedulers();
  TestAverages();
  TestRegisteredConfigs();
  TestLog();
  REQUIRE(grapnel_live_objects() == 0);
  return 0;
}
