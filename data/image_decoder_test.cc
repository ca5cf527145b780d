#include "grapnel/data/image_decoder.h"

#include <cstdint>
#include <ostream>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "gmock/gmock.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/data/image_encoder.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using ::testing::HasSubstr;
using ::testing::TestWithParam;
using ::testing::ValuesIn;

std::vector<uint8_t> Pixels(const Image& image) {
  return std::vector<uint8_t>(
      image.pixels.get(),
      image.pixels.get() + image.height * image.width * image.channels);
}

struct PngCase {
  std::string name;
  PngKind kind;
  int height;
  int width;
  std::vector<uint8_t> pixels;
  std::vector<uint8_t> gray;
  std::vector<uint8_t> rgb;
};

void PrintTo(const PngCase& c, std::ostream* os) { *os << c.name; }

class DecodePngTest : public TestWithParam<PngCase> {};

// Gray of pure red, green and blue: 255 times 0.299, 0.587 and 0.114.
INSTANTIATE_TEST_SUITE_P(, DecodePngTest,
                         ValuesIn(std::vector<PngCase>{
                             {"Gray",
                              PngKind::kGray,
                              2,
                              2,
                              {0, 1, 128, 255},
                              {0, 1, 128, 255},
                              {0, 0, 0, 1, 1, 1, 128, 128, 128, 255, 255, 255}},
                             {"OneBitIsBlackAndWhite",
                              PngKind::kGray1,
                              1,
                              4,
                              {0xA0},
                              {255, 0, 255, 0},
                              {255, 255, 255, 0, 0, 0, 255, 255, 255, 0, 0, 0}},
                             {"SixteenBitsKeepTheUpperEight",
                              PngKind::kGray16,
                              1,
                              2,
                              {0x12, 0x12, 0xFF, 0xFF},
                              {0x12, 0xFF},
                              {0x12, 0x12, 0x12, 0xFF, 0xFF, 0xFF}},
                             {"AlphaIsDropped",
                              PngKind::kGrayAlpha,
                              1,
                              2,
                              {7, 0, 9, 255},
                              {7, 9},
                              {7, 7, 7, 9, 9, 9}},
                             {"PaletteIsLookedUp",
                              PngKind::kPalette,
                              1,
                              4,
                              {0, 1, 2, 3},
                              {76, 150, 29, 255},
                              {255, 0, 0, 0, 255, 0, 0, 0, 255, 255, 255, 255}},
                             {"Rgb",
                              PngKind::kRgb,
                              1,
                              2,
                              {255, 0, 0, 10, 10, 10},
                              {76, 10},
                              {255, 0, 0, 10, 10, 10}},
                             {"Rgb16",
                              PngKind::kRgb16,
                              1,
                              1,
                              {0xFF, 0xFF, 0, 0, 0, 0},
                              {76},
                              {255, 0, 0}},
                             {"RgbaLosesItsAlpha",
                              PngKind::kRgba,
                              1,
                              1,
                              {1, 2, 3, 0},
                              {2},
                              {1, 2, 3}},
                         }),
                         [](const auto& info) { return info.param.name; });

TEST_P(DecodePngTest, GivesGrayAndRgb) {
  const PngCase& c = GetParam();
  for (const bool interlaced : {false, true}) {
    const std::string file =
        EncodePng(c.kind, c.height, c.width, c.pixels, interlaced);
    const auto gray = DecodeImage(file, 1);
    ASSERT_THAT(gray, IsOk());
    EXPECT_EQ(gray->height, c.height);
    EXPECT_EQ(gray->width, c.width);
    EXPECT_EQ(gray->channels, 1);
    EXPECT_THAT(Pixels(*gray), ElementsAreArray(c.gray));
    const auto rgb = DecodeImage(file, 3);
    ASSERT_THAT(rgb, IsOk());
    EXPECT_THAT(Pixels(*rgb), ElementsAreArray(c.rgb));
  }
}

