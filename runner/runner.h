// A run: training, validation and test from one configuration.

#ifndef GRAPNEL_RUNNER_RUNNER_H_
#define GRAPNEL_RUNNER_RUNNER_H_

#include <atomic>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "grapnel/data/dataset.h"
#include "grapnel/data/iterable_dataset.h"
#include "grapnel/loggers/log_backend.h"
#include "grapnel/models/loss.h"
#include "grapnel/models/metric.h"
#include "grapnel/models/model.h"
#include "grapnel/optim/optimizer.h"
#include "grapnel/runner/hook_registry.h"
#include "grapnel/runner/launcher.h"

namespace grapnel::runner::v1 {
class RunnerConfig;
}  // namespace grapnel::runner::v1

namespace grapnel {

class Clock;
class Predictor;
class RunLog;
struct PredictorOptions;

namespace io {
class Env;
}  // namespace io

// What a failed call failed at, for a program's exit code.
enum class ErrorOrigin {
  kOther,
  kRequest,     // The call itself: what it needs isn't configured.
  kData,        // A dataset or a transform.
  kCheckpoint,  // Loading a checkpoint.
};
ErrorOrigin OriginOf(const absl::Status& status);

struct RunnerOptions {
  // Where relative paths of the config start, and what the run is called: the
  // config file's folder, and its name without ending. "" and "grapnel" for a
  // config that was not read from a file.
  std::string base_dir;
  std::string config_name = "grapnel";

  // False if Train() won't be called: training data is then not opened, and
  // `resume` and `load_from` take weights alone, as they do without train_cfg.
  // Those must then be there for all of the model, unless load_options say
  // otherwise.
  bool for_training = true;

  // Lines of the run's log also go to this file descriptor; -1 for none.
  int terminal_fd = -1;

  // How long Runner::Create waits for another run in work_dir, or in the
  // checkpoints' folder, to end. For a job that is queued again while its
  // predecessor still has its grace period. The checkpoint to resume from is
  // looked for after the wait.
  absl::Duration wait_for_lock = absl::ZeroDuration();

  // What a signal handler sets. Polled at every iteration, those of a
  // validation included, and while Create waits for the folder or for other
  // ranks, which then returns kCancelled. Of several ranks about once a second,
  // when they ask each other, and not within a validation.
  // Once it is not 0, the run stops and saves, and Train() returns kCancelled;
  // a validation that was cut short is repeated when the run goes on. Not
  // owned; may be null.
  const std::atomic<int>* interrupt = nullptr;

  // Null: the system's. Not owned.
  io::Env* env = nullptr;
  const Clock* clock = nullptr;

  // Null: a terminal and file log. Of several ranks all but the first write
  // errors alone there. Not owned.
  RunLog* log = nullptr;

  // Lines and records are formatted and written by a thread of the runner's
  // own, so that training doesn't wait for terminals and disks. They are
  // written before a checkpoint of their iteration is, and before a call
  // returns. If false, the thread that logs writes them at once.
  bool log_in_background = true;

  // Null: that of the config's `launcher`. Of one rank this process trains
  // alone. Else the ranks train one
  // model: each has its share of every epoch, and rank 0 alone writes files and
  // logs; all call the same functions. An error ends the group, and so the
  // run, on all ranks. Not owned.
  ProcessGroup* process_group = nullptr;

  // Of several ranks: makes what averages their gradients. Called once, when
  // the model is there, on all ranks.
  MakeGradientReducer make_gradient_reducer;

  // In place of what the config describes, which must then be unset there.
  std::unique_ptr<Model> model;
  std::unique_ptr<Optimizer> optimizer;
  std::unique_ptr<Dataset> train_dataset;
  // In place of train_dataset, for a run by iteration; see StreamLoader. Create
  // reads its first batch if the model is the config's. Where it is belongs to
  // checkpoints, and a resume goes there.
  std::unique_ptr<IterableDataset> train_stream;
  std::unique_ptr<Dataset> val_dataset;
  std::unique_ptr<Dataset> test_dataset;
  // For a model from config, whose own `loss` must then be unset.
  std::unique_ptr<Loss> loss;
  // Added to those of the config.
  std::vector<std::unique_ptr<Metric>> val_metrics;
  std::vector<std::unique_ptr<Metric>> test_metrics;

  // Get the run's records too, beside those of the config's `visualizer`.
  std::vector<std::unique_ptr<LogBackend>> log_backends;

