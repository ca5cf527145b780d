#include "grapnel/io/pickle_writer.h"

#include <cstdint>
#include <limits>
#include <string>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace io {
namespace {

constexpr char kProto[] = "8002";

std::string Hex(const PickleWriter& writer) {
  return absl::BytesToHexString(writer.bytes());
}

TEST(PickleWriterTest, IntsTakeTheShortestOpcode) {
  struct Case {
    int64_t value;
    const char* hex;
  };
  const Case cases[] = {
      {0, "4b00"},
      {255, "4bff"},
      {256, "4d0001"},
      {65535, "4dffff"},
      {65536, "4a00000100"},
      {-1, "4affffffff"},
      {2147483647, "4affffff7f"},
      {-2147483648, "4a00000080"},
      {2147483648, "8a080000008000000000"},
      {-2147483649, "8a08ffffff7fffffffff"},
      {std::numeric_limits<int64_t>::max(), "8a08ffffffffffffff7f"},
      {std::numeric_limits<int64_t>::min(), "8a080000000000000080"},
  };
  for (const Case& c : cases) {
    PickleWriter writer;
    writer.Int(c.value);
    EXPECT_EQ(Hex(writer), absl::StrCat(kProto, c.hex)) << c.value;
  }
}

TEST(PickleWriterTest, Constants) {
  PickleWriter writer;
  writer.None();
  writer.Bool(true);
  writer.Bool(false);
  writer.Float(1.5);
  writer.Float(-std::numeric_limits<double>::infinity());
  EXPECT_EQ(Hex(writer), absl::StrCat(kProto, "4e8889", "473ff8000000000000",
                                      "47fff0000000000000"));
}

TEST(PickleWriterTest, WhatComesAgainIsAReference) {
  PickleWriter writer;
  writer.String("a");
  writer.Global("m", "f");
  writer.String("a");
  writer.Global("m", "f");
  writer.String("");
  EXPECT_EQ(writer.bytes(), std::string("\x80\x02X\x01\0\0\0aq\0"
                                        "cm\nf\nq\x01"
                                        "h\0h\x01"
                                        "X\0\0\0\0q\x02",
                                        28));
}

TEST(PickleWriterTest, FromTheMemosPlace256OnReferencesAreLong) {
  PickleWriter writer;
  for (int i = 0; i <= 256; ++i) writer.String(absl::StrCat(i));
  const size_t size = writer.bytes().size();
  EXPECT_EQ(writer.bytes().substr(size - 5), std::string("r\0\x01\0\0", 5));
  writer.String("255");
  writer.String("256");
  EXPECT_EQ(writer.bytes().substr(size), std::string("h\xffj\0\x01\0\0", 7));
}

}  // namespace
}  // namespace io
}  // namespace grapnel
