// What LibTorch has one of in a process, lent to a run for the time of a call.

#ifndef GRAPNEL_RUNNER_TORCH_LOAN_H_
#define GRAPNEL_RUNNER_TORCH_LOAN_H_

#include <memory>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"

namespace grapnel {

// From Begin to the end of its life the default CPU generator is the run's, and
// if the run is deterministic, LibTorch is. Then the generator is as it was
// before, and so are the flags, once no other run wants them.
//
// A loan may be within another one's, on any thread: a hook that trains a
// second run gives the first one its numbers back as they were. Runs that
// overlap on several threads draw from one generator meanwhile, which is then
// not the same from one time to the next; none of it is left behind.
//
// Safe to use from many threads, one by one.
class TorchLoan {
 public:
  // `*generator`: the state of the run's generator, torch.get_rng_state() in
  // Python; the first loan, for which it is undefined, goes on from the
  // process's. It outlives the loan, whose end leaves there what it has come
  // to.
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

// Puts back all that LibTorch keeps for a thread, autograd mode and autocast
// among it, to what it was. On the stack.
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
