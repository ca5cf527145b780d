#include "grapnel/base/status_macros.h"

#include "absl/status/statusor.h"
#include "grapnel/base/status_matchers.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

absl::StatusOr<int> Half(int n) {
  GRAPNEL_RET_CHECK(n >= 0);
  if (n % 2 != 0) return absl::InvalidArgumentError("odd");
  return n / 2;
}

absl::StatusOr<int> Quarter(int n) {
  GRAPNEL_ASSIGN_OR_RETURN(const int half, Half(n));
  GRAPNEL_RETURN_IF_ERROR(WithContext(Half(half).status(), "second half"));
  return half / 2;
}

TEST(StatusMacrosTest, ValuesPassThrough) { EXPECT_EQ(*Quarter(8), 2); }

TEST(StatusMacrosTest, ErrorsReturnWithTheirCodeAndContext) {
  EXPECT_THAT(Quarter(3), StatusIs(absl::StatusCode::kInvalidArgument, "odd"));
  EXPECT_THAT(Quarter(6),
              StatusIs(absl::StatusCode::kInvalidArgument, "second half: odd"));
}

TEST(StatusMacrosTest, BrokenInvariantIsAnErrorAndNotACrash) {
  EXPECT_THAT(Quarter(-1), StatusIs(absl::StatusCode::kInternal,
                                    AllOf(HasSubstr("status_macros_test.cc:"),
                                          HasSubstr("n >= 0"))));
}

TEST(StatusMacrosTest, ContextLeavesOkAlone) {
  EXPECT_THAT(WithContext(absl::OkStatus(), "anything"), IsOk());
}

}  // namespace
}  // namespace grapnel
