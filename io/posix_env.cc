#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <memory>
#include <system_error>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/io/env.h"

namespace grapnel {
namespace io {
namespace {

constexpr size_t kBufferSize = 64 << 10;
// The kernel starts writing back this much at a time, instead of all of it at
// the end: a third off the time of a large file.
constexpr int64_t kWritebackStep = 8 << 20;
constexpr int64_t kMaxReadSize = 1 << 30;

absl::StatusCode CodeOfErrno(int error) {
  switch (error) {
    case ENOENT:
      return absl::StatusCode::kNotFound;
    case EEXIST:
    case ENOTEMPTY:
      return absl::StatusCode::kAlreadyExists;
    case EACCES:
    case EPERM:
    case EROFS:
      return absl::StatusCode::kPermissionDenied;
    case ENOSPC:
    case EDQUOT:
      return absl::StatusCode::kResourceExhausted;
    case EINVAL:
    case EISDIR:
    case ELOOP:
    case ENAMETOOLONG:
    case ENOTDIR:
    case ENXIO:  // Opened a pipe to write that nobody reads.
      return absl::StatusCode::kInvalidArgument;
    default:
      return absl::StatusCode::kUnavailable;
  }
}

// "<path>: <what>: no space left on device".
absl::Status ErrnoStatus(const std::string& path, const char* what, int error) {
  std::string reason = std::generic_category().message(error);
  if (!reason.empty()) reason[0] = absl::ascii_tolower(reason[0]);
  return absl::Status(CodeOfErrno(error),
                      absl::StrCat(path, ": ", what, ": ", reason));
}

absl::Status NotRegular(const std::string& path) {
  return absl::InvalidArgumentError(
      absl::StrCat(path, ": is not a regular file"));
}

// A NUL would silently end the name early.
absl::Status CheckPath(const std::string& path) {
  if (path.find('\0') == std::string::npos) return absl::OkStatus();
  return absl::InvalidArgumentError("path: holds a NUL");
}

// A file descriptor, closed at the end.
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(other.Release()) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }

  int get() const { return fd_; }
  int Release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

// Opens a regular file. O_NONBLOCK: a pipe without a peer must not hang us; it
// means nothing for what is left.
absl::StatusOr<Descriptor> OpenRegular(const std::string& path, int flags,
                                       int64_t* size) {
  GRAPNEL_RETURN_IF_ERROR(CheckPath(path));
  int fd;
  do {
    fd = ::open(path.c_str(), flags | O_NONBLOCK | O_CLOEXEC | O_NOCTTY, 0666);
  } while (fd < 0 && errno == EINTR);
  if (fd < 0) return ErrnoStatus(path, "cannot open", errno);
  Descriptor descriptor(fd);
  struct stat info;
  if (::fstat(fd, &info) != 0) return ErrnoStatus(path, "cannot stat", errno);
  if (!S_ISREG(info.st_mode)) return NotRegular(path);
  *size = info.st_size;
  return descriptor;
}

class PosixWritableFile : public WritableFile {
 public:
  PosixWritableFile(std::string path, Descriptor fd, int64_t size)
      : path_(std::move(path)),
        fd_(std::move(fd)),
        written_(size),
        writeback_(size) {
    buffer_.reserve(kBufferSize);
  }

  absl::Status Append(absl::string_view data) override {
    GRAPNEL_RETURN_IF_ERROR(status_);
    if (buffer_.size() + data.size() > kBufferSize) {
      GRAPNEL_RETURN_IF_ERROR(Flush());
    }
    if (data.size() >= kBufferSize) return Write(data);
    buffer_.append(data.data(), data.size());
    return absl::OkStatus();
  }

  absl::Status Flush() override {
    GRAPNEL_RETURN_IF_ERROR(status_);
    GRAPNEL_RETURN_IF_ERROR(Write(buffer_));
    buffer_.clear();
    return absl::OkStatus();
  }

