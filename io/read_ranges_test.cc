#include "grapnel/io/read_ranges.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
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

TEST(ReadRangesTest, ReaderGetsAllInOrder) {
  MemEnv env;
  const std::string content = Noise((50 << 20) + 12345);
  ASSERT_THAT(WriteFileAtomically(env, "/f", content), IsOk());
  const auto file = env.NewRandomAccessFile("/f");
  ASSERT_THAT(file, IsOk());
  // Not in the file's order.
  std::vector<ReadRange> ranges = {
      {20 << 20, 30 << 20}, {3, 0}, {(1 << 20) + 100, 20 << 20}, {0, 1}};
  std::vector<std::string> buffers;
  std::string expected;
  for (const ReadRange& range : ranges) {
    buffers.emplace_back(static_cast<size_t>(range.num_bytes), '\0');
    expected += content.substr(range.offset, range.num_bytes);
  }
  for (size_t i = 0; i < ranges.size(); ++i) ranges[i].buffer = &buffers[i][0];
  std::string read;
  size_t failed = 0;
  ASSERT_THAT(ReadRangesInOrder(
                  **file, ranges,
                  [&](absl::string_view bytes) {
                    read.append(bytes.data(), bytes.size());
                  },
                  &failed),
              IsOk());
  EXPECT_TRUE(read == expected);
}

// Can be read up to a byte.
class FileWithABadEnd : public RandomAccessFile {
 public:
  explicit FileWithABadEnd(int64_t end) : end_(end) {}
  int64_t size() const override { return int64_t{1} << 40; }
  absl::Status Read(int64_t offset, int64_t n, char* buffer) const override {
    if (offset + n > end_) {
      return absl::UnavailableError(absl::StrCat("no byte ", offset + n));
    }
    std::fill_n(buffer, n, 'x');
    return absl::OkStatus();
  }

 private:
  const int64_t end_;
};

TEST(ReadRangesTest, FirstRangeThatCannotBeReadIsTold) {
  std::string buffer(size_t{40} << 20, ' ');
  std::vector<ReadRange> ranges;
  for (int64_t i = 0; i < 40; ++i) {
    ranges.push_back({i << 20, 1 << 20, &buffer[static_cast<size_t>(i) << 20]});
  }
  // All others fail too, on other threads.
  const FileWithABadEnd file((7 << 20) + 5);
  size_t num_bytes = 0;
  size_t failed = 0;
  EXPECT_THAT(
      ReadRangesInOrder(
          file, ranges,
          [&](absl::string_view bytes) { num_bytes += bytes.size(); }, &failed),
      StatusIs(absl::StatusCode::kUnavailable, "no byte 8388608"));
  EXPECT_EQ(failed, 7);
  EXPECT_EQ(num_bytes, 7 << 20);
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
