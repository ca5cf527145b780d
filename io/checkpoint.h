// Checkpoints on disk: written whole or not at all, and verified when read.
//
// A checkpoint is a directory:
//
//   epoch_5/
//     manifest.pb              framed CheckpointManifest; lists the rest and is
//                              written last
//     model.safetensors        tensors of the section "model"
//     optimizer.safetensors    ... one file for each other section of tensors
//     state.pb                 ... one file for each blob
//
// It is made under a temporary name in the same parent and published by one
// rename, so that a name without manifest.pb is never seen. docs/
// checkpoint_format.md describes the bytes.
//
// Example:
//
//   io::Env& env = io::Env::Posix();
//   TensorMap model;
//   GRAPNEL_RETURN_IF_ERROR(model.Add("fc.weight", torch::rand({2, 3})));
//   io::CheckpointContents contents;
//   contents.sections.emplace_back("model", model);
//   GRAPNEL_RETURN_IF_ERROR(
//       io::WriteCheckpoint(env, "work_dir", "epoch_1", contents));
//   GRAPNEL_RETURN_IF_ERROR(
//       io::WriteLastCheckpoint(env, "work_dir", "work_dir/epoch_1"));
//
//   // In the next process:
//   GRAPNEL_RETURN_IF_ERROR(io::RemoveLeftovers(env, "work_dir"));
//   GRAPNEL_ASSIGN_OR_RETURN(
//       const io::LatestCheckpoint latest,
//       io::ReadLatestCheckpoint(env, "work_dir", /*rejected=*/nullptr));
//   GRAPNEL_RET_CHECK(latest.path == "work_dir/epoch_1");
//   GRAPNEL_RET_CHECK(latest.contents.FindSection("model")->size() == 1);

#ifndef GRAPNEL_IO_CHECKPOINT_H_
#define GRAPNEL_IO_CHECKPOINT_H_

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/io/env.h"

namespace grapnel::io::v1 {
class CheckpointManifest;
}  // namespace grapnel::io::v1

namespace grapnel {
namespace io {

// What a checkpoint holds. `sections` become <name>.safetensors and `blobs`
// <name>.pb; a name is [a-z0-9_]{1,64}.
struct CheckpointContents {
  CheckpointContents();
  CheckpointContents(const CheckpointContents& other);
  CheckpointContents& operator=(const CheckpointContents& other);
  // One that was moved from can only be assigned to or destroyed.
  CheckpointContents(CheckpointContents&&) noexcept;
  CheckpointContents& operator=(CheckpointContents&&) noexcept;
  ~CheckpointContents();

  // Declared in checkpoint_manifest.proto: to use it, include its .pb.h.
  //
  // The writer sets schema_version, name, checkpoint_uuid, files and tensors
  // and, where unset, created_unix_nanos, producer, libtorch_version,
  // cpu_capability, num_threads and world_size.
  v1::CheckpointManifest& manifest() { return *manifest_; }
  const v1::CheckpointManifest& manifest() const { return *manifest_; }

  std::vector<std::pair<std::string, TensorMap>> sections;
  std::vector<std::pair<std::string, std::string>> blobs;

  // Names of other files there, which the manifest doesn't list. Neither read
  // nor written.
  std::vector<std::string> unlisted;

  // The section or blob of that name, or null.
  const TensorMap* FindSection(absl::string_view name) const;
  const std::string* FindBlob(absl::string_view name) const;

