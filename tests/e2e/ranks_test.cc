// Runs of several ranks, which are threads here: what all of them do together,
// and what the first one does alone.

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/data/sample.h"
#include "grapnel/data/tensor_dataset.h"
#include "grapnel/dist/fake_gradient_reducer.h"
#include "grapnel/dist/fake_process_group.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/checkpoint_manifest.pb.h"
#include "grapnel/io/mem_env.h"
#include "grapnel/loggers/memory_run_log.h"
#include "grapnel/loggers/run_log.h"
#include "grapnel/models/callback_model.h"
#include "grapnel/models/log_vars.h"
#include "grapnel/models/model.h"
#include "grapnel/optim/optim_wrapper.h"
#include "grapnel/optim/optim_wrapper.pb.h"
#include "grapnel/runner/config_file.h"
#include "grapnel/runner/hook_registry.h"
#include "grapnel/runner/run_checkpoint.h"
#include "grapnel/runner/run_state.pb.h"
#include "grapnel/runner/runner.h"
#include "grapnel/runner/runner_config.pb.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::DoubleEq;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr char kConfig[] = R"pb(
  work_dir: "/run"
  randomness { seed: 1 }
  model {
    sequential {
      layers { linear { out_features: 16 } }
      layers { batch_norm1d {} }
      layers { relu {} }
      layers { dropout { p: 0.2 } }
      layers { linear { out_features: 3 } }
      loss { cross_entropy {} }
    }
  }
  train_dataloader {
    batch_size: 4
    sampler { shuffle: true }
  }
  val_dataloader { batch_size: 4 }
  val_evaluator { accuracy {} }
  train_cfg { max_epochs: 3 }
  optim_wrapper {
    optimizer { adamw { lr: 0.01 } }
    clip_grad { max_norm: 1 }
  }
  default_hooks {
    checkpoint { interval: 1 max_keep_ckpts: 2 save_best: "accuracy/top1" }
    logger { interval: 2 }
  }
  custom_hooks {
    config {
      [hooks/EMAHook] { momentum: 0.1 }
    }
  }
)pb";

// 22 samples are 6 for each of 4 ranks, of which two come twice.
constexpr int64_t kSamples = 22;

std::unique_ptr<Dataset> NewDataset(int64_t samples) {
  auto dataset = TensorDataset::Create(
      ops::arange(samples * 5, at::kFloat).reshape({samples, 5}).div_(100),
      ops::arange(samples, at::kLong).remainder(3));
  EXPECT_THAT(dataset, IsOk());
  return *std::move(dataset);
}

// What a test does to the ranks.
struct Changes {
  std::function<void(runner::v1::RunnerConfig& config, int rank)> config;
  // Its own, by rank: at most one a rank.
  std::function<std::unique_ptr<Hook>(int rank)> hook;
  std::function<const std::atomic<int>*(int rank)> interrupt;
  std::function<absl::Time(int rank)> deadline;
  // In place of the configuration's.
  std::function<std::unique_ptr<Model>()> model;
  int64_t samples = kSamples;
};

Changes ForEpochs(int64_t epochs) {
  Changes changes;
  changes.config = [epochs](runner::v1::RunnerConfig& config, int) {
    config.mutable_train_cfg()->set_max_epochs(epochs);
  };
  return changes;
}

Changes Resumed() {
  Changes changes;
  changes.config = [](runner::v1::RunnerConfig& config, int) {
    config.set_resume(true);
  };
  return changes;
}

// Ranks with folders of their own: but rank 0's they stay empty.
class RanksTest : public ::testing::Test {
 protected:
  // Trains on `num_ranks`, and returns what Train gave, by rank.
  std::vector<absl::Status> Train(int num_ranks, const Changes& changes = {}) {
    logs_.clear();
    params_.assign(num_ranks, {});
    buffers_.assign(num_ranks, {});
    iters_.assign(num_ranks, -1);
    for (int rank = 0; rank < num_ranks; ++rank) {
      logs_.push_back(std::make_unique<MemoryRunLog>());
      if (static_cast<int>(envs_.size()) <= rank) {
        envs_.push_back(std::make_unique<io::MemEnv>());
      }
    }
    return RunRanks(
        num_ranks,
        [&](ProcessGroup& group) { return TrainRank(group, changes); },
        absl::Seconds(30));
  }

