#include "grapnel/loggers/text_run_log.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <mutex>
#include <system_error>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_set.h"
#include "absl/hash/hash.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/utf8.h"

namespace grapnel {
namespace {

// "2026/" is what the file's lines have in front of the terminal's.
constexpr size_t kYearSize = 5;
// How long a terminal that doesn't take more is waited for.
constexpr int kTerminalTimeoutMs = 1000;

// Where a terminal doesn't say how wide it is.
constexpr int kDefaultColumns = 80;
// Goes to the line's beginning and empties it.
constexpr char kClearLine[] = "\r\x1b[K";

// True if `fd` is a terminal that knows the above.
bool ShowsStatusLine(int fd) {
  if (fd < 0 || ::isatty(fd) != 1) return false;
  const char* const term = std::getenv("TERM");
  return term != nullptr && *term != '\0' && absl::string_view(term) != "dumb";
}

const char* LevelName(RunLog::Level level) {
  switch (level) {
    case RunLog::Level::kDebug:
      return "DEBUG";
    case RunLog::Level::kInfo:
      return "INFO";
    case RunLog::Level::kWarning:
      return "WARNING";
    case RunLog::Level::kError:
      break;
  }
  return "ERROR";
}

// Keeps a write to a pipe without a reader from ending the process. The
// process's handler of the signal is not ours to change, so this thread's mask
// is, for as long as this object lives.
class SigpipeBlocker {
 public:
  SigpipeBlocker() {
    sigemptyset(&sigpipe_);
    sigaddset(&sigpipe_, SIGPIPE);
    sigset_t pending;
    sigemptyset(&pending);
    sigpending(&pending);
    was_pending_ = sigismember(&pending, SIGPIPE) == 1;
    if (!was_pending_) pthread_sigmask(SIG_BLOCK, &sigpipe_, &old_mask_);
  }
  SigpipeBlocker(const SigpipeBlocker&) = delete;
  SigpipeBlocker& operator=(const SigpipeBlocker&) = delete;

  ~SigpipeBlocker() {
    // One that is pending was there before us, and blocked: it stays.
    if (was_pending_) return;
    const timespec no_wait = {0, 0};
    while (sigtimedwait(&sigpipe_, nullptr, &no_wait) < 0 && errno == EINTR) {
    }
    pthread_sigmask(SIG_SETMASK, &old_mask_, nullptr);
  }

 private:
  sigset_t sigpipe_;
  sigset_t old_mask_;
  bool was_pending_;
};

absl::Status WriteToTerminal(int fd, absl::string_view text) {
  while (!text.empty()) {
    const ssize_t written = ::write(fd, text.data(), text.size());
    if (written >= 0) {
      text.remove_prefix(written);
      continue;
    }
    if (errno == EINTR) continue;
    if (errno == EAGAIN || errno == EWOULDBLOCK) {
      pollfd ready = {fd, POLLOUT, 0};
      if (::poll(&ready, 1, kTerminalTimeoutMs) != 0) continue;
      return absl::UnavailableError("terminal: takes no more");
    }
    return absl::UnavailableError(absl::StrCat(
        "terminal: cannot write: ", std::generic_category().message(errno)));
  }
  return absl::OkStatus();
}

class TextRunLog : public RunLog {
 public:
  TextRunLog(const TextRunLogOptions& options,
             std::unique_ptr<io::WritableFile> file)
      : clock_(options.clock != nullptr ? *options.clock : Clock::System()),
        level_(options.level),
        status_fd_(ShowsStatusLine(options.terminal_fd) ? options.terminal_fd
                                                        : -1),
        file_(std::move(file)),
        terminal_fd_(options.terminal_fd) {}

  ~TextRunLog() override {
    SetStatusLine("");
    SigpipeBlocker blocker;
    const std::lock_guard<std::mutex> lock(mutex_);
    if (file_ == nullptr) return;
    const absl::Status status = std::exchange(file_, nullptr)->Close();
    // There is nobody left to tell if that fails.
    if (!status.ok()) Append(Level::kWarning, Lost(status)).IgnoreError();
  }

  void Write(Level level, absl::string_view message) override {
    if (level < level_) return;
    SigpipeBlocker blocker;
    const std::lock_guard<std::mutex> lock(mutex_);
    // What one can't take, the other one tells; and that may fail in turn.
    absl::Status lost = Append(level, message);
    while (!lost.ok()) lost = Append(Level::kWarning, Lost(lost));
  }

  void Warning(absl::string_view message) override {
    if (Level::kWarning < level_) return;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      // Hashes, for programs that put a number into each of their warnings.
      if (!warned_.insert(absl::Hash<absl::string_view>()(message)).second) {
        return;
      }
    }
    Write(Level::kWarning, message);
  }

