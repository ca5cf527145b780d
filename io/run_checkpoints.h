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

#ifndef GRAPNEL_IO_RUN_CHECKPOINTS_H_
#define GRAPNEL_IO_RUN_CHECKPOINTS_H_

#include <cstdint>
#include <functional>
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

// Where in its run a checkpoint is.
struct RunCheckpoint {
  std::string name;
  int64_t iter = 0;
  int64_t epoch = 0;
  int64_t created_unix_nanos = 0;
};

// By iteration, epoch, time and name.
bool operator<(const RunCheckpoint& a, const RunCheckpoint& b);

RunCheckpoint DescribeCheckpoint(const v1::CheckpointManifest& manifest);

// Those in `dirs` that the run `run_uuid`, as in a manifest, has made, with a
// name that `is_wanted`; the oldest first. Published parts, what can't be read
// and directories that aren't there are left out. One that two of `dirs` have
// is listed once.
std::vector<RunCheckpoint> ListRunCheckpoints(
    Env& env, absl::Span<const std::string> dirs, absl::string_view run_uuid,
    const std::function<bool(absl::string_view)>& is_wanted);

// Deletes the checkpoint at `path` if that run has made it; OK also if it was
// gone before. kFailedPrecondition if it stays for good: another run made it,
// or it is too damaged to tell. Other errors: it can't be deleted now.
absl::Status DeleteRunCheckpoint(Env& env, const std::string& path,
                                 absl::string_view run_uuid);

// Deletes all but the newest `keep`, >= 0, that the run has made in `dir`.
// Stops at the first that can't be deleted.
absl::Status KeepNewestCheckpoints(Env& env, const std::string& dir,
                                   absl::string_view run_uuid, int64_t keep);

}  // namespace io
}  // namespace grapnel

#endif  // GRAPNEL_IO_RUN_CHECKPOINTS_H_
