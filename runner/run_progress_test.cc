// The numbers are counted by hand: "6 batches an epoch, 2 of 4 epochs done".

#include "grapnel/runner/run_progress.h"

#include <algorithm>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/data/data.pb.h"
#include "grapnel/data/data_loader.h"
#include "grapnel/data/sample.h"
#include "grapnel/data/tensor_dataset.h"
#include "grapnel/io/checkpoint_manifest.pb.h"
#include "grapnel/io/env.h"
#include "grapnel/runner/run_state.pb.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::grapnel::data::v1::DataLoaderConfig;
using ::grapnel::io::v1::Progress;
using ::grapnel::runner::v1::DataPosition;
using ::testing::HasSubstr;

using Plan = RunProgress::Plan;

// Of what a rank has of `samples`, as a loader with round_up says.
int64_t NumBatches(int64_t samples, const DataPosition& data, bool drop_last) {
  const int64_t ranks = data.world_size();
  const int64_t own = (samples + ranks - 1) / ranks;
  return (own + (drop_last ? 0 : data.batch_size() - 1)) / data.batch_size();
}

DataPosition Data(int64_t samples, int64_t batch_size, bool by_epoch,
                  bool infinite = false) {
  DataPosition data;
  data.set_dataset_size(samples);
  data.set_batch_size(batch_size);
  data.set_world_size(1);
  data.set_num_batches(NumBatches(samples, data, /*drop_last=*/false));
  data.set_infinite(infinite);
  data.set_by_epoch(by_epoch);
  return data;
}

// 24 samples in so many batches an epoch.
Plan ByEpoch(int64_t max_epochs, int64_t num_batches) {
  return {true, max_epochs, Data(24, 24 / num_batches, true)};
}

Plan ByIter(int64_t max_iters, int64_t samples, int64_t batch_size,
            bool infinite = false) {
  return {false, max_iters, Data(samples, batch_size, false, infinite)};
}

// The same on so many ranks.
Plan OnRanks(int64_t ranks, Plan plan, bool drop_last = false) {
  plan.data.set_world_size(ranks);
  plan.data.set_num_batches(
      NumBatches(plan.data.dataset_size(), plan.data, drop_last));
  return plan;
}

Plan Stream(int64_t max_iters, int64_t batch_size) {
  Plan plan;
  plan.by_epoch = false;
  plan.total = max_iters;
  plan.data.set_batch_size(batch_size);
  plan.data.set_world_size(1);
  plan.data.mutable_stream();
  return plan;
}

RunProgress Begin(const Plan& plan) {
  absl::StatusOr<RunProgress> progress = RunProgress::Create(plan);
  EXPECT_THAT(progress, IsOk());
  return *progress;
}

// As the loops do it.
void Train(int64_t iters, RunProgress* progress) {
  for (int64_t i = 0; i < iters; ++i) {
    progress->CountIter(1);
    if (progress->max_epochs() > 1 &&
        progress->iter_in_epoch() == progress->epoch_length()) {
      progress->EndEpoch();
    }
  }
}

absl::StatusOr<RunProgress> TryResume(const Plan& plan, const Progress& saved,
                                      const DataPosition& saved_data,
                                      bool drop_last = false) {
  return RunProgress::Resume(plan, saved, saved_data, [&](int64_t samples) {
    return NumBatches(plan.data.dataset_size() - samples, plan.data, drop_last);
  });
}

RunProgress Resume(const Plan& plan, const RunProgress& from,
                   const Plan& before, bool drop_last = false) {
  absl::StatusOr<RunProgress> progress =
      TryResume(plan, from.state(), before.data, drop_last);
  EXPECT_THAT(progress, IsOk());
  return progress.ok() ? *progress : RunProgress();
}

TEST(RunProgressTest, ARunThatDoesNotTrainHasNone) {
  const RunProgress none;
  EXPECT_EQ(none.iter(), 0);
  EXPECT_EQ(none.max_iters(), 0);
  EXPECT_EQ(none.converted_steps(), 0);
}

TEST(RunProgressTest, CountsEpochsAndWhatIsLeftOfThem) {
  RunProgress progress = Begin(ByEpoch(4, 6));
  EXPECT_EQ(progress.max_iters(), 24);
  Train(15, &progress);
  EXPECT_EQ(progress.epoch(), 2);
  EXPECT_EQ(progress.iter_in_epoch(), 3);
  EXPECT_EQ(progress.iter(), 15);
  EXPECT_EQ(progress.converted_steps(), 15);
  EXPECT_FALSE(progress.done());
  Train(9, &progress);
  EXPECT_TRUE(progress.done());
}

