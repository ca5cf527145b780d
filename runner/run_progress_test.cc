// The numbers are counted by hand: "6 batches an epoch, 2 of 4 epochs done".

#include "grapnel/runner/run_progress.h"

#include <limits>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/io/checkpoint_manifest.pb.h"
#include "grapnel/runner/run_state.pb.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::grapnel::io::v1::Progress;
using ::grapnel::runner::v1::DataPosition;
using ::testing::HasSubstr;

using Plan = RunProgress::Plan;

DataPosition Data(int64_t samples, int64_t batch_size, bool by_epoch,
                  bool infinite = false) {
  DataPosition data;
  data.set_dataset_size(samples);
  data.set_batch_size(batch_size);
  data.set_num_batches((samples + batch_size - 1) / batch_size);
  data.set_world_size(1);
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

RunProgress Resume(const Plan& plan, const RunProgress& from,
                   const Plan& before) {
  absl::StatusOr<RunProgress> progress =
      RunProgress::Resume(plan, from.state(), before.data);
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
  EXPECT_THAT(RunProgress::Resume(ByEpoch(4, 3), first.state(), before.data),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("24 samples in 6 batches of 4, in order; this "
                                 "one has 24 samples in 3 batches of 8")));
  EXPECT_THAT(RunProgress::Resume(before, first.state(), before.data), IsOk());
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
  EXPECT_THAT(RunProgress::Resume(now, first.state(), before.data),
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
  EXPECT_THAT(RunProgress::Resume(now, first.state(), before.data),
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

// 2^40 iterations of 2^30 samples: of an epoch of 3,000,000,019.
TEST(RunProgressTest, SamplesThatAnInt64DoesNotHoldAreCounted) {
  const Plan plan = ByIter(int64_t{1} << 41, 3'000'000'019, int64_t{1} << 30,
                           /*infinite=*/true);
  Progress old;
  old.set_iter(int64_t{1} << 40);
  const absl::StatusOr<RunProgress> progress =
      RunProgress::Resume(plan, old, plan.data);
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
  EXPECT_THAT(RunProgress::Resume(dataset, of_stream.state(), stream.data),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("was a stream in batches of 4, this run's is "
                                 "12 samples in 3 batches of 4, in order")));
  EXPECT_THAT(RunProgress::Resume(stream, of_dataset.state(), dataset.data),
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
      RunProgress::Resume(ByEpoch(4, 3), old, before.data);
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
      RunProgress::Resume(ByIter(100, 10, 2), old_iters, passes.data);
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
  EXPECT_THAT(RunProgress::Resume(plan, bad, plan.data),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("iter: is -1")));
  bad.set_iter(4);
  bad.set_iter_in_epoch(4);
  bad.add_epoch_lengths()->set_num_batches(0);
  EXPECT_THAT(RunProgress::Resume(plan, bad, plan.data),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("[0]")));
  bad.mutable_epoch_lengths(0)->set_num_batches(6);
  *bad.add_epoch_lengths() = bad.epoch_lengths(0);
  EXPECT_THAT(RunProgress::Resume(plan, bad, plan.data),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("[1]")));
  // The third epoch's beginning isn't at iteration 13, nor beyond the last.
  Progress elsewhere;
  elsewhere.set_epoch(2);
  elsewhere.set_iter(13);
  elsewhere.add_epoch_lengths()->set_num_batches(6);
  EXPECT_THAT(RunProgress::Resume(plan, elsewhere, plan.data),
              StatusIs(absl::StatusCode::kDataLoss,
                       HasSubstr("iter: is 13, which batch 0 of epoch 2")));
  elsewhere.set_iter(12);
  auto* far = elsewhere.add_epoch_lengths();
  far->set_epoch(int64_t{1} << 59);
  far->set_iter(12);
  far->set_num_batches(8);
  EXPECT_THAT(RunProgress::Resume(plan, elsewhere, plan.data),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("isn't at")));
  Progress by_iter;
  by_iter.set_iter(4);
  EXPECT_THAT(RunProgress::Resume(plan, by_iter, ByIter(9, 24, 4).data),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("by_epoch: is true")));
}

}  // namespace
}  // namespace grapnel
