// A training loop written by hand, with LibTorch's modules and optimizers. Of
// Grapnel it uses schedulers, an averaged model and checkpoints, and no runner.

#ifndef GRAPNEL_EXAMPLES_HAND_WRITTEN_LOOP_SPIRAL_LOOP_H_
#define GRAPNEL_EXAMPLES_HAND_WRITTEN_LOOP_SPIRAL_LOOP_H_

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/statusor.h"

namespace examples {

struct SpiralOptions {
  std::string dir;  // Of the checkpoints.
  int64_t iterations = 600;
  int64_t save_interval = 100;

  // Asked before each iteration, and given the number of those that are done:
  // true ends the loop on the spot, as a kill would. May be empty.
  std::function<bool(int64_t iter)> killed;
};

struct SpiralResult {
  int64_t resumed_from = 0;  // Iterations that were done already.
  int64_t iterations = 0;    // Done now.
  // Parts of the points that are recognized.
  double accuracy = 0;
  double averaged_accuracy = 0;  // With the averaged weights.
};

// Trains a small network to tell the three arms of a spiral apart; goes on from
// the newest good checkpoint in `dir`, if there is one. LibTorch's default
// generator is seeded, or restored.
absl::StatusOr<SpiralResult> TrainSpiral(const SpiralOptions& options);

}  // namespace examples

#endif  // GRAPNEL_EXAMPLES_HAND_WRITTEN_LOOP_SPIRAL_LOOP_H_