  absl::Status Flush() override {
    const std::lock_guard<std::mutex> lock(mutex_);
    return file_status_;  // Nothing is held back.
  }

  void SetStatusLine(absl::string_view text) override {
    if (status_fd_ < 0) return;
    SigpipeBlocker blocker;
    const std::lock_guard<std::mutex> lock(mutex_);
    status_ = std::string(text);
    if (terminal_fd_ < 0 || (status_.empty() && !status_shown_)) return;
    // Not worth waiting for. The next line of the log brings it.
    pollfd ready = {terminal_fd_, POLLOUT, 0};
    if (::poll(&ready, 1, 0) <= 0) return;
    // What is wrong with it, the next line of the log finds out.
    WriteToTerminal(terminal_fd_, absl::StrCat(kClearLine, status_))
        .IgnoreError();
    status_shown_ = !status_.empty();
  }

  int StatusColumns() override {
    if (status_fd_ < 0) return 0;
    winsize size = {};
    const bool known =
        ::ioctl(status_fd_, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
    // Behind the last column, terminals wrap.
    return (known ? size.ws_col : kDefaultColumns) - 1;
  }

 private:
  static std::string Lost(const absl::Status& status) {
    return absl::StrCat("run log: nothing more is written there: ",
                        status.message());
  }

  // To whichever there is of file and terminal; one that can't be written to is
  // done with, and its error comes back.
  absl::Status Append(Level level, absl::string_view message)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    FormatLine(level, message);
    const absl::string_view line = line_;
    absl::Status lost;
    if (file_ != nullptr) {
      file_status_ = file_->Append(line);
      if (file_status_.ok()) file_status_ = file_->Flush();
      if (!file_status_.ok()) file_ = nullptr;
      lost = file_status_;
    }
    if (terminal_fd_ >= 0) {
      const absl::Status status = WriteLineToTerminal(line.substr(kYearSize));
      if (!status.ok()) terminal_fd_ = -1;
      lost.Update(status);
    }
    return lost;
  }

  absl::Status WriteLineToTerminal(absl::string_view line)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (!status_shown_ && status_.empty()) {
      return WriteToTerminal(terminal_fd_, line);
    }
    const absl::string_view clear = status_shown_ ? kClearLine : "";
    status_shown_ = !status_.empty();
    return WriteToTerminal(terminal_fd_, absl::StrCat(clear, line, status_));
  }

  void FormatLine(Level level, absl::string_view message)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    const absl::Time now = clock_.WallTime();
    const int64_t second = absl::ToUnixSeconds(now);
    if (second != time_second_) {
      time_second_ = second;
      time_text_ =
          absl::FormatTime("%Y/%m/%d %H:%M:%S", now, absl::LocalTimeZone());
    }
    line_.clear();  // Keeps its memory.
    absl::StrAppend(&line_, time_text_, " - grapnel - ", LevelName(level),
                    " - ");
    // Readers of text files stop at bytes that are none.
    if (IsUtf8(message)) {
      absl::StrAppend(&line_, message, "\n");
    } else {
      absl::StrAppend(&line_, EscapeToUtf8(message), "\n");
    }
  }

  const Clock& clock_;
  const Level level_;
  const int status_fd_;  // The terminal, if it shows a status line, or -1.

  // std::mutex rather than absl::Mutex, which the thread sanitizer can't see
  // into where Abseil is the system's.
  std::mutex mutex_;
  std::unique_ptr<io::WritableFile> file_ ABSL_GUARDED_BY(mutex_);
  absl::Status file_status_ ABSL_GUARDED_BY(mutex_);
  int terminal_fd_ ABSL_GUARDED_BY(mutex_);
  std::string status_ ABSL_GUARDED_BY(mutex_);
  bool status_shown_ ABSL_GUARDED_BY(mutex_) = false;
  absl::flat_hash_set<size_t> warned_ ABSL_GUARDED_BY(mutex_);

  // The last second that was asked for, as text.
  int64_t time_second_ ABSL_GUARDED_BY(mutex_) =
      std::numeric_limits<int64_t>::min();
  std::string time_text_ ABSL_GUARDED_BY(mutex_);
  std::string line_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

absl::StatusOr<std::unique_ptr<RunLog>> CreateTextRunLog(
    const TextRunLogOptions& options) {
  std::unique_ptr<io::WritableFile> file;
  if (!options.path.empty()) {
    io::Env& env = options.env != nullptr ? *options.env : io::Env::Posix();
    GRAPNEL_ASSIGN_OR_RETURN(file, env.NewAppendableFile(options.path));
  }
  return std::make_unique<TextRunLog>(options, std::move(file));
}

}  // namespace grapnel
