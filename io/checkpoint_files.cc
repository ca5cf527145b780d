#include "grapnel/io/checkpoint_files.h"

#include "absl/container/flat_hash_map.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/io/checkpoint_manifest.pb.h"
#include "grapnel/io/manifest_codec.h"

namespace grapnel {
namespace io {
namespace {

constexpr int64_t kMaxPathSize = 4096;

}  // namespace

absl::string_view StripSlashes(absl::string_view path) {
  while (path.size() > 1 && absl::ConsumeSuffix(&path, "/")) {
  }
  return path;
}

absl::Status DeleteManifestFirst(Env& env, const std::string& path) {
  if (env.IsDirectory(path) && !env.IsSymlink(path)) {
    const absl::Status status = env.DeleteFile(JoinPath(path, kManifestFile));
    if (!status.ok() && !absl::IsNotFound(status)) return status;
  }
  return DeleteRecursively(env, path);
}

std::string CopyPath(absl::string_view path, absl::string_view ending) {
  return absl::StrCat(StripSlashes(path), ending);
}

absl::Status DeleteCopies(Env& env, const std::string& dir,
                          const std::string& path) {
  for (const std::string& ending : ReadCopyEndings(env, dir)) {
    const absl::Status status = env.DeleteFile(CopyPath(path, ending));
    if (!absl::IsNotFound(status)) GRAPNEL_RETURN_IF_ERROR(status);
  }
  return absl::OkStatus();
}

std::vector<std::string> ReadCopyEndings(Env& env, const std::string& dir) {
  constexpr int64_t kMaxSize = 4096;
  std::vector<std::string> endings;
  const absl::StatusOr<std::string> text =
      ReadFile(env, JoinPath(dir, kCopiesFile), kMaxSize);
  if (!text.ok()) return endings;
  for (const absl::string_view line : absl::StrSplit(*text, '\n')) {
    if (line == ".pth" || line == ".safetensors") endings.emplace_back(line);
  }
  return endings;
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

absl::Status AsDataLoss(absl::Status status) {
  if (!absl::IsNotFound(status) && !absl::IsInvalidArgument(status)) {
    return status;
  }
  return absl::DataLossError(status.message());
}

}  // namespace io
}  // namespace grapnel
