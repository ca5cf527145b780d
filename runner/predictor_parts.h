// What a Predictor is made of, for those who make one.

#ifndef GRAPNEL_RUNNER_PREDICTOR_PARTS_H_
#define GRAPNEL_RUNNER_PREDICTOR_PARTS_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "c10/core/Device.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/models/model.h"
#include "grapnel/optim/autocast.h"
#include "grapnel/runner/predictor.h"

namespace grapnel::runner::v1 {
class RunnerConfig;
}  // namespace grapnel::runner::v1

namespace grapnel {

// Weights of one moment. Nobody changes them.
struct WeightsCopy {
  TensorMap tensors;  // Parameters and buffers, in memory of their own.
  WeightsInfo info;
  int64_t number = 0;  // >= 0; of one source, a larger one is newer.
};

struct Predictor::Parts {
  // All alike, at least one.
  std::vector<std::unique_ptr<Model>> models;

  // Gives the newest weights, on any thread. Null if there are none yet.
  std::function<absl::StatusOr<std::shared_ptr<const WeightsCopy>>()> take;
  std::shared_ptr<const WeightsCopy> weights;  // The first. May be null.

  Autocast autocast;                          // Of the models,
  c10::Device device = c10::DeviceType::CPU;  // and where they are.
  std::vector<int64_t> input_shape;  // For messages; empty if not known.
};

// The parts that don't depend on where weights come from: models, by
// options.make_model or else by `config`, null if there is none, and their
// autocast, on `model_options.device` if options.device is empty. Its
// generators aren't looked at: each has its own.
absl::StatusOr<Predictor::Parts> MakePredictorParts(
    const PredictorOptions& options, const runner::v1::RunnerConfig* config,
    ModelOptions model_options);

}  // namespace grapnel

#endif  // GRAPNEL_RUNNER_PREDICTOR_PARTS_H_
