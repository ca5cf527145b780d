#include "grapnel/optim/optim_wrapper.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "ATen/ops/_foreach_clamp_max.h"
#include "ATen/ops/_foreach_clamp_min.h"
#include "ATen/ops/_foreach_mul.h"
#include "ATen/ops/_foreach_norm.h"
#include "ATen/ops/clamp.h"
#include "ATen/ops/empty_like.h"
#include "ATen/ops/linalg_vector_norm.h"
#include "ATen/ops/stack.h"
#include "ATen/ops/zeros.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "c10/core/GradMode.h"
#include "google/protobuf/descriptor.h"
#include "grapnel/base/check_field.h"
#include "grapnel/base/log.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/torch_status.h"
#include "re2/re2.h"

namespace grapnel {
namespace {

using ::grapnel::optim::v1::ClipGradConfig;
using ::grapnel::optim::v1::OptimizerConfig;
using ::grapnel::optim::v1::OptimizerState;
using ::grapnel::optim::v1::OptimWrapperConfig;
using ::grapnel::optim::v1::OptimWrapperState;
using ::grapnel::optim::v1::ParamwiseConfig;

// "optimizer: adamw": the field that an error is in.
std::string OptimizerField(const OptimizerConfig& config) {
  const google::protobuf::OneofDescriptor* kind =
      OptimizerConfig::descriptor()->FindOneofByName("kind");
  const google::protobuf::FieldDescriptor* field =
      config.GetReflection()->GetOneofFieldDescriptor(config, kind);
  return field == nullptr ? "optimizer"
                          : absl::StrCat("optimizer: ", field->name());
}

absl::StatusOr<std::unique_ptr<Optimizer>> CreateOptimizer(
    const OptimizerConfig& config, std::vector<ParamGroup> groups) {
  absl::StatusOr<std::unique_ptr<Optimizer>> optimizer =
      OptimizerRegistry::Create(config, std::move(groups));
  if (!optimizer.ok()) {
    return WithContext(std::move(optimizer).status(), OptimizerField(config));
  }
  return optimizer;
}

// ---- Which parameter gets which multipliers ----

struct Multipliers {
  double lr = 1;
  double decay = 1;
};

absl::StatusOr<double> ReadMultiplier(bool is_set, double value,
                                      absl::string_view field) {
  if (!is_set) return 1.0;
  GRAPNEL_RETURN_IF_ERROR(CheckField(std::isfinite(value) && value >= 0, field,
                                     "finite and >= 0", value));
  return value;
}

class Paramwise {
 public:
  static absl::StatusOr<Paramwise> Create(const ParamwiseConfig& config) {
    Paramwise paramwise;
    for (int i = 0; i < config.rules_size(); ++i) {
      absl::StatusOr<Rule> rule = MakeRule(config.rules(i));
      if (!rule.ok()) {
        return WithContext(std::move(rule).status(),
                           absl::StrCat("rules[", i, "]"));
      }
      paramwise.rules_.push_back(*std::move(rule));
    }
    GRAPNEL_ASSIGN_OR_RETURN(
        paramwise.bias_.lr,
        ReadMultiplier(config.has_bias_lr_mult(), config.bias_lr_mult(),
                       "bias_lr_mult"));
    GRAPNEL_ASSIGN_OR_RETURN(
        paramwise.bias_.decay,
        ReadMultiplier(config.has_bias_decay_mult(), config.bias_decay_mult(),
                       "bias_decay_mult"));
    GRAPNEL_ASSIGN_OR_RETURN(
        paramwise.norm_.decay,
        ReadMultiplier(config.has_norm_decay_mult(), config.norm_decay_mult(),
                       "norm_decay_mult"));
    return paramwise;
  }

  Multipliers Of(const NamedTensor& param) {
    const Multipliers* found = nullptr;
    for (Rule& rule : rules_) {
      if (!RE2::PartialMatch(param.name, *rule.pattern)) continue;
      rule.matched = true;
      if (found == nullptr) found = &rule.multipliers;
    }
    if (found != nullptr) return *found;
    if (absl::EndsWith(param.name, "bias")) return bias_;
    if (param.tensor.dim() == 1) return norm_;
    return {};
  }

  // After Of() has seen all parameters.
  absl::Status CheckAllMatched() const {
    for (size_t i = 0; i < rules_.size(); ++i) {
      if (!rules_[i].matched) {
        return absl::InvalidArgumentError(absl::StrCat(
            "rules[", i, "]: pattern: \"", rules_[i].pattern->pattern(),
            "\" matches no parameter"));
      }
    }
    return absl::OkStatus();
  }

