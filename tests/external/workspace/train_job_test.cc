#include "train_job.h"

#include <cstdint>
#include <memory>
#include <ostream>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/checkpoint_manifest.pb.h"
#include "grapnel/io/env.h"
#include "grapnel/models/model.h"
#include "grapnel/runner/hook_registry.h"
#include "grapnel/runner/message_hub.h"
#include "grapnel/runner/run_context.h"
#include "grapnel/runner/runner.h"
#include "grapnel/runner/runner_config.pb.h"
#include "gtest/gtest.h"
#include "runner/runner_config.pb.h"

namespace acme {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Values;

constexpr int64_t kIterations = 320;  // 40 epochs of 8 batches.

// Keeps the weights after every iteration.
class RecordingHook final : public grapnel::Hook {
 public:
  explicit RecordingHook(std::vector<std::vector<double>>* weights)
      : weights_(*weights) {}
  absl::string_view name() const override { return "recording"; }
  absl::Status AfterTrainIter(grapnel::RunContext& run,
                              const grapnel::IterInfo&,
                              const grapnel::LogVars&) override {
    std::vector<double> now;
    for (const auto& parameter : run.model().parameters()) {
      now.push_back(parameter.tensor.item().toDouble());
    }
    weights_.push_back(std::move(now));
    return absl::OkStatus();
  }

 private:
  std::vector<std::vector<double>>& weights_;
};

class TrainJobTest : public ::testing::Test {
 protected:
  TrainJobTest() { EXPECT_TRUE(ReadJob("job.textproto", &job_).ok()); }

  std::string WorkDir(const std::string& name) {
    return absl::StrCat(
        testing::TempDir(), "/",
        testing::UnitTest::GetInstance()->current_test_info()->name(), "/",
        name);
  }

  absl::Status Train(const std::string& name,
                     const std::vector<std::string>& overrides) {
    RunnerConfig job = job_;
    for (const std::string& assignment : overrides) {
      job.add_overrides(assignment);
    }
    grapnel::RunnerOptions options;
    options.hooks.push_back(
        grapnel::Schedule(std::make_unique<RecordingHook>(&weights_)));
    const absl::Status made =
        MakeRunner(job, WorkDir(name), std::move(options), &runner_);
    return made.ok() ? runner_->Train() : made;
  }

  // What the hook says of itself.
  int64_t Looks() {
    const auto* looks =
        runner_->context().message_hub().FindInfo("check_loss/looks");
    return looks == nullptr ? -1 : std::get<int64_t>(*looks);
  }

  grapnel::io::CheckpointContents Read(const std::string& name,
                                       const std::string& checkpoint) {
    auto contents = grapnel::io::ReadCheckpoint(
        grapnel::io::Env::Posix(),
        grapnel::io::JoinPath(WorkDir(name), checkpoint));
    EXPECT_TRUE(contents.ok()) << contents.status();
    return contents.ok() ? *std::move(contents)
                         : grapnel::io::CheckpointContents();
  }

