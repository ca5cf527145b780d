#include "grapnel/io/run_checkpoints.h"

#include <set>
#include <tuple>

#include "absl/status/status.h"
#include "grapnel/base/check_field.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/checkpoint_manifest.pb.h"

namespace grapnel {
namespace io {

bool operator<(const RunCheckpoint& a, const RunCheckpoint& b) {
  return std::tie(a.iter, a.epoch, a.created_unix_nanos, a.name) <
         std::tie(b.iter, b.epoch, b.created_unix_nanos, b.name);
}

RunCheckpoint DescribeCheckpoint(const v1::CheckpointManifest& manifest) {
  RunCheckpoint checkpoint;
  checkpoint.name = manifest.name();
  checkpoint.iter = manifest.progress().iter();
  checkpoint.epoch = manifest.progress().epoch();
  checkpoint.created_unix_nanos = manifest.created_unix_nanos();
  return checkpoint;
}

std::vector<RunCheckpoint> ListRunCheckpoints(
    Env& env, absl::Span<const std::string> dirs, absl::string_view run_uuid,
    const std::function<bool(absl::string_view)>& is_wanted) {
  std::set<RunCheckpoint> found;
  for (const std::string& dir : dirs) {
    const auto names = env.ListDir(dir);
    if (!names.ok()) continue;
    for (const std::string& name : *names) {
      if (!is_wanted(name)) continue;
      const auto manifest = ReadManifest(env, JoinPath(dir, name));
      if (manifest.ok() && manifest->run_uuid() == run_uuid &&
          !manifest->partial()) {
        found.insert(DescribeCheckpoint(*manifest));
      }
    }
  }
  return {found.begin(), found.end()};
}

absl::Status DeleteRunCheckpoint(Env& env, const std::string& path,
                                 absl::string_view run_uuid) {
  const auto manifest = ReadManifest(env, path);
  if (absl::IsNotFound(manifest.status())) return absl::OkStatus();
  if (manifest.ok() && manifest->run_uuid() != run_uuid) {
    return absl::FailedPreconditionError("another run made it");
  }
  if (absl::IsDataLoss(manifest.status())) {
    return absl::FailedPreconditionError(manifest.status().message());
  }
  GRAPNEL_RETURN_IF_ERROR(manifest.status());
  return DeleteCheckpoint(env, path);
}

absl::Status KeepNewestCheckpoints(Env& env, const std::string& dir,
                                   absl::string_view run_uuid, int64_t keep) {
  GRAPNEL_RETURN_IF_ERROR(CheckField(keep >= 0, "keep", ">= 0", keep));
  const std::vector<RunCheckpoint> all = ListRunCheckpoints(
      env, {dir}, run_uuid, [](absl::string_view) { return true; });
  for (int64_t i = 0; i + keep < static_cast<int64_t>(all.size()); ++i) {
    GRAPNEL_RETURN_IF_ERROR(
        DeleteRunCheckpoint(env, JoinPath(dir, all[i].name), run_uuid));
  }
  return absl::OkStatus();
}

}  // namespace io
}  // namespace grapnel
