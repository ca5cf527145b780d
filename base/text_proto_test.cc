#include "grapnel/base/text_proto.h"

#include "gmock/gmock.h"
#include "google/protobuf/duration.pb.h"
#include "grapnel/base/status_matchers.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::google::protobuf::Duration;
using ::testing::HasSubstr;

TEST(TextProtoTest, TheFirstErrorIsNamedByItsPlaceAndNothingIsPrinted) {
  Duration duration;
  ASSERT_THAT(ParseTextProto("seconds: 3", &duration), IsOk());
  EXPECT_EQ(duration.seconds(), 3);
  testing::internal::CaptureStderr();
  EXPECT_THAT(ParseTextProto("seconds: 3\n  nanos: x y: 2", &duration),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("line 2, column 10: ")));
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

}  // namespace
}  // namespace grapnel
