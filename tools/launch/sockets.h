// TCP between launchers, and the port that rank 0 gets.

#ifndef GRAPNEL_TOOLS_LAUNCH_SOCKETS_H_
#define GRAPNEL_TOOLS_LAUNCH_SOCKETS_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace grapnel {

// A descriptor that is closed with it. Thread-compatible.
class OwnedFd {
 public:
  OwnedFd() = default;
  explicit OwnedFd(int fd) : fd_(fd) {}
  OwnedFd(OwnedFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  OwnedFd& operator=(OwnedFd&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~OwnedFd();

  int get() const { return fd_; }  // -1: none.

 private:
  int fd_ = -1;
};

// A port of this machine that nobody else gets by chance, and that a program
// can still listen on, if it sets SO_REUSEADDR, as LibTorch's store does.
struct ReservedPort {
  OwnedFd socket;
  int port = 0;
};

// `port` 0: a free one. kFailedPrecondition if a program listens on
// it.
absl::StatusOr<ReservedPort> ReservePort(int port);

// Listens on `port` of all addresses. kFailedPrecondition if another does.
absl::StatusOr<OwnedFd> Listen(int port);

// A connection to one of `host`'s addresses; each is waited for for `timeout`.
// `host` is a name, or an address, an IPv6 one also in brackets.
absl::StatusOr<OwnedFd> Connect(const std::string& host, int port,
                                absl::Duration timeout);

// Lines over a connection. No call waits. Thread-compatible.
class LineSocket {
 public:
  // More is no line of ours.
  static constexpr size_t kMaxLine = 2048;

  explicit LineSocket(OwnedFd socket);

  int fd() const { return socket_.get(); }
  bool has_output() const { return !output_.empty(); }

  // `line` without its newline.
  void Send(absl::string_view line);

  // Writes what can be written at once; an error shows at the next Read.
  void Write();

  // That the peer's system has all that was sent.
  bool IsDelivered() const;

  // Appends the lines that have come to `*lines`. False if no more will: the
  // peer is gone, or what it says is too long for a line.
  bool Read(std::vector<std::string>* lines);

 private:
  OwnedFd socket_;
  std::string input_;
  std::string output_;
};

}  // namespace grapnel

#endif  // GRAPNEL_TOOLS_LAUNCH_SOCKETS_H_
