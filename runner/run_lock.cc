#include "grapnel/runner/run_lock.h"

#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "grapnel/base/clock.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/io/unique_name.h"
#include "grapnel/loggers/host_name.h"

namespace grapnel {
namespace {

constexpr char kLockFile[] = ".lock";
constexpr int64_t kMaxHolderSize = 4096;
constexpr int kMaxTimesGone = 10;
constexpr absl::Duration kPollInterval = absl::Milliseconds(100);

std::string Holder(const Clock& clock) {
  return absl::StrCat(
      "host: ", HostName(), "\npid: ", ::getpid(), "\nstarted: ",
      absl::FormatTime("%Y-%m-%d %H:%M:%S %Ez", clock.WallTime(),
                       absl::LocalTimeZone()),
      // Tells two runs of one process apart.
      "\nid: ", absl::BytesToHexString(io::RandomBytes(8)), "\n");
}

// In words, of what a lock file says.
std::string Describe(absl::string_view holder) {
  std::string host, pid, started;
  for (absl::string_view line : absl::StrSplit(holder, '\n')) {
    if (absl::ConsumePrefix(&line, "host: ")) host = absl::CHexEscape(line);
    if (absl::ConsumePrefix(&line, "pid: ")) pid = absl::CHexEscape(line);
    if (absl::ConsumePrefix(&line, "started: ")) {
      started = absl::CHexEscape(line);
    }
  }
  if (host.empty() || pid.empty() || started.empty()) return "another run";
  return absl::StrCat("another run: host ", host, ", process ", pid,
                      ", started ", started);
}

}  // namespace

absl::StatusOr<std::unique_ptr<RunLock>> RunLock::Take(
    io::Env& env, absl::Span<const Folder> folders, const Options& options) {
  std::unique_ptr<RunLock> lock(new RunLock(env));
  lock->holder_ = Holder(*options.clock);
  const int64_t now = options.clock->NowNanos();
  const int64_t wait = absl::ToInt64Nanoseconds(options.wait);
  const int64_t deadline =
      wait > std::numeric_limits<int64_t>::max() - std::max<int64_t>(now, 0)
          ? std::numeric_limits<int64_t>::max()
          : now + wait;
  bool told = false;
  for (const Folder& folder : folders) {
    GRAPNEL_RETURN_IF_ERROR(WithContext(
        lock->LockFolder(folder.path, options, deadline, &told), folder.field));
  }
  return lock;
}

RunLock::~RunLock() {
  for (auto held = held_.rbegin(); held != held_.rend(); ++held) {
    // While it is held: who waits for it then sees that it is another file.
    // If that fails, the file is left over, no more.
    if (!kept_ && held->made) env_.DeleteFile(held->path).IgnoreError();
    held->lock.reset();
  }
  if (kept_) return;
  for (auto made = made_.rbegin(); made != made_.rend(); ++made) {
    env_.DeleteDir(*made).IgnoreError();
  }
}

absl::Status RunLock::MakeFolder(const std::string& path) {
  std::vector<std::string> missing;
  for (std::string folder = path; !folder.empty() && folder != "/";
       folder = io::Dirname(folder)) {
    if (env_.FileExists(folder)) break;
    if (!io::Basename(folder).empty()) missing.push_back(folder);
  }
  GRAPNEL_RETURN_IF_ERROR(env_.CreateDir(path));
  made_.insert(made_.end(), missing.rbegin(), missing.rend());
  return absl::OkStatus();
}

absl::Status RunLock::LockFolder(const std::string& folder,
                                 const Options& options, int64_t deadline_nanos,
                                 bool* told) {
  Held held;
  held.path = io::JoinPath(folder, kLockFile);
  int times_gone = 0;
  while (true) {
    GRAPNEL_RETURN_IF_ERROR(MakeFolder(folder));
    held.made = !env_.FileExists(held.path);
    auto lock = env_.LockFile(held.path);
    if (lock.ok()) {
      held.lock = *std::move(lock);
      // A full disk: the lock counts, and not that it says who has it.
      held.lock->Write(holder_).IgnoreError();
      held_.push_back(std::move(held));
      return absl::OkStatus();
    }
    if (absl::IsUnimplemented(lock.status())) {
      warnings_.push_back(
          absl::StrCat(lock.status().message(),
                       ": nothing keeps a second run out of this folder"));
      return absl::OkStatus();
    }
    // Another run's start may just have failed, and taken its folder along.
    if (absl::IsNotFound(lock.status()) && ++times_gone < kMaxTimesGone) {
      continue;
    }
    if (!absl::IsAborted(lock.status())) return lock.status();
    const std::string holder =
        io::ReadFile(env_, held.path, kMaxHolderSize).value_or("");
    if (holder == holder_) return absl::OkStatus();  // By another path.
    const std::string in_use =
        absl::StrCat(folder, " is in use by ", Describe(holder));
    const int64_t now = options.clock->NowNanos();
    if (now >= deadline_nanos) return absl::AbortedError(in_use);
    if (options.interrupt != nullptr && options.interrupt->load() != 0) {
      return absl::CancelledError(absl::StrCat("interrupted while ", in_use));
    }
    if (!*told && options.on_wait) {
      options.on_wait(absl::StrCat(in_use, "; waiting for its end, for up to ",
                                   absl::FormatDuration(options.wait)));
    }
    *told = true;
    absl::SleepFor(
        std::min(kPollInterval, absl::Nanoseconds(deadline_nanos - now)));
  }
}

}  // namespace grapnel
