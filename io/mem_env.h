// A file system in memory: for tests, and for checkpoints that are only passed
// on, to an upload for example.

#ifndef GRAPNEL_IO_MEM_ENV_H_
#define GRAPNEL_IO_MEM_ENV_H_

#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "grapnel/io/env.h"

namespace grapnel {
namespace io {

// Begins with the one directory "/", where relative paths start too. Behaves as
// the operating system's does, with the same codes, but has no links. Outlives
// the files that it opened, and its locks. Safe to use from many threads.
class MemEnv : public Env {
 public:
  // Holds at most `capacity` bytes of content; a write beyond that writes what
  // fits and fails with kResourceExhausted.
  explicit MemEnv(int64_t capacity = std::numeric_limits<int64_t>::max());
  ~MemEnv() override;

  absl::StatusOr<std::unique_ptr<WritableFile>> NewWritableFile(
      const std::string& path) override;
  absl::StatusOr<std::unique_ptr<WritableFile>> NewAppendableFile(
      const std::string& path) override;
  absl::StatusOr<std::unique_ptr<RandomAccessFile>> NewRandomAccessFile(
      const std::string& path) override;
  bool FileExists(const std::string& path) override;
  bool IsDirectory(const std::string& path) override;
  bool IsSymlink(const std::string& path) override;
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
  struct Node;
  struct Place;
  class MemWritableFile;
  class MemRandomAccessFile;
  class MemFileLock;

  absl::StatusOr<Place> Find(const std::string& path) const
      ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<std::unique_ptr<WritableFile>> OpenToWrite(
      const std::string& path, bool truncate);
  absl::Status Append(const std::string& path, Node& node,
                      absl::string_view data);
  int64_t Free() const ABSL_SHARED_LOCKS_REQUIRED(mutex_);

  const int64_t capacity_;
  mutable absl::Mutex mutex_;
  const std::shared_ptr<Node> root_;
};

}  // namespace io
}  // namespace grapnel

#endif  // GRAPNEL_IO_MEM_ENV_H_
