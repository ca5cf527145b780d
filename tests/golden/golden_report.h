// The assertion that a case of a golden file holds, and the note of it for the
// table in tests/golden/README.md.

#ifndef GRAPNEL_TESTS_GOLDEN_GOLDEN_REPORT_H_
#define GRAPNEL_TESTS_GOLDEN_GOLDEN_REPORT_H_

#include <cstdio>
#include <string>
#include <utility>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace grapnel {

// A case, and how ours differs from it.
//
// `file`: "scheduler_StepLR.json". `name`: "<section>/<case>", the case by its
// "name" or else by its index ("cases/window_2_8", "errors/3"), "<section>/*"
// for all of a section, "<section>" for one that is no list. `difference`: ""
// if ours is the same, else how it differs and why, in a few words ("c17: never
// smoothed").
struct GoldenCase {
  GoldenCase(std::string file, std::string name, std::string difference = "")
      : file(std::move(file)),
        name(std::move(name)),
        difference(std::move(difference)) {}

  std::string file;
  std::string name;
  std::string difference;
};

// EXPECT_THAT(value, matcher) which, if it holds, notes the case in the test's
// log. What it compares is the case: ours with the golden file's, or, with a
// difference, with what ours is said to be. A test that fails counts for
// nothing, whatever it noted.
//
//   EXPECT_GOLDEN(GoldenCase("calls.json", "priority"), runner->HookNames(),
//                 Eq(expected));
#define EXPECT_GOLDEN(golden_case, value, matcher)                        \
  EXPECT_PRED_FORMAT1(::grapnel::internal_golden_report::NotingPredicate( \
                          golden_case, matcher),                          \
                      value)

namespace internal_golden_report {

// As EXPECT_PRED_FORMAT1 takes them.
template <typename M>
class NotingPredicate {
 public:
  NotingPredicate(GoldenCase golden, M matcher)
      : golden_(std::move(golden)), matcher_(std::move(matcher)) {}

  template <typename T>
  testing::AssertionResult operator()(const char* text, const T& value) const {
    testing::StringMatchResultListener listener;
    if (testing::ExplainMatchResult(matcher_, value, &listener)) {
      std::printf("[golden]\t%s\t%s\t%s\n", golden_.file.c_str(),
                  golden_.name.c_str(), golden_.difference.c_str());
      return testing::AssertionSuccess();
    }
    const std::string why = listener.str();
    return testing::AssertionFailure()
           << "Value of: " << text
           << "\nExpected: " << testing::DescribeMatcher<const T&>(matcher_)
           << "\n  Actual: " << testing::PrintToString(value)
           << (why.empty() ? "" : ", ") << why;
  }

 private:
  const GoldenCase golden_;
  const M matcher_;
};

}  // namespace internal_golden_report
}  // namespace grapnel

#endif  // GRAPNEL_TESTS_GOLDEN_GOLDEN_REPORT_H_
