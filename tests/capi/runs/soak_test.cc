// A long run of a C program doesn't grow.

#include "grapnel/tests/soak/soak.h"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <string>

#include "ATen/Parallel.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/grapnel.h"
#include "grapnel/io/env.h"
#include "grapnel/tests/capi/runs/guest.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

constexpr int64_t kDefaultIters = 10000;

TEST(SoakTest, MemoryAndThreadsAtTheEndAreThoseOfTheBeginning) {
  const int64_t iters = SoakIters(kDefaultIters);
  at::set_num_threads(1);  // LibTorch's own pool is none of ours.
  const std::string dir = absl::StrCat(testing::TempDir(), "/capi_soak");
  guest_plan plan = {};
  plan.work_dir = dir.c_str();
  plan.max_iters = iters;
  plan.seed = 1;
  plan.num_workers = 2;
  plan.interval = std::max<int64_t>(1, iters / 100);
  guest it = {};
  ASSERT_TRUE(guest_create(&plan, &it)) << it.error.data;
  int64_t at_first = 0, highest = 0;
  int threads = 0, most_threads = 0;
  int32_t more = 1;
  for (int64_t i = 1; more != 0; ++i) {
    ASSERT_TRUE(guest_step(&it, &more)) << it.error.data;
    if (i == 100) threads = NumThreads();
    if (i == iters / 10) at_first = ResidentBytes();
    if (i > iters / 10 && i % 100 == 0) {
      highest = std::max(highest, ResidentBytes());
      most_threads = std::max(most_threads, NumThreads());
    }
  }
  const int64_t at_end = ResidentBytes();
  EXPECT_EQ(it.state.iters, iters);
  guest_destroy(&it);
  EXPECT_EQ(it.destroyed, it.taken);
  EXPECT_EQ(grapnel_live_objects(), 0);

  const auto times = [at_first](int64_t bytes) {
    return static_cast<double>(bytes) / static_cast<double>(at_first);
  };
  std::printf(
      "%lld steps: %.2f MB after 10 %%, %.2f MB after 100 %%: %.4f, at most "
      "%.4f; %d threads, at most %d\n",
      static_cast<long long>(iters), static_cast<double>(at_first) / 1e6,
      static_cast<double>(at_end) / 1e6, times(at_end), times(highest), threads,
      most_threads);
  // A short run hasn't yet met all that it will.
  const double growth = iters < 100000 ? 1.05 : 1.01;
  EXPECT_LT(times(at_end), growth);
  EXPECT_LT(times(highest), growth);
  EXPECT_LE(most_threads, threads);
  EXPECT_THAT(io::DeleteRecursively(io::Env::Posix(), dir), IsOk());
}

}  // namespace
}  // namespace grapnel
