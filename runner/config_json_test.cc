#include "grapnel/runner/config_json.h"

#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/runner/config_file.h"
#include "grapnel/runner/runner_config.pb.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;

std::vector<std::pair<std::string, std::string>> JsonOf(
    const std::string& text) {
  const auto config = ParseRunnerConfig(text, ConfigFormat::kText, "config");
  EXPECT_THAT(config, IsOk());
  return config.ok() ? ConfigToJson(*config)
                     : std::vector<std::pair<std::string, std::string>>();
}

TEST(ConfigJsonTest, FieldsAreInTheirOrderAndNumbersAreNumbers) {
  EXPECT_THAT(
      JsonOf(R"(
        train_cfg { max_epochs: 20 val_begin: 9007199254740993 }
        work_dir: "a\"b\nc\303\251"
        resume: true
        train_dataloader { sampler { type: INFINITE shuffle: false } }
        optim_wrapper {
          optimizer { adamw { lr: 1e-05 amsgrad: true } }
          clip_grad { max_norm: 2 norm_type: inf }
        }
        param_scheduler { linear { end: 5 } }
        param_scheduler { linear {} }
      )"),
      UnorderedElementsAre(
          Pair("train_cfg",
               R"({"max_epochs": 20, "val_begin": 9007199254740993})"),
          Pair("work_dir", R"("a\"b\nc\u00e9")"), Pair("resume", "true"),
          Pair("train_dataloader",
               R"({"sampler": {"type": "INFINITE", "shuffle": false}})"),
          Pair("optim_wrapper",
               R"({"optimizer": {"adamw": {"lr": 1e-05, "amsgrad": true}}, )"
               R"("clip_grad": {"max_norm": 2.0, "norm_type": "inf"}})"),
          Pair("param_scheduler",
               R"([{"linear": {"end": 5}}, {"linear": {}}])")));
}

TEST(ConfigJsonTest, WhatAnAnyHoldsIsUnderItsTypesName) {
  EXPECT_THAT(
      JsonOf(R"(custom_hooks {
                          config {
                            [type.googleapis.com/grapnel.runner.v1.TrainConfig]
                            { max_epochs: 2 }
                          }
                        })"),
      ElementsAre(Pair("custom_hooks",
                       R"([{"config": {"grapnel.runner.v1.TrainConfig":)"
                       R"( {"max_epochs": 2}}}])")));
  runner::v1::RunnerConfig config;
  config.add_custom_hooks()->mutable_config()->set_type_url("x/y.Unknown");
  auto* unreadable = config.add_custom_hooks()->mutable_config();
  unreadable->set_type_url("x/grapnel.runner.v1.TrainConfig");
  unreadable->set_value("\xff");
  EXPECT_THAT(
      ConfigToJson(config),
      ElementsAre(Pair("custom_hooks",
                       R"([{"config": null}, {"config": )"
                       R"({"grapnel.runner.v1.TrainConfig": null}}])")));
}

TEST(ConfigJsonTest, MapsAreObjectsInTheOrderOfTheirKeys) {
  EXPECT_THAT(JsonOf(R"(default_hooks {
                          priority { key: "timer" value: "LOW" }
                          priority { key: "logger" value: "9" }
                          priority { key: "checkpoint" value: "HIGH" }
                        })"),
              ElementsAre(Pair("default_hooks",
                               R"({"priority": {"checkpoint": "HIGH", )"
                               R"("logger": "9", "timer": "LOW"}})")));
}

TEST(ConfigJsonTest, NothingIsNoFields) {
  EXPECT_THAT(ConfigToJson(runner::v1::RunnerConfig()), IsEmpty());
}

}  // namespace
}  // namespace grapnel
