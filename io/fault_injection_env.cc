#include "grapnel/io/fault_injection_env.h"

#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "grapnel/base/status_macros.h"

namespace grapnel {
namespace io {

// A file or directory: as the program sees it, and as it is on the disk.
struct FaultInjectionEnv::Node {
  explicit Node(bool is_directory) : is_directory(is_directory) {}

  using Children = std::map<std::string, std::shared_ptr<Node>>;

  const bool is_directory;
  std::string content;
  std::string synced_content;
  Children children;
  Children synced_children;
};

class FaultInjectionEnv::FaultWritableFile : public WritableFile {
 public:
  FaultWritableFile(FaultInjectionEnv& env, std::string path,
                    std::unique_ptr<WritableFile> base,
                    std::shared_ptr<Node> node, int crashes)
      : env_(env),
        path_(std::move(path)),
        base_(std::move(base)),
        node_(std::move(node)),
        crashes_(crashes) {}

  absl::Status Append(absl::string_view data) override {
    absl::Status status = Begin("append");
    if (!status.ok()) {
      bool write_half;
      {
        absl::MutexLock lock(&env_.mutex_);
        write_half = env_.short_writes_ && crashes_ == env_.crashes_;
      }
      if (write_half) {
        Write(data.substr(0, data.size() / 2)).IgnoreError();
        base_->Flush().IgnoreError();
      }
      return status;
    }
    return Write(data);
  }

  absl::Status Flush() override {
    GRAPNEL_RETURN_IF_ERROR(Begin("flush"));
    return base_->Flush();
  }

  absl::Status Sync() override {
    GRAPNEL_RETURN_IF_ERROR(Begin("sync"));
    GRAPNEL_RETURN_IF_ERROR(base_->Sync());
    absl::MutexLock lock(&env_.mutex_);
    if (node_ != nullptr) node_->synced_content = node_->content;
    return absl::OkStatus();
  }

  absl::Status Close() override {
    absl::Status status = Begin("close");
    // Closed in any case: what runs after a failure must not run out of files.
    const absl::Status closed = base_->Close();
    return status.ok() ? closed : status;
  }

 private:
  absl::Status Begin(const char* what) {
    {
      absl::MutexLock lock(&env_.mutex_);
      if (crashes_ != env_.crashes_) {
        return absl::UnavailableError(
            absl::StrCat(path_, ": was open when the power went out"));
      }
    }
    return env_.Begin(absl::StrCat(what, " ", path_));
  }

  absl::Status Write(absl::string_view data) {
    GRAPNEL_RETURN_IF_ERROR(base_->Append(data));
    absl::MutexLock lock(&env_.mutex_);
    if (node_ != nullptr) node_->content.append(data.data(), data.size());
    return absl::OkStatus();
  }

  FaultInjectionEnv& env_;
  const std::string path_;
  const std::unique_ptr<WritableFile> base_;
  const std::shared_ptr<Node> node_;  // Null outside of the root.
  const int crashes_;
};

class FaultInjectionEnv::FaultFileLock : public FileLock {
 public:
  FaultFileLock(FaultInjectionEnv& env, std::string path,
                std::unique_ptr<FileLock> base, std::shared_ptr<Node> node)
      : env_(env),
        path_(std::move(path)),
        base_(std::move(base)),
        node_(std::move(node)) {}

  absl::Status Write(absl::string_view content) override {
    GRAPNEL_RETURN_IF_ERROR(env_.Begin(absl::StrCat("write ", path_)));
    GRAPNEL_RETURN_IF_ERROR(base_->Write(content));
    absl::MutexLock lock(&env_.mutex_);
    if (node_ != nullptr) {
      node_->content = std::string(content);
      node_->synced_content = node_->content;
    }
    return absl::OkStatus();
  }

