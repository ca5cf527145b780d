#ifndef GRAPNEL_HOOKS_EARLY_STOPPING_EARLY_STOPPING_HOOK_H_
#define GRAPNEL_HOOKS_EARLY_STOPPING_EARLY_STOPPING_HOOK_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "grapnel/hooks/early_stopping/early_stopping_hook.pb.h"
#include "grapnel/models/metric_rule.h"
#include "grapnel/runner/hook.h"

namespace grapnel {

// Stops training once a validation metric has gone `patience` validations in a
// row without an improvement of at least `min_delta` on the best value, is no
// longer finite, or is better than `stopping_threshold`.
//
// A NaN is never the best. The best value and the count are checkpointed: a
// resumed run stops at the same validation as one that was never interrupted,
// and a stopped run that is resumed with the same options stops again before it
// trains. Evaluations outside training don't count.
class EarlyStoppingHook final : public Hook {
 public:
  using Config = hooks::v1::EarlyStoppingHookConfig;

  // kInvalidArgument, naming the field, for a config that breaks a rule stated
  // in early_stopping_hook.proto.
  static absl::StatusOr<std::unique_ptr<EarlyStoppingHook>> Create(
      const Config& config);

  absl::string_view name() const override { return "early_stopping"; }

  // After the hooks that save the best.
  Priority priority() const override { return Priority::kLowest; }

  google::protobuf::Message* mutable_state() override { return &state_; }

  // kFailedPrecondition if `strict` and the run has no validation.
  absl::Status BeforeTrain(RunContext& run) override;

  // kNotFound if `strict` and the metric isn't there; kInvalidArgument if it is
  // no number.
  absl::Status AfterValEpoch(RunContext& run, const Metrics& metrics) override;

 private:
  EarlyStoppingHook(const Config& config, MetricRule rule)
      : config_(config), rule_(rule) {}

  // Takes one validation into account.
  void Observe(double value);

  // Beyond stopping_threshold, if there is one.
  bool IsGoodEnough(double value) const;

  // Why training should stop, as of the last validation; "" if it shouldn't.
  std::string ReasonToStop() const;

  const Config config_;  // With defaults filled in.
  const MetricRule rule_;
  hooks::v1::EarlyStoppingHookState state_;
};

}  // namespace grapnel

#endif  // GRAPNEL_HOOKS_EARLY_STOPPING_EARLY_STOPPING_HOOK_H_