struct LengthCase {
  const char* name;
  int64_t before;  // Batches an epoch, for `epochs`,
  int64_t epochs;
  int64_t now;  // and from there on.
  int64_t max_epochs;
  int64_t max_iters;  // Expected.
  int64_t converted;
};

void PrintTo(const LengthCase& c, std::ostream* out) { *out << c.name; }

class EpochLengthTest : public ::testing::TestWithParam<LengthCase> {};

TEST_P(EpochLengthTest, WhatIsLeftIsCountedInTheNewLength) {
  const LengthCase& c = GetParam();
  const Plan before = ByEpoch(4, c.before);
  RunProgress first = Begin(before);
  Train(c.epochs * c.before, &first);
  const Plan now = ByEpoch(c.max_epochs, c.now);
  RunProgress progress = Resume(now, first, before);
  EXPECT_EQ(progress.iter(), c.epochs * c.before);
  EXPECT_EQ(progress.max_iters(), c.max_iters);
  EXPECT_EQ(progress.converted_steps(), c.converted);
  EXPECT_EQ(progress.converted_steps_before(), c.epochs * c.before);
  EXPECT_EQ(progress.epoch_length(), c.now);
  EXPECT_EQ(progress.place().epoch, c.epochs);
  EXPECT_EQ(progress.place().batch, 0);
  Train(progress.max_iters() - progress.iter(), &progress);
  EXPECT_TRUE(progress.done());
  EXPECT_EQ(progress.converted_steps(), c.max_epochs * c.now);
}

INSTANTIATE_TEST_SUITE_P(
    Cases, EpochLengthTest,
    ::testing::Values(LengthCase{"Halved", 6, 2, 3, 4, 18, 6},
                      LengthCase{"Doubled", 6, 2, 12, 4, 36, 24},
                      LengthCase{"ToOne", 6, 2, 1, 4, 14, 2},
                      LengthCase{"AtTheBeginning", 6, 0, 3, 4, 12, 0},
                      LengthCase{"Unchanged", 6, 2, 6, 4, 24, 12},
                      LengthCase{"LongerRun", 6, 2, 3, 10, 36, 6}),
    [](const auto& info) { return std::string(info.param.name); });

// 6 batches for two epochs, 3 for one, and 6 again.
TEST(RunProgressTest, RemembersEveryLength) {
  const Plan six = ByEpoch(4, 6);
  const Plan three = ByEpoch(4, 3);
  RunProgress progress = Begin(six);
  Train(12, &progress);
  progress = Resume(three, progress, six);
  Train(3, &progress);
  progress = Resume(six, progress, three);
  EXPECT_EQ(progress.iter(), 15);
  EXPECT_EQ(progress.max_iters(), 21);
  EXPECT_EQ(progress.converted_steps(), 18);
  ASSERT_EQ(progress.state().epoch_lengths_size(), 3);
  EXPECT_EQ(progress.state().epoch_lengths(1).epoch(), 2);
  EXPECT_EQ(progress.state().epoch_lengths(1).iter(), 12);
  EXPECT_EQ(progress.state().epoch_lengths(1).num_batches(), 3);
  EXPECT_EQ(progress.state().epoch_lengths(2).iter(), 15);
  // Gone on with once more, as it is.
  progress = Resume(six, progress, six);
  EXPECT_EQ(progress.state().epoch_lengths_size(), 3);
  EXPECT_EQ(progress.data_change(), "");
}

// iter_12 of the second epoch's last iteration: its end is still to be done.
TEST(RunProgressTest, AnEpochThatLacksItsEndAloneIsABorder) {
  const Plan before = ByEpoch(4, 6);
  RunProgress first = Begin(before);
  Train(6, &first);
  for (int i = 0; i < 6; ++i) first.CountIter(1);
  RunProgress progress = Resume(ByEpoch(4, 3), first, before);
  EXPECT_EQ(progress.epoch(), 1);
  EXPECT_EQ(progress.iter_in_epoch(), 6);
  EXPECT_EQ(progress.epoch_length(), 6);
  EXPECT_EQ(progress.max_iters(), 18);
  EXPECT_EQ(progress.converted_steps(), 6);
  progress.EndEpoch();
  EXPECT_EQ(progress.epoch(), 2);
  EXPECT_EQ(progress.epoch_length(), 3);
  EXPECT_EQ(progress.converted_steps(), 6);
}

TEST(RunProgressTest, InsideAnEpochTheDataMustStay) {
  const Plan before = ByEpoch(4, 6);
  RunProgress first = Begin(before);
  Train(8, &first);
  const Plan longer = {true, 4, Data(28, 4, true)};
  EXPECT_THAT(TryResume(OnRanks(2, longer), first.state(), before.data),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("24 samples in 6 batches of 4, in order; this "
                                 "one has 28 samples in 4 batches of 4 on "
                                 "each of 2 ranks, in order: the position")));
  Plan shuffled = before;
  shuffled.data.set_shuffle(true);
  EXPECT_THAT(TryResume(shuffled, first.state(), before.data),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("this one has 24 samples in 6 batches of 4, "
                                 "shuffled: the position")));
  EXPECT_THAT(TryResume(before, first.state(), before.data), IsOk());
}

