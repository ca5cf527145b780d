// All contact with the file system.

#ifndef GRAPNEL_IO_ENV_H_
#define GRAPNEL_IO_ENV_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace grapnel {
namespace io {

// A file being written. Thread-compatible. Destruction without Close drops what
// was not written; it reports nothing.
class WritableFile {
 public:
  virtual ~WritableFile() = default;

  virtual absl::Status Append(absl::string_view data) = 0;

  // Hands what was appended to the system. Does not survive a power cut.
  virtual absl::Status Flush() = 0;

  // Returns when the file's content is on the disk. A failure is final for this
  // file: write it again under a new name, don't call Sync again.
  virtual absl::Status Sync() = 0;

  // Flushes and closes. No call may follow.
  virtual absl::Status Close() = 0;
};

// A file being read. Safe to use from many threads.
class RandomAccessFile {
 public:
  virtual ~RandomAccessFile() = default;

  virtual int64_t size() const = 0;

  // Reads exactly `n` bytes at `offset` into `buffer`. kDataLoss if the file
  // ends before: it was cut after it was opened.
  virtual absl::Status Read(int64_t offset, int64_t n, char* buffer) const = 0;
};

// A locked file. Gone with this object, or with the process: a killed one
// leaves no lock behind. Thread-compatible.
class FileLock {
 public:
  virtual ~FileLock() = default;

  // Replaces the file's content, which tells others who holds the lock. They
  // read it by ReadFile, and may see it half written.
  virtual absl::Status Write(absl::string_view content) = 0;
};

// The file system, real or not. Safe to use from many threads. Relative paths
// start at the process's working directory.
//
// Codes of all calls, unless they say more: kNotFound, kAlreadyExists (also:
// a directory isn't empty), kPermissionDenied, kResourceExhausted (no space or
// quota left), kInvalidArgument (not a regular file, not a directory, name too
// long), else kUnavailable. The message names the path. Links are followed, but
// DeleteFile and Rename act on the link itself.
class Env {
 public:
  virtual ~Env() = default;

  // The operating system's. Never destroyed.
  static Env& Posix();

  // Makes a new file; an existing one is emptied.
  virtual absl::StatusOr<std::unique_ptr<WritableFile>> NewWritableFile(
      const std::string& path) = 0;

  // Appends to a file, which is made if it isn't there.
  virtual absl::StatusOr<std::unique_ptr<WritableFile>> NewAppendableFile(
      const std::string& path) = 0;

  // Regular files only: never blocks on a pipe or a device.
  virtual absl::StatusOr<std::unique_ptr<RandomAccessFile>> NewRandomAccessFile(
      const std::string& path) = 0;

  virtual bool FileExists(const std::string& path) = 0;  // Or a directory.
  virtual bool IsDirectory(const std::string& path) = 0;
  virtual bool IsSymlink(const std::string& path) = 0;  // Dangling or not.

  // Where relative paths start; "" if they start nowhere in particular.
  virtual absl::StatusOr<std::string> CurrentDir() { return std::string(); }

  // Names in `path`, without "." and "..", sorted.
  virtual absl::StatusOr<std::vector<std::string>> ListDir(
      const std::string& path) = 0;

  // Makes `path` and its missing parents; OK if it is a directory already. What
  // it makes survives a power cut.
  virtual absl::Status CreateDir(const std::string& path) = 0;

  // Makes `path`, whose parent exists. kAlreadyExists if anything is there.
  virtual absl::Status CreateNewDir(const std::string& path) = 0;

  // Renames a file, over an existing one, or a directory, over an empty one
  // (kAlreadyExists if it isn't empty). Atomic.
  virtual absl::Status Rename(const std::string& from,
                              const std::string& to) = 0;

  virtual absl::Status DeleteFile(const std::string& path) = 0;
  virtual absl::Status DeleteDir(const std::string& path) = 0;  // Empty.

  // Makes names added to, renamed in and removed from `path` survive a power
  // cut.
  virtual absl::Status SyncDir(const std::string& path) = 0;

  // Locks a file, which is made if it isn't there and keeps its content. Never
  // waits: kAborted if it is locked already, by another process, on another
  // machine that sees the file too, or by this one, under any path. Unlocking
  // leaves the file. Only the holder may delete it, before unlocking.
  //
  // kUnimplemented if the file system has no locks. A network mount whose locks
  // are this machine's alone (NFS: nolock, local_lock) gives no error, and
  // keeps out only this machine's processes. A child process that is forked and
  // doesn't exec shares the lock, and holds it as long as it lives.
  virtual absl::StatusOr<std::unique_ptr<FileLock>> LockFile(
      const std::string& path) = 0;

  // Free bytes for this user in the file system of `path`.
  virtual absl::StatusOr<int64_t> FreeSpace(const std::string& path) = 0;
};

// Whole files. ReadFile refuses one larger than `limit` bytes, or than memory
// holds, with kResourceExhausted.
absl::StatusOr<std::string> ReadFile(Env& env, const std::string& path,
                                     int64_t limit = int64_t{1} << 30);

// Makes a file, or empties an existing one, and writes `content`, which is on
// the disk when this returns OK. Its name need not be: see SyncDir.
absl::Status WriteFileAndSync(Env& env, const std::string& path,
                              absl::string_view content);

// Replaces `path` as a whole: temporary file, sync, rename, sync of the
// directory. After a failure the old content stands and nothing else is left.
absl::Status WriteFileAtomically(Env& env, const std::string& path,
                                 absl::string_view content);

// Deletes a directory and what is in it. Does not follow links.
absl::Status DeleteRecursively(Env& env, const std::string& path);

// "a" and "b" to "a/b"; an absolute `b` is itself, and so is `b` if `a` is "".
// "." and what it begins with in `b` add nothing: "a" and "./b" are "a/b".
std::string JoinPath(absl::string_view a, absl::string_view b);

// What is before and behind the last "/". "" and "x" for "x".
std::string Dirname(absl::string_view path);
std::string Basename(absl::string_view path);

}  // namespace io
}  // namespace grapnel

#endif  // GRAPNEL_IO_ENV_H_