// Wherever a file is cut, there is an error and no partly gray image.
TEST_P(DecodePngTest, EveryTruncationIsAnError) {
  const PngCase& c = GetParam();
  const std::string file = EncodePng(c.kind, c.height, c.width, c.pixels);
  for (size_t n = 0; n < file.size(); ++n) {
    EXPECT_FALSE(DecodeImage(absl::string_view(file).substr(0, n), 3).ok())
        << n << " of " << file.size() << " bytes";
  }
}

TEST_P(DecodePngTest, EveryFlippedByteIsAnErrorOrAnImage) {
  const PngCase& c = GetParam();
  const std::string file = EncodePng(c.kind, c.height, c.width, c.pixels);
  for (size_t i = 0; i < file.size(); ++i) {
    std::string damaged = file;
    damaged[i] = static_cast<char>(~damaged[i]);
    const auto image = DecodeImage(damaged, 3);
    if (image.ok()) {
      EXPECT_EQ(image->channels, 3) << i;
    }
  }
}

TEST(DecodeJpegTest, FlatColoursSurvive) {
  for (const bool progressive : {false, true}) {
    const auto gray =
        DecodeImage(EncodeJpeg(JpegKind::kGray, 9, 17,
                               std::vector<uint8_t>(9 * 17, 100), progressive),
                    1);
    ASSERT_THAT(gray, IsOk());
    EXPECT_EQ(gray->height, 9);
    EXPECT_EQ(gray->width, 17);
    EXPECT_THAT(Pixels(*gray), Each(100));

    std::vector<uint8_t> red(8 * 8 * 3, 0);
    for (size_t i = 0; i < red.size(); i += 3) red[i] = 255;
    const std::string file = EncodeJpeg(JpegKind::kRgb, 8, 8, red, progressive);
    const auto rgb = DecodeImage(file, 3);
    ASSERT_THAT(rgb, IsOk());
    EXPECT_NEAR(rgb->pixels[0], 255, 2);
    EXPECT_NEAR(rgb->pixels[1], 0, 2);
    EXPECT_NEAR(rgb->pixels[2], 0, 2);
    const auto luma = DecodeImage(file, 1);
    ASSERT_THAT(luma, IsOk());
    EXPECT_NEAR(luma->pixels[0], 76, 1);
  }
}

TEST(DecodeJpegTest, GrayBecomesThreeEqualChannels) {
  const auto image = DecodeImage(EncodeJpeg(JpegKind::kGray, 1, 1, {50}), 3);
  ASSERT_THAT(image, IsOk());
  EXPECT_THAT(Pixels(*image), ElementsAre(50, 50, 50));
}

TEST(DecodeJpegTest, EveryTruncationIsAnError) {
  std::vector<uint8_t> noise(32 * 32 * 3);
  for (size_t i = 0; i < noise.size(); ++i) {
    noise[i] = static_cast<uint8_t>(i * i * 31 + i * 7);
  }
  for (const bool progressive : {false, true}) {
    const std::string file =
        EncodeJpeg(JpegKind::kRgb, 32, 32, noise, progressive);
    // Without its last two bytes, the end marker, an image is still whole;
    // libjpeg warns of it all the same.
    for (size_t n = 0; n < file.size(); n += 7) {
      EXPECT_FALSE(DecodeImage(absl::string_view(file).substr(0, n), 3).ok())
          << n << " of " << file.size() << " bytes";
    }
    EXPECT_THAT(DecodeImage(file, 3), IsOk());
  }
}

TEST(DecodeJpegTest, BytesAfterTheEndAreIgnored) {
  EXPECT_THAT(DecodeImage(EncodeJpeg(JpegKind::kGray, 8, 8, {}) + "trailer", 1),
              IsOk());
}

