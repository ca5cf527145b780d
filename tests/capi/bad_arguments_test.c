/* Every function of the parts that need no runner, with what a caller must not
 * give it: a status that names the argument, and never a crash. */
#include <math.h>

#include "tests/capi/require.h"

#define REQUIRE_BAD(call, part) \
  REQUIRE_FAILS(call, GRAPNEL_INVALID_ARGUMENT, part)

/* More than there is, of whatever it counts. */
static const size_t kHuge = (size_t)3 << 30;

/* A text that is too long, not UTF-8, has a NUL in it, or isn't there. */
#define REQUIRE_BAD_TEXT(call_of_text, name)                   \
  do {                                                         \
    REQUIRE_BAD(call_of_text(NULL, 1), name ": must not be");  \
    REQUIRE_BAD(call_of_text("x", kHuge), name "_size: is ");  \
    REQUIRE_BAD(call_of_text("x", SIZE_MAX), name "_size");    \
    REQUIRE_BAD(call_of_text("a\xff", 2), name ": not UTF-8"); \
    REQUIRE_BAD(call_of_text("a\0b", 3), name ": byte 1 is");  \
  } while (0)

static const int64_t kShape[2] = {2, 3};
static const float kFloats[6] = {0, 1, 2, 3, 4, 5};

static grapnel_tensor* MakeTensor(void) {
  grapnel_tensor* tensor = NULL;
  REQUIRE_OK(grapnel_tensor_create(GRAPNEL_FLOAT32, kShape, 2, kFloats,
                                   sizeof(kFloats), &tensor));
  return tensor;
}

static grapnel_tensors* MakeTensors(void) {
  grapnel_tensors* tensors = NULL;
  REQUIRE_OK(grapnel_tensors_create(&tensors));
  REQUIRE_OK(grapnel_tensors_add(tensors, TEXT("w"), MakeTensor()));
  return tensors;
}

static void TestStatus(void) {
  grapnel_status* status = grapnel_status_create(GRAPNEL_ABORTED, NULL, 5);
  REQUIRE(grapnel_status_code(status) == GRAPNEL_ABORTED);
  REQUIRE(strcmp(grapnel_status_message(status), "") == 0);
  grapnel_status_destroy(status);
  status = grapnel_status_create(-1, "x", kHuge);
  REQUIRE(grapnel_status_code(status) == GRAPNEL_UNKNOWN);
  REQUIRE(strstr(grapnel_status_message(status), "3221225472") != NULL);
  grapnel_status_destroy(status);
}

static void TestBytes(void) {
  grapnel_bytes bytes = {NULL, 0};
  REQUIRE_BAD(grapnel_bytes_assign(NULL, "x", 1), "bytes");
  REQUIRE_BAD(grapnel_bytes_assign(&bytes, NULL, 1), "data: must not be null");
  REQUIRE_BAD(grapnel_bytes_assign(&bytes, "x", SIZE_MAX), "data_size");
  REQUIRE(bytes.data == NULL);
}