// ---- Other ranks, or batches, inside an epoch ----

void ExpectPlace(const RunProgress& progress, int64_t epoch, int64_t samples,
                 int64_t batch) {
  EXPECT_EQ(progress.place().epoch, epoch);
  EXPECT_EQ(progress.place().samples, samples);
  EXPECT_EQ(progress.place().batch, batch);
}

void ExpectLengths(const std::vector<io::v1::EpochLength>& lengths,
                   const std::vector<std::vector<int64_t>>& expected) {
  std::vector<std::vector<int64_t>> numbers;
  for (const io::v1::EpochLength& length : lengths) {
    numbers.push_back({length.epoch(), length.iter(), length.num_batches()});
  }
  EXPECT_EQ(numbers, expected);
}

// 22 samples: 6 batches of 2 on each of 2 ranks, 4 on each of 3, 11 on one.
Plan TwentyTwo(int64_t ranks) {
  return OnRanks(ranks, {true, 4, Data(22, 2, true)});
}

TEST(RunProgressTest, OtherRanksGoOnInsideAnEpoch) {
  RunProgress progress = Begin(TwentyTwo(2));
  Train(9, &progress);
  EXPECT_FALSE(RunProgress::AtBorder(progress.state(), TwentyTwo(2).data));
  // 3 iterations of the second epoch gave 12; 10 are left, 4 for each of 3.
  progress = Resume(TwentyTwo(3), progress, TwentyTwo(2));
  EXPECT_EQ(progress.data_change(), "");  // It is said of ranks elsewhere.
  EXPECT_EQ(progress.iter(), 9);
  EXPECT_EQ(progress.iter_in_epoch(), 3);
  EXPECT_EQ(progress.epoch_length(), 5);
  EXPECT_EQ(progress.batches_left(), 2);
  EXPECT_EQ(progress.max_iters(), 9 + 2 + 2 * 4);
  EXPECT_EQ(progress.converted_steps_before(), 9);
  EXPECT_EQ(progress.converted_steps(), 2 * 4 - 2);
  ExpectPlace(progress, 1, 12, 0);
  Train(1, &progress);
  ExpectPlace(progress, 1, 12, 1);
  EXPECT_EQ(progress.converted_steps(), 7);

  // Once more: 18 were given, 4 are left for one rank.
  progress = Resume(TwentyTwo(1), progress, TwentyTwo(3));
  EXPECT_EQ(progress.iter_in_epoch(), 4);
  EXPECT_EQ(progress.epoch_length(), 6);
  EXPECT_EQ(progress.max_iters(), 10 + 2 + 2 * 11);
  EXPECT_EQ(progress.converted_steps_before(), 7);
  EXPECT_EQ(progress.converted_steps(), 2 * 11 - 2);
  ExpectPlace(progress, 1, 18, 0);
  ExpectLengths(progress.whole_epochs(), {{0, 0, 6}, {1, 6, 6}, {2, 12, 11}});
  // And as it is.
  progress = Resume(TwentyTwo(1), progress, TwentyTwo(1));
  EXPECT_EQ(progress.state().epoch_lengths_size(), 3);
  Train(2, &progress);
  EXPECT_EQ(progress.epoch(), 2);
  EXPECT_EQ(progress.epoch_length(), 11);
  ExpectPlace(progress, 2, 0, 0);

  progress = Resume(TwentyTwo(2), progress, TwentyTwo(1));
  ExpectLengths(progress.whole_epochs(), {{0, 0, 6}, {1, 6, 6}, {2, 12, 6}});
  EXPECT_EQ(progress.max_iters(), 24);
  Train(12, &progress);
  EXPECT_TRUE(progress.done());
  EXPECT_EQ(progress.converted_steps(), 24);
}

// Nothing is done between two of them.
TEST(RunProgressTest, OtherRanksTwiceAtOnePlaceAreOneChange) {
  RunProgress progress = Begin(TwentyTwo(2));
  Train(9, &progress);
  progress = Resume(TwentyTwo(3), progress, TwentyTwo(2));
  progress = Resume(TwentyTwo(1), progress, TwentyTwo(3));
  EXPECT_EQ(progress.state().epoch_lengths_size(), 2);
  ExpectPlace(progress, 1, 12, 0);
  EXPECT_EQ(progress.epoch_length(), 3 + 5);
}

