#include "grapnel/optim/optim_wrapper.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "c10/core/GradMode.h"
#include "c10/util/StringUtil.h"
#include "grapnel/base/check_field.h"
#include "grapnel/base/kind_name.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/suggestion.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/base/utf8.h"
#include "grapnel/dist/gradient_reducer.h"
#include "grapnel/optim/accumulation_window.h"
#include "grapnel/optim/configured_options.h"
#include "grapnel/optim/foreach_ops.h"
#include "grapnel/optim/grad_clip.h"
#include "grapnel/optim/loss_scaler.h"
#include "grapnel/optim/optim_wrapper.pb.h"
#include "grapnel/optim/optimizer.pb.h"
#include "grapnel/optim/optimizers/optimizer_state.h"
#include "grapnel/optim/paramwise.h"

namespace grapnel {
namespace {

using ::grapnel::optim::v1::AmpConfig;
using ::grapnel::optim::v1::OptimizerConfig;
using ::grapnel::optim::v1::OptimizerState;
using ::grapnel::optim::v1::OptimWrapperConfig;
using ::grapnel::optim::v1::OptimWrapperState;

// "optimizer: adamw": the field that an error is in.
std::string OptimizerField(const OptimizerConfig& config) {
  const std::string kind = KindName(config);
  return kind.empty() ? "optimizer" : absl::StrCat("optimizer: ", kind);
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

// The optimizer's groups, then the base group if there is one.
class ScheduledGroups final : public ParamGroups {
 public:
  ScheduledGroups(ParamGroups& groups, ParamGroups* base)
      : groups_(groups), base_(base) {}

  int num_groups() const override {
    return groups_.num_groups() + (base_ == nullptr ? 0 : 1);
  }
  bool has_base_group() const override { return base_ != nullptr; }
  double* option(int group, absl::string_view name) override {
    if (group < groups_.num_groups()) return groups_.option(group, name);
    return base_->option(0, name);
  }

 private:
  ParamGroups& groups_;
  ParamGroups* const base_;
};

// What is configured, checked.
struct Settings {
  int64_t accumulative_counts = 1;
  bool by_samples = false;
  std::optional<GradClip> clip;
  Autocast autocast;
  std::optional<LossScaler> scaler;
};

absl::Status ReadAmp(const AmpConfig& config, const Optimizer& optimizer,
                     Settings* settings) {
  std::vector<NamedTensor> params;
  for (int i = 0; i < optimizer.num_groups(); ++i) {
    params.insert(params.end(), optimizer.params(i).begin(),
                  optimizer.params(i).end());
  }
  GRAPNEL_ASSIGN_OR_RETURN(settings->autocast, CreateAutocast(config, params));
  if (config.dtype() != AmpConfig::FLOAT16) return absl::OkStatus();
  absl::StatusOr<LossScaler> scaler = LossScaler::Create(config.loss_scale());
  if (!scaler.ok()) {
    return WithContext(std::move(scaler).status(), "loss_scale");
  }
  settings->scaler = *std::move(scaler);
  return absl::OkStatus();
}

absl::StatusOr<Settings> ReadSettings(const OptimWrapperConfig& config,
                                      const Optimizer& optimizer) {
  Settings settings;
  if (config.has_accumulative_counts()) {
    settings.accumulative_counts = config.accumulative_counts();
  }
  GRAPNEL_RETURN_IF_ERROR(CheckField(settings.accumulative_counts >= 1,
                                     "accumulative_counts", ">= 1",
                                     settings.accumulative_counts));
  switch (config.accumulate_by()) {
    case OptimWrapperConfig::ACCUMULATE_BY_UNSPECIFIED:
    case OptimWrapperConfig::ITERATIONS:
      break;
    case OptimWrapperConfig::SAMPLES:
      settings.by_samples = true;
      break;
    default:
      return absl::InvalidArgumentError(
          absl::StrCat("accumulate_by: must be ITERATIONS or SAMPLES, is ",
                       static_cast<int>(config.accumulate_by())));
  }
  if (config.has_clip_grad()) {
    absl::StatusOr<GradClip> clip = GradClip::Create(config.clip_grad());
    if (!clip.ok()) return WithContext(std::move(clip).status(), "clip_grad");
    settings.clip = *std::move(clip);
  }
  if (config.has_amp()) {
    GRAPNEL_RETURN_IF_ERROR(
        WithContext(ReadAmp(config.amp(), optimizer, &settings), "amp"));
  }
  return settings;
}

class AccumulatingOptimWrapper final : public OptimWrapper {
 public:
  // `base`: null, or an optimizer of one group without multipliers and a
  // parameter that never steps.
  AccumulatingOptimWrapper(Settings settings,
                           std::unique_ptr<Optimizer> optimizer,
                           std::unique_ptr<Optimizer> base)
      : window_(settings.accumulative_counts, settings.by_samples),
        clip_(std::move(settings.clip)),
        autocast_(settings.autocast),
        scaler_(std::move(settings.scaler)),
        optimizer_(std::move(optimizer)),
        base_(std::move(base)),
        scheduled_groups_(*optimizer_, base_.get()),
        configured_(*optimizer_, base_.get()) {
    const double* base_lr = base_ == nullptr ? nullptr : base_->option(0, "lr");
    if (base_lr != nullptr) logged_lrs_.push_back({"base_lr", base_lr});
    const double* lr =
        optimizer_->num_groups() == 0 ? nullptr : optimizer_->option(0, "lr");
    if (lr != nullptr) logged_lrs_.push_back({"lr", lr});
  }

  void BeginStep() override {
    if (window_ended_) optimizer_->ZeroGrad();
    window_ended_ = false;
    if (reducer_ == nullptr || forward_begun_) return;
    forward_begun_ = true;
    forward_status_ =
        reducer_->BeginForward(accumulated() + 1 >= window_.size());
  }

  absl::Status Update(const at::Tensor& loss, double weight) override {
    GRAPNEL_RETURN_IF_ERROR(CheckLoss(loss));
    const auto backward = [&](int64_t size, bool reduces) {
      if (size == 1 && !window_.by_samples() && !scaler_.has_value()) {
        return Backward(loss, reduces);
      }
      return Backward(Weighed(loss, size, weight), reduces);
    };
    return UpdateBy(weight, "backward", /*reduces=*/true, backward);
  }

  absl::Status UpdateFromGradients(const TensorMap& gradients,
                                   double weight) override {
    if (scaler_.has_value()) {
      return absl::FailedPreconditionError(
          "amp: dtype: FLOAT16 scales the loss, which gradients from elsewhere "
          "don't come from");
    }
    GRAPNEL_RETURN_IF_ERROR(CheckGradients(gradients));
    const auto add = [&](int64_t size, bool) {
      AddGradients(gradients, window_.by_samples()
                                  ? window_.relative_weight(weight)
                                  : 1.0 / static_cast<double>(size));
      return absl::OkStatus();
    };
    return UpdateBy(weight, "gradients", /*reduces=*/false, add);
  }

  bool wants_weight() const override { return window_.by_samples(); }

  const Autocast& autocast() const override { return autocast_; }

  absl::StatusOr<OptimWrapper*> Get(absl::string_view name) override {
    return absl::NotFoundError(absl::StrCat(
        "optimizer \"", name,
        "\": there is one optimizer, without a name; optim_wrapper.optimizers "
        "has several"));
  }

  void SkipStep() override { skip_ = true; }

  void InitializeCounts(int64_t iter, int64_t max_iters) override {
    window_.Initialize(iter, max_iters);
  }

  void set_step_observer(StepObserver* observer) override {
    observer_ = observer;
  }

  absl::Status SetGradientReducer(GradientReducer* reducer) override {
    reducer_ = reducer;
    return absl::OkStatus();
  }

  Optimizer* optimizer() override { return optimizer_.get(); }
  ParamGroups& scheduled_groups() override { return scheduled_groups_; }
  const std::vector<std::pair<std::string, const double*>>& logged_lrs()
      const override {
    return logged_lrs_;
  }
  int64_t accumulated() const override { return window_.accumulated(); }
  int64_t accumulative_counts() const override { return window_.counts(); }

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
    configured_.ScaleLr(factor);
    return absl::OkStatus();
  }

  absl::Status SaveState(OptimWrapperState* state, TensorMap* optimizer_tensors,
                         TensorMap* gradients) const override {
    GRAPNEL_RETURN_IF_ERROR(
        optimizer_->SaveState(state->mutable_optimizer(), optimizer_tensors));
    window_.SaveState(state);
    if (scaler_.has_value()) scaler_->SaveState(state->mutable_loss_scale());
    if (base_ != nullptr) {
      GRAPNEL_ASSIGN_OR_RETURN(const OptimizerState base, SaveBase());
      *state->mutable_base_options() = base.groups(0).options();
    }
    configured_.Save(state);
    if (reducer_ != nullptr) {
      const std::vector<int64_t> order = reducer_->order();
      state->mutable_gradient_order()->Assign(order.begin(), order.end());
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
                         const TensorMap& gradients, RestoredOptions* options,
                         std::vector<std::string>* notes) override {
    if (state.optimizers_size() > 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("the state is of ", state.optimizers_size(),
                       " optimizers, this is one"));
    }
    GRAPNEL_RETURN_IF_ERROR(AccumulationWindow::CheckState(state));
    std::optional<LossScaler> scaler = scaler_;
    if (scaler.has_value() && state.has_loss_scale()) {
      GRAPNEL_RETURN_IF_ERROR(
          WithContext(scaler->LoadState(state.loss_scale()), "loss_scale"));
    }
    std::vector<std::pair<at::Tensor, at::Tensor>> grads;  // Parameter, its.
    GRAPNEL_RETURN_IF_ERROR(
        WithContext(ReadGradients(state, gradients, &grads), "gradients"));
    GRAPNEL_RETURN_IF_ERROR(configured_.Check(state));
    GRAPNEL_RETURN_IF_ERROR(
        WithContext(optimizer_->LoadState(state.optimizer(), optimizer_tensors),
                    "optimizer"));

    configured_.Restore(state, *optimizer_, base_.get(), options, notes);
    started_ = true;
    scaler_ = scaler;
    optimizer_->ZeroGrad();
    window_ended_ = false;
    const std::string dropped = window_.LoadState(state);
    if (!dropped.empty()) notes->push_back(dropped);
    if (reducer_ != nullptr) {
      const auto& order = state.gradient_order();
      GRAPNEL_RETURN_IF_ERROR(reducer_->SetOrder({order.begin(), order.end()}));
    }
    if (accumulated() == 0) return absl::OkStatus();
    // The window may come to hold another number than was planned for, and the
    // loss to be scaled otherwise.
    double factor =
        scale() / (state.has_loss_scale() ? state.loss_scale().scale() : 1.0);
    if (!window_.by_samples()) {
      factor *= static_cast<double>(state.window_size()) /
                static_cast<double>(window_.size());
    }
    return CatchAsStatus([&] {
      const c10::AutoGradMode no_grad(false);
      for (const auto& [param, grad] : grads) {
        if (factor != 1) grad.mul_(factor);
        param.mutable_grad() = grad;
      }
      return absl::OkStatus();
    });
  }

 private:
  // Counts an Update whose gradients `add` leaves in the parameters, and makes
  // the step that is due. `add` gets the window's size, and whether it is to
  // make them those of all ranks, where they are due: never if not `reduces`.
  template <typename F>
  absl::Status UpdateBy(double weight, absl::string_view what, bool reduces,
                        F&& add) {
    if (window_.by_samples() && !(std::isfinite(weight) && weight >= 0)) {
      return CheckField(false, "weight", "finite and >= 0", weight);
    }
    BeginStep();
    started_ = true;
    const int64_t size = window_.size();
    window_.Weigh(weight);
    const absl::Status status = CatchAsStatus([&]() -> absl::Status {
      GRAPNEL_RETURN_IF_ERROR(forward_status_);
      const bool averages = reducer_ != nullptr && accumulated() + 1 == size;
      if (averages && window_.by_samples()) {
        GRAPNEL_ASSIGN_OR_RETURN(const bool all_add, ShareWeights(weight));
        // A backward pass that averages is one of all ranks.
        reduces = reduces && all_add;
      }
      if (!window_.by_samples() || weight > 0) {
        GRAPNEL_RETURN_IF_ERROR(add(size, reduces));
      }
      if (!averages || reduces || window_.weighs_nothing()) {
        return absl::OkStatus();
      }
      return reducer_->AverageGradients(
          /*counts=*/!window_.by_samples() || window_.weight() + weight > 0);
    });
    forward_begun_ = false;
    if (!status.ok()) {
      EndWindow();  // Some of the gradients may be there.
      return WithContext(status, what);
    }
    window_.Count(weight);
    return accumulated() < size ? absl::OkStatus() : FinishWindow();
  }

  // In the last Update of a window of several ranks, by samples: makes weights
  // relative to their windows' mean, so that the mean of their gradients is
  // that of all samples. Whether each of them adds some in this Update.
  absl::StatusOr<bool> ShareWeights(double weight) {
    double means[] = {window_.weight() + weight, weight > 0 ? 0.0 : 1.0};
    GRAPNEL_RETURN_IF_ERROR(reducer_->AverageNumbers(absl::MakeSpan(means)));
    const double factor = window_.Share(means[0]);
    if (factor != 1) {
      GRAPNEL_RETURN_IF_ERROR(OnGradients([&] {
        ScaleGradients(factor);
        return absl::OkStatus();
      }));
    }
    return means[1] == 0;
  }

  absl::Status Backward(const at::Tensor& loss, bool reduces) {
    if (reducer_ == nullptr || !reduces) {
      loss.backward();
      return absl::OkStatus();
    }
    GRAPNEL_RETURN_IF_ERROR(reducer_->BeginBackward(loss));
    const absl::Status status = CatchAsStatus([&] {
      loss.backward();
      return absl::OkStatus();
    });
    return status.ok() ? reducer_->EndBackward()
                       : reducer_->EndFailedBackward(status);
  }

  absl::Status CheckGradients(const TensorMap& gradients) const {
    size_t known = 0;
    for (int i = 0; i < optimizer_->num_groups(); ++i) {
      for (const NamedTensor& param : optimizer_->params(i)) {
        const at::Tensor* gradient = gradients.Find(param.name);
        if (gradient == nullptr) continue;
        ++known;
        const std::string mismatch = Mismatch(*gradient, param.tensor);
        if (!mismatch.empty()) {
          return absl::InvalidArgumentError(
              absl::StrCat("gradient of \"", param.name, "\": ", mismatch));
        }
      }
    }
    return known == gradients.size() ? absl::OkStatus()
                                     : UnknownGradient(gradients);
  }

  // Of the first one that no parameter has.
  absl::Status UnknownGradient(const TensorMap& gradients) const {
    std::vector<std::string> names;
    for (int i = 0; i < optimizer_->num_groups(); ++i) {
      for (const NamedTensor& param : optimizer_->params(i)) {
        names.push_back(param.name);
      }
    }
    for (const NamedTensor& gradient : gradients) {
      if (std::find(names.begin(), names.end(), gradient.name) != names.end()) {
        continue;
      }
      return absl::InvalidArgumentError(
          absl::StrCat("gradient of \"", EscapeToUtf8(gradient.name),
                       "\": no parameter that requires a gradient has this "
                       "name",
                       DidYouMean(gradient.name, names)));
    }
    return absl::OkStatus();
  }

  // Why this can't be the gradient of `param`; "" if it can.
  static std::string Mismatch(const at::Tensor& gradient,
                              const at::Tensor& param) {
    if (!gradient.defined()) return "has no value";
    if (gradient.layout() != at::kStrided) {
      return absl::StrCat("must be dense, is ", c10::str(gradient.layout()));
    }
    if (gradient.sizes() != param.sizes()) {
      return absl::StrCat("has the shape ", c10::str(gradient.sizes()),
                          ", the parameter's is ", c10::str(param.sizes()));
    }
    if (gradient.scalar_type() != param.scalar_type()) {
      return absl::StrCat("is ", c10::toString(gradient.scalar_type()),
                          ", the parameter is ",
                          c10::toString(param.scalar_type()));
    }
    if (gradient.device() != param.device()) {
      return absl::StrCat("is on ", gradient.device().str(),
                          ", the parameter is on ", param.device().str());
    }
    return "";
  }

  void AddGradients(const TensorMap& gradients, double factor) {
    const c10::AutoGradMode no_grad(false);
    for (int i = 0; i < optimizer_->num_groups(); ++i) {
      for (const NamedTensor& param : optimizer_->params(i)) {
        const at::Tensor* gradient = gradients.Find(param.name);
        if (gradient == nullptr) continue;
        at::Tensor& grad = param.tensor.mutable_grad();
        if (grad.defined()) {
          grad.add_(*gradient, factor);
        } else {
          grad = ops::empty_like(param.tensor).copy_(*gradient);
          if (factor != 1) grad.mul_(factor);
        }
      }
    }
  }

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

  double scale() const { return scaler_.has_value() ? scaler_->scale() : 1; }

  // What goes backward. By samples with its relative weight: what the sum is to
  // be divided by isn't known before the window's last Update. FinishWindow
  // does it then, and of several ranks ShareWeights has done it.
  at::Tensor Weighed(const at::Tensor& loss, int64_t size,
                     double weight) const {
    at::Tensor weighed = scaler_.has_value() ? scaler_->Scale(loss) : loss;
    if (!window_.by_samples()) return size == 1 ? weighed : weighed.div(size);
    const double relative = window_.relative_weight(weight);
    return relative == 1 ? weighed : weighed.mul(relative);
  }

  // The next one begins without its gradients, which are still there until
  // then.
  void EndWindow() {
    window_.End();
    window_ended_ = true;
  }

  absl::Status FinishWindow() {
    StepResult result;
    if (window_.weighs_nothing()) {
      result.scale = scale();
      EndWindow();
      return observer_ == nullptr ? absl::OkStatus()
                                  : observer_->AfterOptimizerStep(result);
    }
    const absl::Status status = MakeStep(&result);
    if (!status.ok()) window_.Uncount();
    EndWindow();
    GRAPNEL_RETURN_IF_ERROR(status);
    return observer_ == nullptr ? absl::OkStatus()
                                : observer_->AfterOptimizerStep(result);
  }

  absl::Status MakeStep(StepResult* result) {
    bool finite = true;
    at::Tensor overflow;  // Defined if only the device knows.
    if (window_.mean_factor() != 1 || scaler_.has_value()) {
      absl::StatusOr<bool> completed = CompleteGradients(&overflow);
      if (!completed.ok()) return std::move(completed).status();
      finite = *completed;
    }
    window_.End();
    result->scale = scale();
    skip_ = false;
    if (observer_ != nullptr) {
      GRAPNEL_RETURN_IF_ERROR(observer_->BeforeOptimizerStep());
    }
    if (finite && !skip_) {
      if (clip_.has_value()) {
        GRAPNEL_RETURN_IF_ERROR(ClipGradients(&result->grad_norm));
      }
      GRAPNEL_RETURN_IF_ERROR(WithContext(overflow.defined()
                                              ? optimizer_->StepUnless(overflow)
                                              : optimizer_->Step(),
                                          "optimizer"));
      result->stepped = true;
    }
    // A step that a hook left out says nothing about the scale.
    if (scaler_.has_value() && !(finite && skip_)) scaler_->Update(finite);
    return absl::OkStatus();
  }

  // Calls `change` while grads_ has the window's gradients.
  template <typename F>
  absl::Status OnGradients(F&& change) {
    const c10::AutoGradMode no_grad(false);
    for (int i = 0; i < optimizer_->num_groups(); ++i) {
      for (const NamedTensor& param : optimizer_->params(i)) {
        if (param.tensor.grad().defined()) {
          grads_.push_back(param.tensor.grad());
        }
      }
    }
    const absl::Status status = CatchAsStatus(std::forward<F>(change));
    grads_.clear();  // Keeps its memory.
    return status;
  }

  // Those in grads_.
  void ScaleGradients(double factor) {
    if (factor != 1 && !grads_.empty()) ops::foreach_mul_(grads_, factor);
  }

  // Makes the window's gradients those of its mean, unscaled. False if one of
  // them overflowed. A scale that is fixed has no use for that, and an
  // optimizer on a device may see to it there: then `*overflow` tells it.
  // Where norms that aren't finite are errors, those of an overflow are none.
  absl::StatusOr<bool> CompleteGradients(at::Tensor* overflow) {
    const double factor = window_.mean_factor();
    bool finite = true;
    GRAPNEL_RETURN_IF_ERROR(OnGradients([&] {
      if (scaler_.has_value()) {
        std::vector<at::Tensor> overflows = scaler_->Unscale(grads_, factor);
        const bool must_know =
            scaler_->dynamic() || overflows.size() != 1 ||
            (clip_.has_value() && clip_->error_if_nonfinite());
        if (!must_know && optimizer_->can_step_unless()) {
          *overflow = std::move(overflows.front());
        } else {
          finite = LossScaler::AreFinite(overflows);
        }
      } else {
        ScaleGradients(factor);
      }
      return absl::OkStatus();
    }));
    return finite;
  }

  absl::Status ClipGradients(at::Tensor* grad_norm) {
    return OnGradients([&] { return clip_->Clip(grads_, grad_norm); });
  }

  absl::StatusOr<OptimizerState> SaveBase() const {
    OptimizerState state;
    TensorMap tensors;
    GRAPNEL_RETURN_IF_ERROR(base_->SaveState(&state, &tensors));
    return state;
  }

  // Copies of the gradients in `state`, beside their parameters. Those of
  // parameters that aren't optimized any more are left out.
  absl::Status ReadGradients(
      const OptimWrapperState& state, const TensorMap& gradients,
      std::vector<std::pair<at::Tensor, at::Tensor>>* out) const {
    TensorMap params;
    for (int i = 0; i < optimizer_->num_groups(); ++i) {
      for (const NamedTensor& param : optimizer_->params(i)) {
        GRAPNEL_RETURN_IF_ERROR(params.Add(param.name, param.tensor));
      }
    }
    const auto saved_groups = GroupsByParam(state.optimizer());
    for (const std::string& name : state.gradients()) {
      const at::Tensor* param = params.Find(name);
      const at::Tensor* grad = gradients.Find(name);
      const bool known = saved_groups.contains(name);
      if (!known || grad == nullptr) {
        return absl::InvalidArgumentError(
            absl::StrCat("\"", name, "\" is ",
                         known ? "missing in the state" : "no parameter"));
      }
      if (param == nullptr) continue;
      if (grad->sizes() != param->sizes() ||
          grad->scalar_type() != param->scalar_type()) {
        return absl::InvalidArgumentError(absl::StrCat(
            "\"", name, "\" has another shape or dtype than the parameter"));
      }
      GRAPNEL_RETURN_IF_ERROR(CatchAsStatus([&] {
        const c10::AutoGradMode no_grad(false);
        out->push_back({*param, ops::empty_like(*param).copy_(*grad)});
        return absl::OkStatus();
      }));
    }
    return absl::OkStatus();
  }

  AccumulationWindow window_;  // The one that is being filled.
  const std::optional<GradClip> clip_;
  const Autocast autocast_;
  std::optional<LossScaler> scaler_;
  const std::unique_ptr<Optimizer> optimizer_;
  const std::unique_ptr<Optimizer> base_;
  ScheduledGroups scheduled_groups_;
  ConfiguredOptions configured_;
  std::vector<std::pair<std::string, const double*>> logged_lrs_;
  StepObserver* observer_ = nullptr;
  GradientReducer* reducer_ = nullptr;
  bool forward_begun_ = false;  // With it, and not gone backward yet.
  absl::Status forward_status_;
  bool window_ended_ = false;  // The gradients are those of the last one.
  bool skip_ = false;          // SkipStep was called for the step that is due.
  bool started_ = false;
  std::vector<at::Tensor> grads_;  // While they are being changed; else empty.
};

absl::StatusOr<std::unique_ptr<OptimWrapper>> MakeWrapper(
    const OptimWrapperConfig& config, std::unique_ptr<Optimizer> optimizer,
    std::unique_ptr<Optimizer> base) {
  GRAPNEL_ASSIGN_OR_RETURN(Settings settings, ReadSettings(config, *optimizer));
  return {std::make_unique<AccumulatingOptimWrapper>(
      std::move(settings), std::move(optimizer), std::move(base))};
}

}  // namespace

absl::Status OptimWrapper::SetGradientReducer(GradientReducer* reducer) {
  if (reducer == nullptr) return absl::OkStatus();
  return absl::FailedPreconditionError(
      "of several optimizers each has a reducer of its own");
}

absl::StatusOr<std::unique_ptr<OptimWrapper>> OptimWrapper::Create(
    const OptimWrapperConfig& config, const std::vector<NamedTensor>& params) {
  if (config.optimizers_size() > 0) {
    return CreateSet(config, params);
  }
  GRAPNEL_ASSIGN_OR_RETURN(const std::vector<ParamwiseGroup> paramwise,
                           MakeParamGroups(config.paramwise_cfg(), params));
  const bool several = paramwise.size() > 1;
  std::vector<ParamGroup> groups;
  for (const ParamwiseGroup& one : paramwise) groups.push_back(one.group);
  GRAPNEL_ASSIGN_OR_RETURN(
      std::unique_ptr<Optimizer> optimizer,
      CreateOptimizer(config.optimizer(), std::move(groups)));
  GRAPNEL_RETURN_IF_ERROR(SetParamwiseOptions(paramwise, *optimizer));
  // Only the optimizer knows its defaults, so the group that has no multipliers
  // and no options of its own is another one's.
  std::unique_ptr<Optimizer> base;
  if (several) {
    ParamGroup group;
    group.params.push_back({"base", ops::zeros({1}).requires_grad_()});
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
  if (config.optimizers_size() > 0) {
    return absl::InvalidArgumentError(
        "optimizers: must be unset around an optimizer that is given");
  }
  if (config.has_paramwise_cfg()) {
    return absl::InvalidArgumentError(
        "paramwise_cfg: must be unset around an optimizer that is given, whose "
        "groups are made");
  }
  return MakeWrapper(config, std::move(optimizer), nullptr);
}

}  // namespace grapnel