 private:
  struct Rule {
    std::unique_ptr<RE2> pattern;
    Multipliers multipliers;
    bool matched = false;
  };

  static absl::StatusOr<Rule> MakeRule(const ParamwiseConfig::Rule& config) {
    if (config.pattern().empty()) {
      return absl::InvalidArgumentError("pattern: must be set");
    }
    Rule rule;
    rule.pattern = std::make_unique<RE2>(config.pattern(), RE2::Quiet);
    if (!rule.pattern->ok()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "pattern: \"", config.pattern(), "\": ", rule.pattern->error()));
    }
    GRAPNEL_ASSIGN_OR_RETURN(
        rule.multipliers.lr,
        ReadMultiplier(config.has_lr_mult(), config.lr_mult(), "lr_mult"));
    GRAPNEL_ASSIGN_OR_RETURN(rule.multipliers.decay,
                             ReadMultiplier(config.has_decay_mult(),
                                            config.decay_mult(), "decay_mult"));
    return rule;
  }

  std::vector<Rule> rules_;
  Multipliers bias_;
  Multipliers norm_;
};

absl::StatusOr<std::vector<ParamGroup>> MakeGroups(
    const ParamwiseConfig& config, const std::vector<NamedTensor>& params) {
  std::vector<ParamGroup> groups;
  absl::StatusOr<Paramwise> paramwise = Paramwise::Create(config);
  if (!paramwise.ok()) {
    return WithContext(std::move(paramwise).status(), "paramwise_cfg");
  }
  for (const NamedTensor& param : params) {
    if (!param.tensor.defined()) {
      return absl::InvalidArgumentError(
          absl::StrCat("parameter \"", param.name, "\": is undefined"));
    }
    // A rule may be about a part that is frozen for now.
    const Multipliers multipliers = paramwise->Of(param);
    if (!param.tensor.requires_grad()) continue;
    auto group = std::find_if(groups.begin(), groups.end(),
                              [&](const ParamGroup& group) {
                                return group.lr_mult == multipliers.lr &&
                                       group.decay_mult == multipliers.decay;
                              });
    if (group == groups.end()) {
      groups.push_back({{}, multipliers.lr, multipliers.decay});
      group = groups.end() - 1;
    }
    group->params.push_back(param);
  }
  GRAPNEL_RETURN_IF_ERROR(
      WithContext(paramwise->CheckAllMatched(), "paramwise_cfg"));
  if (groups.empty()) {
    return absl::InvalidArgumentError(
        "no parameter requires a gradient: there is nothing to optimize");
  }
  return groups;
}

// ---- Clipping ----

struct Clip {
  enum class Kind { kNone, kNorm, kValue };
  Kind kind = Kind::kNone;
  double limit = 0;
  double norm_type = 2;
  bool error_if_nonfinite = false;
};

absl::StatusOr<Clip> MakeClip(const ClipGradConfig& config) {
  Clip clip;
  clip.error_if_nonfinite = config.error_if_nonfinite();
  switch (config.type()) {
    case ClipGradConfig::TYPE_UNSPECIFIED:
    case ClipGradConfig::NORM:
      clip.kind = Clip::Kind::kNorm;
      if (!config.has_max_norm()) {
        return absl::InvalidArgumentError("max_norm: must be set");
      }
      clip.limit = config.max_norm();
      if (config.has_norm_type()) clip.norm_type = config.norm_type();
      GRAPNEL_RETURN_IF_ERROR(
          CheckField(std::isfinite(clip.limit) && clip.limit > 0, "max_norm",
                     "finite and > 0", clip.limit));
      GRAPNEL_RETURN_IF_ERROR(
          CheckField(clip.norm_type > 0, "norm_type", "> 0", clip.norm_type));
      if (config.has_clip_value()) {
        return absl::InvalidArgumentError(
            "clip_value: is for type VALUE, the type is NORM");
      }
      return clip;
    case ClipGradConfig::VALUE:
      clip.kind = Clip::Kind::kValue;
      if (!config.has_clip_value()) {
        return absl::InvalidArgumentError("clip_value: must be set");
      }
      clip.limit = config.clip_value();
      GRAPNEL_RETURN_IF_ERROR(
          CheckField(std::isfinite(clip.limit) && clip.limit > 0, "clip_value",
                     "finite and > 0", clip.limit));
      if (config.has_max_norm() || config.has_norm_type() ||
          config.has_error_if_nonfinite()) {
        return absl::InvalidArgumentError(
            "max_norm, norm_type and error_if_nonfinite are for type NORM, "
            "the type is VALUE");
      }
      return clip;
    default:
      return absl::InvalidArgumentError(absl::StrCat(
          "type: must be NORM or VALUE, is ", static_cast<int>(config.type())));
  }
}