static void TestTensorCreate(void) {
  static const struct {
    const char* part;
    grapnel_dtype dtype;
    int32_t rank;
    int64_t shape[3];
    size_t size;
  } kBad[] = {
      {"dtype: there is no value 0", 0, 1, {1, 0, 0}, 4},
      {"dtype: there is no value 11", 11, 1, {1, 0, 0}, 4},
      {"dtype: there is no value -1", -1, 1, {1, 0, 0}, 4},
      {"rank: must be in [0, 64], is -1", 7, -1, {1, 0, 0}, 4},
      {"rank: must be in [0, 64], is 65", 7, 65, {1, 0, 0}, 4},
      {"rank", 7, INT32_MAX, {1, 0, 0}, 4},
      {"rank", 7, INT32_MIN, {1, 0, 0}, 4},
      {"shape[1]: must be >= 0, is -1", 7, 2, {4, -1, 0}, 4},
      {"shape[0]", 7, 2, {INT64_MIN, 2, 0}, 4},
      {"shape: [", 7, 2, {INT64_MAX, 2, 0}, 4},
      {"shape: [", 7, 2, {(int64_t)1 << 32, (int64_t)1 << 32, 0}, 0},
      {"shape: [", 7, 3, {(int64_t)1 << 32, (int64_t)1 << 32, 0}, 0},
      {"shape: [", 7, 1, {(int64_t)1 << 62, 0, 0}, 0},
      {"size: must be 4, the bytes of [1] of Float, is 3", 7, 1, {1, 0, 0}, 3},
      {"size: must be 24", 7, 2, {2, 3, 0}, SIZE_MAX},
      {"size: must be 24", 7, 2, {2, 3, 0}, 0},
      {"size: must be 0", 7, 2, {2, 0, 0}, 24},
      {"size: must be 4", 7, 0, {0, 0, 0}, 0},
      {"size: must be 4294967296", 7, 1, {(int64_t)1 << 30, 0, 0}, 24},
  };
  static const unsigned char kNoBools[3] = {0, 1, 2};
  const int64_t three[1] = {3};
  const grapnel_dtype f = GRAPNEL_FLOAT32;
  grapnel_tensor* out = NULL;
  size_t i;
  for (i = 0; i < sizeof(kBad) / sizeof(kBad[0]); ++i) {
    REQUIRE_BAD(
        grapnel_tensor_create(kBad[i].dtype, kBad[i].shape, kBad[i].rank,
                              kFloats, kBad[i].size, &out),
        kBad[i].part);
  }
  REQUIRE_BAD(grapnel_tensor_create(f, NULL, 2, kFloats, 24, &out), "shape");
  REQUIRE_BAD(grapnel_tensor_create(f, kShape, 2, NULL, 24, &out), "data");
  REQUIRE_BAD(grapnel_tensor_create(f, kShape, 2, kFloats, 24, NULL), "out");
  REQUIRE_BAD(grapnel_tensor_create(GRAPNEL_BOOL, three, 1, kNoBools, 3, &out),
              "data: element 2 must be 0 or 1, is 2");
  REQUIRE(out == NULL);
}

static void TestTensors(void) {
  static const unsigned char kNoBools[3] = {0, 1, 2};
  const int64_t three[1] = {3};
  grapnel_tensor* tensor = MakeTensor();
  grapnel_tensor* bools = NULL;
  grapnel_tensor* out = NULL;
  struct DLManagedTensorVersioned* dlpack = NULL;
  float data[6];
  REQUIRE_BAD(grapnel_tensor_share(NULL, &out), "tensor");
  REQUIRE_BAD(grapnel_tensor_share(tensor, NULL), "out");

  REQUIRE_BAD(grapnel_tensor_read(NULL, data, 24), "tensor");
  REQUIRE_BAD(grapnel_tensor_read(tensor, NULL, 24), "data");
  REQUIRE_BAD(grapnel_tensor_read(tensor, data, 25), "size: must be 24");
  REQUIRE_BAD(grapnel_tensor_read(tensor, data, 23), "size: must be 24");
  REQUIRE_BAD(grapnel_tensor_read(tensor, data, kHuge), "size");
  REQUIRE_BAD(grapnel_tensor_read(tensor, data, SIZE_MAX), "size");

  REQUIRE_BAD(grapnel_tensor_write(NULL, data, 24), "tensor");
  REQUIRE_BAD(grapnel_tensor_write(tensor, NULL, 24), "data");
  REQUIRE_BAD(grapnel_tensor_write(tensor, data, 25), "size: must be 24");
  REQUIRE_BAD(grapnel_tensor_write(tensor, data, kHuge), "size");
  REQUIRE_BAD(grapnel_tensor_write(tensor, data, SIZE_MAX), "size");
  REQUIRE_OK(
      grapnel_tensor_create(GRAPNEL_BOOL, three, 1, "\0\1\0", 3, &bools));
  REQUIRE_BAD(grapnel_tensor_write(bools, kNoBools, 3), "data: element 2");

  REQUIRE_BAD(grapnel_tensor_from_dlpack(NULL, &out), "dlpack");
  REQUIRE_BAD(grapnel_tensor_to_dlpack(NULL, &dlpack), "tensor");
  REQUIRE_BAD(grapnel_tensor_to_dlpack(tensor, NULL), "out");

  REQUIRE(grapnel_tensor_dtype(NULL) == 0);
  REQUIRE(grapnel_tensor_rank(NULL) == 0);
  REQUIRE(grapnel_tensor_shape(NULL) == NULL);
  REQUIRE(grapnel_tensor_numel(NULL) == 0);
  REQUIRE(grapnel_tensor_data(NULL) == NULL);
  REQUIRE(out == NULL && dlpack == NULL);
  grapnel_tensor_destroy(tensor);
  grapnel_tensor_destroy(bools);
}

