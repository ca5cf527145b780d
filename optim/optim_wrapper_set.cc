// Several optimizers as one OptimWrapper.

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/suggestion.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/optim/autocast.h"
#include "grapnel/optim/optim_wrapper.h"
#include "grapnel/optim/optim_wrapper.pb.h"
#include "grapnel/optim/optimizer.h"
#include "grapnel/optim/param_groups.h"
#include "re2/re2.h"

namespace grapnel {
namespace {

using ::grapnel::optim::v1::NamedOptimizerConfig;
using ::grapnel::optim::v1::OptimWrapperConfig;
using ::grapnel::optim::v1::OptimWrapperState;

// The groups of several, one after the other.
class JoinedGroups final : public ParamGroups {
 public:
  void Add(ParamGroups* part) { parts_.push_back(part); }

  int num_groups() const override {
    int sum = 0;
    for (const ParamGroups* part : parts_) sum += part->num_groups();
    return sum;
  }
  double* option(int group, absl::string_view name) override {
    size_t part = 0;
    while (group >= parts_[part]->num_groups()) {
      group -= parts_[part++]->num_groups();
    }
    return parts_[part]->option(group, name);
  }

 private:
  std::vector<ParamGroups*> parts_;
};

struct Member {
  std::string name;
  std::unique_ptr<OptimWrapper> wrapper;
};

class OptimWrapperSet final : public OptimWrapper {
 public:
  explicit OptimWrapperSet(std::vector<Member> members)
      : members_(std::move(members)) {
    observers_.reserve(members_.size());  // They are pointed to.
    for (const Member& member : members_) {
      names_.push_back(member.name);
      scheduled_groups_.Add(&member.wrapper->scheduled_groups());
      for (const auto& [name, lr] : member.wrapper->logged_lrs()) {
        logged_lrs_.push_back({absl::StrCat(member.name, ".", name), lr});
      }
      observers_.emplace_back(this, static_cast<int>(observers_.size()));
      member.wrapper->set_step_observer(&observers_.back());
    }
  }

  void BeginStep() override {
    for (const Member& member : members_) member.wrapper->BeginStep();
  }

  absl::Status Update(const at::Tensor&, double) override {
    return UpdateEach();
  }
  absl::Status UpdateFromGradients(const TensorMap&, double) override {
    return UpdateEach();
  }

  bool wants_weight() const override {
    return std::any_of(
        members_.begin(), members_.end(),
        [](const Member& member) { return member.wrapper->wants_weight(); });
  }

  const Autocast& autocast() const override {
    return members_.front().wrapper->autocast();  // They have the same.
  }

  absl::StatusOr<OptimWrapper*> Get(absl::string_view name) override {
    for (const Member& member : members_) {
      if (member.name == name) return member.wrapper.get();
    }
    return absl::NotFoundError(
        absl::StrCat("optimizer \"", name, "\": there are ",
                     absl::StrJoin(names_, ", "), DidYouMean(name, names_)));
  }

  void SkipStep() override {
    if (stepping_ != nullptr) stepping_->SkipStep();
  }

  void InitializeCounts(int64_t iter, int64_t max_iters) override {
    for (const Member& member : members_) {
      member.wrapper->InitializeCounts(iter, max_iters);
    }
  }

  void set_step_observer(StepObserver* observer) override {
    observer_ = observer;
  }

  Optimizer* optimizer() override { return nullptr; }
  ParamGroups& scheduled_groups() override { return scheduled_groups_; }
  const std::vector<std::pair<std::string, const double*>>& logged_lrs()
      const override {
    return logged_lrs_;
  }
  int64_t accumulated() const override {
    int64_t largest = 0;
    for (const Member& member : members_) {
      largest = std::max(largest, member.wrapper->accumulated());
    }
    return largest;
  }
  int64_t accumulative_counts() const override {
    int64_t largest = 1;
    for (const Member& member : members_) {
      largest = std::max(largest, member.wrapper->accumulative_counts());
    }
    return largest;
  }

  absl::Status ScaleLr(double factor) override {
    for (const Member& member : members_) {
      GRAPNEL_RETURN_IF_ERROR(Named(member, member.wrapper->ScaleLr(factor)));
    }
    return absl::OkStatus();
  }

  absl::Status SaveState(OptimWrapperState* state, TensorMap* optimizer_tensors,
                         TensorMap* gradients) const override {
    for (const Member& member : members_) {
      auto* saved = state->add_optimizers();
      saved->set_name(member.name);
      TensorMap own_tensors, own_gradients;
      GRAPNEL_RETURN_IF_ERROR(Named(
          member, member.wrapper->SaveState(saved->mutable_state(),
                                            &own_tensors, &own_gradients)));
      GRAPNEL_RETURN_IF_ERROR(
          AddPrefixed(member.name, own_tensors, optimizer_tensors));
      GRAPNEL_RETURN_IF_ERROR(
          AddPrefixed(member.name, own_gradients, gradients));
    }
    return absl::OkStatus();
  }

