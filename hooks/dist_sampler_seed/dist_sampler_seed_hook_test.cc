#include "grapnel/hooks/dist_sampler_seed/dist_sampler_seed_hook.h"

#include "grapnel/base/status_matchers.h"
#include "grapnel/runner/fake_run_context.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

TEST(DistSamplerSeedHookTest, EachEpochHasItsOwnOrder) {
  auto hook = DistSamplerSeedHook::Create({});
  ASSERT_THAT(hook, IsOk());
  FakeRunContext run;
  run.epochs = 7;
  ASSERT_THAT((*hook)->BeforeTrainEpoch(run), IsOk());
  EXPECT_EQ(run.sampler_epoch, 7);
}

}  // namespace
}  // namespace grapnel
