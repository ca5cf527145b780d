// A file system that is read and never written: what is written stays in
// memory.

#ifndef GRAPNEL_IO_OVERLAY_ENV_H_
#define GRAPNEL_IO_OVERLAY_ENV_H_

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "grapnel/io/env.h"
#include "grapnel/io/mem_env.h"

namespace grapnel {
namespace io {

// Shows what is in `base`, with what has been written, renamed and deleted
// through this object, of which `base` sees nothing and which goes with it: for
// rehearsals. Paths are compared as they read, "a/../b" being "b". What is
// appended to is copied into memory. Locks are of this object's users alone.
// Safe to use from many threads.
class OverlayEnv : public Env {
 public:
  // `base` outlives this, and this its files and locks.
  explicit OverlayEnv(Env& base);

  absl::StatusOr<std::unique_ptr<WritableFile>> NewWritableFile(
      const std::string& path) override;
  absl::StatusOr<std::unique_ptr<WritableFile>> NewAppendableFile(
      const std::string& path) override;
  absl::StatusOr<std::unique_ptr<RandomAccessFile>> NewRandomAccessFile(
      const std::string& path) override;
  bool FileExists(const std::string& path) override;
  bool IsDirectory(const std::string& path) override;
  bool IsSymlink(const std::string& path) override;
  absl::StatusOr<std::string> CurrentDir() override;
  absl::StatusOr<std::vector<std::string>> ListDir(
      const std::string& path) override;
  absl::Status CreateDir(const std::string& path) override;
  absl::Status CreateNewDir(const std::string& path) override;
  absl::Status Rename(const std::string& from, const std::string& to) override;
  absl::Status DeleteFile(const std::string& path) override;
  absl::Status DeleteDir(const std::string& path) override;
  absl::Status SyncDir(const std::string& path) override;
  absl::StatusOr<std::unique_ptr<FileLock>> LockFile(
      const std::string& path) override;
  absl::StatusOr<int64_t> FreeSpace(const std::string& path) override;

 private:
  // All of these take absolute paths without "." and "..".
  std::string Absolute(const std::string& path);
  // Where base has it; none if it was deleted or renamed.
  std::optional<std::string> BasePath(const std::string& path)
      ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  bool Exists(const std::string& path) ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  bool IsDir(const std::string& path) ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<std::vector<std::string>> List(const std::string& path)
      ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  // That something can be made at `path`: its directory is there, and so in
  // memory.
  absl::Status MakeParent(const std::string& path)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status CopyUp(const std::string& path)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Takes the name away, with all below it.
  void Hide(const std::string& path) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  Env& base_;
  absl::Mutex mutex_;
  MemEnv written_;
  // Where what is at a path, and below it, is in base; none for what is gone.
  // The longest path that fits counts.
  std::map<std::string, std::optional<std::string>> places_
      ABSL_GUARDED_BY(mutex_);
};

}  // namespace io
}  // namespace grapnel

#endif  // GRAPNEL_IO_OVERLAY_ENV_H_
