// Which learning rate each iteration of a run is made with.

#ifndef GRAPNEL_TESTS_GOLDEN_RATE_RECORDER_H_
#define GRAPNEL_TESTS_GOLDEN_RATE_RECORDER_H_

#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "grapnel/optim/optim_wrapper.h"
#include "grapnel/runner/hook.h"
#include "grapnel/runner/run_context.h"

namespace grapnel {

// The one that would be used now.
inline double Lr(RunContext& run) {
  return *run.optim_wrapper()->logged_lrs()[0].second;
}

// Appends them to `*rates`, which outlives the run.
class RateRecorder : public Hook {
 public:
  explicit RateRecorder(std::vector<double>* rates) : rates_(rates) {}
  absl::string_view name() const override { return "rate_recorder"; }
  absl::Status BeforeTrainIter(RunContext& run, const IterInfo&) override {
    rates_->push_back(Lr(run));
    return absl::OkStatus();
  }

 private:
  std::vector<double>* const rates_;
};

}  // namespace grapnel

#endif  // GRAPNEL_TESTS_GOLDEN_RATE_RECORDER_H_
