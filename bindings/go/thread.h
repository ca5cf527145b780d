// OS threads, and what OpenMP keeps for them.

#ifndef GRAPNEL_BINDINGS_GO_THREAD_H_
#define GRAPNEL_BINDINGS_GO_THREAD_H_

#include <stdint.h>

// The number of this thread.
int64_t grapnel_go_thread(void);

// Ends the threads that OpenMP has made for this one. It makes them anew when
// they are asked for. Nothing where LibTorch has no OpenMP 5.
void grapnel_go_end_team(void);

#endif  // GRAPNEL_BINDINGS_GO_THREAD_H_
