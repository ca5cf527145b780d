#include "grapnel/io/zip_reader.h"

#include <algorithm>
#include <cstddef>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/io/safetensors_header.h"

namespace grapnel {
namespace io {
namespace {

constexpr int64_t kMaxRecords = 262'144;
constexpr int64_t kEndSize = 22;  // End of central directory.
constexpr int64_t kMaxCommentSize = 65535;
constexpr int64_t kZip64LocatorSize = 20;
constexpr int64_t kZip64EndSize = 56;
constexpr int64_t kEntrySize = 46;  // In the directory.
constexpr int64_t kLocalSize = 30;  // In front of a record's bytes.
constexpr uint32_t kEndMagic = 0x06054b50;
constexpr uint32_t kZip64LocatorMagic = 0x07064b50;
constexpr uint32_t kZip64EndMagic = 0x06064b50;
constexpr uint32_t kEntryMagic = 0x02014b50;
constexpr uint32_t kLocalMagic = 0x04034b50;
constexpr uint16_t kZip64Field = 1;
// Encrypted; patched; strongly encrypted; names in the directory encrypted.
constexpr uint16_t kRefusedFlags = 0x0001 | 0x0020 | 0x0040 | 0x2000;

uint64_t Number(const char* bytes, int size) {
  uint64_t number = 0;
  for (int i = size; i-- > 0;) {
    number = number << 8 | static_cast<unsigned char>(bytes[i]);
  }
  return number;
}
uint16_t U16(const char* bytes) {
  return static_cast<uint16_t>(Number(bytes, 2));
}
uint32_t U32(const char* bytes) {
  return static_cast<uint32_t>(Number(bytes, 4));
}
uint64_t U64(const char* bytes) { return Number(bytes, 8); }

absl::Status Invalid(absl::string_view what) {
  return absl::InvalidArgumentError(what);
}

// Where the directory lies.
struct Directory {
  uint64_t count = 0;
  uint64_t num_bytes = 0;
  uint64_t offset = 0;
};

// The last bytes of the file, and where they begin.
struct Tail {
  std::string bytes;
  int64_t offset = 0;
};

absl::StatusOr<Tail> ReadTail(const RandomAccessFile& file) {
  Tail tail;
  const int64_t size =
      std::min(file.size(), kEndSize + kMaxCommentSize + kZip64LocatorSize);
  tail.offset = file.size() - size;
  tail.bytes.resize(static_cast<size_t>(size));
  GRAPNEL_RETURN_IF_ERROR(file.Read(tail.offset, size, &tail.bytes[0]));
  return tail;
}

// Where in the tail the end record is: the one whose comment ends the file.
std::optional<int64_t> FindEnd(const std::string& tail) {
  const auto size = static_cast<int64_t>(tail.size());
  for (int64_t at = size - kEndSize; at >= 0; --at) {
    const char* const end = tail.data() + at;
    if (U32(end) == kEndMagic && at + kEndSize + U16(end + 20) == size) {
      return at;
    }
  }
  return std::nullopt;
}

// What a file of more than 4 GiB or 65,535 records has in front of its end
// record. `*limit` is where the end records begin, which becomes its beginning.
absl::StatusOr<Directory> ReadZip64End(const RandomAccessFile& file,
                                       const char* locator, int64_t* limit) {
  const uint64_t offset = U64(locator + 8);
  if (U32(locator + 4) != 0 || U32(locator + 16) > 1) {
    return absl::UnimplementedError("is a part of a ZIP file");
  }
  if (offset > static_cast<uint64_t>(*limit) ||
      *limit - static_cast<int64_t>(offset) < kZip64EndSize) {
    return Invalid(absl::StrCat("ZIP64 end record at byte ", offset,
                                " is not in the file"));
  }
  char end[kZip64EndSize];
  GRAPNEL_RETURN_IF_ERROR(
      file.Read(static_cast<int64_t>(offset), kZip64EndSize, end));
  if (U32(end) != kZip64EndMagic) {
    return Invalid(absl::StrCat("no ZIP64 end record at byte ", offset));
  }
  *limit = static_cast<int64_t>(offset);
  return Directory{U64(end + 32), U64(end + 40), U64(end + 48)};
}

// Of a file without an end record.
absl::Status NoDirectory(const RandomAccessFile& file) {
  char magic[4] = {};
  if (file.size() >= 4) GRAPNEL_RETURN_IF_ERROR(file.Read(0, 4, magic));
  if (U32(magic) == kLocalMagic) {
    return absl::DataLossError(
        "has no ZIP directory at its end: cut off, or with bytes behind it");
  }
  return Invalid("has no ZIP directory: is not a ZIP file");
}

absl::StatusOr<Directory> FindDirectory(const RandomAccessFile& file) {
  GRAPNEL_ASSIGN_OR_RETURN(const Tail tail, ReadTail(file));
  const std::optional<int64_t> at = FindEnd(tail.bytes);
  if (!at.has_value()) return NoDirectory(file);
  const char* const end = tail.bytes.data() + *at;
  int64_t limit = tail.offset + *at;
  Directory directory{U16(end + 10), U32(end + 12), U32(end + 16)};
  const bool is_zip64 = *at >= kZip64LocatorSize &&
                        U32(end - kZip64LocatorSize) == kZip64LocatorMagic;
  if (is_zip64) {
    limit -= kZip64LocatorSize;
    GRAPNEL_ASSIGN_OR_RETURN(
        directory, ReadZip64End(file, end - kZip64LocatorSize, &limit));
  } else if (U16(end + 4) != 0 || U16(end + 6) != 0) {
    return absl::UnimplementedError("is a part of a ZIP file");
  }
  if (directory.offset > static_cast<uint64_t>(limit) ||
      directory.num_bytes > static_cast<uint64_t>(limit) - directory.offset) {
    return Invalid(absl::StrCat("ZIP directory of ", directory.num_bytes,
                                " bytes at byte ", directory.offset,
                                " is not in the file"));
  }
  if (directory.count > kMaxRecords) {
    return absl::ResourceExhaustedError(
        absl::StrCat(directory.count, " records, may have ", kMaxRecords));
  }
  if (directory.count > directory.num_bytes / kEntrySize) {
    return Invalid(absl::StrCat("ZIP directory of ", directory.num_bytes,
                                " bytes can't have ", directory.count,
                                " entries"));
  }
  return directory;
}

// An entry of the directory.
struct Entry {
  absl::string_view name;
  uint64_t num_bytes = 0;
  uint64_t header_offset = 0;
  uint32_t crc32 = 0;
  uint16_t method = 0;  // Of compression; 0: stored.
};

absl::Status About(const Entry& entry, absl::string_view what) {
  return Invalid(absl::StrCat("record ", QuotedName(entry.name), ": ", what));
}

// Takes a number of 64 bits off `*field` if `*value` says that it is there.
bool TakeZip64(uint64_t* value, absl::string_view* field) {
  if (*value != 0xffffffffu) return true;
  if (field->size() < 8) return false;
  *value = U64(field->data());
  field->remove_prefix(8);
  return true;
}

absl::Status ReadExtra(absl::string_view extra, uint64_t* stored_size,
                       Entry* entry) {
  while (extra.size() >= 4) {
    const uint16_t id = U16(extra.data());
    const size_t size = U16(extra.data() + 2);
    extra.remove_prefix(4);
    if (size > extra.size()) return About(*entry, "bad extra field");
    absl::string_view field = extra.substr(0, size);
    extra.remove_prefix(size);
    if (id != kZip64Field) continue;
    if (!TakeZip64(&entry->num_bytes, &field) ||
        !TakeZip64(stored_size, &field) ||
        !TakeZip64(&entry->header_offset, &field)) {
      return About(*entry, "bad ZIP64 field");
    }
  }
  return absl::OkStatus();
}

// Takes the next entry off `*rest`.
absl::StatusOr<Entry> TakeEntry(absl::string_view* rest) {
  if (rest->size() < kEntrySize || U32(rest->data()) != kEntryMagic) {
    return Invalid("ZIP directory ends before its last entry");
  }
  const char* const fixed = rest->data();
  const size_t name_size = U16(fixed + 28);
  const size_t extra_size = U16(fixed + 30);
  const size_t comment_size = U16(fixed + 32);
  rest->remove_prefix(kEntrySize);
  if (rest->size() < name_size + extra_size + comment_size) {
    return Invalid("ZIP directory ends inside an entry");
  }
  Entry entry;
  entry.name = rest->substr(0, name_size);
  entry.crc32 = U32(fixed + 16);
  uint64_t stored_size = U32(fixed + 20);
  entry.num_bytes = U32(fixed + 24);
  entry.header_offset = U32(fixed + 42);
  GRAPNEL_RETURN_IF_ERROR(
      ReadExtra(rest->substr(name_size, extra_size), &stored_size, &entry));
  rest->remove_prefix(name_size + extra_size + comment_size);
  if (U16(fixed + 8) & kRefusedFlags) return About(entry, "is encrypted");
  entry.method = U16(fixed + 10);
  if (entry.method == 0 && stored_size != entry.num_bytes) {
    return About(entry, absl::StrCat("has ", entry.num_bytes,
                                     " bytes stored as ", stored_size));
  }
  entry.num_bytes = stored_size;
  return entry;
}

// Where the entry's bytes begin: they follow its name, again, and end before
// `limit`.
absl::StatusOr<int64_t> FindBytes(const RandomAccessFile& file,
                                  const Entry& entry, uint64_t limit,
                                  std::string& local) {
  const uint64_t fixed_size = kLocalSize + entry.name.size();
  if (entry.header_offset > limit || limit - entry.header_offset < fixed_size) {
    return About(entry, absl::StrCat("begins at byte ", entry.header_offset,
                                     ", the directory at ", limit));
  }
  local.resize(fixed_size);
  GRAPNEL_RETURN_IF_ERROR(file.Read(static_cast<int64_t>(entry.header_offset),
                                    static_cast<int64_t>(fixed_size),
                                    &local[0]));
  if (U32(local.data()) != kLocalMagic) {
    return About(entry, absl::StrCat("isn't at byte ", entry.header_offset));
  }
  if (U16(local.data() + 26) != entry.name.size() ||
      absl::string_view(local).substr(kLocalSize) != entry.name) {
    return About(entry, "has another name in front of its bytes");
  }
  if (U16(local.data() + 6) & kRefusedFlags) {
    return About(entry, "is encrypted");
  }
  if (U16(local.data() + 8) != entry.method) {
    return About(entry,
                 absl::StrCat("is compressed by method ", U16(local.data() + 8),
                              ", the directory has ", entry.method));
  }
  const uint64_t begin =
      entry.header_offset + fixed_size + U16(local.data() + 28);
  if (begin > limit || entry.num_bytes > limit - begin) {
    return About(entry,
                 absl::StrCat("of ", entry.num_bytes, " bytes at byte ", begin,
                              " runs into the directory at ", limit));
  }
  return static_cast<int64_t>(begin);
}

// Takes "folder/" off the name; the first one sets `folder`.
absl::Status TakeFolder(Entry& entry, std::string& folder) {
  const size_t slash = entry.name.find('/');
  if (slash == absl::string_view::npos || slash == 0) {
    return About(entry, "is in no folder");
  }
  if (folder.empty()) folder = std::string(entry.name.substr(0, slash));
  if (entry.name.substr(0, slash) != folder) {
    return About(entry, absl::StrCat("isn't in the folder ", QuotedName(folder),
                                     " of the others"));
  }
  entry.name.remove_prefix(slash + 1);
  return absl::OkStatus();
}

// The part of the file that a record has for itself.
struct Extent {
  int64_t begin;
  int64_t end;
  absl::string_view name;
};

absl::Status CheckOverlap(std::vector<Extent>& extents) {
  std::sort(extents.begin(), extents.end(),
            [](const Extent& a, const Extent& b) { return a.begin < b.begin; });
  for (size_t i = 1; i < extents.size(); ++i) {
    if (extents[i].begin < extents[i - 1].end) {
      return Invalid(absl::StrCat("records ", QuotedName(extents[i - 1].name),
                                  " and ", QuotedName(extents[i].name),
                                  " overlap"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ZipRecord::CheckCrc(uint32_t crc) const {
  if (!has_crc() || crc == crc32) return absl::OkStatus();
  return absl::DataLossError(absl::StrFormat(
      "is damaged: CRC-32 is %08x, the directory has %08x", crc, crc32));
}

absl::StatusOr<ZipReader> ZipReader::Open(const RandomAccessFile& file) {
  GRAPNEL_ASSIGN_OR_RETURN(const Directory directory, FindDirectory(file));
  ZipReader reader;
  reader.directory_.resize(directory.num_bytes);
  GRAPNEL_RETURN_IF_ERROR(file.Read(static_cast<int64_t>(directory.offset),
                                    static_cast<int64_t>(directory.num_bytes),
                                    reader.directory_.data()));
  absl::string_view rest(reader.directory_.data(), reader.directory_.size());
  reader.records_.reserve(directory.count);
  std::vector<Extent> extents;
  extents.reserve(directory.count);
  std::string local;
  for (uint64_t i = 0; i < directory.count; ++i) {
    GRAPNEL_ASSIGN_OR_RETURN(Entry entry, TakeEntry(&rest));
    GRAPNEL_ASSIGN_OR_RETURN(const int64_t begin,
                             FindBytes(file, entry, directory.offset, local));
    GRAPNEL_RETURN_IF_ERROR(TakeFolder(entry, reader.folder_));
    const auto num_bytes = static_cast<int64_t>(entry.num_bytes);
    reader.records_.push_back(
        {entry.name, begin, num_bytes, entry.crc32, entry.method != 0});
    extents.push_back({static_cast<int64_t>(entry.header_offset),
                       begin + num_bytes, entry.name});
  }
  if (!rest.empty()) {
    return Invalid(absl::StrCat("ZIP directory has ", rest.size(),
                                " bytes behind its ", directory.count,
                                " entries"));
  }
  GRAPNEL_RETURN_IF_ERROR(CheckOverlap(extents));
  std::sort(
      reader.records_.begin(), reader.records_.end(),
      [](const ZipRecord& a, const ZipRecord& b) { return a.name < b.name; });
  for (size_t i = 1; i < reader.records_.size(); ++i) {
    if (reader.records_[i].name == reader.records_[i - 1].name) {
      return Invalid(absl::StrCat(
          "record ", QuotedName(reader.records_[i].name), " comes twice"));
    }
  }
  return reader;
}

absl::Status ZipReader::CheckStored() const {
  for (const ZipRecord& record : records_) {
    if (!record.is_compressed) continue;
    return absl::UnimplementedError(
        absl::StrCat("record ", QuotedName(record.name),
                     ": is compressed, torch.save only stores"));
  }
  return absl::OkStatus();
}

const ZipRecord* ZipReader::Find(absl::string_view name) const {
  const auto found =
      std::lower_bound(records_.begin(), records_.end(), name,
                       [](const ZipRecord& record, absl::string_view wanted) {
                         return record.name < wanted;
                       });
  return found != records_.end() && found->name == name ? &*found : nullptr;
}

}  // namespace io
}  // namespace grapnel
