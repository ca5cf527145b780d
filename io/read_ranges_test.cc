#include "grapnel/io/read_ranges.h"

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/io/crc32.h"
#include "grapnel/io/env.h"
#include "grapnel/io/mem_env.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace io {
namespace {

using testing::_;

// Bytes that differ from their neighbours.
std::string Noise(size_t size) {
  std::string bytes(size, '\0');
  uint32_t state = 1;
  for (char& byte : bytes) {
    state = state * 1664525 + 1013904223;
    byte = static_cast<char>(state >> 24);
  }
  return bytes;
}

TEST(ReadRangesTest, ReadsManyOnSeveralThreads) {
  MemEnv env;
  const std::string content = Noise((50 << 20) + 12345);
  ASSERT_THAT(WriteFileAtomically(env, "/f", content), IsOk());
  const auto file = env.NewRandomAccessFile("/f");
  ASSERT_THAT(file, IsOk());
  const std::vector<ReadRange> places = {
      {7, 30 << 20}, {3, 0}, {(30 << 20) + 100, 20 << 20}, {0, 1}, {99, 1000}};
  std::vector<std::string> buffers;
  for (const ReadRange& place : places) {
    buffers.emplace_back(static_cast<size_t>(place.num_bytes), '\0');
  }
  std::vector<ReadRange> ranges = places;
  for (size_t i = 0; i < ranges.size(); ++i) ranges[i].buffer = &buffers[i][0];
  ranges.push_back({7, 30 << 20});  // For its CRC alone.
  ASSERT_THAT(ReadRanges(**file, absl::MakeSpan(ranges)), IsOk());
  for (size_t i = 0; i < places.size(); ++i) {
    EXPECT_TRUE(buffers[i] ==
                content.substr(places[i].offset, places[i].num_bytes))
        << i;
    EXPECT_EQ(ranges[i].crc32, Crc32(buffers[i])) << i;
  }
  EXPECT_EQ(ranges.back().crc32, ranges.front().crc32);
}

TEST(ReadRangesTest, EndOfFileIsAnError) {
  MemEnv env;
  ASSERT_THAT(WriteFileAtomically(env, "/f", "123"), IsOk());
  const auto file = env.NewRandomAccessFile("/f");
  ASSERT_THAT(file, IsOk());
  std::string buffer(4, ' ');
  ReadRange range{0, 4, &buffer[0]};
  EXPECT_THAT(ReadRanges(**file, {&range, 1}),
              StatusIs(absl::StatusCode::kDataLoss, _));
}

}  // namespace
}  // namespace io
}  // namespace grapnel
