#include "bare.h"

#include "_cgo_export.h"

void grapnel_go_bare_callbacks(int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    if (grapnelGoBare((uintptr_t)i, GRAPNEL_AFTER_TRAIN_ITER, NULL) != NULL) {
      return;
    }
  }
}

static grapnel_status* on_stage(void* user_data, grapnel_stage stage,
                                grapnel_run* run) {
  return grapnelGoBare((uintptr_t)user_data, stage, run);
}

const grapnel_hook_callbacks* grapnel_go_bare_hook(void) {
  static const grapnel_hook_callbacks callbacks = {
      .struct_size = sizeof(callbacks),
      .stages = (uint64_t)1 << GRAPNEL_AFTER_TRAIN_ITER,
      .priority = 50,
      .on_stage = on_stage,
  };
  return &callbacks;
}
