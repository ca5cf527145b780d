#include "grapnel/optim/averaging/lerp_loops.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <type_traits>

#include "ATen/Version.h"
#include "c10/util/BFloat16.h"
#include "c10/util/Half.h"
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace grapnel {
namespace {

// LibTorch's loops contract a * b + c into one rounding where its CPU
// capability has the instruction. The loops here say which of the two they do;
// the file is compiled with -ffp-contract=off. Each goes over many spans: of
// small ones, a call each would cost more than the arithmetic.

struct Separate {
  static float MulAdd(float a, float b, float c) { return a * b + c; }
  static double MulAdd(double a, double b, double c) { return a * b + c; }
};

// What arithmetic is done in: double if one of the two is.
template <typename A, typename S>
using Wide =
    std::conditional_t<std::is_same_v<A, double> || std::is_same_v<S, double>,
                       double, float>;

// Any processor.
template <typename MulAdd, bool kFromSource, typename A, typename S, typename W>
void MixPlain(const LerpSpan* spans, size_t count, W coefficient) {
  for (const LerpSpan* span = spans; span != spans + count; ++span) {
    auto* const average = reinterpret_cast<A*>(span->average);
    const auto* const source = reinterpret_cast<const S*>(span->source);
    for (int64_t i = 0; i < span->n; ++i) {
      const W a = static_cast<W>(average[i]);
      const W s = static_cast<W>(source[i]);
      average[i] = static_cast<A>(
          MulAdd::MulAdd(coefficient, s - a, kFromSource ? s : a));
    }
  }
}

#if defined(__x86_64__)

#define GRAPNEL_AVX2 __attribute__((target("avx2,fma,f16c")))
#define GRAPNEL_AVX2_INLINE \
  inline __attribute__((always_inline, target("avx2,fma,f16c")))

struct FusedAvx2 {
  static GRAPNEL_AVX2_INLINE float MulAdd(float a, float b, float c) {
    return _mm_cvtss_f32(
        _mm_fmadd_ss(_mm_set_ss(a), _mm_set_ss(b), _mm_set_ss(c)));
  }
  static GRAPNEL_AVX2_INLINE double MulAdd(double a, double b, double c) {
    return _mm_cvtsd_f64(
        _mm_fmadd_sd(_mm_set_sd(a), _mm_set_sd(b), _mm_set_sd(c)));
  }
};

GRAPNEL_AVX2_INLINE __m256 Load8(const float* p) { return _mm256_loadu_ps(p); }
GRAPNEL_AVX2_INLINE __m256 Load8(const c10::Half* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
GRAPNEL_AVX2_INLINE __m256 Load8(const c10::BFloat16* p) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(
      _mm256_cvtepu16_epi32(
          _mm_loadu_si128(reinterpret_cast<const __m128i*>(p))),
      16));
}

GRAPNEL_AVX2_INLINE void Store8(float* p, __m256 x) { _mm256_storeu_ps(p, x); }
GRAPNEL_AVX2_INLINE void Store8(c10::Half* p, __m256 x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                   _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
}
// Rounds to nearest, ties to even, and keeps a NaN one, as c10::BFloat16.
GRAPNEL_AVX2_INLINE void Store8(c10::BFloat16* p, __m256 x) {
  const __m256i bits = _mm256_castps_si256(x);
  const __m256i odd =
      _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_srli_epi32(
      _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF))),
      16);
  const __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
  const __m256i words =
      _mm256_blendv_epi8(rounded, _mm256_set1_epi32(0x7FC0), is_nan);
  // Packs within its two lanes; the quarters are put together after.
  const __m256i packed = _mm256_permute4x64_epi64(
      _mm256_packus_epi32(words, words), _MM_SHUFFLE(3, 1, 2, 0));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                   _mm256_castsi256_si128(packed));
}

template <bool kFromSource, typename A, typename S>
GRAPNEL_AVX2_INLINE void Mix8(A* average, const S* source, __m256 coefficient) {
  const __m256 a = Load8(average);
  const __m256 s = Load8(source);
  Store8(average, _mm256_fmadd_ps(coefficient, _mm256_sub_ps(s, a),
                                  kFromSource ? s : a));
}

