#include "grapnel/io/run_checkpoints.h"

#include <algorithm>
#include <set>
#include <tuple>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "grapnel/base/check_field.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/checkpoint_files.h"
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
  checkpoint.iter_in_epoch = manifest.progress().iter_in_epoch();
  checkpoint.created_unix_nanos = manifest.created_unix_nanos();
  checkpoint.metrics.insert(manifest.metrics().begin(),
                            manifest.metrics().end());
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
      const std::string path = JoinPath(dir, name);
      const auto manifest = ReadManifest(env, path);
      if (!manifest.ok() || manifest->run_uuid() != run_uuid ||
          manifest->partial()) {
        continue;
      }
      RunCheckpoint checkpoint = DescribeCheckpoint(*manifest);
      checkpoint.pinned = IsPinned(env, path);
      found.insert(std::move(checkpoint));
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
  if (IsPinned(env, path)) {
    return absl::FailedPreconditionError("it is pinned");
  }
  return DeleteWithCopies(env, std::string(StripSlashes(path)), &*manifest);
}

absl::Status KeepNewestCheckpoints(Env& env, const std::string& dir,
                                   absl::string_view run_uuid, int64_t keep) {
  GRAPNEL_RETURN_IF_ERROR(CheckField(keep >= 0, "keep", ">= 0", keep));
  const std::vector<RunCheckpoint> all = ListRunCheckpoints(
      env, {dir}, run_uuid, [](absl::string_view) { return true; });
  for (int64_t i = 0; i + keep < static_cast<int64_t>(all.size()); ++i) {
    if (all[i].pinned) continue;
    const std::string path = JoinPath(dir, all[i].name);
    const absl::Status status = DeleteRunCheckpoint(env, path, run_uuid);
    // It may be pinned since it was listed.
    if (!status.ok() && !IsPinned(env, path)) return status;
  }
  return absl::OkStatus();
}

absl::Status PinCheckpoint(Env& env, const std::string& path, bool pinned) {
  if (!env.FileExists(JoinPath(path, kManifestFile))) {
    return absl::NotFoundError(
        absl::StrCat(path, ": no checkpoint: has no ", kManifestFile));
  }
  if (IsPinned(env, path) == pinned) return absl::OkStatus();
  const std::string pin = JoinPath(path, kPinFile);
  GRAPNEL_RETURN_IF_ERROR(pinned ? WriteFileAndSync(env, pin, "")
                                 : env.DeleteFile(pin));
  const absl::Status status = env.SyncDir(path);
  // Who wanted to delete it had renamed it, saw the pin and put it back.
  if (absl::IsNotFound(status) && pinned && IsPinned(env, path)) {
    return env.SyncDir(path);
  }
  return status;
}

bool IsPinned(Env& env, const std::string& path) {
  return env.FileExists(JoinPath(path, kPinFile));
}

namespace {

// kAlreadyExists if a file that `notes` don't tell of has a copy's name.
absl::Status CheckNameOfCopy(Env& env, const std::string& path,
                             const std::string& ending,
                             const std::vector<CopyNote>& notes) {
  const std::string copy = CopyPath(path, ending);
  if (!env.FileExists(copy) && !env.IsSymlink(copy)) return absl::OkStatus();
  GRAPNEL_ASSIGN_OR_RETURN(const bool is_copy,
                           IsNotedCopy(env, path, ending, notes));
  if (is_copy) return absl::OkStatus();
  return absl::AlreadyExistsError(
      "there is a file of that name that was not made of this checkpoint");
}

}  // namespace

absl::Status AddCopy(Env& env, const std::string& path,
                     const std::string& ending, const std::string& written) {
  const auto add = [&]() -> absl::Status {
    if (ending != ".pth" && ending != ".safetensors") {
      return absl::InvalidArgumentError(absl::StrCat(
          "ending: must be \".pth\" or \".safetensors\", is \"", ending, "\""));
    }
    // This takes long: what is there is looked at later.
    GRAPNEL_ASSIGN_OR_RETURN(CopyNote note, DescribeCopy(env, written, ending));
    const std::string copy = CopyPath(path, ending);
    const std::vector<CopyNote> notes = ReadCopyNotes(env, path);
    GRAPNEL_RETURN_IF_ERROR(CheckNameOfCopy(env, path, ending, notes));
    // First the note: until the file has its name, it tells of none.
    if (std::find(notes.begin(), notes.end(), note) == notes.end()) {
      std::vector<CopyNote> all = notes;
      all.push_back(std::move(note));
      GRAPNEL_RETURN_IF_ERROR(WriteFileAtomically(
          env, JoinPath(path, kCopiesFile), CopyNotesText(all)));
      // That waits for the disk, and somebody may have put a file there.
      GRAPNEL_RETURN_IF_ERROR(CheckNameOfCopy(env, path, ending, notes));
    }
    GRAPNEL_RETURN_IF_ERROR(env.Rename(written, copy));
    return env.SyncDir(ParentOf(copy));
  };
  const absl::Status added = add();
  if (!added.ok()) {
    env.DeleteFile(written).IgnoreError();  // The first error is the cause.
  }
  return added;
}

std::vector<std::string> ListCopies(Env& env, const std::string& path) {
  std::vector<std::string> copies;
  for (const std::string& ending : CopyEndings(env, path)) {
    copies.push_back(CopyPath(path, ending));
  }
  return copies;
}

}  // namespace io
}  // namespace grapnel
