// The JSON in front of a safetensors file.

#ifndef GRAPNEL_IO_SAFETENSORS_HEADER_H_
#define GRAPNEL_IO_SAFETENSORS_HEADER_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "c10/core/ScalarType.h"

namespace grapnel {
namespace io {

// Where one tensor lies in the file.
struct SafetensorsEntry {
  std::string name;
  std::string dtype;  // "F32", "BF16", "I64", ...
  std::vector<int64_t> shape;
  int64_t file_offset = 0;  // From the start of the file.
  int64_t num_bytes = 0;
  uint64_t xxh3_64 = 0;  // Of the bytes: WriteSafetensors sets it.
};

// LibTorch's iterators have no more.
constexpr size_t kMaxSafetensorsDims = 64;

struct SafetensorsDtype {
  const char* name;
  c10::ScalarType type;
  int64_t size;  // Bytes of an element.
};

// Null for one that the format doesn't have.
const SafetensorsDtype* FindSafetensorsDtype(absl::string_view name);
const SafetensorsDtype* FindSafetensorsDtype(c10::ScalarType type);

// kInvalidArgument, naming it, if a reader would refuse it.
absl::Status CheckTensorName(absl::string_view name);

// A name for a message: in quotes, cut, and with nothing in it that a terminal
// would obey.
std::string QuotedName(absl::string_view name);

// The entries in `json`, in its order; each is consistent in itself. Offsets
// are those of the header: from its end. kInvalidArgument, naming the tensor or
// the byte, from 0, for what ReadSafetensors says of headers.
absl::StatusOr<std::vector<SafetensorsEntry>> ParseSafetensorsHeader(
    absl::string_view json);

// `entries` in JSON, with offsets of the same kind.
std::string PrintSafetensorsHeader(
    const std::vector<SafetensorsEntry>& entries);

}  // namespace io
}  // namespace grapnel

#endif  // GRAPNEL_IO_SAFETENSORS_HEADER_H_
