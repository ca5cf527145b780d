// Large parts of a file into memory, on several threads.

#ifndef GRAPNEL_IO_READ_RANGES_H_
#define GRAPNEL_IO_READ_RANGES_H_

#include <cstddef>
#include <cstdint>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "grapnel/io/env.h"

namespace grapnel {
namespace io {

struct ReadRange {
  int64_t offset = 0;
  int64_t num_bytes = 0;
  char* buffer = nullptr;  // `num_bytes` bytes, or null: for the CRC alone.
  uint32_t crc32 = 0;      // Set by ReadRanges.
};

// Reads all of `ranges`, and computes their CRCs, on as many threads as the
// machine has, at most 4, if there is much to read. Fails as `file` does.
absl::Status ReadRanges(const RandomAccessFile& file,
                        absl::Span<ReadRange> ranges);

// As ReadRanges, but without CRCs, for ranges that have buffers. `reader` gets
// all bytes, in the order of the ranges, soon after they were read; on any of
// the threads, on one at a time. After an error `*failed` is the first range
// that can't be read.
absl::Status ReadRangesInOrder(
    const RandomAccessFile& file, absl::Span<const ReadRange> ranges,
    absl::FunctionRef<void(absl::string_view bytes)> reader, size_t* failed);

}  // namespace io
}  // namespace grapnel

#endif  // GRAPNEL_IO_READ_RANGES_H_
