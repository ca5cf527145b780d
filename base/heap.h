// The process's heap.

#ifndef GRAPNEL_BASE_HEAP_H_
#define GRAPNEL_BASE_HEAP_H_

namespace grapnel {

// Tells malloc to keep what is freed, for programs that do nothing but train.
// Without it glibc gives blocks of more than 128 KiB to 32 MiB, and the heap's
// end, back to the system, which has to make the pages of an iteration's
// activations anew in each one: a tenth of its time for a small conv net. With
// it the process stays as large as it has been; blocks above 32 MiB are given
// back as before.
//
// Does nothing where the environment says how malloc is to be tuned
// (MALLOC_*_ or GLIBC_TUNABLES), or malloc isn't glibc's. Call it in main().
void KeepFreedMemory();

}  // namespace grapnel

#endif  // GRAPNEL_BASE_HEAP_H_
