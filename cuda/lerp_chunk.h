// What one block of the kernel works on. Read on the host and on the device:
// nothing here but plain numbers.

#ifndef GRAPNEL_CUDA_LERP_CHUNK_H_
#define GRAPNEL_CUDA_LERP_CHUNK_H_

#include <cstdint>

namespace grapnel {

// Elements of a chunk but a tensor's last one. A multiple of what all threads
// of a block load at once, whatever the types: a chunk of an aligned tensor is
// aligned too.
constexpr int64_t kLerpChunkElements = 8192;

// Bytes of the widest load and store.
constexpr int kLerpLoadBytes = 16;

// Elements in one load: of the wider type 16 bytes, of the other as many
// elements.
constexpr int LerpVectorElements(int dst_bytes, int src_bytes) {
  return kLerpLoadBytes / (dst_bytes > src_bytes ? dst_bytes : src_bytes);
}

// Consecutive elements of one pair of tensors. The types are those of the
// launch.
struct LerpChunk {
  void* dst;
  const void* src;
  uint32_t count;
  // Both pointers are multiples of what is loaded at once.
  uint32_t aligned;
};

}  // namespace grapnel

#endif  // GRAPNEL_CUDA_LERP_CHUNK_H_
