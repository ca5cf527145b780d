#include "grapnel/hooks/iter_timer/iter_timer_hook.h"

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "grapnel/base/clock.h"
#include "grapnel/runner/hook_registry.h"

namespace grapnel {
namespace {

constexpr double kSecondsPerNano = 1e-9;

}  // namespace

absl::StatusOr<std::unique_ptr<IterTimerHook>> IterTimerHook::Create(
    const Config&) {
  return absl::WrapUnique(new IterTimerHook());
}

absl::Status IterTimerHook::Setup(RunContext& run) {
  eta_ = &run.message_hub().InfoSlot("eta");
  for (const Mode mode : {Mode::kTrain, Mode::kVal, Mode::kTest}) {
    Histories& histories = histories_[static_cast<int>(mode)];
    MessageHub& hub = run.message_hub();
    histories.time = &hub.Scalar(absl::StrCat(ModeName(mode), "/time"));
    histories.data_time =
        &hub.Scalar(absl::StrCat(ModeName(mode), "/data_time"));
  }
  return absl::OkStatus();
}

absl::Status IterTimerHook::BeforeTrain(RunContext& run) {
  start_iter_ = run.iter();
  train_nanos_ = 0;
  return absl::OkStatus();
}

absl::Status IterTimerHook::BeforeEpoch(RunContext& run, Mode) {
  last_nanos_ = run.clock().NowNanos();
  return absl::OkStatus();
}

absl::Status IterTimerHook::AfterEpoch(RunContext&, Mode mode) {
  if (mode != Mode::kTrain) evaluation_nanos_ = 0;
  return absl::OkStatus();
}

absl::Status IterTimerHook::BeforeIter(RunContext& run, Mode mode,
                                       const IterInfo&) {
  const int64_t waited = run.clock().NowNanos() - last_nanos_;
  histories_[static_cast<int>(mode)].data_time->Add(
      static_cast<double>(waited) * kSecondsPerNano);
  return absl::OkStatus();
}

absl::Status IterTimerHook::AfterIter(RunContext& run, Mode mode,
                                      const IterInfo& info) {
  const int64_t now = run.clock().NowNanos();
  const int64_t took = now - last_nanos_;
  last_nanos_ = now;
  histories_[static_cast<int>(mode)].time->Add(static_cast<double>(took) *
                                               kSecondsPerNano);
  int64_t total, done, left;
  if (mode == Mode::kTrain) {
    total = train_nanos_ += took;
    done = run.iter() - start_iter_ + 1;
    left = run.max_iters() - run.iter() - 1;
  } else {
    total = evaluation_nanos_ += took;
    done = info.batch_idx + 1;
    left = info.num_batches - info.batch_idx - 1;
  }
  *eta_ = static_cast<double>(total) * kSecondsPerNano /
          static_cast<double>(done) * static_cast<double>(left);
  return absl::OkStatus();
}

GRAPNEL_REGISTER_HOOK(IterTimerHook);

}  // namespace grapnel
