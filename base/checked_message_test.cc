#include "grapnel/base/checked_message.h"

#include "gmock/gmock.h"
#include "google/protobuf/any.pb.h"
#include "google/protobuf/struct.pb.h"
#include "google/protobuf/wrappers.pb.h"
#include "grapnel/base/status_matchers.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::google::protobuf::Any;
using ::google::protobuf::BytesValue;
using ::google::protobuf::ListValue;
using ::google::protobuf::StringValue;
using ::google::protobuf::Struct;

TEST(SerializeCheckedTest, GivesTheBytesOfWhatReadsBack) {
  StringValue text;
  text.set_value("caf\xc3\xa9");
  const auto bytes = SerializeChecked(text);
  ASSERT_THAT(bytes, IsOk());
  StringValue back;
  ASSERT_TRUE(back.ParseFromString(*bytes));
  EXPECT_EQ(back.value(), "caf\xc3\xa9");

  BytesValue raw;  // Which may be anything.
  raw.set_value("caf\xe9");
  EXPECT_THAT(SerializeChecked(raw), IsOk());
}

TEST(SerializeCheckedTest, NamesTheFieldThatIsNotUtf8) {
  StringValue text;
  text.set_value("caf\xe9");
  EXPECT_THAT(SerializeChecked(text),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "value: not UTF-8 from byte 3 on: \"caf\\xe9\""));
  ListValue list;
  list.add_values()->set_number_value(1);
  list.add_values()->set_string_value("\xff");
  EXPECT_THAT(
      SerializeChecked(list),
      StatusIs(absl::StatusCode::kInvalidArgument,
               "values[1].string_value: not UTF-8 from byte 0 on: \"\\xff\""));
  Struct map;
  (*map.mutable_fields())["a\xff"].set_number_value(1);
  EXPECT_THAT(SerializeChecked(map),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "fields[0].key: not UTF-8 from byte 1 on: \"a\\xff\""));
}

TEST(SerializeCheckedTest, WhatIsInAnAnyCountsAsBytes) {
  StringValue text;
  text.set_value("plain");
  Any any;
  any.PackFrom(text);
  any.mutable_value()->back() = '\xff';
  EXPECT_THAT(CheckStrings(any), IsOk());
  any.set_type_url("\xff");
  EXPECT_THAT(CheckStrings(any),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       testing::HasSubstr("type_url: not UTF-8")));
}

TEST(ParseQuietlyTest, ReadsWhatIsWritten) {
  StringValue text, back;
  text.set_value("plain");
  ASSERT_TRUE(ParseQuietly(text.SerializeAsString(), &back));
  EXPECT_EQ(back.value(), "plain");
  EXPECT_TRUE(ParseQuietly("", &back));
  EXPECT_EQ(back.value(), "");
}

TEST(ParseQuietlyTest, SaysNothingOfWhatIsNone) {
  testing::internal::CaptureStderr();
  StringValue back;
  EXPECT_FALSE(
      ParseQuietly("\x0a\x04"
                   "caf\xe9",
                   &back));  // Not UTF-8.
  EXPECT_FALSE(
      ParseQuietly("\x0a\x04"
                   "caf",
                   &back));  // Cut off.
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

}  // namespace
}  // namespace grapnel
