#include "grapnel/io/mem_env.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "grapnel/base/status_macros.h"

namespace grapnel {
namespace io {
namespace {

constexpr size_t kMaxNameLength = 255;

absl::Status NotFound(const std::string& path) {
  return absl::NotFoundError(absl::StrCat(path, ": no such file or directory"));
}

absl::Status NotADirectory(const std::string& path) {
  return absl::InvalidArgumentError(absl::StrCat(path, ": is not a directory"));
}

absl::Status NotRegular(const std::string& path) {
  return absl::InvalidArgumentError(
      absl::StrCat(path, ": is not a regular file"));
}

absl::Status Exists(const std::string& path) {
  return absl::AlreadyExistsError(absl::StrCat(path, ": exists"));
}

absl::Status NotEmpty(const std::string& path) {
  return absl::AlreadyExistsError(absl::StrCat(path, ": is not empty"));
}

}  // namespace

struct MemEnv::Node {
  explicit Node(bool is_directory) : is_directory(is_directory) {}

  const bool is_directory;
  bool locked = false;
  std::string content;
  std::map<std::string, std::shared_ptr<Node>> children;
};

// Where a path leads: a name in a directory, which may be free.
struct MemEnv::Place {
  std::shared_ptr<Node> parent;  // Null for "/".
  std::string name;
  std::shared_ptr<Node> node;  // Null if there is nothing.
};

class MemEnv::MemWritableFile : public WritableFile {
 public:
  MemWritableFile(MemEnv& env, std::string path, std::shared_ptr<Node> node)
      : env_(env), path_(std::move(path)), node_(std::move(node)) {}

  absl::Status Append(absl::string_view data) override {
    if (node_ == nullptr) {
      return absl::FailedPreconditionError(
          absl::StrCat(path_, ": is closed already"));
    }
    return env_.Append(path_, *node_, data);
  }
  absl::Status Flush() override { return Append(""); }
  absl::Status Sync() override { return Append(""); }
  absl::Status Close() override {
    absl::Status status = Append("");
    node_ = nullptr;
    return status;
  }

 private:
  MemEnv& env_;
  const std::string path_;
  std::shared_ptr<Node> node_;
};

class MemEnv::MemRandomAccessFile : public RandomAccessFile {
 public:
  MemRandomAccessFile(MemEnv& env, std::string path, std::shared_ptr<Node> node,
                      int64_t size)
      : env_(env),
        path_(std::move(path)),
        node_(std::move(node)),
        size_(size) {}

  int64_t size() const override { return size_; }

  absl::Status Read(int64_t offset, int64_t n, char* buffer) const override {
    if (offset < 0 || n < 0) {
      return absl::InvalidArgumentError(
          absl::StrCat(path_, ": cannot read ", n, " bytes at ", offset));
    }
    absl::ReaderMutexLock lock(&env_.mutex_);
    const int64_t size = static_cast<int64_t>(node_->content.size());
    if (n > size - std::min(offset, size)) {
      return absl::DataLossError(absl::StrCat(path_, ": ends at byte ", size,
                                              ", wanted ", n, " at ", offset));
    }
    if (n > 0) std::memcpy(buffer, node_->content.data() + offset, n);
    return absl::OkStatus();
  }

 private:
  MemEnv& env_;
  const std::string path_;
  const std::shared_ptr<Node> node_;
  const int64_t size_;
};

class MemEnv::MemFileLock : public FileLock {
 public:
  MemFileLock(MemEnv& env, std::string path, std::shared_ptr<Node> node)
      : env_(env), path_(std::move(path)), node_(std::move(node)) {}
  ~MemFileLock() override {
    absl::MutexLock lock(&env_.mutex_);
    node_->locked = false;
  }

  absl::Status Write(absl::string_view content) override {
    {
      absl::MutexLock lock(&env_.mutex_);
      node_->content.clear();
    }
    return env_.Append(path_, *node_, content);
  }