  absl::Status TrainRank(ProcessGroup& group, const Changes& changes) {
    GRAPNEL_ASSIGN_OR_RETURN(
        runner::v1::RunnerConfig config,
        ParseRunnerConfig(kConfig, ConfigFormat::kText, "config"));
    const int rank = group.rank();
    if (changes.config != nullptr) changes.config(config, rank);
    RunnerOptions options;
    options.env = envs_[rank].get();
    options.log = logs_[rank].get();
    options.process_group = &group;
    options.make_gradient_reducer = [](ProcessGroup& group,
                                       const std::vector<NamedTensor>& params,
                                       const std::vector<NamedTensor>&)
        -> absl::StatusOr<std::unique_ptr<GradientReducer>> {
      return std::make_unique<FakeGradientReducer>(group, params);
    };
    if (changes.model != nullptr) options.model = changes.model();
    options.train_dataset = NewDataset(changes.samples);
    if (config.has_val_dataloader()) {
      options.val_dataset = NewDataset(kSamples - 3);
    }
    if (changes.hook != nullptr) {
      if (auto hook = changes.hook(rank)) {
        options.hooks.push_back(Schedule(std::move(hook)));
      }
    }
    if (changes.interrupt != nullptr)
      options.interrupt = changes.interrupt(rank);
    GRAPNEL_ASSIGN_OR_RETURN(const std::unique_ptr<Runner> runner,
                             Runner::Create(config, std::move(options)));
    const absl::Status status =
        changes.deadline == nullptr
            ? runner->Train()
            : runner->TrainUntil(changes.deadline(rank)).status();
    iters_[rank] = runner->context().iter();
    for (const NamedTensor& param : runner->context().model().parameters()) {
      params_[rank].push_back(param.tensor.detach().clone());
    }
    for (const NamedTensor& buffer : runner->context().model().buffers()) {
      buffers_[rank].push_back(buffer.tensor.clone());
    }
    return status;
  }

  void ExpectClose(const std::vector<at::Tensor>& expected) const {
    for (const auto& params : params_) {
      ASSERT_EQ(params.size(), expected.size());
      for (size_t i = 0; i < params.size(); ++i) {
        EXPECT_TRUE(ops::allclose(params[i], expected[i], 1e-5, 1e-6))
            << i << ", off by "
            << params[i].sub(expected[i]).abs().max().item<double>();
      }
    }
  }

  void ExpectSameParams() const {
    for (const auto& params : params_) {
      ASSERT_EQ(params.size(), params_[0].size());
      for (size_t i = 0; i < params.size(); ++i) {
        EXPECT_TRUE(ops::equal(params[i], params_[0][i])) << i;
      }
    }
  }

  std::vector<std::unique_ptr<io::MemEnv>> envs_;
  std::vector<std::unique_ptr<MemoryRunLog>> logs_;
  std::vector<std::vector<at::Tensor>> params_, buffers_;  // By rank.
  std::vector<int64_t> iters_;
};

TEST_F(RanksTest, TrainOneModelAndTheFirstAloneWrites) {
  for (const int num_ranks : {1, 2, 4}) {
    SCOPED_TRACE(num_ranks);
    envs_.clear();
    EXPECT_THAT(Train(num_ranks), Each(IsOk()));
    ExpectSameParams();
    EXPECT_THAT(iters_, Each(iters_[0]));
    const auto contents = io::ReadCheckpoint(*envs_[0], "/run/epoch_3");
    ASSERT_THAT(contents, IsOk());
    EXPECT_EQ(contents->manifest().world_size(), num_ranks);
    const auto state = ReadRunState(*contents);
    ASSERT_THAT(state, IsOk());
    EXPECT_EQ(state->ranks_size(), num_ranks == 1 ? 0 : num_ranks);
    EXPECT_TRUE(envs_[0]->FileExists("/run/epoch_2/manifest.pb"));
    EXPECT_FALSE(envs_[0]->FileExists("/run/epoch_1/manifest.pb"));
    for (int rank = 1; rank < num_ranks; ++rank) {
      EXPECT_THAT(
          envs_[rank]->ListDir("/").value_or(std::vector<std::string>()),
          IsEmpty());
      EXPECT_THAT(logs_[rank]->messages(), IsEmpty());
    }
  }
}

TEST_F(RanksTest, GoOnFromACheckpointThatOnlyTheFirstSees) {
  ASSERT_THAT(Train(2), Each(IsOk()));
  const std::vector<at::Tensor> whole = params_[0];
  // Batch norm's, which nothing makes one.
  const std::vector<std::vector<at::Tensor>> buffers = buffers_;
  EXPECT_FALSE(ops::equal(buffers[0][0], buffers[1][0]));
  envs_.clear();
  ASSERT_THAT(Train(2, ForEpochs(2)), Each(IsOk()));
  ASSERT_THAT(Train(2, Resumed()), Each(IsOk()));
  ExpectSameParams();
  for (size_t i = 0; i < whole.size(); ++i) {
    EXPECT_TRUE(ops::equal(params_[0][i], whole[i])) << i;
  }
  for (const int rank : {0, 1}) {
    ASSERT_THAT(buffers_[rank], SizeIs(buffers[rank].size()));
    for (size_t i = 0; i < buffers[rank].size(); ++i) {
      EXPECT_TRUE(ops::equal(buffers_[rank][i], buffers[rank][i]))
          << "rank " << rank << ", " << i;
    }
  }
}

