// LibTorch's default CPU generator; a process has one.

#ifndef GRAPNEL_RUNNER_DEFAULT_GENERATOR_H_
#define GRAPNEL_RUNNER_DEFAULT_GENERATOR_H_

#include <cstdint>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace grapnel {

// Its state, as torch.get_rng_state() in Python. The calls are safe while
// others draw numbers; errors are LibTorch's.
absl::StatusOr<at::Tensor> DefaultGeneratorState();
absl::Status SetDefaultGeneratorState(const at::Tensor& state);

absl::Status SeedDefaultGenerator(uint64_t seed);

}  // namespace grapnel

#endif  // GRAPNEL_RUNNER_DEFAULT_GENERATOR_H_
