#include "grapnel/io/checkpoint.h"

#include <algorithm>
#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "grapnel/base/log.h"
#include "grapnel/capi/handles.h"
#include "grapnel/io/checkpoint_files.h"
#include "grapnel/io/checkpoint_manifest.pb.h"
#include "grapnel/io/env.h"
#include "grapnel/io/run_checkpoints.h"

struct grapnel_checkpoint : grapnel::capi::Counted {
  grapnel::io::CheckpointContents contents;  // Without the sections.
  // Tensors are handed out by their address.
  std::deque<std::pair<std::string, grapnel_tensors>> sections;
};

namespace grapnel::capi {
namespace {

using io::CheckpointContents;
using io::Env;
using io::RunCheckpoint;

// Whether all that the manifest lists is there, in its length. Digests are for
// those who read it.
bool IsComplete(Env& env, const std::string& path,
                const io::v1::CheckpointManifest& manifest) {
  return std::all_of(manifest.files().begin(), manifest.files().end(),
                     [&](const io::v1::FileRecord& file) {
                       return io::OpenListedFile(env, path, file).ok();
                     });
}

absl::StatusOr<std::vector<std::string>> ListCheckpoints(
    Env& env, const std::string& dir) {
  GRAPNEL_ASSIGN_OR_RETURN(const std::vector<std::string> names,
                           env.ListDir(dir));
  std::vector<RunCheckpoint> found;
  for (const std::string& name : names) {
    if (name[0] == '.') continue;  // Being written, or deleted.
    const std::string path = io::JoinPath(dir, name);
    const auto manifest = io::ReadManifest(env, path);
    // One that was published in parts can't be gone on with.
    if (manifest.ok() && !manifest->partial() &&
        IsComplete(env, path, *manifest)) {
      found.push_back(io::DescribeCheckpoint(*manifest));
      found.back().name = name;  // It may have been renamed since.
    }
  }
  std::sort(found.begin(), found.end());
  std::vector<std::string> newest_first;
  for (auto it = found.rbegin(); it != found.rend(); ++it) {
    newest_first.push_back(it->name);
  }
  return newest_first;
}

absl::StatusOr<std::unique_ptr<grapnel_checkpoint>> OpenCheckpoint(
    const std::string& path) {
  auto checkpoint = std::make_unique<grapnel_checkpoint>();
  GRAPNEL_ASSIGN_OR_RETURN(checkpoint->contents,
                           io::ReadCheckpoint(Env::Posix(), path));
  for (const auto& [name, tensors] : checkpoint->contents.sections) {
    checkpoint->sections.emplace_back();
    checkpoint->sections.back().first = name;
    GRAPNEL_RETURN_IF_ERROR(
        AddTensors(tensors, &checkpoint->sections.back().second));
  }
  checkpoint->contents.sections.clear();
  return checkpoint;
}

}  // namespace
}  // namespace grapnel::capi

using grapnel::capi::Guard;
using grapnel::capi::NotNull;

grapnel_status* grapnel_checkpoint_list(const char* dir, size_t dir_size,
                                        grapnel_bytes* names) {
  return Guard([&] {
    absl::string_view path;
    GRAPNEL_RETURN_IF_ERROR(
        grapnel::capi::ReadText(dir, dir_size, "dir", &path));
    GRAPNEL_RETURN_IF_ERROR(NotNull(names, "names"));
    GRAPNEL_ASSIGN_OR_RETURN(
        const std::vector<std::string> found,
        grapnel::capi::ListCheckpoints(grapnel::io::Env::Posix(),
                                       path.empty() ? "." : std::string(path)));
    return grapnel::capi::AssignLines(found, "names", names);
  });
}