template <bool kFromSource, typename A, typename S>
GRAPNEL_AVX2_INLINE void MixVectors(A* average, const S* source, int64_t n,
                                    float coefficient) {
  const __m256 c = _mm256_set1_ps(coefficient);
  int64_t i = 0;
  for (; i + 32 <= n; i += 32) {
    Mix8<kFromSource>(average + i, source + i, c);
    Mix8<kFromSource>(average + i + 8, source + i + 8, c);
    Mix8<kFromSource>(average + i + 16, source + i + 16, c);
    Mix8<kFromSource>(average + i + 24, source + i + 24, c);
  }
  for (; i + 8 <= n; i += 8) {
    Mix8<kFromSource>(average + i, source + i, c);
  }
  for (; i < n; ++i) {
    const float a = static_cast<float>(average[i]);
    const float s = static_cast<float>(source[i]);
    average[i] = static_cast<A>(
        FusedAvx2::MulAdd(coefficient, s - a, kFromSource ? s : a));
  }
}

template <bool kFromSource>
GRAPNEL_AVX2_INLINE void MixDoubles(double* average, const double* source,
                                    int64_t n, double coefficient) {
  const __m256d c = _mm256_set1_pd(coefficient);
  int64_t i = 0;
  for (; i + 4 <= n; i += 4) {
    const __m256d a = _mm256_loadu_pd(average + i);
    const __m256d s = _mm256_loadu_pd(source + i);
    _mm256_storeu_pd(average + i, _mm256_fmadd_pd(c, _mm256_sub_pd(s, a),
                                                  kFromSource ? s : a));
  }
  for (; i < n; ++i) {
    const double a = average[i];
    const double s = source[i];
    average[i] = FusedAvx2::MulAdd(coefficient, s - a, kFromSource ? s : a);
  }
}

template <bool kFromSource, typename A, typename S, typename W>
GRAPNEL_AVX2 void MixAvx2(const LerpSpan* spans, size_t count, W coefficient) {
  for (const LerpSpan* span = spans; span != spans + count; ++span) {
    auto* const average = reinterpret_cast<A*>(span->average);
    const auto* const source = reinterpret_cast<const S*>(span->source);
    if constexpr (std::is_same_v<W, float>) {
      MixVectors<kFromSource>(average, source, span->n, coefficient);
    } else if constexpr (std::is_same_v<A, S>) {
      MixDoubles<kFromSource>(average, source, span->n, coefficient);
    } else {
      for (int64_t i = 0; i < span->n; ++i) {
        const double a = static_cast<double>(average[i]);
        const double s = static_cast<double>(source[i]);
        average[i] = static_cast<A>(
            FusedAvx2::MulAdd(coefficient, s - a, kFromSource ? s : a));
      }
    }
  }
}

// Small tensors are in the caches, where wider loads are faster; in memory they
// are not.
constexpr int64_t kMaxAvx512Elements = 4096;

template <bool kFromSource>
__attribute__((target("avx512f"))) void MixFloats512(const LerpSpan* spans,
                                                     size_t count,
                                                     float coefficient) {
  const __m512 c = _mm512_set1_ps(coefficient);
  for (const LerpSpan* span = spans; span != spans + count; ++span) {
    auto* const average = reinterpret_cast<float*>(span->average);
    const auto* const source = reinterpret_cast<const float*>(span->source);
    const int64_t n = span->n;
    if (n > kMaxAvx512Elements) {
      MixAvx2<kFromSource, float, float>(span, 1, coefficient);
      continue;
    }
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) {
      const __m512 a = _mm512_loadu_ps(average + i);
      const __m512 s = _mm512_loadu_ps(source + i);
      _mm512_storeu_ps(average + i, _mm512_fmadd_ps(c, _mm512_sub_ps(s, a),
                                                    kFromSource ? s : a));
    }
    if (i == n) continue;
    const auto mask = static_cast<__mmask16>((1 << (n - i)) - 1);
    const __m512 a = _mm512_maskz_loadu_ps(mask, average + i);
    const __m512 s = _mm512_maskz_loadu_ps(mask, source + i);
    _mm512_mask_storeu_ps(
        average + i, mask,
        _mm512_fmadd_ps(c, _mm512_sub_ps(s, a), kFromSource ? s : a));
  }
}

enum class Instructions { kPlain, kAvx2, kAvx512 };

// Those of LibTorch's own loops: with the first it rounds twice.
Instructions LibTorchInstructions() {
  static const Instructions instructions = [] {
    const std::string capability = at::get_cpu_capability();
    return capability == "AVX512" ? Instructions::kAvx512
           : capability == "AVX2" ? Instructions::kAvx2
                                  : Instructions::kPlain;
  }();
  return instructions;
}