// Of rank 1: fails at its fifth iteration, or asks for a stop there.
class AtIter : public Hook {
 public:
  explicit AtIter(std::function<absl::Status(RunContext&)> act)
      : act_(std::move(act)) {}
  absl::string_view name() const override { return "at_iter"; }
  absl::Status AfterTrainIter(RunContext& run, const IterInfo&,
                              const LogVars&) override {
    return run.iter() == 4 ? act_(run) : absl::OkStatus();
  }

 private:
  const std::function<absl::Status(RunContext&)> act_;
};

// The parameters with which a rank validates: the average's.
class SeenByValidation : public Hook {
 public:
  explicit SeenByValidation(std::vector<at::Tensor>* seen) : seen_(seen) {}
  absl::string_view name() const override { return "seen_by_validation"; }
  absl::Status AfterValIter(RunContext& run, const IterInfo&,
                            const Predictions&) override {
    seen_->clear();
    for (const NamedTensor& param : run.model().parameters()) {
      seen_->push_back(param.tensor.detach().clone());
    }
    return absl::OkStatus();
  }

 private:
  std::vector<at::Tensor>* const seen_;
};

TEST_F(RanksTest, HaveOneAverage) {
  std::vector<std::vector<at::Tensor>> seen(3);
  Changes changes;
  changes.hook = [&](int rank) {
    return std::make_unique<SeenByValidation>(&seen[rank]);
  };
  ASSERT_THAT(Train(3, changes), Each(IsOk()));
  ASSERT_EQ(seen[0].size(), params_[0].size());
  EXPECT_FALSE(ops::equal(seen[0][0], params_[0][0]));
  for (size_t i = 0; i < seen[0].size(); ++i) {
    EXPECT_TRUE(ops::equal(seen[1][i], seen[0][i])) << i;
    EXPECT_TRUE(ops::equal(seen[2][i], seen[0][i])) << i;
  }
}

TEST_F(RanksTest, ScaleTheLrByTheBatchOfAll) {
  std::vector<double> lrs(3);
  Changes changes;
  changes.config = [](runner::v1::RunnerConfig& config, int) {
    config.mutable_auto_scale_lr()->set_enable(true);
    config.mutable_auto_scale_lr()->set_base_batch_size(8);
  };
  changes.hook = [&](int rank) {
    return std::make_unique<AtIter>([&lrs, rank](RunContext& run) {
      lrs[rank] = *run.optim_wrapper()->logged_lrs()[0].second;
      return absl::OkStatus();
    });
  };
  ASSERT_THAT(Train(3, changes), Each(IsOk()));
  EXPECT_THAT(lrs, Each(DoubleEq(0.01 * 3 * 4 / 8)));
}

TEST_F(RanksTest, AnErrorOfOneIsEveryones) {
  Changes changes;
  changes.hook = [](int rank) {
    return std::make_unique<AtIter>([rank](RunContext&) {
      return rank == 1 ? absl::DataLossError("it is broken") : absl::OkStatus();
    });
  };
  const std::vector<absl::Status> statuses = Train(3, changes);
  for (const absl::Status& status : statuses) {
    EXPECT_THAT(status.message(), HasSubstr("it is broken"));
  }
  EXPECT_THAT(statuses[2].message(), HasSubstr("rank 1: "));
  EXPECT_THAT(logs_[1]->messages(), ElementsAre(HasSubstr("it is broken")));
}

TEST_F(RanksTest, StopTogetherWhereOneIsAskedTo) {
  Changes changes;
  changes.hook = [](int rank) {
    return std::make_unique<AtIter>([rank](RunContext& run) {
      if (rank == 1) run.RequestStop("it is enough");
      return absl::OkStatus();
    });
  };
  EXPECT_THAT(Train(3, changes), Each(IsOk()));
  EXPECT_THAT(iters_, Each(iters_[0]));
  ExpectSameParams();
  EXPECT_TRUE(envs_[0]->FileExists("/run/last_checkpoint"));
}

