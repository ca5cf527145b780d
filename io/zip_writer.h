// Zip files of stored entries.

#ifndef GRAPNEL_IO_ZIP_WRITER_H_
#define GRAPNEL_IO_ZIP_WRITER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "grapnel/io/env.h"

namespace grapnel {
namespace io {

// Writes entries one after the other. The data of each begins at a multiple of
// 64 bytes, so that a mapped file's can be used as it is. An entry or a file of
// 4 GiB and more, or 65535 entries, makes ZIP64. The same entries give the same
// bytes: dates are those of 1980. Thread-compatible.
class ZipWriter {
 public:
  // Appends to `file`, which is new and outlives this.
  explicit ZipWriter(WritableFile& file) : file_(file) {}

  // `name` is ASCII, shorter than 64 KiB, and comes once. After an error only
  // destruction is useful.
  absl::Status Add(absl::string_view name, absl::string_view data);

  // Writes the directory. Neither syncs nor closes.
  absl::Status Finish();

 private:
  struct Entry {
    std::string name;
    uint64_t header_offset;
    uint64_t size;
    uint32_t crc;
  };

  absl::Status Append(absl::string_view bytes);

  WritableFile& file_;
  uint64_t offset_ = 0;  // Where the next byte goes.
  std::vector<Entry> entries_;
};

}  // namespace io
}  // namespace grapnel

#endif  // GRAPNEL_IO_ZIP_WRITER_H_
