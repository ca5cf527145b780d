/* The C API of Grapnel: training runs for LibTorch models, and their parts.
 *
 * Conventions, which no function repeats:
 *
 *  1. Errors. A function that can fail returns a grapnel_status*: NULL if it
 *     succeeded, else an error that the caller destroys. Outputs are written on
 *     success only. There is no per-thread or global error state.
 *
 *  2. Ownership. `grapnel_x_create`, `_open` and outputs named `out` give the
 *     caller an object to destroy with `grapnel_x_destroy`, which accepts NULL.
 *     Outputs that are const are borrowed from the object they came from.
 *     Arguments are borrowed for the call unless their comment says "taken";
 *     what is taken is taken on success only: after an error the caller still
 *     owns it.
 *
 *  3. Strings and bytes come in as a pointer and a size, UTF-8 where they are
 *     text, not NUL-terminated; with size 0 the pointer is not read and may be
 *     NULL. They go out NUL-terminated, in a grapnel_bytes of the caller's, or
 *     as a const char* that lives as long as the object it came from.
 *
 *  4. Threads. A function may be called from any thread, but not on one object
 *     by two threads at once, unless its comment says "any time". Distinct
 *     objects are independent; but steps of TorchScript models, the creation
 *     of runners and that of predictors wait for one another, in all of the
 *     process, and no other thread is to draw from LibTorch's default generator
 *     meanwhile: it is the run's then. A call on a runner while another call on
 *     it is going on, from one of its callbacks for example, is
 *     GRAPNEL_FAILED_PRECONDITION. Callbacks run on the thread that called into
 *     the library, never two at once for one runner, unless said otherwise.
 *
 *  5. Callbacks get the `user_data` given with them. They must not unwind into
 *     the library: no C++ exception, panic or longjmp. An error that one
 *     returns is taken, and ends the call that it was part of with that
 *     message. What a callback is handed, it has until it returns; tensors of
 *     batches and predictions are to be read only.
 *
 *  6. Pointer arguments are not NULL unless said so here or at the function. A
 *     NULL, a bad enum value or a callback struct that is too small is
 *     GRAPNEL_INVALID_ARGUMENT where there is a status to say so; functions
 *     without one give 0 or NULL.
 *
 *  7. Compatibility. Within a major version the library only adds: functions,
 *     enum values, and fields at the end of structs that begin with
 *     struct_size. Behaviour is configured by protocol buffers, which evolve by
 *     their own rules, so that this header seldom has to.
 *
 *  8. The process. The library leaves its host's signal handlers,
 *     floating-point modes, locale, OpenMP settings and LibTorch's default
 *     random generator as they are. With a log callback set it writes to no
 *     file descriptor that it was not given; without, warnings go to stderr.
 */
#ifndef GRAPNEL_GRAPNEL_H_
#define GRAPNEL_GRAPNEL_H_

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define GRAPNEL_API __attribute__((visibility("default")))
#define GRAPNEL_MUST_USE __attribute__((warn_unused_result))
#else
#define GRAPNEL_API
#define GRAPNEL_MUST_USE
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Version ------------------------------------------------------------ */

#define GRAPNEL_VERSION_MAJOR 0
#define GRAPNEL_VERSION_MINOR 1

/* (major << 16) | minor of the library that is running. A caller built for
 * major.minor works with a library of that major and at least that minor. */
GRAPNEL_API uint32_t grapnel_version(void);

/* One line for a bug report: versions of Grapnel, LibTorch and protobuf. Lives
 * as long as the process. */
GRAPNEL_API const char* grapnel_build_info(void);

/* Any time. Objects of this API that are alive, those in work too: a leak test
 * ends with 0. */
GRAPNEL_API int64_t grapnel_live_objects(void);

/* ---- Status ------------------------------------------------------------- */

/* Values are those of absl::StatusCode and google.rpc.Code. More may come. */
typedef int32_t grapnel_code;
enum {
  GRAPNEL_OK = 0,
  GRAPNEL_CANCELLED = 1,
  GRAPNEL_UNKNOWN = 2,
  GRAPNEL_INVALID_ARGUMENT = 3,
  GRAPNEL_DEADLINE_EXCEEDED = 4,
  GRAPNEL_NOT_FOUND = 5,
  GRAPNEL_ALREADY_EXISTS = 6,
  GRAPNEL_PERMISSION_DENIED = 7,
  GRAPNEL_RESOURCE_EXHAUSTED = 8,
  GRAPNEL_FAILED_PRECONDITION = 9,
  GRAPNEL_ABORTED = 10,
  GRAPNEL_OUT_OF_RANGE = 11,
  GRAPNEL_UNIMPLEMENTED = 12,
  GRAPNEL_INTERNAL = 13,
  GRAPNEL_UNAVAILABLE = 14,
  GRAPNEL_DATA_LOSS = 15,
  GRAPNEL_UNAUTHENTICATED = 16
};

/* An error. Immutable, so it may be read by many threads. */
typedef struct grapnel_status grapnel_status;

/* For callbacks that fail. Returns NULL for GRAPNEL_OK; a code that there isn't
 * is GRAPNEL_UNKNOWN. */
GRAPNEL_API grapnel_status* grapnel_status_create(grapnel_code code,
                                                  const char* message,
                                                  size_t message_size);
/* `status` may be NULL, which is GRAPNEL_OK and "". The message lives as long
 * as the status. */
GRAPNEL_API grapnel_code grapnel_status_code(const grapnel_status* status);
GRAPNEL_API const char* grapnel_status_message(const grapnel_status* status);
GRAPNEL_API void grapnel_status_destroy(grapnel_status* status);