TEST_F(RanksTest, AnInterruptOfOneSavesTheRunOfAll) {
  std::atomic<int> interrupt{0};
  Changes changes = ForEpochs(50);
  changes.hook = [&](int rank) {
    return std::make_unique<AtIter>([&interrupt, rank](RunContext&) {
      if (rank == 2) interrupt = 1;
      return absl::OkStatus();
    });
  };
  static const std::atomic<int> none{0};
  changes.interrupt = [&](int rank) { return rank == 2 ? &interrupt : &none; };
  for (const absl::Status& status : Train(3, changes)) {
    EXPECT_TRUE(absl::IsCancelled(status)) << status;
  }
  EXPECT_THAT(iters_, Each(iters_[0]));
  ASSERT_GT(iters_[0], 4);
  const auto last = io::FindLatestCheckpoint(*envs_[0], "/run", nullptr);
  ASSERT_THAT(last, IsOk());
  // And all go on from there.
  const std::vector<at::Tensor> before = params_[0];
  Changes resumed = Resumed();
  resumed.config = [](runner::v1::RunnerConfig& config, int) {
    config.mutable_train_cfg()->set_max_epochs(50);
    config.set_resume(true);
  };
  ASSERT_THAT(Train(3, resumed), Each(IsOk()));
  EXPECT_EQ(iters_[0], 50 * 2);
  ExpectSameParams();
}

TEST_F(RanksTest, ADeadlineOfOneEndsAllAndSaves) {
  Changes changes = ForEpochs(100000);
  // Evaluated where the runner is there and has only to train.
  changes.deadline = [](int rank) {
    return rank == 1 ? absl::Now() + absl::Seconds(2) : absl::InfiniteFuture();
  };
  EXPECT_THAT(Train(3, changes), Each(IsOk()));
  EXPECT_THAT(iters_, Each(iters_[0]));
  EXPECT_GT(iters_[0], 0);
  ExpectSameParams();
  EXPECT_TRUE(envs_[0]->FileExists("/run/last_checkpoint"));
}

// ---- Accumulation ----

// Whose steps don't depend on how samples lie on ranks. With windows of 2 and 9
// iterations of 8 samples, 4 in the last of an epoch.
constexpr char kSplittable[] = R"pb(
  work_dir: "/run"
  randomness { seed: 1 }
  train_dataloader { sampler { shuffle: true } }
  train_cfg { max_epochs: 3 }
  default_hooks {
    checkpoint { by_epoch: false interval: 1 }
    logger { interval: 2 }
  }
)pb";

// A third of the samples doesn't count, so that ranks' batches weigh otherwise.
constexpr char kMasked[] = R"pb(
  model {
    sequential {
      layers { linear { out_features: 16 } }
      layers { relu {} }
      layers { linear { out_features: 3 } }
      loss { cross_entropy { ignore_index: 2 } }
    }
  }
  optim_wrapper {
    optimizer { sgd { lr: 0.5 momentum: 0.9 } }
    accumulate_by: SAMPLES
    accumulative_counts: 2
  }
)pb";

// The whole batch has 8 samples, on however many ranks.
Changes Splitting(const std::string& more, int num_ranks) {
  Changes changes;
  changes.samples = 20;  // As many on each rank.
  changes.config = [more, num_ranks](runner::v1::RunnerConfig& config, int) {
    const auto parsed = ParseRunnerConfig(absl::StrCat(kSplittable, more),
                                          ConfigFormat::kText, "config");
    ASSERT_THAT(parsed, IsOk());
    config = *parsed;
    config.mutable_train_dataloader()->set_batch_size(8 / num_ranks);
  };
  return changes;
}

TEST_F(RanksTest, BySamplesStepAsOneProcess) {
  ASSERT_THAT(Train(1, Splitting(kMasked, 1)), Each(IsOk()));
  const std::vector<at::Tensor> whole = params_[0];
  envs_.clear();
  ASSERT_THAT(Train(2, Splitting(kMasked, 2)), Each(IsOk()));
  ExpectClose(whole);
  // By iterations they don't, or the samples would be too easy.
  envs_.clear();
  Changes by_iterations = Splitting(kMasked, 2);
  by_iterations.config = [split = by_iterations.config](
                             runner::v1::RunnerConfig& config, int rank) {
    split(config, rank);
    config.mutable_optim_wrapper()->clear_accumulate_by();
  };
  ASSERT_THAT(Train(2, by_iterations), Each(IsOk()));
  EXPECT_FALSE(ops::allclose(params_[0][0], whole[0], 1e-3, 1e-4));
}

