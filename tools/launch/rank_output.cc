#include "grapnel/tools/launch/rank_output.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace grapnel {

OutputSink::OutputSink(int fd) : fd_(fd) {
  struct stat info;
  if (fstat(fd, &info) != 0) {
    kind_ = Kind::kGone;
  } else if (S_ISSOCK(info.st_mode)) {
    kind_ = Kind::kSocket;
  } else if (S_ISFIFO(info.st_mode) || S_ISCHR(info.st_mode)) {
    // O_NOCTTY: the keeper's session has no terminal, and isn't to get one.
    const int own = open(absl::StrCat("/proc/self/fd/", fd).c_str(),
                         O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
    kind_ = own < 0 ? Kind::kBlocking : Kind::kNonBlocking;
    owns_fd_ = own >= 0;
    if (owns_fd_) fd_ = own;
  }
}

OutputSink::~OutputSink() {
  if (owns_fd_) close(fd_);
}

void OutputSink::Add(int source, absl::string_view bytes) {
  if (kind_ == Kind::kGone || bytes.empty()) return;
  if (in_line_ && source != last_source_) queue_.push_back('\n');
  last_source_ = source;
  in_line_ = bytes.back() != '\n' && bytes.back() != '\r';
  queue_.append(bytes.data(), bytes.size());
}

void OutputSink::Write() {
  while (!empty()) {
    const char* const data = queue_.data() + written_;
    size_t size = queue_.size() - written_;
    ssize_t n = 0;
    if (kind_ == Kind::kSocket) {
      n = send(fd_, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
    } else {
      if (kind_ == Kind::kBlocking) {
        pollfd ready = {fd_, POLLOUT, 0};
        if (poll(&ready, 1, 0) <= 0) return;
        size = std::min<size_t>(size, _POSIX_PIPE_BUF);
      }
      n = write(fd_, data, size);
    }
    if (n >= 0) {
      written_ += n;
      continue;
    }
    if (errno == EINTR) continue;
    if (errno == EAGAIN || errno == EWOULDBLOCK) break;
    kind_ = Kind::kGone;
    written_ = queue_.size();
  }
  if (empty() || written_ >= kFull) {
    queue_.erase(0, written_);
    written_ = 0;
  }
}

void LineSplitter::Add(absl::string_view bytes, std::string* lines) {
  if (prefix_.empty()) {
    const size_t end = bytes.find_last_of("\r\n");
    if (end != absl::string_view::npos) {
      absl::StrAppend(lines, rest_, bytes.substr(0, end + 1));
      rest_.clear();
      bytes.remove_prefix(end + 1);
    }
    rest_.append(bytes.data(), bytes.size());
    if (rest_.size() >= kMaxLine) Finish(lines);
    return;
  }
  while (!bytes.empty()) {
    const size_t end = bytes.find('\n');
    const size_t size = std::min({end, bytes.size(), kMaxLine - rest_.size()});
    rest_.append(bytes.data(), size);
    bytes.remove_prefix(size);
    if (size == end) {
      absl::StrAppend(lines, prefix_, rest_, "\n");
      rest_.clear();
      bytes.remove_prefix(1);
    } else if (rest_.size() == kMaxLine) {
      Finish(lines);
    }
  }
}

void LineSplitter::Finish(std::string* lines) {
  if (rest_.empty()) return;
  absl::StrAppend(lines, prefix_, rest_, prefix_.empty() ? "" : "\n");
  rest_.clear();
}

std::vector<std::string> LastLines(absl::string_view text, size_t count,
                                   size_t max_size) {
  std::vector<std::string> lines;
  while (!text.empty() && lines.size() < count) {
    const size_t newline = text.rfind('\n');
    const size_t begin = newline == absl::string_view::npos ? 0 : newline + 1;
    absl::string_view line =
        absl::StripTrailingAsciiWhitespace(text.substr(begin));
    // Of a progress bar, what is seen of it.
    line.remove_prefix(line.rfind('\r') + 1);
    if (!line.empty()) {
      lines.push_back(line.size() <= max_size
                          ? std::string(line)
                          : absl::StrCat(line.substr(0, max_size), "..."));
    }
    text = text.substr(0, begin == 0 ? 0 : begin - 1);
  }
  std::reverse(lines.begin(), lines.end());
  return lines;
}

}  // namespace grapnel