TEST(DecodeJpegTest, CmykIsRefusedByName) {
  EXPECT_THAT(DecodeImage(EncodeJpeg(JpegKind::kCmyk, 8, 8, {}), 3),
              StatusIs(absl::StatusCode::kUnimplemented, HasSubstr("CMYK")));
}

// The last scan so many times more, which the format allows.
std::string JpegOfManyScans(int n) {
  const std::string file =
      EncodeJpeg(JpegKind::kGray, 64, 64, {}, /*progressive=*/true);
  const size_t last = file.rfind("\xff\xda");
  const size_t end = file.size() - 2;  // The end marker.
  std::string many = file.substr(0, end);
  for (int i = 0; i < n; ++i) many.append(file, last, end - last);
  return many + file.substr(end);
}

TEST(DecodeJpegTest, MillionsOfScansDontTakeForEver) {
  EXPECT_THAT(DecodeImage(JpegOfManyScans(400), 1), IsOk());
  EXPECT_THAT(
      DecodeImage(JpegOfManyScans(600), 1),
      StatusIs(absl::StatusCode::kDataLoss, HasSubstr("more than 500 scans")));
}

std::string PngHeader(uint32_t width, uint32_t height) {
  // A real file of 1 x 1 whose IHDR is replaced, CRC and all.
  std::string ihdr = "IHDR";
  for (const uint32_t side : {width, height}) {
    for (int shift = 24; shift >= 0; shift -= 8) {
      ihdr += static_cast<char>(side >> shift);
    }
  }
  ihdr += std::string("\x08\x00\x00\x00\x00", 5);
  uint32_t crc = 0xFFFFFFFF;
  for (const char c : ihdr) {
    crc ^= static_cast<uint8_t>(c);
    for (int bit = 0; bit < 8; ++bit) {
      crc = (crc >> 1) ^ (crc & 1 ? 0xEDB88320u : 0);
    }
  }
  crc = ~crc;
  for (int shift = 24; shift >= 0; shift -= 8) {
    ihdr += static_cast<char>(crc >> shift);
  }
  std::string file = EncodePng(PngKind::kGray, 1, 1, {0});
  return file.replace(12, ihdr.size(), ihdr);
}

struct BadCase {
  std::string name;
  std::string file;
  absl::StatusCode code;
  std::string message;
};

void PrintTo(const BadCase& c, std::ostream* os) { *os << c.name; }

class DecodeBadImageTest : public TestWithParam<BadCase> {};

INSTANTIATE_TEST_SUITE_P(
    , DecodeBadImageTest,
    ValuesIn(std::vector<BadCase>{
        {"Empty", "", absl::StatusCode::kInvalidArgument, "empty"},
        {"Text", "GIF89a", absl::StatusCode::kInvalidArgument,
         "neither a PNG nor a JPEG"},
        {"PngSignatureAlone", std::string("\x89PNG\r\n\x1a\n", 8),
         absl::StatusCode::kInvalidArgument, "cut short"},
        {"JpegSignatureAlone", "\xff\xd8\xff",
         absl::StatusCode::kInvalidArgument, "not a valid JPEG"},
        {"PngOfNoWidth", PngHeader(0, 1), absl::StatusCode::kInvalidArgument,
         "not a valid PNG"},
        {"PngTooWide", PngHeader(65536, 1),
         absl::StatusCode::kResourceExhausted, "1 x 65536"},
        {"PngOfTooManyPixels", PngHeader(65535, 65535),
         absl::StatusCode::kResourceExhausted, "65535 x 65535"},
        {"PngOfOtherSizeThanItsRows", PngHeader(1, 2),
         absl::StatusCode::kDataLoss, "damaged"},
    }),
    [](const auto& info) { return info.param.name; });

TEST_P(DecodeBadImageTest, IsAStatus) {
  EXPECT_THAT(DecodeImage(GetParam().file, 3),
              StatusIs(GetParam().code, HasSubstr(GetParam().message)));
}

}  // namespace
}  // namespace grapnel