grapnel_status* grapnel_checkpoint_latest(const char* dir, size_t dir_size,
                                          grapnel_bytes* path) {
  return Guard([&] {
    absl::string_view work_dir;
    GRAPNEL_RETURN_IF_ERROR(
        grapnel::capi::ReadText(dir, dir_size, "dir", &work_dir));
    GRAPNEL_RETURN_IF_ERROR(NotNull(path, "path"));
    std::vector<std::string> rejected;
    const auto latest = grapnel::io::ReadLatestCheckpoint(
        grapnel::io::Env::Posix(), std::string(work_dir), &rejected);
    for (const std::string& line : rejected) {
      GRAPNEL_LOG(WARNING) << "passed over " << line;
    }
    GRAPNEL_RETURN_IF_ERROR(latest.status());
    return grapnel::capi::AssignBytes(latest->path, "path", path);
  });
}

grapnel_status* grapnel_checkpoint_verify(const char* path, size_t path_size) {
  return Guard([&] {
    std::string where;
    GRAPNEL_RETURN_IF_ERROR(
        grapnel::capi::ReadName(path, path_size, "path", &where));
    return grapnel::io::ReadCheckpoint(grapnel::io::Env::Posix(), where)
        .status();
  });
}

grapnel_status* grapnel_checkpoint_open(const char* path, size_t path_size,
                                        grapnel_checkpoint** out) {
  return Guard([&] {
    std::string where;
    GRAPNEL_RETURN_IF_ERROR(
        grapnel::capi::ReadName(path, path_size, "path", &where));
    GRAPNEL_RETURN_IF_ERROR(NotNull(out, "out"));
    GRAPNEL_ASSIGN_OR_RETURN(auto checkpoint,
                             grapnel::capi::OpenCheckpoint(where));
    *out = checkpoint.release();
    return absl::OkStatus();
  });
}

void grapnel_checkpoint_destroy(grapnel_checkpoint* checkpoint) {
  delete checkpoint;
}

int64_t grapnel_checkpoint_epoch(const grapnel_checkpoint* checkpoint) {
  if (checkpoint == nullptr) return 0;
  return checkpoint->contents.manifest().progress().epoch();
}

int64_t grapnel_checkpoint_iter(const grapnel_checkpoint* checkpoint) {
  if (checkpoint == nullptr) return 0;
  return checkpoint->contents.manifest().progress().iter();
}

grapnel_status* grapnel_checkpoint_manifest(
    const grapnel_checkpoint* checkpoint, grapnel_encoding encoding,
    grapnel_bytes* manifest) {
  return Guard([&] {
    GRAPNEL_RETURN_IF_ERROR(NotNull(checkpoint, "checkpoint"));
    GRAPNEL_RETURN_IF_ERROR(NotNull(manifest, "manifest"));
    std::string printed;
    GRAPNEL_RETURN_IF_ERROR(grapnel::capi::PrintMessage(
        checkpoint->contents.manifest(), encoding, &printed));
    return grapnel::capi::AssignBytes(printed, "manifest", manifest);
  });
}

grapnel_status* grapnel_checkpoint_sections(
    const grapnel_checkpoint* checkpoint, grapnel_bytes* names) {
  return Guard([&] {
    GRAPNEL_RETURN_IF_ERROR(NotNull(checkpoint, "checkpoint"));
    std::vector<std::string> found;
    for (const auto& [name, tensors] : checkpoint->sections) {
      found.push_back(name);
    }
    return grapnel::capi::AssignLines(found, "names", names);
  });
}

grapnel_status* grapnel_checkpoint_tensors(const grapnel_checkpoint* checkpoint,
                                           const char* section,
                                           size_t section_size,
                                           const grapnel_tensors** tensors) {
  return Guard([&] {
    GRAPNEL_RETURN_IF_ERROR(NotNull(checkpoint, "checkpoint"));
    absl::string_view wanted;
    GRAPNEL_RETURN_IF_ERROR(
        grapnel::capi::ReadText(section, section_size, "section", &wanted));
    GRAPNEL_RETURN_IF_ERROR(NotNull(tensors, "tensors"));
    for (const auto& [name, found] : checkpoint->sections) {
      if (name != wanted) continue;
      *tensors = &found;
      return absl::OkStatus();
    }
    return absl::NotFoundError(
        absl::StrCat("section: there is no \"", wanted, "\""));
  });
}
