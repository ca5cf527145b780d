#include "grapnel/runner/rank_windows.h"

#include <algorithm>
#include <cstddef>
#include <utility>

#include "ATen/core/Tensor.h"
#include "absl/strings/str_cat.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/optim/accumulation_window.h"
#include "grapnel/optim/optim_wrapper.pb.h"
#include "grapnel/runner/run_state.pb.h"

namespace grapnel {
namespace {

using ::grapnel::optim::v1::OptimWrapperConfig;
using ::grapnel::optim::v1::OptimWrapperState;
using ::grapnel::runner::v1::RankState;
using ::grapnel::runner::v1::RankWindow;
using ::grapnel::runner::v1::RunState;

// One of several optimizers, or the only one.
struct Member {
  std::string prefix;  // Of its gradients' names: "<optimizer>/".
  OptimWrapperState* state;
};

std::vector<Member> MembersOf(OptimWrapperState* state) {
  if (state->optimizers().empty()) return {{"", state}};
  std::vector<Member> members;
  for (auto& named : *state->mutable_optimizers()) {
    members.push_back({absl::StrCat(named.name(), "/"), named.mutable_state()});
  }
  return members;
}

std::string RankPrefix(int rank) { return absl::StrCat("rank_", rank, "/"); }

void SetWindow(const RankWindow& window, OptimWrapperState* state) {
  *state->mutable_gradients() = window.gradients();
  state->set_window_weight(window.window_weight());
  state->set_first_weight(window.first_weight());
}

absl::Status CheckSaved(const RunState& state, size_t num_members) {
  for (int rank = 0; rank < state.ranks_size(); ++rank) {
    const size_t saved = state.ranks(rank).windows_size();
    if (saved == num_members) continue;
    return absl::DataLossError(
        absl::StrCat("ranks: rank ", rank, " has the windows of ", saved,
                     " optimizers, and there are ", num_members));
  }
  return absl::OkStatus();
}

absl::StatusOr<at::Tensor> FindSaved(const TensorMap& saved,
                                     const std::string& name) {
  const at::Tensor* const found = saved.Find(name);
  if (found != nullptr) return *found;
  return absl::DataLossError(
      absl::StrCat("gradients: \"", name, "\" is missing"));
}

// The rank's own.
absl::Status TakeOwn(const RankState& own, int rank, const TensorMap& saved,
                     const std::vector<Member>& members, TensorMap* out) {
  for (size_t i = 0; i < members.size(); ++i) {
    const RankWindow& window = own.windows(static_cast<int>(i));
    SetWindow(window, members[i].state);
    for (const std::string& gradient : window.gradients()) {
      const std::string name = absl::StrCat(members[i].prefix, gradient);
      GRAPNEL_ASSIGN_OR_RETURN(
          at::Tensor tensor,
          FindSaved(saved, absl::StrCat(RankPrefix(rank), name)));
      GRAPNEL_RETURN_IF_ERROR(out->Add(name, std::move(tensor)));
    }
  }
  return absl::OkStatus();
}

// Adds `factor` times the rank's gradients to those in `*sums`, by name.
absl::Status AddGradients(const RankWindow& window, const std::string& prefix,
                          int rank, double factor, const TensorMap& saved,
                          TensorMap* sums) {
  for (const std::string& gradient : window.gradients()) {
    const std::string name = absl::StrCat(prefix, gradient);
    GRAPNEL_ASSIGN_OR_RETURN(
        const at::Tensor tensor,
        FindSaved(saved, absl::StrCat(RankPrefix(rank), name)));
    const at::Tensor* const sum = sums->Find(name);
    GRAPNEL_RETURN_IF_ERROR(CatchAsStatus([&]() -> absl::Status {
      if (sum == nullptr) return sums->Add(name, tensor.mul(factor));
      sum->add_(tensor, factor);
      return absl::OkStatus();
    }));
  }
  return absl::OkStatus();
}

// The ranks' mean, for `world_size` others to have each. By samples it is that
// over the samples so far, relative to the weight of all by the number of who
// goes on: it counts as much as before against what comes.
absl::Status TakeMean(const RunState& state, int world_size,
                      const TensorMap& saved,
                      const std::vector<Member>& members, TensorMap* out) {
  for (size_t i = 0; i < members.size(); ++i) {
    const int member = static_cast<int>(i);
    const bool by_samples =
        members[i].state->accumulate_by() == OptimWrapperConfig::SAMPLES;
    double weight = 0;
    for (const RankState& rank : state.ranks()) {
      weight += rank.windows(member).window_weight();
    }
    TensorMap sums;
    // Of no samples there is no mean.
    const int counted = by_samples && weight == 0 ? 0 : state.ranks_size();
    for (int rank = 0; rank < counted; ++rank) {
      const RankWindow& window = state.ranks(rank).windows(member);
      const double factor = by_samples ? window.first_weight() / weight
                                       : 1.0 / state.ranks_size();
      GRAPNEL_RETURN_IF_ERROR(
          AddGradients(window, members[i].prefix, rank, factor, saved, &sums));
    }
    RankWindow mean;
    mean.set_window_weight(weight / world_size);
    mean.set_first_weight(weight / world_size);
    for (const NamedTensor& sum : sums) {
      mean.add_gradients(sum.name.substr(members[i].prefix.size()));
      GRAPNEL_RETURN_IF_ERROR(out->Add(sum.name, sum.tensor));
    }
    SetWindow(mean, members[i].state);
  }
  return absl::OkStatus();
}

}  // namespace

void SaveRankWindows(const OptimWrapperState& state, RankState* rank) {
  const auto save = [rank](const OptimWrapperState& one) {
    RankWindow* const window = rank->add_windows();
    *window->mutable_gradients() = one.gradients();
    window->set_window_weight(one.window_weight());
    window->set_first_weight(one.first_weight());
  };
  for (const auto& named : state.optimizers()) save(named.state());
  if (state.optimizers().empty()) save(state);
}

absl::StatusOr<TensorMap> JoinRankGradients(
    const std::vector<TensorMap>& gradients) {
  TensorMap joined;
  for (size_t rank = 0; rank < gradients.size(); ++rank) {
    const std::string prefix = RankPrefix(static_cast<int>(rank));
    for (const NamedTensor& gradient : gradients[rank]) {
      GRAPNEL_RETURN_IF_ERROR(
          joined.Add(absl::StrCat(prefix, gradient.name), gradient.tensor));
    }
  }
  return joined;
}

absl::Status RestoreRankWindows(const RunState& state, int rank, int world_size,
                                OptimWrapperState* optim, TensorMap* gradients,
                                std::vector<std::string>* warnings) {
  const std::vector<Member> members = MembersOf(optim);
  const int saved_ranks = std::max(state.ranks_size(), 1);
  if (state.ranks().empty() || state.ranks(0).windows().empty()) {
    // The gradients of one are as good for each of many.
    for (const Member& member : members) {
      AccumulationWindow::ShareWeights(saved_ranks, world_size, member.state);
    }
    return absl::OkStatus();
  }
  GRAPNEL_RETURN_IF_ERROR(CheckSaved(state, members.size()));
  TensorMap own;
  if (saved_ranks == world_size) {
    GRAPNEL_RETURN_IF_ERROR(
        TakeOwn(state.ranks(rank), rank, *gradients, members, &own));
  } else {
    GRAPNEL_RETURN_IF_ERROR(
        TakeMean(state, world_size, *gradients, members, &own));
    if (!own.empty()) {
      warnings->push_back(
          "optim_wrapper: the gradients of the ranks' half-filled accumulation "
          "windows go on as their mean");
    }
  }
  *gradients = std::move(own);
  return absl::OkStatus();
}

}  // namespace grapnel
