#include "grapnel/base/any_message.h"

#include "gmock/gmock.h"
#include "google/protobuf/any.pb.h"
#include "google/protobuf/duration.pb.h"
#include "grapnel/base/status_matchers.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::google::protobuf::Duration;
using ::testing::HasSubstr;

TEST(AnyMessageTest, IsUnpackedAsTheTypeThatItNames) {
  Duration duration;
  duration.set_seconds(7);
  google::protobuf::Any any;
  any.PackFrom(duration);
  const auto* type = FindMessageType(any.type_url());
  ASSERT_EQ(type, Duration::descriptor());
  EXPECT_EQ(FindMessageType("google.protobuf.Duration"), type);
  EXPECT_EQ(FindMessageType("x/no.such.Type"), nullptr);
  const auto unpacked = UnpackAs(*type, any);
  ASSERT_THAT(unpacked, IsOk());
  EXPECT_EQ(static_cast<const Duration&>(**unpacked).seconds(), 7);
  any.set_value("\xff");
  EXPECT_THAT(UnpackAs(*type, any).status(),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("not a valid google.protobuf.Duration")));
}

}  // namespace
}  // namespace grapnel
