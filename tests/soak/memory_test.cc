// A long run with everything on doesn't grow.

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>

#include "ATen/Parallel.h"
#include "absl/strings/str_cat.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/data/tensor_dataset.h"
#include "grapnel/io/env.h"
#include "grapnel/runner/config_file.h"
#include "grapnel/runner/hook_registry.h"
#include "grapnel/runner/runner.h"
#include "grapnel/runner/runner_config.pb.h"
#include "grapnel/tests/soak/soak.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

constexpr int64_t kDefaultIters = 20000;

// Looks at the process's memory at two iterations.
class Scales : public Hook {
 public:
  Scales(int64_t first, int64_t second) : first_(first), second_(second) {}
  absl::string_view name() const override { return "scales"; }
  Priority priority() const override { return Priority::kLowest; }
  absl::Status AfterTrainIter(RunContext& run, const IterInfo&,
                              const LogVars&) override {
    if (run.iter() + 1 == first_) at_first = ResidentBytes();
    if (run.iter() + 1 == second_) at_second = ResidentBytes();
    return absl::OkStatus();
  }
  int64_t at_first = 0, at_second = 0;

 private:
  const int64_t first_, second_;
};

// Every hook and backend, and all that has an interval at one that comes often.
constexpr char kConfig[] = R"pb(
  model {
    sequential {
      layers { linear { out_features: 8 } }
      layers { batch_norm1d {} }
      layers { relu {} }
      layers { linear { out_features: 2 } }
      loss { cross_entropy {} }
    }
  }
  train_dataloader {
    batch_size: 4
    sampler { shuffle: true }
  }
  val_dataloader { batch_size: 32 }
  val_evaluator { accuracy { topk: 1 } }
  optim_wrapper {
    optimizer { adamw { lr: 0.001 } }
    clip_grad { max_norm: 1 }
  }
  param_scheduler { linear { by_epoch: false end: 100 } }
  param_scheduler { cosine_annealing { by_epoch: false begin: 100 } }
  default_hooks {
    logger { interval: 50 }
    checkpoint { by_epoch: false max_keep_ckpts: 2 save_best: "accuracy/top1" }
  }
  custom_hooks {
    config {
      [hooks/EMAHook] { momentum: 0.001 }
    }
  }
  custom_hooks {
    config {
      [hooks/EMAHook] {
        name: "swa"
        ema_type { stochastic_weight_average {} }
      }
    }
  }
  custom_hooks {
    config {
      [hooks/CheckInvalidLossHook] { interval: 1 }
    }
  }
  custom_hooks {
    config {
      [hooks/EmptyCacheHook] { after_iter: true }
    }
  }
  custom_hooks {
    config {
      [hooks/SyncBuffersHook] {}
    }
  }
  custom_hooks {
    config {
      [hooks/EarlyStoppingHook] { monitor: "accuracy/top1" patience: 1000000 }
    }
  }
  custom_hooks {
    config {
      [hooks/ProfilerHook] { by_epoch: false profile_times: 10 }
    }
  }
  visualizer {
    vis_backends { json_lines {} }
    vis_backends { tensorboard {} }
    vis_backends { wandb {} }
  }
)pb";

std::unique_ptr<Dataset> RandomDataset(int64_t size) {
  auto dataset = TensorDataset::Create(ops::randn({size, 16}),
                                       ops::randint(2, {size}, at::kLong));
  EXPECT_THAT(dataset, IsOk());
  return *std::move(dataset);
}

TEST(MemoryTest, ResidentMemoryAtTheEndIsThatAfterATenth) {
  const int64_t iters = SoakIters(kDefaultIters);
  at::set_num_threads(1);
  const std::string dir = absl::StrCat(testing::TempDir(), "/soak");
  auto config = ParseRunnerConfig(
      absl::StrCat(kConfig, "work_dir: '", dir,
                   "' train_cfg { by_epoch: false max_iters: ", iters,
                   " val_interval: ", std::max<int64_t>(1, iters / 100), " }"),
      ConfigFormat::kText, "config");
  ASSERT_THAT(config, IsOk());
  config->mutable_default_hooks()->mutable_checkpoint()->set_interval(
      std::max<int64_t>(1, iters / 50));

  RunnerOptions options;
  options.train_dataset = RandomDataset(4096);
  options.val_dataset = RandomDataset(64);
  auto owned = std::make_unique<Scales>(iters / 10, iters);
  const Scales& scales = *owned;
  options.hooks.push_back(Schedule(std::move(owned)));
  auto runner = Runner::Create(*config, std::move(options));
  ASSERT_THAT(runner, IsOk());
  ASSERT_THAT((*runner)->Train(), IsOk());
  ASSERT_EQ((*runner)->context().iter(), iters);

  const double growth = static_cast<double>(scales.at_second) /
                        static_cast<double>(scales.at_first);
  std::printf(
      "%ld iterations: %.2f MB after 10 %%, %.2f MB after 100 %%: %.4f\n",
      iters, scales.at_first / 1e6, scales.at_second / 1e6, growth);
  EXPECT_NEAR(growth, 1, 0.01);
  EXPECT_THAT(io::DeleteRecursively(io::Env::Posix(), dir), IsOk());
}

}  // namespace
}  // namespace grapnel
