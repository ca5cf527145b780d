// What a run of several ranks sends: in an iteration where no interval fires
// its gradients, and nothing else.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "grapnel/base/fake_clock.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/data/tensor_dataset.h"
#include "grapnel/dist/ddp/ddp_reducer.h"
#include "grapnel/io/mem_env.h"
#include "grapnel/loggers/memory_run_log.h"
#include "grapnel/runner/config_file.h"
#include "grapnel/runner/hook.h"
#include "grapnel/runner/hook_registry.h"
#include "grapnel/runner/run_context.h"
#include "grapnel/runner/runner.h"
#include "grapnel/runner/runner_config.pb.h"
#include "grapnel/tests/dist/gloo_ranks.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::Each;
using ::testing::SizeIs;
using ::testing::StartsWith;

constexpr char kConfig[] = R"pb(
  work_dir: "/run"
  randomness { seed: 1 }
  model {
    sequential {
      layers { linear { out_features: 16 } }
      layers { batch_norm1d {} }
      layers { linear { out_features: 3 } }
      loss { cross_entropy {} }
    }
  }
  train_dataloader {
    batch_size: 4
    sampler { shuffle: true }
  }
  train_cfg { by_epoch: false max_iters: 60 }
  optim_wrapper {
    optimizer { adamw { lr: 0.01 } }
    clip_grad { max_norm: 1 }
  }
  param_scheduler { linear { by_epoch: false end: 50 } }
  default_hooks { logger { interval: 5 } }
  custom_hooks {
    config {
      [hooks/EMAHook] {}
    }
  }
)pb";
constexpr size_t kIters = 60;

// What was sent until the end of each iteration.
class SentUntil : public Hook {
 public:
  SentUntil(const GlooRank& rank, std::vector<size_t>* own,
            std::vector<size_t>* gradients)
      : rank_(rank), own_(own), gradients_(gradients) {}
  absl::string_view name() const override { return "sent_until"; }
  Priority priority() const override { return Priority::kLowest; }
  absl::Status AfterTrainIter(RunContext&, const IterInfo&,
                              const LogVars&) override {
    own_->push_back(rank_.own.names().size());
    gradients_->push_back(rank_.collectives.names().size());
    return absl::OkStatus();
  }

 private:
  const GlooRank& rank_;
  std::vector<size_t>* const own_;
  std::vector<size_t>* const gradients_;
};

absl::StatusOr<std::unique_ptr<GradientReducer>> NewReducer(
    ProcessGroup& group, const std::vector<NamedTensor>& params,
    const std::vector<NamedTensor>& buffers) {
  return CreateDdpReducer(group, params, buffers, {});
}

absl::Status Train(const GlooRank& rank, std::unique_ptr<Hook> hook,
                   int64_t samples = 64) {
  GRAPNEL_ASSIGN_OR_RETURN(
      const runner::v1::RunnerConfig config,
      ParseRunnerConfig(kConfig, ConfigFormat::kText, "config"));
  io::MemEnv env;
  MemoryRunLog log;
  // An iteration takes microseconds: ranks ask each other about a stop once a
  // second, and at least every 1,000 iterations.
  const FakeClock clock(absl::Microseconds(1));
  RunnerOptions options;
  options.env = &env;
  options.log = &log;
  options.clock = &clock;
  options.process_group = &rank.group;
  options.make_gradient_reducer = &NewReducer;
  GRAPNEL_ASSIGN_OR_RETURN(
      options.train_dataset,
      TensorDataset::Create(ops::ones({samples, 5}),
                            ops::arange(samples, at::kLong).remainder(3)));
  if (hook != nullptr) options.hooks.push_back(Schedule(std::move(hook)));
  GRAPNEL_ASSIGN_OR_RETURN(const std::unique_ptr<Runner> runner,
                           Runner::Create(config, std::move(options)));
  return runner->Train();
}

TEST(RunnerCollectivesTest, AnIterationSendsItsGradientsAndNothingElse) {
  for (const int num_ranks : {2, 4}) {
    SCOPED_TRACE(num_ranks);
    std::vector<std::vector<size_t>> own(num_ranks), gradients(num_ranks);
    EXPECT_THAT(RunGlooRanks(num_ranks,
                             [&](const GlooRank& rank) {
                               return Train(rank, std::make_unique<SentUntil>(
                                                      rank, &own[rank.rank],
                                                      &gradients[rank.rank]));
                             }),
                Each(IsOk()));
    for (int rank = 0; rank < num_ranks; ++rank) {
      ASSERT_THAT(own[rank], SizeIs(kIters));
      // The first one also asks about a stop.
      for (size_t i = 2; i < kIters; ++i) {
        EXPECT_EQ(own[rank][i], own[rank][1]) << "iteration " << i + 1;
        EXPECT_EQ(gradients[rank][i], gradients[rank][i - 1] + 1)
            << "iteration " << i + 1;
      }
    }
  }
}

// Ranks ask each other for much with the real reducer: none takes that for the
// error of one which doesn't come so far.
TEST(RunnerCollectivesTest, WhatOneRankLacksAtTheStartIsToldOnAll) {
  const std::vector<absl::Status> said =
      RunGlooRanks(3, [](const GlooRank& rank) {
        return Train(rank, nullptr, /*samples=*/rank.rank == 1 ? 1 : 64);
      });
  EXPECT_THAT(said[1], StatusIs(absl::StatusCode::kInvalidArgument,
                                StartsWith("train_dataloader: ")));
  for (const int other : {0, 2}) {
    EXPECT_THAT(said[other],
                StatusIs(absl::StatusCode::kInvalidArgument,
                         absl::StrCat("rank 1: ", said[1].message())));
  }
}

}  // namespace
}  // namespace grapnel