bool OnOneDevice(const std::vector<at::Tensor>& tensors) {
  return std::all_of(tensors.begin(), tensors.end(), [&](const at::Tensor& t) {
    return t.device() == tensors.front().device();
  });
}

// The norm of all gradients. Doesn't wait for the device.
at::Tensor GradNorm(const Clip& clip, const std::vector<at::Tensor>& grads) {
  if (grads.empty()) return at::zeros({});
  std::vector<at::Tensor> norms;
  if (OnOneDevice(grads)) {
    norms = at::_foreach_norm(grads, clip.norm_type);
  } else {
    for (const at::Tensor& grad : grads) {
      norms.push_back(at::linalg_vector_norm(grad, clip.norm_type)
                          .to(grads.front().device()));
    }
  }
  return at::linalg_vector_norm(at::stack(norms), clip.norm_type);
}

// Scales `grads`, whose norm is `norm`, down to clip.limit, as
// torch.nn.utils.clip_grad_norm_ does. Doesn't wait for the device.
void ScaleToLimit(const Clip& clip, const at::Tensor& norm,
                  const std::vector<at::Tensor>& grads) {
  if (grads.empty()) return;
  const at::Tensor factor =
      at::clamp(norm.add(1e-6).reciprocal().mul(clip.limit),
                /*min=*/std::nullopt, /*max=*/1.0);
  if (OnOneDevice(grads)) {
    at::_foreach_mul_(grads, factor);
  } else {
    for (const at::Tensor& grad : grads) grad.mul_(factor.to(grad.device()));
  }
}

absl::Status CheckFinite(const at::Tensor& norm) {
  const double value = norm.item().toDouble();
  if (std::isfinite(value)) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      "clip_grad: error_if_nonfinite: the gradients' norm is ", value));
}

// ---- The wrapper ----

// The optimizer's groups, then the base group if there is one.
class ScheduledGroups final : public ParamGroups {
 public:
  ScheduledGroups(ParamGroups& groups, ParamGroups* base)
      : groups_(groups), base_(base) {}

  int num_groups() const override {
    return groups_.num_groups() + (base_ == nullptr ? 0 : 1);
  }
  double* option(int group, absl::string_view name) override {
    if (group < groups_.num_groups()) return groups_.option(group, name);
    return base_->option(0, name);
  }

 private:
  ParamGroups& groups_;
  ParamGroups* const base_;
};

class AccumulatingOptimWrapper final : public OptimWrapper {
 public:
  // `base`: null, or an optimizer of one group without multipliers and a
  // parameter that never steps.
  AccumulatingOptimWrapper(int64_t accumulative_counts, const Clip& clip,
                           std::unique_ptr<Optimizer> optimizer,
                           std::unique_ptr<Optimizer> base)
      : accumulative_counts_(accumulative_counts),
        clip_(clip),
        optimizer_(std::move(optimizer)),
        base_(std::move(base)),
        scheduled_groups_(*optimizer_, base_.get()) {
    const double* base_lr = base_ == nullptr ? nullptr : base_->option(0, "lr");
    if (base_lr != nullptr) logged_lrs_.push_back({"base_lr", base_lr});
    const double* lr =
        optimizer_->num_groups() == 0 ? nullptr : optimizer_->option(0, "lr");
    if (lr != nullptr) logged_lrs_.push_back({"lr", lr});
  }

  void BeginStep() override {
    if (stepped_) optimizer_->ZeroGrad();
    stepped_ = false;
  }

  absl::Status Update(const at::Tensor& loss) override {
    GRAPNEL_RETURN_IF_ERROR(CheckLoss(loss));
    BeginStep();
    started_ = true;
    const int64_t size = WindowSize();
    GRAPNEL_RETURN_IF_ERROR(WithContext(CatchAsStatus([&] {
                                          if (size == 1) {
                                            loss.backward();
                                          } else {
                                            loss.div(size).backward();
                                          }
                                          return absl::OkStatus();
                                        }),
                                        "backward"));
    ++inner_count_;
    return accumulated() < size ? absl::OkStatus() : FinishWindow();
  }