TEST(RunProgressTest, AnEpochIsOverWhereDropLastLeavesNoBatch) {
  // 5 batches of 4; on each of 2 ranks 2.
  const Plan base = {true, 4, Data(22, 4, true)};
  const Plan before = OnRanks(1, base, /*drop_last=*/true);
  const Plan now = OnRanks(2, base, true);
  RunProgress progress = Begin(before);
  Train(4, &progress);
  progress = Resume(now, progress, before, true);
  EXPECT_EQ(progress.epoch(), 0);
  EXPECT_EQ(progress.epoch_length(), 4);
  EXPECT_EQ(progress.batches_left(), 0);
  EXPECT_TRUE(RunProgress::AtBorder(progress.state(), now.data));
  EXPECT_EQ(progress.max_iters(), 4 + 3 * 2);
  progress = Resume(now, progress, now, true);
  EXPECT_EQ(progress.epoch_length(), 4);
  progress.EndEpoch();
  EXPECT_EQ(progress.epoch_length(), 2);
  ExpectPlace(progress, 1, 0, 0);
}

// 24 samples are 6 batches of 4 either way; behind 10 of them 14 are 4 or 3.
TEST(RunProgressTest, DropLastCountsInAPartToo) {
  const Plan before = {true, 2, Data(24, 5, true)};
  const Plan now = ByEpoch(2, 6);
  RunProgress progress = Begin(before);
  Train(2, &progress);
  progress = Resume(now, progress, before);
  EXPECT_EQ(progress.epoch_length(), 2 + 4);
  Train(1, &progress);
  progress = Resume(now, progress, now, /*drop_last=*/true);
  EXPECT_EQ(progress.data_change(), "");
  EXPECT_EQ(progress.epoch_length(), 2 + 3);
  EXPECT_EQ(progress.max_iters(), 2 + 3 + 6);
  ExpectPlace(progress, 0, 14, 0);
  progress = Resume(now, progress, now, true);
  EXPECT_EQ(progress.state().epoch_lengths_size(), 3);
  ExpectPlace(progress, 0, 14, 0);
}

// The loaders of a run's ranks, over the samples 0, 1, ..., in order.
struct Loaders {
  Plan plan;
  std::vector<std::unique_ptr<DataLoader>> of_rank;
};

Loaders NewLoaders(int64_t samples, int64_t ranks, int64_t batch_size,
                   bool drop_last, int64_t max_epochs) {
  DataLoaderConfig config;
  config.set_batch_size(batch_size);
  config.set_drop_last(drop_last);
  Loaders loaders;
  for (int64_t rank = 0; rank < ranks; ++rank) {
    DataLoader::Options options;
    options.env = &io::Env::Posix();
    options.rank = static_cast<int>(rank);
    options.world_size = static_cast<int>(ranks);
    auto dataset =
        TensorDataset::Create(ops::zeros({samples, 1}), at::Tensor());
    EXPECT_THAT(dataset, IsOk());
    auto loader = DataLoader::Create(config, *std::move(dataset), options);
    EXPECT_THAT(loader, IsOk());
    loaders.of_rank.push_back(*std::move(loader));
  }
  loaders.plan = {true, max_epochs, Data(samples, batch_size, true)};
  loaders.plan.data.set_world_size(ranks);
  loaders.plan.data.set_num_batches(loaders.of_rank[0]->num_batches());
  return loaders;
}

RunProgress Resume(const Loaders& now, const RunProgress& from,
                   const Loaders& before) {
  absl::StatusOr<RunProgress> progress = RunProgress::Resume(
      now.plan, from.state(), before.plan.data, [&](int64_t samples) {
        return now.of_rank[0]->SplitBehind(samples).most_batches;
      });
  EXPECT_THAT(progress, IsOk());
  return progress.ok() ? *progress : RunProgress();
}

// Appends what the ranks draw in the iteration that comes, in turn.
void Draw(const Loaders& loaders, const RunProgress& progress,
          std::vector<int64_t>* drawn) {
  const auto place = progress.place();
  ASSERT_EQ(place.epoch, progress.epoch());
  std::vector<Batch> batches(loaders.of_rank.size());
  for (size_t rank = 0; rank < batches.size(); ++rank) {
    DataLoader& loader = *loaders.of_rank[rank];
    loader.SeekBehind(place.epoch, place.samples, place.batch);
    ASSERT_THAT(loader.Next(&batches[rank]), IsOk());
    ASSERT_EQ(batches[rank].size(), batches[0].size());
  }
  for (int64_t i = 0; i < batches[0].size(); ++i) {
    for (const Batch& batch : batches) drawn->push_back(batch.indices[i]);
  }
}

