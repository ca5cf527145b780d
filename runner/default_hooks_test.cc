#include "grapnel/runner/default_hooks.h"

#include <string>
#include <utility>
#include <vector>

#include "google/protobuf/descriptor.h"
#include "google/protobuf/util/message_differencer.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/runner/parse_config_for_test.h"
#include "grapnel/runner/runner_config.pb.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::google::protobuf::util::MessageDifferencer;
using ::testing::ElementsAre;
using ::testing::Pair;

runner::v1::RunnerConfig Parse(const std::string& hooks) {
  return ParseConfig("default_hooks { " + hooks + " }");
}

TEST(DefaultHooksTest, TwoHaveAnotherNameThanTheirSlot) {
  std::vector<std::pair<std::string, std::string>> names;
  for (const DefaultHookSlot& slot : DefaultHookSlots()) {
    names.emplace_back(slot.field->name(), slot.hook_name);
    EXPECT_EQ(DefaultHookName(slot.field->name()), slot.hook_name);
    EXPECT_EQ(DefaultHookName(slot.hook_name), slot.hook_name);
    EXPECT_EQ(DefaultHookSlotName(slot.hook_name), slot.field->name());
    EXPECT_EQ(DefaultHookSlotName(slot.field->name()), slot.field->name());
  }
  EXPECT_THAT(names, ElementsAre(Pair("runtime_info", "runtime_info"),
                                 Pair("timer", "iter_timer"),
                                 Pair("sampler_seed", "dist_sampler_seed"),
                                 Pair("logger", "logger"),
                                 Pair("param_scheduler", "param_scheduler"),
                                 Pair("checkpoint", "checkpoint")));
  EXPECT_EQ(DefaultHookName("ema"), "ema");
  EXPECT_EQ(DefaultHookSlotName("ema"), "ema");
}

TEST(DefaultHooksTest, OtherNamesMeanTheSlot) {
  struct Case {
    std::string given;
    std::string joined;
  };
  for (const Case& c : std::vector<Case>{
           {"iter_timer {}", "timer {}"},
           {"dist_sampler_seed {} logger { interval: 3 }",
            "sampler_seed {} logger { interval: 3 }"},
           {"off: ['iter_timer', 'logger', 'sampler_seed']",
            "off: ['timer', 'logger', 'sampler_seed']"},
           {"priority { key: 'iter_timer' value: 'LOW' } "
            "priority { key: 'logger' value: '3' }",
            "priority { key: 'timer' value: 'LOW' } "
            "priority { key: 'logger' value: '3' }"},
           {"off: 'timmer'", "off: 'timmer'"},  // Refused elsewhere.
       }) {
    runner::v1::RunnerConfig config = Parse(c.given);
    ASSERT_THAT(JoinDefaultHookNames(&config), IsOk());
    EXPECT_TRUE(MessageDifferencer::Equals(config, Parse(c.joined)))
        << config.DebugString();
  }
}

TEST(DefaultHooksTest, BothNamesAtOnceAreAnError) {
  runner::v1::RunnerConfig config = Parse("timer {} iter_timer {}");
  EXPECT_THAT(JoinDefaultHookNames(&config),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "default_hooks: iter_timer: must be unset with timer, "
                       "which is the same hook"));
  config = Parse(
      "priority { key: 'sampler_seed' value: '1' } "
      "priority { key: 'dist_sampler_seed' value: '1' }");
  EXPECT_THAT(JoinDefaultHookNames(&config),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "default_hooks: priority: dist_sampler_seed: must be "
                       "unset with sampler_seed, which is the same hook"));
}

}  // namespace
}  // namespace grapnel
