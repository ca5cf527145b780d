// Random numbers for one sample.

#ifndef GRAPNEL_DATA_SAMPLE_RNG_H_
#define GRAPNEL_DATA_SAMPLE_RNG_H_

#include <cstdint>

namespace grapnel {

// A small generator whose stream depends on (seed, epoch, index) alone, `index`
// being the sample's in the dataset: a sample is augmented in the same way
// wherever in the epoch it is drawn, whichever thread does it, and after any
// resume. SplitMix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom
// number generators"). Thread-compatible. Its stream is part of the promise of
// exact resume, and never changes.
class SampleRng {
 public:
  SampleRng(uint64_t seed, uint64_t epoch, uint64_t index)
      : state_(Mix(Mix(Mix(seed) ^ epoch) ^ index)) {}

  uint64_t Next() { return Mix(state_ += kGamma); }

  // Uniform in [0, 1), with 53 random bits.
  double Uniform() { return static_cast<double>(Next() >> 11) * 0x1p-53; }

  // Uniform in [low, high).
  double Uniform(double low, double high) {
    return low + (high - low) * Uniform();
  }

  // Uniform in [0, n), n >= 1.
  int64_t Below(int64_t n) {
    return static_cast<int64_t>(
        (static_cast<unsigned __int128>(Next()) * static_cast<uint64_t>(n)) >>
        64);
  }

 private:
  static constexpr uint64_t kGamma = 0x9E3779B97F4A7C15ull;

  static uint64_t Mix(uint64_t z) {
    z += kGamma;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
  }

  uint64_t state_;
};

}  // namespace grapnel

#endif  // GRAPNEL_DATA_SAMPLE_RNG_H_