static void TestNamedTensors(void) {
  const grapnel_dtype f = GRAPNEL_FLOAT32;
  grapnel_tensors* tensors = MakeTensors();
  void* elements = NULL;
  grapnel_tensor* tensor = MakeTensor();
  REQUIRE_BAD(grapnel_tensors_create(NULL), "out");
#define ADD(name, size) grapnel_tensors_add(tensors, name, size, tensor)
  REQUIRE_BAD_TEXT(ADD, "name");
  REQUIRE_BAD(ADD(NULL, 0), "name: must not be empty");
  REQUIRE_BAD(grapnel_tensors_add(NULL, "x", 1, tensor), "tensors");
  REQUIRE_BAD(grapnel_tensors_add(tensors, "x", 1, NULL), "tensor");
#define ADD_COPY(name, size) \
  grapnel_tensors_add_copy(tensors, name, size, f, kShape, 2, kFloats, 24)
  REQUIRE_BAD_TEXT(ADD_COPY, "name");
  REQUIRE_BAD(ADD_COPY("x", 0), "name: must not be empty");
  REQUIRE_BAD(grapnel_tensors_add_copy(NULL, "x", 1, f, kShape, 2, kFloats, 24),
              "tensors");
  REQUIRE_BAD(
      grapnel_tensors_add_copy(tensors, "x", 1, 0, kShape, 2, kFloats, 24),
      "dtype");
  REQUIRE_BAD(
      grapnel_tensors_add_copy(tensors, "x", 1, f, NULL, 2, kFloats, 24),
      "shape");
  REQUIRE_BAD(
      grapnel_tensors_add_copy(tensors, "x", 1, f, kShape, 65, kFloats, 24),
      "rank");
  REQUIRE_BAD(grapnel_tensors_add_copy(tensors, "x", 1, f, kShape, 2, NULL, 24),
              "data");
  REQUIRE_BAD(
      grapnel_tensors_add_copy(tensors, "x", 1, f, kShape, 2, kFloats, kHuge),
      "size");
#define ADD_NEW(name, size) \
  grapnel_tensors_add_new(tensors, name, size, f, kShape, 2, &elements)
  REQUIRE_BAD_TEXT(ADD_NEW, "name");
  REQUIRE_BAD(ADD_NEW("x", 0), "name: must not be empty");
  REQUIRE_BAD(grapnel_tensors_add_new(NULL, "x", 1, f, kShape, 2, &elements),
              "tensors");
  REQUIRE_BAD(grapnel_tensors_add_new(tensors, "x", 1, 0, kShape, 2, &elements),
              "dtype");
  REQUIRE_BAD(grapnel_tensors_add_new(tensors, "x", 1, f, NULL, 2, &elements),
              "shape");
  REQUIRE_BAD(
      grapnel_tensors_add_new(tensors, "x", 1, f, kShape, 65, &elements),
      "rank");
  REQUIRE_BAD(grapnel_tensors_add_new(tensors, "x", 1, f, kShape, 2, NULL),
              "data");
  REQUIRE(grapnel_tensors_size(tensors) == 1);

  REQUIRE(grapnel_tensors_size(NULL) == 0);
  REQUIRE(grapnel_tensors_name(NULL, 0) == NULL);
  REQUIRE(grapnel_tensors_name(tensors, INT64_MIN) == NULL);
  REQUIRE(grapnel_tensors_name(tensors, INT64_MAX) == NULL);
  REQUIRE(grapnel_tensors_at(NULL, 0) == NULL);
  REQUIRE(grapnel_tensors_at(tensors, INT64_MIN) == NULL);
  REQUIRE(grapnel_tensors_at(tensors, INT64_MAX) == NULL);
  REQUIRE(grapnel_tensors_find(NULL, "w", 1) == NULL);
  REQUIRE(grapnel_tensors_find(tensors, NULL, 1) == NULL);
  REQUIRE(grapnel_tensors_find(tensors, "w", SIZE_MAX) == NULL);
  grapnel_tensors_clear(NULL);
  grapnel_tensor_destroy(tensor);
  grapnel_tensors_destroy(tensors);
}

