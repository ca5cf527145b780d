#include "grapnel/io/checkpoint_files.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "grapnel/base/status_macros.h"
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

std::string CopyPath(absl::string_view path, absl::string_view ending) {
  while (path.size() > 1 && absl::ConsumeSuffix(&path, "/")) {
  }
  return absl::StrCat(path, ending);
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

absl::Status AsDataLoss(absl::Status status) {
  if (!absl::IsNotFound(status) && !absl::IsInvalidArgument(status)) {
    return status;
  }
  return absl::DataLossError(status.message());
}

}  // namespace io
}  // namespace grapnel
