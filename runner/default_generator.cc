#include "grapnel/runner/default_generator.h"

#include <mutex>

#include "ATen/CPUGeneratorImpl.h"
#include "ATen/core/Generator.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/torch_status.h"

namespace grapnel {
namespace {

// Calls `f` with the generator, which nobody draws from meanwhile.
template <typename F>
absl::Status WithGenerator(at::Generator generator, F&& f) {
  return CatchAsStatus([&] {
    const std::lock_guard<std::mutex> lock(generator.mutex());
    f(generator);
    return absl::OkStatus();
  });
}

}  // namespace

absl::StatusOr<at::Tensor> GeneratorState(const at::Generator& generator) {
  at::Tensor state;
  GRAPNEL_RETURN_IF_ERROR(WithGenerator(
      generator, [&](at::Generator& locked) { state = locked.get_state(); }));
  return state;
}

absl::Status SetGeneratorState(const at::Tensor& state,
                               const at::Generator& generator) {
  return WithGenerator(generator,
                       [&](at::Generator& locked) { locked.set_state(state); });
}

absl::StatusOr<at::Tensor> DefaultGeneratorState() {
  return GeneratorState(at::detail::getDefaultCPUGenerator());
}

absl::Status SetDefaultGeneratorState(const at::Tensor& state) {
  return SetGeneratorState(state, at::detail::getDefaultCPUGenerator());
}

absl::Status SeedDefaultGenerator(uint64_t seed) {
  return WithGenerator(
      at::detail::getDefaultCPUGenerator(),
      [&](at::Generator& locked) { locked.set_current_seed(seed); });
}

}  // namespace grapnel
