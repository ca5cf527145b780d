#include "grapnel/io/zip_writer.h"

#include <sys/mman.h>

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/io/env.h"
#include "grapnel/io/mem_env.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace io {
namespace {

std::string Zip(const std::vector<std::pair<std::string, std::string>>& files) {
  MemEnv env;
  auto file = env.NewWritableFile("/f");
  EXPECT_THAT(file, IsOk());
  ZipWriter zip(**file);
  for (const auto& [name, data] : files) {
    EXPECT_THAT(zip.Add(name, data), IsOk());
  }
  EXPECT_THAT(zip.Finish(), IsOk());
  EXPECT_THAT((*file)->Close(), IsOk());
  return *ReadFile(env, "/f");
}

TEST(ZipWriterTest, ASmallFileByteForByte) {
  const std::string expected = absl::StrCat(
      // Local header: version 2.0, sizes behind the data, stored, 1980-01-01.
      "504b03041400080000000000210000000000000000000000000003001f00",
      absl::BytesToHexString("a/b"),
      // 27 bytes of padding.
      "46421b00", std::string(27 * 2, '0'),  //
      absl::BytesToHexString("hello"),
      // Descriptor: CRC and sizes.
      "504b070886a610360500000005000000",
      // Directory: as above, CRC and sizes, length of the name, zeros.
      "504b0102140014000800000000002100", "86a610360500000005000000", "0300",
      std::string(16 * 2, '0'), absl::BytesToHexString("a/b"),
      // End: entries here and in all, directory's size and offset.
      "504b050600000000", "01000100", "31000000", "55000000", "0000");
  EXPECT_EQ(absl::BytesToHexString(Zip({{"a/b", "hello"}})), expected);
}

TEST(ZipWriterTest, NoEntriesAreAFileToo) {
  EXPECT_EQ(absl::BytesToHexString(Zip({})),
            "504b0506" + std::string(18 * 2, '0'));
}

// A file of which the large pieces are only counted.
class SparseFile : public WritableFile {
 public:
  absl::Status Append(absl::string_view data) override {
    if (data.size() < 1 << 20) pieces_.emplace(size_, data);
    size_ += data.size();
    return absl::OkStatus();
  }
  absl::Status Flush() override { return absl::OkStatus(); }
  absl::Status Sync() override { return absl::OkStatus(); }
  absl::Status Close() override { return absl::OkStatus(); }

  uint64_t size() const { return size_; }

  // The little-endian integer of `n` bytes at `offset`.
  uint64_t Get(uint64_t offset, int n) const {
    uint64_t value = 0;
    for (int i = 0; i < n; ++i) {
      auto it = pieces_.upper_bound(offset + i);
      if (it == pieces_.begin()) return ~uint64_t{0};
      --it;
      const uint64_t at = offset + i - it->first;
      if (at >= it->second.size()) return ~uint64_t{0};
      value |= uint64_t{static_cast<unsigned char>(it->second[at])} << 8 * i;
    }
    return value;
  }

