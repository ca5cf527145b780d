#include "grapnel/runner/torch_loan.h"

#include <memory>
#include <mutex>
#include <utility>

#include "ATen/CPUGeneratorImpl.h"
#include "ATen/Context.h"
#include "ATen/ThreadLocalState.h"

namespace grapnel {
namespace {

// Of all scopes that there are.
struct Deterministic {
  std::mutex mutex;
  int scopes = 0;
  // What the process had before the first of them.
  bool was_deterministic = false;
  bool was_warn_only = false;
};

// Both are used until the process ends.
Deterministic& AllDeterministic() {
  static auto* const deterministic = new Deterministic;
  return *deterministic;
}
std::mutex& LoanMutex() {
  static auto* const mutex = new std::mutex;
  return *mutex;
}
// Of this thread. The first takes the mutex; a recursive one would cost the
// iteration 70 instructions more.
thread_local int thread_loans = 0;

// LibTorch's variable, which it gives out as a constant. Changing what is in it
// is a pointer's work; the generator's state would be 5 kB to copy, twice.
at::Generator& DefaultGenerator() {
  return const_cast<at::Generator&>(at::detail::getDefaultCPUGenerator());
}

}  // namespace

DeterministicScope::DeterministicScope(bool wanted) : wanted_(wanted) {
  if (!wanted_) return;
  Deterministic& all = AllDeterministic();
  const std::lock_guard<std::mutex> lock(all.mutex);
  if (all.scopes++ > 0) return;
  at::Context& context = at::globalContext();
  all.was_deterministic = context.deterministicAlgorithms();
  all.was_warn_only = context.deterministicAlgorithmsWarnOnly();
  context.setDeterministicAlgorithms(true, false);
}

DeterministicScope::~DeterministicScope() {
  if (!wanted_) return;
  Deterministic& all = AllDeterministic();
  const std::lock_guard<std::mutex> lock(all.mutex);
  if (--all.scopes > 0) return;
  at::globalContext().setDeterministicAlgorithms(all.was_deterministic,
                                                 all.was_warn_only);
}

GeneratorLoan::GeneratorLoan(const at::Generator& generator)
    : before_(generator) {
  if (thread_loans++ == 0) LoanMutex().lock();
  std::swap(before_, DefaultGenerator());
}

GeneratorLoan::~GeneratorLoan() {
  std::swap(before_, DefaultGenerator());
  if (--thread_loans == 0) LoanMutex().unlock();
}

struct TorchThreadScope::Saved {
  // Sets what is there, and puts that back when it goes.
  at::ThreadLocalStateGuard guard{at::ThreadLocalState()};
};

TorchThreadScope::TorchThreadScope() : saved_(std::make_unique<Saved>()) {}

TorchThreadScope::~TorchThreadScope() = default;

}  // namespace grapnel
