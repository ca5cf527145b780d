// Groups of many ranks on this machine, for tests.

#ifndef GRAPNEL_DIST_LOOPBACK_H_
#define GRAPNEL_DIST_LOOPBACK_H_

#include <thread>

#include "grapnel/dist/place.h"

namespace grapnel {

// A socket that listens at a port of 127.0.0.1 that the system chose.
class LoopbackListener {
 public:
  LoopbackListener();
  ~LoopbackListener();
  LoopbackListener(const LoopbackListener&) = delete;
  LoopbackListener& operator=(const LoopbackListener&) = delete;

  int port() const { return port_; }

  // From now on answers whoever comes as a web server would; without it, takes
  // connections and says nothing.
  void Answer();

 private:
  const int fd_;
  int port_ = 0;
  std::thread answerer_;
};

// One that nobody listens at. Until this process ends, whoever asks for any
// port gets another one; a store of c10d that is told to listen there can.
int FreePort();

// As of a rank that RANK, WORLD_SIZE and so on speak of, all on this machine.
Place LocalPlace(int rank, int world_size, int port);

}  // namespace grapnel

#endif  // GRAPNEL_DIST_LOOPBACK_H_
