// Checkpoints among each other: which is the newest, what can go.

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <system_error>
#include <tuple>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/checkpoint_files.h"
#include "grapnel/io/checkpoint_manifest.pb.h"
#include "grapnel/io/rejected_checkpoints.h"

namespace grapnel {
namespace io {
namespace {

absl::Status Resolve(Env& env, const std::string& parent,
                     const HiddenLeftover& leftover) {
  const std::string from = JoinPath(parent, leftover.name);
  const std::string to = JoinPath(parent, leftover.of);
  if (leftover.put_back) {
    GRAPNEL_RETURN_IF_ERROR(env.Rename(from, to));
    return env.SyncDir(parent);
  }
  GRAPNEL_RETURN_IF_ERROR(DeleteCopies(env, from, to));
  return DeleteManifestFirst(env, from);
}

// OK if the manifest, which `*manifest` becomes as soon as it is read, reads
// well and the files are there in full length.
absl::Status CheckStructure(Env& env, const std::string& path,
                            v1::CheckpointManifest* manifest) {
  GRAPNEL_ASSIGN_OR_RETURN(*manifest, ReadManifest(env, path));
  return CheckFiles(env, path, *manifest);
}

// Of the run sought, not called "best_...", iteration, epoch. The largest is
// taken.
using Rank = std::tuple<bool, bool, int64_t, int64_t>;

Rank RankOf(const std::string& name, const v1::CheckpointManifest& manifest,
            const std::string& run) {
  return Rank(!run.empty() && manifest.run_uuid() == run,
              !absl::StartsWith(name, "best_"), manifest.progress().iter(),
              manifest.progress().epoch());
}

}  // namespace

absl::Status DeleteCheckpoint(Env& env, const std::string& path) {
  const std::string clean(StripSlashes(path));
  const std::string name = Basename(clean);
  if (name.empty() || name == "." || name == "..") {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", path, "\": does not name a checkpoint"));
  }
  if (!env.FileExists(JoinPath(clean, kManifestFile))) {
    return absl::NotFoundError(
        absl::StrCat(path, ": no checkpoint: has no ", kManifestFile));
  }
  return DeleteWithCopies(env, clean, /*chosen=*/nullptr);
}

bool IsSameCheckpoint(Env& env, const std::string& a, const std::string& b) {
  const auto manifest_a = ReadManifest(env, a);
  if (!manifest_a.ok()) return false;
  const auto manifest_b = ReadManifest(env, b);
  return manifest_b.ok() &&
         manifest_a->checkpoint_uuid() == manifest_b->checkpoint_uuid();
}

absl::Status RemoveLeftovers(Env& env, const std::string& parent,
                             std::vector<std::string>* undeleted) {
  const std::string dir = parent.empty() ? "." : parent;
  if (!env.FileExists(dir)) return absl::OkStatus();
  GRAPNEL_ASSIGN_OR_RETURN(std::vector<HiddenLeftover> leftovers,
                           FindLeftovers(env, dir));
  // First what is put back, for it tells which copies stay.
  std::stable_partition(
      leftovers.begin(), leftovers.end(),
      [](const HiddenLeftover& leftover) { return leftover.put_back; });
  absl::Status first_error;
  for (const HiddenLeftover& leftover : leftovers) {
    const absl::Status status = Resolve(env, dir, leftover);
    if (!status.ok() && !leftover.put_back && undeleted != nullptr) {
      undeleted->emplace_back(status.message());
    } else {
      first_error.Update(status);
    }
  }
  return first_error;
}

absl::Status WriteLastCheckpoint(Env& env, const std::string& work_dir,
                                 const std::string& checkpoint) {
  namespace fs = std::filesystem;
  const fs::path base = fs::path(work_dir.empty() ? "." : work_dir);
  const fs::path target(checkpoint);
  if (checkpoint.empty() || (base.is_absolute() && target.is_relative())) {
    return absl::InvalidArgumentError(absl::StrCat("checkpoint: \"", checkpoint,
                                                   "\" must be absolute, as \"",
                                                   work_dir, "\" is"));
  }
  const auto from_to = [](const fs::path& from, const fs::path& to) {
    return to.lexically_normal()
        .lexically_relative(from.lexically_normal())
        .string();
  };
  std::error_code error;
  std::string content = from_to(base, target);
  if (content.empty()) {  // One is relative, or up from where nobody knows.
    content = from_to(fs::absolute(base, error), fs::absolute(target, error));
  }
  // The system follows a link before it goes up from there.
  if (content.empty() ||
      (absl::StartsWith(content, "..") &&
       !IsSameCheckpoint(env, JoinPath(work_dir, content), checkpoint))) {
    content = fs::absolute(target, error).string();
  }
  return WriteFileAtomically(env, JoinPath(work_dir, kLastCheckpoint),
                             std::string(StripSlashes(content)));
}

