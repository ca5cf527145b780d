#ifndef GRAPNEL_HOOKS_ITER_TIMER_ITER_TIMER_HOOK_H_
#define GRAPNEL_HOOKS_ITER_TIMER_ITER_TIMER_HOOK_H_

#include <cstdint>
#include <memory>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "grapnel/hooks/iter_timer/iter_timer_hook.pb.h"
#include "grapnel/runner/hook.h"
#include "grapnel/runner/message_hub.h"

namespace grapnel {

// Measures, in seconds of the run's clock, and writes to the message hub:
//
//   "<mode>/data_time"  from the end of the iteration before to the batch
//   "<mode>/time"       the same to the end of this iteration
//   fact "eta"          what is left of training, or of this evaluation, at the
//                       mean speed since this process began it
//
// What other hooks do after this one counts towards the next iteration's
// data_time.
class IterTimerHook final : public Hook {
 public:
  using Config = hooks::v1::IterTimerHookConfig;

  static absl::StatusOr<std::unique_ptr<IterTimerHook>> Create(
      const Config& config);

  absl::string_view name() const override { return "iter_timer"; }

  absl::Status Setup(RunContext& run) override;
  absl::Status BeforeTrain(RunContext& run) override;
  absl::Status BeforeEpoch(RunContext& run, Mode mode) override;
  absl::Status AfterEpoch(RunContext& run, Mode mode) override;
  absl::Status BeforeIter(RunContext& run, Mode mode,
                          const IterInfo& info) override;
  absl::Status AfterIter(RunContext& run, Mode mode,
                         const IterInfo& info) override;

 private:
  IterTimerHook() = default;

  struct Histories {
    HistoryBuffer* time = nullptr;
    HistoryBuffer* data_time = nullptr;
  };
  Histories histories_[3];  // By Mode.
  std::optional<MessageHub::Info>* eta_ = nullptr;

  int64_t last_nanos_ = 0;        // End of the iteration before.
  int64_t start_iter_ = 0;        // Where this process began to train.
  int64_t train_nanos_ = 0;       // Since then.
  int64_t evaluation_nanos_ = 0;  // Of the evaluation that is going on.
};

}  // namespace grapnel

#endif  // GRAPNEL_HOOKS_ITER_TIMER_ITER_TIMER_HOOK_H_
