#include "grapnel/io/env.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/io/out_of_memory.h"
#include "grapnel/io/unique_name.h"

namespace grapnel {
namespace io {

absl::StatusOr<std::string> ReadFile(Env& env, const std::string& path,
                                     int64_t limit) {
  GRAPNEL_ASSIGN_OR_RETURN(std::unique_ptr<RandomAccessFile> file,
                           env.NewRandomAccessFile(path));
  if (file->size() > limit) {
    return absl::ResourceExhaustedError(absl::StrCat(
        path, ": has ", file->size(), " bytes, more than ", limit));
  }
  return CatchOutOfMemory(path, [&]() -> absl::StatusOr<std::string> {
    std::string content(static_cast<size_t>(file->size()), '\0');
    GRAPNEL_RETURN_IF_ERROR(file->Read(0, file->size(), &content[0]));
    return content;
  });
}

absl::Status WriteFileAndSync(Env& env, const std::string& path,
                              absl::string_view content) {
  GRAPNEL_ASSIGN_OR_RETURN(std::unique_ptr<WritableFile> file,
                           env.NewWritableFile(path));
  GRAPNEL_RETURN_IF_ERROR(file->Append(content));
  GRAPNEL_RETURN_IF_ERROR(file->Sync());
  return file->Close();
}

absl::Status WriteFileAtomically(Env& env, const std::string& path,
                                 absl::string_view content) {
  const std::string dir = Dirname(path);
  const std::string temporary =
      JoinPath(dir, HiddenName(kTemporary, Basename(path)));
  absl::Status status = WriteFileAndSync(env, temporary, content);
  if (status.ok()) status = env.Rename(temporary, path);
  if (!status.ok()) {
    env.DeleteFile(temporary).IgnoreError();  // The first error is the cause.
    return status;
  }
  return env.SyncDir(dir.empty() ? "." : dir);
}

absl::Status DeleteRecursively(Env& env, const std::string& path) {
  // Unlinking is tried first because it never follows a link.
  absl::Status status = env.DeleteFile(path);
  if (status.ok() || !env.IsDirectory(path) || env.IsSymlink(path)) {
    return status;
  }
  GRAPNEL_ASSIGN_OR_RETURN(const std::vector<std::string> names,
                           env.ListDir(path));
  for (const std::string& name : names) {
    GRAPNEL_RETURN_IF_ERROR(DeleteRecursively(env, JoinPath(path, name)));
  }
  return env.DeleteDir(path);
}

std::string JoinPath(absl::string_view a, absl::string_view b) {
  if (a.empty() || absl::StartsWith(b, "/")) return std::string(b);
  while (absl::ConsumePrefix(&b, "./")) {
    while (absl::ConsumePrefix(&b, "/")) {
    }
  }
  if (b == ".") b = "";
  if (b.empty()) return std::string(a);
  return absl::StrCat(a, absl::EndsWith(a, "/") ? "" : "/", b);
}

std::string Dirname(absl::string_view path) {
  const size_t slash = path.rfind('/');
  if (slash == absl::string_view::npos) return "";
  return std::string(path.substr(0, slash == 0 ? 1 : slash));
}

std::string Basename(absl::string_view path) {
  const size_t slash = path.rfind('/');
  return std::string(slash == absl::string_view::npos ? path
                                                      : path.substr(slash + 1));
}

}  // namespace io
}  // namespace grapnel
