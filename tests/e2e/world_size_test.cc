// Runs that are killed inside an epoch and go on with other ranks, which are
// threads here, or with other batches: every sample of the epoch is trained
// once, in its order, and all else goes on from where it was.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/data/iterable_dataset.h"
#include "grapnel/data/sample.h"
#include "grapnel/data/tensor_dataset.h"
#include "grapnel/dist/fake_gradient_reducer.h"
#include "grapnel/dist/fake_process_group.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/checkpoint_manifest.pb.h"
#include "grapnel/io/mem_env.h"
#include "grapnel/loggers/memory_run_log.h"
#include "grapnel/models/model.h"
#include "grapnel/optim/optim_wrapper.h"
#include "grapnel/runner/hook.h"
#include "grapnel/runner/hook_registry.h"
#include "grapnel/runner/parse_config_for_test.h"
#include "grapnel/runner/run_context.h"
#include "grapnel/runner/runner.h"
#include "grapnel/runner/runner_config.pb.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::AllOf;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;
using ::testing::StartsWith;

// What a step gives doesn't depend on who computes it, but by rounding.
constexpr char kConfig[] = R"pb(
  work_dir: "/run"
  randomness { seed: 1 }
  model {
    sequential {
      layers { linear { out_features: 8 } }
      layers { relu {} }
      layers { linear { out_features: 3 } }
      loss { cross_entropy {} }
    }
  }
  train_dataloader { batch_size: 2 }
  val_dataloader { batch_size: 4 }
  val_evaluator { accuracy {} }
  optim_wrapper { optimizer { adamw { lr: 0.01 } } }
  default_hooks { checkpoint { by_epoch: false interval: 1 } }
  custom_hooks {
    config {
      [type.googleapis.com/grapnel.hooks.v1.EMAHookConfig] { momentum: 0.1 }
    }
  }
)pb";

constexpr char kEpochs[] =
    "train_cfg { max_epochs: 3 } "
    "train_dataloader { sampler { shuffle: true } } "
    "param_scheduler { linear { start_factor: 1 end_factor: 0 "
    "convert_to_iter_based: true } } ";

std::string Batches(int64_t batch_size) {
  return absl::StrCat("&& train_dataloader { batch_size: ", batch_size, " } ");
}

std::unique_ptr<Dataset> NewDataset(int64_t samples) {
  auto dataset = TensorDataset::Create(
      ops::arange(samples * 5, at::kFloat).reshape({samples, 5}).sin(),
      ops::arange(samples, at::kLong).remainder(3));
  EXPECT_THAT(dataset, IsOk());
  return *std::move(dataset);
}

// The samples of NewDataset, pass after pass.
class CountingStream final : public IterableDataset {
 public:
  explicit CountingStream(int64_t samples)
      : dataset_(NewDataset(samples)), samples_(samples) {}
  absl::Status BeginPass(int64_t /*pass*/) override {
    next_ = 0;
    return absl::OkStatus();
  }
  absl::StatusOr<bool> Next(Sample* sample) override {
    if (next_ == samples_) return false;
    GRAPNEL_RETURN_IF_ERROR(dataset_->Get(next_++, sample));
    return true;
  }

 private:
  const std::unique_ptr<Dataset> dataset_;
  const int64_t samples_;
  int64_t next_ = 0;
};

// One iteration, of all ranks.
struct Iteration {
  int64_t epoch = 0;
  int64_t batch_idx = 0;
  int64_t num_batches = 0;
  double rate = 0;
  std::vector<std::vector<int64_t>> indices;  // By rank.
};

// What ranks do, over all runs of a test; safe to use from many threads.
class Record {
 public:
  void Note(int rank, int num_ranks, RunContext& run, const IterInfo& info) {
    const std::lock_guard<std::mutex> lock(mutex_);
    Iteration& iteration = iterations_[run.iter()];
    iteration.epoch = run.epoch();
    iteration.batch_idx = info.batch_idx;
    iteration.num_batches = info.num_batches;
    iteration.rate = *run.optim_wrapper()->logged_lrs().front().second;
    iteration.indices.resize(num_ranks);
    iteration.indices[rank] = info.batch->indices;
  }
  void NoteValidation(int64_t epoch) { validations_.push_back(epoch); }

