#include "grapnel/io/digest.h"

#include "absl/strings/escaping.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace io {
namespace {

TEST(DigestTest, IsXxh3) {
  // From the xxhsum tool: printf '' | xxhsum -H3, -H2.
  EXPECT_EQ(Xxh3Digest64(""), 0x2d06800538d394c2u);
  EXPECT_EQ(absl::BytesToHexString(Xxh3Digest128("")),
            "99aa06d3014798d86001c324468d497f");
}

TEST(DigestTest, PiecesGiveTheDigestOfTheWhole) {
  const std::string data(100'000, 'x');
  Xxh3Hasher64 hasher64;
  Xxh3Hasher128 hasher128;
  size_t at = 0;
  for (const size_t size : {0, 1, 17, 1000, 98'982}) {
    hasher64.Update(absl::string_view(data).substr(at, size));
    hasher128.Update(absl::string_view(data).substr(at, size));
    at += size;
  }
  ASSERT_EQ(at, data.size());
  EXPECT_EQ(hasher64.Digest(), Xxh3Digest64(data));
  EXPECT_EQ(hasher128.Digest(), Xxh3Digest128(data));
}

}  // namespace
}  // namespace io
}  // namespace grapnel
