// The checkpoints that one run has made, for those who decide which of them
// stay.
//
// Example:
//
//   io::Env& env = io::Env::Posix();
//   for (int iter = 1; iter <= 3; ++iter) {
//     io::CheckpointContents contents;
//     contents.blobs.emplace_back("state", "what the run has to remember");
//     contents.manifest().set_run_uuid("my run");
//     contents.manifest().mutable_progress()->set_iter(iter);
//     GRAPNEL_RETURN_IF_ERROR(io::WriteCheckpoint(
//         env, "work_dir", absl::StrCat("iter_", iter), contents));
//     GRAPNEL_RETURN_IF_ERROR(
//         io::KeepNewestCheckpoints(env, "work_dir", "my run", 2));
//   }
//   GRAPNEL_RET_CHECK(!env.FileExists("work_dir/iter_1"));
//   GRAPNEL_RET_CHECK(env.FileExists("work_dir/iter_2"));
//
//   // A person's own choice, which outlives every rule.
//   GRAPNEL_RETURN_IF_ERROR(io::PinCheckpoint(env, "work_dir/iter_2", true));
//   GRAPNEL_RETURN_IF_ERROR(
//       io::KeepNewestCheckpoints(env, "work_dir", "my run", 1));
//   GRAPNEL_RET_CHECK(env.FileExists("work_dir/iter_2"));

#ifndef GRAPNEL_IO_RUN_CHECKPOINTS_H_
#define GRAPNEL_IO_RUN_CHECKPOINTS_H_

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "grapnel/io/env.h"

namespace grapnel {
namespace io {

namespace v1 {
class CheckpointManifest;
}  // namespace v1

// Where in its run a checkpoint is, and what tells whether it stays.
struct RunCheckpoint {
  std::string name;
  int64_t iter = 0;
  int64_t epoch = 0;          // Completed ones.
  int64_t iter_in_epoch = 0;  // Of the epoch under way; 0 at an epoch's edge.
  int64_t created_unix_nanos = 0;
  std::map<std::string, double> metrics;  // As in the manifest.
  bool pinned = false;
  bool is_last = false;  // The work dir's last_checkpoint names it.
};

// By iteration, epoch, time and name.
bool operator<(const RunCheckpoint& a, const RunCheckpoint& b);

// Of a manifest, which doesn't tell whether it is pinned or the last one.
RunCheckpoint DescribeCheckpoint(const v1::CheckpointManifest& manifest);

// Those in `dirs` that the run `run_uuid`, as in a manifest, has made, with a
// name that `is_wanted`; the oldest first. Published parts, what can't be read
// and directories that aren't there are left out. One that two of `dirs` have
// is listed once.
std::vector<RunCheckpoint> ListRunCheckpoints(
    Env& env, absl::Span<const std::string> dirs, absl::string_view run_uuid,
    const std::function<bool(absl::string_view)>& is_wanted);

// Deletes the checkpoint at `path` if that run has made it, with its copies
// (below); OK also if it was gone before. kFailedPrecondition if it stays for
// good: it is pinned, also if it was only just, another run made it, something
// else has got its name meanwhile, or it is too damaged to tell. Other errors:
// it can't be deleted now.
absl::Status DeleteRunCheckpoint(Env& env, const std::string& path,
                                 absl::string_view run_uuid);

// Deletes all but the newest `keep`, >= 0, that the run has made in `dir`, and
// pinned ones. Stops at the first that can't be deleted. io/retention.h has
// more rules.
absl::Status KeepNewestCheckpoints(Env& env, const std::string& dir,
                                   absl::string_view run_uuid, int64_t keep);

// Pins the checkpoint at `path`, so that nothing which cleans up deletes it, or
// undoes that. The pin is an empty file "pinned" in the directory: it moves and
// is copied with it, and a checkpoint that replaces one of its name is pinned
// too. OK if it is as asked for already. kNotFound if there is no checkpoint,
// or none any more: one that is just being deleted may come back, pinned.
absl::Status PinCheckpoint(Env& env, const std::string& path, bool pinned);

bool IsPinned(Env& env, const std::string& path);

// Gives `written`, a file on the disk and in the same directory, its name
// `path` + `ending`, as a copy of the checkpoint at `path` that goes when it
// goes. `ending`: ".pth" or ".safetensors". The text file "copies" in the
// checkpoint's directory tells of its size and digest: any other file beside a
// checkpoint, of whatever name, is never touched. kAlreadyExists if there is
// one of that name. Reads `written` once. After an error it is gone.
absl::Status AddCopy(Env& env, const std::string& path,
                     const std::string& ending, const std::string& written);

// The files that were added so and are there, by their sizes: none is read.
// Which of them go is told by the digest.
std::vector<std::string> ListCopies(Env& env, const std::string& path);

}  // namespace io
}  // namespace grapnel

#endif  // GRAPNEL_IO_RUN_CHECKPOINTS_H_
