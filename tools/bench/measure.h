// What the benchmarks measure with.

#ifndef GRAPNEL_TOOLS_BENCH_MEASURE_H_
#define GRAPNEL_TOOLS_BENCH_MEASURE_H_

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace grapnel {

// Seconds since some fixed point.
inline double Now() {
  return std::chrono::duration<double>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

// `values` isn't empty.
inline double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// Of a[i] / b[i]: what disturbs the machine for a while disturbs both.
inline double MedianRatio(const std::vector<double>& a,
                          const std::vector<double>& b) {
  std::vector<double> ratios;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    ratios.push_back(a[i] / b[i]);
  }
  return Median(std::move(ratios));
}

// Of a[i] - b[i], as above.
inline double MedianDifference(const std::vector<double>& a,
                               const std::vector<double>& b) {
  std::vector<double> differences;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    differences.push_back(a[i] - b[i]);
  }
  return Median(std::move(differences));
}

// Times each of `functions` by turns, `calls` calls at a time: seconds of a
// call, by function and block.
inline std::vector<std::vector<double>> TakeTurns(
    int blocks, int calls,
    const std::vector<std::function<void()>>& functions) {
  std::vector<std::vector<double>> times(functions.size());
  for (int block = -1; block < blocks; ++block) {  // The first one warms up.
    for (size_t f = 0; f < functions.size(); ++f) {
      const double start = Now();
      for (int i = 0; i < calls; ++i) functions[f]();
      if (block >= 0) times[f].push_back((Now() - start) / calls);
    }
  }
  return times;
}

// The A/A ratio is of a thing to itself, measured by turns with all that is
// compared. Where it leaves 0.98 to 1.02 the machine did something else in
// between, and a figure of that run says nothing about its goal.
inline bool IsResult(double a_a) { return a_a >= 0.98 && a_a <= 1.02; }

// What to print behind the A/A ratio.
inline const char* NoResult(double a_a) {
  return IsResult(a_a) ? ""
                       : "   no result: outside of 0.98 to 1.02, the machine "
                         "was disturbed; run it again";
}

// What to print behind a figure: `goal`, if there can be a verdict.
inline const char* Goal(double a_a, const char* goal) {
  return IsResult(a_a) ? goal : "";
}

// Print the error and end the program.
template <typename T>
T Value(absl::StatusOr<T> value) {
  if (!value.ok()) {
    fprintf(stderr, "%s\n", value.status().ToString().c_str());
    exit(1);
  }
  return *std::move(value);
}
inline void Check(const absl::Status& status) {
  if (!status.ok()) Value(absl::StatusOr<int>(status));
}

}  // namespace grapnel

#endif  // GRAPNEL_TOOLS_BENCH_MEASURE_H_
