#include <cstdint>
#include <utility>

#include "ATen/Parallel.h"
#include "ATen/Version.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "grapnel/base/clock.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/version.h"
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

absl::Status CheckParts(const CheckpointContents& contents) {
  absl::flat_hash_set<std::string> files;
  const auto check = [&](const std::string& name, const char* what,
                         absl::string_view suffix) {
    if (!IsPartName(name)) {
      return absl::InvalidArgumentError(
          absl::StrCat(what, " \"", name, "\": name must be [a-z0-9_]{1,64}"));
    }
    const std::string file = absl::StrCat(name, suffix);
    if (file == kManifestFile || !files.insert(file).second) {
      return absl::InvalidArgumentError(
          absl::StrCat(what, " \"", name, "\": name is taken"));
    }
    return absl::OkStatus();
  };
  for (const auto& section : contents.sections) {
    GRAPNEL_RETURN_IF_ERROR(check(section.first, "section", kSectionSuffix));
  }
  for (const auto& blob : contents.blobs) {
    GRAPNEL_RETURN_IF_ERROR(check(blob.first, "blob", kBlobSuffix));
    if (blob.second.size() > kMaxBlobSize) {
      return absl::InvalidArgumentError(
          absl::StrCat("blob \"", blob.first, "\": has ", blob.second.size(),
                       " bytes, may have ", kMaxBlobSize));
    }
  }
  if (files.empty()) {
    return absl::InvalidArgumentError("no section and no blob to write");
  }
  return absl::OkStatus();
}

// Only what is no checkpoint, and not empty, is in the way.
absl::Status CheckReplaceable(Env& env, const std::string& path) {
  if (!env.FileExists(path) || env.FileExists(JoinPath(path, kManifestFile))) {
    return absl::OkStatus();
  }
  const absl::StatusOr<std::vector<std::string>> names = env.ListDir(path);
  if (names.ok() && names->empty()) return absl::OkStatus();
  return absl::AlreadyExistsError("something that is no checkpoint is there");
}

absl::Status CheckFreeSpace(Env& env, const std::string& parent,
                            const CheckpointContents& contents) {
  double need = 1 << 20;
  for (const auto& section : contents.sections) {
    for (const NamedTensor& named : section.second) {
      if (!named.tensor.defined()) continue;  // Refused later, by name.
      need += 1.05 * static_cast<double>(named.tensor.numel()) *
              static_cast<double>(named.tensor.element_size());
    }
  }
  for (const auto& blob : contents.blobs) {
    need += 1.05 * static_cast<double>(blob.second.size());
  }
  const absl::StatusOr<int64_t> free = env.FreeSpace(parent);
  if (!free.ok() || static_cast<double>(*free) >= need) {
    return absl::OkStatus();  // Not known: writing will tell.
  }
  return absl::ResourceExhaustedError(
      absl::StrCat(parent, ": needs ", static_cast<int64_t>(need),
                   " bytes, has ", *free, " free"));
}

v1::CheckpointManifest BeginManifest(const std::string& name,
                                     const v1::CheckpointManifest& given) {
  v1::CheckpointManifest manifest = given;
  manifest.set_schema_version(kSchemaVersion);
  manifest.set_name(name);
  manifest.set_checkpoint_uuid(RandomBytes(16));
  manifest.clear_files();
  manifest.clear_tensors();
  if (manifest.created_unix_nanos() == 0) {
    manifest.set_created_unix_nanos(
        absl::ToUnixNanos(Clock::System().WallTime()));
  }
  if (manifest.producer().empty()) {
    manifest.set_producer(absl::StrCat("grapnel ", kGrapnelVersion));
  }
  if (manifest.libtorch_version().empty()) {
    manifest.set_libtorch_version(kLibTorchVersion);
  }
  if (manifest.cpu_capability().empty()) {
    manifest.set_cpu_capability(at::get_cpu_capability());
  }
  if (manifest.num_threads() == 0) {
    manifest.set_num_threads(at::get_num_threads());
  }
  if (manifest.world_size() == 0) manifest.set_world_size(1);
  return manifest;
}

absl::Status WriteSection(Env& env, const std::string& dir,
                          const std::string& name, const TensorMap& tensors,
                          v1::CheckpointManifest& manifest) {
  const std::string file_name = absl::StrCat(name, kSectionSuffix);
  GRAPNEL_ASSIGN_OR_RETURN(
      const SafetensorsFile written,
      WriteSafetensors(env, JoinPath(dir, file_name), tensors));
  absl::flat_hash_map<absl::string_view, const SafetensorsEntry*> entries;
  for (const SafetensorsEntry& entry : written.entries) {
    entries[entry.name] = &entry;
  }
  for (const NamedTensor& named : tensors) {  // In the caller's order.
    const SafetensorsEntry* const entry = entries[named.name];
    GRAPNEL_RET_CHECK(entry != nullptr);
    v1::TensorRecord* const record = manifest.add_tensors();
    record->set_name(entry->name);
    record->set_file(static_cast<uint32_t>(manifest.files_size()));
    record->set_dtype(entry->dtype);
    record->mutable_shape()->Add(entry->shape.begin(), entry->shape.end());
    record->set_file_offset(static_cast<uint64_t>(entry->file_offset));
    record->set_num_bytes(static_cast<uint64_t>(entry->num_bytes));
    record->set_xxh3_64(entry->xxh3_64);
  }
  v1::FileRecord* const file = manifest.add_files();
  file->set_name(file_name);
  file->set_num_bytes(static_cast<uint64_t>(written.num_bytes));
  file->set_xxh3_128(written.xxh3_128);
  return absl::OkStatus();
}