  void InitializeCounts(int64_t iter, int64_t max_iters) override {
    inner_count_ = iter;
    max_count_ = max_iters;
    // Without a state to load, as upstream: a window that was half filled is
    // the smaller for it.
    window_begin_ = iter - iter % accumulative_counts_;
  }

  void set_step_observer(StepObserver* observer) override {
    observer_ = observer;
  }

  Optimizer& optimizer() override { return *optimizer_; }
  ParamGroups& scheduled_groups() override { return scheduled_groups_; }
  const std::vector<std::pair<std::string, const double*>>& logged_lrs()
      const override {
    return logged_lrs_;
  }
  int64_t accumulated() const override { return inner_count_ - window_begin_; }
  int64_t accumulative_counts() const override { return accumulative_counts_; }

  absl::Status ScaleLr(double factor) override {
    GRAPNEL_RETURN_IF_ERROR(CheckField(std::isfinite(factor) && factor > 0,
                                       "factor", "finite and > 0", factor));
    if (started_) {
      return absl::FailedPreconditionError(
          "the learning rate can be scaled before the first step only");
    }
    for (int i = 0; i < scheduled_groups_.num_groups(); ++i) {
      if (double* lr = scheduled_groups_.option(i, "lr")) *lr *= factor;
    }
    return absl::OkStatus();
  }

  absl::Status SaveState(OptimWrapperState* state, TensorMap* optimizer_tensors,
                         TensorMap* gradients) const override {
    GRAPNEL_RETURN_IF_ERROR(
        optimizer_->SaveState(state->mutable_optimizer(), optimizer_tensors));
    state->set_inner_count(inner_count_);
    state->set_accumulative_counts(accumulative_counts_);
    state->set_window_begin(window_begin_);
    state->set_window_size(WindowSize());
    if (base_ != nullptr) {
      GRAPNEL_ASSIGN_OR_RETURN(const OptimizerState base, SaveBase());
      *state->mutable_base_options() = base.groups(0).options();
    }
    if (accumulated() == 0) return absl::OkStatus();
    for (int i = 0; i < optimizer_->num_groups(); ++i) {
      for (const NamedTensor& param : optimizer_->params(i)) {
        if (!param.tensor.grad().defined()) continue;
        state->add_gradients(param.name);
        GRAPNEL_RETURN_IF_ERROR(
            gradients->Add(param.name, param.tensor.grad()));
      }
    }
    return absl::OkStatus();
  }

  absl::Status LoadState(const OptimWrapperState& state,
                         const TensorMap& optimizer_tensors,
                         const TensorMap& gradients) override {
    GRAPNEL_RETURN_IF_ERROR(CheckField(state.inner_count() >= 0, "inner_count",
                                       ">= 0", state.inner_count()));
    GRAPNEL_RETURN_IF_ERROR(CheckField(
        state.window_begin() >= 0 &&
            state.window_begin() <= state.inner_count(),
        "window_begin", absl::StrCat("in [0, ", state.inner_count(), "]"),
        state.window_begin()));
    GRAPNEL_RETURN_IF_ERROR(CheckField(
        state.window_size() > state.inner_count() - state.window_begin(),
        "window_size", "more than the window holds", state.window_size()));
    std::vector<std::pair<at::Tensor, at::Tensor>> grads;  // Parameter, its.
    GRAPNEL_RETURN_IF_ERROR(
        WithContext(ReadGradients(state, gradients, &grads), "gradients"));
    OptimizerState base;
    if (base_ != nullptr) {
      GRAPNEL_ASSIGN_OR_RETURN(base, SaveBase());
      for (auto& [name, value] : *base.mutable_groups(0)->mutable_options()) {
        const auto saved = state.base_options().find(name);
        if (saved == state.base_options().end()) {
          return absl::InvalidArgumentError(
              absl::StrCat("base_options: ", name, " is missing"));
        }
        GRAPNEL_RETURN_IF_ERROR(CheckField(std::isfinite(saved->second),
                                           "base_options", "finite",
                                           saved->second));
        value = saved->second;
      }
    }
    GRAPNEL_RETURN_IF_ERROR(
        WithContext(optimizer_->LoadState(state.optimizer(), optimizer_tensors),
                    "optimizer"));
    if (base_ != nullptr) {
      GRAPNEL_RETURN_IF_ERROR(base_->LoadState(base, TensorMap()));
    }

    started_ = true;
    inner_count_ = state.inner_count();
    window_begin_ = state.window_begin();
    optimizer_->ZeroGrad();
    stepped_ = false;
    if (accumulated() == 0) return absl::OkStatus();
    if (state.accumulative_counts() != accumulative_counts_) {
      GRAPNEL_LOG(WARNING) << "the checkpoint was saved inside a window of "
                           << state.accumulative_counts()
                           << " iterations, accumulative_counts is "
                           << accumulative_counts_
                           << " now: the window's gradients are dropped";
      window_begin_ = inner_count_;
      return absl::OkStatus();
    }
    // The window may come to hold another number than was planned for.
    const int64_t size = WindowSize();
    return CatchAsStatus([&] {
      const c10::AutoGradMode no_grad(false);
      for (const auto& [param, grad] : grads) {
        if (size != state.window_size()) {
          grad.mul_(static_cast<double>(state.window_size()) /
                    static_cast<double>(size));
        }
        param.mutable_grad() = grad;
      }
      return absl::OkStatus();
    });
  }

