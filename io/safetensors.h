// The safetensors format: a JSON header and raw little-endian tensors.
//
// Example:
//
//   io::Env& env = io::Env::Posix();
//   TensorMap tensors;
//   GRAPNEL_RETURN_IF_ERROR(tensors.Add("fc.weight", torch::rand({2, 3})));
//   GRAPNEL_RETURN_IF_ERROR(
//       io::WriteSafetensors(env, "fc.safetensors", tensors).status());
//   GRAPNEL_ASSIGN_OR_RETURN(const TensorMap same,
//                            io::ReadSafetensors(env, "fc.safetensors"));
//   GRAPNEL_RET_CHECK(
//       torch::equal(*same.Find("fc.weight"), *tensors.Find("fc.weight")));

#ifndef GRAPNEL_IO_SAFETENSORS_H_
#define GRAPNEL_IO_SAFETENSORS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/io/env.h"
#include "grapnel/io/safetensors_header.h"

namespace grapnel {
namespace io {

// What was written or read.
struct SafetensorsFile {
  std::vector<SafetensorsEntry> entries;
  int64_t num_bytes = 0;
  std::string xxh3_128;  // 16 bytes, of the whole file.
};

// Writes `tensors`, any device and strides, to a new file at `path` and syncs
// it; after an error there is no file. Tensors are copied to the CPU one at a
// time and lie in the file by descending size of element, then by name. Shared
// storage is written once for each tensor. The first tensor begins at a
// multiple of 64 bytes, in files above 1 MiB of 4096, so that the file can be
// mapped.
//   kInvalidArgument: a dtype or layout that the format doesn't have, or a name
//     that a reader would refuse (below).
absl::StatusOr<SafetensorsFile> WriteSafetensors(Env& env,
                                                 const std::string& path,
                                                 const TensorMap& tensors);

// The same under a temporary name beside `path`, which it then takes, with a
// sync of the directory: the file is there whole, or as it was before.
absl::Status ReplaceSafetensors(Env& env, const std::string& path,
                                const TensorMap& tensors);

// Reads all tensors, in the order of the file, into memory of their own. Never
// trusts the file: header at most 100 MB, without a key twice or a field
// unknown; no gaps, overlaps or bytes behind the last tensor; shapes and
// lengths consistent, at most 64 dimensions; names are UTF-8 of 1 to 4096 bytes
// without control characters and "..". Follows links: model hubs' caches are
// made of them.
//   kInvalidArgument: not a safetensors file, or a bad header: says where.
//   kDataLoss: shorter or longer than its header says, or a BOOL that is not 0
//     and not 1.
//   kResourceExhausted: larger than memory.
absl::StatusOr<TensorMap> ReadSafetensors(Env& env, const std::string& path);

// The same from an open file; `path` is for messages. Sets `*read`, if not
// null, to what was read, with the file's digest.
absl::StatusOr<TensorMap> ReadSafetensors(const RandomAccessFile& file,
                                          const std::string& path,
                                          SafetensorsFile* read);

// The header alone, checked; entries in the order of the file.
absl::StatusOr<std::vector<SafetensorsEntry>> ReadSafetensorsHeader(
    const RandomAccessFile& file, const std::string& path);

}  // namespace io
}  // namespace grapnel

#endif  // GRAPNEL_IO_SAFETENSORS_H_