  // Registered after the config's custom hooks.
  std::vector<ScheduledHook> hooks;
};

// Drives the loops drawn in stage.h. Thread-compatible; all work, hooks
// included, is done on the thread that calls. To make one, include
// runner_config.pb.h too.
//
// No call throws, and when a call returns LibTorch is as it was before:
// autograd mode and all else that it keeps per thread, deterministic flags, and
// the default CPU generator.
//
// A run has a generator of its own: seeded by Create, restored by a resume, and
// going on from call to call. Models from config draw from it, so that any
// number of such runs go on at once, on several threads or step by step, and
// each has the numbers that it would have alone. Other models
// (Model::has_own_generator) get it in the place of LibTorch's default one, for
// the time of each step of theirs; meanwhile no other thread's model gets its
// own, so that steps of such models wait for one another.
class Runner {
 public:
  // Checks the configuration, makes the model and the hooks, and makes
  // work_dir. There it writes the resolved configuration, as
  // <config_name>.textproto, which gives the same run from anywhere, also if
  // work_dir is moved. (An evaluation writes it to the folder of its logs.)
  // Errors name the field: "train_dataloader: dataset: idx: images: ...".
  //
  // A runner that can train locks work_dir, and the checkpoints' folder if that
  // is another one, before it looks at what is in them, and keeps the locks
  // until Train() returns or it is destroyed; another Train() takes them again.
  // kAborted if a folder is in use, naming the other run's host, process and
  // start. A runner that only evaluates locks nothing and may read beside a
  // training.
  static absl::StatusOr<std::unique_ptr<Runner>> Create(
      const runner::v1::RunnerConfig& config, RunnerOptions options);

  virtual ~Runner() = default;

  // Trains to the end, from where `resume` or `load_from` say, or from where an
  // earlier call failed or was interrupted: no batch is stepped twice, and a
  // save that failed is tried again. OK also if a hook stopped it (see
  // stop_reason); kCancelled if it was interrupted.
  virtual absl::Status Train() = 0;

  // The next training iteration with all that is due in it and after it: hooks,
  // a validation, saves, the end of the epoch and of training; before the first
  // one what begins a training, too. True if there is more to do. Train() is
  // steps to the end, and any mixture of the two is the same run; time between
  // two calls counts for nobody. Where training is at its end, a step does no
  // iteration and gives false. Errors are as Train()'s, and end the training as
  // there; the next call of either goes on with it.
  virtual absl::StatusOr<bool> Step() = 0;

  // Trains until `deadline`, a time of day of the run's clock, is past, and
  // then ends with the iteration that is going on: the run is saved as at an
  // interrupt, a validation that was cut short is repeated, and AfterTrain
  // waits. True if there is more to do; the next call of any of the three goes
  // on.
  virtual absl::StatusOr<bool> TrainUntil(absl::Time deadline) = 0;

  // One evaluation. kFailedPrecondition, naming what is missing, if it isn't
  // configured. Between two steps it is part of the training, which goes on as
  // if it had not been: without a BeforeRun and AfterRun of its own, and an
  // error doesn't end it.
  virtual absl::StatusOr<Metrics> Val() = 0;
  virtual absl::StatusOr<Metrics> Test() = 0;

  // Writes the model, with the weights that `resume` or `load_from` name, or as
  // trained, to a file in its own format; see Model::Export.
  virtual absl::Status Export(const std::string& path) = 0;

  // The model's parameter or buffer of that name, as in Python's state_dict: a
  // copy. kNotFound, with a name that is like it, if there is none. The values
  // that training uses; those of an average are its hook's.
  virtual absl::StatusOr<at::Tensor> GetTensor(absl::string_view name) = 0;

  // Copies `value` there, of the same shape, and of a type that fits as it does
  // in a checkpoint to load (models/load_tensors.h). Optimizers, averages and
  // schedulers go on from what they have. kFailedPrecondition where nothing is
  // loaded yet that `resume` or `load_from` name: it would be overwritten.
  virtual absl::Status SetTensor(absl::string_view name,
                                 const at::Tensor& value) = 0;

  // A model of its own with this run's weights, for other threads to predict
  // with while it trains: include predictor.h. It has those of now, taken as
  // Predictor::Refresh does, or none before the run has loaded what it begins
  // with. Any thread may call this, also during a call, and call the predictor
  // when the runner is gone. kInvalidArgument, naming the option, also if the
  // model was given in code and make_model isn't; kFailedPrecondition as
  // Refresh.
  virtual absl::StatusOr<std::unique_ptr<Predictor>> MakePredictor(
      PredictorOptions options) = 0;

  // Between two steps: a checkpoint of that name in checkpoint_dir(), at once;
  // it becomes the last one, and hooks see it as any other. See io/checkpoint.h
  // for what a name may be. kFailedPrecondition where no training is going on.
  // An error doesn't end the training.
  virtual absl::Status Save(const std::string& name) = 0;

  virtual RunContext& context() = 0;
  virtual std::string stop_reason() const = 0;

  // Names of the hooks, in the order they act in.
  virtual std::vector<std::string> HookNames() const = 0;

  // The hook of that name, as HookNames() has it, or null; a default hook's
  // slot is a name too. Owned by the runner. To call what its own class adds:
  //   auto* hook =
  //       dynamic_cast<CheckpointHook*>(runner->FindHook("checkpoint"));
  // Like the runner, a hook is for one thread at a time.
  virtual Hook* FindHook(absl::string_view name) = 0;

  // For people: a line for each stage where hooks act, with those in their
  // order.
  virtual std::string StageTable() const = 0;
};

}  // namespace grapnel

#endif  // GRAPNEL_RUNNER_RUNNER_H_
