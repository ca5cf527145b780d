#include "grapnel/base/heap.h"

#include <sys/resource.h>

#include <array>
#include <cstddef>
#include <cstring>
#include <memory>

#include "gtest/gtest.h"

namespace grapnel {
namespace {

constexpr size_t kMiB = size_t{1} << 20;

// Page faults of 20 iterations that each make four blocks of 8 MiB, which are
// 8,192 pages of 4 KiB, and free them.
long FaultsOfIterations() {
  rusage before, after;
  getrusage(RUSAGE_SELF, &before);
  for (int i = 0; i < 20; ++i) {
    std::array<std::unique_ptr<char[]>, 4> blocks;
    for (auto& block : blocks) {
      block.reset(new char[8 * kMiB]);
      std::memset(block.get(), i, 8 * kMiB);
    }
  }
  getrusage(RUSAGE_SELF, &after);
  return after.ru_minflt - before.ru_minflt;
}

TEST(HeapTest, IterationsGoOnInTheMemoryOfTheLastOne) {
  FaultsOfIterations();
  const long before = FaultsOfIterations();
  if (before < 20 * 1000) {
    GTEST_SKIP() << "the memory isn't glibc's in pages of 4 KiB: " << before
                 << " faults";
  }
  KeepFreedMemory();
  FaultsOfIterations();
  EXPECT_LT(FaultsOfIterations(), before / 20);
}

}  // namespace
}  // namespace grapnel
