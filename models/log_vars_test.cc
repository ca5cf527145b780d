#include "grapnel/models/log_vars.h"

#include <string>

#include "ATen/core/Tensor.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/tensor_ops.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

TEST(LogVarsTest, WeightsGoWithTheirValues) {
  LogVars log_vars;
  log_vars.Add("loss", ops::full({}, 1.5), ops::full({}, 4));
  log_vars.Add("accuracy", ops::full({}, 50));
  ASSERT_EQ(log_vars.size(), 2u);
  EXPECT_EQ(log_vars[0].name, "loss");
  EXPECT_EQ(log_vars[0].tensor.item<double>(), 1.5);
  EXPECT_EQ(log_vars.weight(0).item<double>(), 4);
  EXPECT_EQ(log_vars[1].tensor.item<double>(), 50);
  EXPECT_FALSE(log_vars.weight(1).defined());
}

TEST(LogVarsTest, ClearLetsGoOfTensorsAndKeepsSlotsAndWish) {
  LogVars log_vars;
  EXPECT_FALSE(log_vars.wants_weights());
  log_vars.set_wants_weights(true);
  const std::string name = "a name that is too long to need no memory";
  const at::Tensor value = ops::full({}, 1), weight = ops::full({}, 2);
  log_vars.Add(name, value, weight);
  const NamedTensor* const slot = &log_vars[0];
  const at::Tensor* const of_weight = &log_vars.weight(0);
  const char* const text = slot->name.data();
  log_vars.Clear();
  EXPECT_TRUE(log_vars.empty());
  EXPECT_TRUE(log_vars.wants_weights());
  EXPECT_EQ(value.use_count(), 1u);
  EXPECT_EQ(weight.use_count(), 1u);
  log_vars.Add(name, value);
  EXPECT_EQ(&log_vars[0], slot);
  EXPECT_EQ(&log_vars.weight(0), of_weight);
  EXPECT_EQ(log_vars[0].name.data(), text);
  EXPECT_FALSE(log_vars.weight(0).defined());
}

}  // namespace
}  // namespace grapnel
