#include "grapnel/hooks/profiler/op_table.h"

#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace grapnel {
namespace {

constexpr int64_t kMilli = 1000000;

// linear calls addmm; another thread works at the same time.
std::vector<OpCall> Calls() {
  return {{"aten::addmm", 1, 2 * kMilli, 5 * kMilli},
          {"ProfilerStep#0", 1, 0, 10 * kMilli},
          {"aten::linear", 1, 1 * kMilli, 7 * kMilli},
          {"aten::relu", 1, 8 * kMilli, 1 * kMilli},
          {"aten::relu", 2, 3 * kMilli, 3 * kMilli},
          {"ProfilerStep#1", 1, 10 * kMilli, 2 * kMilli}};
}

TEST(OpTableTest, SelfTimeIsWithoutTheCallsInside) {
  EXPECT_EQ(
      OpTable(Calls(), OpOrder::kSelfTime, 10),
      "Name           Self CPU %      Self CPU     CPU total  CPU time avg     "
      "Calls\n"
      "aten::addmm        33.33%       5.000ms       5.000ms       5.000ms     "
      "    1\n"
      "ProfilerStep*      26.67%       4.000ms      12.000ms       6.000ms     "
      "    2\n"
      "aten::relu         26.67%       4.000ms       4.000ms       2.000ms     "
      "    2\n"
      "aten::linear       13.33%       2.000ms       7.000ms       7.000ms     "
      "    1\n"
      "Self CPU time total: 15.000ms");
}

std::string FirstName(OpOrder order) {
  const std::string table = OpTable(Calls(), order, 1);
  const size_t begin = table.find('\n') + 1;
  return table.substr(begin, table.find(' ', begin) - begin);
}

TEST(OpTableTest, GreatestComesFirst) {
  EXPECT_EQ(FirstName(OpOrder::kSelfTime), "aten::addmm");
  EXPECT_EQ(FirstName(OpOrder::kTotalTime), "ProfilerStep*");
  EXPECT_EQ(FirstName(OpOrder::kCount), "ProfilerStep*");
}

TEST(OpTableTest, NothingIsAnEmptyTable) {
  EXPECT_EQ(OpTable({}, OpOrder::kCount, 10),
            "Name  Self CPU %      Self CPU     CPU total  CPU time avg     "
            "Calls\nSelf CPU time total: 0.000ms");
}

}  // namespace
}  // namespace grapnel
