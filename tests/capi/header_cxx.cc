// The header compiles as C++, with all warnings, before any other.
#include "grapnel/grapnel.h"

grapnel_status* Unused(grapnel_runner* runner);

grapnel_status* Unused(grapnel_runner* runner) {
  grapnel_hook_callbacks hook = {};
  hook.struct_size = sizeof(hook);
  hook.stages = uint64_t{1} << GRAPNEL_AFTER_TRAIN_ITER;
  grapnel_bytes bytes = {};
  grapnel_bytes_clear(&bytes);
  return grapnel_runner_train(runner);
}
