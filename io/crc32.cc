#include "grapnel/io/crc32.h"

#include <zlib.h>

#include <cstddef>

#ifdef __x86_64__
#include <immintrin.h>
#endif

namespace grapnel {
namespace io {
namespace {

uint32_t ZlibCrc32(absl::string_view data, uint32_t crc) {
  return static_cast<uint32_t>(
      ::crc32_z(crc, reinterpret_cast<const Bytef*>(data.data()), data.size()));
}

#ifdef __x86_64__

constexpr size_t kLane = 16;
constexpr size_t kStep = 4 * kLane;

// Powers of x modulo the polynomial, bits reversed: they move a lane's two
// halves ahead by as many bits.
constexpr int64_t k544Bits = 0x154442bd4;
constexpr int64_t k480Bits = 0x1c6e41596;
constexpr int64_t k160Bits = 0x1751997d0;
constexpr int64_t k96Bits = 0x0ccaa009e;

__attribute__((target("pclmul"))) inline __m128i Load(const char* p) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
}

// What has the remainder of `lane` where `next` lies, and `next` itself.
__attribute__((target("pclmul"))) inline __m128i Fold(__m128i lane,
                                                      __m128i powers,
                                                      __m128i next) {
  const __m128i low = _mm_clmulepi64_si128(lane, powers, 0x00);
  const __m128i high = _mm_clmulepi64_si128(lane, powers, 0x11);
  return _mm_xor_si128(next, _mm_xor_si128(low, high));
}

// Folds all steps of `data`, at least one, into 16 bytes of the same remainder,
// by carry-less multiplication: more than twice as fast as zlib.
__attribute__((target("pclmul"))) uint32_t FoldedCrc32(absl::string_view data,
                                                       uint32_t crc) {
  const char* p = data.data();
  const char* const end = p + data.size() / kStep * kStep;
  // No loop over an array: the compiler would keep it in memory.
  __m128i a = Load(p);
  __m128i b = Load(p + kLane);
  __m128i c = Load(p + 2 * kLane);
  __m128i d = Load(p + 3 * kLane);
  a = _mm_xor_si128(a, _mm_cvtsi32_si128(static_cast<int>(~crc)));
  const __m128i by_step = _mm_set_epi64x(k480Bits, k544Bits);
  for (p += kStep; p != end; p += kStep) {
    a = Fold(a, by_step, Load(p));
    b = Fold(b, by_step, Load(p + kLane));
    c = Fold(c, by_step, Load(p + 2 * kLane));
    d = Fold(d, by_step, Load(p + 3 * kLane));
  }
  const __m128i by_lane = _mm_set_epi64x(k96Bits, k160Bits);
  const __m128i lane = Fold(Fold(Fold(a, by_lane, b), by_lane, c), by_lane, d);
  char rest[kLane];
  _mm_storeu_si128(reinterpret_cast<__m128i*>(rest), lane);
  // zlib inverts what it begins with: that makes it 0, for the remainder alone.
  crc = ZlibCrc32({rest, kLane}, 0xffffffff);
  return ZlibCrc32(data.substr(data.size() / kStep * kStep), crc);
}

#endif

}  // namespace

uint32_t Crc32(absl::string_view data, uint32_t crc) {
#ifdef __x86_64__
  static const bool has_pclmul = __builtin_cpu_supports("pclmul");
  if (has_pclmul && data.size() >= kStep) return FoldedCrc32(data, crc);
#endif
  return ZlibCrc32(data, crc);
}

uint32_t JoinCrc32(uint32_t first, uint32_t second, int64_t second_size) {
  return static_cast<uint32_t>(::crc32_combine(first, second, second_size));
}

}  // namespace io
}  // namespace grapnel