 private:
  static absl::Status CheckLoss(const at::Tensor& loss) {
    if (!loss.defined())
      return absl::InvalidArgumentError("loss: is undefined");
    if (loss.numel() != 1 || !at::isFloatingType(loss.scalar_type())) {
      return absl::InvalidArgumentError(
          absl::StrCat("loss: must be one floating number, is ", loss.numel(),
                       " of ", c10::toString(loss.scalar_type())));
    }
    if (!loss.requires_grad()) {
      return absl::InvalidArgumentError(
          "loss: doesn't depend on a parameter that requires a gradient, or "
          "was computed while autograd was off");
    }
    return absl::OkStatus();
  }

  // How many Updates the window that is being filled comes to hold: as many as
  // configured, or what is left of the run.
  int64_t WindowSize() const {
    if (inner_count_ >= max_count_) return accumulative_counts_;
    return std::min(accumulative_counts_, max_count_ - window_begin_);
  }

  absl::Status FinishWindow() {
    const int64_t begin = window_begin_;
    window_begin_ = inner_count_;
    StepResult result;
    if (observer_ != nullptr) {
      GRAPNEL_RETURN_IF_ERROR(observer_->BeforeOptimizerStep());
    }
    absl::Status clipped = ClipGradients(&result.grad_norm);
    if (!clipped.ok()) {
      --inner_count_;
      window_begin_ = begin;
      return clipped;
    }
    GRAPNEL_RETURN_IF_ERROR(WithContext(optimizer_->Step(), "optimizer"));
    result.stepped = true;
    absl::Status after = absl::OkStatus();
    if (observer_ != nullptr) after = observer_->AfterOptimizerStep(result);
    stepped_ = true;
    return after;
  }

  absl::Status ClipGradients(at::Tensor* grad_norm) {
    if (clip_.kind == Clip::Kind::kNone) return absl::OkStatus();
    for (int i = 0; i < optimizer_->num_groups(); ++i) {
      for (const NamedTensor& param : optimizer_->params(i)) {
        if (param.tensor.grad().defined())
          grads_.push_back(param.tensor.grad());
      }
    }
    const c10::AutoGradMode no_grad(false);
    const absl::Status status = CatchAsStatus([&]() -> absl::Status {
      if (clip_.kind == Clip::Kind::kNorm) {
        *grad_norm = GradNorm(clip_, grads_);
        if (clip_.error_if_nonfinite) {
          GRAPNEL_RETURN_IF_ERROR(CheckFinite(*grad_norm));
        }
        ScaleToLimit(clip_, *grad_norm, grads_);
      } else if (!grads_.empty()) {
        at::_foreach_clamp_min_(grads_, -clip_.limit);
        at::_foreach_clamp_max_(grads_, clip_.limit);
      }
      return absl::OkStatus();
    });
    grads_.clear();  // Keeps its memory.
    return status;
  }

  absl::StatusOr<OptimizerState> SaveBase() const {
    OptimizerState state;
    TensorMap tensors;
    GRAPNEL_RETURN_IF_ERROR(base_->SaveState(&state, &tensors));
    return state;
  }

