#include "grapnel/optim/accumulation_window.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "grapnel/base/check_field.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/optim/optim_wrapper.pb.h"

namespace grapnel {
namespace {

using ::grapnel::optim::v1::OptimWrapperConfig;
using ::grapnel::optim::v1::OptimWrapperState;

struct Weights {
  double all;
  double first;
};

// Older checkpoints counted in whole samples.
Weights SavedWeights(const OptimWrapperState& state) {
  if (state.window_weight() == 0 && state.first_weight() == 0) {
    return {static_cast<double>(state.window_samples()),
            static_cast<double>(state.first_samples())};
  }
  return {state.window_weight(), state.first_weight()};
}

const char* UnitName(bool by_samples) {
  return by_samples ? "SAMPLES" : "ITERATIONS";
}

}  // namespace

void AccumulationWindow::Initialize(int64_t iter, int64_t max_iters) {
  count_ = iter;
  max_count_ = max_iters;
  begin_ = iter - iter % counts_;
  weight_ = unit_weight_ = 0;
  shared_ = false;
}

int64_t AccumulationWindow::size() const {
  int64_t size = counts_;
  if (count_ < max_count_) size = std::min(size, max_count_ - begin_);
  return std::max(size, accumulated() + 1);
}

void AccumulationWindow::End() {
  begin_ = count_;
  weight_ = unit_weight_ = 0;
  shared_ = false;
}

double AccumulationWindow::Share(double mean) {
  const double factor = weight_ == 0 ? 1 : unit_weight_ / mean;
  unit_weight_ = mean;
  shared_ = true;
  return factor;
}

void AccumulationWindow::SaveState(OptimWrapperState* state) const {
  state->set_inner_count(count_);
  state->set_accumulative_counts(counts_);
  state->set_window_begin(begin_);
  state->set_window_size(size());
  state->set_accumulate_by(by_samples_ ? OptimWrapperConfig::SAMPLES
                                       : OptimWrapperConfig::ITERATIONS);
  if (!by_samples_) return;
  state->set_window_weight(weight_);
  state->set_first_weight(unit_weight_);
}

absl::Status AccumulationWindow::CheckState(const OptimWrapperState& state) {
  GRAPNEL_RETURN_IF_ERROR(CheckField(state.inner_count() >= 0, "inner_count",
                                     ">= 0", state.inner_count()));
  GRAPNEL_RETURN_IF_ERROR(CheckField(
      state.window_begin() >= 0 && state.window_begin() <= state.inner_count(),
      "window_begin", absl::StrCat("in [0, ", state.inner_count(), "]"),
      state.window_begin()));
  GRAPNEL_RETURN_IF_ERROR(CheckField(
      state.window_size() > state.inner_count() - state.window_begin(),
      "window_size", "more than the window holds", state.window_size()));
  const bool by_samples = state.accumulate_by() == OptimWrapperConfig::SAMPLES;
  const bool half_filled = state.inner_count() > state.window_begin();
  const Weights saved = SavedWeights(state);
  // None if nothing has counted so far, or the run had just gone on without
  // the window's gradients.
  const bool any_weight = saved.first != 0 || saved.all != 0;
  if (by_samples && half_filled && any_weight) {
    GRAPNEL_RETURN_IF_ERROR(
        CheckField(std::isfinite(saved.first) && saved.first > 0,
                   "first_weight", "finite and > 0", saved.first));
    GRAPNEL_RETURN_IF_ERROR(CheckField(
        std::isfinite(saved.all) && saved.all >= saved.first, "window_weight",
        absl::StrCat("finite and >= ", saved.first), saved.all));
  }
  return absl::OkStatus();
}

void AccumulationWindow::ShareWeights(int before, int now,
                                      OptimWrapperState* state) {
  const Weights saved = SavedWeights(*state);
  state->set_window_weight(saved.all * before / now);
  state->set_first_weight(saved.first * before / now);
}

std::string AccumulationWindow::LoadState(const OptimWrapperState& state) {
  count_ = state.inner_count();
  End();
  const int64_t accumulated = state.inner_count() - state.window_begin();
  if (accumulated == 0) return "";
  const bool by_samples = state.accumulate_by() == OptimWrapperConfig::SAMPLES;
  if (by_samples != by_samples_) {
    return absl::StrCat("accumulate_by: ", UnitName(by_samples), " -> ",
                        UnitName(by_samples_), ": the gradients of ",
                        accumulated,
                        " iterations that waited for a step are dropped");
  }
  begin_ = state.window_begin();
  const Weights saved = SavedWeights(state);
  weight_ = saved.all;
  unit_weight_ = saved.first;
  return "";
}

}  // namespace grapnel