  const std::map<int64_t, Iteration>& iterations() const { return iterations_; }
  const std::vector<int64_t>& validations() const { return validations_; }

  // Of an epoch, or of all: the samples in the order that ranks shared.
  std::vector<int64_t> Given(int64_t epoch = -1) const {
    std::vector<int64_t> given;
    for (const auto& [iter, iteration] : iterations_) {
      if (epoch >= 0 && iteration.epoch != epoch) continue;
      const size_t size = iteration.indices[0].size();
      for (size_t i = 0; i < size; ++i) {
        for (const auto& of_rank : iteration.indices) {
          EXPECT_EQ(of_rank.size(), size) << "iteration " << iter;
          if (of_rank.size() == size) given.push_back(of_rank[i]);
        }
      }
    }
    return given;
  }

 private:
  std::mutex mutex_;
  std::map<int64_t, Iteration> iterations_;
  std::vector<int64_t> validations_;  // The first rank's.
};

// Notes what its rank begins with and what it trains, and kills it before
// iteration `kill`.
class Watch final : public Hook {
 public:
  Watch(int rank, int num_ranks, int64_t kill, Record* record,
        std::vector<NamedTensor>* start)
      : rank_(rank),
        num_ranks_(num_ranks),
        kill_(kill),
        record_(record),
        start_(start) {}
  absl::string_view name() const override { return "watch"; }
  absl::Status BeforeTrain(RunContext& run) override {
    for (const auto* tensors :
         {&run.model().parameters(), &run.model().buffers()}) {
      for (const NamedTensor& tensor : *tensors) {
        start_->push_back({tensor.name, tensor.tensor.detach().clone()});
      }
    }
    return absl::OkStatus();
  }
  absl::Status BeforeTrainIter(RunContext& run, const IterInfo& info) override {
    if (run.iter() == kill_) return absl::AbortedError("killed");
    record_->Note(rank_, num_ranks_, run, info);
    return absl::OkStatus();
  }
  absl::Status AfterValEpoch(RunContext& run, const Metrics&) override {
    if (rank_ == 0) record_->NoteValidation(run.epoch());
    return absl::OkStatus();
  }

 private:
  const int rank_, num_ranks_;
  const int64_t kill_;
  Record* const record_;
  std::vector<NamedTensor>* const start_;
};

class WorldSizeTest : public ::testing::Test {
 protected:
  // Goes on, or begins. To the end if `kill` is -1. Parts of the config behind
  // "&&" overrule what stands before.
  std::vector<absl::Status> Run(int num_ranks, const std::string& config,
                                int64_t kill = -1) {
    logs_.clear();
    start_.assign(num_ranks, {});
    max_iters_.assign(num_ranks, -1);
    iters_.assign(num_ranks, -1);
    for (int rank = 0; rank < num_ranks; ++rank) {
      logs_.push_back(std::make_unique<MemoryRunLog>());
      if (static_cast<int>(envs_.size()) <= rank) {
        envs_.push_back(std::make_unique<io::MemEnv>());
      }
    }
    return RunRanks(
        num_ranks,
        [&](ProcessGroup& group) { return RunRank(group, config, kill); },
        absl::Seconds(60));
  }