// With drop_last or without.
class EverySampleTest : public ::testing::TestWithParam<bool> {
 protected:
  static constexpr int64_t kSize = 13;
  static constexpr int64_t kEpochs = 3;

  // Of an epoch its whole order, with less than one sample for each rank from
  // the order's beginning behind it; with drop_last as much of it as is less
  // than a batch for each rank shorter.
  void ExpectEpoch(const std::vector<int64_t>& drawn, const Plan& last,
                   const Plan& now) const {
    const auto size = static_cast<int64_t>(drawn.size());
    for (int64_t i = 0; i < std::min(size, kSize); ++i) ASSERT_EQ(drawn[i], i);
    EXPECT_LT(size, kSize + last.data.world_size());
    const auto batch = [](const Plan& plan) {
      return plan.data.batch_size() * plan.data.world_size();
    };
    const int64_t left_out =
        GetParam() ? std::max(batch(last), batch(now)) - 1 : 0;
    EXPECT_GE(size, kSize - left_out);
  }

  // Killed before iteration `kill`, and before the next one. `late`: an epoch's
  // end comes behind a kill at it.
  void RunKilledTwice(const Loaders& first, const Loaders& second,
                      const Loaders& third, int64_t kill, bool late) const {
    RunProgress progress = Begin(first.plan);
    const Loaders* now = &first;
    const Loaders* last = now;
    std::vector<int64_t> drawn;
    const auto end_epoch = [&] {
      if (progress.iter_in_epoch() < progress.epoch_length()) return false;
      ExpectEpoch(drawn, last->plan, now->plan);
      drawn.clear();
      progress.EndEpoch();
      return true;
    };
    while (!progress.done()) {
      for (const auto& [at, next] :
           {std::pair(kill, &second), {kill + 1, &third}}) {
        if (progress.iter() != at) continue;
        progress = Resume(*next, progress, *now);
        now = next;
      }
      if (end_epoch()) continue;
      Draw(*now, progress, &drawn);
      if (HasFatalFailure()) return;
      last = now;
      progress.CountIter(1);
      if (!late) end_epoch();
    }
    EXPECT_EQ(progress.iter(), progress.max_iters());
    EXPECT_EQ(progress.epoch(), kEpochs);
    EXPECT_EQ(progress.converted_steps(),
              kEpochs * now->plan.data.num_batches());
  }
};

INSTANTIATE_TEST_SUITE_P(, EverySampleTest, ::testing::Bool(),
                         [](const auto& info) {
                           return info.param ? "DropLast" : "All";
                         });

// All ways to be killed twice, ranks and batches of many sizes.
TEST_P(EverySampleTest, OfAnEpochIsGivenOnce) {
  std::vector<Loaders> all;
  for (int64_t ranks = 1; ranks <= 4; ++ranks) {
    for (int64_t size = 1; size <= 3; ++size) {
      all.push_back(NewLoaders(kSize, ranks, size, GetParam(), kEpochs));
    }
  }
  int runs = 0;
  for (size_t first = 0; first < all.size(); ++first) {
    for (size_t second = 0; second < all.size(); ++second) {
      const size_t third = (first + 2 * second + 5) % all.size();
      for (int64_t kill = 1; kill < 2 * all[first].plan.data.num_batches();
           ++kill) {
        ++runs;
        RunKilledTwice(all[first], all[second], all[third], kill,
                       /*late=*/runs % 2 == 0);
        ASSERT_FALSE(HasFailure())
            << first << ", " << second << ", killed at " << kill;
      }
    }
  }
  EXPECT_GT(runs, 900);
}

TEST(RunProgressTest, ARunMadeShorterThanItIsHasNothingLeft) {
  const Plan before = ByEpoch(4, 6);
  RunProgress first = Begin(before);
  Train(15, &first);
  const RunProgress progress = Resume(ByEpoch(2, 6), first, before);
  EXPECT_TRUE(progress.done());
  EXPECT_EQ(progress.max_iters(), 15);
}

// 10 samples in batches of 4 are passes of 3.
TEST(RunProgressTest, ByIterationPassesGoOnFromTheSavedNumber) {
  const Plan before = ByIter(100, 10, 4);
  RunProgress first = Begin(before);
  Train(5, &first);
  EXPECT_EQ(first.state().pass(), 1);
  EXPECT_EQ(first.state().samples_in_pass(), 8);
  EXPECT_EQ(first.place().epoch, 1);
  EXPECT_EQ(first.place().batch, 2);
  const Plan now = ByIter(100, 10, 2);
  EXPECT_THAT(TryResume(ByIter(100, 8, 2), first.state(), before.data),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("would mean another")));
  Train(1, &first);
  RunProgress progress = Resume(now, first, before);
  EXPECT_EQ(progress.max_iters(), 100);
  EXPECT_EQ(progress.place().epoch, 2);
  EXPECT_EQ(progress.place().batch, 0);
  EXPECT_EQ(progress.converted_steps(), 10);  // Two passes of 5.
  Train(7, &progress);
  EXPECT_EQ(progress.place().epoch, 3);
  EXPECT_EQ(progress.place().batch, 2);
  EXPECT_EQ(progress.state().pass(), 3);
}