/* ---- Bytes -------------------------------------------------------------- */

/* Bytes owned by the library's allocator, with a NUL past the end. Zero-
 * initialize before first use; clear after last use. */
typedef struct grapnel_bytes {
  char* data; /* NULL if never assigned. */
  size_t size;
} grapnel_bytes;

/* Replaces the contents by a copy of data[0, size). */
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_bytes_assign(
    grapnel_bytes* bytes, const void* data, size_t size);
GRAPNEL_API void grapnel_bytes_clear(grapnel_bytes* bytes);

/* ---- Log ---------------------------------------------------------------- */

typedef int32_t grapnel_severity;
enum { GRAPNEL_INFO = 0, GRAPNEL_WARNING = 1, GRAPNEL_ERROR = 2 };

/* A line without its end. */
typedef void (*grapnel_log_callback)(void* user_data, grapnel_severity severity,
                                     const char* message, size_t message_size);

/* Any time. Sends what the library has to say outside of runs to `callback`
 * instead of stderr, until it is set anew; NULL goes back to stderr. Unlike
 * other callbacks it is called on any thread, several at once, and may come
 * until a call that replaces it has returned, but for one from within a log
 * callback. */
GRAPNEL_API void grapnel_set_log_callback(grapnel_log_callback callback,
                                          void* user_data);

/* ---- Tensors ------------------------------------------------------------ */

typedef int32_t grapnel_dtype;
enum {
  GRAPNEL_BOOL = 1,
  GRAPNEL_UINT8 = 2,
  GRAPNEL_INT32 = 3,
  GRAPNEL_INT64 = 4,
  GRAPNEL_FLOAT16 = 5,
  GRAPNEL_BFLOAT16 = 6,
  GRAPNEL_FLOAT32 = 7,
  GRAPNEL_FLOAT64 = 8,
  GRAPNEL_INT8 = 9,
  GRAPNEL_INT16 = 10
};

/* A reference to a tensor on any device. */
typedef struct grapnel_tensor grapnel_tensor;

/* Copies row-major elements in host memory: data[0, size), where size is the
 * product of shape[0, rank) times the element size. `shape` may be NULL for
 * rank 0, which is one element. */
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_tensor_create(
    grapnel_dtype dtype, const int64_t* shape, int32_t rank, const void* data,
    size_t size, grapnel_tensor** out);

/* Another reference to the same memory. */
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_tensor_share(
    const grapnel_tensor* tensor, grapnel_tensor** out);

/* Copies the elements to host memory, row-major, waiting for the device. `size`
 * is the tensor's number of elements times the element size. */
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_tensor_read(
    const grapnel_tensor* tensor, void* data, size_t size);

/* The other way round: into the tensor's memory. */
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_tensor_write(
    grapnel_tensor* tensor, const void* data, size_t size);

/* Shares memory through DLPack 1.x, no copy. `dlpack` is taken: its deleter
 * runs once, when the last reference to the memory goes, on any thread. Work
 * that writes the memory must have finished on the device. The memory of a
 * read-only one is not written by this library as long as the tensor is used
 * where it only reads: data, gradients, inputs; grapnel_tensor_write and
 * grapnel_average_swap_in refuse it. Elements aren't looked at: a bool must
 * be 0 or 1. Types are those of grapnel_dtype; memory
 * is the host's or, with a LibTorch that has CUDA, a CUDA device's. */
struct DLManagedTensorVersioned; /* <dlpack/dlpack.h> */
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_tensor_from_dlpack(
    struct DLManagedTensorVersioned* dlpack, grapnel_tensor** out);
/* The caller calls the deleter of `*out`. */
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_tensor_to_dlpack(
    const grapnel_tensor* tensor, struct DLManagedTensorVersioned** out);

/* 0 for a dtype that has no value here: a complex one for example. */
GRAPNEL_API grapnel_dtype grapnel_tensor_dtype(const grapnel_tensor* tensor);
/* The number of dimensions. */
GRAPNEL_API int32_t grapnel_tensor_rank(const grapnel_tensor* tensor);
/* rank sizes. Lives as long as the tensor. */
GRAPNEL_API const int64_t* grapnel_tensor_shape(const grapnel_tensor* tensor);
/* The number of elements. */
GRAPNEL_API int64_t grapnel_tensor_numel(const grapnel_tensor* tensor);
/* The elements, if they lie in host memory, row-major and without gaps; else
 * NULL. For reading, and for writing where the caller may write. */
GRAPNEL_API void* grapnel_tensor_data(const grapnel_tensor* tensor);
/* Lets go of this reference. */
GRAPNEL_API void grapnel_tensor_destroy(grapnel_tensor* tensor);

/* Named tensors, in order: a sample, a batch, a model's weights. */
typedef struct grapnel_tensors grapnel_tensors;

GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_tensors_create(
    grapnel_tensors** out);
/* `tensor` is taken. GRAPNEL_ALREADY_EXISTS if the name is there. */
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_tensors_add(
    grapnel_tensors* tensors, const char* name, size_t name_size,
    grapnel_tensor* tensor);
/* The same with a copy of elements, as in grapnel_tensor_create. */
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_tensors_add_copy(
    grapnel_tensors* tensors, const char* name, size_t name_size,
    grapnel_dtype dtype, const int64_t* shape, int32_t rank, const void* data,
    size_t size);
/* A new tensor, for the caller to write: *data, row-major, lives as long as the
 * tensor, and its elements have no values before. Those of a GRAPNEL_BOOL are 0
 * or 1. Saves the copy. */
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_tensors_add_new(
    grapnel_tensors* tensors, const char* name, size_t name_size,
    grapnel_dtype dtype, const int64_t* shape, int32_t rank, void** data);