static void TestScalars(void) {
  double value = 3;
  grapnel_scalars* scalars = NULL;
  REQUIRE_BAD(grapnel_scalars_create(NULL), "out");
  REQUIRE_OK(grapnel_scalars_create(&scalars));
#define ADD_SCALAR(name, size) grapnel_scalars_add(scalars, name, size, 1)
  REQUIRE_BAD_TEXT(ADD_SCALAR, "name");
  REQUIRE_BAD(ADD_SCALAR("x", 0), "name: must not be empty");
  REQUIRE_BAD(grapnel_scalars_add(NULL, "x", 1, 1), "scalars");
  REQUIRE_OK(grapnel_scalars_add(scalars, "x", 1, 1));
#define FIND(name, size) grapnel_scalars_find(scalars, name, size, &value)
  REQUIRE_BAD_TEXT(FIND, "name");
  REQUIRE_BAD(grapnel_scalars_find(NULL, "x", 1, &value), "scalars");
  REQUIRE_BAD(grapnel_scalars_find(scalars, "x", 1, NULL), "value");
  REQUIRE(value == 3);

  REQUIRE(grapnel_scalars_size(NULL) == 0);
  REQUIRE(grapnel_scalars_name(NULL, 0) == NULL);
  REQUIRE(grapnel_scalars_name(scalars, INT64_MIN) == NULL);
  REQUIRE(isnan(grapnel_scalars_value(NULL, 0)));
  REQUIRE(isnan(grapnel_scalars_value(scalars, INT64_MAX)));
  grapnel_scalars_clear(NULL);
  grapnel_scalars_destroy(scalars);
}

static void TestCheckpoints(void) {
  grapnel_bytes bytes = {NULL, 0};
  grapnel_checkpoint* checkpoint = NULL;
  const grapnel_tensors* tensors = NULL;
#define LIST(dir, size) grapnel_checkpoint_list(dir, size, &bytes)
  REQUIRE_BAD_TEXT(LIST, "dir");
  REQUIRE_BAD(grapnel_checkpoint_list("x", 1, NULL), "names");
  REQUIRE_FAILS(LIST("no/such/folder", 14), GRAPNEL_NOT_FOUND,
                "no/such/folder");
#define LATEST(dir, size) grapnel_checkpoint_latest(dir, size, &bytes)
  REQUIRE_BAD_TEXT(LATEST, "dir");
  REQUIRE_BAD(grapnel_checkpoint_latest("x", 1, NULL), "path");
  REQUIRE_BAD_TEXT(grapnel_checkpoint_verify, "path");
  REQUIRE_BAD(grapnel_checkpoint_verify(NULL, 0), "path: must not be empty");
#define OPEN(path, size) grapnel_checkpoint_open(path, size, &checkpoint)
  REQUIRE_BAD_TEXT(OPEN, "path");
  REQUIRE_BAD(OPEN("x", 0), "path: must not be empty");
  REQUIRE_BAD(grapnel_checkpoint_open("x", 1, NULL), "out");
  REQUIRE_FAILS(OPEN("no/such", 7), GRAPNEL_NOT_FOUND, "no/such");

  REQUIRE_BAD(grapnel_checkpoint_manifest(NULL, GRAPNEL_TEXT, &bytes),
              "checkpoint");
  REQUIRE_BAD(grapnel_checkpoint_sections(NULL, &bytes), "checkpoint");
  REQUIRE_BAD(grapnel_checkpoint_tensors(NULL, "model", 5, &tensors),
              "checkpoint");
  REQUIRE(grapnel_checkpoint_epoch(NULL) == 0);
  REQUIRE(grapnel_checkpoint_iter(NULL) == 0);
  REQUIRE(bytes.data == NULL && checkpoint == NULL && tensors == NULL);
}

static void TestSafetensors(void) {
  grapnel_tensors* tensors = MakeTensors();
#define READ(path, size) grapnel_safetensors_read(path, size, tensors)
  REQUIRE_BAD_TEXT(READ, "path");
  REQUIRE_BAD(READ("x", 0), "path: must not be empty");
  REQUIRE_BAD(grapnel_safetensors_read("x", 1, NULL), "tensors");
#define WRITE(path, size) grapnel_safetensors_write(path, size, tensors)
  REQUIRE_BAD_TEXT(WRITE, "path");
  REQUIRE_BAD(WRITE("x", 0), "path: must not be empty");
  REQUIRE_BAD(grapnel_safetensors_write("x", 1, NULL), "tensors");
  grapnel_tensors_destroy(tensors);
}