// 6 samples in batches of 4: a stream's pass ends with iteration 3, the second.
TEST(RunProgressTest, AnInfiniteStreamsPassEndsWhereItsSamplesDo) {
  const Plan before = ByIter(100, 6, 4, /*infinite=*/true);
  RunProgress first = Begin(before);
  Train(2, &first);
  EXPECT_EQ(first.place().epoch, 0);
  EXPECT_EQ(first.place().batch, 2);
  const Plan now = ByIter(100, 6, 3, true);
  EXPECT_THAT(TryResume(ByIter(100, 7, 3, true), first.state(), before.data),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("would mean another")));
  Train(1, &first);
  RunProgress progress = Resume(now, first, before);
  EXPECT_EQ(progress.place().epoch, 2);
  EXPECT_EQ(progress.place().batch, 0);
  Train(3, &progress);
  EXPECT_EQ(progress.place().epoch, 2);
  EXPECT_EQ(progress.place().batch, 3);
  EXPECT_EQ(progress.state().pass(), 3);
  EXPECT_EQ(progress.state().samples_in_pass(), 3);
}

// 10 samples in batches of 4, then of 2: 8 of the second pass were given.
TEST(RunProgressTest, ByIterationAPassGoesOnInside) {
  const Plan before = ByIter(100, 10, 4);
  RunProgress progress = Begin(before);
  Train(5, &progress);
  const Plan now = ByIter(100, 10, 2);
  progress = Resume(now, progress, before);
  EXPECT_NE(progress.data_change(), "");
  EXPECT_EQ(progress.max_iters(), 100);
  EXPECT_EQ(progress.state().pass(), 1);
  EXPECT_EQ(progress.state().samples_in_pass(), 8);
  EXPECT_EQ(progress.batches_left(), 1);
  EXPECT_EQ(progress.converted_steps(), 2 * 5 - 1);
  ExpectPlace(progress, 1, 8, 0);
  Train(1, &progress);
  EXPECT_EQ(progress.state().pass(), 2);
  EXPECT_EQ(progress.state().samples_in_pass(), 0);
  EXPECT_EQ(progress.batches_left(), 5);
  ExpectPlace(progress, 2, 0, 0);
  Train(7, &progress);
  EXPECT_EQ(progress.state().pass(), 3);
  EXPECT_EQ(progress.state().samples_in_pass(), 4);
  ExpectPlace(progress, 3, 0, 2);
}

// 6 samples, 8 of which were given: 2 of the second pass. 2 ranks take 3 each.
TEST(RunProgressTest, AnInfiniteStreamGoesOnInsideAPass) {
  const Plan before = ByIter(100, 6, 4, /*infinite=*/true);
  RunProgress progress = Begin(before);
  Train(2, &progress);
  const Plan now = OnRanks(2, ByIter(100, 6, 3, true));
  progress = Resume(now, progress, before);
  ExpectPlace(progress, 1, 2, 0);
  Train(3, &progress);
  EXPECT_EQ(progress.state().pass(), 4);
  EXPECT_EQ(progress.state().samples_in_pass(), 2);
  ExpectPlace(progress, 1, 2, 3);
  progress = Resume(before, progress, now);
  ExpectPlace(progress, 4, 2, 0);
}