 private:
  std::map<uint64_t, std::string> pieces_;
  uint64_t size_ = 0;
};

TEST(ZipWriterTest, FourGibibytesMakeZip64) {
  constexpr uint64_t kSize = (uint64_t{4} << 30) + 5;
  // Takes no memory: all pages are the one of zeros.
  void* const zeros =
      ::mmap(nullptr, kSize, PROT_READ,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  ASSERT_NE(zeros, MAP_FAILED);
  SparseFile file;
  ZipWriter zip(file);
  ASSERT_THAT(zip.Add("large", {static_cast<const char*>(zeros), kSize}),
              IsOk());
  const uint64_t second = file.size();
  ASSERT_THAT(zip.Add("small", "abc"), IsOk());
  const uint64_t directory = file.size();
  ASSERT_THAT(zip.Finish(), IsOk());
  ::munmap(zeros, kSize);

  // The large one's local header: 0xffffffff and a ZIP64 field, which makes
  // the sizes behind the data long.
  EXPECT_EQ(file.Get(4, 2), 45u);
  EXPECT_EQ(file.Get(18, 4), 0xffffffffu);
  EXPECT_EQ(file.Get(22, 4), 0xffffffffu);
  EXPECT_EQ(file.Get(35, 2), 1u);
  EXPECT_EQ(file.Get(37, 2), 16u);
  const uint64_t data = 30 + file.Get(26, 2) + file.Get(28, 2);
  EXPECT_EQ(data % 64, 0u);
  EXPECT_EQ(second, data + kSize + 24);
  EXPECT_EQ(file.Get(data + kSize, 4), 0x08074b50u);
  EXPECT_EQ(file.Get(data + kSize + 4, 4), 0xb1c2a1a3u);  // As of Python.
  EXPECT_EQ(file.Get(data + kSize + 8, 8), kSize);
  EXPECT_EQ(file.Get(data + kSize + 16, 8), kSize);

  // The small one has short sizes and a long offset.
  EXPECT_EQ(file.Get(second + 4, 2), 20u);
  const uint64_t small_data =
      second + 30 + file.Get(second + 26, 2) + file.Get(second + 28, 2);
  EXPECT_EQ(small_data % 64, 0u);
  EXPECT_EQ(directory, small_data + 3 + 16);

  // The directory: sizes of the first, the offset of the second.
  EXPECT_EQ(file.Get(directory, 4), 0x02014b50u);
  EXPECT_EQ(file.Get(directory + 6, 2), 45u);
  EXPECT_EQ(file.Get(directory + 16, 4), file.Get(data + kSize + 4, 4));
  EXPECT_EQ(file.Get(directory + 20, 4), 0xffffffffu);
  EXPECT_EQ(file.Get(directory + 24, 4), 0xffffffffu);
  EXPECT_EQ(file.Get(directory + 30, 2), 4u + 16);
  EXPECT_EQ(file.Get(directory + 42, 4), 0u);
  EXPECT_EQ(file.Get(directory + 51, 2), 1u);
  EXPECT_EQ(file.Get(directory + 53, 2), 16u);
  EXPECT_EQ(file.Get(directory + 55, 8), kSize);
  EXPECT_EQ(file.Get(directory + 63, 8), kSize);
  const uint64_t next = directory + 46 + 5 + 20;
  EXPECT_EQ(file.Get(next, 4), 0x02014b50u);
  EXPECT_EQ(file.Get(next + 20, 4), 3u);
  EXPECT_EQ(file.Get(next + 30, 2), 4u + 8);
  EXPECT_EQ(file.Get(next + 42, 4), 0xffffffffu);
  EXPECT_EQ(file.Get(next + 51, 2), 1u);
  EXPECT_EQ(file.Get(next + 53, 2), 8u);
  EXPECT_EQ(file.Get(next + 55, 8), second);

  const uint64_t end64 = next + 46 + 5 + 12;
  EXPECT_EQ(file.Get(end64, 4), 0x06064b50u);
  EXPECT_EQ(file.Get(end64 + 4, 8), 44u);
  EXPECT_EQ(file.Get(end64 + 24, 8), 2u);
  EXPECT_EQ(file.Get(end64 + 32, 8), 2u);
  EXPECT_EQ(file.Get(end64 + 40, 8), end64 - directory);
  EXPECT_EQ(file.Get(end64 + 48, 8), directory);
  EXPECT_EQ(file.Get(end64 + 56, 4), 0x07064b50u);
  EXPECT_EQ(file.Get(end64 + 64, 8), end64);
  EXPECT_EQ(file.Get(end64 + 72, 4), 1u);
  EXPECT_EQ(file.Get(end64 + 76, 4), 0x06054b50u);
  EXPECT_EQ(file.Get(end64 + 76 + 8, 2), 2u);
  EXPECT_EQ(file.Get(end64 + 76 + 12, 4), end64 - directory);
  EXPECT_EQ(file.Get(end64 + 76 + 16, 4), 0xffffffffu);
  EXPECT_EQ(file.size(), end64 + 76 + 22);
}

TEST(ZipWriterTest, From65535EntriesOnTheirNumberIsInTheZip64End) {
  for (const uint64_t n : {65534u, 65535u, 65536u}) {
    SparseFile file;
    ZipWriter zip(file);
    for (uint64_t i = 0; i < n; ++i) {
      ASSERT_THAT(zip.Add(absl::StrCat(i), ""), IsOk());
    }
    ASSERT_THAT(zip.Finish(), IsOk());
    const uint64_t end = file.size() - 22;
    EXPECT_EQ(file.Get(end + 10, 2), n == 65534 ? n : 65535) << n;
    const bool zip64 = file.Get(end - 20, 4) == 0x07064b50;
    EXPECT_EQ(zip64, n != 65534) << n;
    if (zip64) {
      EXPECT_EQ(file.Get(file.Get(end - 12, 8) + 32, 8), n);
    }
  }
}

}  // namespace
}  // namespace io
}  // namespace grapnel
