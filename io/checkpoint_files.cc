#include "grapnel/io/checkpoint_files.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "grapnel/io/checkpoint_manifest.pb.h"

namespace grapnel {
namespace io {

absl::Status DeleteManifestFirst(Env& env, const std::string& path) {
  if (env.IsDirectory(path) && !env.IsSymlink(path)) {
    const absl::Status status = env.DeleteFile(JoinPath(path, kManifestFile));
    if (!status.ok() && !absl::IsNotFound(status)) return status;
  }
  return DeleteRecursively(env, path);
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

absl::Status AsDataLoss(absl::Status status) {
  if (!absl::IsNotFound(status) && !absl::IsInvalidArgument(status)) {
    return status;
  }
  return absl::DataLossError(status.message());
}

}  // namespace io
}  // namespace grapnel
