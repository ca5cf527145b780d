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
absl::Status WithGenerator(F&& f) {
  return CatchAsStatus([&] {
    at::Generator generator = at::detail::getDefaultCPUGenerator();
    const std::lock_guard<std::mutex> lock(generator.mutex());
    f(generator);
    return absl::OkStatus();
  });
}

}  // namespace

absl::StatusOr<at::Tensor> DefaultGeneratorState() {
  at::Tensor state;
  GRAPNEL_RETURN_IF_ERROR(WithGenerator(
      [&](at::Generator& generator) { state = generator.get_state(); }));
  return state;
}

absl::Status SetDefaultGeneratorState(const at::Tensor& state) {
  return WithGenerator(
      [&](at::Generator& generator) { generator.set_state(state); });
}

absl::Status SeedDefaultGenerator(uint64_t seed) {
  return WithGenerator(
      [&](at::Generator& generator) { generator.set_current_seed(seed); });
}

}  // namespace grapnel