// From a checkpoint of each iteration, in the middle of a window too.
TEST_F(RanksTest, GoOnInTheMiddleOfAWindowToTheSameBits) {
  for (const char* unit : {"ITERATIONS", "SAMPLES"}) {
    SCOPED_TRACE(unit);
    // Batch norm and dropout as well.
    const auto change = [unit](int cut) {
      Changes changes;
      changes.config = [unit, cut](runner::v1::RunnerConfig& config, int) {
        auto& optim = *config.mutable_optim_wrapper();
        optim.set_accumulative_counts(4);
        optim.set_accumulate_by(
            unit[0] == 'S' ? optim::v1::OptimWrapperConfig::SAMPLES
                           : optim::v1::OptimWrapperConfig::ITERATIONS);
        auto& checkpoint =
            *config.mutable_default_hooks()->mutable_checkpoint();
        checkpoint.set_by_epoch(false);
        checkpoint.clear_max_keep_ckpts();
        if (cut == 0) return;
        config.set_resume(true);
        config.set_load_from(absl::StrCat("/run/iter_", cut));
      };
      return changes;
    };
    envs_.clear();
    ASSERT_THAT(Train(3, change(0)), Each(IsOk()));
    const std::vector<at::Tensor> whole = params_[0];
    ASSERT_EQ(iters_[0], 6);
    const auto contents = io::ReadCheckpoint(*envs_[0], "/run/iter_2");
    ASSERT_THAT(contents, IsOk());
    const TensorMap* gradients = contents->FindSection("gradients");
    ASSERT_NE(gradients, nullptr);
    EXPECT_EQ(gradients->size(), 3 * whole.size());
    for (int cut = 1; cut < 6; ++cut) {
      ASSERT_THAT(Train(3, change(cut)), Each(IsOk()));
      ExpectSameParams();
      for (size_t i = 0; i < whole.size(); ++i) {
        EXPECT_TRUE(ops::equal(params_[0][i], whole[i])) << cut << ", " << i;
      }
    }
  }
}

// With half of a window behind them, which has weights.
TEST_F(RanksTest, OfAnotherNumberGoOnWithTheMean) {
  ASSERT_THAT(Train(1, Splitting(kMasked, 1)), Each(IsOk()));
  const std::vector<at::Tensor> whole = params_[0];
  const auto resumed = [](int num_ranks) {
    const std::string from = "resume: true load_from: '/run/iter_3'";
    return Splitting(absl::StrCat(kMasked, from), num_ranks);
  };
  for (const auto& [before, after] :
       {std::make_pair(2, 1), std::make_pair(2, 4), std::make_pair(1, 2)}) {
    SCOPED_TRACE(absl::StrCat(before, " to ", after));
    envs_.clear();
    ASSERT_THAT(Train(before, Splitting(kMasked, before)), Each(IsOk()));
    ASSERT_THAT(Train(after, resumed(after)), Each(IsOk()));
    ExpectClose(whole);
    EXPECT_THAT(
        logs_[0]->messages(RunLog::Level::kWarning),
        Contains(HasSubstr("as their mean")).Times(before == 1 ? 0 : 1));
  }
}

// A linear model whose functions know the gradient of its squared error.
std::unique_ptr<Model> NewCallbackModel() {
  const at::Tensor w = ops::linspace(-1, 1, 5);
  CallbackModel::Options options;
  options.parameters = {{"w", w}};
  options.train_step = [w](const Batch& batch, TensorMap* gradients,
                           LogVars* losses) {
    const at::Tensor off = batch.inputs.matmul(w.detach()).sub(batch.targets);
    losses->Add("loss", off.square().mean());
    return gradients->Add("w", batch.inputs.t().matmul(off).mul(
                                   2.0 / static_cast<double>(batch.size())));
  };
  auto model = CallbackModel::Create(std::move(options));
  EXPECT_THAT(model, IsOk());
  return *std::move(model);
}

TEST_F(RanksTest, GradientsOfFunctionsAreThoseOfOneProcess) {
  constexpr char kSgd[] =
      "optim_wrapper { optimizer { sgd { lr: 0.05 momentum: 0.9 } } }";
  std::vector<at::Tensor> alone;
  for (const int num_ranks : {1, 2, 4}) {
    SCOPED_TRACE(num_ranks);
    envs_.clear();
    Changes changes = Splitting(kSgd, num_ranks);
    changes.model = &NewCallbackModel;
    ASSERT_THAT(Train(num_ranks, changes), Each(IsOk()));
    ExpectSameParams();
    if (num_ranks == 1) alone = params_[0];
    ExpectClose(alone);
  }
}

// Two parts with an optimizer each: one that makes points of the data's, and
// one that tells both apart.
class Pair : public Model {
 public:
  // With `one_loss` both learn from one backward pass, and else each from its
  // own, of which the maker's leaves gradients in the judge too.
  explicit Pair(bool one_loss) : one_loss_(one_loss) {
    parameters_ = {{"maker.weight", ops::linspace(-1, 1, 10).reshape({5, 2})},
                   {"judge.weight", ops::linspace(-0.5, 1, 2).reshape({2, 1})}};
    for (NamedTensor& param : parameters_) param.tensor.requires_grad_();
  }