template <Instructions kInstructions, bool kFromSource, typename A, typename S,
          typename W>
void MixLikeLibTorch(const LerpSpan* spans, size_t count, W coefficient) {
  if constexpr (kInstructions == Instructions::kPlain) {
    MixPlain<Separate, kFromSource, A, S>(spans, count, coefficient);
  } else if constexpr (kInstructions == Instructions::kAvx512 &&
                       std::is_same_v<A, float> && std::is_same_v<S, float>) {
    MixFloats512<kFromSource>(spans, count, coefficient);
  } else {
    MixAvx2<kFromSource, A, S>(spans, count, coefficient);
  }
}

#else

enum class Instructions { kPlain };

// Every other processor of ours has the instruction, and LibTorch uses it.
struct Fused {
  static float MulAdd(float a, float b, float c) {
    return __builtin_fmaf(a, b, c);
  }
  static double MulAdd(double a, double b, double c) {
    return __builtin_fma(a, b, c);
  }
};

template <Instructions, bool kFromSource, typename A, typename S, typename W>
void MixLikeLibTorch(const LerpSpan* spans, size_t count, W coefficient) {
  MixPlain<Fused, kFromSource, A, S>(spans, count, coefficient);
}

#endif

template <Instructions kInstructions, typename A, typename S>
void Mix(const LerpSpan* spans, size_t count, const LerpCoefficients& c) {
  if constexpr (std::is_same_v<Wide<A, S>, float>) {
    c.from_source_single
        ? MixLikeLibTorch<kInstructions, true, A, S>(spans, count, c.single)
        : MixLikeLibTorch<kInstructions, false, A, S>(spans, count, c.single);
  } else {
    c.from_source_wide
        ? MixLikeLibTorch<kInstructions, true, A, S>(spans, count, c.wide)
        : MixLikeLibTorch<kInstructions, false, A, S>(spans, count, c.wide);
  }
}

template <Instructions kInstructions, typename A>
constexpr std::array<LerpLoop, 4> LoopsOf() {
  return {&Mix<kInstructions, A, float>, &Mix<kInstructions, A, double>,
          &Mix<kInstructions, A, c10::Half>,
          &Mix<kInstructions, A, c10::BFloat16>};
}

// By type of the average, then of the source, in the order of kTypes.
template <Instructions kInstructions>
constexpr std::array<std::array<LerpLoop, 4>, 4> kLoops = {
    LoopsOf<kInstructions, float>(), LoopsOf<kInstructions, double>(),
    LoopsOf<kInstructions, c10::Half>(),
    LoopsOf<kInstructions, c10::BFloat16>()};

constexpr std::array<c10::ScalarType, 4> kTypes = {
    c10::ScalarType::Float, c10::ScalarType::Double, c10::ScalarType::Half,
    c10::ScalarType::BFloat16};

// -1 if there is none.
int TypeIndex(c10::ScalarType type) {
  const auto found = std::find(kTypes.begin(), kTypes.end(), type);
  return found == kTypes.end() ? -1 : static_cast<int>(found - kTypes.begin());
}

}  // namespace

LerpCoefficients::LerpCoefficients(const Mixture& mixture)
    : single(static_cast<float>(mixture.weight)), wide(mixture.weight) {
  if (mixture.form == Mixture::Form::kAdd) return;
  from_source_single = !(std::abs(single) < 0.5F);
  from_source_wide = !(std::abs(wide) < 0.5);
  if (from_source_single) single -= 1;
  if (from_source_wide) wide -= 1;
}

LerpLoop FindLerpLoop(c10::ScalarType average, c10::ScalarType source) {
  const int average_type = TypeIndex(average);
  const int source_type = TypeIndex(source);
  if (average_type < 0 || source_type < 0) return nullptr;
#if defined(__x86_64__)
  if (LibTorchInstructions() == Instructions::kAvx512) {
    return kLoops<Instructions::kAvx512>[average_type][source_type];
  }
  if (LibTorchInstructions() == Instructions::kAvx2) {
    return kLoops<Instructions::kAvx2>[average_type][source_type];
  }
#endif
  return kLoops<Instructions::kPlain>[average_type][source_type];
}

}  // namespace grapnel
