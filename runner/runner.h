// A run: training, validation and test from one configuration.

#ifndef GRAPNEL_RUNNER_RUNNER_H_
#define GRAPNEL_RUNNER_RUNNER_H_

#include <atomic>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "grapnel/data/dataset.h"
#include "grapnel/models/metric.h"
#include "grapnel/models/model.h"
#include "grapnel/optim/optimizer.h"
#include "grapnel/runner/hook_registry.h"

namespace grapnel::runner::v1 {
class RunnerConfig;
}  // namespace grapnel::runner::v1

namespace grapnel {

class Clock;
class ProcessGroup;
class RunLog;

namespace io {
class Env;
}  // namespace io

// What a call that failed stumbled over: what a program's exit code tells.
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
  // What Val(), Test() and Export() load must be all of the model's, unless
  // load_options say otherwise.
  bool for_training = true;

  // Lines of the run's log also go to this file descriptor; -1 for none.
  int terminal_fd = -1;

  // How long Runner::Create waits for another run in work_dir, or in the
  // checkpoints' folder, to end: of a job that is queued anew while the one
  // before it still has its grace period. What a resume goes on from is looked
  // for after that.
  absl::Duration wait_for_lock = absl::ZeroDuration();

  // Polled at every iteration, those of a validation included, and while
  // Create waits, which then returns kCancelled. Once it is not
  // 0, the run stops there, saves, and Train() returns kCancelled; a validation
  // that was cut short is made anew by the run that goes on. Not owned; may be
  // null. This is what a signal handler sets.
  const std::atomic<int>* interrupt = nullptr;

  // Null: the system's. Not owned.
  io::Env* env = nullptr;
  const Clock* clock = nullptr;

  // Null: a terminal and file log. Not owned.
  RunLog* log = nullptr;

  // Lines and records are formatted and written by a thread of the runner's
  // own, so that training doesn't wait for terminals and disks. They are there
  // before a checkpoint of their iteration is, and when a call returns. If
  // false, by the thread that logs, at once.
  bool log_in_background = true;

  // Null, or of one rank: this process trains alone. Not owned.
  ProcessGroup* process_group = nullptr;

  // In place of what the config describes, which must then be unset there.
  std::unique_ptr<Model> model;
  std::unique_ptr<Optimizer> optimizer;
  std::unique_ptr<Dataset> train_dataset;
  std::unique_ptr<Dataset> val_dataset;
  std::unique_ptr<Dataset> test_dataset;
  // Added to those of the config.
  std::vector<std::unique_ptr<Metric>> val_metrics;
  std::vector<std::unique_ptr<Metric>> test_metrics;

  // Registered after the config's custom hooks.
  std::vector<ScheduledHook> hooks;
};

// To make one, include runner_config.pb.h too.
//
// Drives the loops drawn in stage.h. Thread-compatible; all work, hooks
// included, is done on the thread that calls.
//
// Whatever a call comes to, it throws nothing, and LibTorch is as before when
// it returns: autograd mode and all that it keeps per thread, deterministic
// flags, and its default CPU generator. In a call that is the run's: seeded by
// Create, restored by a resume, and going on from call to call, whatever the
// process draws between them. Runs in several threads at once share it, and
// draw what they happen to.
class Runner {
 public:
  // Checks the configuration, makes the model and the hooks, and makes
  // work_dir, with the resolved configuration in <config_name>.textproto: the
  // same run from anywhere, also if work_dir is moved. (That of an evaluation
  // is in the folder of its logs.) Errors name the field: "train_dataloader:
  // dataset: idx: images:
  // ...".
  //
  // A runner that can train locks work_dir, and the checkpoints' folder if that
  // is another one, before it looks at what is in them, until Train() returns
  // or it is destroyed: kAborted, naming host, process and start of who is
  // there, if they are in use; another Train() locks them again. One that only
  // evaluates locks nothing and may read beside a training.
  static absl::StatusOr<std::unique_ptr<Runner>> Create(
      const runner::v1::RunnerConfig& config, RunnerOptions options);

  virtual ~Runner() = default;

  // Trains to the end, from where `resume` or `load_from` say, or where a call
  // before has failed or was interrupted: no batch is stepped twice, and what
  // could not be saved is tried again. OK also if a hook stopped it (see
  // stop_reason); kCancelled if it was interrupted.
  virtual absl::Status Train() = 0;

  // One evaluation. kFailedPrecondition, naming what is missing, if it isn't
  // configured.
  virtual absl::StatusOr<Metrics> Val() = 0;
  virtual absl::StatusOr<Metrics> Test() = 0;

  // Writes the model, with the weights that `resume` or `load_from` name, or as
  // trained, to a file in its own format; see Model::Export.
  virtual absl::Status Export(const std::string& path) = 0;

  virtual RunContext& context() = 0;
  virtual std::string stop_reason() const = 0;

  // Names of the hooks, in the order in which they act.
  virtual std::vector<std::string> HookNames() const = 0;

  // The hook of that name, as HookNames() has it, or null; a default hook's
  // slot is a name too. Owned by the runner. To ask one of its own class:
  //   auto* hook =
  //   dynamic_cast<CheckpointHook*>(runner->FindHook("checkpoint"));
  // It is as threads are with the runner: not for another one meanwhile.
  virtual Hook* FindHook(absl::string_view name) = 0;

  // Which hooks act where, a line each, in their order: for people.
  virtual std::string StageTable() const = 0;
};

}  // namespace grapnel

#endif  // GRAPNEL_RUNNER_RUNNER_H_
