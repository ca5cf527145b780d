// What operators cost, as a table for people.

#ifndef GRAPNEL_HOOKS_PROFILER_OP_TABLE_H_
#define GRAPNEL_HOOKS_PROFILER_OP_TABLE_H_

#include <cstdint>
#include <string>
#include <vector>

namespace grapnel {

// One call of an operator.
struct OpCall {
  std::string name;
  uint64_t thread = 0;
  int64_t start_nanos = 0;
  int64_t duration_nanos = 0;
};

enum class OpOrder { kSelfTime, kTotalTime, kCount };

// A row for each name, the greatest by `order` first, at most `row_limit`.
// Calls of one thread that lie inside another call are its children, and no
// part of its self time. Steps of a profile are one name, "ProfilerStep*".
std::string OpTable(std::vector<OpCall> calls, OpOrder order,
                    int64_t row_limit);

}  // namespace grapnel

#endif  // GRAPNEL_HOOKS_PROFILER_OP_TABLE_H_
