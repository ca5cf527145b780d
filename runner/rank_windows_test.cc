#include "grapnel/runner/rank_windows.h"

#include <string>
#include <utility>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "google/protobuf/text_format.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/optim/optim_wrapper.pb.h"
#include "grapnel/runner/run_state.pb.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::google::protobuf::TextFormat;
using ::grapnel::optim::v1::OptimWrapperState;
using ::grapnel::runner::v1::RunState;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

OptimWrapperState ParseOptim(const std::string& text) {
  OptimWrapperState state;
  EXPECT_TRUE(TextFormat::ParseFromString(text, &state)) << text;
  return state;
}

TensorMap Gradients(const std::vector<std::pair<std::string, double>>& values) {
  TensorMap gradients;
  for (const auto& [name, value] : values) {
    EXPECT_THAT(gradients.Add(name, ops::full({2}, value, at::kDouble)),
                IsOk());
  }
  return gradients;
}

// Name and first element, "w=0.5".
std::vector<std::string> Texts(const TensorMap& gradients) {
  std::vector<std::string> texts;
  for (const NamedTensor& one : gradients) {
    texts.push_back(absl::StrCat(one.name, "=", one.tensor[0].item<double>()));
  }
  return texts;
}

// What ranks with these states save; `optim` is the first one's.
struct Saved {
  explicit Saved(const std::vector<std::string>& ranks) {
    for (const std::string& rank : ranks) {
      SaveRankWindows(ParseOptim(rank), state.add_ranks());
    }
    optim = ParseOptim(ranks.front());
  }

  absl::Status Restore(int rank, int world_size) {
    return RestoreRankWindows(state, rank, world_size, &optim, &gradients,
                              &warnings);
  }

  RunState state;
  OptimWrapperState optim;
  TensorMap gradients;
  std::vector<std::string> warnings;
};

// Rank 1 has no gradient for b.
Saved BySamples() {
  Saved saved({R"pb(accumulate_by: SAMPLES
                    gradients: "w"
                    gradients: "b"
                    window_weight: 12
                    first_weight: 4)pb",
               R"pb(accumulate_by: SAMPLES
                    gradients: "w"
                    window_weight: 4
                    first_weight: 2)pb"});
  const auto joined = JoinRankGradients(
      {Gradients({{"w", 1}, {"b", 8}}), Gradients({{"w", 6}})});
  EXPECT_THAT(joined, IsOk());
  saved.gradients = *joined;
  return saved;
}

TEST(RankWindowsTest, AsManyRanksHaveTheirOwn) {
  Saved saved = BySamples();
  EXPECT_THAT(Texts(saved.gradients),
              ElementsAre("rank_0/w=1", "rank_0/b=8", "rank_1/w=6"));
  ASSERT_THAT(saved.Restore(1, 2), IsOk());
  EXPECT_THAT(Texts(saved.gradients), ElementsAre("w=6"));
  EXPECT_THAT(saved.optim.gradients(), ElementsAre("w"));
  EXPECT_EQ(saved.optim.window_weight(), 4);
  EXPECT_EQ(saved.optim.first_weight(), 2);
  EXPECT_THAT(saved.warnings, IsEmpty());
}

TEST(RankWindowsTest, AnotherNumberOfRanksHasTheMeanOverSamples) {
  for (const int world_size : {1, 4}) {
    Saved saved = BySamples();
    ASSERT_THAT(saved.Restore(0, world_size), IsOk());
    // (1 * 4 + 6 * 2) / 16, and 8 * 4 / 16.
    EXPECT_THAT(Texts(saved.gradients), ElementsAre("w=1", "b=2"));
    EXPECT_THAT(saved.optim.gradients(), ElementsAre("w", "b"));
    EXPECT_EQ(saved.optim.window_weight(), 16.0 / world_size);
    EXPECT_EQ(saved.optim.first_weight(), 16.0 / world_size);
    EXPECT_THAT(saved.warnings, ElementsAre(HasSubstr("as their mean")));
  }
}

TEST(RankWindowsTest, AnotherNumberOfRanksHasTheMeanOverRanks) {
  Saved saved({R"pb(gradients: "w")pb", R"pb(gradients: "w")pb",
               R"pb(gradients: "w")pb"});
  saved.gradients =
      Gradients({{"rank_0/w", 1}, {"rank_1/w", 2}, {"rank_2/w", 6}});
  ASSERT_THAT(saved.Restore(1, 2), IsOk());
  EXPECT_THAT(Texts(saved.gradients), ElementsAre("w=3"));
  EXPECT_EQ(saved.optim.window_weight(), 0);
}

