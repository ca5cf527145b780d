#include "grapnel/optim/accumulation_window.h"

#include "gmock/gmock.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/optim/optim_wrapper.pb.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::HasSubstr;

void Update(AccumulationWindow& window, double weight) {
  window.Weigh(weight);
  window.Count(weight);
}

TEST(AccumulationWindowTest, TheLastOneOfARunHoldsWhatIsLeft) {
  AccumulationWindow window(4, /*by_samples=*/false);
  window.Initialize(0, 6);
  EXPECT_EQ(window.size(), 4);
  for (int i = 0; i < 4; ++i) Update(window, 1);
  window.End();
  EXPECT_EQ(window.size(), 2);
  EXPECT_EQ(window.mean_factor(), 1);
  // A run that goes on in the middle of one without a state has a smaller one.
  window.Initialize(5, -1);
  EXPECT_EQ(window.accumulated(), 1);
  EXPECT_EQ(window.size(), 4);
}

TEST(AccumulationWindowTest, BySamplesTheMeanIsOverTheWeights) {
  AccumulationWindow window(3, /*by_samples=*/true);
  window.Initialize(0, -1);
  Update(window, 0);
  EXPECT_TRUE(window.weighs_nothing());
  Update(window, 4);
  Update(window, 12);
  EXPECT_FALSE(window.weighs_nothing());
  EXPECT_EQ(window.relative_weight(4), 1);
  EXPECT_EQ(window.relative_weight(12), 3);
  EXPECT_EQ(window.mean_factor(), 0.25);
}

TEST(AccumulationWindowTest, SharedWeightsAreRelativeToTheRanksMean) {
  AccumulationWindow window(2, /*by_samples=*/true);
  window.Initialize(0, -1);
  Update(window, 2);
  window.Weigh(6);
  EXPECT_EQ(window.Share(16), 0.125);
  EXPECT_EQ(window.relative_weight(6), 0.375);
  window.Count(6);
  EXPECT_EQ(window.mean_factor(), 1);
  window.End();
  // The next one is this rank's again.
  Update(window, 6);
  EXPECT_EQ(window.relative_weight(3), 0.5);
  window.End();

  // This rank has nothing, and others have.
  Update(window, 0);
  window.Weigh(0);
  EXPECT_EQ(window.Share(5), 1);
  EXPECT_FALSE(window.weighs_nothing());
  window.End();
  Update(window, 0);
  window.Weigh(0);
  EXPECT_EQ(window.Share(0), 1);
  EXPECT_TRUE(window.weighs_nothing());
}

TEST(AccumulationWindowTest, AStateIsTakenOverOrItsWindowIsDropped) {
  AccumulationWindow window(4, /*by_samples=*/true);
  window.Initialize(8, 100);
  Update(window, 5);
  optim::v1::OptimWrapperState state;
  window.SaveState(&state);
  ASSERT_THAT(AccumulationWindow::CheckState(state), IsOk());

  AccumulationWindow same(4, /*by_samples=*/true);
  EXPECT_EQ(same.LoadState(state), "");
  EXPECT_EQ(same.accumulated(), 1);
  EXPECT_EQ(same.relative_weight(10), 2);
  AccumulationWindow other(4, /*by_samples=*/false);
  EXPECT_THAT(other.LoadState(state), HasSubstr("SAMPLES -> ITERATIONS"));
  EXPECT_EQ(other.accumulated(), 0);

  state.set_window_begin(20);
  EXPECT_THAT(AccumulationWindow::CheckState(state),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("window_begin: must be in [0, 9], is 20")));
}

}  // namespace
}  // namespace grapnel