  absl::Status LoadState(const OptimWrapperState& state,
                         const TensorMap& optimizer_tensors,
                         const TensorMap& gradients, RestoredOptions* options,
                         std::vector<std::string>* notes) override {
    std::vector<std::string> saved;
    for (const auto& member : state.optimizers()) {
      saved.push_back(member.name());
    }
    if (saved != names_) {
      return absl::InvalidArgumentError(absl::StrCat(
          "optimizers: the state is of ",
          saved.empty() ? "one without a name" : absl::StrJoin(saved, ", "),
          ", these are ", absl::StrJoin(names_, ", ")));
    }
    GRAPNEL_RETURN_IF_ERROR(CheckPrefixes(optimizer_tensors));
    GRAPNEL_RETURN_IF_ERROR(CheckPrefixes(gradients));
    options->configured_known = true;
    for (size_t i = 0; i < members_.size(); ++i) {
      GRAPNEL_ASSIGN_OR_RETURN(
          const TensorMap own_tensors,
          WithoutPrefix(members_[i].name, optimizer_tensors));
      GRAPNEL_ASSIGN_OR_RETURN(const TensorMap own_gradients,
                               WithoutPrefix(members_[i].name, gradients));
      RestoredOptions own_options;
      std::vector<std::string> own_notes;
      GRAPNEL_RETURN_IF_ERROR(
          Named(members_[i], members_[i].wrapper->LoadState(
                                 state.optimizers(i).state(), own_tensors,
                                 own_gradients, &own_options, &own_notes)));
      options->configured_known &= own_options.configured_known;
      options->same_groups &= own_options.same_groups;
      options->reset.insert(options->reset.end(), own_options.reset.begin(),
                            own_options.reset.end());
      for (const std::string& note : own_notes) {
        notes->push_back(absl::StrCat(members_[i].name, ": ", note));
      }
    }
    return absl::OkStatus();
  }

 private:
  absl::Status UpdateEach() const {
    return absl::FailedPreconditionError(absl::StrCat(
        "there are several optimizers (", absl::StrJoin(names_, ", "),
        "): the model must override TrainStep and update each of them, "
        "optim.Get(\"",
        names_.front(), "\")"));
  }

  // Says which optimizer's step it is.
  class MemberObserver final : public StepObserver {
   public:
    MemberObserver(OptimWrapperSet* set, int index)
        : set_(set), index_(index) {}

    absl::Status BeforeOptimizerStep() override {
      if (set_->observer_ == nullptr) return absl::OkStatus();
      set_->stepping_ = set_->members_[index_].wrapper.get();
      absl::Status status = set_->observer_->BeforeOptimizerStep();
      set_->stepping_ = nullptr;
      return status;
    }
    absl::Status AfterOptimizerStep(const StepResult& result) override {
      if (set_->observer_ == nullptr) return absl::OkStatus();
      StepResult named = result;
      named.optimizer = index_;
      return set_->observer_->AfterOptimizerStep(named);
    }

   private:
    OptimWrapperSet* const set_;
    const int index_;
  };

  static absl::Status Named(const Member& member, absl::Status status) {
    if (status.ok()) return status;
    return WithContext(std::move(status),
                       absl::StrCat("optimizer \"", member.name, "\""));
  }

  static absl::Status AddPrefixed(const std::string& name,
                                  const TensorMap& tensors, TensorMap* out) {
    for (const NamedTensor& tensor : tensors) {
      GRAPNEL_RETURN_IF_ERROR(
          out->Add(absl::StrCat(name, "/", tensor.name), tensor.tensor));
    }
    return absl::OkStatus();
  }

  static absl::StatusOr<TensorMap> WithoutPrefix(const std::string& name,
                                                 const TensorMap& tensors) {
    TensorMap own;
    for (const NamedTensor& tensor : tensors) {
      absl::string_view rest = tensor.name;
      if (!absl::ConsumePrefix(&rest, name) || !absl::ConsumePrefix(&rest, "/"))
        continue;
      GRAPNEL_RETURN_IF_ERROR(own.Add(std::string(rest), tensor.tensor));
    }
    return own;
  }

  absl::Status CheckPrefixes(const TensorMap& tensors) const {
    for (const NamedTensor& tensor : tensors) {
      const std::string name = tensor.name.substr(0, tensor.name.find('/'));
      if (std::find(names_.begin(), names_.end(), name) == names_.end()) {
        return absl::InvalidArgumentError(
            absl::StrCat("tensor \"", tensor.name, "\": is of no optimizer"));
      }
    }
    return absl::OkStatus();
  }

