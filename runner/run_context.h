// What a hook may see of a run, and ask of it.

#ifndef GRAPNEL_RUNNER_RUN_CONTEXT_H_
#define GRAPNEL_RUNNER_RUN_CONTEXT_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ATen/core/Generator.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "grapnel/runner/mode.h"

namespace grapnel {

class Clock;
class DataLoader;
class LogProcessor;
class LogVars;
class MessageHub;
class Model;
class OptimWrapper;
class ParamScheduler;
class ProcessGroup;
class RunLog;
struct Record;

namespace io {
class Env;
}  // namespace io

// A checkpoint that a hook asks for.
struct SaveRequest {
  // Its directory: "epoch_5". See io/checkpoint.h for what a name may be; only
  // "epoch_...", "iter_..." and "best_..." are looked for by `resume` when
  // last_checkpoint is lost.
  std::string name;

  // Write its path to work_dir/last_checkpoint, where `resume` looks.
  bool update_last_checkpoint = true;

  // The directory that it goes into, made if needed; "" for checkpoint_dir(). A
  // relative path starts at the process's current directory. Elsewhere
  // `resume` doesn't look for checkpoints, and nothing cleans up.
  std::string dir;

  // False leaves their state out; the optimizer's includes gradients that wait
  // for a step.
  bool optimizer = true;
  bool param_schedulers = true;
};

// Where a training ends that was asked to stop.
enum class StopAt {
  // After the current epoch, or iteration in an iteration-based loop, and the
  // validation due then. An epoch is brought to its end.
  kAfterEpoch,

  // After the current iteration, in the middle of an epoch too; a validation is
  // cut short, and repeated by the run that goes on. It is saved as an
  // interrupt is, hooks get OnError with kCancelled, then AfterTrain.
  kNow,
};

// Counters count completed units: during an iteration's hooks iter() does not
// include that iteration. All calls are for the thread that the hook runs on,
// except RequestStop and stop_reason, which any thread may call.
class RunContext {
 public:
  virtual ~RunContext() = default;

  // Progress of training. 0 where this runner hasn't trained or resumed.
  virtual int64_t epoch() const = 0;
  virtual int64_t iter() const = 0;
  virtual int64_t updates() const = 0;  // Optimizer steps.

  // Iterations done in the current epoch. Not iter() modulo an epoch's length:
  // before a resume epochs may have had another one. 0 if iteration-based.
  virtual int64_t iter_in_epoch() const = 0;

  // Totals: what is done plus what is left to do. Iteration-based:
  // max_epochs() is 1. 0 without a training configuration.
  virtual int64_t max_epochs() const = 0;
  virtual int64_t max_iters() const = 0;

  // True if the run is counted in epochs.
  virtual bool by_epoch() const = 0;

  // The loop that is running. Outside the loops: what the run was started for.
  virtual Mode mode() const = 0;

  // True from BeforeTrain to AfterTrain, validation included.
  virtual bool training() const = 0;

  virtual Model& model() = 0;

  // What the current training step, or the last one, has given to log. At
  // BeforeOptimizerStep that is what the model gave before it called
  // OptimWrapper::Update: everything, unless it has a TrainStep of its own.
  virtual const LogVars& log_vars() const = 0;

  // The processes that train together; one rank if this one trains alone.
  virtual ProcessGroup& process_group() = 0;

  // Whether this is the rank that writes files and logs. A hook is on all ranks
  // and does the same on each, but for that: a file that it reads may not be
  // there on the others. log() and WriteRecord() see to it by themselves, and
  // so does Save().
  virtual bool is_master() = 0;

  // Null if the run doesn't train.
  virtual OptimWrapper* optim_wrapper() = 0;
  virtual absl::Span<const std::unique_ptr<ParamScheduler>>
  param_schedulers() = 0;

  // Path of the checkpoint that this run continues, "" if none.
  virtual const std::string& resumed_from() const = 0;

  // Where the model and its batches are, and where it computes.
  virtual c10::Device device() const = 0;

  // What the run draws random numbers from, on the CPU and, if it isn't
  // undefined, on device(), and saves; a hook that draws from LibTorch's
  // default generators is not part of what `seed` fixes.
  virtual at::Generator generator() = 0;
  virtual at::Generator device_generator() = 0;

  // The loader of that mode, or null if it isn't part of this run, or the data
  // is a stream.
  virtual DataLoader* dataloader(Mode mode) = 0;

  // Sets the order of samples for the training epoch that begins to that of
  // `epoch`; see DataLoader::Seek. Until it is called, the order is epoch 0's.
  virtual void SetSamplerEpoch(int64_t epoch) = 0;

  virtual MessageHub& message_hub() = 0;
  virtual LogProcessor& log_processor() = 0;

  // The run's log, for people; and the record of numbers, for the backends.
  // Both are written by another thread soon after, in the order of the calls;
  // log().Flush() waits for it.
  virtual RunLog& log() = 0;
  virtual void WriteRecord(const Record& record) = 0;

  // Does `work` on that thread, after what was logged before this call and
  // before what is logged later. It may call log(), WriteRecord() and what is
  // documented as safe there.
  virtual void LogLater(std::function<void()> work) = 0;

  // All time in a run is this clock's.
  virtual const Clock& clock() const = 0;
  virtual io::Env& env() = 0;

  // Where relative paths of the configuration start.
  virtual const std::string& base_dir() const = 0;

  virtual const std::string& work_dir() const = 0;

  // Where the run's checkpoints are: work_dir(), or where out_dir of the
  // checkpoint hook's configuration says. In training no other run writes here
  // or to work_dir().
  virtual const std::string& checkpoint_dir() const = 0;

  virtual const std::string& log_dir() const = 0;    // work_dir/<timestamp>
  virtual const std::string& timestamp() const = 0;  // "20260821_025841"
  virtual const std::string& experiment_name() const = 0;
  virtual int64_t seed() const = 0;
  // Resolved, with absolute paths: the same run from anywhere.
  virtual const std::string& config_text() const = 0;

  // Saves a checkpoint once all hooks of this mount point have run, so that it
  // holds what they did. Two requests at one point for the same name and
  // directory make one save, of all that either asked for. For AfterTrainIter,
  // AfterTrainEpoch, AfterTrain and, in training, AfterValEpoch;
  // kFailedPrecondition at other points.
  absl::Status Save(SaveRequest request) {
    return RequestSave(std::move(request)).status();
  }
  // The same. Returns the save's number within this runner; once the checkpoint
  // is written, that is its SavedCheckpoint::id.
  virtual absl::StatusOr<int64_t> RequestSave(SaveRequest request) = 0;

  // Ends training, which then has come out well: OK. The first reason is kept,
  // and logged, but that of a stop at once takes the place of one after the
  // epoch. A later Train() does no more. If no call is running, the request
  // waits for the next Train(); made during a Val(), Test() or Export() that is
  // not between two steps of a training, it is forgotten when that call ends.
  virtual void RequestStop(absl::string_view reason, StopAt at) = 0;
  void RequestStop(absl::string_view reason) {
    RequestStop(reason, StopAt::kAfterEpoch);
  }

  // The reason, or "" if nobody asked.
  virtual std::string stop_reason() const = 0;
};

// True iff n > 0, count >= start and (count - start) is a multiple of n: with
// start > 0 it is true at `start` itself, as in MMEngine. `count` is 1-based.
inline bool EveryN(int64_t count, int64_t n, int64_t start = 0) {
  return n > 0 && count >= start && (count - start) % n == 0;
}

}  // namespace grapnel

#endif  // GRAPNEL_RUNNER_RUN_CONTEXT_H_
