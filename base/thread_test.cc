#include "grapnel/base/thread.h"

#include <pthread.h>
#include <signal.h>

#include <string>
#include <thread>
#include <vector>

#include "grapnel/base/status_matchers.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

// Of 1 to 64, whether the calling thread has each blocked.
std::vector<bool> Blocked() {
  sigset_t mask;
  pthread_sigmask(SIG_SETMASK, nullptr, &mask);
  std::vector<bool> blocked;
  for (int signal = 1; signal <= 64; ++signal) {
    blocked.push_back(sigismember(&mask, signal) == 1);
  }
  return blocked;
}

TEST(StartThreadTest, SignalsAreForTheProcessesOtherThreads) {
  const std::vector<bool> before = Blocked();
  std::vector<bool> inside;
  auto thread = StartThread("test", [&] { inside = Blocked(); });
  ASSERT_THAT(thread, IsOk());
  thread->join();
  for (const int signal : {SIGINT, SIGTERM, SIGUSR1, SIGALRM, SIGHUP}) {
    EXPECT_TRUE(inside[signal - 1]) << signal;
  }
  for (const int signal : {SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGTRAP}) {
    EXPECT_FALSE(inside[signal - 1]) << signal;
  }
  EXPECT_EQ(Blocked(), before);
}

TEST(StartThreadTest, HasItsName) {
  std::string name(16, '\0');
  auto thread = StartThread("grapnel-test", [&] {
    // The starter may not have given it yet.
    while (pthread_getname_np(pthread_self(), name.data(), name.size()) == 0 &&
           name.compare(0, 12, "grapnel-test") != 0) {
      std::this_thread::yield();
    }
  });
  ASSERT_THAT(thread, IsOk());
  thread->join();
  EXPECT_EQ(std::string(name.c_str()), "grapnel-test");
}

}  // namespace
}  // namespace grapnel
