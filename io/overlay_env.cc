#include "grapnel/io/overlay_env.h"

#include <cstdint>
#include <filesystem>
#include <limits>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "grapnel/base/status_macros.h"

namespace grapnel {
namespace io {
namespace {

absl::Status NotFound(const std::string& path) {
  return absl::NotFoundError(absl::StrCat(path, ": no such file"));
}

}  // namespace

OverlayEnv::OverlayEnv(Env& base) : base_(base) {}

std::string OverlayEnv::Absolute(const std::string& path) {
  // Where nobody knows where relative paths start, they all start there.
  const std::string current = base_.CurrentDir().value_or("");
  const std::filesystem::path normal =
      std::filesystem::path(JoinPath(current.empty() ? "/" : current, path))
          .lexically_normal();
  return (normal.has_filename() ? normal : normal.parent_path()).string();
}

std::optional<std::string> OverlayEnv::BasePath(const std::string& path) {
  for (std::string above = path; above.size() > 1; above = Dirname(above)) {
    const auto place = places_.find(above);
    if (place == places_.end()) continue;
    if (!place->second.has_value()) return std::nullopt;
    return *place->second + path.substr(above.size());
  }
  return path;
}

bool OverlayEnv::Exists(const std::string& path) {
  const std::optional<std::string> below = BasePath(path);
  return written_.FileExists(path) ||
         (below.has_value() && base_.FileExists(*below));
}

bool OverlayEnv::IsDir(const std::string& path) {
  if (written_.FileExists(path)) return written_.IsDirectory(path);
  const std::optional<std::string> below = BasePath(path);
  return below.has_value() && base_.IsDirectory(*below);
}

absl::StatusOr<std::vector<std::string>> OverlayEnv::List(
    const std::string& path) {
  std::set<std::string> names;
  const bool found = written_.FileExists(path);
  if (found) {
    GRAPNEL_ASSIGN_OR_RETURN(const auto own, written_.ListDir(path));
    names.insert(own.begin(), own.end());
  }
  const std::optional<std::string> below = BasePath(path);
  if (!found && !below.has_value()) return NotFound(path);
  if (below.has_value() && (!found || base_.IsDirectory(*below))) {
    GRAPNEL_ASSIGN_OR_RETURN(const auto theirs, base_.ListDir(*below));
    for (const std::string& name : theirs) {
      if (Exists(JoinPath(path, name))) names.insert(name);
    }
  }
  // What was renamed to here.
  const std::string prefix = path == "/" ? path : path + "/";
  for (auto place = places_.lower_bound(prefix);
       place != places_.end() && absl::StartsWith(place->first, prefix);
       ++place) {
    const std::string name = place->first.substr(prefix.size());
    if (place->second.has_value() && !absl::StrContains(name, "/")) {
      names.insert(name);
    }
  }
  return std::vector<std::string>(names.begin(), names.end());
}

absl::Status OverlayEnv::MakeParent(const std::string& path) {
  const std::string parent = Dirname(path);
  if (!IsDir(parent)) return NotFound(parent);
  return written_.CreateDir(parent);
}

absl::Status OverlayEnv::CopyUp(const std::string& path) {
  if (written_.FileExists(path)) return absl::OkStatus();
  GRAPNEL_RETURN_IF_ERROR(MakeParent(path));
  GRAPNEL_ASSIGN_OR_RETURN(
      const std::string content,
      ReadFile(base_, *BasePath(path), std::numeric_limits<int64_t>::max()));
  return WriteFileAtomically(written_, path, content);
}

void OverlayEnv::Hide(const std::string& path) {
  const std::string prefix = path + "/";
  auto place = places_.lower_bound(prefix);
  while (place != places_.end() && absl::StartsWith(place->first, prefix)) {
    place = places_.erase(place);
  }
  places_[path] = std::nullopt;
}

absl::StatusOr<std::unique_ptr<WritableFile>> OverlayEnv::NewWritableFile(
    const std::string& path) {
  const std::string absolute = Absolute(path);
  const absl::MutexLock lock(&mutex_);
  if (IsDir(absolute)) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": not a regular file"));
  }
  GRAPNEL_RETURN_IF_ERROR(MakeParent(absolute));
  return written_.NewWritableFile(absolute);
}

absl::StatusOr<std::unique_ptr<WritableFile>> OverlayEnv::NewAppendableFile(
    const std::string& path) {
  const std::string absolute = Absolute(path);
  {
    const absl::MutexLock lock(&mutex_);
    if (Exists(absolute) && !IsDir(absolute)) {
      GRAPNEL_RETURN_IF_ERROR(CopyUp(absolute));
      return written_.NewAppendableFile(absolute);
    }
  }
  return NewWritableFile(path);
}

absl::StatusOr<std::unique_ptr<RandomAccessFile>>
OverlayEnv::NewRandomAccessFile(const std::string& path) {
  const std::string absolute = Absolute(path);
  const absl::MutexLock lock(&mutex_);
  if (written_.FileExists(absolute)) {
    return written_.NewRandomAccessFile(absolute);
  }
  const std::optional<std::string> below = BasePath(absolute);
  if (!below.has_value()) return NotFound(path);
  return base_.NewRandomAccessFile(*below);
}

bool OverlayEnv::FileExists(const std::string& path) {
  const std::string absolute = Absolute(path);
  const absl::MutexLock lock(&mutex_);
  return Exists(absolute);
}

