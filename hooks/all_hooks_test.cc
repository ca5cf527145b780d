#include "gmock/gmock.h"
#include "grapnel/runner/hook_registry.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

// Names no hook's symbols, so it sees what a program that is configured by a
// file sees: a hook whose registration the linker dropped is missing here.
TEST(AllHooksTest, EveryHookIsRegistered) {
  EXPECT_THAT(
      RegisteredHookConfigs(),
      ::testing::ElementsAre("grapnel.hooks.v1.CheckInvalidLossHookConfig",
                             "grapnel.hooks.v1.CheckpointHookConfig",
                             "grapnel.hooks.v1.DistSamplerSeedHookConfig",
                             "grapnel.hooks.v1.EMAHookConfig",
                             "grapnel.hooks.v1.EarlyStoppingHookConfig",
                             "grapnel.hooks.v1.EmptyCacheHookConfig",
                             "grapnel.hooks.v1.IterTimerHookConfig",
                             "grapnel.hooks.v1.LoggerHookConfig",
                             "grapnel.hooks.v1.ParamSchedulerHookConfig",
                             "grapnel.hooks.v1.ProfilerHookConfig",
                             "grapnel.hooks.v1.RuntimeInfoHookConfig",
                             "grapnel.hooks.v1.SyncBuffersHookConfig"));
}

}  // namespace
}  // namespace grapnel