  absl::Status RunRank(ProcessGroup& group, const std::string& more,
                       int64_t kill) {
    const int rank = group.rank();
    runner::v1::RunnerConfig config = ParseConfig(kConfig);
    for (const absl::string_view part : absl::StrSplit(more, "&&")) {
      config.MergeFrom(ParseConfig(std::string(part)));
    }
    config.set_resume(envs_[0]->FileExists("/run/last_checkpoint"));
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
    if (stream_) {
      options.train_stream = std::make_unique<CountingStream>(samples_);
    } else {
      options.train_dataset = NewDataset(samples_);
    }
    options.val_dataset = NewDataset(samples_);
    options.hooks.push_back(Schedule(std::make_unique<Watch>(
        rank, group.world_size(), kill, record_.get(), &start_[rank])));
    GRAPNEL_ASSIGN_OR_RETURN(const std::unique_ptr<Runner> runner,
                             Runner::Create(config, std::move(options)));
    const absl::Status status = runner->Train();
    iters_[rank] = runner->context().iter();
    max_iters_[rank] = runner->context().max_iters();
    return status;
  }

  // Killed there, as all ranks are.
  void Kill(int num_ranks, const std::string& config, int64_t iter) {
    for (const absl::Status& status : Run(num_ranks, config, iter)) {
      EXPECT_THAT(status,
                  StatusIs(absl::StatusCode::kAborted, HasSubstr("killed")));
    }
  }

  void Finish(int num_ranks, const std::string& config) {
    EXPECT_THAT(Run(num_ranks, config), Each(IsOk()));
    EXPECT_THAT(iters_, Each(iters_[0]));
    EXPECT_THAT(max_iters_, Each(iters_[0]));
  }

  void Forget() {
    envs_.clear();
    record_ = std::make_unique<Record>();
  }

  // The order of each epoch, as one rank goes through it alone.
  std::vector<std::vector<int64_t>> Orders(const std::string& config,
                                           int64_t epochs) {
    Forget();
    Finish(1, absl::StrCat(config,
                           "&& default_hooks { checkpoint { interval: "
                           "1000 save_last: false } } "));
    std::vector<std::vector<int64_t>> orders;
    for (int64_t epoch = 0; epoch < epochs; ++epoch) {
      orders.push_back(record_->Given(epoch));
    }
    Forget();
    return orders;
  }

  // That each epoch was gone through in that order, once, filled up from its
  // start with less than one sample for each of the last ranks.
  void ExpectOrders(const std::vector<std::vector<int64_t>>& orders,
                    size_t last_ranks) const {
    for (size_t epoch = 0; epoch < orders.size(); ++epoch) {
      std::vector<int64_t> given = record_->Given(epoch);
      std::vector<int64_t> expected = orders[epoch];
      ASSERT_GE(given.size(), expected.size()) << "epoch " << epoch;
      const size_t filled = given.size() - expected.size();
      ASSERT_LT(filled, last_ranks) << "epoch " << epoch;
      for (size_t i = 0; i < filled; ++i) expected.push_back(expected[i]);
      EXPECT_EQ(given, expected) << "epoch " << epoch;
    }
  }

  // That iterations of an epoch are counted from 0 to its end.
  void ExpectCounted() const {
    int64_t next = 0;
    int64_t epoch = 0;
    const Iteration* before = nullptr;
    for (const auto& [iter, iteration] : record_->iterations()) {
      if (iteration.epoch != epoch) {
        EXPECT_EQ(before->num_batches, next) << "epoch " << epoch;
        epoch = iteration.epoch;
        next = 0;
      }
      EXPECT_EQ(iteration.batch_idx, next++) << "iteration " << iter;
      before = &iteration;
    }
    EXPECT_EQ(before->num_batches, next);
  }

  io::CheckpointContents Newest() const {
    auto latest = io::ReadLatestCheckpoint(*envs_[0], "/run", nullptr);
    EXPECT_THAT(latest, IsOk());
    return latest.ok() ? std::move(latest->contents) : io::CheckpointContents();
  }

  std::vector<std::string> Warnings() const {
    std::vector<std::string> warnings;
    for (const std::string& line : logs_[0]->messages()) {
      if (absl::StrContains(line, "resume: ")) warnings.push_back(line);
    }
    return warnings;
  }

