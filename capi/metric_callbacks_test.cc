#include "grapnel/capi/metric_callbacks.h"

#include <string>

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/grapnel.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::HasSubstr;

TEST(MetricCallbacksTest, OverRanksTheyAreRefusedInWordsOfTheirCaller) {
  grapnel_metric_callbacks callbacks = {};
  callbacks.struct_size = sizeof(callbacks);
  callbacks.reset = [](void*) -> grapnel_status* { return nullptr; };
  callbacks.process = [](void*, const grapnel_tensors*,
                         const grapnel_tensors*) -> grapnel_status* {
    return nullptr;
  };
  callbacks.compute = [](void*, grapnel_scalars*) -> grapnel_status* {
    return nullptr;
  };
  const auto made = capi::MakeMetric(&callbacks, nullptr);
  ASSERT_THAT(made, IsOk());
  std::string counts;
  EXPECT_THAT(made->product->SaveCounts(&counts),
              StatusIs(absl::StatusCode::kUnimplemented,
                       HasSubstr("a metric of callbacks can't be gathered")));
}

}  // namespace
}  // namespace grapnel
