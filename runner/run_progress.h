// How far a run is, how far it goes, and what its counters are: the one source
// for schedules, the optimizer, the loops and the hooks.

#ifndef GRAPNEL_RUNNER_RUN_PROGRESS_H_
#define GRAPNEL_RUNNER_RUN_PROGRESS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "grapnel/io/checkpoint_manifest.pb.h"
#include "grapnel/runner/run_state.pb.h"

namespace grapnel {

// Below, E epochs are done, q iterations of the one under way, and I iterations
// in all; an epoch has n batches now. A run by iteration is one epoch, which
// goes through the data in passes. Of a stream nobody knows how long those are:
// it keeps its position itself, and what is a batch of it may change anywhere.
//
// A run may be resumed with other training data, but only at a border: of an
// epoch, or of a pass in a run by iteration. With other ranks, or batches of
// another size, of the same data it goes on anywhere: what is left of the
// epoch's order, or of the pass's, is shared out anew. From there on epochs
// have another length; what was done before still counts. The progress knows
// where each length began. Thread-compatible.
class RunProgress {
 public:
  // The arguments of DataLoader::SeekBehind for the next batch; `epoch` doesn't
  // include the sampler's epoch yet. Not of a stream.
  struct DataPlace {
    int64_t epoch;
    int64_t samples;
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
  // iterations to count. Of a stream by_epoch must be false.
  static absl::StatusOr<RunProgress> Create(const Plan& plan);

  // Of one that goes on from `saved`, whose data was `saved_data`.
  // `batches_behind`: the batches that are left of an epoch of this run, or of
  // a pass, behind so many samples; not called of a stream.
  //   kFailedPrecondition: the data has another size or order and `saved` is at
  //     no border; or the run was counted in iterations and now is in epochs,
  //     or the other way round; or the data was a stream and now is a dataset,
  //     or the other way round.
  //   kDataLoss: `saved` contradicts itself.
  static absl::StatusOr<RunProgress> Resume(
      const Plan& plan, const io::v1::Progress& saved,
      const runner::v1::DataPosition& saved_data,
      absl::FunctionRef<int64_t(int64_t samples)> batches_behind);

  // Whether the data may be another one at `saved`. `data`: what it was until
  // then.
  static bool AtBorder(const io::v1::Progress& saved,
                       const runner::v1::DataPosition& data);

  int64_t epoch() const { return state_.epoch(); }
  int64_t iter() const { return state_.iter(); }
  int64_t iter_in_epoch() const { return state_.iter_in_epoch(); }
  int64_t updates() const { return state_.updates(); }
  bool validation_pending() const { return state_.validation_pending(); }

  // 1 of a run by iteration.
  int64_t max_epochs() const { return state_.max_epochs(); }

  // Iterations of the whole run, those done and those left: at an epoch's
  // border I + (max_epochs - E) n.
  int64_t max_iters() const { return state_.max_iters(); }

  // Batches of the epoch under way. Not n if some of its batches were done in
  // another length, or all, and only the end of the epoch is left to do.
  int64_t epoch_length() const { return epoch_length_; }

  // n; 0 of a stream.
  int64_t num_batches() const { return plan_.data.num_batches(); }

  // Batches that are left of the epoch, or the pass, under way. Not of a
  // stream, nor of an infinite sampler.
  int64_t batches_left() const;

  // Steps of a schedule that is configured in epochs and steps every iteration:
  // E n + q; where the epoch has had another length, (E + 1) n less what is
  // left of it.
  int64_t converted_steps() const;

  // The same, with the length that epochs had in the checkpoint that the run
  // was resumed from.
  int64_t converted_steps_before() const { return converted_before_; }

  // How the data changed at the resume, for people; "" if it didn't, but that
  // other ranks share it.
  const std::string& data_change() const { return data_change_; }

  // Where epochs, or passes, have had another length than those before: each
  // from its beginning on, also one that was shared out anew inside, whose
  // length is that of all its parts. In order, from {0, 0, ...} on; those
  // behind the one under way may not be here yet. Empty of a stream.
  std::vector<io::v1::EpochLength> whole_epochs() const;

  // True if the loop has nothing to do any more.
  bool done() const;

  // By iteration: whether the end of the loop, and so of its one epoch, was
  // done already.
  bool loop_ended() const { return state_.loop_ended(); }

  DataPlace place() const;

  // Counts an iteration as done. `samples`: its batch's, of all ranks.
  void CountIter(int64_t samples);
  void CountUpdate() { state_.set_updates(updates() + 1); }

  // Of a stream, after CountIter: which pass it is in, and how many samples of
  // that it has given.
  void SetStreamPlace(int64_t pass, int64_t samples) {
    state_.set_pass(pass);
    state_.set_samples_in_pass(samples);
  }

  // Counts the end of an epoch as done; by iteration, of the loop.
  void EndEpoch();

  // By iteration: the loop goes on after an end that it had reached.
  void BeginLoop() { state_.set_loop_ended(false); }

  void set_validation_pending(bool pending) {
    state_.set_validation_pending(pending);
  }

  const io::v1::Progress& state() const { return state_; }

 private:
  const io::v1::EpochLength& length() const {
    return state_.epoch_lengths(state_.epoch_lengths_size() - 1);
  }

  bool is_stream() const { return plan_.data.has_stream(); }

  // Notes that epochs have the plan's length from here on.
  void ChangeLength(const runner::v1::DataPosition& saved_data,
                    absl::FunctionRef<int64_t(int64_t)> batches_behind);

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