// 2^40 iterations of 2^30 samples: of an epoch of 3,000,000,019.
TEST(RunProgressTest, SamplesThatAnInt64DoesNotHoldAreCounted) {
  const Plan plan = ByIter(int64_t{1} << 41, 3'000'000'019, int64_t{1} << 30,
                           /*infinite=*/true);
  Progress old;
  old.set_iter(int64_t{1} << 40);
  const absl::StatusOr<RunProgress> progress = TryResume(plan, old, plan.data);
  ASSERT_THAT(progress, IsOk());
  EXPECT_EQ(progress->state().pass(), 393'530'537'746);
  EXPECT_EQ(progress->state().samples_in_pass(), 2'331'086'250);
}

// Another order is no other length.
TEST(RunProgressTest, AnotherOrderLeavesLengthsAlone) {
  const Plan before = ByIter(100, 6, 4, /*infinite=*/true);
  RunProgress first = Begin(before);
  Train(3, &first);
  Plan now = before;
  now.data.set_shuffle(true);
  const RunProgress progress = Resume(now, first, before);
  EXPECT_EQ(progress.state().epoch_lengths_size(), 1);
  EXPECT_EQ(progress.converted_steps(), 3);
  EXPECT_EQ(progress.place().batch, 3);
  EXPECT_NE(progress.data_change(), "");
}

TEST(RunProgressTest, AStreamHasNoLengthAndKeepsItsPlaceItself) {
  Plan before = Stream(9, 4);
  RunProgress first = Begin(before);
  EXPECT_EQ(first.max_iters(), 9);
  EXPECT_EQ(first.num_batches(), 0);
  EXPECT_EQ(first.epoch_length(), 0);
  Train(5, &first);
  first.SetStreamPlace(1, 7);
  EXPECT_EQ(first.converted_steps(), 0);
  EXPECT_EQ(first.state().pass(), 1);
  EXPECT_EQ(first.state().samples_in_pass(), 7);
  EXPECT_EQ(first.state().epoch_lengths_size(), 0);

  // It is the same stream, wherever it was when the plans were made.
  before.data.mutable_stream()->set_pass(1);
  before.data.mutable_stream()->set_samples(7);
  EXPECT_EQ(Resume(Stream(9, 4), first, before).data_change(), "");
  // Other batches may begin behind any sample.
  RunProgress progress = Resume(Stream(12, 2), first, before);
  EXPECT_THAT(progress.data_change(),
              HasSubstr("had a stream in batches of 4; this one has a stream "
                        "in batches of 2"));
  EXPECT_EQ(progress.iter(), 5);
  EXPECT_EQ(progress.max_iters(), 12);
  EXPECT_EQ(progress.state().pass(), 1);
  EXPECT_EQ(progress.state().samples_in_pass(), 7);
  EXPECT_EQ(progress.converted_steps_before(), 0);
  Train(7, &progress);
  EXPECT_FALSE(progress.done());
  progress.EndEpoch();
  EXPECT_TRUE(progress.done());
}

TEST(RunProgressTest, AStreamIsNoDataset) {
  const Plan stream = Stream(9, 4);
  const Plan dataset = ByIter(9, 12, 4);
  const RunProgress of_stream = Begin(stream);
  const RunProgress of_dataset = Begin(dataset);
  EXPECT_THAT(TryResume(dataset, of_stream.state(), stream.data),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("was a stream in batches of 4, this run's is "
                                 "12 samples in 3 batches of 4, in order")));
  EXPECT_THAT(TryResume(stream, of_dataset.state(), dataset.data),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("was 12 samples in 3 batches of 4, in order, "
                                 "this run's is a stream in batches of 4")));
}

TEST(RunProgressTest, AValidationThatIsDueIsLeftToDo) {
  RunProgress progress = Begin(ByEpoch(4, 6));
  Train(24, &progress);
  EXPECT_TRUE(progress.done());
  progress.set_validation_pending(true);
  EXPECT_FALSE(progress.done());
}

TEST(RunProgressTest, TheLoopsEndIsNotDoneTwice) {
  const Plan plan = ByIter(4, 4, 2);
  RunProgress progress = Begin(plan);
  Train(4, &progress);
  EXPECT_FALSE(progress.done());
  progress.EndEpoch();
  EXPECT_TRUE(progress.done());
  EXPECT_TRUE(Resume(plan, progress, plan).done());
  EXPECT_FALSE(Resume(ByIter(6, 4, 2), progress, plan).done());
}

// A checkpoint of before lengths were kept.
TEST(RunProgressTest, OldCheckpointsHadOneLength) {
  const Plan before = ByEpoch(4, 6);
  Progress old;
  old.set_epoch(2);
  old.set_iter(12);
  const absl::StatusOr<RunProgress> progress =
      TryResume(ByEpoch(4, 3), old, before.data);
  ASSERT_THAT(progress, IsOk());
  EXPECT_EQ(progress->max_iters(), 18);
  EXPECT_EQ(progress->converted_steps(), 6);

  Progress old_iters;
  old_iters.set_iter(7);
  const Plan passes = ByIter(100, 10, 4);
  EXPECT_FALSE(RunProgress::AtBorder(old_iters, passes.data));
  old_iters.set_iter(9);
  EXPECT_TRUE(RunProgress::AtBorder(old_iters, passes.data));
  const absl::StatusOr<RunProgress> after =
      TryResume(ByIter(100, 10, 2), old_iters, passes.data);
  ASSERT_THAT(after, IsOk());
  EXPECT_EQ(after->place().epoch, 3);
}

