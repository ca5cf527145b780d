#include "grapnel/runner/run_generators.h"

#include <string>

#include "absl/status/status.h"
#include "c10/core/Device.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/runner/run_state.pb.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::HasSubstr;

// Row 55 of the list of bad inputs: LibTorch, which would read beyond the end,
// never sees it.
TEST(RunGeneratorsTest, Row055AStateOfAnotherLengthIsRefusedAndNothingChanges) {
  const auto generators = RunGenerators::Create(c10::DeviceType::CPU, 3);
  ASSERT_THAT(generators, IsOk());
  runner::v1::RngState saved;
  ASSERT_THAT(generators->Save(&saved), IsOk());
  ASSERT_EQ(saved.cpu().size(), 5056u);
  for (const std::string& state :
       {std::string(), saved.cpu().substr(1), saved.cpu() + "x"}) {
    runner::v1::RngState bad = saved;
    bad.set_cpu(state);
    EXPECT_THAT(generators->Load(bad),
                StatusIs(absl::StatusCode::kDataLoss,
                         HasSubstr("rng: the generator's state has")));
    runner::v1::RngState now;
    ASSERT_THAT(generators->Save(&now), IsOk());
    EXPECT_EQ(now.cpu(), saved.cpu());
  }
}

}  // namespace
}  // namespace grapnel
