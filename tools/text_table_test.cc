#include "grapnel/tools/text_table.h"

#include <cstdint>
#include <limits>
#include <string>

#include "gtest/gtest.h"

namespace grapnel {
namespace {

TEST(AppendTableTest, ColumnsAreAsWideAsTheyNeed) {
  std::string text = "before\n";
  AppendTable({{"name", "size"}, {"caf\u00e9", "1", "note"}, {"longer", ""}},
              &text);
  EXPECT_EQ(text,
            "before\n"
            "name    size\n"
            "caf\u00e9    1     note\n"
            "longer\n");
}

TEST(AppendTableTest, ACellIsOneLineThatNoTerminalObeys) {
  std::string text;
  AppendTable({{"a\nb\x1b[31m\x7f", "\u009b2J", "\xff"}}, &text);
  EXPECT_EQ(text, "a?b?[31m?  ?2J  \\xff\n");
}

TEST(NumbersTest, AreGroupedAndHaveUnits) {
  EXPECT_EQ(GroupDigits(0), "0");
  EXPECT_EQ(GroupDigits(999), "999");
  EXPECT_EQ(GroupDigits(-999), "-999");
  EXPECT_EQ(GroupDigits(1234567), "1,234,567");
  EXPECT_EQ(GroupDigits(-123456), "-123,456");
  EXPECT_EQ(FormatBytes(999), "999 B");
  EXPECT_EQ(FormatBytes(1000), "1.0 kB");
  EXPECT_EQ(FormatBytes(999949), "999.9 kB");
  EXPECT_EQ(FormatBytes(999950), "1.0 MB");
  EXPECT_EQ(FormatBytes(std::numeric_limits<int64_t>::max()), "9223372.0 TB");
  EXPECT_EQ(Count(1, "tensor"), "1 tensor");
  EXPECT_EQ(Count(1200, "tensor"), "1,200 tensors");
}

}  // namespace
}  // namespace grapnel