  absl::Status TrainStep(const Batch& batch, OptimWrapper& optim,
                         LogVars* log_vars) override {
    GRAPNEL_ASSIGN_OR_RETURN(OptimWrapper * maker, optim.Get("maker"));
    GRAPNEL_ASSIGN_OR_RETURN(OptimWrapper * judge, optim.Get("judge"));
    const double weight = static_cast<double>(batch.size());
    optim.BeginStep();
    const at::Tensor made = Made(batch);
    const at::Tensor loss =
        Judged(batch.inputs.narrow(1, 0, 2), 1)
            .add(Judged(one_loss_ ? made : made.detach(), 0));
    log_vars->Clear();
    log_vars->Add("loss", loss.detach());
    if (one_loss_) {
      GRAPNEL_RETURN_IF_ERROR(maker->Update(loss, weight));
      return judge->UpdateFromGradients({}, weight);
    }
    GRAPNEL_RETURN_IF_ERROR(judge->Update(loss, weight));
    return maker->Update(Judged(made, 1), weight);
  }

  absl::Status ComputeLosses(const Batch&, LogVars*) override {
    return absl::UnimplementedError("it has a TrainStep of its own");
  }
  absl::Status ValStep(const Batch&, Predictions*) override {
    return absl::UnimplementedError("it isn't validated");
  }
  const std::vector<NamedTensor>& parameters() const override {
    return parameters_;
  }
  const std::vector<NamedTensor>& buffers() const override { return buffers_; }
  // Or ranks, which are threads, would wait for each other's steps.
  bool has_own_generator() const override { return true; }
  void SetTraining(bool training) override { training_ = training; }
  bool training() const override { return training_; }

 private:
  at::Tensor Made(const Batch& batch) const {
    return batch.inputs.matmul(parameters_[0].tensor).tanh();
  }
  at::Tensor Judged(const at::Tensor& points, double as) const {
    return points.matmul(parameters_[1].tensor).sub(as).square().mean();
  }

  const bool one_loss_;
  std::vector<NamedTensor> parameters_, buffers_;
  bool training_ = true;
};

constexpr char kPair[] = R"pb(
  optim_wrapper {
    optimizers {
      name: "maker"
      pattern: "^maker"
      optimizer { sgd { lr: 0.2 momentum: 0.9 } }
    }
    optimizers {
      name: "judge"
      pattern: "^judge"
      optimizer { sgd { lr: 0.1 } }
      accumulative_counts: %d
    }
  }
)pb";

Changes SplittingPair(bool one_loss, int num_ranks, int cut = 0) {
  std::string config =
      absl::StrReplaceAll(kPair, {{"%d", one_loss ? "1" : "2"}});
  if (cut > 0) {
    absl::StrAppend(&config, "resume: true load_from: '/run/iter_", cut, "'");
  }
  Changes changes = Splitting(config, num_ranks);
  changes.model = [one_loss] { return std::make_unique<Pair>(one_loss); };
  return changes;
}

TEST_F(RanksTest, SeveralOptimizersStepAsInOneProcess) {
  for (const bool one_loss : {false, true}) {
    SCOPED_TRACE(one_loss);
    envs_.clear();
    ASSERT_THAT(Train(1, SplittingPair(one_loss, 1)), Each(IsOk()));
    const std::vector<at::Tensor> whole = params_[0];
    envs_.clear();
    ASSERT_THAT(Train(2, SplittingPair(one_loss, 2)), Each(IsOk()));
    ExpectSameParams();
    ExpectClose(whole);
    EXPECT_FALSE(ops::allclose(whole[1], Pair(one_loss).parameters()[1].tensor,
                               1e-2, 1e-2));
  }
}

TEST_F(RanksTest, SeveralOptimizersGoOnToTheSameBits) {
  ASSERT_THAT(Train(2, SplittingPair(false, 2)), Each(IsOk()));
  const std::vector<at::Tensor> whole = params_[0];
  for (int cut = 1; cut < 9; ++cut) {
    ASSERT_THAT(Train(2, SplittingPair(false, 2, cut)), Each(IsOk()));
    ExpectSameParams();
    for (size_t i = 0; i < whole.size(); ++i) {
      EXPECT_TRUE(ops::equal(params_[0][i], whole[i])) << cut << ", " << i;
    }
  }
}

TEST_F(RanksTest, ThatDifferAreNamed) {
  const std::vector<absl::Status> statuses = [&] {
    for (int rank = 0; rank < 2; ++rank) {
      logs_.push_back(std::make_unique<MemoryRunLog>());
      envs_.push_back(std::make_unique<io::MemEnv>());
    }
    params_.assign(2, {});
    buffers_.assign(2, {});
    iters_.assign(2, -1);
    return RunRanks(2, [&](ProcessGroup& group) {
      return TrainRank(group, ForEpochs(3 + group.rank()));
    });
  }();
  for (const absl::Status& status : statuses) {
    EXPECT_THAT(status,
                StatusIs(absl::StatusCode::kFailedPrecondition,
                         HasSubstr("rank 1 isn't like rank 0: its "
                                   "configuration has \"max_epochs: 4\" "
                                   "and not \"max_epochs: 3\"")));
  }
}

