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
#include "grapnel/io/safetensors_header.h"

namespace grapnel::io::v1 {
class CheckpointManifest;
class FileRecord;
class TensorRecord;
}  // namespace grapnel::io::v1

namespace grapnel {
namespace io {

inline constexpr char kManifestFile[] = "manifest.pb";
inline constexpr char kLastCheckpoint[] = "last_checkpoint";

// In the directory too, but not of the checkpoint's content: they come and go
// while it stays. One is empty, the other says what NoteCopy was told.
inline constexpr char kPinFile[] = "pinned";
inline constexpr char kCopiesFile[] = "copies";

inline constexpr absl::string_view kSectionSuffix = ".safetensors";
inline constexpr absl::string_view kBlobSuffix = ".pb";

// Bytes of a blob: no serialized message is larger.
inline constexpr uint64_t kMaxBlobSize = (uint64_t{1} << 31) - 1;

// A path without slashes at its end, but "/".
absl::string_view StripSlashes(absl::string_view path);

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

// What a listed file is: a section of tensors, or a blob.
struct ListedPart {
  bool is_section = false;
  std::string name;
};

// kUnimplemented if no part is called like that, or it is a blob with tensors.
absl::StatusOr<ListedPart> ParsePartFile(absl::string_view file_name,
                                         bool has_tensors);

using TensorRecords = std::vector<const v1::TensorRecord*>;

// kDataLoss, naming the tensor, unless the header of a section's file says what
// the manifest says.
absl::Status CheckSectionHeader(const std::vector<SafetensorsEntry>& entries,
                                const TensorRecords& records);

// The path in `work_dir`/last_checkpoint, for ReadCheckpoint; "" if there is no
// such file, kDataLoss if it holds no path.
absl::StatusOr<std::string> ReadLastCheckpoint(Env& env,
                                               const std::string& work_dir);

// Whether a directory of that name, if there is no manifest in it, is taken for
// a checkpoint that went bad and not for somebody's own.
bool LooksLikeCheckpoint(absl::string_view name);

// The same of file number `index` of the manifest. The message of a file that
// is missing or cut short names the first tensor that isn't there whole.
absl::StatusOr<std::unique_ptr<RandomAccessFile>> OpenFileOf(
    Env& env, const std::string& checkpoint,
    const v1::CheckpointManifest& manifest, int index);

// kNotFound and kInvalidArgument to kDataLoss: a listed file that is missing or
// malformed isn't as it was written.
absl::Status AsDataLoss(absl::Status status);

}  // namespace io
}  // namespace grapnel

#endif  // GRAPNEL_IO_CHECKPOINT_FILES_H_