 private:
  MemEnv& env_;
  const std::string path_;
  const std::shared_ptr<Node> node_;
};

MemEnv::MemEnv(int64_t capacity)
    : capacity_(capacity), root_(std::make_shared<Node>(true)) {}

MemEnv::~MemEnv() = default;

absl::StatusOr<MemEnv::Place> MemEnv::Find(const std::string& path) const {
  if (path.empty()) return NotFound(path);
  if (path.find('\0') != std::string::npos) {
    return absl::InvalidArgumentError("path: holds a NUL");
  }
  std::vector<Place> stack = {{nullptr, "", root_}};
  for (const absl::string_view name :
       absl::StrSplit(path, '/', absl::SkipEmpty())) {
    const std::shared_ptr<Node> parent = stack.back().node;
    if (parent == nullptr) return NotFound(path);
    if (!parent->is_directory) return NotADirectory(path);
    if (name.size() > kMaxNameLength) {
      return absl::InvalidArgumentError(absl::StrCat(path, ": name too long"));
    }
    if (name == ".") continue;
    if (name == "..") {
      if (stack.size() > 1) stack.pop_back();
      continue;
    }
    const auto it = parent->children.find(std::string(name));
    stack.push_back({parent, std::string(name),
                     it == parent->children.end() ? nullptr : it->second});
  }
  return stack.back();
}

absl::StatusOr<std::unique_ptr<WritableFile>> MemEnv::OpenToWrite(
    const std::string& path, bool truncate) {
  absl::MutexLock lock(&mutex_);
  GRAPNEL_ASSIGN_OR_RETURN(Place place, Find(path));
  if (place.node == nullptr) {
    place.node = std::make_shared<Node>(false);
    place.parent->children[place.name] = place.node;
  } else if (place.node->is_directory) {
    return NotRegular(path);
  } else if (truncate) {
    place.node->content.clear();
  }
  return std::make_unique<MemWritableFile>(*this, path, place.node);
}

absl::StatusOr<std::unique_ptr<WritableFile>> MemEnv::NewWritableFile(
    const std::string& path) {
  return OpenToWrite(path, true);
}

absl::StatusOr<std::unique_ptr<WritableFile>> MemEnv::NewAppendableFile(
    const std::string& path) {
  return OpenToWrite(path, false);
}

absl::StatusOr<std::unique_ptr<RandomAccessFile>> MemEnv::NewRandomAccessFile(
    const std::string& path) {
  absl::ReaderMutexLock lock(&mutex_);
  GRAPNEL_ASSIGN_OR_RETURN(Place place, Find(path));
  if (place.node == nullptr) return NotFound(path);
  if (place.node->is_directory) return NotRegular(path);
  const int64_t size = static_cast<int64_t>(place.node->content.size());
  return std::make_unique<MemRandomAccessFile>(*this, path, place.node, size);
}

bool MemEnv::FileExists(const std::string& path) {
  absl::ReaderMutexLock lock(&mutex_);
  const absl::StatusOr<Place> place = Find(path);
  return place.ok() && place->node != nullptr;
}

bool MemEnv::IsDirectory(const std::string& path) {
  absl::ReaderMutexLock lock(&mutex_);
  const absl::StatusOr<Place> place = Find(path);
  return place.ok() && place->node != nullptr && place->node->is_directory;
}

bool MemEnv::IsSymlink(const std::string& path) { return false; }

absl::StatusOr<std::vector<std::string>> MemEnv::ListDir(
    const std::string& path) {
  absl::ReaderMutexLock lock(&mutex_);
  GRAPNEL_ASSIGN_OR_RETURN(Place place, Find(path));
  if (place.node == nullptr) return NotFound(path);
  if (!place.node->is_directory) return NotADirectory(path);
  std::vector<std::string> names;
  for (const auto& child : place.node->children) names.push_back(child.first);
  return names;
}

absl::Status MemEnv::CreateDir(const std::string& path) {
  if (IsDirectory(path)) return absl::OkStatus();
  const std::string parent = Dirname(path);
  if (!parent.empty() && parent != path) {
    GRAPNEL_RETURN_IF_ERROR(CreateDir(parent));
  }
  const absl::Status status = CreateNewDir(path);
  return IsDirectory(path) ? absl::OkStatus() : status;
}

absl::Status MemEnv::CreateNewDir(const std::string& path) {
  absl::MutexLock lock(&mutex_);
  GRAPNEL_ASSIGN_OR_RETURN(Place place, Find(path));
  if (place.node != nullptr) return Exists(path);
  place.parent->children[place.name] = std::make_shared<Node>(true);
  return absl::OkStatus();
}

absl::Status MemEnv::Rename(const std::string& from, const std::string& to) {
  absl::MutexLock lock(&mutex_);
  GRAPNEL_ASSIGN_OR_RETURN(Place source, Find(from));
  if (source.node == nullptr) return NotFound(from);
  GRAPNEL_ASSIGN_OR_RETURN(Place target, Find(to));
  if (source.node == target.node) return absl::OkStatus();
  if (source.parent == nullptr || target.parent == nullptr) {
    return absl::InvalidArgumentError("/: cannot be renamed");
  }
  if (target.node != nullptr) {
    if (!source.node->is_directory && target.node->is_directory) {
      return NotRegular(to);
    }
    if (source.node->is_directory && !target.node->is_directory) {
      return NotADirectory(to);
    }
    if (!target.node->children.empty()) {
      return absl::AlreadyExistsError(absl::StrCat(from, ": cannot rename to ",
                                                   to, ", which is not empty"));
    }
  }
  if (source.node->is_directory) {  // Into itself?
    std::string above = to;
    while (!above.empty() && above != "/") {
      const absl::StatusOr<Place> place = Find(above);
      if (place.ok() && place->node == source.node) {
        return absl::InvalidArgumentError(
            absl::StrCat(from, ": cannot be moved into itself, ", to));
      }
      above = Dirname(above);
    }
  }
  source.parent->children.erase(source.name);
  target.parent->children[target.name] = source.node;
  return absl::OkStatus();
}

absl::Status MemEnv::DeleteFile(const std::string& path) {
  absl::MutexLock lock(&mutex_);
  GRAPNEL_ASSIGN_OR_RETURN(Place place, Find(path));
  if (place.node == nullptr) return NotFound(path);
  if (place.node->is_directory) return NotRegular(path);
  place.parent->children.erase(place.name);
  return absl::OkStatus();
}

absl::Status MemEnv::DeleteDir(const std::string& path) {
  absl::MutexLock lock(&mutex_);
  GRAPNEL_ASSIGN_OR_RETURN(Place place, Find(path));
  if (place.node == nullptr) return NotFound(path);
  if (!place.node->is_directory) return NotADirectory(path);
  if (!place.node->children.empty()) return NotEmpty(path);
  if (place.parent == nullptr) {
    return absl::InvalidArgumentError("/: cannot be deleted");
  }
  place.parent->children.erase(place.name);
  return absl::OkStatus();
}

absl::Status MemEnv::SyncDir(const std::string& path) {
  return ListDir(path).status();
}

absl::StatusOr<std::unique_ptr<FileLock>> MemEnv::LockFile(
    const std::string& path) {
  absl::MutexLock lock(&mutex_);
  GRAPNEL_ASSIGN_OR_RETURN(Place place, Find(path));
  if (place.node == nullptr) {
    place.node = std::make_shared<Node>(false);
    place.parent->children[place.name] = place.node;
  } else if (place.node->is_directory) {
    return NotRegular(path);
  } else if (place.node->locked) {
    return absl::AbortedError(absl::StrCat(path, ": is locked"));
  }
  place.node->locked = true;
  return std::make_unique<MemFileLock>(*this, path, place.node);
}

absl::StatusOr<int64_t> MemEnv::FreeSpace(const std::string& path) {
  absl::ReaderMutexLock lock(&mutex_);
  GRAPNEL_ASSIGN_OR_RETURN(Place place, Find(path));
  if (place.node == nullptr) return NotFound(path);
  return Free();
}

absl::Status MemEnv::Append(const std::string& path, Node& node,
                            absl::string_view data) {
  absl::MutexLock lock(&mutex_);
  const size_t fits = static_cast<size_t>(
      std::min<int64_t>(Free(), static_cast<int64_t>(data.size())));
  node.content.append(data.data(), fits);
  if (fits == data.size()) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat(path, ": cannot write: no space left on device"));
}

int64_t MemEnv::Free() const {
  if (capacity_ == std::numeric_limits<int64_t>::max()) return capacity_;
  int64_t free = capacity_;
  std::vector<const Node*> pending = {root_.get()};
  while (!pending.empty()) {
    const Node* const node = pending.back();
    pending.pop_back();
    free -= static_cast<int64_t>(node->content.size());
    for (const auto& child : node->children) {
      pending.push_back(child.second.get());
    }
  }
  return std::max<int64_t>(free, 0);
}

}  // namespace io
}  // namespace grapnel
