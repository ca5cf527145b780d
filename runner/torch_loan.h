// LibTorch's process-wide state, lent to a run for the time of a call.

#ifndef GRAPNEL_RUNNER_TORCH_LOAN_H_
#define GRAPNEL_RUNNER_TORCH_LOAN_H_

#include <memory>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"

namespace grapnel {

// From Begin until the loan is destroyed the default CPU generator is the
// run's, and LibTorch is deterministic if the run is. After that the generator
// is as it was before, and so are the flags once no other run wants them.
//
// Loans may nest, on any thread: a hook that trains a second run leaves the
// first one's generator as it was. Runs that overlap on several threads share
// one generator meanwhile, so their numbers are not reproducible; nothing of it
// is left behind.
//
// Threads may each have their own loans at the same time.
class TorchLoan {
 public:
  // `*generator`: the state of the run's generator, torch.get_rng_state() in
  // Python. Undefined for the first loan, which goes on from the process's
  // state. It outlives the loan, which leaves the new state there when it ends.
  TorchLoan(bool deterministic, at::Tensor* generator);
  TorchLoan(const TorchLoan&) = delete;
  TorchLoan& operator=(const TorchLoan&) = delete;
  ~TorchLoan();

  // Before anything else. Errors are LibTorch's.
  absl::Status Begin();

 private:
  const bool deterministic_;
  at::Tensor* const generator_;
  bool begun_ = false;
  at::Tensor before_;           // What the generator was at Begin.
  TorchLoan* outer_ = nullptr;  // Begun before this, and not ended.
};

// When destroyed, puts all that LibTorch keeps for a thread back to what it
// was: autograd mode, autocast and more. On the stack.
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
