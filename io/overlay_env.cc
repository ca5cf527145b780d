#include "grapnel/io/overlay_env.h"

#include <cstdint>
#include <filesystem>
#include <utility>

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

bool OverlayEnv::InBase(const std::string& path) {
  for (std::string above = path; above.size() > 1; above = Dirname(above)) {
    if (hidden_.count(above) > 0) return false;
  }
  return true;
}

bool OverlayEnv::Exists(const std::string& path) {
  return written_.FileExists(path) || (InBase(path) && base_.FileExists(path));
}

bool OverlayEnv::IsDir(const std::string& path) {
  if (written_.FileExists(path)) return written_.IsDirectory(path);
  return InBase(path) && base_.IsDirectory(path);
}

absl::StatusOr<std::vector<std::string>> OverlayEnv::List(
    const std::string& path) {
  std::set<std::string> names;
  bool found = false;
  if (written_.FileExists(path)) {
    GRAPNEL_ASSIGN_OR_RETURN(const auto own, written_.ListDir(path));
    names.insert(own.begin(), own.end());
    found = true;
  }
  if (!found || (InBase(path) && base_.IsDirectory(path))) {
    if (!InBase(path)) return NotFound(path);
    GRAPNEL_ASSIGN_OR_RETURN(const auto below, base_.ListDir(path));
    for (const std::string& name : below) {
      if (InBase(JoinPath(path, name))) names.insert(name);
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
  if (!Exists(path)) return NotFound(path);
  if (IsDir(path)) {
    GRAPNEL_RETURN_IF_ERROR(written_.CreateDir(path));
    GRAPNEL_ASSIGN_OR_RETURN(const std::vector<std::string> names, List(path));
    for (const std::string& name : names) {
      GRAPNEL_RETURN_IF_ERROR(CopyUp(JoinPath(path, name)));
    }
    return absl::OkStatus();
  }
  if (written_.FileExists(path)) return absl::OkStatus();
  GRAPNEL_RETURN_IF_ERROR(MakeParent(path));
  GRAPNEL_ASSIGN_OR_RETURN(const std::string content, ReadFile(base_, path));
  return WriteFileAtomically(written_, path, content);
}

void OverlayEnv::Hide(const std::string& path) { hidden_.insert(path); }

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
  if (!InBase(absolute)) return NotFound(path);
  return base_.NewRandomAccessFile(path);
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
  return !written_.FileExists(absolute) && InBase(absolute) &&
         base_.IsSymlink(path);
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
  GRAPNEL_RETURN_IF_ERROR(CopyUp(source));
  GRAPNEL_RETURN_IF_ERROR(MakeParent(target));
  if (IsDir(target)) {
    GRAPNEL_ASSIGN_OR_RETURN(const std::vector<std::string> names,
                             List(target));
    if (!names.empty()) {
      return absl::AlreadyExistsError(absl::StrCat(to, ": is not empty"));
    }
  }
  GRAPNEL_RETURN_IF_ERROR(written_.Rename(source, target));
  Hide(source);
  Hide(target);  // What was below it is not in the new one.
  return absl::OkStatus();
}

absl::Status OverlayEnv::DeleteFile(const std::string& path) {
  const std::string absolute = Absolute(path);
  const absl::MutexLock lock(&mutex_);
  const bool link = InBase(absolute) && base_.IsSymlink(path);
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
