// The loops of LerpKernel, for each pair of types and each kind of processor.

#ifndef GRAPNEL_OPTIM_AVERAGING_LERP_LOOPS_H_
#define GRAPNEL_OPTIM_AVERAGING_LERP_LOOPS_H_

#include <cstddef>
#include <cstdint>

#include "c10/core/ScalarType.h"
#include "grapnel/optim/averaging/mixture.h"

namespace grapnel {

// Elements of a pair that lie in a row.
struct LerpSpan {
  char* average;
  const char* source;
  int64_t n;
};

// The numbers of a Mixture as the loops want them, for each precision:
// average = coefficient * (source - average) + (source or average).
struct LerpCoefficients {
  explicit LerpCoefficients(const Mixture& mixture);

  float single;
  double wide;
  bool from_source_single = false;
  bool from_source_wide = false;
};

// Averages `count` spans, one after the other: of small ones, a call each would
// cost more than the arithmetic.
using LerpLoop = void (*)(const LerpSpan* spans, size_t count,
                          const LerpCoefficients& coefficients);

// The loop for those types whose bits are those of LibTorch's loops, at the
// process's CPU capability. Null if there is none: they are for float32,
// float64, float16 and bfloat16.
LerpLoop FindLerpLoop(c10::ScalarType average, c10::ScalarType source);

}  // namespace grapnel

#endif  // GRAPNEL_OPTIM_AVERAGING_LERP_LOOPS_H_
