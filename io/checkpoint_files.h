// What the writer, the reader and the housekeeping of checkpoints share.

#ifndef GRAPNEL_IO_CHECKPOINT_FILES_H_
#define GRAPNEL_IO_CHECKPOINT_FILES_H_

#include <cstdint>
#include <filesystem>
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
// while it stays. One is empty, the other has lines of CopyNotes.
inline constexpr char kPinFile[] = "pinned";
inline constexpr char kCopiesFile[] = "copies";

inline constexpr absl::string_view kSectionSuffix = ".safetensors";
inline constexpr absl::string_view kBlobSuffix = ".pb";

// Bytes of a blob: no serialized message is larger.
inline constexpr uint64_t kMaxBlobSize = (uint64_t{1} << 31) - 1;

// A path without slashes at its end, but "/".
absl::string_view StripSlashes(absl::string_view path);

// To compare paths as texts: without "." and "..", and slashes at its end.
std::filesystem::path NormalPath(absl::string_view path);

// The directory that `path` lies in; "." if it is in the current one.
std::string ParentOf(absl::string_view path);

// Deletes a directory that may hold a checkpoint, its manifest first.
absl::Status DeleteManifestFirst(Env& env, const std::string& path);

// The manifest in `dir`, whatever that is called.
absl::StatusOr<v1::CheckpointManifest> ReadManifestOfAnyName(
    Env& env, const std::string& dir);

// Renames `hidden` back to `path` after the error `cause`. Returns that, which
// then says if it can't be done.
absl::Status RenameBack(Env& env, const std::string& hidden,
                        const std::string& path, const absl::Status& cause);

// Deletes the checkpoint at `path`, which has no slashes at its end, and its
// copies. Renamed away first, so that a half-deleted one is never taken for
// whole; put back if its copies can't be deleted. With `chosen`, the manifest
// of the one that is to go, also if it is pinned by then or another one has its
// name: kFailedPrecondition. If that is null, pinned ones go too.
absl::Status DeleteWithCopies(Env& env, const std::string& path,
                              const v1::CheckpointManifest* chosen);

// What a killed writer or deleter has left under a hidden name.
struct HiddenLeftover {
  std::string name;  // ".old-epoch_5-1a2b3c4d".
  std::string of;    // The checkpoint's name.

  // It gets that name again, which nothing else has: it is whole, was replaced,
  // or pinned while it was deleted, and is the newest of those. Else it is
  // deleted.
  bool put_back = false;
};

// Those in `dir`, by their names. What a writer found in its way, but is no
// checkpoint, is left out: somebody's own.
absl::StatusOr<std::vector<HiddenLeftover>> FindLeftovers(
    Env& env, const std::string& dir);

// The copy with that ending, ".pth", of the checkpoint at `path`: beside it.
std::string CopyPath(absl::string_view path, absl::string_view ending);

// What a file was that was made of a checkpoint: another one of its name isn't
// it.
struct CopyNote {
  std::string ending;  // ".pth" or ".safetensors".
  int64_t num_bytes = 0;
  std::string xxh3_128;  // As 32 hexadecimal digits.
};
bool operator==(const CopyNote& a, const CopyNote& b);

// Reads the whole of `file`.
absl::StatusOr<CopyNote> DescribeCopy(Env& env, const std::string& file,
                                      const std::string& ending);

// Those in the file "copies" in `dir`; lines that make no sense are left out.
// None if it can't be read.
std::vector<CopyNote> ReadCopyNotes(Env& env, const std::string& dir);

// The endings in `notes`, each once: to tell a copy may mean to read it all.
std::vector<std::string> NotedEndings(const std::vector<CopyNote>& notes);

// The text of that file.
std::string CopyNotesText(const std::vector<CopyNote>& notes);

// Whether the copy with that ending of the checkpoint at `path` is there, a
// regular file and no link, and one of `notes` tells of it. Reads it only if it
// has the size in one of them.
absl::StatusOr<bool> IsNotedCopy(Env& env, const std::string& path,
                                 const std::string& ending,
                                 const std::vector<CopyNote>& notes);

// The endings of the copies of the checkpoint at `path` that are there in the
// size that its notes tell of. Reads none of them.
std::vector<std::string> CopyEndings(Env& env, const std::string& path);

// Deletes the copies that the file "copies" in `dir` tells of, of the
// checkpoint that was at `path` before it was renamed to `dir`. One that
// another checkpoint, now at `path`, tells of too stays.
absl::Status DeleteCopies(Env& env, const std::string& dir,
                          const std::string& path);

// Opens a file of a checkpoint. kDataLoss unless it is a regular file, no link,
// of the length in the record; kResourceExhausted if it is a blob above
// kMaxBlobSize.
absl::StatusOr<std::unique_ptr<RandomAccessFile>> OpenListedFile(
    Env& env, const std::string& checkpoint, const v1::FileRecord& record);

// The same of file number `index` of the manifest. The message of a file that
// is missing or cut short names the first tensor that isn't there whole.
absl::StatusOr<std::unique_ptr<RandomAccessFile>> OpenFileOf(
    Env& env, const std::string& checkpoint,
    const v1::CheckpointManifest& manifest, int index);

// OK if all files of the manifest are there in full length.
absl::Status CheckFiles(Env& env, const std::string& checkpoint,
                        const v1::CheckpointManifest& manifest);

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

// Whether there is a checkpoint at `path`, good or bad.
bool IsCheckpoint(Env& env, const std::string& path);

// "epoch_1, epoch_2 and 3 more", of those in `dir`; "" if there are none.
std::string CheckpointsIn(Env& env, const std::string& dir);

// kNotFound and kInvalidArgument to kDataLoss: a listed file that is missing or
// malformed isn't as it was written.
absl::Status AsDataLoss(absl::Status status);

}  // namespace io
}  // namespace grapnel

#endif  // GRAPNEL_IO_CHECKPOINT_FILES_H_