TEST(RunProgressTest, WhatCannotBeIsRefused) {
  EXPECT_THAT(
      RunProgress::Create(ByEpoch(std::numeric_limits<int64_t>::max() / 2, 6)),
      StatusIs(absl::StatusCode::kInvalidArgument,
               HasSubstr("max_epochs: is too large")));
  const Plan plan = ByEpoch(4, 6);
  Progress bad;
  bad.set_iter(-1);
  EXPECT_THAT(TryResume(plan, bad, plan.data),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("iter: is -1")));
  bad.set_iter(4);
  bad.set_iter_in_epoch(4);
  bad.add_epoch_lengths()->set_num_batches(0);
  EXPECT_THAT(TryResume(plan, bad, plan.data),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("[0]")));
  bad.mutable_epoch_lengths(0)->set_num_batches(6);
  *bad.add_epoch_lengths() = bad.epoch_lengths(0);
  EXPECT_THAT(TryResume(plan, bad, plan.data),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("[1]")));
  // The third epoch's beginning isn't at iteration 13, nor beyond the last.
  Progress elsewhere;
  elsewhere.set_epoch(2);
  elsewhere.set_iter(13);
  elsewhere.add_epoch_lengths()->set_num_batches(6);
  EXPECT_THAT(TryResume(plan, elsewhere, plan.data),
              StatusIs(absl::StatusCode::kDataLoss,
                       HasSubstr("iter: is 13, which batch 0 of epoch 2")));
  elsewhere.set_iter(12);
  auto* far = elsewhere.add_epoch_lengths();
  far->set_epoch(int64_t{1} << 56);
  far->set_iter(12);
  far->set_num_batches(6);
  EXPECT_THAT(TryResume(plan, elsewhere, plan.data),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("isn't at")));
  far->set_num_batches(8);
  EXPECT_THAT(TryResume(plan, elsewhere, plan.data),
              StatusIs(absl::StatusCode::kDataLoss,
                       HasSubstr("[1]: isn't of the checkpoint's data, 24 "
                                 "samples in 6 batches of 4")));
  Progress by_iter;
  by_iter.set_iter(4);
  EXPECT_THAT(TryResume(plan, by_iter, ByIter(9, 24, 4).data),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("by_epoch: is true")));
}

// What is said of an epoch's part is checked, before a sample is taken there.
TEST(RunProgressTest, APartThatCannotBeIsRefused) {
  RunProgress progress = Begin(TwentyTwo(2));
  Train(9, &progress);
  progress = Resume(TwentyTwo(3), progress, TwentyTwo(2));
  Train(1, &progress);
  const Progress good = progress.state();
  const auto resume = [&](const std::function<void(Progress*)>& change) {
    Progress bad = good;
    change(&bad);
    return TryResume(TwentyTwo(3), bad, TwentyTwo(3).data).status();
  };
  const auto part = [](Progress* bad) { return bad->mutable_epoch_lengths(1); };
  EXPECT_THAT(resume([](Progress*) {}), IsOk());
  const std::function<void(Progress*)> changes[] = {
      [&](Progress* bad) { part(bad)->set_samples(-12); },
      [&](Progress* bad) { part(bad)->set_samples(22); },
      [&](Progress* bad) { part(bad)->set_samples(16); },
      [&](Progress* bad) { part(bad)->clear_samples(); },
      [&](Progress* bad) { part(bad)->clear_batches_left(); },
      [&](Progress* bad) { part(bad)->set_batches_left(3); },
      [&](Progress* bad) { part(bad)->set_batches_left(5); },
      [&](Progress* bad) { part(bad)->set_epoch(0); },
      [&](Progress* bad) {
        part(bad)->set_iter(8);
        bad->set_iter(9);
      },
      [&](Progress* bad) { *bad->add_epoch_lengths() = *part(bad); },
      [](Progress* bad) { bad->set_iter_in_epoch(3); }};
  for (const auto& change : changes) {
    Progress bad = good;
    change(&bad);
    EXPECT_THAT(resume(change),
                StatusIs(absl::StatusCode::kDataLoss, HasSubstr("progress: ")))
        << bad.ShortDebugString();
  }
  // Of a pass likewise.
  const Plan plan = ByIter(100, 10, 4);
  Progress by_iter;
  by_iter.add_epoch_lengths()->set_num_batches(3);
  by_iter.set_iter(4);
  by_iter.set_pass(1);
  by_iter.set_samples_in_pass(8);
  EXPECT_THAT(TryResume(plan, by_iter, plan.data),
              StatusIs(absl::StatusCode::kDataLoss,
                       HasSubstr("which sample 8 of pass 1 isn't at")));
  by_iter.set_samples_in_pass(4);
  EXPECT_THAT(TryResume(plan, by_iter, plan.data), IsOk());
}

}  // namespace
}  // namespace grapnel
