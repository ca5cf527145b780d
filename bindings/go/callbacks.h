// Callbacks of the C API that are Go's. `slot` is an integer that stands for a
// Go object and its runner (slots.go): C may keep it, as it may not keep a
// pointer of Go's.
// Each of these takes the slot if it succeeds, and gives it back through
// grapnelGoDestroy...

#ifndef GRAPNEL_BINDINGS_GO_CALLBACKS_H_
#define GRAPNEL_BINDINGS_GO_CALLBACKS_H_

#include <grapnel/grapnel.h>

grapnel_status* grapnel_go_add_hook(grapnel_runner_options* options,
                                    const char* name, size_t name_size,
                                    uint64_t stages, int32_t priority,
                                    int32_t has_state, uintptr_t slot);
grapnel_status* grapnel_go_set_dataset(grapnel_runner_options* options,
                                       grapnel_mode mode, int64_t size,
                                       int32_t thread_safe,
                                       int32_t has_get_batch, uintptr_t slot);
grapnel_status* grapnel_go_set_stream(grapnel_runner_options* options,
                                      int32_t has_state, uintptr_t slot);
grapnel_status* grapnel_go_set_model(grapnel_runner_options* options,
                                     const grapnel_tensors* parameters,
                                     const grapnel_tensors* buffers,
                                     int32_t has_val_step,
                                     int32_t has_tensors_written,
                                     int32_t has_set_training,
                                     int32_t has_export, uintptr_t slot);
grapnel_status* grapnel_go_set_loss(grapnel_runner_options* options,
                                    uintptr_t slot);
grapnel_status* grapnel_go_add_metric(grapnel_runner_options* options,
                                      grapnel_mode mode, uintptr_t slot);

// These two take nothing: the slot is the caller's, for longer than the runner.
grapnel_status* grapnel_go_set_runner_log(grapnel_runner_options* options,
                                          uintptr_t slot);
grapnel_status* grapnel_go_set_records(grapnel_runner_options* options,
                                       uintptr_t slot);

// Whether a callback of that runner's data, log or records goes on on this
// thread.
int32_t grapnel_go_inside(uint32_t runner);

// The log of the process; slot 0 is stderr.
void grapnel_go_set_log(uintptr_t slot);

#endif  // GRAPNEL_BINDINGS_GO_CALLBACKS_H_