  absl::Status Sync() override {
    GRAPNEL_RETURN_IF_ERROR(Flush());
    // After a failed fsync the pages count as clean: a second one would lie.
    if (::fsync(fd_.get()) != 0) {
      status_ = ErrnoStatus(path_, "cannot sync", errno);
    }
    return status_;
  }

  absl::Status Close() override {
    absl::Status status = Flush();
    // Not again on EINTR: Linux has closed it then.
    if (::close(fd_.Release()) != 0 && errno != EINTR && status.ok()) {
      status = ErrnoStatus(path_, "cannot close", errno);
    }
    status_ = absl::FailedPreconditionError(
        absl::StrCat(path_, ": is closed already"));
    return status;
  }

 private:
  absl::Status Write(absl::string_view data) {
    while (!data.empty()) {
      const ssize_t n = ::write(fd_.get(), data.data(), data.size());
      if (n < 0) {
        if (errno == EINTR) continue;
        return status_ = ErrnoStatus(path_, "cannot write", errno);
      }
      data.remove_prefix(static_cast<size_t>(n));
      written_ += n;
    }
    if (written_ - writeback_ >= kWritebackStep) {
      // A hint; fsync reports what goes wrong.
      ::sync_file_range(fd_.get(), writeback_, written_ - writeback_,
                        SYNC_FILE_RANGE_WRITE);
      writeback_ = written_;
    }
    return absl::OkStatus();
  }

  const std::string path_;
  Descriptor fd_;
  std::string buffer_;
  int64_t written_;
  int64_t writeback_;    // Of `written_`, handed to the disk.
  absl::Status status_;  // The first error; nothing works after it.
};

class PosixRandomAccessFile : public RandomAccessFile {
 public:
  PosixRandomAccessFile(std::string path, Descriptor fd, int64_t size)
      : path_(std::move(path)), fd_(std::move(fd)), size_(size) {}

  int64_t size() const override { return size_; }

  absl::Status Read(int64_t offset, int64_t n, char* buffer) const override {
    if (offset < 0 || n < 0 ||
        offset > std::numeric_limits<int64_t>::max() - n) {
      return absl::InvalidArgumentError(
          absl::StrCat(path_, ": cannot read ", n, " bytes at ", offset));
    }
    while (n > 0) {
      const ssize_t got =
          ::pread(fd_.get(), buffer,
                  static_cast<size_t>(std::min(n, kMaxReadSize)), offset);
      if (got < 0) {
        if (errno == EINTR) continue;
        return ErrnoStatus(path_, "cannot read", errno);
      }
      if (got == 0) {
        return absl::DataLossError(absl::StrCat(
            path_, ": ends at byte ", offset, ", wanted ", n, " more"));
      }
      offset += got;
      n -= got;
      buffer += got;
    }
    return absl::OkStatus();
  }

 private:
  const std::string path_;
  const Descriptor fd_;
  const int64_t size_;
};

// The byte that is locked, far behind what a lock file says: on some file
// systems nobody else can read what is locked.
constexpr off_t kLockedByte = off_t{1} << 40;

// A lock of the open file and not of the process (F_OFD_SETLK): it holds
// against this process too, and outlives the closing of another descriptor of
// the file, which ends a lock of fcntl's older kind.
class PosixFileLock : public FileLock {
 public:
  PosixFileLock(std::string path, Descriptor fd)
      : path_(std::move(path)), fd_(std::move(fd)) {}

  absl::Status Write(absl::string_view content) override {
    const size_t size = content.size();
    for (off_t offset = 0; !content.empty();) {
      const ssize_t n =
          ::pwrite(fd_.get(), content.data(), content.size(), offset);
      if (n < 0) {
        if (errno == EINTR) continue;
        return ErrnoStatus(path_, "cannot write", errno);
      }
      offset += n;
      content.remove_prefix(static_cast<size_t>(n));
    }
    if (::ftruncate(fd_.get(), static_cast<off_t>(size)) != 0) {
      return ErrnoStatus(path_, "cannot truncate", errno);
    }
    // For readers on other machines.
    if (::fsync(fd_.get()) != 0)
      return ErrnoStatus(path_, "cannot sync", errno);
    return absl::OkStatus();
  }

