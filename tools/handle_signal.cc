#include "grapnel/tools/handle_signal.h"

#include <signal.h>

#include <cstring>

namespace grapnel {

void HandleSignal(int signal, void (*handler)(int)) {
  struct sigaction action;
  if (sigaction(signal, nullptr, &action) == 0 &&
      action.sa_handler == SIG_IGN) {
    return;
  }
  memset(&action, 0, sizeof(action));
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  sigaction(signal, &action, nullptr);
}

}  // namespace grapnel
