// What a run leaves in its folder: saves by time, which change nothing of what
// is trained, and files for other programs.

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "grapnel/base/fake_clock.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/data/tensor_dataset.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/env.h"
#include "grapnel/io/mem_env.h"
#include "grapnel/io/weights.h"
#include "grapnel/loggers/memory_run_log.h"
#include "grapnel/runner/parse_config_for_test.h"
#include "grapnel/runner/runner.h"
#include "grapnel/runner/runner_config.pb.h"
#include "grapnel/tests/e2e/compare_runs.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

// Epochs of 6 iterations in a new order each; dropout draws, the optimizer, the
// normalization and an average remember, and two iterations make a step.
const char kConfig[] = R"pb(
  randomness { seed: 1 }
  model {
    sequential {
      layers { linear { out_features: 4 } }
      layers { batch_norm1d {} }
      layers { dropout { p: 0.3 } }
      layers { linear { out_features: 1 } }
      loss { mse {} }
    }
  }
  train_dataloader {
    batch_size: 4
    sampler { shuffle: true }
  }
  val_dataloader { batch_size: 8 }
  val_evaluator { mse {} }
  train_cfg { max_epochs: 5 val_interval: 2 }
  optim_wrapper {
    optimizer { adamw { lr: 0.1 } }
    accumulative_counts: 2
  }
  param_scheduler { cosine_annealing { t_max: 5 } }
  custom_hooks {
    config {
      [type.googleapis.com/grapnel.hooks.v1.EMAHookConfig] { momentum: 0.3 }
    }
  }
  default_hooks { checkpoint { interval: 5 } }
)pb";

class CheckpointsTest : public ::testing::Test {
 protected:
  absl::Status Train(const std::string& work_dir, const std::string& more) {
    runner::v1::RunnerConfig config = ParseConfig(kConfig);
    config.MergeFrom(ParseConfig(more));
    config.set_work_dir(work_dir);
    RunnerOptions options;
    options.env = &env_;
    FakeClock clock(absl::Milliseconds(250));
    options.clock = &clock;
    options.log = &log_;
    const at::Tensor inputs =
        ops::arange(48).reshape({24, 2}).to(at::kFloat).div(10).sin();
    const at::Tensor targets = inputs.sum(1, /*keepdim=*/true);
    for (auto* dataset : {&options.train_dataset, &options.val_dataset}) {
      auto tensors = TensorDataset::Create(inputs, targets);
      EXPECT_THAT(tensors, IsOk());
      *dataset = *std::move(tensors);
    }
    auto runner = Runner::Create(config, std::move(options));
    return runner.ok() ? (*runner)->Train() : runner.status();
  }

  // The names that begin so, in `dir`.
  std::vector<std::string> Names(const std::string& dir,
                                 const std::string& prefix) {
    std::vector<std::string> found;
    const auto names = env_.ListDir(dir);
    EXPECT_THAT(names, IsOk());
    for (const std::string& name : *names) {
      if (absl::StartsWith(name, prefix)) found.push_back(name);
    }
    return found;
  }

  io::CheckpointContents Read(const std::string& path) {
    auto contents = io::ReadCheckpoint(env_, path);
    EXPECT_THAT(contents, IsOk());
    return *std::move(contents);
  }

  void ExpectSameEnd(const std::string& a, const std::string& b) {
    ExpectSameCheckpoints(Read(absl::StrCat(a, "/epoch_5")),
                          Read(absl::StrCat(b, "/epoch_5")));
  }

  io::MemEnv env_;
  MemoryRunLog log_;
};

TEST_F(CheckpointsTest, SavesByTimeChangeNothingOfWhatIsTrained) {
  ASSERT_THAT(Train("/plain", ""), IsOk());
  // Every few iterations: each look at the clock takes 250 ms.
  ASSERT_THAT(
      Train("/timed", "default_hooks { checkpoint { interval_minutes: 0.1 } }"),
      IsOk());
  const std::vector<std::string> timed = Names("/timed", "iter_");
  ASSERT_GE(timed.size(), 3u);
  EXPECT_THAT(Names("/plain", "iter_"), testing::IsEmpty());
  EXPECT_THAT(log_.messages(),
              Contains(absl::StrCat("Saving checkpoint at ", timed[0].substr(5),
                                    " iterations")));
  ExpectSameEnd("/plain", "/timed");
  // And each of them is one to go on from.
  for (const std::string& name : timed) {
    const std::string work_dir = absl::StrCat("/from_", name);
    ASSERT_THAT(Train(work_dir, absl::StrCat("resume: true load_from: '/timed/",
                                             name, "'")),
                IsOk());
    SCOPED_TRACE(name);
    ExpectSameEnd("/plain", work_dir);
  }
}

TEST_F(CheckpointsTest, FilesForOtherProgramsAreBesideWhatIsKept) {
  const std::string config =
      "default_hooks { checkpoint { interval: 1 max_keep_ckpts: 1 save_best: "
      "'mse' also_write: ['safetensors', 'pth'] } } ";
  ASSERT_THAT(Train("/w", config), IsOk());
  EXPECT_THAT(Names("/w", "epoch_"),
              ElementsAre("epoch_5", "epoch_5.pth", "epoch_5.safetensors"));
  EXPECT_EQ(Names("/w", "best_mse_").size(), 3u);
  // Said once, of what Python has no place for.
  std::vector<std::string> said;
  for (const std::string& warning : log_.messages(RunLog::Level::kWarning)) {
    if (absl::StrContains(warning, "also_write")) said.push_back(warning);
  }
  EXPECT_THAT(said, ElementsAre(HasSubstr("generators")));

  // What evaluations see.
  const io::CheckpointContents last = Read("/w/epoch_5");
  const TensorMap* const average = last.FindSection("ema");
  ASSERT_NE(average, nullptr);
  const auto weights = io::ReadWeights(env_, "/w/epoch_5.safetensors");
  ASSERT_THAT(weights, IsOk());
  EXPECT_EQ(weights->size(), last.FindSection("model")->size());
  int averaged = 0;
  for (const NamedTensor& named : *weights) {
    const at::Tensor* const expected = average->Find(named.name);
    if (expected == nullptr) continue;
    ++averaged;
    EXPECT_TRUE(ops::equal(named.tensor, *expected)) << named.name;
  }
  EXPECT_GE(averaged, 6);

  // No run takes one for a checkpoint.
  ASSERT_THAT(Train("/w", config + "resume: true"), IsOk());
  EXPECT_THAT(log_.messages(), Contains("resumed epoch: 5, iter: 30"));
  EXPECT_THAT(log_.messages(RunLog::Level::kWarning),
              Not(Contains(HasSubstr("epoch_5."))));
}

}  // namespace
}  // namespace grapnel
