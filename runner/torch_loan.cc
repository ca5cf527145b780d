#include "grapnel/runner/torch_loan.h"

#include <array>
#include <cstddef>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "ATen/CPUGeneratorImpl.h"
#include "ATen/Context.h"
#include "ATen/ThreadLocalState.h"
#include "absl/status/status.h"
#include "c10/util/Exception.h"
#include "grapnel/base/log.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/runner/default_generator.h"

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

// The pointer in a generator, which is all that it has.
using Pointer __attribute__((may_alias)) = c10::GeneratorImpl*;
static_assert(sizeof(at::Generator) == sizeof(Pointer));

// Exchanges `*other` with LibTorch's variable, which it gives out as a
// constant. In one piece, so that a thread that draws meanwhile has the one or
// the other. The generator's state would be 5 kB to copy, twice.
void ExchangeDefault(at::Generator* other) {
  auto* const mine = reinterpret_cast<Pointer*>(other);
  auto* const process = reinterpret_cast<Pointer*>(
      const_cast<at::Generator*>(&at::detail::getDefaultCPUGenerator()));
  *mine = __atomic_exchange_n(process, *mine, __ATOMIC_ACQ_REL);
}

// Keeps the generators that were lent last: a thread that has begun to draw
// without a loan has no reference of its own. With the mutex.
void KeepForAWhile(const at::Generator& generator) {
  constexpr size_t kKept = 16;
  static auto* const kept = new std::array<at::Generator, kKept>;
  static size_t newest = 0;
  if (generator == (*kept)[newest]) return;
  newest = (newest + 1) % kKept;
  (*kept)[newest] = generator;
}

at::Generator DefaultOf(const at::Generator& generator) {
  return at::globalContext().defaultGenerator(generator.device());
}

// What LibTorch warns of belongs into this library's log.
class LogWarnings final : public c10::WarningHandler {
 public:
  void process(const c10::Warning& warning) override {
    GRAPNEL_LOG(WARNING) << warning.msg();
  }
};

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

GeneratorLoan::GeneratorLoan(const at::Generator& cpu,
                             const at::Generator* device)
    : before_(cpu), device_(device) {
  if (thread_loans++ == 0) LoanMutex().lock();
  if (device_ != nullptr) {
    const absl::Status lent = CatchAsStatus([this] { return LendDevice(); });
    if (!lent.ok()) {
      if (--thread_loans == 0) LoanMutex().unlock();
      TORCH_CHECK(false, std::string(lent.message()));
    }
  }
  KeepForAWhile(cpu);
  ExchangeDefault(&before_);
}

GeneratorLoan::~GeneratorLoan() {
  ExchangeDefault(&before_);
  if (device_before_.defined()) {
    const absl::Status status =
        CatchAsStatus([this] { return TakeBackDevice(); });
    // It went well on the way there, with the same two generators.
    if (!status.ok()) GRAPNEL_LOG(ERROR) << status.message();
  }
  if (--thread_loans == 0) LoanMutex().unlock();
}

// By its state, which for CUDA is 16 bytes on the host: no backend lets another
// pointer be put in the place of its own.
absl::Status GeneratorLoan::LendDevice() {
  const at::Generator shared = DefaultOf(*device_);
  if (shared == *device_) return absl::OkStatus();
  GRAPNEL_ASSIGN_OR_RETURN(at::Tensor before, GeneratorState(shared));
  GRAPNEL_ASSIGN_OR_RETURN(const at::Tensor own, GeneratorState(*device_));
  GRAPNEL_RETURN_IF_ERROR(SetGeneratorState(own, shared));
  device_before_ = std::move(before);
  return absl::OkStatus();
}

absl::Status GeneratorLoan::TakeBackDevice() {
  const at::Generator shared = DefaultOf(*device_);
  GRAPNEL_ASSIGN_OR_RETURN(const at::Tensor drawn, GeneratorState(shared));
  GRAPNEL_RETURN_IF_ERROR(SetGeneratorState(drawn, *device_));
  return SetGeneratorState(device_before_, shared);
}

struct TorchThreadScope::Saved {
  // Sets what is there, and puts that back when it goes.
  at::ThreadLocalStateGuard guard{at::ThreadLocalState()};
  LogWarnings handler;
  c10::WarningUtils::WarningHandlerGuard warnings{&handler};
};

TorchThreadScope::TorchThreadScope() : saved_(std::make_unique<Saved>()) {}

TorchThreadScope::~TorchThreadScope() = default;

}  // namespace grapnel
