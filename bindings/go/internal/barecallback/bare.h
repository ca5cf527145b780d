#ifndef GRAPNEL_BINDINGS_GO_INTERNAL_BARECALLBACK_BARE_H_
#define GRAPNEL_BINDINGS_GO_INTERNAL_BARECALLBACK_BARE_H_

#include <grapnel/grapnel.h>
#include <stdint.h>

// Calls a function of Go's n times, with arguments as a hook's, from C.
void grapnel_go_bare_callbacks(int64_t n);

// A hook that calls it at AFTER_TRAIN_ITER.
const grapnel_hook_callbacks* grapnel_go_bare_hook(void);

#endif  // GRAPNEL_BINDINGS_GO_INTERNAL_BARECALLBACK_BARE_H_
