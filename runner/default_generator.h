// LibTorch's default CPU generator; a process has one.
//
// Example:
//
//   GRAPNEL_RETURN_IF_ERROR(SeedDefaultGenerator(7));
//   GRAPNEL_ASSIGN_OR_RETURN(const at::Tensor state, DefaultGeneratorState());
//   const at::Tensor drawn = torch::rand({3});
//   GRAPNEL_RETURN_IF_ERROR(SetDefaultGeneratorState(state));
//   GRAPNEL_RET_CHECK(torch::equal(torch::rand({3}), drawn));

#ifndef GRAPNEL_RUNNER_DEFAULT_GENERATOR_H_
#define GRAPNEL_RUNNER_DEFAULT_GENERATOR_H_

#include <cstdint>

#include "ATen/core/Generator.h"
#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace grapnel {

// Its state, as torch.get_rng_state() in Python. The calls are safe while
// others draw numbers; errors are LibTorch's.
absl::StatusOr<at::Tensor> DefaultGeneratorState();
absl::Status SetDefaultGeneratorState(const at::Tensor& state);

absl::Status SeedDefaultGenerator(uint64_t seed);

// The same of any CPU generator.
absl::StatusOr<at::Tensor> GeneratorState(const at::Generator& generator);
absl::Status SetGeneratorState(const at::Tensor& state,
                               const at::Generator& generator);

}  // namespace grapnel

#endif  // GRAPNEL_RUNNER_DEFAULT_GENERATOR_H_
