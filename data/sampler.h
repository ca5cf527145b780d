// The order that samples are drawn in.

#ifndef GRAPNEL_DATA_SAMPLER_H_
#define GRAPNEL_DATA_SAMPLER_H_

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"

namespace grapnel::data::v1 {
class SamplerConfig;
}  // namespace grapnel::data::v1

namespace grapnel {

// The order in which one rank draws samples, as a function of the position:
// nothing is drawn or skipped to get to a later one. Thread-compatible.
class Sampler {
 public:
  virtual ~Sampler() = default;

  // Samples that this rank draws in one pass over the dataset, >= 1.
  virtual int64_t size() const = 0;

  // True if positions go on for ever.
  virtual bool infinite() const = 0;

  // Samples that rank `rank` draws in what is left of a pass behind its first
  // `begin` samples, of all ranks; 0 <= begin < dataset_size. May be 0 without
  // rounding up.
  virtual int64_t SizeBehind(int64_t begin, int rank) const = 0;

  // Chooses the order of `epoch`, >= 0, behind its first `begin` samples, of
  // all ranks: what is left is shared out, from position 0 on, as a whole pass
  // is. Of an infinite sampler it goes on with the passes after that one.
  virtual void SetEpoch(int64_t epoch, int64_t begin) = 0;

  // Index in the dataset of the sample at `position`, >= 0 and, unless
  // infinite, < SizeBehind(begin, rank). Cheap for positions that follow one
  // another.
  virtual int64_t At(int64_t position) = 0;
};

struct SamplerOptions {
  int64_t dataset_size = 0;  // >= 1
  int64_t seed = 0;
  int rank = 0;  // 0 <= rank < world_size
  int world_size = 1;
};

// Default sampler: with `shuffle`, epoch e is at::randperm(dataset_size) drawn
// from a generator seeded with seed + e, as MMEngine's DefaultSampler; without,
// 0, 1, 2, ... Rank r takes every world_size-th, starting at the r-th; with
// `round_up` (the default) the order is repeated from its start until all ranks
// have the same number.
// Infinite sampler: one permutation after another for ever, pass p as epoch p
// of the default one, each rank taking a strided slice of the whole stream.
absl::StatusOr<std::unique_ptr<Sampler>> CreateSampler(
    const data::v1::SamplerConfig& config, const SamplerOptions& options);

}  // namespace grapnel

#endif  // GRAPNEL_DATA_SAMPLER_H_