namespace {

absl::StatusOr<std::string> Find(Env& env, const std::string& work_dir,
                                 std::vector<RejectedCheckpoint>* rejected,
                                 absl::Span<const std::string> skip,
                                 const std::string& checkpoint_dir) {
  const auto skipped = [&](const std::string& path) {
    return std::find(skip.begin(), skip.end(), path) != skip.end();
  };

  const absl::StatusOr<std::string> last = ReadLastCheckpoint(env, work_dir);
  if (!last.ok()) rejected->push_back({"", last.status()});
  std::string named = last.ok() ? *last : "";
  const std::string dir = work_dir.empty() ? "." : work_dir;
  std::vector<std::string> dirs = {dir};
  if (!checkpoint_dir.empty() &&
      NormalPath(checkpoint_dir) != NormalPath(dir)) {
    dirs.push_back(checkpoint_dir);
  }
  if (!named.empty()) {
    // In a directory that is searched it is called as it is found there.
    const auto known =
        std::find_if(dirs.begin(), dirs.end(), [&](const std::string& each) {
          return NormalPath(each) == NormalPath(named).parent_path();
        });
    if (known == dirs.end()) {
      dirs.push_back(Dirname(named));
    } else {
      named = JoinPath(*known == dir ? work_dir : *known,
                       NormalPath(named).filename().string());
    }
  }
  std::string newest;
  Rank newest_rank;
  int64_t named_at = 0;  // When what is named was written, if it is good.
  v1::CheckpointManifest manifest;
  if (!named.empty()) {
    const absl::Status status = CheckStructure(env, named, &manifest);
    if (!status.ok()) {
      rejected->push_back({named, status});
    } else if (!skipped(named)) {
      newest = named;
      named_at = manifest.created_unix_nanos();
      // Only one of its own run comes before it, whatever it is called.
      newest_rank = Rank(true, true, manifest.progress().iter(),
                         manifest.progress().epoch());
    }
  }
  const std::string run = manifest.run_uuid();

  for (const std::string& searched : dirs) {
    if (!env.IsDirectory(searched)) continue;
    GRAPNEL_ASSIGN_OR_RETURN(const std::vector<std::string> names,
                             env.ListDir(searched));
    for (const std::string& name : names) {
      const std::string path =
          JoinPath(searched == dir ? work_dir : searched, name);
      if (name[0] == '.' || IsSetAsideName(name) || path == named ||
          skipped(path) || !env.IsDirectory(path)) {
        continue;
      }
      const absl::Status status = CheckStructure(env, path, &manifest);
      if (!status.ok()) {
        // Other directories, of logs for example, are none of ours.
        if (!absl::IsNotFound(status) || LooksLikeCheckpoint(name)) {
          rejected->push_back({path, status});
        }
        continue;
      }
      if (manifest.partial()) continue;
      // The run went back, and this is of what it gave up.
      if (manifest.created_unix_nanos() < named_at) continue;
      const Rank rank = RankOf(name, manifest, run);
      if (newest.empty() || rank > newest_rank) {
        newest = path;
        newest_rank = rank;
      }
    }
  }
  if (newest.empty()) {
    return absl::NotFoundError(absl::StrCat(dir, ": no good checkpoint"));
  }
  return newest;
}

void AddMessages(const std::vector<RejectedCheckpoint>& from,
                 std::vector<std::string>* to) {
  if (to == nullptr) return;
  for (const RejectedCheckpoint& rejected : from) {
    to->emplace_back(rejected.status.message());
  }
}

}  // namespace

absl::StatusOr<std::string> FindLatestCheckpoint(
    Env& env, const std::string& work_dir, std::vector<std::string>* rejected,
    absl::Span<const std::string> skip, const std::string& checkpoint_dir) {
  std::vector<RejectedCheckpoint> all;
  absl::StatusOr<std::string> found =
      Find(env, work_dir, &all, skip, checkpoint_dir);
  AddMessages(all, rejected);
  return found;
}

absl::StatusOr<LatestCheckpoint> SearchLatestCheckpoint(
    Env& env, const std::string& work_dir,
    std::vector<RejectedCheckpoint>* rejected,
    const std::string& checkpoint_dir) {
  std::vector<std::string> bad;
  std::vector<RejectedCheckpoint> unread;
  while (true) {
    std::vector<RejectedCheckpoint> unfit;  // Each look lists all but `bad`.
    absl::StatusOr<std::string> path =
        Find(env, work_dir, &unfit, bad, checkpoint_dir);
    absl::StatusOr<CheckpointContents> contents =
        path.ok() ? ReadCheckpoint(env, *path) : path.status();
    if (path.ok() && (absl::IsDataLoss(contents.status()) ||
                      absl::IsNotFound(contents.status()))) {
      // Unless it was deleted between the two, by a training that goes on.
      if (env.IsDirectory(*path)) {
        unread.push_back({*path, contents.status()});
      }
      bad.push_back(*std::move(path));
      continue;
    }
    rejected->insert(rejected->end(), unread.begin(), unread.end());
    rejected->insert(rejected->end(), unfit.begin(), unfit.end());
    if (!contents.ok()) return std::move(contents).status();
    return LatestCheckpoint{*std::move(path), *std::move(contents)};
  }
}

absl::StatusOr<LatestCheckpoint> ReadLatestCheckpoint(
    Env& env, const std::string& work_dir, std::vector<std::string>* rejected,
    const std::string& checkpoint_dir) {
  std::vector<RejectedCheckpoint> all;
  absl::StatusOr<LatestCheckpoint> latest =
      SearchLatestCheckpoint(env, work_dir, &all, checkpoint_dir);
  AddMessages(all, rejected);
  return latest;
}

}  // namespace io
}  // namespace grapnel
