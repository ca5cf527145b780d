#include "grapnel/base/suggestion.h"

#include "gtest/gtest.h"

namespace grapnel {
namespace {

TEST(SuggestionTest, NearestNameIsOffered) {
  const std::vector<std::string> names = {"lr", "momentum", "max_epochs",
                                          "max_iters"};
  EXPECT_EQ(ClosestName("momentun", names), "momentum");
  EXPECT_EQ(ClosestName("max_epoch", names), "max_epochs");
  EXPECT_EQ(ClosestName("rl", names), "lr");
  EXPECT_EQ(ClosestName("amx_iters", names), "max_iters");
}

TEST(SuggestionTest, FarNamesAreNot) {
  EXPECT_EQ(ClosestName("weight_decay", {"lr", "momentum"}), "");
  EXPECT_EQ(DidYouMean("x", {}), "");
  EXPECT_EQ(DidYouMean("momentm", {"momentum"}),
            "; did you mean \"momentum\"?");
}

}  // namespace
}  // namespace grapnel
