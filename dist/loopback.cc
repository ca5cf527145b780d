#include "grapnel/dist/loopback.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace grapnel {

namespace {

// c10d keeps a record of the last collectives for the whole process, and adds a
// group to it before it takes its lock: ranks that are threads, and so have
// many groups, end the process there now and then. Before anything of c10d
// asks.
const bool record_is_off = setenv("TORCH_FR_BUFFER_SIZE", "0", 1) == 0;

// Of 127.0.0.1; 0 if there is none.
int BindToAnyPort(int fd) {
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  auto* const any = reinterpret_cast<sockaddr*>(&address);
  const bool bound =
      bind(fd, any, size) == 0 && getsockname(fd, any, &size) == 0;
  return bound ? ntohs(address.sin_port) : 0;
}

}  // namespace

LoopbackListener::LoopbackListener()
    : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  const int port = BindToAnyPort(fd_);
  if (port != 0 && listen(fd_, 16) == 0) port_ = port;
}

LoopbackListener::~LoopbackListener() {
  shutdown(fd_, SHUT_RDWR);
  if (answerer_.joinable()) answerer_.join();
  close(fd_);
}

void LoopbackListener::Answer() {
  answerer_ = std::thread([this] {
    while (true) {
      const int peer = accept(fd_, nullptr, nullptr);
      if (peer < 0) return;
      const char kText[] = "HTTP/1.1 400 Bad Request\r\n\r\n";
      const bool sent = write(peer, kText, sizeof(kText)) > 0;
      if (sent) absl::SleepFor(absl::Milliseconds(50));
      close(peer);
    }
  });
}

int FreePort() {
  // Bound and not listening, until the process ends.
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  return BindToAnyPort(fd);
}

Place LocalPlace(int rank, int world_size, int port) {
  Place place;
  place.launcher = Launcher::kTorchrun;
  place.rank = place.local_rank = rank;
  place.world_size = place.local_world_size = world_size;
  place.master_address = "127.0.0.1";
  place.master_port = port;
  return place;
}

}  // namespace grapnel
