// What is learned, and the net that learns it.

#ifndef GRAPNEL_EXAMPLES_HAND_WRITTEN_LOOP_SPIRAL_DATA_H_
#define GRAPNEL_EXAMPLES_HAND_WRITTEN_LOOP_SPIRAL_DATA_H_

#include "ATen/core/Tensor.h"
#include "torch/nn.h"

namespace examples {

// Points of three arms of a spiral.
struct SpiralData {
  at::Tensor points;  // (N, 2)
  at::Tensor arms;    // (N), int64
};

// The same every time, whatever the default generator's state.
SpiralData MakeSpiralData();

// Seeds the default generator for its weights.
torch::nn::Sequential MakeSpiralNet();

}  // namespace examples

#endif  // GRAPNEL_EXAMPLES_HAND_WRITTEN_LOOP_SPIRAL_DATA_H_
