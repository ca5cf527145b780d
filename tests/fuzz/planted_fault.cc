// A target with faults, for driver_test.sh: what an input has to hold for each.

#include <sys/mman.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <ctime>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/string_view.h"
#include "grapnel/tests/fuzz/fuzz_target.h"

namespace grapnel {

int64_t MaxMemory(int64_t) { return int64_t{3} << 20; }

}  // namespace grapnel

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view input(reinterpret_cast<const char*>(data), size);
  if (absl::StrContains(input, "CRASH")) std::abort();
  if (absl::StrContains(input, "SLOW")) {
    const std::clock_t begin = std::clock();  // Of the processor.
    while (std::clock() - begin < 3 * CLOCKS_PER_SEC) {
    }
  }
  if (absl::StrContains(input, "GROW")) {  // Past the allocator.
    constexpr size_t kSize = size_t{300} << 20;
    void* const memory = mmap(nullptr, kSize, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    std::fill_n(static_cast<char*>(memory), kSize, 'x');
    munmap(memory, kSize);
  }
  // What is too much without MaxMemory, and what is with it.
  std::string part;
  if (absl::StrContains(input, "MUCH")) part.assign(2 << 20, 'x');
  if (absl::StrContains(input, "TOO")) part.assign(4 << 20, 'x');
  grapnel::NoteOutcome(
      absl::StrContains(input, "REFUSE") ? absl::InvalidArgumentError("refused")
      : absl::StrContains(input, "INTERNAL") ? absl::InternalError("ours")
                                             : absl::OkStatus());
  return 0;
}