/* How many there are. */
GRAPNEL_API int64_t grapnel_tensors_size(const grapnel_tensors* tensors);
/* NULL for an index that there isn't. */
GRAPNEL_API const char* grapnel_tensors_name(const grapnel_tensors* tensors,
                                             int64_t index);
GRAPNEL_API const grapnel_tensor* grapnel_tensors_at(
    const grapnel_tensors* tensors, int64_t index);
/* NULL if there is none of that name. */
GRAPNEL_API const grapnel_tensor* grapnel_tensors_find(
    const grapnel_tensors* tensors, const char* name, size_t name_size);
GRAPNEL_API void grapnel_tensors_clear(grapnel_tensors* tensors);
GRAPNEL_API void grapnel_tensors_destroy(grapnel_tensors* tensors);

/* Named numbers, in order: metrics, losses, the record of an iteration. */
typedef struct grapnel_scalars grapnel_scalars;

GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_scalars_create(
    grapnel_scalars** out);
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_scalars_add(
    grapnel_scalars* scalars, const char* name, size_t name_size, double value);
GRAPNEL_API int64_t grapnel_scalars_size(const grapnel_scalars* scalars);
GRAPNEL_API const char* grapnel_scalars_name(const grapnel_scalars* scalars,
                                             int64_t index);
/* NaN for an index that there isn't. */
GRAPNEL_API double grapnel_scalars_value(const grapnel_scalars* scalars,
                                         int64_t index);
/* GRAPNEL_NOT_FOUND if there is none of that name. */
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_scalars_find(
    const grapnel_scalars* scalars, const char* name, size_t name_size,
    double* value);
GRAPNEL_API void grapnel_scalars_clear(grapnel_scalars* scalars);
GRAPNEL_API void grapnel_scalars_destroy(grapnel_scalars* scalars);

/* ---- Configurations ----------------------------------------------------- */

/* Encodings of a protocol buffer. */
typedef int32_t grapnel_encoding;
enum { GRAPNEL_BINARY = 1, GRAPNEL_TEXT = 2, GRAPNEL_JSON = 3 };

/* The full names of the config messages of all that is linked in: models,
 * layers, losses, metrics, datasets, transforms, optimizers, schedulers,
 * averages, log backends and hooks. Sorted, a line each. */
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_registered_configs(
    grapnel_bytes* names);

/* ---- A run, as its hooks see it ----------------------------------------- */

/* Where hooks act; runner/stage.h draws where each is in the loop. */
typedef int32_t grapnel_stage;
enum {
  GRAPNEL_SETUP = 0,
  GRAPNEL_BEFORE_RUN = 1,
  GRAPNEL_AFTER_LOAD_CHECKPOINT = 2,
  GRAPNEL_AFTER_RESTORE = 3,
  GRAPNEL_BEFORE_TRAIN = 4,
  GRAPNEL_BEFORE_TRAIN_EPOCH = 5,
  GRAPNEL_BEFORE_TRAIN_ITER = 6,
  GRAPNEL_BEFORE_OPTIMIZER_STEP = 7,
  GRAPNEL_AFTER_OPTIMIZER_STEP = 8,
  GRAPNEL_AFTER_TRAIN_ITER = 9,
  GRAPNEL_AFTER_TRAIN_EPOCH = 10,
  GRAPNEL_BEFORE_VAL = 11,
  GRAPNEL_BEFORE_VAL_EPOCH = 12,
  GRAPNEL_BEFORE_VAL_ITER = 13,
  GRAPNEL_AFTER_VAL_ITER = 14,
  GRAPNEL_AFTER_VAL_EPOCH = 15,
  GRAPNEL_AFTER_VAL = 16,
  GRAPNEL_BEFORE_TEST = 17,
  GRAPNEL_BEFORE_TEST_EPOCH = 18,
  GRAPNEL_BEFORE_TEST_ITER = 19,
  GRAPNEL_AFTER_TEST_ITER = 20,
  GRAPNEL_AFTER_TEST_EPOCH = 21,
  GRAPNEL_AFTER_TEST = 22,
  GRAPNEL_BEFORE_SAVE_CHECKPOINT = 23,
  GRAPNEL_AFTER_SAVE_CHECKPOINT = 24,
  GRAPNEL_BEFORE_EXPORT = 25,
  GRAPNEL_AFTER_EXPORT = 26,
  GRAPNEL_AFTER_TRAIN = 27,
  GRAPNEL_ON_ERROR = 28, /* Also of a stop at once and of train_until, with
                          * GRAPNEL_CANCELLED. An error that it returns is
                          * logged. */
  GRAPNEL_AFTER_RUN = 29
};

/* Which loop. */
typedef int32_t grapnel_mode;
enum { GRAPNEL_TRAIN = 0, GRAPNEL_VAL = 1, GRAPNEL_TEST = 2 };

/* Where training ends that is asked to stop; see runner/run_context.h. */
typedef int32_t grapnel_stop;
enum { GRAPNEL_STOP_AFTER_EPOCH = 0, GRAPNEL_STOP_NOW = 1 };

/* Lives as long as the call it is handed to. */
typedef struct grapnel_run grapnel_run;

