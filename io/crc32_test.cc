#include "grapnel/io/crc32.h"

#include <zlib.h>

#include <cstddef>
#include <cstdint>
#include <random>
#include <string>

#include "absl/strings/string_view.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace io {
namespace {

uint32_t Zlibs(absl::string_view data, uint32_t crc) {
  return static_cast<uint32_t>(
      ::crc32(crc, reinterpret_cast<const Bytef*>(data.data()),
              static_cast<uInt>(data.size())));
}

std::string RandomText(size_t n) {
  std::mt19937 random(1);
  std::string text;
  while (text.size() < n) text += static_cast<char>(random());
  return text;
}

TEST(Crc32Test, IsZlibsOfAnyLengthFromAnyPlace) {
  const std::string text = RandomText(600);
  for (size_t begin = 0; begin < 17; ++begin) {
    for (size_t n = 0; n <= 520; ++n) {
      const auto part = absl::string_view(text).substr(begin, n);
      ASSERT_EQ(Crc32(part), Zlibs(part, 0)) << n << " bytes at " << begin;
      ASSERT_EQ(Crc32(part, 0x12345678), Zlibs(part, 0x12345678))
          << n << " bytes at " << begin;
    }
  }
}

TEST(Crc32Test, OfPiecesIsThatOfTheWhole) {
  const std::string text = RandomText(300'000);
  const uint32_t whole = Zlibs(text, 0);
  EXPECT_EQ(Crc32(text), whole);
  for (const size_t cut : {1u, 63u, 64u, 65u, 100'001u}) {
    const uint32_t first = Crc32(text.substr(0, cut));
    EXPECT_EQ(Crc32(text.substr(cut), first), whole) << cut;
    EXPECT_EQ(JoinCrc32(first, Crc32(text.substr(cut)),
                        static_cast<int64_t>(text.size() - cut)),
              whole)
        << cut;
  }
}

TEST(Crc32Test, OfZerosIsPythons) {
  EXPECT_EQ(Crc32(std::string(1 << 20, '\0')), 0xa738ea1cu);
}

}  // namespace
}  // namespace io
}  // namespace grapnel
