// What the writer, the reader and the housekeeping of checkpoints share.

#ifndef GRAPNEL_IO_CHECKPOINT_FILES_H_
#define GRAPNEL_IO_CHECKPOINT_FILES_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "grapnel/io/env.h"

namespace grapnel::io::v1 {
class FileRecord;
}  // namespace grapnel::io::v1

namespace grapnel {
namespace io {

inline constexpr char kManifestFile[] = "manifest.pb";
inline constexpr absl::string_view kSectionSuffix = ".safetensors";
inline constexpr absl::string_view kBlobSuffix = ".pb";

// Bytes of a blob: no serialized message is larger.
inline constexpr uint64_t kMaxBlobSize = (uint64_t{1} << 31) - 1;

// Deletes a directory that may hold a checkpoint, its manifest first.
absl::Status DeleteManifestFirst(Env& env, const std::string& path);

// Opens a file of a checkpoint. kDataLoss unless it is a regular file, no link,
// of the length in the record; kResourceExhausted if it is a blob above
// kMaxBlobSize.
absl::StatusOr<std::unique_ptr<RandomAccessFile>> OpenListedFile(
    Env& env, const std::string& checkpoint, const v1::FileRecord& record);

// kNotFound and kInvalidArgument to kDataLoss: a listed file that is missing or
// malformed isn't as it was written.
absl::Status AsDataLoss(absl::Status status);

}  // namespace io
}  // namespace grapnel

#endif  // GRAPNEL_IO_CHECKPOINT_FILES_H_