  int64_t samples_ = 22;
  bool stream_ = false;
  std::unique_ptr<Record> record_ = std::make_unique<Record>();
  std::vector<std::unique_ptr<io::MemEnv>> envs_;
  std::vector<std::unique_ptr<MemoryRunLog>> logs_;
  std::vector<int64_t> iters_, max_iters_;       // Of the last run, by rank:
  std::vector<std::vector<NamedTensor>> start_;  // where it began.
};

// Batches of 2 of 22 samples: 11, 6 and 4 an epoch on 1, 2 and 3 ranks.
struct KillCase {
  const char* name;
  std::vector<int> ranks;      // One run after another,
  std::vector<int64_t> kills;  // each killed there, but the last.
  int64_t iters;               // Expected, in all.
};

void PrintTo(const KillCase& c, std::ostream* out) { *out << c.name; }

class KillTest : public WorldSizeTest,
                 public ::testing::WithParamInterface<KillCase> {};

// The iterations: those until the kill; what is left of 22 in batches; and the
// epochs behind that.
INSTANTIATE_TEST_SUITE_P(
    , KillTest,
    ::testing::Values(
        KillCase{"TwoToThreeAtTheFirst", {2, 3}, {1}, 1 + 3 + 4 + 4},
        KillCase{"TwoToThree", {2, 3}, {9}, 9 + 2 + 4},
        KillCase{"TwoToThreeBeforeTheLast", {2, 3}, {5}, 5 + 1 + 4 + 4},
        KillCase{"TwoToThreeAtABorder", {2, 3}, {6}, 6 + 4 + 4},
        KillCase{"ThreeToTwo", {3, 2}, {6}, 6 + 3 + 6},
        KillCase{"ThreeToTwoInTheLast", {3, 2}, {11}, 11 + 1},
        KillCase{"TwoToOne", {2, 1}, {2}, 2 + 7 + 11 + 11},
        KillCase{"OneToTwo", {1, 2}, {14}, 14 + 4 + 6},
        KillCase{"AndBack", {2, 1, 2}, {3, 5}, 3 + 2 + 2 + 6 + 6},
        KillCase{"TwiceInAnEpoch", {2, 3, 1}, {8, 9}, 8 + 1 + 4 + 11},
        KillCase{"TwiceInAnEpochAndAsItIs",
                 {2, 3, 3, 1},
                 {7, 8, 9},
                 7 + 1 + 1 + 3 + 11},
        KillCase{
            "InEveryEpoch", {2, 3, 1, 2}, {2, 6, 8}, 2 + 3 + 1 + 2 + 3 + 6}),
    [](const auto& info) { return std::string(info.param.name); });

TEST_P(KillTest, EverySampleOfTheEpochIsTrainedOnce) {
  const KillCase& c = GetParam();
  const auto orders = Orders(kEpochs, 3);
  for (const auto& order : orders) {
    std::vector<int64_t> sorted = order;
    std::sort(sorted.begin(), sorted.end());
    ASSERT_THAT(sorted, SizeIs(22));
    ASSERT_EQ(std::unique(sorted.begin(), sorted.end()), sorted.end());
  }
  for (size_t i = 0; i < c.kills.size(); ++i) {
    Kill(c.ranks[i], kEpochs, c.kills[i]);
  }
  Finish(c.ranks.back(), kEpochs);
  EXPECT_EQ(iters_[0], c.iters);
  ExpectOrders(orders, 3);
  ExpectCounted();
  // The one of an epoch's end is done again if the kill came behind it.
  std::vector<int64_t> validations = record_->validations();
  validations.erase(std::unique(validations.begin(), validations.end()),
                    validations.end());
  EXPECT_THAT(validations, ElementsAre(1, 2, 3));
  // The line from 0.01 ends with the run, however long its steps were.
  EXPECT_NEAR(record_->iterations().rbegin()->second.rate, 0, 1e-12);
  const io::v1::Progress& progress = Newest().manifest().progress();
  EXPECT_EQ(progress.iter(), c.iters);
  EXPECT_EQ(progress.max_iters(), c.iters);
}

