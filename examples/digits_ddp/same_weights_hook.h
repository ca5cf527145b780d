// A hook that ends a run whose processes have drifted apart.

#ifndef GRAPNEL_EXAMPLES_DIGITS_DDP_SAME_WEIGHTS_HOOK_H_
#define GRAPNEL_EXAMPLES_DIGITS_DDP_SAME_WEIGHTS_HOOK_H_

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "grapnel/runner/hook.h"
#include "grapnel/runner/run_context.h"

namespace examples {

// After every training epoch: kDataLoss, naming the parameter, if one isn't
// rank 0's to the bit. Costs a broadcast of the model; nothing in a process
// that trains alone.
class SameWeightsHook final : public grapnel::Hook {
 public:
  absl::string_view name() const override { return "same_weights"; }
  absl::Status AfterTrainEpoch(grapnel::RunContext& run) override;
};

}  // namespace examples

#endif  // GRAPNEL_EXAMPLES_DIGITS_DDP_SAME_WEIGHTS_HOOK_H_
