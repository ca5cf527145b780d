// An Env whose operations fail and whose power goes out, on order.

#ifndef GRAPNEL_IO_FAULT_INJECTION_ENV_H_
#define GRAPNEL_IO_FAULT_INJECTION_ENV_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "grapnel/io/env.h"
#include "grapnel/io/env_wrapper.h"

namespace grapnel {
namespace io {

// Passes everything on to another Env, counts the operations that change
// something and remembers what of them is on the disk: a file's content since
// its last Sync, a name since the last SyncDir of its directory. Truncating a
// file loses its content at once. Copies all content: for small files. Locks
// are gone after a power cut.
//
//   FaultInjectionEnv env(mem, "/");
//   env.FailOperation(3, absl::UnavailableError("power"), Times::kFromThenOn);
//   WriteCheckpoint(env, "/work", "epoch_1", contents).IgnoreError();
//   ASSERT_THAT(env.Crash(), IsOk());
//   // What is there now survived a power cut before the fourth operation.
//
// Safe to use from many threads; Crash must not meet other calls.
class FaultInjectionEnv : public EnvWrapper {
 public:
  enum class Times { kOnce, kFromThenOn };

  // Watches what is under the directory `root`; what is there is on the disk.
  // Paths outside are passed on. `base` outlives this.
  FaultInjectionEnv(Env& base, const std::string& root);
  ~FaultInjectionEnv() override;

  // The operation number `n` from now (0 is the next one) does nothing and
  // returns `status`. Replaces an earlier order.
  void FailOperation(int64_t n, absl::Status status,
                     Times times = Times::kOnce);

  // Forgets the order.
  void StopFailing();

  // Append, when it is to fail, writes half of its data first.
  void set_short_writes(bool on);

  // What has been done so far, failures included: "rename /a -> /b".
  std::vector<std::string> operations() const;

  // Which names a power cut leaves. File systems may write a name before the
  // content that it names.
  enum class Names {
    kAsSynced,  // Those that SyncDir wrote.
    kAsSeen,    // All that the program saw.
  };

  // Cuts the power and starts again: what isn't on the disk is gone, files that
  // were open are dead, nothing is set to fail.
  absl::Status Crash(Names names = Names::kAsSynced);

  absl::StatusOr<std::unique_ptr<WritableFile>> NewWritableFile(
      const std::string& path) override;
  absl::StatusOr<std::unique_ptr<WritableFile>> NewAppendableFile(
      const std::string& path) override;
  absl::Status CreateDir(const std::string& path) override;
  absl::Status CreateNewDir(const std::string& path) override;
  absl::Status Rename(const std::string& from, const std::string& to) override;
  absl::Status DeleteFile(const std::string& path) override;
  absl::Status DeleteDir(const std::string& path) override;
  absl::Status SyncDir(const std::string& path) override;
  absl::StatusOr<std::unique_ptr<FileLock>> LockFile(
      const std::string& path) override;

 private:
  struct Node;
  class FaultWritableFile;
  class FaultFileLock;

  // Notes an operation; not OK if it is to fail.
  absl::Status Begin(std::string operation);

  // The node at `path`, or null.
  std::shared_ptr<Node> Find(const std::string& path) const
      ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  std::shared_ptr<Node> Parent(const std::string& path) const
      ABSL_SHARED_LOCKS_REQUIRED(mutex_);

  absl::StatusOr<std::unique_ptr<WritableFile>> OpenToWrite(
      const std::string& path, bool truncate);
  void Forget(const std::string& path);

  // The node of a file that is there now, made if it is new; null outside of
  // the root.
  std::shared_ptr<Node> FindOrAddFile(const std::string& path)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // From the base to a node, and back.
  absl::StatusOr<std::shared_ptr<Node>> Load(const std::string& path);
  absl::Status Store(const std::string& path, Node& node, Names names);

  const std::string root_path_;

  mutable absl::Mutex mutex_;
  absl::Status load_status_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<Node> root_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::string> operations_ ABSL_GUARDED_BY(mutex_);
  int64_t fail_at_ ABSL_GUARDED_BY(mutex_) = -1;
  Times fail_times_ ABSL_GUARDED_BY(mutex_) = Times::kOnce;
  absl::Status fail_status_ ABSL_GUARDED_BY(mutex_);
  bool short_writes_ ABSL_GUARDED_BY(mutex_) = false;
  int crashes_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace io
}  // namespace grapnel

#endif  // GRAPNEL_IO_FAULT_INJECTION_ENV_H_