TEST_F(WorldSizeTest, WithoutShufflingToo) {
  const std::string config = "train_cfg { max_epochs: 2 } ";
  const auto orders = Orders(config, 2);
  Kill(2, config, 3);
  Kill(3, absl::StrCat(config, "&& train_dataloader { num_workers: 2 }"), 4);
  Finish(1, config);
  ExpectOrders(orders, 1);
  EXPECT_EQ(record_->Given(0), record_->Given(1));
}

TEST_F(WorldSizeTest, AnotherBatchSizeGoesOnInsideAnEpochToo) {
  const auto orders = Orders(kEpochs, 3);
  Kill(1, kEpochs, 13);
  Kill(1, absl::StrCat(kEpochs, Batches(5)), 15);
  Finish(2, absl::StrCat(kEpochs, Batches(3)));
  // 4 and 10 were given; 8 are left, 4 for each rank.
  EXPECT_EQ(iters_[0], 15 + 2 + 4);
  ExpectOrders(orders, 2);
  ExpectCounted();
}

TEST_F(WorldSizeTest, WhereDropLastLeavesNothingTheEpochIsOver) {
  const std::string config = absl::StrCat(
      kEpochs, Batches(4), "&& train_dataloader { drop_last: true } ");
  const auto orders = Orders(config, 3);
  Kill(1, config, 4);
  Finish(2, config);
  // 6 samples are left, and 3 are no batch.
  EXPECT_EQ(iters_[0], 4 + 2 + 2);
  for (int64_t epoch = 0; epoch < 3; ++epoch) {
    EXPECT_EQ(record_->Given(epoch),
              std::vector<int64_t>(orders[epoch].begin(),
                                   orders[epoch].begin() + 16));
  }
  EXPECT_THAT(record_->validations(), ElementsAre(1, 2, 3));
}

// 24 samples; 12 were given, which 3 ranks go on with without filling up.
TEST_F(WorldSizeTest, ARunByIterationGoesOnInsideAPass) {
  samples_ = 24;
  const std::string by_iter =
      "train_cfg { by_epoch: false max_iters: 11 val_interval: 4 } ";
  for (const std::string sampler :
       {"train_dataloader { sampler { shuffle: true } } ",
        "train_dataloader { sampler { type: INFINITE shuffle: true } } "}) {
    SCOPED_TRACE(sampler);
    const std::string config = absl::StrCat(by_iter, sampler);
    Forget();
    Finish(1, absl::StrCat(config, "&& train_cfg { max_iters: 30 }"));
    std::vector<int64_t> order = record_->Given();
    Forget();
    Kill(2, config, 3);
    Finish(3, config);
    EXPECT_EQ(iters_[0], 11);
    // Two passes and 12 of the third.
    order.resize(12 + 8 * 6);
    EXPECT_EQ(record_->Given(), order);
    const io::v1::Progress& progress = Newest().manifest().progress();
    EXPECT_EQ(progress.pass(), 2);
    EXPECT_EQ(progress.samples_in_pass(), 12);
    EXPECT_THAT(record_->validations(), SizeIs(3));
  }
}

TEST_F(WorldSizeTest, AnInfinitePassNeedsNoFillingUp) {
  samples_ = 7;
  const std::string config =
      "train_cfg { by_epoch: false max_iters: 9 } "
      "train_dataloader { sampler { type: INFINITE shuffle: true } } ";
  Finish(1, absl::StrCat(config, "&& train_cfg { max_iters: 30 }"));
  std::vector<int64_t> order = record_->Given();
  Forget();
  Kill(2, config, 3);
  Kill(3, config, 5);
  Finish(1, config);
  order.resize(3 * 4 + 2 * 6 + 4 * 2);
  EXPECT_EQ(record_->Given(), order);
}

