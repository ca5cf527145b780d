// LibTorch's process-wide state, lent to a run.

#ifndef GRAPNEL_RUNNER_TORCH_LOAN_H_
#define GRAPNEL_RUNNER_TORCH_LOAN_H_

#include <memory>

#include "ATen/core/Generator.h"
#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "grapnel/runner/run_generators.h"

namespace grapnel {

// LibTorch is deterministic as long as one of these is there; then its flags
// are again as they were before the first. On any threads, in any order.
class DeterministicScope {
 public:
  // Does nothing unless `wanted`.
  explicit DeterministicScope(bool wanted);
  DeterministicScope(const DeterministicScope&) = delete;
  DeterministicScope& operator=(const DeterministicScope&) = delete;
  ~DeterministicScope();

 private:
  const bool wanted_;
};

// While this is there, LibTorch's default CPU generator is another one, for all
// of the process: for code that draws from the default one and can't be told
// another. So is that of a device, whose state is exchanged. One thread at a
// time has a loan, and others wait for it; on that thread loans nest. A thread
// that draws meanwhile without a loan of its own takes numbers from the
// generator that was lent. On the stack.
class GeneratorLoan {
 public:
  explicit GeneratorLoan(const at::Generator& cpu)
      : GeneratorLoan(cpu, /*device=*/nullptr) {}

  // `generators` outlive the loan. Throws what LibTorch throws for a device.
  explicit GeneratorLoan(const RunGenerators& generators)
      : GeneratorLoan(generators.cpu(), generators.device().defined()
                                            ? &generators.device()
                                            : nullptr) {}
  GeneratorLoan(const GeneratorLoan&) = delete;
  GeneratorLoan& operator=(const GeneratorLoan&) = delete;
  ~GeneratorLoan();

 private:
  GeneratorLoan(const at::Generator& cpu, const at::Generator* device);

  absl::Status LendDevice();
  absl::Status TakeBackDevice();

  at::Generator before_;
  const at::Generator* const device_;  // Null if only the CPU's is lent.
  at::Tensor device_before_;  // Defined while the device's default is lent.
};

// When destroyed, puts all that LibTorch keeps for a thread back to what it
// was: autograd mode, autocast and more. Until then what LibTorch warns of on
// this thread goes to GRAPNEL_LOG. On the stack.
class TorchThreadScope {
 public:
  TorchThreadScope();
  TorchThreadScope(const TorchThreadScope&) = delete;
  TorchThreadScope& operator=(const TorchThreadScope&) = delete;
  ~TorchThreadScope();

 private:
  struct Saved;
  const std::unique_ptr<Saved> saved_;
};

}  // namespace grapnel

#endif  // GRAPNEL_RUNNER_TORCH_LOAN_H_
