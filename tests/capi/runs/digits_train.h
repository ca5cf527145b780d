// A training of examples/digits by the C API alone, in C.

#ifndef GRAPNEL_TESTS_CAPI_RUNS_DIGITS_TRAIN_H_
#define GRAPNEL_TESTS_CAPI_RUNS_DIGITS_TRAIN_H_

#include <stdint.h>

#include "grapnel/tests/capi/runs/text.h"

#ifdef __cplusplus
extern "C" {
#endif

// What is trained, as text; without data and work_dir.
extern const char digits_config[];

// The checkpoint that the hook asks for after the second epoch.
extern const char digits_extra_save[];

// What a hook sees at a mount point.
typedef struct digits_event {
  const char* stage;  // "after_train_iter"
  int64_t epoch, iter, max_epochs, max_iters;
  int mode;
  int training;
  int64_t batch_idx, num_batches;  // -1 where there is no iteration.
} digits_event;

// How an event is written down, and what goes with one: a value that has to be
// the same to the bit.
void digits_note(text* trace, const digits_event* event);
void digits_note_number(text* trace, const char* name, double value);
void digits_note_text(text* trace, const char* name, const char* value);

typedef struct digits_plan {
  const char* data_dir;  // Where the files of examples/digits are.
  const char* work_dir;
  // Steps before the rest is trained in one call; all of it by steps if < 0.
  int64_t steps;
  // After those steps the runner is dropped, and another one resumes.
  int resume;
  // Then: an evaluation, training until a time that is past, an evaluation, and
  // training until a time that doesn't come.
  int mixture;
} digits_plan;

// Zero-initialize before, clear after use.
typedef struct digits_outcome {
  text error;    // What an API call failed with; empty if none did.
  text trace;    // Of the hook.
  text weights;  // Name and bytes of each tensor.
  text metrics;  // Of a validation at the end.
  int64_t log_lines;
  int destroyed;  // How often user data was.
} digits_outcome;

void digits_train(const digits_plan* plan, digits_outcome* outcome);
void digits_outcome_clear(digits_outcome* outcome);

#ifdef __cplusplus
}  // extern "C"
#endif

#endif  // GRAPNEL_TESTS_CAPI_RUNS_DIGITS_TRAIN_H_
