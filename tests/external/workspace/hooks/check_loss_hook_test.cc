// A hook alone, called as a run calls it, with a run that is made up.

#include <cmath>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <variant>

#include "ATen/core/Tensor.h"
#include "ATen/ops/full.h"
#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "google/protobuf/text_format.h"
#include "grapnel/io/env.h"
#include "grapnel/models/log_vars.h"
#include "grapnel/runner/config_file.h"
#include "grapnel/runner/fake_run_context.h"
#include "grapnel/runner/hook_registry.h"
#include "grapnel/runner/message_hub.h"
#include "grapnel/runner/runner_config.pb.h"
#include "grapnel/runner/train_plan.h"
#include "gtest/gtest.h"
#include "hooks/check_loss_hook.pb.h"

namespace acme {
namespace {

using ::google::protobuf::TextFormat;
using ::testing::HasSubstr;

std::unique_ptr<grapnel::Hook> NewHook(const std::string& text) {
  CheckLossHookConfig config;
  EXPECT_TRUE(TextFormat::ParseFromString(text, &config)) << text;
  auto hook = grapnel::CreateHook(config);
  EXPECT_TRUE(hook.ok()) << hook.status();
  return std::move(hook->hook);
}

grapnel::LogVars Loss(double value) {
  grapnel::LogVars vars;
  vars.Add("loss", at::full({}, value));
  return vars;
}

TEST(CheckLossHookTest, LooksAtEverySecondIteration) {
  grapnel::runner::v1::TrainConfig config;
  ASSERT_TRUE(
      TextFormat::ParseFromString("by_epoch: false max_iters: 7", &config));
  const auto plan = grapnel::TrainPlan::Create(config);
  ASSERT_TRUE(plan.ok()) << plan.status();
  const auto hook = NewHook("interval: 2");
  grapnel::FakeRunContext run;
  for (run.iters = 0; run.iters < plan->total(); ++run.iters) {
    // The odd ones, which nobody looks at, are no numbers.
    const double loss = run.iters % 2 == 0 ? NAN : 1;
    ASSERT_TRUE(
        hook->AfterTrainIter(run, grapnel::IterInfo(), Loss(loss)).ok());
  }
  const auto* looks = run.hub.FindInfo("check_loss/looks");
  ASSERT_NE(looks, nullptr);
  EXPECT_EQ(std::get<int64_t>(*looks), 3);
}

TEST(CheckLossHookTest, ReportsWhereTheConfigSays) {
  const auto hook = NewHook("interval: 1 report: 'bad.txt'");
  grapnel::FakeRunContext run;
  ASSERT_TRUE(run.env().CreateDir("/base").ok());
  run.iters = 4;
  EXPECT_EQ(hook->AfterTrainIter(run, grapnel::IterInfo(), Loss(NAN)).code(),
            absl::StatusCode::kOutOfRange);
  const auto text = grapnel::io::ReadFile(run.env(), "/base/bad.txt");
  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_EQ(*text, "loss at iteration 5\n");
}

// What (grapnel.path) does: on the command line paths start where the user is.
TEST(CheckLossHookTest, ItsPathIsKnownForOne) {
  auto config = grapnel::ParseRunnerConfig(
      "custom_hooks { config { [hooks/CheckLossHook] { interval: 1 } } }",
      grapnel::ConfigFormat::kText, "test");
  ASSERT_TRUE(config.ok()) << config.status();
  const absl::Status status = grapnel::ApplyOverride(
      "custom_hooks.0.config.report=bad.txt", "/home/me", &*config);
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_THAT(grapnel::PrintRunnerConfig(*config),
              HasSubstr("report: \"/home/me/bad.txt\""));
}

}  // namespace
}  // namespace acme
