#include "grapnel/base/tensor_map.h"

#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_ops.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::HasSubstr;

TEST(TensorMapTest, KeepsTheOrderOfAdding) {
  TensorMap map;
  ASSERT_THAT(map.Add("b", ops::ones({2})), IsOk());
  ASSERT_THAT(map.Add("a", ops::ones({3})), IsOk());
  std::string names;
  for (const NamedTensor& entry : map) names += entry.name;
  EXPECT_EQ(names, "ba");
  ASSERT_NE(map.Find("a"), nullptr);
  EXPECT_EQ(map.Find("a")->numel(), 3);
  EXPECT_EQ(map.Find("c"), nullptr);
}

TEST(TensorMapTest, SecondTensorOfANameIsRefused) {
  TensorMap map;
  ASSERT_THAT(map.Add("weight", ops::ones({2})), IsOk());
  EXPECT_THAT(
      map.Add("weight", ops::ones({3})),
      StatusIs(absl::StatusCode::kAlreadyExists, HasSubstr("\"weight\"")));
  EXPECT_EQ(map.Find("weight")->numel(), 2);
}

}  // namespace
}  // namespace grapnel