// --- Batch norm of all ranks ---

// `num_ranks` that go through the same 16 samples at a time, whatever their
// number: what batch norm takes together alone makes a difference.
Changes ForBatchNorm(int num_ranks, bool sync) {
  Changes changes;
  changes.config = [=](runner::v1::RunnerConfig& config, int) {
    config.mutable_distributed()->set_sync_batch_norm(sync);
    config.mutable_model()
        ->mutable_sequential()
        ->mutable_layers(3)
        ->mutable_dropout()
        ->set_p(0);
    auto& data = *config.mutable_train_dataloader();
    data.set_batch_size(16 / num_ranks);
    data.set_drop_last(true);
    data.mutable_sampler()->set_shuffle(false);
    auto& optim = *config.mutable_optim_wrapper();
    optim.mutable_optimizer()->mutable_sgd()->set_lr(0.03);
    config.mutable_train_cfg()->set_max_epochs(5);
  };
  return changes;
}

double Distance(const std::vector<at::Tensor>& a,
                const std::vector<at::Tensor>& b) {
  double distance = 0;
  EXPECT_EQ(a.size(), b.size());
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    distance = std::max(distance, a[i].sub(b[i]).abs().max().item().toDouble());
  }
  return distance;
}

TEST_F(RanksTest, WithOneBatchNormTrainWhatOneProcessTrains) {
  ASSERT_THAT(Train(1, ForBatchNorm(1, true)), Each(IsOk()));
  const std::vector<at::Tensor> params = params_[0];
  const std::vector<at::Tensor> buffers = buffers_[0];
  envs_.clear();
  ASSERT_THAT(Train(1, ForBatchNorm(1, false)), Each(IsOk()));
  EXPECT_EQ(Distance(params_[0], params), 0);
  for (const int num_ranks : {2, 4}) {
    SCOPED_TRACE(num_ranks);
    envs_.clear();
    ASSERT_THAT(Train(num_ranks, ForBatchNorm(num_ranks, true)), Each(IsOk()));
    ExpectSameParams();
    EXPECT_EQ(Distance(buffers_[num_ranks - 1], buffers_[0]), 0);
    EXPECT_LE(Distance(params_[0], params), 1e-6);
    EXPECT_LE(Distance(buffers_[0], buffers), 1e-6);
  }
  // That is not for nothing.
  envs_.clear();
  ASSERT_THAT(Train(4, ForBatchNorm(4, false)), Each(IsOk()));
  EXPECT_GT(Distance(params_[0], params), 1e-4);
}

TEST_F(RanksTest, WithOneBatchNormAccumulateAndNeedOneSampleEach) {
  const auto accumulate = [](int num_ranks, int64_t batch_size) {
    Changes changes = ForBatchNorm(num_ranks, true);
    changes.config = [=, whole = changes.config](
                         runner::v1::RunnerConfig& config, int rank) {
      whole(config, rank);
      config.mutable_train_dataloader()->set_batch_size(batch_size);
      config.mutable_optim_wrapper()->set_accumulative_counts(3);
    };
    return changes;
  };
  ASSERT_THAT(Train(1, accumulate(1, 2)), Each(IsOk()));
  const std::vector<at::Tensor> params = params_[0];
  const std::vector<at::Tensor> buffers = buffers_[0];
  envs_.clear();
  ASSERT_THAT(Train(2, accumulate(2, 1)), Each(IsOk()));
  ExpectSameParams();
  EXPECT_EQ(Distance(buffers_[1], buffers_[0]), 0);
  // Of two values a norm makes more of how they are rounded.
  EXPECT_LE(Distance(params_[0], params), 1e-5);
  EXPECT_LE(Distance(buffers_[0], buffers), 1e-5);
  EXPECT_THAT(Train(1, accumulate(1, 1))[0],
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("batch_size: must be >= 2")));
}

// Fails where the other ranks go on into the model.
class FailsBeforeIter : public Hook {
 public:
  absl::string_view name() const override { return "fails_before_iter"; }
  absl::Status BeforeTrainIter(RunContext& run, const IterInfo&) override {
    return run.iter() == 2 ? absl::DataLossError("it is broken")
                           : absl::OkStatus();
  }
};

