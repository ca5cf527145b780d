// CRC-32 as ZIP, gzip and PNG have it.

#ifndef GRAPNEL_IO_CRC32_H_
#define GRAPNEL_IO_CRC32_H_

#include <cstdint>

#include "absl/strings/string_view.h"

namespace grapnel {
namespace io {

// Of `data`; with `crc`, of what that is the CRC of and `data` behind it.
uint32_t Crc32(absl::string_view data, uint32_t crc = 0);

// Of two texts, one behind the other, from their CRCs and the second one's
// size.
uint32_t JoinCrc32(uint32_t first, uint32_t second, int64_t second_size);

}  // namespace io
}  // namespace grapnel

#endif  // GRAPNEL_IO_CRC32_H_
