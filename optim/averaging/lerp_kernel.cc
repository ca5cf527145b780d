#include "grapnel/optim/averaging/lerp_kernel.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <map>
#include <tuple>
#include <type_traits>
#include <utility>

#include "ATen/Parallel.h"
#include "ATen/TensorOperators.h"
#include "ATen/Version.h"
#include "ATen/ops/_foreach_add.h"
#include "ATen/ops/_foreach_lerp.h"
#include "ATen/ops/_foreach_sub.h"
#include "absl/strings/str_cat.h"
#include "c10/core/GradMode.h"
#include "c10/util/BFloat16.h"
#include "c10/util/Half.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/cuda/lerp_pair.h"
#include "grapnel/cuda/multi_tensor_lerp.h"
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace grapnel {

// The numbers of a Mixture as the loops want them, for each precision:
// average = coefficient * (source - average) + (source or average).
struct LerpCoefficients {
  explicit LerpCoefficients(const Mixture& mixture)
      : single(static_cast<float>(mixture.weight)), wide(mixture.weight) {
    if (mixture.form == Mixture::Form::kAdd) return;
    from_source_single = !(std::abs(single) < 0.5F);
    from_source_wide = !(std::abs(wide) < 0.5);
    if (from_source_single) single -= 1;
    if (from_source_wide) wide -= 1;
  }

  float single;
  double wide;
  bool from_source_single = false;
  bool from_source_wide = false;
};

namespace {

// Elements that a thread is worth waking for: below, it is done before the
// others have come.
constexpr int64_t kGrain = 65536;

// ------------------------------------------------------------------- loops
//
// LibTorch's loops contract a * b + c into one rounding where its CPU
// capability has the instruction. The loops here say which of the two they do;
// the file is compiled with -ffp-contract=off.

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
template <typename MulAdd, typename A, typename S, typename W>
void MixPlain(A* average, const S* source, int64_t n, W coefficient,
              bool from_source) {
  for (int64_t i = 0; i < n; ++i) {
    const W a = static_cast<W>(average[i]);
    const W s = static_cast<W>(source[i]);
    average[i] =
        static_cast<A>(MulAdd::MulAdd(coefficient, s - a, from_source ? s : a));
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
GRAPNEL_AVX2 void MixVectors(A* average, const S* source, int64_t n,
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
GRAPNEL_AVX2 void MixDoubles(double* average, const double* source, int64_t n,
                             double coefficient) {
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

template <typename A, typename S, typename W>
GRAPNEL_AVX2 void MixAvx2(A* average, const S* source, int64_t n, W coefficient,
                          bool from_source) {
  if constexpr (std::is_same_v<W, float>) {
    from_source ? MixVectors<true>(average, source, n, coefficient)
                : MixVectors<false>(average, source, n, coefficient);
  } else if constexpr (std::is_same_v<A, S>) {
    from_source ? MixDoubles<true>(average, source, n, coefficient)
                : MixDoubles<false>(average, source, n, coefficient);
  } else {
    for (int64_t i = 0; i < n; ++i) {
      const double a = static_cast<double>(average[i]);
      const double s = static_cast<double>(source[i]);
      average[i] = static_cast<A>(
          FusedAvx2::MulAdd(coefficient, s - a, from_source ? s : a));
    }
  }
}

// Small tensors are in the caches, where wider loads are faster; in memory they
// are not.
constexpr int64_t kMaxAvx512Elements = 4096;

template <bool kFromSource>
__attribute__((target("avx512f"))) void MixFloats512(float* average,
                                                     const float* source,
                                                     int64_t n,
                                                     float coefficient) {
  const __m512 c = _mm512_set1_ps(coefficient);
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    const __m512 a = _mm512_loadu_ps(average + i);
    const __m512 s = _mm512_loadu_ps(source + i);
    _mm512_storeu_ps(average + i, _mm512_fmadd_ps(c, _mm512_sub_ps(s, a),
                                                  kFromSource ? s : a));
  }
  if (i == n) return;
  const auto mask = static_cast<__mmask16>((1 << (n - i)) - 1);
  const __m512 a = _mm512_maskz_loadu_ps(mask, average + i);
  const __m512 s = _mm512_maskz_loadu_ps(mask, source + i);
  _mm512_mask_storeu_ps(
      average + i, mask,
      _mm512_fmadd_ps(c, _mm512_sub_ps(s, a), kFromSource ? s : a));
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

template <Instructions kInstructions, typename A, typename S, typename W>
void MixLikeLibTorch(A* average, const S* source, int64_t n, W coefficient,
                     bool from_source) {
  if constexpr (kInstructions == Instructions::kPlain) {
    MixPlain<Separate>(average, source, n, coefficient, from_source);
  } else {
    if constexpr (kInstructions == Instructions::kAvx512 &&
                  std::is_same_v<A, float> && std::is_same_v<S, float>) {
      if (n <= kMaxAvx512Elements) {
        from_source ? MixFloats512<true>(average, source, n, coefficient)
                    : MixFloats512<false>(average, source, n, coefficient);
        return;
      }
    }
    MixAvx2(average, source, n, coefficient, from_source);
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

template <Instructions, typename A, typename S, typename W>
void MixLikeLibTorch(A* average, const S* source, int64_t n, W coefficient,
                     bool from_source) {
  MixPlain<Fused>(average, source, n, coefficient, from_source);
}

#endif

template <Instructions kInstructions, typename A, typename S>
void MixBytes(char* average, const char* source, int64_t n,
              const LerpCoefficients& c) {
  auto* const a = reinterpret_cast<A*>(average);
  const auto* const s = reinterpret_cast<const S*>(source);
  if constexpr (std::is_same_v<Wide<A, S>, float>) {
    MixLikeLibTorch<kInstructions>(a, s, n, c.single, c.from_source_single);
  } else {
    MixLikeLibTorch<kInstructions>(a, s, n, c.wide, c.from_source_wide);
  }
}

using MixBytesFunction = void (*)(char*, const char*, int64_t,
                                  const LerpCoefficients&);

template <Instructions kInstructions, typename A>
constexpr std::array<MixBytesFunction, 4> LoopsOf() {
  return {&MixBytes<kInstructions, A, float>,
          &MixBytes<kInstructions, A, double>,
          &MixBytes<kInstructions, A, c10::Half>,
          &MixBytes<kInstructions, A, c10::BFloat16>};
}

// By type of the average, then of the source, in the order of kTypes.
template <Instructions kInstructions>
constexpr std::array<std::array<MixBytesFunction, 4>, 4> kLoops = {
    LoopsOf<kInstructions, float>(), LoopsOf<kInstructions, double>(),
    LoopsOf<kInstructions, c10::Half>(),
    LoopsOf<kInstructions, c10::BFloat16>()};

MixBytesFunction LoopFor(int average_type, int source_type) {
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

constexpr std::array<c10::ScalarType, 4> kTypes = {
    c10::ScalarType::Float, c10::ScalarType::Double, c10::ScalarType::Half,
    c10::ScalarType::BFloat16};

int TypeIndex(const at::Tensor& tensor) {
  const auto found =
      std::find(kTypes.begin(), kTypes.end(), tensor.scalar_type());
  return found == kTypes.end() ? -1 : static_cast<int>(found - kTypes.begin());
}

bool IsDense(const at::Tensor& tensor) {
  return tensor.device().is_cpu() && tensor.layout() == c10::kStrided &&
         tensor.has_storage() && tensor.is_non_overlapping_and_dense();
}

}  // namespace

void MixCudaGroup(std::vector<at::Tensor>& averages,
                  const std::vector<at::Tensor>& sources,
                  const Mixture& mixture) {
  const std::vector<at::Tensor>* converted = &sources;
  std::vector<at::Tensor> storage;
  if (averages[0].scalar_type() != sources[0].scalar_type()) {
    for (const at::Tensor& source : sources) {
      storage.push_back(source.to(averages[0].scalar_type()));
    }
    converted = &storage;
  }
  if (mixture.form == Mixture::Form::kLerp) {
    at::_foreach_lerp_(averages, *converted, mixture.weight);
  } else {
    const std::vector<at::Tensor> differences =
        at::_foreach_sub(*converted, averages);
    at::_foreach_add_(averages, differences, mixture.weight);
  }
}

bool Exchangeable(const at::Tensor& a, const at::Tensor& b) {
  return IsDense(a) && IsDense(b) && a.scalar_type() == b.scalar_type() &&
         a.sizes() == b.sizes() && a.strides() == b.strides();
}

void ExchangeBytes(const at::Tensor& a, const at::Tensor& b) {
  auto* const a_bytes = static_cast<char*>(a.mutable_data_ptr());
  auto* const b_bytes = static_cast<char*>(b.mutable_data_ptr());
  at::parallel_for(0, static_cast<int64_t>(a.nbytes()), kGrain * 4,
                   [&](int64_t begin, int64_t end) {
                     char buffer[4096];
                     while (begin < end) {
                       const size_t n =
                           std::min<int64_t>(sizeof(buffer), end - begin);
                       std::memcpy(buffer, a_bytes + begin, n);
                       std::memcpy(a_bytes + begin, b_bytes + begin, n);
                       std::memcpy(b_bytes + begin, buffer, n);
                       begin += static_cast<int64_t>(n);
                     }
                   });
}

absl::StatusOr<LerpKernel> LerpKernel::Create(
    std::vector<AveragedTensor> pairs) {
  for (const AveragedTensor& pair : pairs) {
    if (!pair.average.defined() || !pair.source.defined() ||
        !(pair.average.is_floating_point() || pair.average.is_complex())) {
      return absl::InvalidArgumentError(absl::StrCat(
          "tensor \"", pair.name, "\" must be floating, to be averaged"));
    }
  }
  LerpKernel kernel(std::move(pairs));
  GRAPNEL_RETURN_IF_ERROR(CatchAsStatus([&] { return kernel.Plan(); }));
  return kernel;
}

LerpKernel::Loop LerpKernel::FindLoop(const AveragedTensor& pair) {
  const int average_type = TypeIndex(pair.average);
  const int source_type = TypeIndex(pair.source);
  if (average_type < 0 || source_type < 0 || !IsDense(pair.average) ||
      !IsDense(pair.source) ||
      pair.average.strides() != pair.source.strides()) {
    return nullptr;
  }
  return LoopFor(average_type, source_type);
}

absl::Status LerpKernel::Plan() {
  planned_ = false;
  entries_.clear();
  entry_pairs_.clear();
  storages_.clear();
  launches_.clear();
  groups_.clear();
  others_.clear();
  std::map<int, std::vector<LerpPair>> on_device;
  std::map<std::tuple<int, c10::ScalarType, c10::ScalarType>, size_t> group_of;
  int64_t total = 0;
  for (size_t i = 0; i < pairs_.size(); ++i) {
    const AveragedTensor& pair = pairs_[i];
    if (pair.average.sizes() != pair.source.sizes()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "tensor \"", pair.name, "\" has another shape than its average"));
    }
    if (pair.average.numel() == 0) continue;
    if (const Loop loop = FindLoop(pair)) {
      total += pair.average.numel();
      Entry entry;
      entry.average = static_cast<char*>(pair.average.mutable_data_ptr());
      entry.source = static_cast<const char*>(pair.source.const_data_ptr());
      entry.loop = loop;
      entry.end = total;
      entry.tensor = pair.source.unsafeGetTensorImpl();
      storages_.push_back(entry.tensor->unsafe_storage());
      entry.storage = storages_.back().unsafeGetStorageImpl();
      entries_.push_back(entry);
      entry_pairs_.push_back(i);
    } else if (MultiTensorLerp::Takes({pair.average, pair.source})) {
      on_device[pair.average.device().index()].push_back(
          {pair.average, pair.source});
    } else if (pair.average.is_cuda() && pair.source.is_cuda() &&
               pair.average.device() == pair.source.device()) {
      const auto [found, added] = group_of.try_emplace(
          std::tuple(static_cast<int>(pair.average.device().index()),
                     pair.average.scalar_type(), pair.source.scalar_type()),
          groups_.size());
      if (added) groups_.emplace_back();
      Group& group = groups_[found->second];
      group.averages.push_back(pair.average);
      group.sources.push_back(pair.source);
    } else {
      others_.push_back(i);
    }
  }
  for (auto& [device, pairs] : on_device) {
    GRAPNEL_ASSIGN_OR_RETURN(std::unique_ptr<MultiTensorLerp> launch,
                             MultiTensorLerp::Create(std::move(pairs)));
    launches_.push_back(std::move(launch));
  }
  planned_ = true;
  return absl::OkStatus();
}

bool LerpKernel::SourcesMoved() const {
  return std::any_of(entries_.begin(), entries_.end(), [](const Entry& entry) {
    return entry.tensor->unsafe_storage().unsafeGetStorageImpl() !=
           entry.storage;
  });
}

void LerpKernel::MixRange(int64_t begin, int64_t end,
                          const LerpCoefficients& coefficients) const {
  auto entry = std::upper_bound(
      entries_.begin(), entries_.end(), begin,
      [](int64_t element, const Entry& e) { return element < e.end; });
  int64_t start = entry == entries_.begin() ? 0 : std::prev(entry)->end;
  for (; start < end; start = entry->end, ++entry) {
    const int64_t from = std::max(begin - start, int64_t{0});
    const int64_t to = std::min(end, entry->end) - start;
    char* average = entry->average;
    const char* source = entry->source;
    if (from > 0) {
      const AveragedTensor& pair =
          pairs_[entry_pairs_[entry - entries_.begin()]];
      average += from * static_cast<int64_t>(pair.average.element_size());
      source += from * static_cast<int64_t>(pair.source.element_size());
    }
    entry->loop(average, source, to - from, coefficients);
  }
}

absl::Status LerpKernel::Mix(const Mixture& mixture) {
  return CatchAsStatus([&]() -> absl::Status {
    if (!planned_ || SourcesMoved()) GRAPNEL_RETURN_IF_ERROR(Plan());
    if (!entries_.empty()) {
      const LerpCoefficients coefficients(mixture);
      const int64_t total = entries_.back().end;
      if (total <= kGrain) {
        MixRange(0, total, coefficients);
      } else {
        at::parallel_for(0, total, kGrain, [&](int64_t begin, int64_t end) {
          MixRange(begin, end, coefficients);
        });
      }
    }
    for (const std::unique_ptr<MultiTensorLerp>& launch : launches_) {
      GRAPNEL_RETURN_IF_ERROR(
          launch->Update(mixture.weight, mixture.form == Mixture::Form::kAdd
                                             ? LerpForm::kAdd
                                             : LerpForm::kLerp));
    }
    if (groups_.empty() && others_.empty()) return absl::OkStatus();
    const c10::NoGradGuard no_grad;
    for (Group& group : groups_) {
      MixCudaGroup(group.averages, group.sources, mixture);
    }
    for (const size_t i : others_) {
      const at::Tensor& average = pairs_[i].average;
      const at::Tensor source =
          pairs_[i].source.to(average.device(), average.scalar_type());
      if (mixture.form == Mixture::Form::kLerp) {
        average.lerp_(source, mixture.weight);
      } else {
        average.add_(source - average, mixture.weight);
      }
    }
    return absl::OkStatus();
  });
}

}  // namespace grapnel
