/* The header compiles as C99, and nothing else is needed for that. */
#include "grapnel/grapnel.h"

grapnel_status* Unused(grapnel_runner* runner);

grapnel_status* Unused(grapnel_runner* runner) {
  const grapnel_hook_callbacks hook = {
      sizeof(hook), (uint64_t)1 << GRAPNEL_AFTER_TRAIN_ITER, 50, 0, 0, 0, 0};
  grapnel_bytes bytes = {0, 0};
  (void)hook;
  grapnel_bytes_clear(&bytes);
  return grapnel_runner_train(runner);
}
