#include "grapnel/io/rejected_checkpoints.h"

#include <algorithm>
#include <cstddef>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/io/checkpoint_files.h"
#include "grapnel/io/checkpoint_manifest.pb.h"
#include "grapnel/io/manifest_codec.h"

namespace grapnel {
namespace io {
namespace {

constexpr absl::string_view kSetAside = ".damaged";

bool IsThere(Env& env, const std::string& path) {
  return env.FileExists(path) || env.IsSymlink(path);
}

// Whether a checkpoint with those notes and its copies can be called as at
// `path`: nothing else is. Its copies may be, since an attempt was cut short.
bool IsFree(Env& env, const std::string& path,
            const std::vector<CopyNote>& notes) {
  if (IsThere(env, path)) return false;
  for (const std::string& ending : NotedEndings(notes)) {
    if (IsThere(env, CopyPath(path, ending)) &&
        !IsNotedCopy(env, path, ending, notes).value_or(false)) {
      return false;
    }
  }
  return true;
}

// Those that `notes` tell of, from beside `from` to beside `to`. One that can't
// be read or renamed stays. Returns the endings of the others.
std::vector<std::string> RenameCopies(Env& env, const std::string& from,
                                      const std::string& to,
                                      const std::vector<CopyNote>& notes) {
  std::vector<std::string> renamed;
  for (const std::string& ending : NotedEndings(notes)) {
    if (IsNotedCopy(env, from, ending, notes).value_or(false) &&
        env.Rename(CopyPath(from, ending), CopyPath(to, ending)).ok()) {
      renamed.push_back(ending);
    }
  }
  return renamed;
}

bool HoldsPartsOfACheckpoint(Env& env, const std::string& path) {
  const absl::StatusOr<std::vector<std::string>> names = env.ListDir(path);
  if (!names.ok()) return false;
  return std::any_of(names->begin(), names->end(), [](absl::string_view name) {
    if (!absl::ConsumeSuffix(&name, kSectionSuffix) &&
        !absl::ConsumeSuffix(&name, kBlobSuffix)) {
      return false;
    }
    return IsPartName(name);
  });
}

// A whole manifest, of another name.
bool IsRenamed(Env& env, const std::string& path) {
  const auto manifest = ReadManifestOfAnyName(env, path);
  return manifest.ok() && manifest->name() != Basename(StripSlashes(path));
}

}  // namespace

bool IsDamaged(Env& env, const RejectedCheckpoint& rejected) {
  const std::string path(StripSlashes(rejected.path));
  if (path.empty() || env.IsSymlink(path) || !env.IsDirectory(path)) {
    return false;
  }
  if (absl::IsNotFound(rejected.status)) {
    return !env.FileExists(JoinPath(path, kManifestFile)) &&
           HoldsPartsOfACheckpoint(env, path);
  }
  return absl::IsDataLoss(rejected.status) && !IsRenamed(env, path);
}

absl::StatusOr<std::string> SetAsideCheckpoint(Env& env,
                                               const std::string& path) {
  const std::string from(StripSlashes(path));
  if (from.empty() || Basename(from).empty() || Basename(from)[0] == '.') {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", path, "\": does not name a checkpoint"));
  }
  const std::vector<CopyNote> notes = ReadCopyNotes(env, from);
  std::string to = absl::StrCat(from, kSetAside);
  for (int number = 2; !IsFree(env, to, notes); ++number) {
    to = absl::StrCat(from, kSetAside, "-", number);
  }
  const std::string parent = ParentOf(from);
  // The copies first: while it has its name, the next search finds it again.
  const std::vector<std::string> renamed = RenameCopies(env, from, to, notes);
  absl::Status status;
  if (!renamed.empty()) status = env.SyncDir(parent);
  if (status.ok()) status = env.Rename(from, to);
  if (!status.ok()) {
    // Best effort; the first error is the cause.
    for (const std::string& ending : renamed) {
      const std::string copy = CopyPath(from, ending);
      if (IsThere(env, copy)) continue;
      env.Rename(CopyPath(to, ending), copy).IgnoreError();
    }
    env.SyncDir(parent).IgnoreError();
    return status;
  }
  GRAPNEL_RETURN_IF_ERROR(env.SyncDir(parent));
  return to;
}

bool IsSetAsideName(absl::string_view name) {
  if (absl::EndsWith(name, kSetAside)) return true;
  const size_t at = name.rfind('-');
  return at != absl::string_view::npos && at + 1 < name.size() &&
         absl::EndsWith(name.substr(0, at), kSetAside) &&
         std::all_of(name.begin() + at + 1, name.end(), absl::ascii_isdigit);
}

}  // namespace io
}  // namespace grapnel
