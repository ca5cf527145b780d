#include "grapnel/base/thread.h"

#include <pthread.h>
#include <signal.h>

#include <exception>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace grapnel {
namespace {

// What a thread that is started meanwhile inherits.
class BlockedSignals {
 public:
  BlockedSignals() {
    sigset_t mask;
    sigfillset(&mask);
    // Crash reporters wait for these.
    for (const int fault : {SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGTRAP}) {
      sigdelset(&mask, fault);
    }
    pthread_sigmask(SIG_SETMASK, &mask, &before_);
  }
  BlockedSignals(const BlockedSignals&) = delete;
  BlockedSignals& operator=(const BlockedSignals&) = delete;
  ~BlockedSignals() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

 private:
  sigset_t before_;
};

}  // namespace

absl::StatusOr<std::thread> StartThread(const std::string& name,
                                        std::function<void()> body) {
  const BlockedSignals blocked;
  try {
    std::thread thread(std::move(body));
    pthread_setname_np(thread.native_handle(), name.c_str());
    return thread;
  } catch (const std::exception& e) {  // std::system_error, std::bad_alloc.
    return absl::ResourceExhaustedError(
        absl::StrCat("can't start a thread: ", e.what()));
  }
}

}  // namespace grapnel
