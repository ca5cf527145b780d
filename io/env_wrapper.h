// An Env that passes everything on to another one: a base for those that change
// some of it.

#ifndef GRAPNEL_IO_ENV_WRAPPER_H_
#define GRAPNEL_IO_ENV_WRAPPER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "grapnel/io/env.h"

namespace grapnel {
namespace io {

// A subclass overrides the calls that it changes. Each call goes to the target
// by itself: CreateDir doesn't call an overridden CreateNewDir. Safe to use
// from many threads.
class EnvWrapper : public Env {
 public:
  // `target` outlives this.
  explicit EnvWrapper(Env& target) : target_(target) {}
  EnvWrapper(const EnvWrapper&) = delete;
  EnvWrapper& operator=(const EnvWrapper&) = delete;

  absl::StatusOr<std::unique_ptr<WritableFile>> NewWritableFile(
      const std::string& path) override {
    return target_.NewWritableFile(path);
  }
  absl::StatusOr<std::unique_ptr<WritableFile>> NewAppendableFile(
      const std::string& path) override {
    return target_.NewAppendableFile(path);
  }
  absl::StatusOr<std::unique_ptr<RandomAccessFile>> NewRandomAccessFile(
      const std::string& path) override {
    return target_.NewRandomAccessFile(path);
  }
  bool FileExists(const std::string& path) override {
    return target_.FileExists(path);
  }
  bool IsDirectory(const std::string& path) override {
    return target_.IsDirectory(path);
  }
  bool IsSymlink(const std::string& path) override {
    return target_.IsSymlink(path);
  }
  absl::StatusOr<std::string> CurrentDir() override {
    return target_.CurrentDir();
  }
  absl::StatusOr<std::vector<std::string>> ListDir(
      const std::string& path) override {
    return target_.ListDir(path);
  }
  absl::Status CreateDir(const std::string& path) override {
    return target_.CreateDir(path);
  }
  absl::Status CreateNewDir(const std::string& path) override {
    return target_.CreateNewDir(path);
  }
  absl::Status Rename(const std::string& from, const std::string& to) override {
    return target_.Rename(from, to);
  }
  absl::Status DeleteFile(const std::string& path) override {
    return target_.DeleteFile(path);
  }
  absl::Status DeleteDir(const std::string& path) override {
    return target_.DeleteDir(path);
  }
  absl::Status SyncDir(const std::string& path) override {
    return target_.SyncDir(path);
  }
  absl::StatusOr<std::unique_ptr<FileLock>> LockFile(
      const std::string& path) override {
    return target_.LockFile(path);
  }
  absl::StatusOr<int64_t> FreeSpace(const std::string& path) override {
    return target_.FreeSpace(path);
  }

 protected:
  Env& target() { return target_; }

 private:
  Env& target_;
};

}  // namespace io
}  // namespace grapnel

#endif  // GRAPNEL_IO_ENV_WRAPPER_H_
