#include "grapnel/io/retention.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <ostream>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/time.h"
#include "grapnel/io/run_checkpoints.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace io {
namespace {

constexpr int64_t kItersPerEpoch = 100;

// Written `minutes` after the first.
RunCheckpoint AtIter(int64_t iter, double minutes) {
  RunCheckpoint checkpoint;
  checkpoint.name = absl::StrCat("iter_", iter);
  checkpoint.iter = iter;
  checkpoint.epoch = iter / kItersPerEpoch;
  checkpoint.iter_in_epoch = iter % kItersPerEpoch;
  checkpoint.created_unix_nanos =
      absl::ToUnixNanos(absl::UnixEpoch() + absl::Hours(1000) +
                        absl::Milliseconds(60'000 * minutes));
  return checkpoint;
}

// One each 10 minutes.
RunCheckpoint AtEpoch(int64_t epoch) {
  RunCheckpoint checkpoint =
      AtIter(kItersPerEpoch * epoch, 10 * static_cast<double>(epoch));
  checkpoint.name = absl::StrCat("epoch_", epoch);
  return checkpoint;
}

std::vector<RunCheckpoint> Epochs(int64_t count) {
  std::vector<RunCheckpoint> checkpoints;
  for (int64_t epoch = 1; epoch <= count; ++epoch) {
    checkpoints.push_back(AtEpoch(epoch));
  }
  return checkpoints;
}

RunCheckpoint Pinned(RunCheckpoint checkpoint) {
  checkpoint.pinned = true;
  return checkpoint;
}

RunCheckpoint Last(RunCheckpoint checkpoint) {
  checkpoint.is_last = true;
  return checkpoint;
}

// Written again after the run went back, a day later.
RunCheckpoint Again(RunCheckpoint checkpoint) {
  checkpoint.created_unix_nanos += absl::ToInt64Nanoseconds(absl::Hours(24));
  return checkpoint;
}

RunCheckpoint Scored(RunCheckpoint checkpoint, double accuracy,
                     const std::string& metric = "acc") {
  checkpoint.metrics[metric] = accuracy;
  return checkpoint;
}

RunCheckpoint Best(int64_t epoch, double score,
                   const std::string& metric = "acc") {
  RunCheckpoint checkpoint = Scored(AtEpoch(epoch), score, metric);
  std::string file = metric;
  std::replace(file.begin(), file.end(), '/', '_');
  checkpoint.name = absl::StrCat("best_", file, "_epoch_", epoch);
  return checkpoint;
}

// "epoch_3: newest 2, pinned" of those that stay.
std::vector<std::string> Stay(const std::vector<RunCheckpoint>& checkpoints,
                              const RetentionRules& rules) {
  std::vector<std::string> stay;
  for (const RetentionVerdict& verdict : DecideRetention(checkpoints, rules)) {
    if (verdict.reasons.empty()) continue;
    stay.push_back(absl::StrCat(verdict.checkpoint.name, ": ",
                                absl::StrJoin(verdict.reasons, ", ")));
  }
  return stay;
}

RetentionRules Newest(int64_t count) {
  RetentionRules rules;
  rules.newest = count;
  return rules;
}

RetentionRules BestOf(const BestRule& rule, int64_t newest = 0) {
  RetentionRules rules;
  rules.newest = newest;
  rules.best.push_back(rule);
  return rules;
}

RetentionRules Every(int64_t every, bool by_epoch = true) {
  RetentionRules rules;
  rules.every = every;
  rules.by_epoch = by_epoch;
  return rules;
}

RetentionRules Per(absl::Duration per) {
  RetentionRules rules;
  rules.per = per;
  return rules;
}

struct RetentionCase {
  std::string name;
  std::vector<RunCheckpoint> checkpoints;
  RetentionRules rules;
  std::vector<std::string> stay;  // With their reasons, the oldest first.
};

void PrintTo(const RetentionCase& c, std::ostream* os) { *os << c.name; }

class RetentionTest : public testing::TestWithParam<RetentionCase> {};

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

RetentionRules AllRules() {
  RetentionRules rules = BestOf({"acc", true, 1}, 2);
  rules.every = 2;
  rules.per = absl::Minutes(30);
  return rules;
}

INSTANTIATE_TEST_SUITE_P(
    , RetentionTest,
    testing::ValuesIn(std::vector<RetentionCase>{
        {"NothingIsThere", {}, AllRules(), {}},
        {"NoRuleKeepsAll",
         Epochs(2),
         RetentionRules(),
         {"epoch_1: no rule", "epoch_2: no rule"}},
        {"RulesOfNothingKeepAll",
         Epochs(1),
         BestOf({"acc", true, 0}, -1),
         {"epoch_1: no rule"}},
        {"NewestOfMany",
         Epochs(4),
         Newest(2),
         {"epoch_3: newest 2", "epoch_4: newest 2"}},
        {"NewestOfFew", Epochs(1), Newest(3), {"epoch_1: newest 3"}},
        {"NewestByIterationWhateverTheOrderAndTheClock",
         {AtIter(30, 1), AtIter(10, 9), AtIter(20, 5)},
         Newest(1),
         {"iter_30: newest 1"}},
        {"PinnedStaysAndCountsAmongTheNewest",
         {Pinned(AtEpoch(1)), AtEpoch(2), AtEpoch(3), Pinned(AtEpoch(4))},
         Newest(2),
         {"epoch_1: pinned", "epoch_3: newest 2", "epoch_4: pinned, newest 2"}},
        {"EveryThirdAndTheNewest",
         Epochs(7),
         Every(3),
         {"epoch_3: every 3 epochs", "epoch_6: every 3 epochs",
          "epoch_7: newest"}},
        {"OneInsideAnEpochIsNotOfItsNumber",
         {AtEpoch(2), AtIter(250, 26), AtEpoch(3)},
         Every(2),
         {"epoch_2: every 2 epochs", "epoch_3: newest"}},
        {"EveryByIteration",
         {AtIter(0, 0), AtIter(50, 1), AtIter(75, 2), AtIter(100, 3),
          AtIter(130, 4)},
         Every(50, false),
         {"iter_50: every 50 iterations", "iter_100: every 50 iterations",
          "iter_130: newest"}},
        {"OnePerTime",
         Epochs(7),
         Per(absl::Minutes(30)),
         {"epoch_1: one per 30m", "epoch_4: one per 30m",
          "epoch_7: newest, one per 30m"}},
        {"OnePerTimeCountsFromWhatStays",
         {AtIter(1, 0), AtIter(2, 45), AtIter(3, 61), AtIter(4, 80),
          AtIter(5, 200)},
         Per(absl::Hours(1)),
         {"iter_1: one per 1h", "iter_3: one per 1h",
          "iter_5: newest, one per 1h"}},
        {"OnePerTimeWithAClockThatWentBack",
         {AtIter(1, 100), AtIter(2, 130), AtIter(3, 40), AtIter(4, 70)},
         Per(absl::Hours(1)),
         {"iter_1: one per 1h", "iter_3: one per 1h", "iter_4: newest"}},
        {"AllOfOneTime",
         {AtIter(1, 0), AtIter(2, 0), AtIter(3, 0)},
         Per(absl::Hours(1)),
         {"iter_1: one per 1h", "iter_3: newest"}},
        {"BestOfGreater",
         {Scored(AtEpoch(1), 0.3), Scored(AtEpoch(2), 0.9),
          Scored(AtEpoch(3), 0.5), AtEpoch(4)},
         BestOf({"acc", true, 2}),
         {"epoch_2: best 2 by acc", "epoch_3: best 2 by acc",
          "epoch_4: newest"}},
        {"BestOfLess",
         {Scored(AtEpoch(1), 0.3), Scored(AtEpoch(2), -0.9),
          Scored(AtEpoch(3), 0.5)},
         BestOf({"acc", false, 1}),
         {"epoch_2: best 1 by acc", "epoch_3: newest"}},
        {"TieKeepsTheOlder",
         {Scored(AtEpoch(1), 0.5), Scored(AtEpoch(2), 0.5),
          Scored(AtEpoch(3), 0.5)},
         BestOf({"acc", true, 1}),
         {"epoch_1: best 1 by acc", "epoch_3: newest"}},
        {"WhatIsNotFiniteIsNeverBest",
         {Scored(AtEpoch(1), kNan), Scored(AtEpoch(2), kInf),
          Scored(AtEpoch(3), 0.1), Scored(AtEpoch(4), -kInf),
          Scored(AtEpoch(5), kNan)},
         BestOf({"acc", true, 3}),
         {"epoch_3: best 3 by acc", "epoch_5: newest"}},
        {"NoneHasTheMetric",
         Epochs(2),
         BestOf({"acc", true, 3}),
         {"epoch_2: newest"}},
        {"OfOneIterationOneIsAmongTheBest",
         {Scored(AtEpoch(1), 0.3), Scored(AtEpoch(2), 0.9), Best(2, 0.9),
          AtEpoch(3)},
         BestOf({"acc", true, 2}),
         {"epoch_1: best 2 by acc", "best_acc_epoch_2: best 2 by acc",
          "epoch_3: newest"}},
        {"SavedForTheirScoreStayWithoutARuleOnIt",
         {Best(1, 0.1), AtEpoch(1), AtEpoch(2), Best(2, 3, "loss")},
         Newest(1),
         {"best_acc_epoch_1: a best one, of no rule",
          "best_loss_epoch_2: a best one, of no rule", "epoch_2: newest 1"}},
        {"SavedForTheirScoreGoByTheRuleOnIt",
         {Best(1, 0.1), Scored(Best(1, 3, "loss"), 0.1), Best(2, 0.2),
          AtEpoch(3)},
         BestOf({"acc", true, 1}),
         {"best_loss_epoch_1: a best one, of no rule",
          "best_acc_epoch_2: best 1 by acc", "epoch_3: newest"}},
        {"LongestMetricIsTheNames",
         {Scored(Best(1, 0.1, "acc/top1"), 0.1), Best(2, 0.2), AtEpoch(3)},
         BestOf({"acc", true, 1}),
         {"best_acc_top1_epoch_1: a best one, of no rule",
          "best_acc_epoch_2: best 1 by acc", "epoch_3: newest"}},
        {"ScoreThatIsNotInTheManifestHasNoRule",
         {[] {
            RunCheckpoint best = Best(1, 0.1);
            best.metrics.clear();
            return best;
          }(),
          Best(2, 0.2)},
         BestOf({"acc", true, 1}),
         {"best_acc_epoch_1: a best one, of no rule",
          "best_acc_epoch_2: best 1 by acc"}},
        {"RulesAreAUnion",
         {Scored(AtEpoch(1), 0.1), Scored(AtEpoch(2), 0.2),
          Scored(AtEpoch(3), 0.9), Scored(AtEpoch(4), 0.3), Pinned(AtEpoch(5)),
          AtEpoch(6), AtEpoch(7)},
         AllRules(),
         {"epoch_1: one per 30m", "epoch_2: every 2 epochs",
          "epoch_3: best 1 by acc", "epoch_4: every 2 epochs, one per 30m",
          "epoch_5: pinned", "epoch_6: newest 2, every 2 epochs",
          "epoch_7: newest 2, one per 30m"}},
        {"NewestOfARunThatWentBack",
         {AtEpoch(3), Last(Again(AtEpoch(4))), AtEpoch(5), AtEpoch(6)},
         Newest(1),
         {"epoch_4: newest 1"}},
        {"NewestOfARunThatWentBackAndOn",
         {AtEpoch(3), Last(Again(AtEpoch(4))), Again(AtEpoch(5)), AtEpoch(6)},
         Newest(2),
         {"epoch_4: newest 2", "epoch_5: newest 2"}},
        {"GivenUpButOfAnotherRule",
         {Last(Again(AtEpoch(4))), AtEpoch(5), AtEpoch(6)},
         Every(5),
         {"epoch_4: newest", "epoch_5: every 5 epochs"}},
    }),
    [](const auto& info) { return info.param.name; });

TEST_P(RetentionTest, DecidesAndSaysWhy) {
  EXPECT_EQ(Stay(GetParam().checkpoints, GetParam().rules), GetParam().stay);
}

TEST_P(RetentionTest, OrderOfTheListDoesNotMatter) {
  std::vector<RunCheckpoint> checkpoints = GetParam().checkpoints;
  std::mt19937 random(1);
  for (int i = 0; i < 10; ++i) {
    std::shuffle(checkpoints.begin(), checkpoints.end(), random);
    EXPECT_EQ(Stay(checkpoints, GetParam().rules), GetParam().stay);
  }
}

// What was decided once stays so when it has been carried out.
TEST_P(RetentionTest, WhatStaysStaysAgain) {
  std::vector<RunCheckpoint> left;
  for (const RetentionVerdict& verdict :
       DecideRetention(GetParam().checkpoints, GetParam().rules)) {
    if (!verdict.reasons.empty()) left.push_back(verdict.checkpoint);
  }
  EXPECT_EQ(Stay(left, GetParam().rules).size(), left.size());
}

// A training applies the rules after each save. What is left in the end is what
// they would have left of all.
TEST(RetentionStepsTest, AppliedAfterEachSaveLeavesTheSame) {
  RetentionRules rules;
  rules.newest = 3;
  rules.every = 7;
  rules.per = absl::Minutes(35);
  const std::vector<RunCheckpoint> all = Epochs(60);
  std::vector<RunCheckpoint> left;
  for (const RunCheckpoint& checkpoint : all) {
    left.push_back(checkpoint);
    std::vector<RunCheckpoint> next;
    for (RetentionVerdict& verdict : DecideRetention(left, rules)) {
      if (!verdict.reasons.empty()) next.push_back(verdict.checkpoint);
    }
    left = next;
  }
  EXPECT_EQ(Stay(left, rules), Stay(all, rules));
}

}  // namespace
}  // namespace io
}  // namespace grapnel