 private:
  FaultInjectionEnv& env_;
  const std::string path_;
  const std::unique_ptr<FileLock> base_;
  const std::shared_ptr<Node> node_;  // Null outside of the root.
};

FaultInjectionEnv::FaultInjectionEnv(Env& base, const std::string& root)
    : EnvWrapper(base), root_path_(absl::StripSuffix(root, "/")) {
  absl::StatusOr<std::shared_ptr<Node>> loaded = Load(root);
  absl::MutexLock lock(&mutex_);
  load_status_ = loaded.status();
  root_ = loaded.ok() ? *std::move(loaded) : std::make_shared<Node>(true);
}

FaultInjectionEnv::~FaultInjectionEnv() = default;

void FaultInjectionEnv::FailOperation(int64_t n, absl::Status status,
                                      Times times) {
  absl::MutexLock lock(&mutex_);
  fail_at_ = static_cast<int64_t>(operations_.size()) + n;
  fail_status_ = std::move(status);
  fail_times_ = times;
}

void FaultInjectionEnv::StopFailing() {
  absl::MutexLock lock(&mutex_);
  fail_at_ = -1;
}

void FaultInjectionEnv::set_short_writes(bool on) {
  absl::MutexLock lock(&mutex_);
  short_writes_ = on;
}

std::vector<std::string> FaultInjectionEnv::operations() const {
  absl::MutexLock lock(&mutex_);
  return operations_;
}

absl::Status FaultInjectionEnv::Crash(Names names) {
  absl::MutexLock lock(&mutex_);
  GRAPNEL_RETURN_IF_ERROR(load_status_);
  ++crashes_;
  fail_at_ = -1;
  short_writes_ = false;
  const std::string root = root_path_.empty() ? "/" : root_path_;
  GRAPNEL_ASSIGN_OR_RETURN(const std::vector<std::string> entries,
                           target().ListDir(root));
  for (const std::string& name : entries) {
    GRAPNEL_RETURN_IF_ERROR(DeleteRecursively(target(), JoinPath(root, name)));
  }
  GRAPNEL_RETURN_IF_ERROR(Store(root, *root_, names));
  GRAPNEL_ASSIGN_OR_RETURN(root_, Load(root));
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<WritableFile>>
FaultInjectionEnv::NewWritableFile(const std::string& path) {
  return OpenToWrite(path, true);
}

absl::StatusOr<std::unique_ptr<WritableFile>>
FaultInjectionEnv::NewAppendableFile(const std::string& path) {
  return OpenToWrite(path, false);
}

absl::Status FaultInjectionEnv::CreateDir(const std::string& path) {
  if (target().IsDirectory(path)) return absl::OkStatus();
  const std::string parent = Dirname(path);
  if (!parent.empty() && parent != path) {
    GRAPNEL_RETURN_IF_ERROR(CreateDir(parent));
  }
  if (Basename(path).empty()) return absl::OkStatus();
  GRAPNEL_RETURN_IF_ERROR(CreateNewDir(path));
  absl::MutexLock lock(&mutex_);
  if (const std::shared_ptr<Node> node = Parent(path)) {
    node->synced_children[Basename(path)] = Find(path);
  }
  return absl::OkStatus();
}

absl::Status FaultInjectionEnv::CreateNewDir(const std::string& path) {
  GRAPNEL_RETURN_IF_ERROR(Begin(absl::StrCat("mkdir ", path)));
  GRAPNEL_RETURN_IF_ERROR(target().CreateNewDir(path));
  absl::MutexLock lock(&mutex_);
  if (const std::shared_ptr<Node> parent = Parent(path)) {
    parent->children[Basename(path)] = std::make_shared<Node>(true);
  }
  return absl::OkStatus();
}

absl::Status FaultInjectionEnv::Rename(const std::string& from,
                                       const std::string& to) {
  GRAPNEL_RETURN_IF_ERROR(Begin(absl::StrCat("rename ", from, " -> ", to)));
  GRAPNEL_RETURN_IF_ERROR(target().Rename(from, to));
  absl::MutexLock lock(&mutex_);
  const std::shared_ptr<Node> node = Find(from);
  if (const std::shared_ptr<Node> parent = Parent(from)) {
    parent->children.erase(Basename(from));
  }
  if (const std::shared_ptr<Node> parent = Parent(to)) {
    parent->children[Basename(to)] = node;
  }
  return absl::OkStatus();
}

absl::Status FaultInjectionEnv::DeleteFile(const std::string& path) {
  // DeleteRecursively asks to unlink directories too; that changes nothing.
  if (target().IsDirectory(path) && !target().IsSymlink(path)) {
    return target().DeleteFile(path);
  }
  GRAPNEL_RETURN_IF_ERROR(Begin(absl::StrCat("unlink ", path)));
  GRAPNEL_RETURN_IF_ERROR(target().DeleteFile(path));
  Forget(path);
  return absl::OkStatus();
}

absl::Status FaultInjectionEnv::DeleteDir(const std::string& path) {
  GRAPNEL_RETURN_IF_ERROR(Begin(absl::StrCat("rmdir ", path)));
  GRAPNEL_RETURN_IF_ERROR(target().DeleteDir(path));
  Forget(path);
  return absl::OkStatus();
}

absl::Status FaultInjectionEnv::SyncDir(const std::string& path) {
  GRAPNEL_RETURN_IF_ERROR(Begin(absl::StrCat("syncdir ", path)));
  GRAPNEL_RETURN_IF_ERROR(target().SyncDir(path));
  absl::MutexLock lock(&mutex_);
  if (const std::shared_ptr<Node> node = Find(path)) {
    node->synced_children = node->children;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<FileLock>> FaultInjectionEnv::LockFile(
    const std::string& path) {
  GRAPNEL_RETURN_IF_ERROR(Begin(absl::StrCat("lock ", path)));
  GRAPNEL_ASSIGN_OR_RETURN(std::unique_ptr<FileLock> base,
                           target().LockFile(path));
  absl::MutexLock lock(&mutex_);
  return std::make_unique<FaultFileLock>(*this, path, std::move(base),
                                         FindOrAddFile(path));
}

absl::Status FaultInjectionEnv::Begin(std::string operation) {
  absl::MutexLock lock(&mutex_);
  const int64_t n = static_cast<int64_t>(operations_.size());
  operations_.push_back(std::move(operation));
  if (fail_at_ < 0 || n < fail_at_) return absl::OkStatus();
  if (n > fail_at_ && fail_times_ == Times::kOnce) return absl::OkStatus();
  return absl::Status(
      fail_status_.code(),
      absl::StrCat(operations_.back(), ": ", fail_status_.message()));
}

std::shared_ptr<FaultInjectionEnv::Node> FaultInjectionEnv::Find(
    const std::string& path) const {
  absl::string_view rest = path;
  if (!absl::ConsumePrefix(&rest, root_path_)) return nullptr;
  if (!rest.empty() && rest[0] != '/') return nullptr;
  std::shared_ptr<Node> node = root_;
  for (const absl::string_view name :
       absl::StrSplit(rest, '/', absl::SkipEmpty())) {
    const auto it = node->children.find(std::string(name));
    if (it == node->children.end()) return nullptr;
    node = it->second;
  }
  return node;
}

std::shared_ptr<FaultInjectionEnv::Node> FaultInjectionEnv::Parent(
    const std::string& path) const {
  return path == root_path_ ? nullptr : Find(Dirname(path));
}

absl::StatusOr<std::unique_ptr<WritableFile>> FaultInjectionEnv::OpenToWrite(
    const std::string& path, bool truncate) {
  GRAPNEL_RETURN_IF_ERROR(
      Begin(absl::StrCat(truncate ? "create " : "open ", path)));
  GRAPNEL_ASSIGN_OR_RETURN(std::unique_ptr<WritableFile> file,
                           truncate ? target().NewWritableFile(path)
                                    : target().NewAppendableFile(path));
  absl::MutexLock lock(&mutex_);
  std::shared_ptr<Node> node = FindOrAddFile(path);
  if (truncate && node != nullptr) {
    node->content.clear();
    node->synced_content.clear();
  }
  return std::make_unique<FaultWritableFile>(*this, path, std::move(file),
                                             std::move(node), crashes_);
}

std::shared_ptr<FaultInjectionEnv::Node> FaultInjectionEnv::FindOrAddFile(
    const std::string& path) {
  std::shared_ptr<Node> node = Find(path);
  if (node != nullptr) return node;
  if (const std::shared_ptr<Node> parent = Parent(path)) {
    node = std::make_shared<Node>(false);
    parent->children[Basename(path)] = node;
  }
  return node;
}

void FaultInjectionEnv::Forget(const std::string& path) {
  absl::MutexLock lock(&mutex_);
  if (const std::shared_ptr<Node> parent = Parent(path)) {
    parent->children.erase(Basename(path));
  }
}

absl::StatusOr<std::shared_ptr<FaultInjectionEnv::Node>>
FaultInjectionEnv::Load(const std::string& path) {
  auto node = std::make_shared<Node>(target().IsDirectory(path));
  if (!node->is_directory) {
    GRAPNEL_ASSIGN_OR_RETURN(node->content, ReadFile(target(), path));
    node->synced_content = node->content;
    return node;
  }
  GRAPNEL_ASSIGN_OR_RETURN(const std::vector<std::string> names,
                           target().ListDir(path));
  for (const std::string& name : names) {
    GRAPNEL_ASSIGN_OR_RETURN(node->children[name], Load(JoinPath(path, name)));
  }
  node->synced_children = node->children;
  return node;
}

absl::Status FaultInjectionEnv::Store(const std::string& path, Node& node,
                                      Names names) {
  for (const auto& [name, child] :
       names == Names::kAsSynced ? node.synced_children : node.children) {
    const std::string child_path = JoinPath(path, name);
    if (child->is_directory) {
      GRAPNEL_RETURN_IF_ERROR(target().CreateNewDir(child_path));
      GRAPNEL_RETURN_IF_ERROR(Store(child_path, *child, names));
      continue;
    }
    GRAPNEL_ASSIGN_OR_RETURN(std::unique_ptr<WritableFile> file,
                             target().NewWritableFile(child_path));
    GRAPNEL_RETURN_IF_ERROR(file->Append(child->synced_content));
    GRAPNEL_RETURN_IF_ERROR(file->Close());
  }
  return absl::OkStatus();
}

}  // namespace io
}  // namespace grapnel
