// How far a run is, to be read any time, and how an evaluation is ended: a hook
// of C's, as one of Go's would cost each iteration a callback.

#ifndef GRAPNEL_BINDINGS_GO_PROGRESS_H_
#define GRAPNEL_BINDINGS_GO_PROGRESS_H_

#include <grapnel/grapnel.h>

typedef struct grapnel_go_progress grapnel_go_progress;

// Has one owner, who releases it. NULL if there is no memory.
grapnel_go_progress* grapnel_go_progress_create(void);
void grapnel_go_progress_release(grapnel_go_progress* progress);

// Adds the hook, which becomes another owner.
grapnel_status* grapnel_go_progress_add(grapnel_go_progress* progress,
                                        grapnel_runner_options* options);

// Between two calls: where the runner is.
void grapnel_go_progress_set(grapnel_go_progress* progress,
                             const grapnel_runner* runner);

// Completed epochs and iterations.
int64_t grapnel_go_progress_epoch(const grapnel_go_progress* progress);
int64_t grapnel_go_progress_iter(const grapnel_go_progress* progress);

// 1: from now on the next batch of an evaluation is GRAPNEL_CANCELLED.
void grapnel_go_progress_cancel(grapnel_go_progress* progress, int32_t cancel);

#endif  // GRAPNEL_BINDINGS_GO_PROGRESS_H_
