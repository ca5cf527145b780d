#include "grapnel/loggers/log_thread.h"

#include <pthread.h>
#include <signal.h>

#include <cstddef>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/loggers/memory_run_log.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::ElementsAre;

TEST(LogThreadTest, DoesAllInOrderOnOneOtherThread) {
  LogThread thread;
  std::vector<int> done;
  std::vector<std::thread::id> ids;
  for (int i = 0; i < 500; ++i) {
    thread.Post([&, i] {
      done.push_back(i);
      ids.push_back(std::this_thread::get_id());
    });
  }
  thread.Drain();
  ASSERT_EQ(done.size(), 500u);
  for (int i = 0; i < 500; ++i) {
    EXPECT_EQ(done[i], i);
    EXPECT_EQ(ids[i], ids[0]);
  }
  EXPECT_NE(ids[0], std::this_thread::get_id());
}

TEST(LogThreadTest, WritesWithoutBeingAsked) {
  LogThread thread;
  thread.Post([] {});
  thread.Drain();
  // The first finds it asleep, the second on its pause.
  for (int i = 0; i < 2; ++i) {
    absl::Notification done;
    thread.Post([&] { done.Notify(); });
    EXPECT_TRUE(done.WaitForNotificationWithTimeout(absl::Seconds(10)));
  }
}

TEST(LogThreadTest, EndsWithAllDone) {
  int done = 0;
  {
    LogThread thread;
    for (int i = 0; i < 100; ++i) thread.Post([&] { ++done; });
  }
  EXPECT_EQ(done, 100);
}

TEST(LogThreadTest, WhatItPostsItselfIsDoneAtOnce) {
  LogThread thread;
  std::vector<std::string> order;
  thread.Post([&] {
    thread.Post([&] { order.push_back("inner"); });
    thread.Drain();  // Doesn't wait for itself.
    order.push_back("outer");
  });
  thread.Drain();
  EXPECT_THAT(order, ElementsAre("inner", "outer"));
}

TEST(LogThreadTest, WhatIsThrownStopsNothing) {
  LogThread thread;
  bool done = false;
  thread.Post([] { throw std::runtime_error("no"); });
  thread.Post([&] { done = true; });
  thread.Drain();
  EXPECT_TRUE(done);
}

TEST(LogThreadTest, HoldsNoMoreThanSoMuch) {
  LogThread thread;
  absl::Notification stuck;
  thread.Post([&] { stuck.WaitForNotification(); });
  int done = 0;
  absl::Notification posted;
  std::thread poster([&] {
    for (int i = 0; i < 5000; ++i) thread.Post([&] { ++done; });
    posted.Notify();
  });
  EXPECT_FALSE(posted.WaitForNotificationWithTimeout(absl::Milliseconds(100)));
  stuck.Notify();
  poster.join();
  thread.Drain();
  EXPECT_EQ(done, 5000);
}

sigset_t SignalMask() {
  sigset_t mask;
  pthread_sigmask(SIG_SETMASK, nullptr, &mask);
  return mask;
}

TEST(LogThreadTest, TakesNoSignalsButThoseOfItsFaults) {
  LogThread thread;
  sigset_t mask;
  thread.Post([&] { mask = SignalMask(); });
  thread.Drain();
  EXPECT_EQ(sigismember(&mask, SIGINT), 1);
  EXPECT_EQ(sigismember(&mask, SIGTERM), 1);
  EXPECT_EQ(sigismember(&mask, SIGSEGV), 0);
  mask = SignalMask();
  EXPECT_EQ(sigismember(&mask, SIGINT), 0);
}

// Threads have stacks that don't fit into memory, so that none starts.
class NoNewThreads {
 public:
  NoNewThreads() {
    EXPECT_EQ(pthread_getattr_default_np(&old_), 0);
    pthread_attr_t huge;
    pthread_attr_init(&huge);
    pthread_attr_setstacksize(&huge, size_t{1} << 47);
    EXPECT_EQ(pthread_setattr_default_np(&huge), 0);
    pthread_attr_destroy(&huge);
  }
  NoNewThreads(const NoNewThreads&) = delete;
  NoNewThreads& operator=(const NoNewThreads&) = delete;
  ~NoNewThreads() { pthread_setattr_default_np(&old_); }

 private:
  pthread_attr_t old_;
};

TEST(LogThreadTest, WithoutAThreadTheCallersDoesTheWork) {
  LogThread thread;
  std::vector<std::thread::id> ids;
  std::vector<std::string> order;
  {
    const NoNewThreads none;
    thread.Post([&] {
      thread.Post([&] { order.push_back("inner"); });
      thread.Drain();
      order.push_back("outer");
      ids.push_back(std::this_thread::get_id());
    });
    EXPECT_THAT(order, ElementsAre("inner", "outer"));
    thread.Post([] { throw std::runtime_error("no"); });
    const sigset_t mask = SignalMask();
    EXPECT_EQ(sigismember(&mask, SIGINT), 0);
  }
  thread.Post([&] { ids.push_back(std::this_thread::get_id()); });
  thread.Drain();
  ASSERT_EQ(ids.size(), 2u);
  EXPECT_EQ(ids[0], std::this_thread::get_id());
  EXPECT_NE(ids[1], std::this_thread::get_id()) << "there is one again";
}

TEST(LogThreadTest, WithoutAThreadItIsStillOneAfterTheOther) {
  LogThread thread;
  int done = 0;  // Not atomic.
  std::vector<std::thread> posters;
  absl::Notification begin;
  for (int p = 0; p < 4; ++p) {
    posters.emplace_back([&] {
      begin.WaitForNotification();
      for (int i = 0; i < 1000; ++i) thread.Post([&] { ++done; });
    });
  }
  {
    const NoNewThreads none;
    begin.Notify();
    for (std::thread& poster : posters) poster.join();
  }
  thread.Drain();
  EXPECT_EQ(done, 4000);
}

TEST(ThreadedRunLogTest, KeepsTheOrderOfAllThatIsLogged) {
  MemoryRunLog log;
  LogThread thread;
  ThreadedRunLog threaded(log, thread);
  threaded.Info("a");
  thread.Post([&] { threaded.Info("b"); });
  threaded.Warning("c");
  threaded.Warning("c");
  EXPECT_THAT(threaded.Flush(), IsOk());
  EXPECT_THAT(log.messages(), ElementsAre("a", "b", "c"));
}

}  // namespace
}  // namespace grapnel
