#include "grapnel/dist/bounded_thread.h"

#include <algorithm>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/thread.h"
#include "grapnel/base/torch_status.h"

namespace grapnel {
namespace {

// How often an interrupt is looked for.
constexpr absl::Duration kLook = absl::Milliseconds(50);

}  // namespace

struct BoundedThread::State {
  // Held by Run from its begin to its end: one caller at a time.
  absl::Mutex callers;

  absl::Mutex mutex;
  std::function<absl::Status()> call ABSL_GUARDED_BY(mutex);
  absl::Status result ABSL_GUARDED_BY(mutex);
  bool wanted ABSL_GUARDED_BY(mutex) = false;  // There is a call, or the end.
  bool done ABSL_GUARDED_BY(mutex) = false;
  bool late ABSL_GUARDED_BY(mutex) = false;
};

namespace {

template <typename State>
void Work(State& state) {
  while (true) {
    std::function<absl::Status()> call;
    {
      absl::MutexLock lock(&state.mutex);
      state.mutex.Await(absl::Condition(&state.wanted));
      state.wanted = false;
      call = std::exchange(state.call, nullptr);
    }
    if (call == nullptr) return;
    absl::Status result = CatchAsStatus(call);
    call = nullptr;  // What it owns goes on this thread.
    absl::MutexLock lock(&state.mutex);
    state.result = std::move(result);
    state.done = true;
  }
}

}  // namespace

BoundedThread::BoundedThread(std::shared_ptr<State> state)
    : state_(std::move(state)) {}

absl::StatusOr<std::unique_ptr<BoundedThread>> BoundedThread::Start(
    const std::string& name) {
  auto state = std::make_shared<State>();
  GRAPNEL_ASSIGN_OR_RETURN(std::thread thread,
                           StartThread(name, [state] { Work(*state); }));
  // It may outlive this object, and takes the state with it.
  thread.detach();
  return std::unique_ptr<BoundedThread>(new BoundedThread(std::move(state)));
}

BoundedThread::~BoundedThread() {
  absl::MutexLock lock(&state_->mutex);
  state_->call = nullptr;
  state_->wanted = true;
}

absl::Status BoundedThread::Run(std::function<absl::Status()> call,
                                absl::Duration limit,
                                const std::atomic<int>* interrupt) {
  absl::MutexLock caller(&state_->callers);
  absl::MutexLock lock(&state_->mutex);
  if (state_->late) {
    return absl::DeadlineExceededError("an earlier call isn't back yet");
  }
  state_->call = std::move(call);
  state_->done = false;
  state_->wanted = true;
  const absl::Time deadline = absl::Now() + limit;
  const absl::Duration look =
      interrupt != nullptr ? kLook : absl::InfiniteDuration();
  while (!state_->mutex.AwaitWithTimeout(
      absl::Condition(&state_->done), std::min(look, deadline - absl::Now()))) {
    const bool interrupted = interrupt != nullptr && interrupt->load() != 0;
    if (!interrupted && absl::Now() < deadline) continue;
    state_->late = true;
    if (interrupted) return absl::CancelledError("interrupted");
    return absl::DeadlineExceededError(
        absl::StrCat("no answer within ", absl::FormatDuration(limit)));
  }
  return std::move(state_->result);
}

}  // namespace grapnel
