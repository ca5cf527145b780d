#define _GNU_SOURCE
#include "thread.h"

#include <dlfcn.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

int64_t grapnel_go_thread(void) {
  static _Thread_local int64_t number;
  if (number == 0) number = syscall(SYS_gettid);
  return number;
}

// That of the OpenMP that LibTorch has, whichever it is: not one to link with.
static int (*pause_resource_all)(int);

static void find_openmp(void) {
  pause_resource_all =
      (int (*)(int))dlsym(RTLD_DEFAULT, "omp_pause_resource_all");
}

void grapnel_go_end_team(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  const int omp_pause_soft = 1;
  pthread_once(&once, find_openmp);
  if (pause_resource_all != NULL) (void)pause_resource_all(omp_pause_soft);
}