 private:
  const std::string path_;
  const Descriptor fd_;
};

class PosixEnv : public Env {
 public:
  absl::StatusOr<std::unique_ptr<WritableFile>> NewWritableFile(
      const std::string& path) override {
    return OpenToWrite(path, O_TRUNC);
  }

  absl::StatusOr<std::unique_ptr<WritableFile>> NewAppendableFile(
      const std::string& path) override {
    return OpenToWrite(path, O_APPEND);
  }

  absl::StatusOr<std::unique_ptr<RandomAccessFile>> NewRandomAccessFile(
      const std::string& path) override {
    int64_t size;
    GRAPNEL_ASSIGN_OR_RETURN(Descriptor fd, OpenRegular(path, O_RDONLY, &size));
    return std::make_unique<PosixRandomAccessFile>(path, std::move(fd), size);
  }

  bool FileExists(const std::string& path) override {
    struct stat info;
    return CheckPath(path).ok() && ::stat(path.c_str(), &info) == 0;
  }

  bool IsDirectory(const std::string& path) override {
    struct stat info;
    return CheckPath(path).ok() && ::stat(path.c_str(), &info) == 0 &&
           S_ISDIR(info.st_mode);
  }

  absl::StatusOr<std::string> CurrentDir() override {
    const std::unique_ptr<char, decltype(&::free)> dir(::getcwd(nullptr, 0),
                                                       &::free);
    if (dir == nullptr)
      return ErrnoStatus("the current directory", "is not known", errno);
    return std::string(dir.get());
  }

  bool IsSymlink(const std::string& path) override {
    struct stat info;
    return CheckPath(path).ok() && ::lstat(path.c_str(), &info) == 0 &&
           S_ISLNK(info.st_mode);
  }

  absl::StatusOr<std::vector<std::string>> ListDir(
      const std::string& path) override {
    GRAPNEL_RETURN_IF_ERROR(CheckPath(path));
    DIR* const dir = ::opendir(path.c_str());
    if (dir == nullptr) return ErrnoStatus(path, "cannot list", errno);
    std::vector<std::string> names;
    errno = 0;
    while (const dirent* entry = ::readdir(dir)) {
      const absl::string_view name = entry->d_name;
      if (name != "." && name != "..") names.emplace_back(name);
      errno = 0;
    }
    const int error = errno;
    ::closedir(dir);
    if (error != 0) return ErrnoStatus(path, "cannot list", error);
    std::sort(names.begin(), names.end());
    return names;
  }

  absl::Status CreateDir(const std::string& path) override {
    if (IsDirectory(path)) return absl::OkStatus();
    const std::string parent = Dirname(path);
    if (!parent.empty() && parent != path) {
      GRAPNEL_RETURN_IF_ERROR(CreateDir(parent));
    }
    if (Basename(path).empty()) return absl::OkStatus();  // "a/": made above.
    const absl::Status status = CreateNewDir(path);
    // Another process may have been faster.
    if (!status.ok() && !IsDirectory(path)) return status;
    return SyncDir(parent.empty() ? "." : parent);
  }

  absl::Status CreateNewDir(const std::string& path) override {
    GRAPNEL_RETURN_IF_ERROR(CheckPath(path));
    if (::mkdir(path.c_str(), 0777) == 0) return absl::OkStatus();
    return ErrnoStatus(path, "cannot make directory", errno);
  }

  absl::Status Rename(const std::string& from, const std::string& to) override {
    GRAPNEL_RETURN_IF_ERROR(CheckPath(from));
    GRAPNEL_RETURN_IF_ERROR(CheckPath(to));
    if (::rename(from.c_str(), to.c_str()) == 0) return absl::OkStatus();
    const int error = errno;
    return ErrnoStatus(from, absl::StrCat("cannot rename to ", to).c_str(),
                       error);
  }

