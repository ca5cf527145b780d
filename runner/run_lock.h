// One run at a time writes to a folder.

#ifndef GRAPNEL_RUNNER_RUN_LOCK_H_
#define GRAPNEL_RUNNER_RUN_LOCK_H_

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "grapnel/io/env.h"

namespace grapnel {

class Clock;

// The locks of a run's folders: io::Env::LockFile of the file ".lock" in each,
// which says who holds it. Let go by destruction, and by the end of the
// process, however it ends. Thread-compatible.
class RunLock {
 public:
  struct Folder {
    std::string field;  // Of the configuration; begins every message about it.
    std::string path;
  };

  struct Options {
    const Clock* clock = nullptr;  // Required.

    // How long to wait for a folder that is in use.
    absl::Duration wait = absl::ZeroDuration();

    // Ends the waiting once it is not 0. May be null.
    const std::atomic<int>* interrupt = nullptr;

    // Told once, before the first wait. May be unset.
    std::function<void(absl::string_view message)> on_wait;
  };

  // Makes the folders where they are missing, and locks them in their order,
  // each once if two of them are one. kAborted, naming host, process and start
  // of who has a folder, if it is in use and, after the wait, still is;
  // kCancelled if the wait was interrupted; else as Env::CreateDir and LockFile
  // say.
  static absl::StatusOr<std::unique_ptr<RunLock>> Take(
      io::Env& env, absl::Span<const Folder> folders, const Options& options);

  RunLock(const RunLock&) = delete;
  RunLock& operator=(const RunLock&) = delete;

  // Without Keep also removes what Take made, as far as nothing else is in it.
  ~RunLock();

  // The folders are there to stay.
  void Keep() { kept_ = true; }

  // Of folders on file systems without locks, which nobody keeps others out of.
  const std::vector<std::string>& warnings() const { return warnings_; }

 private:
  struct Held {
    std::string path;  // Of the lock's file.
    bool made = false;
    std::unique_ptr<io::FileLock> lock;
  };

  explicit RunLock(io::Env& env) : env_(env) {}

  absl::Status MakeFolder(const std::string& path);
  absl::Status LockFolder(const std::string& folder, const Options& options,
                          int64_t deadline_nanos, bool* told);

  io::Env& env_;
  std::string holder_;  // What our lock files say.
  std::vector<Held> held_;
  std::vector<std::string> made_;  // Folders, outer ones first.
  std::vector<std::string> warnings_;
  bool kept_ = false;
};

}  // namespace grapnel

#endif  // GRAPNEL_RUNNER_RUN_LOCK_H_
