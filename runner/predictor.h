// Predictions beside a training: a model of one's own, with a run's weights.

#ifndef GRAPNEL_RUNNER_PREDICTOR_H_
#define GRAPNEL_RUNNER_PREDICTOR_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "grapnel/data/sample.h"
#include "grapnel/models/model.h"

namespace grapnel {

namespace io {
class Env;
}  // namespace io

enum class PredictorWeights {
  // What the run's evaluations see: the average that is evaluated, or the
  // trained weights where there is none.
  kEvaluated,
  kAveraged,  // That average; it is an error if there is none.
  kTrained,
};

struct PredictorOptions {
  PredictorWeights weights = PredictorWeights::kEvaluated;

  // How many predictions can be made at the same time, >= 1; others wait. Each
  // needs a copy of the model, and they share one more of the weights.
  int replicas = 1;

  // Makes a model like the run's, in place of its configuration: for a run
  // whose model was given in code. Called `replicas` times, before the
  // predictor is there, with another generator in the place of LibTorch's
  // default one. Must not call the runner.
  std::function<absl::StatusOr<std::unique_ptr<Model>>()> make_model;

  // Where it computes, as RunnerConfig.device says it: "cuda:1", "auto". Empty:
  // of a run, where that does; of Open, the CPU.
  std::string device;

  // Of Open only; a run has its own.

  // Shape of one sample, without N, for a model that infers sizes from it.
  // Empty: that of the run's data, which the checkpoint names.
  std::vector<int64_t> input_shape;
  // Where relative paths of the run's configuration start. They are absolute
  // unless the run was made without a current directory.
  std::string base_dir;
  // Outlives the predictor. Null: the system's.
  io::Env* env = nullptr;
};

// The weights that a prediction was made with.
struct WeightsInfo {
  int64_t iter = 0;       // RunContext::iter() when they were copied.
  bool averaged = false;  // Those of the average.
};

// Predicts with copies of a run's weights, all of one moment. They stay as they
// are until Refresh, while the run trains and when it is gone. Safe to use from
// many threads.
//
// Outputs are those that the run's validation would have with these weights, to
// the bit on the same kind of device: in evaluation mode, without autograd,
// under autocast if optim_wrapper.amp is set. `randomness.deterministic` holds
// for the process, and so only during the run's calls.
//
// LibTorch's modes and default generator are left as they are; nothing is drawn
// from that, but by a model that draws even in evaluation and hasn't
// Model::has_own_generator.
class Predictor {
 public:
  // Of a checkpoint alone: nothing else of the run need be there. `path` is a
  // checkpoint, or a work_dir, for the newest one in it that can be read whole.
  // (Or what else io::FindWeights knows, with options.make_model.) What the
  // configuration in it names besides the model needn't be linked in.
  //   kNotFound: there is none, or it has not the weights that are asked for.
  //   kInvalidArgument: it doesn't say what model to make, its weights don't
  //     fit the one that was made, or an option is wrong; names it.
  //   Else as io::ReadCheckpoint and Model's Create.
  static absl::StatusOr<std::unique_ptr<Predictor>> Open(
      const std::string& path, PredictorOptions options = {});

  // For the runner, and others who have weights: predictor_parts.h.
  struct Parts;
  static absl::StatusOr<std::unique_ptr<Predictor>> Create(Parts parts);

  ~Predictor();

  // Takes newer weights; predictions that have begun end with theirs. After an
  // error those before stay.
  //
  // Of a run: as they are now. While one of the runner's calls is going on, as
  // they are after the next training iteration, its hooks included, or where
  // the call ends; averages also behind a batch of an evaluation. Waits for it.
  // On the thread that makes the call, in a hook: at once. That hook runs
  // before or after others, as EMAHook. In an evaluation, where the model may
  // have the averaged weights, the trained ones are kFailedPrecondition there.
  // So is everything before the run has loaded what it begins with, and once
  // the runner is gone. Between calls the model is not to be changed by others
  // meanwhile.
  //
  // Of Open: what is at the path now.
  absl::Status Refresh();

  // outputs (N, ...), on the CPU, for inputs (N, ...), as Batch has them, on
  // any device; they are the caller's. Sets `*used`, if not null.
  // kFailedPrecondition if there are no weights yet, which Refresh takes, or
  // the model gives no outputs. What the model fails with names the inputs'
  // shape; kInvalidArgument if it isn't that of the run's data.
  absl::StatusOr<at::Tensor> Predict(const at::Tensor& inputs,
                                     WeightsInfo* used = nullptr);

  // As Model::ValStep, with losses if there are targets, which stay on the
  // device; also fails as that does. `batch.indices` may be empty.
  absl::Status Predict(const Batch& batch, Predictions* predictions,
                       WeightsInfo* used = nullptr);

  // Those that the next prediction will be made with.
  WeightsInfo weights() const;

 private:
  struct Core;

  explicit Predictor(std::unique_ptr<Core> core);

  const std::unique_ptr<Core> core_;
};

}  // namespace grapnel

#endif  // GRAPNEL_RUNNER_PREDICTOR_H_