  absl::Status DeleteFile(const std::string& path) override {
    GRAPNEL_RETURN_IF_ERROR(CheckPath(path));
    if (::unlink(path.c_str()) == 0) return absl::OkStatus();
    return ErrnoStatus(path, "cannot delete", errno);
  }

  absl::Status DeleteDir(const std::string& path) override {
    GRAPNEL_RETURN_IF_ERROR(CheckPath(path));
    if (::rmdir(path.c_str()) == 0) return absl::OkStatus();
    return ErrnoStatus(path, "cannot delete directory", errno);
  }

  absl::Status SyncDir(const std::string& path) override {
    GRAPNEL_RETURN_IF_ERROR(CheckPath(path));
    const Descriptor fd(
        ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (fd.get() < 0) return ErrnoStatus(path, "cannot open", errno);
    // Some network file systems have no such thing and say so.
    if (::fsync(fd.get()) == 0 || errno == EINVAL || errno == ENOTSUP) {
      return absl::OkStatus();
    }
    return ErrnoStatus(path, "cannot sync directory", errno);
  }

  absl::StatusOr<std::unique_ptr<FileLock>> LockFile(
      const std::string& path) override {
    while (true) {
      int64_t size;
      GRAPNEL_ASSIGN_OR_RETURN(Descriptor fd,
                               OpenRegular(path, O_RDWR | O_CREAT, &size));
      struct flock lock = {};
      lock.l_type = F_WRLCK;
      lock.l_whence = SEEK_SET;
      lock.l_start = kLockedByte;
      lock.l_len = 1;
      int result;
      do {
        result = ::fcntl(fd.get(), F_OFD_SETLK, &lock);
      } while (result != 0 && errno == EINTR);
      if (result != 0) {
        if (errno == EAGAIN || errno == EACCES) {
          return absl::AbortedError(absl::StrCat(path, ": is locked"));
        }
        absl::Status status = ErrnoStatus(path, "cannot lock", errno);
        if (errno == ENOLCK || errno == ENOSYS || errno == ENOTSUP ||
            errno == EINVAL) {
          status = absl::UnimplementedError(status.message());
        }
        return status;
      }
      // Who had it may have deleted it in the meantime.
      struct stat opened, named;
      if (::fstat(fd.get(), &opened) != 0) {
        return ErrnoStatus(path, "cannot stat", errno);
      }
      if (::stat(path.c_str(), &named) == 0 && opened.st_dev == named.st_dev &&
          opened.st_ino == named.st_ino) {
        return std::make_unique<PosixFileLock>(path, std::move(fd));
      }
    }
  }

  absl::StatusOr<int64_t> FreeSpace(const std::string& path) override {
    GRAPNEL_RETURN_IF_ERROR(CheckPath(path));
    struct statvfs info;
    if (::statvfs(path.c_str(), &info) != 0) {
      return ErrnoStatus(path, "cannot ask for free space", errno);
    }
    const uint64_t unit = info.f_frsize;
    constexpr uint64_t kMax = std::numeric_limits<int64_t>::max();
    if (unit != 0 && info.f_bavail > kMax / unit) {
      return static_cast<int64_t>(kMax);
    }
    return static_cast<int64_t>(info.f_bavail * unit);
  }

 private:
  absl::StatusOr<std::unique_ptr<WritableFile>> OpenToWrite(
      const std::string& path, int flag) {
    int64_t size;
    GRAPNEL_ASSIGN_OR_RETURN(
        Descriptor fd, OpenRegular(path, O_WRONLY | O_CREAT | flag, &size));
    return std::make_unique<PosixWritableFile>(path, std::move(fd), size);
  }
};

}  // namespace

Env& Env::Posix() {
  static PosixEnv* const env = new PosixEnv;
  return *env;
}

}  // namespace io
}  // namespace grapnel