  RunnerConfig job_;
  std::unique_ptr<grapnel::Runner> runner_;
  std::vector<std::vector<double>> weights_;  // Of each iteration.
};

TEST_F(TrainJobTest, TrainsWithOurHookOurAverageAndOurData) {
  const absl::Status status = Train("run", {});
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(Looks(), kIterations / 2);
  ASSERT_EQ(weights_.size(), kIterations);
  EXPECT_NEAR(weights_.back()[0], 3, 0.01);
  EXPECT_NEAR(weights_.back()[1], -1, 0.01);

  // A copy at first, then every fifth update of the polynomial average.
  std::vector<double> average = weights_[0];
  for (int64_t t = 5; t < kIterations; t += 5) {
    const double weight = (3.0 + 1) / (t / 5 + 1 + 3);
    for (size_t i = 0; i < average.size(); ++i) {
      average[i] += weight * (weights_[t][i] - average[i]);
    }
  }
  const auto contents = Read("run", "epoch_40");
  const grapnel::TensorMap* const saved = contents.FindSection("ema");
  ASSERT_NE(saved, nullptr);
  ASSERT_EQ(saved->size(), 2);
  EXPECT_NEAR(saved->Find("0.weight")->item().toDouble(), average[0], 1e-5);
  EXPECT_NEAR(saved->Find("0.bias")->item().toDouble(), average[1], 1e-5);
  EXPECT_EQ(contents.FindSection("model")->Find("0.weight")->item().toDouble(),
            weights_.back()[0]);
  EXPECT_EQ(contents.manifest().progress().iter(), kIterations);

  // job.textproto: max_keep_ckpts=2.
  grapnel::io::Env& env = grapnel::io::Env::Posix();
  EXPECT_TRUE(env.FileExists(WorkDir("run/epoch_39")));
  EXPECT_FALSE(env.FileExists(WorkDir("run/epoch_38")));
}

TEST_F(TrainJobTest, ResumesWithTheHooksStateAndTheAverage) {
  ASSERT_TRUE(Train("whole", {}).ok());
  const auto expected = Read("whole", "epoch_40");
  ASSERT_TRUE(Train("two_parts", {"train_cfg.max_epochs=17"}).ok());
  EXPECT_EQ(Looks(), 17 * 8 / 2);
  ASSERT_TRUE(Train("two_parts", {"resume=true"}).ok());
  EXPECT_EQ(Looks(), kIterations / 2);
  const auto actual = Read("two_parts", "epoch_40");
  for (const char* section : {"model", "ema"}) {
    ASSERT_NE(actual.FindSection(section), nullptr) << section;
    for (const auto& entry : *expected.FindSection(section)) {
      EXPECT_TRUE(
          entry.tensor.equal(*actual.FindSection(section)->Find(entry.name)))
          << section << " " << entry.name;
    }
  }
}

TEST_F(TrainJobTest, OurHookStopsARunThatSeesNaN) {
  const absl::Status status =
      Train("run", {"train_dataloader.dataset.custom.bad_sample=5"});
  EXPECT_EQ(status.code(), absl::StatusCode::kOutOfRange);
  EXPECT_THAT(
      std::string(status.message()),
      HasSubstr("hook \"check_loss\": AfterTrainIter: loss is not finite"));
  EXPECT_LT(weights_.size(), 16);
}

struct BadOverride {
  const char* name;
  const char* assignment;
  const char* error;
};
void PrintTo(const BadOverride& bad, std::ostream* out) { *out << bad.name; }

class BadOverrideTest : public TrainJobTest,
                        public ::testing::WithParamInterface<BadOverride> {};

TEST_P(BadOverrideTest, IsRefusedByName) {
  const absl::Status status = Train("bad", {GetParam().assignment});
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(GetParam().error));
}

INSTANTIATE_TEST_SUITE_P(
    , BadOverrideTest,
    Values(BadOverride{"HooksValue", "custom_hooks.0.config.interval=0",
                       "interval: must be >= 1, is 0"},
           BadOverride{"HooksField", "custom_hooks.0.config.intervall=2",
                       "did you mean \"interval\"?"},
           BadOverride{"AveragesValue",
                       "custom_hooks.1.config.ema_type.custom.eta=-1",
                       "eta: must be finite and >= 0, is -1"},
           BadOverride{"AveragesInfinity",
                       "custom_hooks.1.config.ema_type.custom.eta=inf",
                       "eta: must be finite and >= 0, is inf"},
           BadOverride{"DatasetsValue",
                       "train_dataloader.dataset.custom.size=1",
                       "size: must be >= 2, is 1"}),
    [](const auto& info) { return info.param.name; });

// This program has two hooks of Grapnel, because its target names two.
TEST(LinkTest, OnlyWhatIsNamedIsThere) {
  EXPECT_THAT(grapnel::RegisteredHookConfigs(),
              ElementsAre("acme.CheckLossHookConfig",
                          "grapnel.hooks.v1.CheckpointHookConfig",
                          "grapnel.hooks.v1.EMAHookConfig"));
}

TEST(LinkTest, TwoFilesOfOneNameAreTwoFiles) {
  EXPECT_EQ(RunnerConfig::descriptor()->file()->name(),
            "runner/runner_config.proto");
  EXPECT_EQ(grapnel::runner::v1::RunnerConfig::descriptor()->file()->name(),
            "grapnel/runner/runner_config.proto");
}

}  // namespace
}  // namespace acme