TEST_F(RanksTest, ThatWaitInABatchNormEndWithTheErrorOfAnother) {
  Changes changes = ForBatchNorm(2, true);
  changes.hook = [](int rank) {
    return rank == 1 ? std::make_unique<FailsBeforeIter>() : nullptr;
  };
  const std::vector<absl::Status> statuses = Train(2, changes);
  EXPECT_THAT(statuses[0],
              StatusIs(absl::StatusCode::kUnavailable,
                       AllOf(HasSubstr("synchronizing batch norm: "),
                             HasSubstr("rank 1: hook \"fails_before_iter\": "
                                       "BeforeTrainIter: it is broken"))));
  EXPECT_THAT(statuses[1],
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("broken")));
}

// By samples each rank would weigh its losses differently, and leave some out.
TEST_F(RanksTest, WithOneBatchNormCountByIterations) {
  Changes changes = ForBatchNorm(2, true);
  const auto by_iterations = changes.config;
  changes.config = [&](runner::v1::RunnerConfig& config, int rank) {
    by_iterations(config, rank);
    config.mutable_optim_wrapper()->set_accumulate_by(
        optim::v1::OptimWrapperConfig::SAMPLES);
  };
  EXPECT_THAT(Train(2, changes),
              Each(StatusIs(absl::StatusCode::kInvalidArgument,
                            HasSubstr("sync_batch_norm: can't be with "
                                      "accumulate_by: SAMPLES"))));
  EXPECT_THAT(Train(1, changes), Each(IsOk()));
}

TEST_F(RanksTest, OfAModelThatCannotSyncBatchNormAreRefused) {
  Changes changes;
  changes.config = [](runner::v1::RunnerConfig& config, int) {
    config.mutable_distributed()->set_sync_batch_norm(true);
    config.clear_model();
  };
  changes.model = []() -> std::unique_ptr<Model> {
    CallbackModel::Options options;
    options.parameters = {{"weight", ops::ones({5})}};
    auto model = CallbackModel::Create(std::move(options));
    EXPECT_THAT(model, IsOk());
    return *std::move(model);
  };
  EXPECT_THAT(Train(2, changes),
              Each(StatusIs(absl::StatusCode::kUnimplemented,
                            HasSubstr("distributed: sync_batch_norm: this kind "
                                      "of model"))));
}

// --- Logs of all ranks ---

// What the model gave to log as its loss, iteration after iteration.
class NoteLosses : public Hook {
 public:
  explicit NoteLosses(std::vector<double>* losses) : losses_(losses) {}
  absl::string_view name() const override { return "note_losses"; }
  absl::Status AfterTrainIter(RunContext&, const IterInfo&,
                              const LogVars& log_vars) override {
    for (const NamedTensor& var : log_vars) {
      if (var.name == "loss") losses_->push_back(var.tensor.item().toDouble());
    }
    return absl::OkStatus();
  }

 private:
  std::vector<double>* const losses_;
};

// The number behind `name` in each line that has it.
std::vector<double> NumbersIn(const MemoryRunLog& log, absl::string_view name) {
  std::vector<double> numbers;
  for (const std::string& line : log.messages()) {
    const size_t at = line.find(name.data(), 0, name.size());
    if (at == std::string::npos) continue;
    numbers.push_back(std::stod(line.substr(at + name.size())));
  }
  return numbers;
}

TEST_F(RanksTest, LogTheMeanOfTheirLossesIfAskedTo) {
  for (const bool reduce : {false, true}) {
    SCOPED_TRACE(reduce);
    envs_.clear();
    std::vector<double> losses[2];
    Changes changes;
    changes.config = [reduce](runner::v1::RunnerConfig& config, int) {
      auto& log = *config.mutable_log_processor();
      log.set_reduce_logged(reduce);
      log.set_window_size(1);
      log.set_num_digits(17);
      config.mutable_default_hooks()->mutable_logger()->set_interval(1);
      config.clear_val_dataloader();
      config.clear_val_evaluator();
      config.mutable_default_hooks()->mutable_checkpoint()->clear_save_best();
    };
    changes.hook = [&](int rank) {
      return std::make_unique<NoteLosses>(&losses[rank]);
    };
    ASSERT_THAT(Train(2, changes), Each(IsOk()));
    ASSERT_THAT(losses[0], SizeIs(9));
    ASSERT_THAT(losses[1], SizeIs(9));
    const std::vector<double> logged = NumbersIn(*logs_[0], "  loss: ");
    ASSERT_THAT(logged, SizeIs(9));
    for (size_t i = 0; i < logged.size(); ++i) {
      EXPECT_NE(losses[0][i], losses[1][i]);
      EXPECT_DOUBLE_EQ(
          logged[i], reduce ? (losses[0][i] + losses[1][i]) / 2 : losses[0][i]);
    }
  }
}

}  // namespace
}  // namespace grapnel