/* Completed ones: during an iteration's hooks it isn't counted yet. */
GRAPNEL_API int64_t grapnel_run_epoch(const grapnel_run* run);
GRAPNEL_API int64_t grapnel_run_iter(const grapnel_run* run);
GRAPNEL_API int64_t grapnel_run_max_epochs(const grapnel_run* run);
GRAPNEL_API int64_t grapnel_run_max_iters(const grapnel_run* run);
/* The loop that is running. */
GRAPNEL_API grapnel_mode grapnel_run_mode(const grapnel_run* run);
/* 1 from BEFORE_TRAIN to AFTER_TRAIN, validation included; else 0. */
GRAPNEL_API int32_t grapnel_run_training(const grapnel_run* run);
/* At points of an iteration: its place in the loop, from 0, and how many there
 * are. -1 elsewhere. */
GRAPNEL_API int64_t grapnel_run_batch_idx(const grapnel_run* run);
GRAPNEL_API int64_t grapnel_run_num_batches(const grapnel_run* run);

/* Among the processes that train together, as the config's `launcher` found
 * them: 0 to world_size - 1. 0 of 1 where the process trains alone. */
GRAPNEL_API int32_t grapnel_run_rank(const grapnel_run* run);
GRAPNEL_API int32_t grapnel_run_world_size(const grapnel_run* run);
/* 1 on the rank that writes files and logs; else 0. A hook is called on every
 * rank and is to do the same on each, but for this: one that writes a file of
 * its own asks first. Checkpoints, log lines and records are written once
 * whoever asks for them. */
GRAPNEL_API int32_t grapnel_run_is_master(const grapnel_run* run);

/* At points of an iteration: the batch, "input", "target" and extras, each
 * (N, ...). GRAPNEL_FAILED_PRECONDITION at others, as for those below. */
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_run_batch(
    grapnel_run* run, const grapnel_tensors** batch);
/* At AFTER_TRAIN_ITER: what the step gave to log. Waits for the device. */
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_run_log_vars(
    grapnel_run* run, const grapnel_scalars** log_vars);
/* At AFTER_VAL_ITER and AFTER_TEST_ITER: "output", and the losses by name. */
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_run_predictions(
    grapnel_run* run, const grapnel_tensors** predictions);
/* At AFTER_VAL_EPOCH and AFTER_TEST_EPOCH; those that are texts are left out.
 */
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_run_metrics(
    grapnel_run* run, const grapnel_scalars** metrics);
/* At AFTER_SAVE_CHECKPOINT: its path. */
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_run_saved_path(
    grapnel_run* run, const char** path);
/* At ON_ERROR: what the run failed with. Borrowed. */
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_run_error(
    grapnel_run* run, const grapnel_status** error);
/* The model's parameter or buffer of that name, not copied: writing it writes
 * the model. Take it anew for each write, so that others notice. The caller
 * destroys the reference. */
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_run_tensor(
    grapnel_run* run, const char* name, size_t name_size, grapnel_tensor** out);

/* The newest value of a history of the message hub, "train/loss"; or
 * GRAPNEL_NOT_FOUND. Waits for the device. */
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_run_scalar(
    grapnel_run* run, const char* name, size_t name_size, double* value);
/* Adds to one, which is logged and written to records as the others are. */
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_run_add_scalar(
    grapnel_run* run, const char* name, size_t name_size, double value);

/* Saves once all hooks of this point have run. At AFTER_TRAIN_ITER,
 * AFTER_TRAIN_EPOCH, AFTER_VAL_EPOCH in training and AFTER_TRAIN. */
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_run_save(grapnel_run* run,
                                                              const char* name,
                                                              size_t name_size);
/* Ends training, which then has come out well. The first reason is kept, but
 * that of GRAPNEL_STOP_NOW takes the place of one after the epoch. */
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_run_request_stop(
    grapnel_run* run, grapnel_stop at, const char* reason, size_t reason_size);
/* A line of the run's log. */
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_run_log(
    grapnel_run* run, grapnel_severity severity, const char* message,
    size_t message_size);

/* ---- What runs can be made of ------------------------------------------- */

typedef struct grapnel_hook_callbacks {
  size_t struct_size; /* sizeof(grapnel_hook_callbacks) */

  /* Bit (uint64_t)1 << s is set for each stage s to be called at. Others cost
   * nothing. */
  uint64_t stages;
  int32_t priority; /* 0 first, 100 last; 50 is normal. */

  grapnel_status* (*on_stage)(void* user_data, grapnel_stage stage,
                              grapnel_run* run);

  /* What to keep in checkpoints. NULL, both, for nothing. load_state gets
   * what save_state gave, and nothing, size 0, if the checkpoint has none. Both
   * are called for evaluations too: one in training that is cut short, and one
   * between two steps, leave the state as it was before. Of several ranks the
   * state of rank 0 is kept, and all get it. */
  grapnel_status* (*save_state)(void* user_data, grapnel_bytes* state);
  grapnel_status* (*load_state)(void* user_data, const void* state,
                                size_t state_size);

  void (*destroy)(void* user_data); /* Once. May be NULL. */
} grapnel_hook_callbacks;

/* Samples by position; batches, shuffling, sharding and resuming are the
 * library's. With num_workers > 0 calls come from its threads, one at a time
 * unless thread_safe, ahead of the iteration that is going on. Memory that was
 * handed over is not to be written to again. */
typedef struct grapnel_dataset_callbacks {
  size_t struct_size; /* sizeof(grapnel_dataset_callbacks) */

  int64_t size;        /* Samples. Constant, >= 1. */
  int32_t thread_safe; /* 1: get and get_batch may be called at once. */

  /* Adds to `sample` the tensors of sample `index`, 0 <= index < size: "input",
   * and maybe "target" and extras of other names. May be NULL if get_batch is
   * there. */
  grapnel_status* (*get)(void* user_data, int64_t index,
                         grapnel_tensors* sample);

  /* May be NULL: several samples at once, each tensor (count, ...). An error
   * makes the loader get them one by one. */
  grapnel_status* (*get_batch)(void* user_data, const int64_t* indices,
                               size_t count, grapnel_tensors* batch);

  void (*destroy)(void* user_data); /* Once. May be NULL. */
} grapnel_dataset_callbacks;