// Writes all files to `dir`, the manifest last.
absl::Status WriteFiles(Env& env, const std::string& dir,
                        const std::string& name,
                        const CheckpointContents& contents) {
  v1::CheckpointManifest manifest = BeginManifest(name, contents.manifest());
  for (const auto& [section, tensors] : contents.sections) {
    GRAPNEL_RETURN_IF_ERROR(WriteSection(env, dir, section, tensors, manifest));
  }
  for (const auto& [blob, content] : contents.blobs) {
    v1::FileRecord* const file = manifest.add_files();
    file->set_name(absl::StrCat(blob, kBlobSuffix));
    file->set_num_bytes(content.size());
    file->set_xxh3_128(Xxh3Digest128(content));
    GRAPNEL_RETURN_IF_ERROR(
        WriteFileAndSync(env, JoinPath(dir, file->name()), content));
  }
  GRAPNEL_ASSIGN_OR_RETURN(const std::string bytes, EncodeManifest(manifest));
  GRAPNEL_RETURN_IF_ERROR(
      WriteFileAndSync(env, JoinPath(dir, kManifestFile), bytes));
  return env.SyncDir(dir);
}

// Makes the checkpoint in `to` pinned if and only if that in `from` is.
absl::Status CarryPin(Env& env, const std::string& from,
                      const std::string& to) {
  const std::string pin = JoinPath(to, kPinFile);
  const bool pinned = env.FileExists(JoinPath(from, kPinFile));
  if (pinned == env.FileExists(pin)) return absl::OkStatus();
  GRAPNEL_RETURN_IF_ERROR(pinned ? WriteFileAndSync(env, pin, "")
                                 : env.DeleteFile(pin));
  return env.SyncDir(to);
}

// Gives the finished directory its name. What had it is set aside first and
// comes back if this fails; if the power goes out in between, RemoveLeftovers
// puts it back.
absl::Status Publish(Env& env, const std::string& parent,
                     const std::string& name, const std::string& temporary) {
  const std::string path = JoinPath(parent, name);
  std::string replaced;
  absl::Status status;
  if (env.FileExists(path) || env.IsSymlink(path)) {
    replaced = JoinPath(parent, HiddenName(kReplaced, name));
    GRAPNEL_RETURN_IF_ERROR(CarryPin(env, path, temporary));
    GRAPNEL_RETURN_IF_ERROR(env.Rename(path, replaced));
    // Until now somebody could pin it, or put something else in its place.
    status = CheckReplaceable(env, replaced);
    if (status.ok()) status = CarryPin(env, replaced, temporary);
  }
  if (status.ok()) status = env.Rename(temporary, path);
  const bool renamed = status.ok();
  if (renamed) status = env.SyncDir(parent);
  if (!status.ok()) {
    // Best effort; the first error is the cause.
    if (renamed) env.Rename(path, temporary).IgnoreError();
    if (!replaced.empty()) status = RenameBack(env, replaced, path, status);
    env.SyncDir(parent).IgnoreError();
    return status;
  }
  // What can't be deleted is for RemoveLeftovers, which says so.
  if (!replaced.empty() && DeleteCopies(env, replaced, path).ok()) {
    DeleteManifestFirst(env, replaced).IgnoreError();
  }
  return absl::OkStatus();
}

absl::Status Write(Env& env, const std::string& parent, const std::string& name,
                   const CheckpointContents& contents) {
  if (!IsCheckpointName(name)) {
    return absl::InvalidArgumentError(
        "name must be 1 to 200 printable characters without \"/\", and not "
        "begin with \".\"");
  }
  GRAPNEL_RETURN_IF_ERROR(CheckParts(contents));
  GRAPNEL_RETURN_IF_ERROR(CheckReplaceable(env, JoinPath(parent, name)));
  GRAPNEL_RETURN_IF_ERROR(env.CreateDir(parent));
  GRAPNEL_RETURN_IF_ERROR(CheckFreeSpace(env, parent, contents));
  const std::string temporary = JoinPath(parent, HiddenName(kTemporary, name));
  GRAPNEL_RETURN_IF_ERROR(env.CreateNewDir(temporary));
  absl::Status status = CatchOutOfMemory(
      temporary, [&] { return WriteFiles(env, temporary, name, contents); });
  if (status.ok()) status = Publish(env, parent, name, temporary);
  if (!status.ok() && env.FileExists(temporary)) {
    DeleteManifestFirst(env, temporary).IgnoreError();
  }
  return status;
}

}  // namespace

absl::Status WriteCheckpoint(Env& env, const std::string& parent,
                             const std::string& name,
                             const CheckpointContents& contents) {
  return WithContext(Write(env, parent.empty() ? "." : parent, name, contents),
                     absl::StrCat("checkpoint ", JoinPath(parent, name)));
}

}  // namespace io
}  // namespace grapnel
