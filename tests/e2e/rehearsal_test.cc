// A rehearsal sees what a run would, and nobody sees the rehearsal.

#include "grapnel/runner/rehearsal.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "gmock/gmock.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/data/tensor_dataset.h"
#include "grapnel/io/env.h"
#include "grapnel/io/mem_env.h"
#include "grapnel/loggers/memory_run_log.h"
#include "grapnel/runner/parse_config_for_test.h"
#include "grapnel/runner/runner.h"
#include "grapnel/runner/runner_config.pb.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kConfig[] = R"pb(
  work_dir: "/run"
  randomness { seed: 1 }
  model {
    sequential {
      layers { linear { out_features: 5 } }
      layers { batch_norm1d {} }
      layers { linear { out_features: 1 } }
      loss { mse {} }
    }
  }
  train_dataloader { batch_size: 4 }
  val_dataloader { batch_size: 6 }
  train_cfg { max_epochs: 3 }
  optim_wrapper { optimizer { adamw {} } }
  val_evaluator { mse {} }
  default_hooks {
    checkpoint { interval: 1 }
    logger { interval: 1 out_dir: "/logs" }
  }
  visualizer { vis_backends { json_lines {} } }
  custom_hooks {
    config {
      [type.googleapis.com/grapnel.hooks.v1.EMAHookConfig] {}
    }
  }
)pb";

class RehearsalTest : public testing::Test {
 protected:
  RunnerOptions Options(const runner::v1::RunnerConfig& config) {
    RunnerOptions options;
    options.env = &env_;
    options.train_dataset =
        *TensorDataset::Create(ops::ones({12, 3}), ops::ones({12, 1}));
    if (config.has_val_dataloader()) {
      options.val_dataset =
          *TensorDataset::Create(ops::ones({12, 3}), ops::ones({12, 1}));
    }
    return options;
  }

  absl::StatusOr<RehearsalReport> Rehearse(
      const runner::v1::RunnerConfig& config) {
    auto rehearsal = Rehearsal::Create(config, Options(config));
    if (!rehearsal.ok()) return rehearsal.status();
    auto report = (*rehearsal)->Run();
    warnings_ = (*rehearsal)->warnings();
    return report;
  }

  io::MemEnv env_;
  std::vector<std::string> warnings_;
};

TEST_F(RehearsalTest, ReportsModelDataMemoryAndTime) {
  const auto report = Rehearse(ParseConfig(kConfig));
  ASSERT_THAT(report, IsOk());
  // 5x3 + 5, 5 + 5, 1x5 + 1 parameters; 5 + 5 statistics and a count.
  ASSERT_EQ(report->parameters.size(), 6u);
  EXPECT_EQ(report->parameters[0].name, "0.weight");
  EXPECT_EQ(report->parameters[0].shape, "(5, 3)");
  EXPECT_EQ(report->parameters[0].numel, 15);
  EXPECT_TRUE(report->parameters[0].trained);
  EXPECT_EQ(report->buffers.size(), 3u);
  EXPECT_EQ(report->weight_bytes, 4 * (36 + 10) + 8);
  EXPECT_EQ(report->gradient_bytes, 4 * 36);
  EXPECT_GE(report->optimizer_bytes, 2 * 4 * 36);
  EXPECT_GT(report->peak_resident_bytes, 1000000);
  EXPECT_EQ(report->max_epochs, 3);
  EXPECT_EQ(report->max_iters, 9);
  ASSERT_EQ(report->losses.size(), 1u);
  EXPECT_EQ(report->losses[0].first, "loss");
  ASSERT_EQ(report->parts.size(), 2u);
  const RehearsalReport::Part& train = report->parts[0];
  EXPECT_EQ(train.name, "train_dataloader");
  EXPECT_EQ(train.samples, 12);
  EXPECT_EQ(train.num_batches, 3);
  EXPECT_EQ(train.iterations, 3) << "those of an epoch";
  EXPECT_EQ(train.inputs.shape, "(4, 3)");
  EXPECT_GT(train.iteration, absl::ZeroDuration());
  const RehearsalReport::Part& val = report->parts[1];
  EXPECT_EQ(val.iterations, 1);
  EXPECT_EQ(val.outputs.shape, "(6, 1)");
  EXPECT_THAT(env_.ListDir("/").value(), ElementsAre());
}

TEST_F(RehearsalTest, ByIterationAndResumed) {
  runner::v1::RunnerConfig config = ParseConfig(kConfig);
  config.clear_train_cfg();
  config.MergeFrom(ParseConfig(
      "train_cfg { by_epoch: false max_iters: 100 val_interval: 10 } "
      "default_hooks { checkpoint { by_epoch: false interval: 7 } }"));
  auto report = Rehearse(config);
  ASSERT_THAT(report, IsOk());
  EXPECT_EQ(report->parts[0].iterations, 7) << "up to a checkpoint";

  RunnerOptions options = Options(config);
  MemoryRunLog log;
  options.log = &log;
  const auto runner = Runner::Create(config, std::move(options));
  ASSERT_THAT(runner, IsOk());  // It has the folder, and keeps it.
  config.set_resume(true);
  report = Rehearse(config);
  ASSERT_THAT(report, IsOk());
  EXPECT_THAT(warnings_, Contains(HasSubstr("starting from scratch")));
  ASSERT_THAT((*runner)->Train(), IsOk());
  report = Rehearse(config);
  ASSERT_THAT(report, IsOk());
  EXPECT_EQ(report->parts[0].iterations, 0) << "nothing is left to train";
  EXPECT_EQ(report->parts[1].iterations, 1);
}

// A checkpoint of an epoch's end has its validation before it.
TEST_F(RehearsalTest, ResumedBeforeAValidationItTrainsTheNextEpoch) {
  runner::v1::RunnerConfig config = ParseConfig(kConfig);
  {
    RunnerOptions options = Options(config);
    MemoryRunLog log;
    options.log = &log;
    const auto runner = Runner::Create(config, std::move(options));
    ASSERT_THAT(runner, IsOk());
    ASSERT_THAT((*runner)->Train(), IsOk());
  }
  config.set_resume(true);
  config.set_load_from("/run/epoch_2");
  config.mutable_default_hooks()->mutable_checkpoint()->add_save_best("mse");
  config.mutable_default_hooks()->mutable_checkpoint()->add_rule("less");
  const auto report = Rehearse(config);
  ASSERT_THAT(report, IsOk());
  EXPECT_EQ(report->parts[0].iterations, 3);
  EXPECT_THAT(warnings_, ElementsAre());
}

TEST_F(RehearsalTest, ErrorsAreTheRuns) {
  runner::v1::RunnerConfig config = ParseConfig(kConfig);
  config.mutable_val_evaluator(0)->mutable_accuracy();
  EXPECT_THAT(Rehearse(config).status().message(), HasSubstr("val batch 1"));
  config = ParseConfig(kConfig);
  config.mutable_optim_wrapper()->mutable_optimizer()->mutable_adamw()->set_lr(
      -1);
  EXPECT_THAT(Rehearse(config), StatusIs(absl::StatusCode::kInvalidArgument,
                                         HasSubstr("adamw: lr")));
  EXPECT_THAT(env_.ListDir("/").value(), ElementsAre());
}

}  // namespace
}  // namespace grapnel
