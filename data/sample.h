// What datasets give and models take.
//
// N is the number of samples in a batch.

#ifndef GRAPNEL_DATA_SAMPLE_H_
#define GRAPNEL_DATA_SAMPLE_H_

#include <cstdint>
#include <vector>

#include "ATen/core/Tensor.h"
#include "grapnel/base/tensor_map.h"

namespace grapnel {

// One sample. Tensors are on the CPU.
struct Sample {
  at::Tensor input;   // Any shape and dtype; images are (C, H, W), float32.
  at::Tensor target;  // A class is an int64 scalar. May be undefined.

  // What else a dataset gives and its model takes, by name.
  std::vector<NamedTensor> extras;
};

// Samples stacked along a new first dimension. Tensors are on the device that
// the loader was told.
struct Batch {
  at::Tensor inputs;   // (N, ...), as Sample::input.
  at::Tensor targets;  // (N, ...), as Sample::target; undefined if those are.
  std::vector<NamedTensor> extras;  // Each (N, ...).

  // (N) positions of the samples in the dataset.
  std::vector<int64_t> indices;

  int64_t size() const { return static_cast<int64_t>(indices.size()); }
};

}  // namespace grapnel

#endif  // GRAPNEL_DATA_SAMPLE_H_
