#include "grapnel/io/checkpoint_files.h"

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <limits>
#include <map>
#include <tuple>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/io/checkpoint_manifest.pb.h"
#include "grapnel/io/digest.h"
#include "grapnel/io/manifest_codec.h"
#include "grapnel/io/unique_name.h"

namespace grapnel {
namespace io {
namespace {

constexpr int64_t kMaxPathSize = 4096;

constexpr absl::string_view kCopyEndings[] = {".pth", ".safetensors"};

absl::StatusOr<CopyNote> Describe(const RandomAccessFile& file,
                                  const std::string& ending) {
  constexpr int64_t kChunkSize = 1 << 20;
  std::string chunk;
  Xxh3Hasher128 digest;
  for (int64_t at = 0; at < file.size();) {
    chunk.resize(static_cast<size_t>(std::min(kChunkSize, file.size() - at)));
    const int64_t size = static_cast<int64_t>(chunk.size());
    GRAPNEL_RETURN_IF_ERROR(file.Read(at, size, &chunk[0]));
    digest.Update(chunk);
    at += size;
  }
  return CopyNote{ending, file.size(), absl::BytesToHexString(digest.Digest())};
}

// Null if there is no regular file, or a link to one.
absl::StatusOr<std::unique_ptr<RandomAccessFile>> OpenCopy(
    Env& env, const std::string& file) {
  if (env.IsSymlink(file)) return nullptr;
  auto opened = env.NewRandomAccessFile(file);
  if (absl::IsNotFound(opened.status()) ||
      absl::IsInvalidArgument(opened.status())) {
    return nullptr;
  }
  return opened;
}

bool HasSizeOfOne(const RandomAccessFile& file, absl::string_view ending,
                  const std::vector<CopyNote>& notes) {
  return std::any_of(notes.begin(), notes.end(), [&](const CopyNote& note) {
    return note.ending == ending && note.num_bytes == file.size();
  });
}

// Deletes what one called so has replaced: it mustn't come back in its place.
absl::Status DeleteReplaced(Env& env, const std::string& parent,
                            const std::string& name) {
  GRAPNEL_ASSIGN_OR_RETURN(const std::vector<std::string> names,
                           env.ListDir(parent));
  bool any = false;
  for (const std::string& hidden : names) {
    std::string replaced;
    const std::string old = JoinPath(parent, hidden);
    // Without a manifest it can't come back, or isn't ours.
    if (!ParseHiddenName(hidden, kReplaced, &replaced) || replaced != name ||
        !env.FileExists(JoinPath(old, kManifestFile))) {
      continue;
    }
    GRAPNEL_RETURN_IF_ERROR(DeleteCopies(env, old, JoinPath(parent, name)));
    GRAPNEL_RETURN_IF_ERROR(DeleteManifestFirst(env, old));
    any = true;
  }
  return any ? env.SyncDir(parent) : absl::OkStatus();
}

// Until it had its hidden name, somebody could pin it or put another in its
// place.
absl::Status CheckChosen(Env& env, const std::string& trash,
                         const v1::CheckpointManifest& chosen) {
  if (env.FileExists(JoinPath(trash, kPinFile))) {
    return absl::FailedPreconditionError("it is pinned");
  }
  const auto manifest = ReadManifestOfAnyName(env, trash);
  if (manifest.ok() ? manifest->checkpoint_uuid() != chosen.checkpoint_uuid()
                    : absl::IsNotFound(manifest.status())) {
    return absl::FailedPreconditionError("something else has its name now");
  }
  return manifest.status();
}

// Damaged ones come before all others, what can't be read now behind them.
int64_t CreatedUnixNanos(Env& env, const std::string& path) {
  const auto manifest = ReadManifestOfAnyName(env, path);
  if (manifest.ok()) return manifest->created_unix_nanos();
  return absl::IsDataLoss(manifest.status())
             ? 0
             : std::numeric_limits<int64_t>::max();
}

// Whether it holds what is of no checkpoint, nor what NFS keeps of a deleted
// file that somebody has open.
bool IsSomebodysOwn(Env& env, const std::string& path) {
  if (!env.FileExists(path) || env.FileExists(JoinPath(path, kManifestFile))) {
    return false;
  }
  const absl::StatusOr<std::vector<std::string>> names = env.ListDir(path);
  if (!names.ok()) return true;
  return std::any_of(names->begin(), names->end(), [](const std::string& name) {
    std::string of;
    return name != kPinFile && name != kCopiesFile &&
           !absl::StartsWith(name, ".nfs") &&
           !ParseHiddenName(name, kTemporary, &of) &&
           !ParsePartFile(name, /*has_tensors=*/false).ok();
  });
}

}  // namespace

absl::string_view StripSlashes(absl::string_view path) {
  while (path.size() > 1 && absl::ConsumeSuffix(&path, "/")) {
  }
  return path;
}

std::filesystem::path NormalPath(absl::string_view path) {
  return std::filesystem::path(std::string(StripSlashes(path)))
      .lexically_normal();
}

std::string ParentOf(absl::string_view path) {
  const std::string parent = Dirname(path);
  return parent.empty() ? "." : parent;
}

absl::Status DeleteManifestFirst(Env& env, const std::string& path) {
  if (env.IsDirectory(path) && !env.IsSymlink(path)) {
    const absl::Status status = env.DeleteFile(JoinPath(path, kManifestFile));
    if (!status.ok() && !absl::IsNotFound(status)) return status;
  }
  return DeleteRecursively(env, path);
}

absl::StatusOr<v1::CheckpointManifest> ReadManifestOfAnyName(
    Env& env, const std::string& dir) {
  GRAPNEL_ASSIGN_OR_RETURN(
      const std::string bytes,
      ReadFile(env, JoinPath(dir, kManifestFile), kMaxManifestSize));
  return DecodeManifest(bytes);
}

absl::Status RenameBack(Env& env, const std::string& hidden,
                        const std::string& path, const absl::Status& cause) {
  if (env.Rename(hidden, path).ok()) return cause;
  return absl::Status(cause.code(),
                      absl::StrCat(cause.message(), "; what was at ", path,
                                   " is still called ", hidden));
}

absl::Status DeleteWithCopies(Env& env, const std::string& path,
                              const v1::CheckpointManifest* chosen) {
  const std::string parent = ParentOf(path);
  const std::string name = Basename(path);
  GRAPNEL_RETURN_IF_ERROR(DeleteReplaced(env, parent, name));
  const std::string trash = JoinPath(parent, HiddenName(kTrash, name));
  const std::string pin = JoinPath(trash, kPinFile);
  GRAPNEL_RETURN_IF_ERROR(env.Rename(path, trash));
  absl::Status status;
  if (chosen != nullptr) status = CheckChosen(env, trash, *chosen);
  if (status.ok()) status = env.SyncDir(parent);
  // RemoveLeftovers puts it back while it is pinned: until then it is whole.
  const bool was_pinned =
      status.ok() && chosen == nullptr && env.FileExists(pin);
  if (was_pinned) {
    status = env.DeleteFile(pin);
    if (status.ok()) status = env.SyncDir(trash);
  }
  if (status.ok()) status = DeleteCopies(env, trash, path);
  if (status.ok()) return DeleteManifestFirst(env, trash);
  // Best effort; the first error is the cause.
  if (was_pinned) {
    WriteFileAndSync(env, pin, "").IgnoreError();
    env.SyncDir(trash).IgnoreError();
  }
  status = RenameBack(env, trash, path, status);
  env.SyncDir(parent).IgnoreError();
  return status;
}

absl::StatusOr<std::vector<HiddenLeftover>> FindLeftovers(
    Env& env, const std::string& dir) {
  GRAPNEL_ASSIGN_OR_RETURN(const std::vector<std::string> names,
                           env.ListDir(dir));
  std::vector<HiddenLeftover> leftovers;
  // Of those that can be put back under a name: when it was made, whether
  // deleting it was begun, for it then replaced the others, and its index.
  using Candidate = std::tuple<int64_t, bool, size_t>;
  std::map<std::string, Candidate> newest;
  for (const std::string& name : names) {
    HiddenLeftover leftover;
    leftover.name = name;
    const std::string path = JoinPath(dir, name);
    const bool is_trash = ParseHiddenName(name, kTrash, &leftover.of);
    const bool is_replaced = ParseHiddenName(name, kReplaced, &leftover.of);
    if (!is_trash && !is_replaced &&
        !ParseHiddenName(name, kTemporary, &leftover.of)) {
      continue;
    }
    if (is_replaced && IsSomebodysOwn(env, path)) continue;
    leftovers.push_back(leftover);
    // Deleting begins with the manifest: while it is there, nothing is lost.
    if ((is_replaced ||
         (is_trash && env.FileExists(JoinPath(path, kPinFile)))) &&
        !env.FileExists(JoinPath(dir, leftover.of)) &&
        env.FileExists(JoinPath(path, kManifestFile))) {
      const Candidate candidate(CreatedUnixNanos(env, path), is_trash,
                                leftovers.size() - 1);
      Candidate& best = newest.emplace(leftover.of, candidate).first->second;
      best = std::max(best, candidate);
    }
  }
  for (const auto& [of, candidate] : newest) {
    leftovers[std::get<size_t>(candidate)].put_back = true;
  }
  return leftovers;
}

std::string CopyPath(absl::string_view path, absl::string_view ending) {
  return absl::StrCat(StripSlashes(path), ending);
}

bool operator==(const CopyNote& a, const CopyNote& b) {
  return std::tie(a.ending, a.num_bytes, a.xxh3_128) ==
         std::tie(b.ending, b.num_bytes, b.xxh3_128);
}

absl::StatusOr<CopyNote> DescribeCopy(Env& env, const std::string& file,
                                      const std::string& ending) {
  GRAPNEL_ASSIGN_OR_RETURN(const std::unique_ptr<RandomAccessFile> opened,
                           env.NewRandomAccessFile(file));
  return Describe(*opened, ending);
}

std::vector<CopyNote> ReadCopyNotes(Env& env, const std::string& dir) {
  constexpr int64_t kMaxSize = 1 << 16;
  constexpr size_t kNumDigits = 32;
  std::vector<CopyNote> notes;
  const absl::StatusOr<std::string> text =
      ReadFile(env, JoinPath(dir, kCopiesFile), kMaxSize);
  if (!text.ok()) return notes;
  for (const absl::string_view line : absl::StrSplit(*text, '\n')) {
    const std::vector<std::string> fields = absl::StrSplit(line, ' ');
    CopyNote note;
    if (fields.size() != 3 || fields[2].size() != kNumDigits ||
        std::count(std::begin(kCopyEndings), std::end(kCopyEndings),
                   fields[0]) == 0 ||
        !absl::SimpleAtoi(fields[1], &note.num_bytes)) {
      continue;
    }
    note.ending = fields[0];
    note.xxh3_128 = fields[2];
    notes.push_back(std::move(note));
  }
  return notes;
}

std::vector<std::string> NotedEndings(const std::vector<CopyNote>& notes) {
  std::vector<std::string> endings;
  for (const absl::string_view ending : kCopyEndings) {
    if (std::any_of(notes.begin(), notes.end(), [&](const CopyNote& note) {
          return note.ending == ending;
        })) {
      endings.emplace_back(ending);
    }
  }
  return endings;
}

std::string CopyNotesText(const std::vector<CopyNote>& notes) {
  std::string text;
  for (const CopyNote& note : notes) {
    absl::StrAppend(&text, note.ending, " ", note.num_bytes, " ", note.xxh3_128,
                    "\n");
  }
  return text;
}

absl::StatusOr<bool> IsNotedCopy(Env& env, const std::string& path,
                                 const std::string& ending,
                                 const std::vector<CopyNote>& notes) {
  GRAPNEL_ASSIGN_OR_RETURN(const std::unique_ptr<RandomAccessFile> file,
                           OpenCopy(env, CopyPath(path, ending)));
  if (file == nullptr || !HasSizeOfOne(*file, ending, notes)) return false;
  GRAPNEL_ASSIGN_OR_RETURN(const CopyNote found, Describe(*file, ending));
  return std::find(notes.begin(), notes.end(), found) != notes.end();
}

std::vector<std::string> CopyEndings(Env& env, const std::string& path) {
  const std::vector<CopyNote> notes = ReadCopyNotes(env, path);
  std::vector<std::string> endings;
  for (const std::string& ending : NotedEndings(notes)) {
    const auto file = OpenCopy(env, CopyPath(path, ending));
    if (file.ok() && *file != nullptr && HasSizeOfOne(**file, ending, notes)) {
      endings.push_back(ending);
    }
  }
  return endings;
}

absl::Status DeleteCopies(Env& env, const std::string& dir,
                          const std::string& path) {
  std::vector<CopyNote> notes = ReadCopyNotes(env, dir);
  for (const CopyNote& stays : ReadCopyNotes(env, path)) {
    notes.erase(std::remove(notes.begin(), notes.end(), stays), notes.end());
  }
  bool any = false;
  for (const std::string& ending : NotedEndings(notes)) {
    GRAPNEL_ASSIGN_OR_RETURN(const bool is_copy,
                             IsNotedCopy(env, path, ending, notes));
    if (!is_copy) continue;
    GRAPNEL_RETURN_IF_ERROR(env.DeleteFile(CopyPath(path, ending)));
    any = true;
  }
  if (!any) return absl::OkStatus();
  // They mustn't come back once nothing tells of them.
  return env.SyncDir(ParentOf(StripSlashes(path)));
}

absl::StatusOr<std::unique_ptr<RandomAccessFile>> OpenListedFile(
    Env& env, const std::string& checkpoint, const v1::FileRecord& record) {
  const std::string path = JoinPath(checkpoint, record.name());
  if (absl::EndsWith(record.name(), kBlobSuffix) &&
      record.num_bytes() > kMaxBlobSize) {
    return absl::ResourceExhaustedError(absl::StrCat(
        path, ": has ", record.num_bytes(), " bytes, may have ", kMaxBlobSize));
  }
  if (env.IsSymlink(path)) {
    return absl::DataLossError(absl::StrCat(path, ": is a link, not a file"));
  }
  absl::StatusOr<std::unique_ptr<RandomAccessFile>> file =
      env.NewRandomAccessFile(path);
  if (!file.ok()) return AsDataLoss(file.status());
  if (static_cast<uint64_t>((*file)->size()) != record.num_bytes()) {
    return absl::DataLossError(absl::StrCat(path, ": has ", (*file)->size(),
                                            " bytes, the manifest says ",
                                            record.num_bytes()));
  }
  return file;
}

absl::StatusOr<ListedPart> ParsePartFile(absl::string_view file_name,
                                         bool has_tensors) {
  ListedPart part;
  absl::string_view name = file_name;
  part.is_section = absl::ConsumeSuffix(&name, kSectionSuffix);
  const bool is_blob =
      !part.is_section && absl::ConsumeSuffix(&name, kBlobSuffix);
  if (!(part.is_section || is_blob) || !IsPartName(name) ||
      file_name == kManifestFile || (is_blob && has_tensors)) {
    return absl::UnimplementedError("is no file that this reads");
  }
  part.name = std::string(name);
  return part;
}

absl::Status CheckSectionHeader(const std::vector<SafetensorsEntry>& entries,
                                const TensorRecords& records) {
  absl::flat_hash_map<absl::string_view, const SafetensorsEntry*> by_name;
  for (const SafetensorsEntry& entry : entries) by_name[entry.name] = &entry;
  if (entries.size() != records.size()) {
    return absl::DataLossError(absl::StrCat("has ", entries.size(),
                                            " tensors, the manifest lists ",
                                            records.size()));
  }
  for (const v1::TensorRecord* record : records) {
    const auto differs = [&](absl::string_view what, const auto& is,
                             const auto& listed) {
      return absl::DataLossError(
          absl::StrCat("tensor ", QuotedName(record->name()), ": ", what,
                       " is ", is, ", the manifest says ", listed));
    };
    const auto it = by_name.find(record->name());
    if (it == by_name.end()) {
      return absl::DataLossError(absl::StrCat(
          "tensor ", QuotedName(record->name()), ": is in the manifest only"));
    }
    const SafetensorsEntry& entry = *it->second;
    if (entry.dtype != record->dtype()) {
      return differs("dtype", entry.dtype, record->dtype());
    }
    const std::string shape = absl::StrJoin(entry.shape, ", ");
    const std::string listed_shape = absl::StrJoin(record->shape(), ", ");
    if (shape != listed_shape) return differs("shape", shape, listed_shape);
    if (static_cast<uint64_t>(entry.file_offset) != record->file_offset()) {
      return differs("offset", entry.file_offset, record->file_offset());
    }
    if (static_cast<uint64_t>(entry.num_bytes) != record->num_bytes()) {
      return differs("length", entry.num_bytes, record->num_bytes());
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> ReadLastCheckpoint(Env& env,
                                               const std::string& work_dir) {
  const std::string file = JoinPath(work_dir, kLastCheckpoint);
  absl::StatusOr<std::string> content = ReadFile(env, file, kMaxPathSize);
  if (absl::IsNotFound(content.status())) return std::string();
  if (!content.ok()) return content.status();
  const absl::string_view path =
      StripSlashes(absl::StripAsciiWhitespace(*content));
  if (path.empty()) {
    return absl::DataLossError(absl::StrCat(file, ": is empty"));
  }
  for (const char c : path) {
    if (absl::ascii_iscntrl(c)) {
      return absl::DataLossError(absl::StrCat(file, ": holds no path"));
    }
  }
  return JoinPath(work_dir, path);
}

bool LooksLikeCheckpoint(absl::string_view name) {
  return absl::StartsWith(name, "epoch_") || absl::StartsWith(name, "iter_") ||
         absl::StartsWith(name, "best_");
}

bool IsCheckpoint(Env& env, const std::string& path) {
  return env.IsDirectory(path) &&
         (env.FileExists(JoinPath(path, kManifestFile)) ||
          LooksLikeCheckpoint(Basename(StripSlashes(path))));
}

std::string CheckpointsIn(Env& env, const std::string& dir) {
  constexpr size_t kShown = 10;
  std::vector<std::string> shown;
  size_t count = 0;
  for (const std::string& name :
       env.ListDir(dir).value_or(std::vector<std::string>())) {
    if (!IsCheckpointName(name) || !IsCheckpoint(env, JoinPath(dir, name))) {
      continue;
    }
    if (++count <= kShown) shown.push_back(name);
  }
  std::string list = absl::StrJoin(shown, ", ");
  if (count > kShown) absl::StrAppend(&list, " and ", count - kShown, " more");
  return list;
}

absl::StatusOr<std::unique_ptr<RandomAccessFile>> OpenFileOf(
    Env& env, const std::string& checkpoint,
    const v1::CheckpointManifest& manifest, int index) {
  const v1::FileRecord& record = manifest.files(index);
  auto file = OpenListedFile(env, checkpoint, record);
  const std::string path = JoinPath(checkpoint, record.name());
  if (!absl::IsDataLoss(file.status()) || env.IsSymlink(path)) return file;
  const auto opened = env.NewRandomAccessFile(path);
  const int64_t size = opened.ok() ? (*opened)->size() : 0;
  const v1::TensorRecord* first = nullptr;
  for (const v1::TensorRecord& tensor : manifest.tensors()) {
    if (tensor.file() != static_cast<uint32_t>(index) ||
        tensor.file_offset() + tensor.num_bytes() <=
            static_cast<uint64_t>(size)) {
      continue;
    }
    if (first == nullptr || tensor.file_offset() < first->file_offset()) {
      first = &tensor;
    }
  }
  if (first == nullptr) return file;
  return absl::DataLossError(absl::StrCat(file.status().message(),
                                          ", the first bad tensor is ",
                                          QuotedName(first->name())));
}

absl::Status CheckFiles(Env& env, const std::string& checkpoint,
                        const v1::CheckpointManifest& manifest) {
  for (int i = 0; i < manifest.files_size(); ++i) {
    GRAPNEL_RETURN_IF_ERROR(OpenFileOf(env, checkpoint, manifest, i).status());
  }
  return absl::OkStatus();
}

absl::Status AsDataLoss(absl::Status status) {
  if (!absl::IsNotFound(status) && !absl::IsInvalidArgument(status)) {
    return status;
  }
  return absl::DataLossError(status.message());
}

}  // namespace io
}  // namespace grapnel
