// Changes to one sample on its way into a batch.

#ifndef GRAPNEL_DATA_TRANSFORM_H_
#define GRAPNEL_DATA_TRANSFORM_H_

#include <memory>

#include "absl/status/status.h"
#include "grapnel/base/registry.h"
#include "grapnel/data/sample.h"
#include "grapnel/data/sample_rng.h"

namespace grapnel {

// Safe to use from many threads: it has no state but its configuration.
class Transform {
 public:
  virtual ~Transform() = default;

  // Replaces tensors of `*sample`; never writes into the storage it was given.
  // All randomness comes from `rng`, which depends on seed, epoch and sample
  // alone, so that augmentation is the same for any number of workers.
  //   kInvalidArgument: the sample's shape or dtype doesn't fit; names both.
  virtual absl::Status Apply(SampleRng& rng, Sample* sample) const = 0;
};

struct TransformTraits {
  using Product = std::unique_ptr<Transform>;
  static constexpr char kWhat[] = "transform";
};
using TransformRegistry = Registry<TransformTraits>;

}  // namespace grapnel

#endif  // GRAPNEL_DATA_TRANSFORM_H_
