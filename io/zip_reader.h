// The records of a ZIP file of torch.save: all in one folder, and stored, not
// compressed.

#ifndef GRAPNEL_IO_ZIP_READER_H_
#define GRAPNEL_IO_ZIP_READER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "grapnel/io/env.h"

namespace grapnel {
namespace io {

struct ZipRecord {
  absl::string_view name;  // Without the folder: "data/0". Of the ZipReader.
  int64_t offset = 0;      // Of its bytes, from the start of the file.
  int64_t num_bytes = 0;
  uint32_t crc32 = 0;          // 0: the writer didn't compute it, or it is 0.
  bool is_compressed = false;  // Then these bytes are of no use here.

  bool has_crc() const { return crc32 != 0 || num_bytes == 0; }

  // kDataLoss, with both, if `crc` isn't the record's; OK if it has none.
  absl::Status CheckCrc(uint32_t crc) const;
};

// Thread-compatible.
class ZipReader {
 public:
  // Reads the directory of `file`. Never trusts it: records lie inside the file
  // before the directory, which has nothing else, don't overlap, are the same
  // in the directory and in front of their bytes, and none has a name twice. At
  // most 262,144.
  //   kInvalidArgument: not a ZIP file, or not such a one: names the record.
  //   kDataLoss: begins as one and doesn't end so: cut off, for example.
  //   kUnimplemented: a file in several parts.
  //   kResourceExhausted: more records.
  static absl::StatusOr<ZipReader> Open(const RandomAccessFile& file);

  ZipReader(ZipReader&&) = default;
  ZipReader& operator=(ZipReader&&) = default;

  const std::string& folder() const { return folder_; }
  absl::Span<const ZipRecord> records() const { return records_; }  // By name.

  // kUnimplemented, naming it, if a record is compressed: nothing here expands.
  absl::Status CheckStored() const;

  // Null if there is none of that name.
  const ZipRecord* Find(absl::string_view name) const;

 private:
  ZipReader() = default;

  std::vector<char> directory_;  // Names are views of it.
  std::string folder_;
  std::vector<ZipRecord> records_;
};

}  // namespace io
}  // namespace grapnel

#endif  // GRAPNEL_IO_ZIP_READER_H_
