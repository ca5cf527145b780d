#include "grapnel/io/crc32.h"

#include <zlib.h>

namespace grapnel {
namespace io {

uint32_t Crc32(absl::string_view data, uint32_t crc) {
  return static_cast<uint32_t>(
      ::crc32_z(crc, reinterpret_cast<const Bytef*>(data.data()), data.size()));
}

uint32_t JoinCrc32(uint32_t first, uint32_t second, int64_t second_size) {
  return static_cast<uint32_t>(::crc32_combine(first, second, second_size));
}

}  // namespace io
}  // namespace grapnel