static void TestSchedulers(void) {
  static const struct {
    const char* part;
    const char* config;
    size_t size;
    grapnel_encoding encoding;
  } kBad[] = {
      {"encoding: there is no value 0", "x", 1, 0},
      {"encoding: there is no value 4", "x", 1, 4},
      {"encoding", "x", 1, -1},
      {"config: must not be null", NULL, 1, GRAPNEL_TEXT},
      {"config_size: must be at most", "x", (size_t)3 << 30, GRAPNEL_TEXT},
      {"config_size: must be at most", "x", (size_t)3 << 30, GRAPNEL_JSON},
      {"config_size: must be at most", "x", (size_t)3 << 30, GRAPNEL_BINARY},
      {"config_size: is ", "x", SIZE_MAX, GRAPNEL_BINARY},
      {"config:1:1: ", TEXT("x"), GRAPNEL_TEXT},
      {"config:1:1: not UTF-8", TEXT("\xff"), GRAPNEL_TEXT},
      {"config:1:2: not UTF-8", TEXT("{\xff"), GRAPNEL_JSON},
      {"config: ", TEXT("{"), GRAPNEL_JSON},
      {"config: ", NULL, 0, GRAPNEL_JSON},
      {"config: no field \"steps\"", TEXT("{\"steps\": {}}"), GRAPNEL_JSON},
      {"config: not a ParamSchedulerConfig", TEXT("x"), GRAPNEL_BINARY},
      {"config: must be set, to one of", NULL, 0, GRAPNEL_TEXT},
      {"config: must be set, to one of", NULL, 0, GRAPNEL_BINARY},
      {"config: step_size: must be set", TEXT("step {}"), GRAPNEL_TEXT},
      {"config: end: must be set", TEXT("linear {}"), GRAPNEL_TEXT},
  };
  double number = 1;
  double infinite = HUGE_VAL;
  double* const values[2] = {&number, NULL};
  double* const infinities[1] = {&infinite};
  grapnel_bytes state = {NULL, 0};
  grapnel_scheduler* scheduler = NULL;
  size_t i;
  for (i = 0; i < sizeof(kBad) / sizeof(kBad[0]); ++i) {
    REQUIRE_BAD(
        grapnel_scheduler_create(kBad[i].config, kBad[i].size, kBad[i].encoding,
                                 values, 1, -1, -1, &scheduler),
        kBad[i].part);
  }
#define CREATE(values, num_values, max_epochs, max_iters, out)          \
  grapnel_scheduler_create(TEXT("step { step_size: 1 }"), GRAPNEL_TEXT, \
                           values, num_values, max_epochs, max_iters, out)
  REQUIRE_BAD(CREATE(NULL, 1, -1, -1, &scheduler), "values: must not be null");
  REQUIRE_BAD(CREATE(values, 2, -1, -1, &scheduler), "values[1]: must not be");
  REQUIRE_BAD(CREATE(infinities, 1, -1, -1, &scheduler), "values[0]: must be");
  REQUIRE_BAD(CREATE(values, 0, -1, -1, &scheduler), "num_values");
  REQUIRE_BAD(CREATE(values, kHuge, -1, -1, &scheduler), "num_values");
  REQUIRE_BAD(CREATE(values, SIZE_MAX, -1, -1, &scheduler), "num_values");
  REQUIRE_BAD(CREATE(values, 1, -2, -1, &scheduler), "max_epochs");
  REQUIRE_BAD(CREATE(values, 1, -1, INT64_MIN, &scheduler), "max_iters");
  REQUIRE_BAD(CREATE(values, 1, -1, -1, NULL), "out");
  REQUIRE(scheduler == NULL);

  REQUIRE_BAD(grapnel_scheduler_apply(NULL), "scheduler");
  REQUIRE_BAD(grapnel_scheduler_step(NULL), "scheduler");
  REQUIRE_BAD(grapnel_scheduler_step_metric(NULL, 1), "scheduler");
  REQUIRE_BAD(grapnel_scheduler_save_state(NULL, &state), "scheduler");
  REQUIRE_BAD(grapnel_scheduler_load_state(NULL, "x", 1), "scheduler");
  REQUIRE_OK(CREATE(values, 1, -1, -1, &scheduler));
  REQUIRE_BAD(grapnel_scheduler_save_state(scheduler, NULL), "state");
  REQUIRE_BAD(grapnel_scheduler_load_state(scheduler, NULL, 1), "state");
  REQUIRE_BAD(grapnel_scheduler_load_state(scheduler, NULL, 0), "state");
  REQUIRE_BAD(grapnel_scheduler_load_state(scheduler, "\xff", 1), "state");
  REQUIRE_BAD(grapnel_scheduler_load_state(scheduler, "x", kHuge), "state");
  REQUIRE_BAD(grapnel_scheduler_load_state(scheduler, "x", SIZE_MAX), "state");
  grapnel_scheduler_destroy(scheduler);
}

