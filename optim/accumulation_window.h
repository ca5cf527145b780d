// Which Updates of an OptimWrapper make one step together.

#ifndef GRAPNEL_OPTIM_ACCUMULATION_WINDOW_H_
#define GRAPNEL_OPTIM_ACCUMULATION_WINDOW_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"

namespace grapnel::optim::v1 {
class OptimWrapperState;
}  // namespace grapnel::optim::v1

namespace grapnel {

// Counts Updates, and the window of them that is being filled: `counts`, or
// what is left of the run. By iterations every Update has the same part in the
// window's mean; by samples its weight. Numbers only; the gradients are the
// wrapper's. Thread-compatible.
class AccumulationWindow {
 public:
  AccumulationWindow(int64_t counts, bool by_samples)
      : counts_(counts), by_samples_(by_samples) {}

  int64_t counts() const { return counts_; }
  bool by_samples() const { return by_samples_; }

  // `iter` Updates are done of `max_iters`, -1 if that isn't known. Without a
  // state to load a window that was half filled is the smaller for it.
  void Initialize(int64_t iter, int64_t max_iters);

  // How many Updates the window comes to hold; of one that was begun with
  // larger `counts`, one more than it has.
  int64_t size() const;

  // How many it has.
  int64_t accumulated() const { return count_ - begin_; }

  // Call before the backward of an Update of that weight: relative_weight needs
  // it.
  void Weigh(double weight) {
    if (weight_ == 0) unit_weight_ = weight;
  }
  // Call after it, and Uncount if the step that it is part of fails.
  void Count(double weight) {
    ++count_;
    weight_ += weight;
  }
  void Uncount() { --count_; }

  // The next window begins.
  void End();

  // By samples: of its Updates so far.
  double weight() const { return weight_; }

  // By samples, of several ranks: `mean` of their windows' weights. Call before
  // the backward of the last Update, after Weigh. Weights are relative to it
  // from here on, so that the mean over the ranks of what goes backward is the
  // window's; what went backward before is to be multiplied by the result.
  double Share(double mean);

  // By samples: what a loss of that weight goes backward with. Relative to the
  // first one's, or once it is shared to the ranks' mean, since weights
  // themselves would use up the range of float16.
  double relative_weight(double weight) const {
    return weight == unit_weight_ ? 1 : weight / unit_weight_;
  }

  // What makes the sum of what went backward its mean.
  double mean_factor() const {
    return by_samples_ && !shared_ ? unit_weight_ / weight_ : 1;
  }

  // True if there is nothing to be the mean of, on any rank once it is shared.
  bool weighs_nothing() const {
    return by_samples_ && (shared_ ? unit_weight_ : weight_) == 0;
  }

  void SaveState(optim::v1::OptimWrapperState* state) const;
  // kInvalidArgument, naming the field, if LoadState can't take it.
  static absl::Status CheckState(const optim::v1::OptimWrapperState& state);
  // Of weights of `before` ranks makes those of `now` other ones.
  static void ShareWeights(int before, int now,
                           optim::v1::OptimWrapperState* state);
  // Returns a note for the log: a window that was counted in the other unit is
  // dropped. "" if nothing was.
  std::string LoadState(const optim::v1::OptimWrapperState& state);

 private:
  int64_t counts_;
  bool by_samples_;
  int64_t count_ = 0;  // Of all Updates.
  int64_t max_count_ = -1;
  int64_t begin_ = 0;    // count_ when the window was empty.
  double weight_ = 0;    // Of its Updates.
  bool shared_ = false;  // Between Share and its end.

  // What others are relative to: the weight of its first Update that has one;
  // once it is shared, the mean of all ranks' windows.
  double unit_weight_ = 0;
};

}  // namespace grapnel

#endif  // GRAPNEL_OPTIM_ACCUMULATION_WINDOW_H_
