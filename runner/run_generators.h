// What a run draws random numbers from.

#ifndef GRAPNEL_RUNNER_RUN_GENERATORS_H_
#define GRAPNEL_RUNNER_RUN_GENERATORS_H_

#include <cstdint>

#include "ATen/core/Generator.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "c10/core/Device.h"

namespace grapnel::runner::v1 {
class RngState;
}  // namespace grapnel::runner::v1

namespace grapnel {

// A generator on the CPU and one on the run's device, both of the run alone. A
// copy is the same generators. Thread-compatible.
class RunGenerators {
 public:
  RunGenerators() = default;  // Undefined ones.

  // New ones with that seed.
  static absl::StatusOr<RunGenerators> Create(c10::Device device, int64_t seed);

  const at::Generator& cpu() const { return cpu_; }

  // Undefined if the device is the CPU, or draws from the CPU's. The device's
  // default one if its backend can't make others.
  const at::Generator& device() const { return device_; }

  absl::Status Save(runner::v1::RngState* state) const;

  // What Save gave, of any device: of another one, only the CPU's is taken and
  // device() is left as it is. kDataLoss for what is no state of them.
  absl::Status Load(const runner::v1::RngState& state) const;

 private:
  at::Generator cpu_;
  at::Generator device_;
};

}  // namespace grapnel

#endif  // GRAPNEL_RUNNER_RUN_GENERATORS_H_