bool OverlayEnv::IsDirectory(const std::string& path) {
  const std::string absolute = Absolute(path);
  const absl::MutexLock lock(&mutex_);
  return IsDir(absolute);
}

bool OverlayEnv::IsSymlink(const std::string& path) {
  const std::string absolute = Absolute(path);
  const absl::MutexLock lock(&mutex_);
  const std::optional<std::string> below = BasePath(absolute);
  return !written_.FileExists(absolute) && below.has_value() &&
         base_.IsSymlink(*below);
}

absl::StatusOr<std::string> OverlayEnv::CurrentDir() {
  return base_.CurrentDir();
}

absl::StatusOr<std::vector<std::string>> OverlayEnv::ListDir(
    const std::string& path) {
  const std::string absolute = Absolute(path);
  const absl::MutexLock lock(&mutex_);
  return List(absolute);
}

absl::Status OverlayEnv::CreateDir(const std::string& path) {
  const std::string absolute = Absolute(path);
  const absl::MutexLock lock(&mutex_);
  for (std::string above = absolute; above.size() > 1; above = Dirname(above)) {
    if (Exists(above) && !IsDir(above)) {
      return absl::AlreadyExistsError(
          absl::StrCat(path, ": ", above, " is not a directory"));
    }
  }
  return written_.CreateDir(absolute);
}

absl::Status OverlayEnv::CreateNewDir(const std::string& path) {
  const std::string absolute = Absolute(path);
  const absl::MutexLock lock(&mutex_);
  if (Exists(absolute)) {
    return absl::AlreadyExistsError(absl::StrCat(path, ": is there already"));
  }
  GRAPNEL_RETURN_IF_ERROR(MakeParent(absolute));
  return written_.CreateNewDir(absolute);
}

absl::Status OverlayEnv::Rename(const std::string& from,
                                const std::string& to) {
  const std::string source = Absolute(from);
  const std::string target = Absolute(to);
  const absl::MutexLock lock(&mutex_);
  if (!Exists(source)) return NotFound(from);
  if (source == target) return absl::OkStatus();
  GRAPNEL_RETURN_IF_ERROR(MakeParent(target));
  if (IsDir(target)) {
    GRAPNEL_ASSIGN_OR_RETURN(const std::vector<std::string> names,
                             List(target));
    if (!names.empty()) {
      return absl::AlreadyExistsError(absl::StrCat(to, ": is not empty"));
    }
  }
  if (written_.FileExists(source)) {
    GRAPNEL_RETURN_IF_ERROR(written_.Rename(source, target));
  } else if (written_.FileExists(target)) {
    GRAPNEL_RETURN_IF_ERROR(DeleteRecursively(written_, target));
  }
  // What base has goes along, with what was renamed and deleted below it.
  std::map<std::string, std::optional<std::string>> moved = {
      {target, BasePath(source)}};
  const std::string prefix = source + "/";
  for (auto place = places_.lower_bound(prefix);
       place != places_.end() && absl::StartsWith(place->first, prefix);
       ++place) {
    moved[target + place->first.substr(source.size())] = place->second;
  }
  Hide(source);
  Hide(target);
  for (auto& [path, place] : moved) {
    const bool there = !place.has_value() || base_.FileExists(*place) ||
                       base_.IsSymlink(*place);
    places_[path] = there ? std::move(place) : std::nullopt;
  }
  return absl::OkStatus();
}

absl::Status OverlayEnv::DeleteFile(const std::string& path) {
  const std::string absolute = Absolute(path);
  const absl::MutexLock lock(&mutex_);
  const std::optional<std::string> below = BasePath(absolute);
  const bool link = below.has_value() && base_.IsSymlink(*below);
  if (!Exists(absolute) && !link) return NotFound(path);
  if (written_.FileExists(absolute)) {
    GRAPNEL_RETURN_IF_ERROR(written_.DeleteFile(absolute));
  } else if (IsDir(absolute) && !link) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": not a regular file"));
  }
  Hide(absolute);
  return absl::OkStatus();
}

absl::Status OverlayEnv::DeleteDir(const std::string& path) {
  const std::string absolute = Absolute(path);
  const absl::MutexLock lock(&mutex_);
  GRAPNEL_ASSIGN_OR_RETURN(const std::vector<std::string> names,
                           List(absolute));
  if (!names.empty()) {
    return absl::AlreadyExistsError(absl::StrCat(path, ": is not empty"));
  }
  if (written_.FileExists(absolute)) {
    GRAPNEL_RETURN_IF_ERROR(written_.DeleteDir(absolute));
  }
  Hide(absolute);
  return absl::OkStatus();
}

absl::Status OverlayEnv::SyncDir(const std::string& path) {
  return IsDirectory(path) ? absl::OkStatus() : NotFound(path);
}

absl::StatusOr<std::unique_ptr<FileLock>> OverlayEnv::LockFile(
    const std::string& path) {
  const std::string absolute = Absolute(path);
  const absl::MutexLock lock(&mutex_);
  GRAPNEL_RETURN_IF_ERROR(MakeParent(absolute));
  return written_.LockFile(absolute);
}

absl::StatusOr<int64_t> OverlayEnv::FreeSpace(const std::string& path) {
  std::string there = Absolute(path);
  while (there.size() > 1 && !base_.FileExists(there)) there = Dirname(there);
  return base_.FreeSpace(there);
}

}  // namespace io
}  // namespace grapnel
