// A run's weights for Predictors, which other threads ask for.

#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "c10/core/GradMode.h"
#include "c10/core/impl/VirtualGuardImpl.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/models/model.h"
#include "grapnel/runner/border_desk.h"
#include "grapnel/runner/hook.h"
#include "grapnel/runner/hook_registry.h"
#include "grapnel/runner/mode.h"
#include "grapnel/runner/predictor.h"
#include "grapnel/runner/predictor_parts.h"
#include "grapnel/runner/runner_config.pb.h"
#include "runner/runner_impl.h"

namespace grapnel {

absl::StatusOr<std::unique_ptr<Predictor>> RunnerImpl::MakePredictor(
    PredictorOptions options) {
  // Nothing of it changes once the runner is there.
  ModelOptions model_options;
  model_options.base_dir = options_.base_dir;
  model_options.env = env_;
  model_options.input_shape = input_shape_;
  model_options.device = device_;
  GRAPNEL_ASSIGN_OR_RETURN(
      Predictor::Parts parts,
      MakePredictorParts(options, config_.get(), model_options));
  // The desk outlives the runner, and then does nothing with it any more.
  parts.take = [this, desk = desk_, which = options.weights] {
    absl::StatusOr<std::shared_ptr<const WeightsCopy>> taken;
    const auto outcome = desk->Do([&](BorderDesk::Moment moment) {
      return TakeWeights(which, moment, &taken);
    });
    if (outcome == BorderDesk::Outcome::kClosed) {
      taken = absl::FailedPreconditionError("the runner is gone");
    } else if (outcome == BorderDesk::Outcome::kNotNow) {
      taken = absl::FailedPreconditionError(
          "a hook can't have the trained weights in an evaluation: the model "
          "may have the averaged ones");
    }
    return taken;
  };
  GRAPNEL_ASSIGN_OR_RETURN(parts.weights, parts.take());
  return Predictor::Create(std::move(parts));
}

bool RunnerImpl::TakeWeights(
    PredictorWeights which, BorderDesk::Moment moment,
    absl::StatusOr<std::shared_ptr<const WeightsCopy>>* taken) {
  bool now = true;
  const absl::Status status = CatchAsStatus([&]() -> absl::Status {
    *taken = std::shared_ptr<const WeightsCopy>();
    if (!loaded_) return absl::OkStatus();
    TensorMap weights;
    std::string section;
    GRAPNEL_RETURN_IF_ERROR(EvaluatedWeights(&weights, &section));
    auto copy = std::make_shared<WeightsCopy>();
    copy->info.iter = progress_.iter();
    copy->info.averaged =
        !section.empty() && which != PredictorWeights::kTrained;
    if (!copy->info.averaged) {
      if (which == PredictorWeights::kAveraged) {
        return absl::FailedPreconditionError(
            "the run keeps no average that evaluations see");
      }
      // The hook may have lent the model its average.
      now = section.empty() || moment == BorderDesk::Moment::kBorder ||
            (moment == BorderDesk::Moment::kHook && mode_ == Mode::kTrain);
      if (!now) return absl::OkStatus();
      GRAPNEL_ASSIGN_OR_RETURN(weights, ModelState(*model_));
    }
    const c10::AutoGradMode no_grad(false);
    for (const NamedTensor& tensor : weights) {
      GRAPNEL_RETURN_IF_ERROR(
          copy->tensors.Add(tensor.name, tensor.tensor.detach().clone()));
    }
    // Other threads read it, whose streams may be others.
    if (!device_.is_cpu()) {
      c10::impl::VirtualGuardImpl guard(device_.type());
      guard.synchronizeStream(guard.getStream(device_));
    }
    copy->number = ++num_weight_copies_;
    *taken = std::move(copy);
    return absl::OkStatus();
  });
  if (!status.ok()) *taken = status;
  return now;
}

absl::Status RunnerImpl::EvaluatedWeights(TensorMap* weights,
                                          std::string* section) const {
  for (const ScheduledHook& scheduled : hooks_.hooks()) {
    Hook& hook = *scheduled.hook;
    const absl::Status status =
        CatchAsStatus([&] { return hook.evaluated_weights(weights); });
    if (!status.ok()) {
      return WithContext(status, absl::StrCat("hook \"", hook.name(), "\""));
    }
    if (weights->empty()) continue;
    *section = std::string(hook.name());
    return absl::OkStatus();
  }
  return absl::OkStatus();
}

}  // namespace grapnel
