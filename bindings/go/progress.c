#include "progress.h"

#include <stdatomic.h>
#include <stdlib.h>

struct grapnel_go_progress {
  atomic_int owners;
  _Atomic int64_t epoch;
  _Atomic int64_t iter;
  atomic_int cancel;
};

grapnel_go_progress* grapnel_go_progress_create(void) {
  grapnel_go_progress* const progress = calloc(1, sizeof(*progress));
  if (progress != NULL) atomic_store(&progress->owners, 1);
  return progress;
}

void grapnel_go_progress_release(grapnel_go_progress* progress) {
  if (progress != NULL && atomic_fetch_sub(&progress->owners, 1) == 1) {
    free(progress);
  }
}

static void release(void* progress) { grapnel_go_progress_release(progress); }

static grapnel_status* on_stage(void* user_data, grapnel_stage stage,
                                grapnel_run* run) {
  static const char done[] = "the context is done";
  grapnel_go_progress* const progress = user_data;
  switch (stage) {
    case GRAPNEL_AFTER_TRAIN_ITER:
      atomic_store(&progress->iter, grapnel_run_iter(run) + 1);
      return NULL;
    case GRAPNEL_AFTER_TRAIN_EPOCH:
      atomic_store(&progress->epoch, grapnel_run_epoch(run) + 1);
      return NULL;
    case GRAPNEL_AFTER_RESTORE:
      atomic_store(&progress->epoch, grapnel_run_epoch(run));
      atomic_store(&progress->iter, grapnel_run_iter(run));
      return NULL;
    default:
      if (atomic_load(&progress->cancel) == 0) return NULL;
      return grapnel_status_create(GRAPNEL_CANCELLED, done, sizeof(done) - 1);
  }
}

grapnel_status* grapnel_go_progress_add(grapnel_go_progress* progress,
                                        grapnel_runner_options* options) {
  static const char name[] = "go_progress";
  const uint64_t bit = 1;
  const grapnel_hook_callbacks callbacks = {
      .struct_size = sizeof(callbacks),
      .stages = bit << GRAPNEL_AFTER_RESTORE | bit << GRAPNEL_AFTER_TRAIN_ITER |
                bit << GRAPNEL_AFTER_TRAIN_EPOCH |
                bit << GRAPNEL_BEFORE_VAL_ITER |
                bit << GRAPNEL_BEFORE_TEST_ITER,
      .priority = 100,
      .on_stage = on_stage,
      .destroy = release,
  };
  atomic_fetch_add(&progress->owners, 1);
  grapnel_status* const status = grapnel_runner_options_add_hook(
      options, name, sizeof(name) - 1, &callbacks, progress);
  if (status != NULL) grapnel_go_progress_release(progress);
  return status;
}

void grapnel_go_progress_set(grapnel_go_progress* progress,
                             const grapnel_runner* runner) {
  atomic_store(&progress->epoch, grapnel_runner_epoch(runner));
  atomic_store(&progress->iter, grapnel_runner_iter(runner));
}

int64_t grapnel_go_progress_epoch(const grapnel_go_progress* progress) {
  return atomic_load(&progress->epoch);
}

int64_t grapnel_go_progress_iter(const grapnel_go_progress* progress) {
  return atomic_load(&progress->iter);
}

void grapnel_go_progress_cancel(grapnel_go_progress* progress, int32_t cancel) {
  atomic_store(&progress->cancel, cancel);
}
