#include "grapnel/base/utf8.h"

#include <cstddef>
#include <optional>
#include <ostream>
#include <string>

#include "absl/strings/string_view.h"
#include "gmock/gmock.h"
#include "grapnel/base/control_characters.h"
#include "grapnel/base/status_matchers.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

struct Utf8Case {
  const char* name;
  std::string text;
  size_t valid;  // Bytes.
  std::string escaped;
};

void PrintTo(const Utf8Case& c, std::ostream* os) { *os << c.name; }

class Utf8Test : public ::testing::TestWithParam<Utf8Case> {};

INSTANTIATE_TEST_SUITE_P(
    , Utf8Test,
    ::testing::Values(
        Utf8Case{"Empty", "", 0, ""}, Utf8Case{"Ascii", "a\n~", 3, "a\n~"},
        Utf8Case{"Nul", std::string("a\0b", 3), 3, std::string("a\0b", 3)},
        Utf8Case{"TwoBytes", "\xc2\x80\xdf\xbf", 4, "\xc2\x80\xdf\xbf"},
        Utf8Case{"ThreeBytes", "\xe0\xa0\x80\xef\xbf\xbf", 6,
                 "\xe0\xa0\x80\xef\xbf\xbf"},
        Utf8Case{"FourBytes", "\xf0\x90\x80\x80\xf4\x8f\xbf\xbf", 8,
                 "\xf0\x90\x80\x80\xf4\x8f\xbf\xbf"},
        Utf8Case{"AroundSurrogates", "\xed\x9f\xbf\xee\x80\x80", 6,
                 "\xed\x9f\xbf\xee\x80\x80"},
        Utf8Case{"Latin1", "caf\xe9", 3, "caf\\xe9"},
        Utf8Case{"Latin1Inside", "caf\xe9s", 3, "caf\\xe9s"},
        Utf8Case{"AloneBehind", "a\x80", 1, "a\\x80"},
        Utf8Case{"Overlong2", "\xc1\xbf", 0, "\\xc1\\xbf"},
        Utf8Case{"Overlong3", "\xe0\x9f\xbf", 0, "\\xe0\\x9f\\xbf"},
        Utf8Case{"Overlong4", "\xf0\x8f\xbf\xbf", 0, "\\xf0\\x8f\\xbf\\xbf"},
        Utf8Case{"Surrogate", "\xed\xa0\x80", 0, "\\xed\\xa0\\x80"},
        Utf8Case{"BeyondTheLastPlane", "\xf4\x90\x80\x80", 0,
                 "\\xf4\\x90\\x80\\x80"},
        Utf8Case{"FiveBytes", "\xf8\x88\x80\x80\x80", 0,
                 "\\xf8\\x88\\x80\\x80\\x80"},
        Utf8Case{"CutShort", "a\xe2\x82", 1, "a\\xe2\\x82"},
        Utf8Case{"GoesOnBehind", "\xff\xc3\xa4\xfe", 0, "\\xff\xc3\xa4\\xfe"}),
    [](const auto& info) { return info.param.name; });

// ASCII is passed over in words: what isn't is found at any place in one.
TEST(Utf8PlacesTest, BadByteIsFoundAnywhere) {
  for (size_t size = 1; size < 40; ++size) {
    for (size_t at = 0; at < size; ++at) {
      std::string text(size, 'a');
      text[at] = '\xe9';
      EXPECT_EQ(ValidUtf8Prefix(text), at);
    }
    EXPECT_TRUE(IsUtf8(std::string(size, 'a')));
  }
}

TEST_P(Utf8Test, TellsWhatIsValidAndEscapesTheRest) {
  const Utf8Case& c = GetParam();
  EXPECT_EQ(ValidUtf8Prefix(c.text), c.valid);
  EXPECT_EQ(IsUtf8(c.text), c.valid == c.text.size());
  EXPECT_EQ(CheckUtf8(c.text).ok(), c.valid == c.text.size());
  EXPECT_EQ(EscapeToUtf8(c.text), c.escaped);
  EXPECT_TRUE(IsUtf8(c.escaped));
}

TEST(Utf8CallsTest, CodePointsAreTheirNumbers) {
  absl::string_view text = "a\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80\xff";
  EXPECT_EQ(TakeCodePoint(&text), char32_t{'a'});
  EXPECT_EQ(TakeCodePoint(&text), char32_t{0xe4});
  EXPECT_EQ(TakeCodePoint(&text), char32_t{0x20ac});
  EXPECT_EQ(TakeCodePoint(&text), char32_t{0x1f600});
  EXPECT_EQ(TakeCodePoint(&text), std::nullopt);
  EXPECT_EQ(text, "");
}

TEST(Utf8CallsTest, ErrorShowsTheTextAndWhere) {
  EXPECT_THAT(CheckUtf8("caf\xe9"),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "not UTF-8 from byte 3 on: \"caf\\xe9\""));
}

TEST(Utf8CallsTest, MessageMovesNoCursor) {
  const absl::string_view text = "\x1b[2J\n\x7f\xff";
  EXPECT_TRUE(HasControlCharacter(text));
  EXPECT_FALSE(HasControlCharacter(" ~\xc3\xa9\xff"));
  EXPECT_EQ(MaskControlCharacters(" \t~\xc3\xa9"), " ?~\xc3\xa9");
  EXPECT_THAT(CheckUtf8(text),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "not UTF-8 from byte 6 on: \"?[2J??\\xff\""));
}

}  // namespace
}  // namespace grapnel
