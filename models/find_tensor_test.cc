#include "grapnel/models/find_tensor.h"

#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/models/callback_model.h"
#include "grapnel/models/model.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

std::unique_ptr<Model> NewModel() {
  CallbackModel::Options options;
  options.parameters = {{"fc.weight", ops::full({2}, 1, at::kFloat)}};
  options.buffers = {{"bn.running_mean", ops::full({2}, 2, at::kFloat)}};
  auto model = CallbackModel::Create(std::move(options));
  EXPECT_THAT(model, IsOk());
  return *std::move(model);
}

TEST(FindTensorTest, FindsParametersAndBuffersWithoutACopy) {
  const auto model = NewModel();
  const auto weight = FindTensor(*model, "fc.weight");
  ASSERT_THAT(weight, IsOk());
  EXPECT_TRUE(weight->tensor.is_same(model->parameters()[0].tensor));
  const auto mean = FindTensor(*model, "bn.running_mean");
  ASSERT_THAT(mean, IsOk());
  EXPECT_TRUE(mean->tensor.is_same(model->buffers()[0].tensor));
}

TEST(FindTensorTest, ANameThatIsNotThereGetsASuggestionIfOneIsNear) {
  const auto model = NewModel();
  EXPECT_THAT(FindTensor(*model, "fc.wieght").status(),
              StatusIs(absl::StatusCode::kNotFound,
                       AllOf(HasSubstr("no tensor \"fc.wieght\""),
                             HasSubstr("\"fc.weight\""))));
  EXPECT_THAT(FindTensor(*model, "").status(),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("\"\"")));
  // Bytes that are no text don't get into a message.
  EXPECT_THAT(FindTensor(*model, "\xff\xfe").status(),
              StatusIs(absl::StatusCode::kNotFound, Not(HasSubstr("\xff"))));
}

}  // namespace
}  // namespace grapnel
