#include "grapnel/io/zip_writer.h"

#include <cstddef>
#include <utility>

#include "grapnel/base/status_macros.h"
#include "grapnel/io/crc32.h"

namespace grapnel {
namespace io {
namespace {

constexpr uint64_t kAlignment = 64;
constexpr size_t kChunkSize = 1 << 20;  // Still in the cache when written.

// APPNOTE.TXT, 4.3 to 4.5.
constexpr uint32_t kLocalHeader = 0x04034b50;
constexpr uint32_t kDataDescriptor = 0x08074b50;
constexpr uint32_t kDirectoryHeader = 0x02014b50;
constexpr uint32_t kZip64End = 0x06064b50;
constexpr uint32_t kZip64Locator = 0x07064b50;
constexpr uint32_t kEnd = 0x06054b50;
constexpr uint64_t kLocalHeaderSize = 30;
constexpr uint64_t kZip64EndSize = 56;
constexpr uint16_t kZip64Extra = 0x0001;
constexpr uint16_t kPaddingExtra = 0x4246;  // "FB", as torch.save's.
constexpr uint16_t kSizesFollowData = 1 << 3;
constexpr uint16_t kJanuary1980 = 1 << 5 | 1;
constexpr uint64_t kMax16 = 0xffff;
constexpr uint64_t kMax32 = 0xffffffff;

// Integers of the file, little-endian.
class Fields {
 public:
  Fields& U16(uint64_t value) { return Put(value, 2); }
  Fields& U32(uint64_t value) { return Put(value, 4); }
  Fields& U64(uint64_t value) { return Put(value, 8); }
  Fields& Bytes(absl::string_view bytes) {
    bytes_.append(bytes.data(), bytes.size());
    return *this;
  }
  const std::string& bytes() const { return bytes_; }
  uint64_t size() const { return bytes_.size(); }

 private:
  Fields& Put(uint64_t value, int n) {
    for (int i = 0; i < n; ++i) bytes_ += static_cast<char>(value >> 8 * i);
    return *this;
  }

  std::string bytes_;
};

bool IsZip64(uint64_t value) { return value >= kMax32; }

// What stands in a field of 32 or 16 bits whose value is in the ZIP64 part.
uint64_t Or32(uint64_t value) { return IsZip64(value) ? kMax32 : value; }
uint64_t Or16(uint64_t value) { return value >= kMax16 ? kMax16 : value; }

uint64_t VersionNeeded(bool zip64) { return zip64 ? 45 : 20; }

}  // namespace

absl::Status ZipWriter::Add(absl::string_view name, absl::string_view data) {
  Entry entry{std::string(name), offset_, data.size(), 0};
  const bool zip64 = IsZip64(entry.size);
  Fields extra;
  // Present, it says that the sizes behind the data have 8 bytes.
  if (zip64) extra.U16(kZip64Extra).U16(16).U64(0).U64(0);
  const uint64_t end =
      offset_ + kLocalHeaderSize + name.size() + extra.size() + 4;
  const uint64_t padding = (kAlignment - end % kAlignment) % kAlignment;
  extra.U16(kPaddingExtra).U16(padding).Bytes(std::string(padding, '\0'));
  const uint64_t size_to_come = zip64 ? kMax32 : 0;
  Fields header;
  header.U32(kLocalHeader)
      .U16(VersionNeeded(zip64))
      .U16(kSizesFollowData)
      .U16(0)  // Stored.
      .U16(0)
      .U16(kJanuary1980)
      .U32(0)  // CRC.
      .U32(size_to_come)
      .U32(size_to_come)
      .U16(name.size())
      .U16(extra.size())
      .Bytes(name)
      .Bytes(extra.bytes());
  GRAPNEL_RETURN_IF_ERROR(Append(header.bytes()));
  while (!data.empty()) {
    const absl::string_view chunk = data.substr(0, kChunkSize);
    entry.crc = Crc32(chunk, entry.crc);
    GRAPNEL_RETURN_IF_ERROR(Append(chunk));
    data.remove_prefix(chunk.size());
  }
  Fields descriptor;
  descriptor.U32(kDataDescriptor).U32(entry.crc);
  if (zip64) {
    descriptor.U64(entry.size).U64(entry.size);
  } else {
    descriptor.U32(entry.size).U32(entry.size);
  }
  GRAPNEL_RETURN_IF_ERROR(Append(descriptor.bytes()));
  entries_.push_back(std::move(entry));
  return absl::OkStatus();
}

absl::Status ZipWriter::Finish() {
  const uint64_t begin = offset_;
  for (const Entry& entry : entries_) {
    Fields values;
    if (IsZip64(entry.size)) values.U64(entry.size).U64(entry.size);
    if (IsZip64(entry.header_offset)) values.U64(entry.header_offset);
    Fields extra;
    const bool zip64 = values.size() > 0;
    if (zip64) {
      extra.U16(kZip64Extra).U16(values.size()).Bytes(values.bytes());
    }
    Fields header;
    header.U32(kDirectoryHeader)
        .U16(VersionNeeded(zip64))
        .U16(VersionNeeded(zip64))
        .U16(kSizesFollowData)
        .U16(0)  // Stored.
        .U16(0)
        .U16(kJanuary1980)
        .U32(entry.crc)
        .U32(Or32(entry.size))
        .U32(Or32(entry.size))
        .U16(entry.name.size())
        .U16(extra.size())
        .U16(0)  // No comment.
        .U16(0)  // First and only disk.
        .U16(0)
        .U32(0)  // No attributes.
        .U32(Or32(entry.header_offset))
        .Bytes(entry.name)
        .Bytes(extra.bytes());
    GRAPNEL_RETURN_IF_ERROR(Append(header.bytes()));
  }
  const uint64_t end = offset_;
  const uint64_t n = entries_.size();
  Fields tail;
  if (n >= kMax16 || IsZip64(end - begin) || IsZip64(begin)) {
    tail.U32(kZip64End)
        .U64(kZip64EndSize - 12)  // Of what follows this.
        .U16(VersionNeeded(true))
        .U16(VersionNeeded(true))
        .U32(0)
        .U32(0)
        .U64(n)
        .U64(n)
        .U64(end - begin)
        .U64(begin);
    tail.U32(kZip64Locator).U32(0).U64(end).U32(1);
  }
  tail.U32(kEnd)
      .U16(0)
      .U16(0)
      .U16(Or16(n))
      .U16(Or16(n))
      .U32(Or32(end - begin))
      .U32(Or32(begin))
      .U16(0);  // No comment.
  return Append(tail.bytes());
}

absl::Status ZipWriter::Append(absl::string_view bytes) {
  GRAPNEL_RETURN_IF_ERROR(file_.Append(bytes));
  offset_ += bytes.size();
  return absl::OkStatus();
}

}  // namespace io
}  // namespace grapnel