/* Samples that come one after another, in passes, for a training by iteration;
 * batches and resuming are the library's. With num_workers: 1 calls come from a
 * thread of its own; never two at once. Nobody interrupts a call, and whoever
 * destroys the runner waits for it: a stream that waits for others gives up by
 * itself, with an error. */
typedef struct grapnel_stream_callbacks {
  size_t struct_size; /* sizeof(grapnel_stream_callbacks) */

  /* Goes to the beginning of pass `pass`, >= 0, from anywhere, also after an
   * error. Called before all else. A pass may have samples, an order and a
   * length of its own, but the same whenever it is gone through. */
  grapnel_status* (*begin_pass)(void* user_data, int64_t pass);

  /* Adds to `sample` the tensors of the next one: "input", and maybe "target"
   * and extras of other names; their memory isn't written to again. Nothing
   * added: the pass has no more, for as long as it is asked. */
  grapnel_status* (*next)(void* user_data, grapnel_tensors* sample);

  /* Where it is in its pass; called after every batch, so it should be cheap,
   * and small. load_state goes there, maybe in another process, after
   * begin_pass of that pass. NULL, both: a run that is resumed, or repeats a
   * batch that failed, reads the pass again from its beginning up to there. */
  grapnel_status* (*save_state)(void* user_data, grapnel_bytes* state);
  grapnel_status* (*load_state)(void* user_data, const void* state,
                                size_t state_size);

  void (*destroy)(void* user_data); /* Once. May be NULL. */
} grapnel_stream_callbacks;

/* A model whose gradients another engine computes. */
typedef struct grapnel_model_callbacks {
  size_t struct_size; /* sizeof(grapnel_model_callbacks) */

  /* Adds to `gradients` those of the mean loss of the batch, by the names of
   * the parameters, and to `losses` what is to be logged: the total first, as
   * "loss", if there are several. */
  grapnel_status* (*train_step)(void* user_data, const grapnel_tensors* batch,
                                grapnel_tensors* gradients,
                                grapnel_scalars* losses);

  /* Adds "output", (N, ...), to `predictions`, and to `losses` those of the
   * batch, if it has targets. May be NULL: the model can't be evaluated. */
  grapnel_status* (*val_step)(void* user_data, const grapnel_tensors* batch,
                              grapnel_tensors* predictions,
                              grapnel_scalars* losses);

  /* Before a call of the two above, if parameters or buffers have been written
   * since the last one: by a step, a load, an average that comes or goes, a
   * hook. For engines that have copies of their own. May be NULL. */
  grapnel_status* (*tensors_written)(void* user_data);

  /* 1 for training, 0 for evaluation. May be NULL. */
  void (*set_training)(void* user_data, int32_t training);

  /* Writes the model in a format of its own. May be NULL. */
  grapnel_status* (*export_model)(void* user_data, const char* path,
                                  size_t path_size);

  void (*destroy)(void* user_data); /* Once. May be NULL. */
} grapnel_model_callbacks;

typedef struct grapnel_loss_callbacks {
  size_t struct_size; /* sizeof(grapnel_loss_callbacks) */

  /* Sets *loss to the mean over the batch, and, where `grad` isn't NULL, *grad
   * to d loss / d output: a tensor of output's shape, dtype and device, which
   * is taken unless an error is returned. */
  grapnel_status* (*compute)(void* user_data, const grapnel_tensor* output,
                             const grapnel_tensors* batch, double* loss,
                             grapnel_tensor** grad);

  void (*destroy)(void* user_data); /* Once. May be NULL. */
} grapnel_loss_callbacks;

/* Not over several ranks: GRAPNEL_UNIMPLEMENTED. */
typedef struct grapnel_metric_callbacks {
  size_t struct_size; /* sizeof(grapnel_metric_callbacks) */

  /* An evaluation begins: forget everything. */
  grapnel_status* (*reset)(void* user_data);
  /* Takes a batch and what the model says of it: "output", and losses. */
  grapnel_status* (*process)(void* user_data,
                             const grapnel_tensors* predictions,
                             const grapnel_tensors* batch);
  /* Adds the values. */
  grapnel_status* (*compute)(void* user_data, grapnel_scalars* metrics);

  void (*destroy)(void* user_data); /* Once. May be NULL. */
} grapnel_metric_callbacks;

/* ---- A runner's options ------------------------------------------------- */

/* What a runner is made of. `user_data`, which may be NULL, is taken with each
 * set of callbacks. */
typedef struct grapnel_runner_options grapnel_runner_options;

GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_runner_options_create(
    grapnel_runner_options** out);
GRAPNEL_API void grapnel_runner_options_destroy(
    grapnel_runner_options* options);

/* A grapnel.runner.v1.RunnerConfig. Fields that this library does not know are
 * an error in every encoding: no run starts on half a config. */
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_runner_options_set_config(
    grapnel_runner_options* options, const void* config, size_t config_size,
    grapnel_encoding encoding);
/* From a file, whose folder is where its relative paths start. */
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status*
grapnel_runner_options_set_config_file(grapnel_runner_options* options,
                                       const char* path, size_t path_size);
/* "train_cfg.max_epochs=20", on top of the config. */
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_runner_options_override(
    grapnel_runner_options* options, const char* assignment,
    size_t assignment_size);
