#include "grapnel/base/json_string.h"

#include <string>

#include "gtest/gtest.h"

namespace grapnel {
namespace {

std::string Ascii(absl::string_view text) {
  std::string json;
  AppendAsciiJsonString(text, &json);
  return json;
}

TEST(JsonStringTest, WhatJsonHasSignsForIsEscaped) {
  const std::string text("a\"\\/\b\f\n\r\t\x01\0z", 12);
  const char kJson[] = R"("a\"\\/\b\f\n\r\t\u0001\u0000z")";
  EXPECT_EQ(JsonString(text), kJson);
  EXPECT_EQ(Ascii(text), kJson);
}

TEST(JsonStringTest, TextIsUtf8OrAscii) {
  const char kText[] = "\xc3\xa9\xf0\x9f\x98\x80\x7f";
  EXPECT_EQ(JsonString(kText), "\"\xc3\xa9\xf0\x9f\x98\x80\x7f\"");
  EXPECT_EQ(Ascii(kText), R"("\u00e9\ud83d\ude00\u007f")");
  EXPECT_EQ(Ascii(""), R"("")");
}

TEST(JsonStringTest, BytesThatAreNoTextAreEscapedTwice) {
  EXPECT_EQ(JsonString("a\x80"), R"("a\\x80")");
  EXPECT_EQ(Ascii("a\x80"), R"("a\\x80")");
}

}  // namespace
}  // namespace grapnel
