// The checkpoints of a work dir, good and bad, and what else is said of them
// there.

#ifndef GRAPNEL_TOOLS_CKPT_CHECKPOINT_FOLDER_H_
#define GRAPNEL_TOOLS_CKPT_CHECKPOINT_FOLDER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/checkpoint_manifest.pb.h"
#include "grapnel/io/env.h"
#include "grapnel/tools/ckpt/sized_file.h"

namespace grapnel {

struct FolderCheckpoint {
  std::string dir;
  std::string name;
  std::string path;

  // Empty unless it could be read.
  bool has_manifest = false;
  io::v1::CheckpointManifest manifest;

  // What is wrong: the manifest, or a file's length or absence. "" if nothing
  // is, digests apart, and of one that is set aside.
  std::string bad;

  // A training has found it damaged and renamed it: io::SetAsideCheckpoint.
  bool set_aside = false;

  bool pinned = false;
  bool is_last = false;           // last_checkpoint names it.
  std::vector<std::string> best;  // Metrics that its run has kept it for.
  std::vector<SizedFile> copies;  // Files that also_write has made of it.
};

// What a killed writer or deleter left.
struct Leftover {
  std::string path;
  std::string of;         // The checkpoint's name.
  bool put_back = false;  // io::RemoveLeftovers gives it its name again.
};

struct CheckpointFolder {
  // The one that was asked for, and the one that its last_checkpoint leads to,
  // if that is another.
  std::vector<std::string> dirs;

  // The path that last_checkpoint holds; "" if there is none. `last_problem`
  // says why it can't be used, if it can't.
  std::string last;
  std::string last_problem;

  // By iteration, epoch and time; those without a manifest behind them, by
  // name.
  std::vector<FolderCheckpoint> checkpoints;

  std::vector<Leftover> leftovers;
};

// kNotFound, saying what is there, if `dir` isn't; kInvalidArgument if it is
// no directory, or a checkpoint.
absl::StatusOr<CheckpointFolder> ReadCheckpointFolder(io::Env& env,
                                                      const std::string& dir);

// kNotFound, saying what is there, unless there is something at `path`.
absl::Status CheckThere(io::Env& env, const std::string& path);

// The same unless there is a checkpoint.
absl::Status CheckIsCheckpoint(io::Env& env, const std::string& path);

// kAlreadyExists if there is anything at `path`.
absl::Status CheckNotThere(io::Env& env, const std::string& path);

// The same for a checkpoint, and kInvalidArgument if it can't be called so, or
// would be passed over by searches.
absl::Status CheckNewCheckpoint(io::Env& env, const std::string& path);

// As CheckNotThere, and kNotFound if there is no folder to make a file `path`
// in.
absl::Status CheckNewFile(io::Env& env, const std::string& path);

// `status`, of reading the checkpoint at `path`. If it says that something but
// the model is damaged, it also names the model's own file, which may be whole.
absl::Status WithModelFile(io::Env& env, const std::string& path,
                           const absl::Status& status);

// io::ReadWeightsAndMore, whose errors say what is there if nothing is at
// `path`, or a folder without weights.
absl::StatusOr<io::CheckpointContents> ReadWeightsAt(io::Env& env,
                                                     const std::string& path);

// Of a file, or of all in a directory. Doesn't follow links; what can't be read
// has none.
int64_t BytesOf(io::Env& env, const std::string& path);

// "2026-11-30 02:29:07", in local time; for JSON "2026-11-30T02:29:07Z". "" of
// 0.
std::string LocalTime(int64_t unix_nanos);
std::string UtcTime(int64_t unix_nanos);

}  // namespace grapnel

#endif  // GRAPNEL_TOOLS_CKPT_CHECKPOINT_FOLDER_H_