/* Where relative paths of the config start; "" is the process's folder. */
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status*
grapnel_runner_options_set_base_dir(grapnel_runner_options* options,
                                    const char* dir, size_t dir_size);
/* 0: train and step won't be called, so that nothing for them is opened. */
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status*
grapnel_runner_options_set_for_training(grapnel_runner_options* options,
                                        int32_t for_training);
/* How long to wait for another run in work_dir to end. */
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status*
grapnel_runner_options_set_wait_for_lock(grapnel_runner_options* options,
                                         double seconds);
/* Lines of the run's log go to this file descriptor too; -1, as at first, for
 * none. */
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status*
grapnel_runner_options_set_terminal_fd(grapnel_runner_options* options,
                                       int32_t fd);
/* Lines of the run's log go to `callback` and not to the run's log file. Called
 * on a thread of the runner's own, one line after the other; on the caller's
 * while it waits for work_dir. Of several ranks all but the first say errors
 * alone. `user_data` must live as long as the runner. */
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status*
grapnel_runner_options_set_log_callback(grapnel_runner_options* options,
                                        grapnel_log_callback callback,
                                        void* user_data);

/* Numbers of one moment, as they are written for plots: of training every few
 * iterations, as the logger hook's interval says, and of each evaluation.
 * `step` is x of a plot, of no meaning in a test. */
typedef grapnel_status* (*grapnel_record_callback)(
    void* user_data, grapnel_mode mode, int64_t step,
    const grapnel_scalars* record);
/* The run's records go to `callback` too. Called on a thread of the runner's
 * own, one record after the other; all have come when training ends, or an
 * evaluation outside of it. An error is logged, ends the calls, and not the
 * run. `user_data` must live as long as the runner. */
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status*
grapnel_runner_options_set_record_callback(grapnel_runner_options* options,
                                           grapnel_record_callback callback,
                                           void* user_data);

/* Data of a loop, in place of what the config describes. */
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_runner_options_set_dataset(
    grapnel_runner_options* options, grapnel_mode mode,
    const grapnel_dataset_callbacks* callbacks, void* user_data);
/* The same from tensors of N samples each, "input" and the like, (N, ...); they
 * are shared, not copied. */
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_runner_options_set_tensors(
    grapnel_runner_options* options, grapnel_mode mode,
    const grapnel_tensors* tensors);

/* What is trained on, in place of a dataset. train_cfg.by_epoch is false. */
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_runner_options_set_stream(
    grapnel_runner_options* options, const grapnel_stream_callbacks* callbacks,
    void* user_data);

/* In place of the config's model. `parameters` and, unless NULL, `buffers` are
 * its tensors by name, shared: the library trains them in place. They must be
 * floating, buffers may be of any dtype, and all on the run's device. */
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_runner_options_set_model(
    grapnel_runner_options* options, const grapnel_model_callbacks* callbacks,
    const grapnel_tensors* parameters, const grapnel_tensors* buffers,
    void* user_data);
/* For a model from config that has no loss there. */
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_runner_options_set_loss(
    grapnel_runner_options* options, const grapnel_loss_callbacks* callbacks,
    void* user_data);
/* Beside those of the config. `mode` is GRAPNEL_VAL or GRAPNEL_TEST. */
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_runner_options_add_metric(
    grapnel_runner_options* options, grapnel_mode mode,
    const grapnel_metric_callbacks* callbacks, void* user_data);
/* Behind those of the config. `name`, unique in the run, keys its state. */
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_runner_options_add_hook(
    grapnel_runner_options* options, const char* name, size_t name_size,
    const grapnel_hook_callbacks* callbacks, void* user_data);

/* ---- Runner ------------------------------------------------------------- */

/* One run: a model, its optimizer, hooks and data.
 *
 * With a `launcher` in its config it is one rank of a run of several processes,
 * all of which call the same functions: grapnel_runner_create returns when they
 * have met. What fails on one rank fails on all, with that rank's message,
 * "rank 1: ..."; of one that was killed the others say that it ended without a
 * message. After that only destroy the runner, and start all processes anew. */
typedef struct grapnel_runner grapnel_runner;

/* `options` is used up, also by an error: only destroy it. */
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_runner_create(
    grapnel_runner_options* options, grapnel_runner** out);
/* Not while a call on it is going on. In a callback on a thread of the
 * library's own it returns at once: another thread destroys the runner, soon
 * after. */
GRAPNEL_API void grapnel_runner_destroy(grapnel_runner* runner);

/* The config that is run, overrides and work_dir in it, with absolute paths:
 * the same run from anywhere. A field that nobody set stays unset. */
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_runner_config(
    const grapnel_runner* runner, grapnel_encoding encoding,
    grapnel_bytes* config);

/* Any time: as grapnel_run_rank and the others. */
GRAPNEL_API int32_t grapnel_runner_rank(const grapnel_runner* runner);
GRAPNEL_API int32_t grapnel_runner_world_size(const grapnel_runner* runner);
GRAPNEL_API int32_t grapnel_runner_is_master(const grapnel_runner* runner);
/* The rank among those of its machine, 0, 1, ...: for a device of its own. */
GRAPNEL_API int32_t grapnel_runner_local_rank(const grapnel_runner* runner);

/* Trains until done, stopped or failed; from where `resume` or `load_from` say,
 * or an earlier call has ended. OK if it was stopped. */
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_runner_train(
    grapnel_runner* runner);
/* One training iteration, with all that is due in it and after it. *more is 1
 * if there is more to do. Train is steps to the end, and any mixture of the two
 * is the same run. `more` may be NULL. */
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_runner_step(
    grapnel_runner* runner, int32_t* more);
