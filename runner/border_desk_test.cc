#include "grapnel/runner/border_desk.h"

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using Moment = BorderDesk::Moment;
using Outcome = BorderDesk::Outcome;

using ::testing::ElementsAre;

// Notes when it was asked to, and by whom.
struct Noted {
  BorderDesk::Work Work(Moment refused = Moment::kBorder) {
    return [this, refused](Moment moment) {
      moments.push_back(moment);
      thread = std::this_thread::get_id();
      return moment == Moment::kBorder || moment != refused;
    };
  }
  std::vector<Moment> moments;
  std::thread::id thread;
};

TEST(BorderDeskTest, BetweenCallsWhoAsksDoesIt) {
  BorderDesk desk;
  Noted noted;
  EXPECT_EQ(desk.Do(noted.Work()), Outcome::kDone);
  { const BorderDesk::Call call(&desk); }
  EXPECT_EQ(desk.Do(noted.Work()), Outcome::kDone);
  EXPECT_THAT(noted.moments, ElementsAre(Moment::kBorder, Moment::kBorder));
  EXPECT_EQ(noted.thread, std::this_thread::get_id());
}

TEST(BorderDeskTest, InACallItsThreadDoesItAtABorder) {
  BorderDesk desk;
  Noted noted;
  std::atomic<bool> done{false};
  const BorderDesk::Call call(&desk);
  std::thread other([&] {
    EXPECT_EQ(desk.Do(noted.Work()), Outcome::kDone);
    done = true;
  });
  while (!done) {
    desk.AtBorder();
    std::this_thread::yield();
  }
  other.join();
  EXPECT_THAT(noted.moments, ElementsAre(Moment::kBorder));
  EXPECT_EQ(noted.thread, std::this_thread::get_id());
}

TEST(BorderDeskTest, AnEvaluationServesThoseWhoCanBeServed) {
  BorderDesk desk;
  Noted picky, easy;
  std::atomic<int> done{0};
  std::vector<std::thread> threads;
  {
    const BorderDesk::Call call(&desk);
    for (const bool refuses : {true, false}) {
      threads.emplace_back([&, refuses] {
        const auto work =
            refuses ? picky.Work(Moment::kEvaluation) : easy.Work();
        EXPECT_EQ(desk.Do(work), Outcome::kDone);
        ++done;
      });
    }
    // Until the one is done and the other was asked.
    while (done == 0 || picky.moments.empty()) {
      desk.AtEvaluationBorder();
      std::this_thread::yield();
    }
    EXPECT_EQ(done, 1);
    while (done < 2) {
      desk.AtBorder();
      std::this_thread::yield();
    }
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(easy.moments, ElementsAre(Moment::kEvaluation));
  EXPECT_EQ(picky.moments.front(), Moment::kEvaluation);
  EXPECT_EQ(picky.moments.back(), Moment::kBorder);
}

TEST(BorderDeskTest, TheEndOfACallLetsThoseDoItWhoWait) {
  for (int i = 0; i < 100; ++i) {
    BorderDesk desk;
    Noted noted;
    std::thread other;
    {
      const BorderDesk::Call call(&desk);
      const BorderDesk::Call inner(&desk);  // As a hook's, of that thread.
      other = std::thread(
          [&] { EXPECT_EQ(desk.Do(noted.Work()), Outcome::kDone); });
    }
    other.join();
    EXPECT_THAT(noted.moments, ElementsAre(Moment::kBorder));
    EXPECT_NE(noted.thread, std::this_thread::get_id());
  }
}

TEST(BorderDeskTest, ACallsOwnThreadIsNotKeptWaiting) {
  BorderDesk desk;
  Noted noted;
  const BorderDesk::Call call(&desk);
  EXPECT_EQ(desk.Do(noted.Work()), Outcome::kDone);
  EXPECT_EQ(desk.Do(noted.Work(Moment::kHook)), Outcome::kNotNow);
  EXPECT_THAT(noted.moments, ElementsAre(Moment::kHook, Moment::kHook));
}

TEST(BorderDeskTest, NothingIsDoneOnceItIsClosed) {
  BorderDesk desk;
  Noted noted;
  desk.Close();
  EXPECT_EQ(desk.Do(noted.Work()), Outcome::kClosed);
  EXPECT_TRUE(noted.moments.empty());
}

TEST(BorderDeskTest, OnlyOneIsAtItAtATime) {
  BorderDesk desk;
  int64_t steps = 0;  // What all of them touch.
  std::atomic<bool> stop{false};
  std::atomic<int64_t> asked{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&] {
      while (!stop) {
        EXPECT_EQ(desk.Do([&](Moment) {
          ++steps;
          return true;
        }),
                  Outcome::kDone);
        ++asked;
      }
    });
  }
  int64_t own = 0;
  while (asked < 3000) {  // Calls come to their turn meanwhile.
    const BorderDesk::Call call(&desk);
    for (int i = 0; i < 3; ++i, ++own) {
      ++steps;
      desk.AtBorder();
    }
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(steps, own + asked);
}

}  // namespace
}  // namespace grapnel