static void TestAverages(void) {
  const int64_t one[1] = {1};
  const int64_t integer = 1;
  grapnel_tensors* tensors = MakeTensors();
  grapnel_tensors* integers = NULL;
  grapnel_average* average = NULL;
  REQUIRE_OK(grapnel_tensors_create(&integers));
  REQUIRE_OK(grapnel_tensors_add_copy(integers, TEXT("n"), GRAPNEL_INT64, one,
                                      1, &integer, sizeof(integer)));
#define AVERAGE(...) \
  grapnel_average_create(__VA_ARGS__, GRAPNEL_TEXT, tensors, NULL, &average)
  REQUIRE_BAD(AVERAGE(NULL, 1), "config: must not be null");
  REQUIRE_BAD(AVERAGE("x", kHuge), "config_size");
  REQUIRE_BAD(AVERAGE("x", SIZE_MAX), "config_size");
  REQUIRE_BAD(AVERAGE(TEXT("interval: 0")), "config: interval");
  REQUIRE_BAD(AVERAGE(TEXT("device: 'moon'")), "config: device");
  REQUIRE_BAD(grapnel_average_create(NULL, 0, 0, tensors, NULL, &average),
              "encoding");
  REQUIRE_BAD(
      grapnel_average_create(NULL, 0, GRAPNEL_TEXT, NULL, NULL, &average),
      "parameters");
  REQUIRE_BAD(
      grapnel_average_create(NULL, 0, GRAPNEL_TEXT, tensors, NULL, NULL),
      "out");
  REQUIRE_BAD(
      grapnel_average_create(NULL, 0, GRAPNEL_TEXT, integers, NULL, &average),
      "parameter \"n\"");
  REQUIRE_BAD(
      grapnel_average_create(NULL, 0, GRAPNEL_TEXT, tensors, tensors, &average),
      "\"w\" is there twice");
  REQUIRE(average == NULL);

  REQUIRE_BAD(grapnel_average_update(NULL), "average");
  REQUIRE_BAD(grapnel_average_swap_in(NULL), "average");
  REQUIRE_BAD(grapnel_average_swap_out(NULL), "average");
  REQUIRE_BAD(grapnel_average_state(NULL, tensors), "average");
  REQUIRE_BAD(grapnel_average_load_state(NULL, tensors, 0), "average");
  REQUIRE(grapnel_average_steps(NULL) == 0);
  REQUIRE_OK(AVERAGE(NULL, 0));
  REQUIRE_BAD(grapnel_average_state(average, NULL), "state");
  REQUIRE_BAD(grapnel_average_load_state(average, NULL, 0), "state");
  REQUIRE_BAD(grapnel_average_load_state(average, tensors, -1), "steps");
  REQUIRE_BAD(grapnel_average_load_state(average, integers, 1), "state");
  REQUIRE(grapnel_average_steps(average) == 0);
  grapnel_average_destroy(average);
  grapnel_tensors_destroy(tensors);
  grapnel_tensors_destroy(integers);
}

int main(void) {
  TestStatus();
  TestBytes();
  TestTensorCreate();
  TestTensors();
  TestNamedTensors();
  TestScalars();
  TestCheckpoints();
  TestSafetensors();
  TestSchedulers();
  TestAverages();
  REQUIRE_BAD(grapnel_registered_configs(NULL), "names");
  /* What nothing is to be done to. */
  grapnel_bytes_clear(NULL);
  grapnel_checkpoint_destroy(NULL);
  grapnel_set_log_callback(NULL, NULL);
  REQUIRE(grapnel_live_objects() == 0);
  return 0;
}
