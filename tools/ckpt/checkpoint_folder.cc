#include "grapnel/tools/ckpt/checkpoint_folder.h"

#include <algorithm>
#include <map>
#include <memory>
#include <tuple>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/suggestion.h"
#include "grapnel/hooks/checkpoint/best_checkpoints.h"
#include "grapnel/io/checkpoint_files.h"
#include "grapnel/io/manifest_codec.h"
#include "grapnel/io/rejected_checkpoints.h"
#include "grapnel/io/run_checkpoints.h"
#include "grapnel/io/weights.h"

namespace grapnel {
namespace {

// Candidates for a misspelled name: one with another number is another thing.
std::vector<std::string> WithSameDigits(absl::string_view typed,
                                        const std::vector<std::string>& names) {
  const auto digits = [](absl::string_view name) {
    std::string found;
    for (const char c : name) {
      if (absl::ascii_isdigit(c)) found += c;
    }
    return found;
  };
  std::vector<std::string> same;
  for (const std::string& name : names) {
    if (digits(name) == digits(typed)) same.push_back(name);
  }
  return same;
}

// "; in DIR there are epoch_1, epoch_2; did you mean ...?", of the folder that
// a path that isn't there would be in.
std::string WhatIsThere(io::Env& env, const std::string& path) {
  const std::string clean(io::StripSlashes(path));
  const std::string parent = io::ParentOf(clean);
  if (!env.IsDirectory(parent)) {
    return absl::StrCat("; there is no folder ", parent);
  }
  const std::string checkpoints = io::CheckpointsIn(env, parent);
  std::string text;
  if (!checkpoints.empty()) {
    text = absl::StrCat("; checkpoints in ", parent, ": ", checkpoints);
  }
  const std::string name = io::Basename(clean);
  const auto all = env.ListDir(parent);
  if (!all.ok()) return text;
  return absl::StrCat(text, DidYouMean(name, WithSameDigits(name, *all)));
}

// One that is there, with what its own files say of it.
void AddKept(io::Env& env, FolderCheckpoint checkpoint,
             CheckpointFolder* folder) {
  checkpoint.pinned = io::IsPinned(env, checkpoint.path);
  for (const std::string& copy : io::ListCopies(env, checkpoint.path)) {
    checkpoint.copies.push_back({copy, BytesOf(env, copy)});
  }
  folder->checkpoints.push_back(std::move(checkpoint));
}

void AddCheckpoints(io::Env& env, const std::string& dir,
                    CheckpointFolder* folder) {
  const auto names = env.ListDir(dir);
  if (!names.ok()) return;
  for (const std::string& name : *names) {
    FolderCheckpoint checkpoint;
    checkpoint.dir = dir;
    checkpoint.name = name;
    checkpoint.path = io::JoinPath(dir == "." ? "" : dir, name);
    if (name[0] == '.' || !env.IsDirectory(checkpoint.path)) continue;
    if (io::IsSetAsideName(name)) {
      checkpoint.set_aside = true;
      AddKept(env, std::move(checkpoint), folder);
      continue;
    }
    auto manifest = io::ReadManifest(env, checkpoint.path);
    if (absl::IsNotFound(manifest.status()) && !io::LooksLikeCheckpoint(name)) {
      continue;  // Somebody's own.
    }
    absl::Status status = manifest.status();
    if (manifest.ok()) {
      checkpoint.has_manifest = true;
      checkpoint.manifest = *std::move(manifest);
      status = io::CheckFiles(env, checkpoint.path, checkpoint.manifest);
    }
    // A training that goes on has deleted it since the folder was listed.
    if (!status.ok() && !env.IsDirectory(checkpoint.path)) continue;
    // The path is in the row already.
    absl::string_view bad = status.message();
    if (absl::ConsumePrefix(&bad, checkpoint.path) && !bad.empty()) {
      bad.remove_prefix(bad[0] == '/' ? 1 : 2);
    }
    checkpoint.bad = std::string(bad);
    AddKept(env, std::move(checkpoint), folder);
  }
  const auto leftovers = io::FindLeftovers(env, dir);
  if (!leftovers.ok()) return;
  for (const io::HiddenLeftover& leftover : *leftovers) {
    folder->leftovers.push_back(
        {io::JoinPath(dir == "." ? "" : dir, leftover.name), leftover.of,
         leftover.put_back});
  }
}

void AddBest(io::Env& env, CheckpointFolder* folder) {
  std::map<std::pair<std::string, std::string>, BestCheckpointList> lists;
  for (FolderCheckpoint& checkpoint : folder->checkpoints) {
    if (!checkpoint.has_manifest) continue;
    const std::pair<std::string, std::string> key(
        checkpoint.dir, checkpoint.manifest.run_uuid());
    auto it = lists.find(key);
    if (it == lists.end()) {
      // One of another run, or none, says nothing of these.
      it = lists
               .emplace(key, ReadBestCheckpoints(env, key.first, key.second)
                                 .value_or(BestCheckpointList()))
               .first;
    }
    for (const auto& best : it->second) {
      if (best.name() == checkpoint.name) {
        checkpoint.best.push_back(best.indicator());
      }
    }
  }
}

}  // namespace

absl::StatusOr<CheckpointFolder> ReadCheckpointFolder(io::Env& env,
                                                      const std::string& dir) {
  GRAPNEL_RETURN_IF_ERROR(CheckThere(env, dir));
  if (!env.IsDirectory(dir)) {
    return absl::InvalidArgumentError(
        absl::StrCat(dir, ": is a file, not a folder of checkpoints"));
  }
  if (env.FileExists(io::JoinPath(dir, io::kManifestFile))) {
    return absl::InvalidArgumentError(
        absl::StrCat(dir, ": is a checkpoint, not a folder of them"));
  }
  CheckpointFolder folder;
  folder.dirs.push_back(std::string(io::StripSlashes(dir)));
  const auto last = io::ReadLastCheckpoint(env, dir);
  if (last.ok()) {
    folder.last = *last;
  } else {
    folder.last_problem = std::string(last.status().message());
  }
  if (!folder.last.empty()) {
    const std::string elsewhere = io::Dirname(folder.last);
    if (io::NormalPath(elsewhere.empty() ? "." : elsewhere) !=
            io::NormalPath(dir) &&
        env.IsDirectory(elsewhere)) {
      folder.dirs.push_back(elsewhere);
    }
    if (!env.FileExists(io::JoinPath(folder.last, io::kManifestFile))) {
      folder.last_problem =
          absl::StrCat("names ", folder.last, ", which is no checkpoint");
    }
  }
  for (const std::string& each : folder.dirs) {
    AddCheckpoints(env, each, &folder);
  }
  for (FolderCheckpoint& checkpoint : folder.checkpoints) {
    checkpoint.is_last =
        !folder.last.empty() &&
        io::NormalPath(checkpoint.path) == io::NormalPath(folder.last);
  }
  AddBest(env, &folder);
  const auto key = [](const FolderCheckpoint& checkpoint) {
    return std::make_tuple(
        !checkpoint.has_manifest, checkpoint.manifest.progress().iter(),
        checkpoint.manifest.progress().epoch(),
        checkpoint.manifest.created_unix_nanos(), checkpoint.name);
  };
  std::stable_sort(folder.checkpoints.begin(), folder.checkpoints.end(),
                   [&](const FolderCheckpoint& a, const FolderCheckpoint& b) {
                     return key(a) < key(b);
                   });
  return folder;
}

absl::Status CheckThere(io::Env& env, const std::string& path) {
  if (env.FileExists(path)) return absl::OkStatus();
  if (env.IsSymlink(std::string(io::StripSlashes(path)))) {
    return absl::NotFoundError(
        absl::StrCat(path, ": is a link that leads nowhere"));
  }
  return absl::NotFoundError(absl::StrCat(
      path, ": there is no such file or folder", WhatIsThere(env, path)));
}

absl::Status CheckIsCheckpoint(io::Env& env, const std::string& path) {
  GRAPNEL_RETURN_IF_ERROR(CheckThere(env, path));
  if (io::IsCheckpoint(env, path)) return absl::OkStatus();
  const std::string inside = io::CheckpointsIn(env, path);
  return absl::NotFoundError(
      absl::StrCat(path, ": is no checkpoint",
                   inside.empty() ? "" : "; checkpoints in it: ", inside));
}

absl::Status CheckNotThere(io::Env& env, const std::string& path) {
  if (!env.FileExists(path) && !env.IsSymlink(path)) return absl::OkStatus();
  return absl::AlreadyExistsError(absl::StrCat(
      path, ": is there already; delete it first, or choose another name"));
}

absl::Status CheckNewFile(io::Env& env, const std::string& path) {
  GRAPNEL_RETURN_IF_ERROR(CheckNotThere(env, path));
  const std::string dir = io::Dirname(path);
  if (dir.empty() || env.IsDirectory(dir)) return absl::OkStatus();
  return absl::NotFoundError(absl::StrCat(path, ": there is no folder ", dir));
}

absl::Status CheckNewCheckpoint(io::Env& env, const std::string& path) {
  GRAPNEL_RETURN_IF_ERROR(CheckNotThere(env, path));
  const std::string name = io::Basename(io::StripSlashes(path));
  if (!io::IsCheckpointName(name)) {
    return absl::InvalidArgumentError(
        absl::StrCat(path,
                     ": a checkpoint's name is 1 to 200 printable characters, "
                     "and doesn't begin with \".\""));
  }
  if (io::IsSetAsideName(name)) {
    return absl::InvalidArgumentError(
        absl::StrCat(path,
                     ": is called as what a training has set aside, which no "
                     "search finds; choose another name"));
  }
  return absl::OkStatus();
}

absl::Status WithModelFile(io::Env& env, const std::string& path,
                           const absl::Status& status) {
  if (!absl::IsDataLoss(status) || !io::IsCheckpoint(env, path)) return status;
  const std::string model =
      io::JoinPath(path, absl::StrCat("model", io::kSectionSuffix));
  if (!env.FileExists(model) || absl::StartsWith(status.message(), model)) {
    return status;
  }
  return absl::DataLossError(absl::StrCat(
      status.message(), "; its model alone, read without digests, is ", model));
}

absl::StatusOr<io::CheckpointContents> ReadWeightsAt(io::Env& env,
                                                     const std::string& path) {
  GRAPNEL_RETURN_IF_ERROR(CheckThere(env, path));
  absl::StatusOr<io::CheckpointContents> contents =
      io::ReadWeightsAndMore(env, path);
  if (absl::IsNotFound(contents.status()) && env.IsDirectory(path)) {
    GRAPNEL_RETURN_IF_ERROR(CheckIsCheckpoint(env, path));
  }
  if (!contents.ok()) return WithModelFile(env, path, contents.status());
  return contents;
}

int64_t BytesOf(io::Env& env, const std::string& path) {
  if (env.IsSymlink(path)) return 0;
  if (!env.IsDirectory(path)) {
    const auto file = env.NewRandomAccessFile(path);
    return file.ok() ? (*file)->size() : 0;
  }
  int64_t bytes = 0;
  const auto names = env.ListDir(path);
  if (!names.ok()) return bytes;
  for (const std::string& name : *names) {
    bytes += BytesOf(env, io::JoinPath(path, name));
  }
  return bytes;
}

std::string LocalTime(int64_t unix_nanos) {
  if (unix_nanos == 0) return "";
  return absl::FormatTime("%Y-%m-%d %H:%M:%S", absl::FromUnixNanos(unix_nanos),
                          absl::LocalTimeZone());
}

std::string UtcTime(int64_t unix_nanos) {
  if (unix_nanos == 0) return "";
  return absl::FormatTime("%Y-%m-%dT%H:%M:%SZ", absl::FromUnixNanos(unix_nanos),
                          absl::UTCTimeZone());
}

}  // namespace grapnel