// Each rank reads the whole of it: there is no schedule by its passes.
TEST_F(WorldSizeTest, AStreamGoesOnBehindTheLastSample) {
  samples_ = 24;
  stream_ = true;
  const std::string config = "train_cfg { by_epoch: false max_iters: 9 } ";
  Kill(2, config, 3);
  Kill(3, config, 4);
  Finish(1, config);
  std::vector<int64_t> expected;
  for (int64_t i = 0; i < 3 * 4 + 6 + 5 * 2; ++i) expected.push_back(i % 24);
  EXPECT_EQ(record_->Given(), expected);
  EXPECT_THAT(Warnings(),
              ElementsAre(HasSubstr("made by 3 ranks, this run has 1")));
}

TensorMap Section(const io::CheckpointContents& contents,
                  absl::string_view name) {
  const TensorMap* found = contents.FindSection(name);
  EXPECT_NE(found, nullptr) << name;
  return found == nullptr ? TensorMap() : *found;
}

// 2 ranks with batches of 4 step with the mean over 8 samples, as one rank with
// batches of 8 does: weights, their average, the optimizer's slots and rates
// are those of the run that was never killed, but for rounding.
TEST_F(WorldSizeTest, WeightsAveragesOptimizerAndRatesGoOn) {
  const std::string two = absl::StrCat(kEpochs, Batches(4));
  const std::string one = absl::StrCat(kEpochs, Batches(8));
  Finish(2, two);
  EXPECT_EQ(iters_[0], 9);
  const io::CheckpointContents whole = Newest();
  const std::map<int64_t, Iteration> iterations = record_->iterations();
  for (const bool from_two : {true, false}) {
    for (const int64_t kill : {1, 4, 5, 8}) {
      SCOPED_TRACE(absl::StrCat(from_two, " killed at ", kill));
      Forget();
      Kill(from_two ? 2 : 1, from_two ? two : one, kill);
      Finish(from_two ? 1 : 2, from_two ? one : two);
      EXPECT_EQ(iters_[0], 9);
      const io::CheckpointContents killed = Newest();
      for (const char* section : {"model", "ema", "optimizer"}) {
        const TensorMap expected = Section(whole, section);
        const TensorMap actual = Section(killed, section);
        EXPECT_FALSE(expected.empty()) << section;
        for (const NamedTensor& tensor : expected) {
          const at::Tensor* found = actual.Find(tensor.name);
          ASSERT_NE(found, nullptr) << tensor.name;
          EXPECT_TRUE(ops::allclose(*found, tensor.tensor, 1e-4, 1e-6))
              << section << ": " << tensor.name;
        }
      }
      for (const auto& [iter, iteration] : record_->iterations()) {
        EXPECT_DOUBLE_EQ(iteration.rate, iterations.at(iter).rate) << iter;
      }
    }
  }
}

// Versions of before know neither an epoch in parts nor windows of ranks.
TEST_F(WorldSizeTest, AManifestSaysWhatItsReaderMustKnow) {
  const std::string config =
      absl::StrCat(kEpochs, "&& optim_wrapper { accumulative_counts: 2 } ");
  Kill(1, config, 1);
  EXPECT_THAT(Newest().manifest().required_features(), IsEmpty());
  Kill(1, config, 11);
  Kill(2, config, 12);
  EXPECT_THAT(Newest().manifest().required_features(), IsEmpty());
  Kill(2, config, 13);
  EXPECT_THAT(Newest().manifest().required_features(),
              ElementsAre("rank_windows"));
  Kill(3, config, 14);
  EXPECT_THAT(Newest().manifest().required_features(),
              ElementsAre("epoch_parts"));
  Kill(3, config, 15);
  EXPECT_THAT(Newest().manifest().required_features(),
              ElementsAre("epoch_parts", "rank_windows"));
}