  // Copies of the gradients in `state`, beside their parameters.
  absl::Status ReadGradients(
      const OptimWrapperState& state, const TensorMap& gradients,
      std::vector<std::pair<at::Tensor, at::Tensor>>* out) const {
    TensorMap params;
    for (int i = 0; i < optimizer_->num_groups(); ++i) {
      for (const NamedTensor& param : optimizer_->params(i)) {
        GRAPNEL_RETURN_IF_ERROR(params.Add(param.name, param.tensor));
      }
    }
    for (const std::string& name : state.gradients()) {
      const at::Tensor* param = params.Find(name);
      const at::Tensor* grad = gradients.Find(name);
      if (param == nullptr || grad == nullptr) {
        return absl::InvalidArgumentError(absl::StrCat(
            "\"", name, "\" is ",
            param == nullptr ? "no parameter" : "missing in the state"));
      }
      if (grad->sizes() != param->sizes() ||
          grad->scalar_type() != param->scalar_type()) {
        return absl::InvalidArgumentError(absl::StrCat(
            "\"", name, "\" has another shape or dtype than the parameter"));
      }
      GRAPNEL_RETURN_IF_ERROR(CatchAsStatus([&] {
        const c10::AutoGradMode no_grad(false);
        out->push_back({*param, at::empty_like(*param).copy_(*grad)});
        return absl::OkStatus();
      }));
    }
    return absl::OkStatus();
  }

  const int64_t accumulative_counts_;
  const Clip clip_;
  const std::unique_ptr<Optimizer> optimizer_;
  const std::unique_ptr<Optimizer> base_;
  ScheduledGroups scheduled_groups_;
  std::vector<std::pair<std::string, const double*>> logged_lrs_;
  StepObserver* observer_ = nullptr;
  int64_t inner_count_ = 0;
  int64_t max_count_ = -1;
  bool stepped_ = false;      // The gradients are of a step that was made.
  int64_t window_begin_ = 0;  // inner_count_ when the window was empty.
  bool started_ = false;
  std::vector<at::Tensor> grads_;  // Of the step being clipped; else empty.
};

absl::StatusOr<std::unique_ptr<OptimWrapper>> MakeWrapper(
    const OptimWrapperConfig& config, std::unique_ptr<Optimizer> optimizer,
    std::unique_ptr<Optimizer> base) {
  const int64_t counts =
      config.has_accumulative_counts() ? config.accumulative_counts() : 1;
  GRAPNEL_RETURN_IF_ERROR(
      CheckField(counts >= 1, "accumulative_counts", ">= 1", counts));
  Clip clip;
  if (config.has_clip_grad()) {
    absl::StatusOr<Clip> made = MakeClip(config.clip_grad());
    if (!made.ok()) {
      return WithContext(std::move(made).status(), "clip_grad");
    }
    clip = *made;
  }
  return {std::make_unique<AccumulatingOptimWrapper>(
      counts, clip, std::move(optimizer), std::move(base))};
}

}  // namespace

absl::StatusOr<std::unique_ptr<OptimWrapper>> OptimWrapper::Create(
    const OptimWrapperConfig& config, const std::vector<NamedTensor>& params) {
  GRAPNEL_ASSIGN_OR_RETURN(std::vector<ParamGroup> groups,
                           MakeGroups(config.paramwise_cfg(), params));
  const bool several = groups.size() > 1;
  GRAPNEL_ASSIGN_OR_RETURN(
      std::unique_ptr<Optimizer> optimizer,
      CreateOptimizer(config.optimizer(), std::move(groups)));
  // Only the optimizer knows its defaults, so the group that has no multipliers
  // is another one's.
  std::unique_ptr<Optimizer> base;
  if (several) {
    ParamGroup group;
    group.params.push_back({"base", at::zeros({1}).requires_grad_()});
    GRAPNEL_ASSIGN_OR_RETURN(
        base, CreateOptimizer(config.optimizer(), {std::move(group)}));
  }
  return MakeWrapper(config, std::move(optimizer), std::move(base));
}

absl::StatusOr<std::unique_ptr<OptimWrapper>> OptimWrapper::Create(
    const OptimWrapperConfig& config, std::unique_ptr<Optimizer> optimizer) {
  if (optimizer == nullptr) {
    return absl::InvalidArgumentError("optimizer: must not be null");
  }
  if (config.has_optimizer()) {
    return absl::InvalidArgumentError(
        "optimizer: must be unset around an optimizer that is given");
  }
  if (config.has_paramwise_cfg()) {
    return absl::InvalidArgumentError(
        "paramwise_cfg: must be unset around an optimizer that is given, whose "
        "groups are made");
  }
  return MakeWrapper(config, std::move(optimizer), nullptr);
}

}  // namespace grapnel
