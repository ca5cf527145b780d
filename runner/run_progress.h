// How far a run is, how far it goes, and what its clocks show: the one answer
// for schedules, the optimizer, the loops and the hooks.

#ifndef GRAPNEL_RUNNER_RUN_PROGRESS_H_
#define GRAPNEL_RUNNER_RUN_PROGRESS_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "grapnel/io/checkpoint_manifest.pb.h"
#include "grapnel/runner/run_state.pb.h"

namespace grapnel {

// E epochs are done, q iterations of the one under way, I in all; an epoch has
// n batches now. A run by iteration is one epoch, which goes through the data
// in passes.
//
// What the training data is may change between two processes of a run, at a
// border: of an epoch, or of a pass in a run by iteration. From there on epochs
// have another length; what was done stays done. Where each length began is
// part of the progress. Thread-compatible.
class RunProgress {
 public:
  // The arguments of DataLoader::Seek for the next batch, the first one without
  // what the sampler's epoch is.
  struct DataPlace {
    int64_t epoch;
    int64_t batch;
  };

  // What a run is to do: epochs, or iterations. `data`: its training data.
  struct Plan {
    bool by_epoch = true;
    int64_t total = 0;
    runner::v1::DataPosition data;
  };

  // Of a run that doesn't train.
  RunProgress() = default;

  // Of a run at its beginning. kInvalidArgument if `total` epochs are too many
  // iterations to count.
  static absl::StatusOr<RunProgress> Create(const Plan& plan);

  // Of one that goes on from `saved`, whose data was `saved_data`.
  //   kFailedPrecondition: the data is another, and this is no border of it; or
  //     the run was not counted in what it is counted in now.
  //   kDataLoss: `saved` contradicts itself.
  static absl::StatusOr<RunProgress> Resume(
      const Plan& plan, const io::v1::Progress& saved,
      const runner::v1::DataPosition& saved_data);

  // Whether the data may be another from `saved` on. `data`: what it was there.
  static bool AtBorder(const io::v1::Progress& saved,
                       const runner::v1::DataPosition& data);

  int64_t epoch() const { return state_.epoch(); }
  int64_t iter() const { return state_.iter(); }
  int64_t iter_in_epoch() const { return state_.iter_in_epoch(); }
  int64_t updates() const { return state_.updates(); }
  bool validation_pending() const { return state_.validation_pending(); }

  // 1 of a run by iteration.
  int64_t max_epochs() const { return state_.max_epochs(); }

  // What is done and what is left of the run, in iterations: at an epoch's
  // border I + (max_epochs - E) n.
  int64_t max_iters() const { return state_.max_iters(); }

  // Batches of the epoch under way: not n if it was gone through to its end
  // with data of before, and only its end is left to do.
  int64_t epoch_length() const { return epoch_length_; }

  // n.
  int64_t num_batches() const { return plan_.data.num_batches(); }

  // Steps of a schedule in iterations that is given in epochs: E n + q.
  int64_t converted_steps() const;

  // What they were by the length of epochs that the run was resumed with.
  int64_t converted_steps_before() const { return converted_before_; }

  // How the data changed at the resume, for people; "" if it didn't.
  const std::string& data_change() const { return data_change_; }

  // True if the loop has nothing to do any more.
  bool done() const;

  // By iteration: whether the end of the loop, which is that of its epoch, was
  // done already.
  bool loop_ended() const { return state_.loop_ended(); }

  DataPlace place() const;

  // An iteration, of a batch of so many samples of all ranks, is done.
  void CountIter(int64_t samples);
  void CountUpdate() { state_.set_updates(updates() + 1); }

  // The end of an epoch is done; by iteration, of the loop.
  void EndEpoch();

  // By iteration: the loop goes on behind an end that it once had.
  void BeginLoop() { state_.set_loop_ended(false); }

  void set_validation_pending(bool pending) {
    state_.set_validation_pending(pending);
  }

  const io::v1::Progress& state() const { return state_; }

 private:
  const io::v1::EpochLength& length() const {
    return state_.epoch_lengths(state_.epoch_lengths_size() - 1);
  }

  // kInvalidArgument if the run would be too long.
  absl::Status SetLength();

  Plan plan_;
  io::v1::Progress state_;
  int64_t epoch_length_ = 0;
  int64_t converted_before_ = 0;
  std::string data_change_;
};

}  // namespace grapnel

#endif  // GRAPNEL_RUNNER_RUN_PROGRESS_H_
