// The allocator of a program whose instructions are counted: an allocation
// costs the same whatever was allocated before it. With glibc's, figures also
// tell how full its bins are, and so move when anything else does.
//
// A block is a power of two and is never split or joined. It stands on a cache
// line behind one that says what it is. Each thread has its own, and keeps what
// it frees, so that it is nothing to one when another runs.

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace {

constexpr size_t kLine = 64;
constexpr size_t kChunk = size_t{64} << 20;

struct alignas(kLine) Header {
  Header* owner;  // This one, unless the block begins further on.
  Header* next;   // While the block is free.
  size_t size;    // Of the block.
};

thread_local Header* free_blocks[64];  // By the power.
thread_local char* chunk;
thread_local size_t chunk_left;

Header* HeaderOf(void* p) { return static_cast<Header*>(p) - 1; }
int PowerOf(size_t size) {
  return 64 - __builtin_clzll(std::max(size, kLine) - 1);
}

Header* NewBlock(size_t size) {
  const size_t needed = sizeof(Header) + size;
  if (chunk_left < needed) {
    chunk_left = std::max(needed, kChunk);
    void* memory = mmap(nullptr, chunk_left, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
      chunk_left = 0;
      return nullptr;
    }
    chunk = static_cast<char*>(memory);
  }
  Header* header = reinterpret_cast<Header*>(chunk);
  chunk += needed;
  chunk_left -= needed;
  header->owner = header;
  header->size = size;
  return header;
}

}  // namespace

extern "C" void* malloc(size_t size) {
  Header* header = nullptr;
  if (size <= PTRDIFF_MAX / 2) {
    const int power = PowerOf(size);
    header = free_blocks[power];
    if (header != nullptr) {
      free_blocks[power] = header->next;
    } else {
      header = NewBlock(size_t{1} << power);
    }
  }
  if (header == nullptr) errno = ENOMEM;
  return header == nullptr ? nullptr : header + 1;
}

extern "C" void free(void* p) {
  if (p == nullptr) return;
  Header* header = HeaderOf(p)->owner;
  Header** list = &free_blocks[PowerOf(header->size)];
  header->next = *list;
  *list = header;
}

extern "C" void* calloc(size_t n, size_t size) {
  size_t bytes;
  if (__builtin_mul_overflow(n, size, &bytes)) bytes = SIZE_MAX;
  void* p = malloc(bytes);
  return p == nullptr ? nullptr : memset(p, 0, bytes);
}

extern "C" size_t malloc_usable_size(void* p) {
  if (p == nullptr) return 0;
  const Header* header = HeaderOf(p)->owner;
  return reinterpret_cast<const char*>(header + 1) + header->size -
         static_cast<char*>(p);
}

extern "C" void* realloc(void* p, size_t size) {
  const size_t old_size = malloc_usable_size(p);
  if (p != nullptr && size <= old_size) return p;
  void* grown = malloc(size);
  if (p == nullptr || grown == nullptr) return grown;
  memcpy(grown, p, old_size);
  free(p);
  return grown;
}

extern "C" void* memalign(size_t alignment, size_t size) {
  if (alignment <= kLine) return malloc(size);
  void* p = malloc(size > PTRDIFF_MAX ? size : size + alignment);
  const auto address = reinterpret_cast<uintptr_t>(p);
  if (address % alignment == 0) return p;  // As null does.
  char* aligned = static_cast<char*>(p) + (alignment - address % alignment);
  HeaderOf(aligned)->owner = HeaderOf(p);
  return aligned;
}

extern "C" void* aligned_alloc(size_t alignment, size_t size) {
  return memalign(alignment, size);
}

extern "C" int posix_memalign(void** p, size_t alignment, size_t size) {
  *p = memalign(alignment, size);
  return *p == nullptr ? ENOMEM : 0;
}