TEST(RankWindowsTest, EmptyWindowsSayNothing) {
  Saved saved({"", ""});
  ASSERT_THAT(saved.Restore(0, 3), IsOk());
  EXPECT_THAT(saved.gradients, SizeIs(0));
  EXPECT_THAT(saved.warnings, IsEmpty());
}

TEST(RankWindowsTest, WindowsThatWeighNothingHaveNoMean) {
  const std::string nothing = "accumulate_by: SAMPLES gradients: 'w'";
  Saved saved({nothing, nothing});
  saved.gradients = Gradients({{"rank_0/w", 1}, {"rank_1/w", 2}});
  ASSERT_THAT(saved.Restore(0, 3), IsOk());
  EXPECT_THAT(saved.gradients, SizeIs(0));
  EXPECT_THAT(saved.optim.gradients(), IsEmpty());
  EXPECT_EQ(saved.optim.window_weight(), 0);
  EXPECT_EQ(saved.optim.first_weight(), 0);
}

std::string SetOf(const std::string& own, const std::string& other) {
  return absl::StrCat("optimizers { name: 'g' state { ", own,
                      " } } optimizers { name: 'c' state { ", other, " } }");
}

TEST(RankWindowsTest, EachOptimizerHasItsWindows) {
  const std::string g =
      "gradients: 'w' accumulate_by: SAMPLES first_weight: 2 window_weight: ";
  for (const int world_size : {2, 1}) {
    Saved saved({SetOf(absl::StrCat(g, 2), "gradients: 'v'"),
                 SetOf(absl::StrCat(g, 6), "gradients: 'v'")});
    saved.gradients = Gradients({{"rank_0/g/w", 1},
                                 {"rank_0/c/v", 2},
                                 {"rank_1/g/w", 3},
                                 {"rank_1/c/v", 4}});
    ASSERT_THAT(saved.Restore(world_size - 1, world_size), IsOk());
    EXPECT_THAT(Texts(saved.gradients), world_size == 2
                                            ? ElementsAre("g/w=3", "c/v=4")
                                            : ElementsAre("g/w=1", "c/v=3"));
    const OptimWrapperState& first = saved.optim.optimizers(0).state();
    EXPECT_THAT(first.gradients(), ElementsAre("w"));
    EXPECT_EQ(first.window_weight(), world_size == 2 ? 6 : 8);
    EXPECT_THAT(saved.optim.optimizers(1).state().gradients(),
                ElementsAre("v"));
  }
}

// What one process saved, or ranks before each saved its own.
TEST(RankWindowsTest, OneGradientIsGoodForAll) {
  Saved saved({"gradients: 'w' window_weight: 12 first_weight: 3"});
  saved.state.clear_ranks();
  saved.gradients = Gradients({{"w", 5}});
  ASSERT_THAT(saved.Restore(2, 3), IsOk());
  EXPECT_THAT(Texts(saved.gradients), ElementsAre("w=5"));
  EXPECT_EQ(saved.optim.window_weight(), 4);
  EXPECT_EQ(saved.optim.first_weight(), 1);

  Saved old({"gradients: 'w' window_samples: 12 first_samples: 3"});
  old.state.clear_ranks();
  ASSERT_THAT(old.Restore(2, 3), IsOk());
  EXPECT_EQ(old.optim.window_weight(), 4);
  EXPECT_EQ(old.optim.first_weight(), 1);

  Saved mean({"gradients: 'w'", "gradients: 'w'"});
  for (auto& rank : *mean.state.mutable_ranks()) rank.clear_windows();
  mean.gradients = Gradients({{"w", 5}});
  ASSERT_THAT(mean.Restore(1, 2), IsOk());
  EXPECT_THAT(Texts(mean.gradients), ElementsAre("w=5"));
}

TEST(RankWindowsTest, WhatDoesntFitIsDataLoss) {
  Saved missing = BySamples();
  missing.gradients = Gradients({{"rank_0/w", 1}});
  EXPECT_THAT(missing.Restore(1, 2),
              StatusIs(absl::StatusCode::kDataLoss,
                       "gradients: \"rank_1/w\" is missing"));
  EXPECT_THAT(missing.Restore(0, 1),
              StatusIs(absl::StatusCode::kDataLoss,
                       "gradients: \"rank_0/b\" is missing"));
  Saved more = BySamples();
  more.state.mutable_ranks(1)->add_windows();
  EXPECT_THAT(more.Restore(0, 2),
              StatusIs(absl::StatusCode::kDataLoss,
                       "ranks: rank 1 has the windows of 2 optimizers, and "
                       "there are 1"));
}

}  // namespace
}  // namespace grapnel