/* Trains until a time, in seconds of the Unix clock, and saves. *more is 1 if
 * there is more to do; `more` may be NULL. */
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_runner_train_until(
    grapnel_runner* runner, double unix_seconds, int32_t* more);

/* One evaluation; *metrics, unless NULL, gets the values, but for texts. */
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_runner_val(
    grapnel_runner* runner, grapnel_scalars* metrics);
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_runner_test(
    grapnel_runner* runner, grapnel_scalars* metrics);
/* Writes the model to a file in its own format; GRAPNEL_UNIMPLEMENTED if it has
 * none. */
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_runner_export(
    grapnel_runner* runner, const char* path, size_t path_size);

/* Between two steps: a checkpoint of that name, "iter_100", at once. */
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_runner_save(
    grapnel_runner* runner, const char* name, size_t name_size);

/* Any time, other threads and callbacks included. */
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_runner_request_stop(
    grapnel_runner* runner, grapnel_stop at, const char* reason,
    size_t reason_size);
/* "" if nobody asked. */
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_runner_stop_reason(
    const grapnel_runner* runner, grapnel_bytes* reason);

/* Completed ones. */
GRAPNEL_API int64_t grapnel_runner_epoch(const grapnel_runner* runner);
GRAPNEL_API int64_t grapnel_runner_iter(const grapnel_runner* runner);

/* Between two calls, as these four: the newest value of a history of the
 * message hub, as grapnel_run_scalar has it. */
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_runner_scalar(
    const grapnel_runner* runner, const char* name, size_t name_size,
    double* value);
/* Names of all histories, "train/loss", "train/lr" and the like, a line each.
 * The rates of several optimizers are "train/<optimizer>.lr". */
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_runner_scalar_names(
    const grapnel_runner* runner, grapnel_bytes* names);
/* A fact of the message hub, "experiment_name", as text: a bool is "true" or
 * "false", a list "1,2,3". GRAPNEL_NOT_FOUND if there is none of that name. */
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_runner_info(
    const grapnel_runner* runner, const char* name, size_t name_size,
    grapnel_bytes* value);
/* The model's parameter or buffer of that name: a copy. Setting one copies
 * too. */
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_runner_get_tensor(
    const grapnel_runner* runner, const char* name, size_t name_size,
    grapnel_tensor** out);
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_runner_set_tensor(
    grapnel_runner* runner, const char* name, size_t name_size,
    const grapnel_tensor* value);
/* Names of the model's parameters, then of its buffers, a line each. */
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_runner_tensor_names(
    const grapnel_runner* runner, grapnel_bytes* names);
/* For people: a line for each stage where hooks act, with those in order. */
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_runner_stage_table(
    const grapnel_runner* runner, grapnel_bytes* table);
/* Where the run writes. */
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_runner_work_dir(
    const grapnel_runner* runner, grapnel_bytes* path);

/* ---- Predictors --------------------------------------------------------- */

/* Predicts with a run's weights, all of one moment, in models of its own: while
 * the run trains, and when it is gone. The run isn't disturbed. */
typedef struct grapnel_predictor grapnel_predictor;

/* Which of them. */
typedef int32_t grapnel_weights;
enum {
  /* What the run's evaluations see: the average that is evaluated, or the
   * trained ones where there is none. */
  GRAPNEL_EVALUATED = 0,
  GRAPNEL_AVERAGED = 1, /* That average; it is an error if there is none. */
  GRAPNEL_TRAINED = 2
};

/* From a checkpoint alone: nothing else of the run need be there. `path` is a
 * checkpoint, or a work_dir, for the newest one in it that can be read whole;
 * what is passed over, the log names.
 * `replicas`, >= 1, is how many predictions can be made at the same time;
 * others wait. Each needs a copy of the model. GRAPNEL_NOT_FOUND if there is no
 * checkpoint, or it hasn't those weights; GRAPNEL_INVALID_ARGUMENT also if the
 * run's model was given in code. */
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_predictor_open(
    const char* path, size_t path_size, grapnel_weights weights,
    int32_t replicas, grapnel_predictor** out);
/* Any time: with the run's weights of now, taken as by
 * grapnel_predictor_refresh, or with none before it has loaded what it begins
 * with. GRAPNEL_INVALID_ARGUMENT also if the run's model was given in code. The
 * runner may be destroyed before it. Not from a callback on a thread of the
 * library, as for grapnel_predictor_refresh. */
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_runner_predictor(
    grapnel_runner* runner, grapnel_weights weights, int32_t replicas,
    grapnel_predictor** out);
/* Not while a call on it is going on. */
GRAPNEL_API void grapnel_predictor_destroy(grapnel_predictor* predictor);

/* Any time. Takes newer weights; predictions that have begun end with theirs.
 * After an error those before stay.
 *
 * Of a path: what is there now.
 *
 * Of a runner: as they are now. While a call on it is going on, as they are
 * after the next training iteration, or where the call ends; waits for it, so
 * not in a callback that comes on a thread of the library's own, which the call
 * may be waiting for. In one on the thread of the call: at once. In an
 * evaluation of a run with an average the trained ones are
 * GRAPNEL_FAILED_PRECONDITION there; so is everything before the run has loaded
 * what it begins with, and once the runner is gone. */
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_predictor_refresh(
    grapnel_predictor* predictor);