// What is no mean over samples is the checkpoint's, on every rank.
TEST_F(WorldSizeTest, BuffersBeginWithTheCheckpoints) {
  const std::string norm = absl::StrCat(
      kEpochs, "&& model { sequential { layers { batch_norm1d {} } } } ");
  Kill(2, absl::StrCat(norm, Batches(4)), 4);
  const TensorMap saved = Section(Newest(), "model");
  EXPECT_NE(saved.Find("3.running_mean"), nullptr);
  Finish(3, absl::StrCat(norm, Batches(3)));
  for (int rank = 0; rank < 3; ++rank) {
    EXPECT_EQ(start_[rank].size(), saved.size());
    for (const NamedTensor& tensor : start_[rank]) {
      const at::Tensor* found = saved.Find(tensor.name);
      ASSERT_NE(found, nullptr) << tensor.name;
      EXPECT_TRUE(ops::equal(*found, tensor.tensor)) << tensor.name;
    }
  }
}

TEST_F(WorldSizeTest, OneWarningSaysWhatCannotBeEqual) {
  const std::string config =
      "train_cfg { max_epochs: 3 } optim_wrapper { accumulative_counts: 2 } ";
  Kill(2, config, 8);
  Kill(3, config, 9);
  EXPECT_THAT(
      Warnings(),
      ElementsAre(AllOf(
          HasSubstr(
              "resume: the checkpoint was made by 2 ranks, this run has "
              "3: it goes on behind the last sample, but will not be the "
              "same to the bit: an iteration is of 6 samples in place of 4, "
              "ranks draw other random numbers"),
          Not(HasSubstr("mean")))));
  // The gradient of iteration 9 waits for that of the next one.
  Finish(2, absl::StrCat(config, Batches(3)));
  EXPECT_THAT(
      Warnings(),
      ElementsAre(
          HasSubstr("batches of 3"), HasSubstr("go on as their mean"),
          HasSubstr("the 6 samples of an iteration are shared out anew")));
}

TEST_F(WorldSizeTest, RanksThatWouldNotEndTogetherAreRefused) {
  const std::string config = absl::StrCat(
      kEpochs, "&& train_dataloader { sampler { round_up: false } } ");
  Kill(2, config, 3);
  // 22 are 8, 7 and 7, each 3 batches; the 10 that are left 4, 3 and 3.
  for (const absl::Status& status : Run(3, absl::StrCat(config, Batches(3)))) {
    EXPECT_THAT(status,
                StatusIs(absl::StatusCode::kInvalidArgument,
                         HasSubstr("round_up: must be true where 10 samples in "
                                   "batches of 3 are not as many batches on "
                                   "each of 3 ranks")));
  }
  // Of the one that is left the second rank has none, which it doesn't take for
  // the epoch's end: what it says is its own.
  Forget();
  samples_ = 10;
  Kill(1, absl::StrCat(config, Batches(9)), 1);
  EXPECT_THAT(Run(2, absl::StrCat(config, Batches(4))),
              Each(StatusIs(absl::StatusCode::kInvalidArgument,
                            StartsWith("train_dataloader: sampler: round_up: "
                                       "must be true where 1 samples in "
                                       "batches of 4 are not as many batches "
                                       "on each of 2 ranks"))));
}

TEST_F(WorldSizeTest, ARestThatTheModelCannotTrainOnIsRefused) {
  const std::string config = absl::StrCat(
      kEpochs, "&& model { sequential { layers { batch_norm1d {} } } } ");
  Kill(2, absl::StrCat(config, Batches(4)), 1);
  EXPECT_THAT(
      Run(1, absl::StrCat(config, Batches(13))),
      ElementsAre(StatusIs(
          absl::StatusCode::kInvalidArgument,
          HasSubstr("batch_size 13 and what is left of an epoch behind 8 of 22 "
                    "samples, whose last batch has one sample"))));
}

TEST_F(WorldSizeTest, AnotherDatasetIsRefusedInsideAnEpoch) {
  Kill(2, kEpochs, 3);
  samples_ = 23;
  for (const absl::Status& status : Run(3, kEpochs)) {
    EXPECT_THAT(status,
                StatusIs(absl::StatusCode::kFailedPrecondition,
                         HasSubstr("had 22 samples in 6 batches of 2 on each "
                                   "of 2 ranks, shuffled; this one has 23")));
  }
}

}  // namespace
}  // namespace grapnel
