#include "grapnel/base/heap.h"

#include <cstdlib>
#include <initializer_list>
#include <limits>

// Defines __GLIBC__.
#include <malloc.h>

namespace grapnel {

void KeepFreedMemory() {
#ifdef __GLIBC__
  for (const char* name :
       {"MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_",
        "MALLOC_MMAP_MAX_", "GLIBC_TUNABLES"}) {
    if (std::getenv(name) != nullptr) return;
  }
  constexpr int kMost = 32 << 20;  // That mallopt takes.
  mallopt(M_MMAP_THRESHOLD, kMost);
  mallopt(M_TRIM_THRESHOLD, std::numeric_limits<int>::max());
#endif
}

}  // namespace grapnel
