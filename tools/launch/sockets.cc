#include "grapnel/tools/launch/sockets.h"

#include <linux/sockios.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "grapnel/base/status_macros.h"

namespace grapnel {
namespace {

absl::Status PortError(int port) {
  return absl::ErrnoToStatus(errno, absl::StrCat("port ", port));
}

// Bound to `port` of all addresses, of IPv4 and, where there is one, IPv6.
absl::StatusOr<OwnedFd> Bind(int port) {
  for (const int family : {AF_INET6, AF_INET}) {
    OwnedFd bound(
        socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (bound.get() < 0) {
      if (family == AF_INET6) continue;
      return PortError(port);
    }
    const int on = 1;
    const int off = 0;
    setsockopt(bound.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    int result;
    if (family == AF_INET6) {
      setsockopt(bound.get(), IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
      sockaddr_in6 address = {};
      address.sin6_family = AF_INET6;
      address.sin6_port = htons(port);
      result = bind(bound.get(), reinterpret_cast<sockaddr*>(&address),
                    sizeof(address));
      if (result != 0 && errno == EADDRNOTAVAIL) continue;
    } else {
      sockaddr_in address = {};
      address.sin_family = AF_INET;
      address.sin_port = htons(port);
      result = bind(bound.get(), reinterpret_cast<sockaddr*>(&address),
                    sizeof(address));
    }
    if (result == 0) return bound;
    return PortError(port);
  }
  return PortError(port);
}

}  // namespace

OwnedFd::~OwnedFd() {
  if (fd_ >= 0) close(fd_);
}

absl::StatusOr<ReservedPort> ReservePort(int port) {
  ReservedPort reserved;
  // Bound and not listening: the system gives it to nobody who asks for any
  // port, and lets others bind it by number who set SO_REUSEADDR as well.
  GRAPNEL_ASSIGN_OR_RETURN(reserved.socket, Bind(port));
  sockaddr_storage address = {};
  socklen_t size = sizeof(address);
  if (getsockname(reserved.socket.get(), reinterpret_cast<sockaddr*>(&address),
                  &size) != 0) {
    return PortError(port);
  }
  // The port stands at the same place in both kinds of addresses.
  reserved.port = ntohs(reinterpret_cast<sockaddr_in&>(address).sin_port);
  return reserved;
}

absl::StatusOr<OwnedFd> Listen(int port) {
  GRAPNEL_ASSIGN_OR_RETURN(OwnedFd listening, Bind(port));
  if (listen(listening.get(), SOMAXCONN) != 0) return PortError(port);
  return listening;
}

absl::StatusOr<OwnedFd> Connect(const std::string& host, int port,
                                absl::Duration timeout) {
  absl::string_view name = host;
  if (absl::ConsumePrefix(&name, "[")) absl::ConsumeSuffix(&name, "]");
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* addresses = nullptr;
  const int found = getaddrinfo(std::string(name).c_str(),
                                absl::StrCat(port).c_str(), &hints, &addresses);
  if (found != 0) {
    return absl::UnavailableError(
        absl::StrCat(host, ": ", gai_strerror(found)));
  }
  int error = ETIMEDOUT;
  OwnedFd connected;
  for (const addrinfo* a = addresses; a != nullptr; a = a->ai_next) {
    OwnedFd one(socket(a->ai_family,
                       a->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK,
                       a->ai_protocol));
    if (one.get() < 0) continue;
    if (connect(one.get(), a->ai_addr, a->ai_addrlen) != 0) {
      error = errno;
      if (error != EINPROGRESS) continue;
      pollfd ready = {one.get(), POLLOUT, 0};
      if (poll(&ready, 1, absl::ToInt64Milliseconds(timeout)) <= 0) {
        error = ETIMEDOUT;
        continue;
      }
      socklen_t size = sizeof(error);
      getsockopt(one.get(), SOL_SOCKET, SO_ERROR, &error, &size);
      if (error != 0) continue;
    }
    connected = std::move(one);
    break;
  }
  freeaddrinfo(addresses);
  if (connected.get() >= 0) return connected;
  return absl::UnavailableError(
      absl::StrCat(host, ":", port, ": ", strerror(error)));
}

LineSocket::LineSocket(OwnedFd socket) : socket_(std::move(socket)) {
  const int on = 1;
  setsockopt(socket_.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

void LineSocket::Send(absl::string_view line) {
  absl::StrAppend(&output_, line, "\n");
  Write();
}

void LineSocket::Write() {
  while (!output_.empty()) {
    const ssize_t n =
        send(fd(), output_.data(), output_.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return;
    if (n < 0) {
      output_.clear();
      return;
    }
    output_.erase(0, n);
  }
}

bool LineSocket::IsDelivered() const {
  int unacknowledged = 0;
  return output_.empty() &&
         (ioctl(fd(), SIOCOUTQ, &unacknowledged) != 0 || unacknowledged == 0);
}

bool LineSocket::Read(std::vector<std::string>* lines) {
  bool open = true;
  char buffer[4096];
  while (open) {
    const ssize_t n = recv(fd(), buffer, sizeof(buffer), MSG_DONTWAIT);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) break;
    open = n > 0;
    if (!open) break;
    input_.append(buffer, n);
    size_t end;
    while ((end = input_.find('\n')) != std::string::npos) {
      lines->push_back(input_.substr(0, end));
      input_.erase(0, end + 1);
    }
    open = input_.size() <= kMaxLine;
  }
  return open;
}

}  // namespace grapnel
