// What one thread of the kernel does. The host can run it too: that is how it
// is tested where there is no device.

#ifndef GRAPNEL_CUDA_MULTI_TENSOR_LERP_THREAD_H_
#define GRAPNEL_CUDA_MULTI_TENSOR_LERP_THREAD_H_

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cmath>
#include <cstdint>
#include <type_traits>

#include "grapnel/cuda/lerp_chunk.h"

// Loops over arrays that have to stay in registers.
#ifdef __CUDA_ARCH__
#define GRAPNEL_UNROLL _Pragma("unroll")
#else
#define GRAPNEL_UNROLL
#endif

namespace grapnel {
namespace internal_multi_tensor_lerp {

constexpr int kThreads = 256;
// Loads that a thread has under way before it needs the first.
constexpr int kLoads = 4;

// The type to calculate in.
template <typename Dst, typename Src>
using Math = std::conditional_t<
    std::is_same_v<Dst, double> || std::is_same_v<Src, double>, double, float>;

__host__ __device__ inline float ToMath(float x) { return x; }
__host__ __device__ inline double ToMath(double x) { return x; }
__host__ __device__ inline float ToMath(__half x) { return __half2float(x); }
__host__ __device__ inline float ToMath(__nv_bfloat16 x) {
  return __bfloat162float(x);
}

// From double by way of float, as LibTorch's types do.
template <typename Dst, typename M>
__host__ __device__ Dst FromMath(M x) {
  if constexpr (std::is_same_v<Dst, __half>) {
    return __float2half_rn(static_cast<float>(x));
  } else if constexpr (std::is_same_v<Dst, __nv_bfloat16>) {
    return __float2bfloat16_rn(static_cast<float>(x));
  } else {
    return static_cast<Dst>(x);
  }
}

__host__ __device__ inline float Fma(float a, float b, float c) {
  return fmaf(a, b, c);
}
__host__ __device__ inline double Fma(double a, double b, double c) {
  return fma(a, b, c);
}

// at::lerp's two formulas, made one by what is known before:
//   |weight| < 0.5    dst + weight * (src - dst)
//   else              src + (weight - 1) * (src - dst)
template <typename M>
struct Formula {
  Formula(double weight, bool always_from_dst)
      : from_dst(always_from_dst || std::abs(static_cast<M>(weight)) < M(0.5)),
        coefficient(from_dst ? static_cast<M>(weight)
                             : static_cast<M>(weight) - M(1)) {}

  __host__ __device__ M operator()(M dst, M src) const {
    return Fma(coefficient, src - dst, from_dst ? dst : src);
  }

  bool from_dst;
  M coefficient;
};

template <typename Dst, typename Src>
__host__ __device__ Dst Element(Dst dst, Src src,
                                const Formula<Math<Dst, Src>>& formula) {
  using M = Math<Dst, Src>;
  return FromMath<Dst>(
      formula(static_cast<M>(ToMath(dst)), static_cast<M>(ToMath(src))));
}

template <typename Dst, typename Src>
constexpr int kVectorElements = LerpVectorElements(sizeof(Dst), sizeof(Src));

// What is loaded and stored by one instruction.
template <typename T, int n>
struct alignas(sizeof(T) * n) Vector {
  T elements[n];
};

// The part of `chunk` of thread `thread` of kThreads. Neighbouring threads
// touch neighbouring memory.
template <typename Dst, typename Src>
__host__ __device__ void UpdateAsThread(
    const LerpChunk& chunk, uint32_t thread,
    const Formula<Math<Dst, Src>>& formula) {
  constexpr int kVector = kVectorElements<Dst, Src>;
  constexpr uint32_t kStep = kThreads * kVector;
  static_assert(kLerpChunkElements % kStep == 0, "a chunk would be misaligned");
  auto* dst = static_cast<Dst*>(chunk.dst);
  const auto* src = static_cast<const Src*>(chunk.src);

  const uint32_t in_vectors =
      chunk.aligned ? chunk.count / kVector * kVector : 0;
  for (uint32_t first = thread * kVector; first < in_vectors;
       first += kStep * kLoads) {
    Vector<Dst, kVector> old[kLoads];
    Vector<Src, kVector> now[kLoads];
    GRAPNEL_UNROLL
    for (int load = 0; load < kLoads; ++load) {
      const uint32_t i = first + load * kStep;
      if (i < in_vectors) {
        old[load] = *reinterpret_cast<const Vector<Dst, kVector>*>(dst + i);
        now[load] = *reinterpret_cast<const Vector<Src, kVector>*>(src + i);
      }
    }
    GRAPNEL_UNROLL
    for (int load = 0; load < kLoads; ++load) {
      const uint32_t i = first + load * kStep;
      if (i < in_vectors) {
        GRAPNEL_UNROLL
        for (int e = 0; e < kVector; ++e) {
          old[load].elements[e] = Element<Dst, Src>(
              old[load].elements[e], now[load].elements[e], formula);
        }
        *reinterpret_cast<Vector<Dst, kVector>*>(dst + i) = old[load];
      }
    }
  }
  for (uint32_t i = in_vectors + thread; i < chunk.count; i += kThreads) {
    dst[i] = Element<Dst, Src>(dst[i], src[i], formula);
  }
}

}  // namespace internal_multi_tensor_lerp
}  // namespace grapnel

#endif  // GRAPNEL_CUDA_MULTI_TENSOR_LERP_THREAD_H_