 private:
  // Null once moved from.
  std::unique_ptr<v1::CheckpointManifest> manifest_;
};

// Writes `contents` to `parent`/`name`, replacing a checkpoint of that name;
// makes `parent` if needed. When it returns OK everything is on the disk. After
// an error what was there before is untouched, and nothing new is visible. One
// writer for each `parent` at a time.
//   kInvalidArgument: a bad name of checkpoint (printable ASCII without "/", up
//     to 200 bytes, not beginning with "."), section, blob or tensor, a blob of
//     2 GiB or more, or nothing to write.
//   kAlreadyExists: something that is no checkpoint has that name.
//   kResourceExhausted: the disk is full (seen before writing, where possible).
absl::Status WriteCheckpoint(Env& env, const std::string& parent,
                             const std::string& name,
                             const CheckpointContents& contents);

enum class Verify {
  kStructure,  // Frame, lengths, headers, tensor index.
  kFull,       // ... and the digest of every byte.
};

// Reads a checkpoint. Tensors are on the CPU, own their memory and come in the
// order they were written in. Links in place of files are refused.
//   kNotFound: there is no checkpoint at `path`.
//   kDataLoss: something in it isn't as it was written; names file and tensor.
//   kUnimplemented: written by a newer format.
//   kResourceExhausted: a manifest or a blob above its limit (a blob: 2 GiB -
//     1), or more than memory holds.
absl::StatusOr<CheckpointContents> ReadCheckpoint(
    Env& env, const std::string& path, Verify verify = Verify::kFull);

// The manifest alone, with its frame and fields checked.
absl::StatusOr<v1::CheckpointManifest> ReadManifest(Env& env,
                                                    const std::string& path);

// Deletes a checkpoint, good or bad, pinned or not, and its copies
// (io/run_checkpoints.h): renamed away first, so that a half-deleted one is
// never taken for whole. If a copy can't be deleted, that is an error, and the
// checkpoint has its name again. kNotFound unless there is a manifest.
absl::Status DeleteCheckpoint(Env& env, const std::string& path);

// Whether both paths lead to one checkpoint, or to copies of one. Compares the
// manifests, not the paths. False if one of them can't be read.
bool IsSameCheckpoint(Env& env, const std::string& a, const std::string& b);

// Removes what killed writers and deleters left in `parent`, and puts back a
// checkpoint whose replacement was cut short, or that was pinned while it was
// deleted; of several of one name, the newest. Call it before looking for what
// to resume from, and only where nobody else is writing. What can't be deleted
// adds a line to `*undeleted`, or is an error if that is null.
absl::Status RemoveLeftovers(Env& env, const std::string& parent,
                             std::vector<std::string>* undeleted = nullptr);

// Sets `work_dir`/last_checkpoint, atomically, to `checkpoint`: a path as
// ReadCheckpoint takes it, which must be absolute if work_dir is. The file gets
// the path relative to work_dir, so that both can be moved together, or the
// absolute one if the relative one doesn't lead there because of a link.
absl::Status WriteLastCheckpoint(Env& env, const std::string& work_dir,
                                 const std::string& checkpoint);

// The newest good checkpoint of `work_dir`:
//   - What last_checkpoint names. But a run may be killed after it saved and
//     before it said so, so a later one of the same run goes before: not called
//     "best_...", not written earlier, and of a larger iteration, or of the
//     same one and a larger epoch.
//   - If last_checkpoint is missing or names a bad one, the one with the
//     largest iteration, then epoch; those of the named one's run first, if its
//     manifest tells, and "best_..." only if there is no other.
// Those with `partial` in their manifest are passed over, unless
// last_checkpoint names one. Apart from work_dir it searches `checkpoint_dir`,
// where the run's checkpoints are if not in work_dir, and the directory of what
// last_checkpoint names. A directory may be missing.
//
// A good one has a manifest that can be read, and files of full length; digests
// are for ReadCheckpoint. Each bad one adds a line to `*rejected`, if not null.
// Paths in `skip` are never returned: for a caller to whom ReadCheckpoint said
// kDataLoss for what this returned before. kNotFound if there is none.
absl::StatusOr<std::string> FindLatestCheckpoint(
    Env& env, const std::string& work_dir, std::vector<std::string>* rejected,
    absl::Span<const std::string> skip = {},
    const std::string& checkpoint_dir = "");

// The newest that can be read whole, with the digests of all bytes: those that
// turn out to be damaged are passed over, with a line each in `*rejected`, if
// not null. kNotFound if there is none.
struct LatestCheckpoint {
  std::string path;
  CheckpointContents contents;
};
absl::StatusOr<LatestCheckpoint> ReadLatestCheckpoint(
    Env& env, const std::string& work_dir, std::vector<std::string>* rejected,
    const std::string& checkpoint_dir = "");

}  // namespace io
}  // namespace grapnel

#endif  // GRAPNEL_IO_CHECKPOINT_H_
