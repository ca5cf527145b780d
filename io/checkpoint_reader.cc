#include <cstdint>
#include <memory>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/checkpoint_files.h"
#include "grapnel/io/checkpoint_manifest.pb.h"
#include "grapnel/io/digest.h"
#include "grapnel/io/manifest_codec.h"
#include "grapnel/io/out_of_memory.h"
#include "grapnel/io/safetensors.h"
#include "grapnel/io/unique_name.h"

namespace grapnel {
namespace io {
namespace {

// Tensors have digests of their own to tell which of them is damaged.
absl::Status CheckDigests(const std::string& xxh3_128, const TensorMap& tensors,
                          const v1::FileRecord& file,
                          const TensorRecords& records) {
  if (xxh3_128 == file.xxh3_128()) return absl::OkStatus();
  for (const v1::TensorRecord* record : records) {
    const at::Tensor* const tensor = tensors.Find(record->name());
    GRAPNEL_RET_CHECK(tensor != nullptr);
    if (Xxh3Digest64({static_cast<const char*>(tensor->const_data_ptr()),
                      tensor->nbytes()}) != record->xxh3_64()) {
      return absl::DataLossError(
          absl::StrCat("tensor \"", record->name(),
                       "\": bytes differ from those that were written"));
    }
  }
  return absl::DataLossError(
      "bytes outside of tensors differ from those that were written");
}

absl::StatusOr<TensorMap> ReadSection(const RandomAccessFile& file,
                                      const std::string& path,
                                      const v1::FileRecord& record,
                                      const TensorRecords& records,
                                      Verify verify) {
  GRAPNEL_ASSIGN_OR_RETURN(const std::vector<SafetensorsEntry> entries,
                           ReadSafetensorsHeader(file, path));
  GRAPNEL_RETURN_IF_ERROR(
      WithContext(CheckSectionHeader(entries, records), path));
  SafetensorsFile read;
  GRAPNEL_ASSIGN_OR_RETURN(
      const TensorMap tensors,
      ReadSafetensors(file, path, verify == Verify::kFull ? &read : nullptr));
  if (verify == Verify::kFull) {
    GRAPNEL_RETURN_IF_ERROR(WithContext(
        CheckDigests(read.xxh3_128, tensors, record, records), path));
  }
  TensorMap ordered;
  for (const v1::TensorRecord* listed : records) {
    const at::Tensor* const tensor = tensors.Find(listed->name());
    GRAPNEL_RET_CHECK(tensor != nullptr);
    GRAPNEL_RETURN_IF_ERROR(ordered.Add(listed->name(), *tensor));
  }
  return ordered;
}

absl::StatusOr<std::string> ReadBlob(const RandomAccessFile& file,
                                     const std::string& path,
                                     const v1::FileRecord& record,
                                     Verify verify) {
  std::string content(static_cast<size_t>(file.size()), '\0');
  GRAPNEL_RETURN_IF_ERROR(file.Read(0, file.size(), &content[0]));
  if (verify == Verify::kFull && Xxh3Digest128(content) != record.xxh3_128()) {
    return absl::DataLossError(
        absl::StrCat(path, ": bytes differ from those that were written"));
  }
  return content;
}

absl::Status ReadPart(Env& env, const std::string& checkpoint, int index,
                      const TensorRecords& records, Verify verify,
                      CheckpointContents& contents) {
  const v1::FileRecord& record = contents.manifest().files(index);
  const std::string path = JoinPath(checkpoint, record.name());
  absl::StatusOr<ListedPart> part =
      ParsePartFile(record.name(), !records.empty());
  if (!part.ok()) return WithContext(part.status(), path);
  GRAPNEL_ASSIGN_OR_RETURN(
      const std::unique_ptr<RandomAccessFile> file,
      OpenFileOf(env, checkpoint, contents.manifest(), index));
  if (part->is_section) {
    GRAPNEL_ASSIGN_OR_RETURN(TensorMap tensors,
                             ReadSection(*file, path, record, records, verify));
    contents.sections.emplace_back(std::move(part->name), std::move(tensors));
  } else {
    GRAPNEL_ASSIGN_OR_RETURN(std::string content,
                             ReadBlob(*file, path, record, verify));
    contents.blobs.emplace_back(std::move(part->name), std::move(content));
  }
  return absl::OkStatus();
}

std::vector<std::string> Unlisted(Env& env, const std::string& path,
                                  const v1::CheckpointManifest& manifest) {
  absl::flat_hash_set<absl::string_view> listed = {kManifestFile, kPinFile,
                                                   kCopiesFile};
  for (const v1::FileRecord& file : manifest.files()) {
    listed.insert(file.name());
  }
  std::vector<std::string> unlisted;
  const absl::StatusOr<std::vector<std::string>> names = env.ListDir(path);
  if (!names.ok()) return unlisted;
  for (const std::string& name : *names) {
    if (name[0] != '.' && !listed.contains(name)) unlisted.push_back(name);
  }
  return unlisted;
}

// The name that a checkpoint at `path` must have; "" if the path doesn't tell.
std::string ExpectedName(absl::string_view path) {
  std::string name = Basename(StripSlashes(path));
  if (name == "." || name == "..") return "";
  std::string replaced;
  return ParseHiddenName(name, kReplaced, &replaced) ? replaced : name;
}

absl::StatusOr<CheckpointContents> Read(Env& env, const std::string& path,
                                        Verify verify) {
  CheckpointContents contents;
  GRAPNEL_ASSIGN_OR_RETURN(contents.manifest(), ReadManifest(env, path));
  const v1::CheckpointManifest& manifest = contents.manifest();
  std::vector<TensorRecords> records(
      static_cast<size_t>(manifest.files_size()));
  for (const v1::TensorRecord& tensor : manifest.tensors()) {
    records[tensor.file()].push_back(&tensor);
  }
  for (int i = 0; i < manifest.files_size(); ++i) {
    GRAPNEL_RETURN_IF_ERROR(AsDataLoss(ReadPart(
        env, path, i, records[static_cast<size_t>(i)], verify, contents)));
  }
  contents.unlisted = Unlisted(env, path, manifest);
  return contents;
}

}  // namespace

CheckpointContents::CheckpointContents()
    : manifest_(std::make_unique<v1::CheckpointManifest>()) {}
CheckpointContents::CheckpointContents(const CheckpointContents& other)
    : sections(other.sections),
      blobs(other.blobs),
      unlisted(other.unlisted),
      manifest_(std::make_unique<v1::CheckpointManifest>(*other.manifest_)) {}
CheckpointContents& CheckpointContents::operator=(
    const CheckpointContents& other) {
  return *this = CheckpointContents(other);
}
CheckpointContents::CheckpointContents(CheckpointContents&&) noexcept = default;
CheckpointContents& CheckpointContents::operator=(
    CheckpointContents&&) noexcept = default;
CheckpointContents::~CheckpointContents() = default;

const TensorMap* CheckpointContents::FindSection(absl::string_view name) const {
  for (const auto& section : sections) {
    if (section.first == name) return &section.second;
  }
  return nullptr;
}

const std::string* CheckpointContents::FindBlob(absl::string_view name) const {
  for (const auto& blob : blobs) {
    if (blob.first == name) return &blob.second;
  }
  return nullptr;
}

absl::StatusOr<v1::CheckpointManifest> ReadManifest(Env& env,
                                                    const std::string& path) {
  const std::string file = JoinPath(path, kManifestFile);
  if (!env.IsDirectory(path)) {
    return absl::NotFoundError(
        absl::StrCat(path, ": no checkpoint: is no directory"));
  }
  if (env.IsSymlink(file)) {
    return absl::DataLossError(absl::StrCat(file, ": is a link, not a file"));
  }
  const absl::StatusOr<std::string> bytes =
      ReadFile(env, file, kMaxManifestSize);
  if (absl::IsNotFound(bytes.status())) {
    return absl::NotFoundError(
        absl::StrCat(path, ": no checkpoint: has no ", kManifestFile));
  }
  if (!bytes.ok()) return AsDataLoss(bytes.status());
  absl::StatusOr<v1::CheckpointManifest> manifest =
      CatchOutOfMemory(file, [&] { return DecodeManifest(*bytes); });
  if (!manifest.ok()) return WithContext(manifest.status(), file);
  const std::string expected = ExpectedName(path);
  if (!expected.empty() && manifest->name() != expected) {
    return absl::DataLossError(
        absl::StrCat(file, ": is of \"", manifest->name(),
                     "\": the directory was renamed or the file copied"));
  }
  return manifest;
}

absl::StatusOr<CheckpointContents> ReadCheckpoint(Env& env,
                                                  const std::string& path,
                                                  Verify verify) {
  return CatchOutOfMemory(path, [&] { return Read(env, path, verify); });
}

}  // namespace io
}  // namespace grapnel