  const std::vector<Member> members_;
  std::vector<std::string> names_;
  std::vector<MemberObserver> observers_;
  JoinedGroups scheduled_groups_;
  std::vector<std::pair<std::string, const double*>> logged_lrs_;
  StepObserver* observer_ = nullptr;
  OptimWrapper* stepping_ = nullptr;  // In BeforeOptimizerStep.
};

bool IsName(absl::string_view name) {
  return !name.empty() && std::all_of(name.begin(), name.end(), [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '_' ||
           c == '-';
  });
}

// The config of one of them, as if it were the only one.
OptimWrapperConfig ConfigOf(const NamedOptimizerConfig& named,
                            const OptimWrapperConfig& all) {
  OptimWrapperConfig config;
  *config.mutable_optimizer() = named.optimizer();
  if (named.has_accumulative_counts()) {
    config.set_accumulative_counts(named.accumulative_counts());
  }
  if (named.has_accumulate_by()) {
    config.set_accumulate_by(named.accumulate_by());
  }
  if (named.has_clip_grad()) *config.mutable_clip_grad() = named.clip_grad();
  if (named.has_paramwise_cfg()) {
    *config.mutable_paramwise_cfg() = named.paramwise_cfg();
  }
  if (all.has_amp()) *config.mutable_amp() = all.amp();
  return config;
}

// Those of `params` that the pattern matches. `owners`, beside `params`, says
// whose those that require a gradient are; "" for nobody's yet.
absl::StatusOr<std::vector<NamedTensor>> TakeParams(
    const NamedOptimizerConfig& named, const std::vector<NamedTensor>& params,
    std::vector<std::string>* owners) {
  if (named.pattern().empty()) {
    return absl::InvalidArgumentError("pattern: must be set");
  }
  const RE2 pattern(named.pattern(), RE2::Quiet);
  if (!pattern.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("pattern: \"", named.pattern(), "\": ", pattern.error()));
  }
  std::vector<NamedTensor> own;
  bool any = false;
  for (size_t i = 0; i < params.size(); ++i) {
    const NamedTensor& param = params[i];
    if (!RE2::PartialMatch(param.name, pattern)) continue;
    own.push_back(param);
    if (!param.tensor.defined() || !param.tensor.requires_grad()) continue;
    any = true;
    std::string& owner = (*owners)[i];
    if (!owner.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("pattern: \"", named.pattern(), "\" matches \"",
                       param.name, "\", which is of \"", owner, "\" already"));
    }
    owner = named.name();
  }
  if (!any) {
    return absl::InvalidArgumentError(
        absl::StrCat("pattern: \"", named.pattern(),
                     "\" matches no parameter that requires a gradient"));
  }
  return own;
}

absl::StatusOr<Member> CreateMember(const NamedOptimizerConfig& named,
                                    const OptimWrapperConfig& all,
                                    const std::vector<NamedTensor>& params,
                                    std::vector<std::string>* owners) {
  if (!IsName(named.name())) {
    return absl::InvalidArgumentError(
        absl::StrCat("name: must be of letters, digits, \"_\" and \"-\", is \"",
                     named.name(), "\""));
  }
  for (const NamedOptimizerConfig& other : all.optimizers()) {
    if (&other == &named) break;
    if (other.name() == named.name()) {
      return absl::InvalidArgumentError(
          absl::StrCat("name: \"", named.name(), "\" is there twice"));
    }
  }
  Member member;
  member.name = named.name();
  GRAPNEL_ASSIGN_OR_RETURN(const std::vector<NamedTensor> own,
                           TakeParams(named, params, owners));
  GRAPNEL_ASSIGN_OR_RETURN(member.wrapper,
                           OptimWrapper::Create(ConfigOf(named, all), own));
  return member;
}

}  // namespace

absl::StatusOr<std::unique_ptr<OptimWrapper>> OptimWrapper::CreateSet(
    const OptimWrapperConfig& config, const std::vector<NamedTensor>& params) {
  if (config.has_optimizer() || config.has_accumulative_counts() ||
      config.has_clip_grad() || config.has_paramwise_cfg() ||
      config.has_accumulate_by()) {
    return absl::InvalidArgumentError(
        "optimizers: beside them only amp may be set; each has an optimizer, "
        "accumulative_counts, clip_grad, paramwise_cfg and accumulate_by of "
        "its own");
  }
  std::vector<std::string> owners(params.size());
  std::vector<Member> members;
  for (int i = 0; i < config.optimizers_size(); ++i) {
    absl::StatusOr<Member> member =
        CreateMember(config.optimizers(i), config, params, &owners);
    if (!member.ok()) {
      return WithContext(std::move(member).status(),
                         absl::StrCat("optimizers[", i, "]"));
    }
    members.push_back(*std::move(member));
  }
  for (size_t i = 0; i < params.size(); ++i) {
    if (owners[i].empty() && params[i].tensor.defined() &&
        params[i].tensor.requires_grad()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "optimizers: no pattern matches parameter \"", params[i].name, "\""));
    }
  }
  return {std::make_unique<OptimWrapperSet>(std::move(members))};
}

}  // namespace grapnel
