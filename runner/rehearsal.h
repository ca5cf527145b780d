// A run that is only tried: nothing of it is left.

#ifndef GRAPNEL_RUNNER_REHEARSAL_H_
#define GRAPNEL_RUNNER_REHEARSAL_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "grapnel/runner/runner.h"

namespace grapnel::runner::v1 {
class RunnerConfig;
}  // namespace grapnel::runner::v1

namespace grapnel {

struct RehearsalReport {
  struct Tensor {
    std::string name;
    std::string shape;  // "(64, 1, 3, 3)"; "" if there is none.
    std::string dtype;  // "Float"
    int64_t numel = 0;
    bool trained = false;
  };

  // A dataloader of the run, and what its batches came to.
  struct Part {
    std::string name;     // "train_dataloader"
    int64_t samples = 0;  // Both of one pass; 0 of a stream.
    int64_t num_batches = 0;
    Tensor inputs, targets, outputs;  // Of a batch; outputs of an evaluation.

    // How many iterations were made. Of more than one the first, which
    // allocates what the others use again, is left out of the means; `waited`
    // is what of an iteration went into waiting for its batch.
    int iterations = 0;
    absl::Duration iteration, waited;
  };

  std::vector<Tensor> parameters, buffers;
  std::vector<Part> parts;

  // What the first training iteration gave to log, by name.
  std::vector<std::pair<std::string, double>> losses;

  int64_t weight_bytes = 0;  // Parameters and buffers.
  int64_t gradient_bytes = 0;
  int64_t optimizer_bytes = 0;
  int64_t peak_resident_bytes = 0;  // Of the whole process, so far.

  // As RunContext has them; 0 if the run doesn't train.
  int64_t max_epochs = 0, max_iters = 0;
  bool by_epoch = true;
};

// A Runner over a file system that is read and never written, whose folders
// need not be free: it may be made beside a run. Thread-compatible.
class Rehearsal {
 public:
  // Errors and meaning are Runner::Create's. options.env is only read;
  // options.log, terminal_fd and log_in_background don't count.
  static absl::StatusOr<std::unique_ptr<Rehearsal>> Create(
      const runner::v1::RunnerConfig& config, RunnerOptions options);

  virtual ~Rehearsal() = default;

  // Trains one iteration, and up to 20 while they take less than a second
  // together and neither a checkpoint nor a validation is due; validates and
  // tests one batch. A validation that a resumed run begins with is done whole.
  // With all hooks; errors are the runner's. Once.
  virtual absl::StatusOr<RehearsalReport> Run() = 0;

  // What a user of the run should know, so far.
  virtual const std::vector<std::string>& warnings() const = 0;
};

}  // namespace grapnel

#endif  // GRAPNEL_RUNNER_REHEARSAL_H_
