#include "grapnel/runner/predictor.h"

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "grapnel/base/check_field.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/capi/guard.h"
#include "grapnel/capi/handles.h"
#include "grapnel/capi/runner_handle.h"
#include "grapnel/grapnel.h"
#include "grapnel/runner/runner.h"

struct grapnel_predictor : grapnel::capi::Counted {
  explicit grapnel_predictor(std::unique_ptr<grapnel::Predictor> p)
      : predictor(std::move(p)) {}
  const std::unique_ptr<grapnel::Predictor> predictor;  // Not null.
};

namespace grapnel::capi {
namespace {

absl::StatusOr<PredictorWeights> WeightsOf(grapnel_weights weights) {
  switch (weights) {
    case GRAPNEL_EVALUATED:
      return PredictorWeights::kEvaluated;
    case GRAPNEL_AVERAGED:
      return PredictorWeights::kAveraged;
    case GRAPNEL_TRAINED:
      return PredictorWeights::kTrained;
    default:
      return absl::InvalidArgumentError(
          absl::StrCat("weights: there is no value ", weights));
  }
}

absl::StatusOr<PredictorOptions> OptionsOf(grapnel_weights weights,
                                           int32_t replicas) {
  PredictorOptions options;
  GRAPNEL_ASSIGN_OR_RETURN(options.weights, WeightsOf(weights));
  GRAPNEL_RETURN_IF_ERROR(
      CheckField(replicas >= 1, "replicas", ">= 1", replicas));
  options.replicas = replicas;
  return options;
}

// A model may give what it got.
bool ShareMemory(const at::Tensor& a, const at::Tensor& b) {
  return a.has_storage() && b.has_storage() && a.is_alias_of(b);
}

}  // namespace
}  // namespace grapnel::capi

namespace capi = grapnel::capi;

grapnel_status* grapnel_predictor_open(const char* path, size_t path_size,
                                       grapnel_weights weights,
                                       int32_t replicas,
                                       grapnel_predictor** out) {
  return capi::Guard([&]() -> absl::Status {
    std::string file;
    GRAPNEL_RETURN_IF_ERROR(capi::ReadName(path, path_size, "path", &file));
    GRAPNEL_ASSIGN_OR_RETURN(grapnel::PredictorOptions options,
                             capi::OptionsOf(weights, replicas));
    GRAPNEL_RETURN_IF_ERROR(capi::NotNull(out, "out"));
    GRAPNEL_ASSIGN_OR_RETURN(
        std::unique_ptr<grapnel::Predictor> predictor,
        grapnel::Predictor::Open(file, std::move(options)));
    *out = new grapnel_predictor(std::move(predictor));
    return absl::OkStatus();
  });
}

grapnel_status* grapnel_runner_predictor(grapnel_runner* runner,
                                         grapnel_weights weights,
                                         int32_t replicas,
                                         grapnel_predictor** out) {
  // Any time: a call that is going on takes the weights.
  return capi::Guard([&]() -> absl::Status {
    GRAPNEL_RETURN_IF_ERROR(capi::NotNull(runner, "runner"));
    GRAPNEL_ASSIGN_OR_RETURN(grapnel::PredictorOptions options,
                             capi::OptionsOf(weights, replicas));
    GRAPNEL_RETURN_IF_ERROR(capi::NotNull(out, "out"));
    GRAPNEL_ASSIGN_OR_RETURN(std::unique_ptr<grapnel::Predictor> predictor,
                             runner->runner->MakePredictor(std::move(options)));
    *out = new grapnel_predictor(std::move(predictor));
    return absl::OkStatus();
  });
}

void grapnel_predictor_destroy(grapnel_predictor* predictor) {
  delete predictor;
}

grapnel_status* grapnel_predictor_refresh(grapnel_predictor* predictor) {
  return capi::Guard([&]() -> absl::Status {
    GRAPNEL_RETURN_IF_ERROR(capi::NotNull(predictor, "predictor"));
    return predictor->predictor->Refresh();
  });
}

grapnel_status* grapnel_predictor_predict(grapnel_predictor* predictor,
                                          const grapnel_tensor* inputs,
                                          grapnel_tensor** out) {
  return capi::Guard([&]() -> absl::Status {
    GRAPNEL_RETURN_IF_ERROR(capi::NotNull(predictor, "predictor"));
    GRAPNEL_RETURN_IF_ERROR(capi::NotNull(inputs, "inputs"));
    GRAPNEL_RETURN_IF_ERROR(capi::NotNull(out, "out"));
    GRAPNEL_ASSIGN_OR_RETURN(at::Tensor outputs,
                             predictor->predictor->Predict(inputs->tensor));
    auto made = std::make_unique<grapnel_tensor>(std::move(outputs));
    made->read_only =
        inputs->read_only && capi::ShareMemory(made->tensor, inputs->tensor);
    *out = made.release();
    return absl::OkStatus();
  });
}

int64_t grapnel_predictor_iter(const grapnel_predictor* predictor) {
  return capi::GuardValue(int64_t{0}, [&]() -> int64_t {
    return predictor == nullptr ? 0 : predictor->predictor->weights().iter;
  });
}
