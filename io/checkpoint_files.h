// What the writer, the reader and the housekeeping of checkpoints share.

#ifndef GRAPNEL_IO_CHECKPOINT_FILES_H_
#define GRAPNEL_IO_CHECKPOINT_FILES_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

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

// In the directory too, but not of the checkpoint's content: they come and go
// while it stays. One is empty, the other says what NoteCopy was told.
inline constexpr char kPinFile[] = "pinned";
inline constexpr char kCopiesFile[] = "copies";

inline constexpr absl::string_view kSectionSuffix = ".safetensors";
inline constexpr absl::string_view kBlobSuffix = ".pb";

// Bytes of a blob: no serialized message is larger.
inline constexpr uint64_t kMaxBlobSize = (uint64_t{1} << 31) - 1;

// Deletes a directory that may hold a checkpoint, its manifest first.
absl::Status DeleteManifestFirst(Env& env, const std::string& path);

// The copy with that ending, ".pth", of the checkpoint at `path`: beside it.
std::string CopyPath(absl::string_view path, absl::string_view ending);

// Deletes the copies that the file "copies" in `dir` names of the checkpoint at
// `path`: where it is, or was before it was renamed to `dir`.
absl::Status DeleteCopies(Env& env, const std::string& dir,
                          const std::string& path);

// The endings in the file "copies" in `dir`: ".pth" and ".safetensors" alone,
// whatever it says. None if it can't be read.
std::vector<std::string> ReadCopyEndings(Env& env, const std::string& dir);

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