/* Any time, by several threads at once. Outputs (N, ...) for inputs (N, ...):
 * those that the run's validation would have with these weights, to the bit.
 * GRAPNEL_INVALID_ARGUMENT if they aren't of the shape of the run's data;
 * GRAPNEL_FAILED_PRECONDITION if there are no weights yet. */
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_predictor_predict(
    grapnel_predictor* predictor, const grapnel_tensor* inputs,
    grapnel_tensor** out);

/* Any time. Completed iterations of the run when the weights were taken that
 * the next prediction is made with; 0 if there are none yet. */
GRAPNEL_API int64_t grapnel_predictor_iter(const grapnel_predictor* predictor);

/* ---- Checkpoints, without a runner -------------------------------------- */

/* Names of the complete checkpoints in a folder, the newest first, a line
 * each. */
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_checkpoint_list(
    const char* dir, size_t dir_size, grapnel_bytes* names);
/* The path of the newest one that can be read whole, as `resume` finds it;
 * GRAPNEL_NOT_FOUND if there is none. What is passed over, the log names. */
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_checkpoint_latest(
    const char* dir, size_t dir_size, grapnel_bytes* path);
/* Reads all of it and checks every digest: GRAPNEL_DATA_LOSS, naming the file,
 * if one is wrong. */
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_checkpoint_verify(
    const char* path, size_t path_size);

/* One that is read, all of it. */
typedef struct grapnel_checkpoint grapnel_checkpoint;

GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_checkpoint_open(
    const char* path, size_t path_size, grapnel_checkpoint** out);
GRAPNEL_API void grapnel_checkpoint_destroy(grapnel_checkpoint* checkpoint);
/* Completed ones when it was made. */
GRAPNEL_API int64_t
grapnel_checkpoint_epoch(const grapnel_checkpoint* checkpoint);
GRAPNEL_API int64_t
grapnel_checkpoint_iter(const grapnel_checkpoint* checkpoint);
/* The grapnel.io.v1.CheckpointManifest. */
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_checkpoint_manifest(
    const grapnel_checkpoint* checkpoint, grapnel_encoding encoding,
    grapnel_bytes* manifest);
/* Names of its sections of tensors, "model", "optimizer", "ema" and the like, a
 * line each. */
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_checkpoint_sections(
    const grapnel_checkpoint* checkpoint, grapnel_bytes* names);
/* GRAPNEL_NOT_FOUND if there is none of that name. */
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_checkpoint_tensors(
    const grapnel_checkpoint* checkpoint, const char* section,
    size_t section_size, const grapnel_tensors** tensors);

/* ---- Files of safetensors ----------------------------------------------- */

/* Adds the file's tensors, in its order. */
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_safetensors_read(
    const char* path, size_t path_size, grapnel_tensors* tensors);
/* The file is there whole, or as it was before. */
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_safetensors_write(
    const char* path, size_t path_size, const grapnel_tensors* tensors);

/* ---- Schedulers, without a runner --------------------------------------- */

/* Moves numbers of the caller's, learning rates for example. */
typedef struct grapnel_scheduler grapnel_scheduler;

/* `config` is a grapnel.optim.v1.ParamSchedulerConfig. `values`: pointers to
 * num_values numbers, one for each parameter group, which outlive the scheduler
 * and hold the values to start from. Which option of an optimizer they are, the
 * config says; none is written before grapnel_scheduler_apply. `max_epochs` and
 * `max_iters`: how long the training is, -1 if it isn't known; an epoch's
 * length follows from both. */
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_scheduler_create(
    const void* config, size_t config_size, grapnel_encoding encoding,
    double* const* values, size_t num_values, int64_t max_epochs,
    int64_t max_iters, grapnel_scheduler** out);
GRAPNEL_API void grapnel_scheduler_destroy(grapnel_scheduler* scheduler);
/* Writes the values of step 0. */
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_scheduler_apply(
    grapnel_scheduler* scheduler);
/* An epoch, or an iteration, as the config says, is over. */
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_scheduler_step(
    grapnel_scheduler* scheduler);
/* For one that follows a metric, reduce_on_plateau: its value, of a validation,
 * after the step of the epoch. */
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_scheduler_step_metric(
    grapnel_scheduler* scheduler, double value);
/* Without the values, which are the caller's to save, and to set before the
 * state is loaded. */
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_scheduler_save_state(
    const grapnel_scheduler* scheduler, grapnel_bytes* state);
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_scheduler_load_state(
    grapnel_scheduler* scheduler, const void* state, size_t state_size);

/* ---- Averaged models, without a runner ---------------------------------- */

/* A running average of the caller's tensors. */
typedef struct grapnel_average grapnel_average;

/* `config` is a grapnel.optim.v1.AveragedModelConfig. The tensors are shared.
 * `buffers` may be NULL. */
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_average_create(
    const void* config, size_t config_size, grapnel_encoding encoding,
    const grapnel_tensors* parameters, const grapnel_tensors* buffers,
    grapnel_average** out);
/* Swaps out first. */
GRAPNEL_API void grapnel_average_destroy(grapnel_average* average);
/* Takes the present values in. */
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_average_update(
    grapnel_average* average);
/* How many updates there were. */
GRAPNEL_API int64_t grapnel_average_steps(const grapnel_average* average);
/* Exchanges the caller's values with the averages, and back. */
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_average_swap_in(
    grapnel_average* average);
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_average_swap_out(
    grapnel_average* average);
/* Adds the averages, shared: read them before the next update, swap_in or
 * swap_out. */
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_average_state(
    const grapnel_average* average, grapnel_tensors* state);
/* Copies saved averages and their number of updates back. */
GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_average_load_state(
    grapnel_average* average, const grapnel_tensors* state, int64_t steps);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* GRAPNEL_GRAPNEL_H_ */
