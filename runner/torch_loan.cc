#include "grapnel/runner/torch_loan.h"

#include <memory>
#include <mutex>
#include <utility>

#include "ATen/Context.h"
#include "ATen/ThreadLocalState.h"
#include "absl/status/statusor.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/runner/default_generator.h"

namespace grapnel {
namespace {

// Of all loans that have begun and not ended.
struct Loans {
  std::mutex mutex;
  TorchLoan* newest = nullptr;
  int deterministic = 0;  // Those that want it.
  // What the process had before the first of them.
  bool was_deterministic = false;
  bool was_warn_only = false;
};

Loans& AllLoans() {
  static Loans* const loans = new Loans;  // Used until the process ends.
  return *loans;
}

}  // namespace

TorchLoan::TorchLoan(bool deterministic, at::Tensor* generator)
    : deterministic_(deterministic), generator_(generator) {}

absl::Status TorchLoan::Begin() {
  Loans& loans = AllLoans();
  const std::lock_guard<std::mutex> lock(loans.mutex);
  GRAPNEL_ASSIGN_OR_RETURN(before_, DefaultGeneratorState());
  if (generator_->defined()) {
    GRAPNEL_RETURN_IF_ERROR(SetDefaultGeneratorState(*generator_));
  }
  if (deterministic_ && loans.deterministic++ == 0) {
    at::Context& context = at::globalContext();
    loans.was_deterministic = context.deterministicAlgorithms();
    loans.was_warn_only = context.deterministicAlgorithmsWarnOnly();
    context.setDeterministicAlgorithms(true, false);
  }
  outer_ = loans.newest;
  loans.newest = this;
  begun_ = true;
  return absl::OkStatus();
}

TorchLoan::~TorchLoan() {
  if (!begun_) return;
  Loans& loans = AllLoans();
  const std::lock_guard<std::mutex> lock(loans.mutex);
  if (deterministic_ && --loans.deterministic == 0) {
    at::globalContext().setDeterministicAlgorithms(loans.was_deterministic,
                                                   loans.was_warn_only);
  }
  if (loans.newest == this) {
    // Fails only where there is no memory for 5 kB, and then the state stays.
    absl::StatusOr<at::Tensor> state = DefaultGeneratorState();
    if (state.ok()) *generator_ = *std::move(state);
    SetDefaultGeneratorState(before_).IgnoreError();
    loans.newest = outer_;
    return;
  }
  // One that began later has the generator. It took it from this one.
  TorchLoan* inner = loans.newest;
  while (inner->outer_ != this) inner = inner->outer_;
  *generator_ = inner->before_;
  inner->before_ = before_;
  inner->outer_ = outer_;
}

struct TorchThreadScope::Saved {
  // Sets what is there, and puts that back when it goes.
  at::ThreadLocalStateGuard guard{at::ThreadLocalState()};
};

TorchThreadScope::TorchThreadScope() : saved_(std::make_unique<Saved>()) {}

TorchThreadScope::~TorchThreadScope() = default;

}  // namespace grapnel
