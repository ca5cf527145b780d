// What the schedulers with a cosine in them share.

#ifndef GRAPNEL_OPTIM_SCHEDULERS_COSINE_H_
#define GRAPNEL_OPTIM_SCHEDULERS_COSINE_H_

#include <cmath>
#include <cstdint>

namespace grapnel {

inline constexpr double kPi = 3.141592653589793;

// By what half a cosine of `period` steps goes down from step t - 1 to step t,
// above its floor. The order of operations is MMEngine's, and tests/golden
// compares every bit: compile it without contraction.
inline double CosineRatio(int64_t t, double period) {
  const double now = 1 + std::cos(kPi * static_cast<double>(t) / period);
  const double before = 1 + std::cos(kPi * static_cast<double>(t - 1) / period);
  return now / before;
}

}  // namespace grapnel

#endif  // GRAPNEL_OPTIM_SCHEDULERS_COSINE_H_
