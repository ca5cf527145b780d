// A small run of a program in C: data, and a hook with a state, by callbacks.

#ifndef GRAPNEL_TESTS_CAPI_RUNS_GUEST_H_
#define GRAPNEL_TESTS_CAPI_RUNS_GUEST_H_

#include <stdint.h>

#include "grapnel/grapnel.h"
#include "grapnel/tests/capi/runs/text.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct guest_plan {
  const char* work_dir;
  int64_t max_iters;
  int64_t seed;
  int64_t num_workers;
  int64_t interval;  // Iterations between validations, and between saves.
  int resume;
  const char* extra;  // Of the config, behind the rest. May be NULL.
  // The callback that fails, "get", "get_batch", "on_stage", "save_state" or
  // "load_state", from its call number failing_from, from 0. May be NULL. For
  // "get" there is no get_batch.
  const char* failing;
  int64_t failing_from;
} guest_plan;

// What the hook keeps in checkpoints.
typedef struct guest_state {
  int64_t iters;
  double sum;  // Of their losses.
} guest_state;

// Zero-initialize before first use; the address is user data.
typedef struct guest {
  grapnel_runner* runner;
  guest_state state;
  text error;     // What an API call failed with; empty if none did.
  int64_t lines;  // Of the run's log.
  int64_t calls;  // Of the callback that fails.
  int taken;      // How often this is user data,
  int destroyed;  // and how often it was destroyed as such.
  guest_plan plan;
} guest;

// Each returns 1 if it went well.
int guest_create(const guest_plan* plan, guest* it);
int guest_step(guest* it, int32_t* more);
int guest_train(guest* it);
int guest_validate(guest* it);
// Appends name and bytes of each tensor, then the hook's state.
int guest_read(guest* it, text* outcome);
// Of the runner, and of the texts.
void guest_destroy(guest* it);

#ifdef __cplusplus
}  // extern "C"
#endif

#endif  // GRAPNEL_TESTS_CAPI_RUNS_GUEST_H_
