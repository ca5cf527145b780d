// Samples that come one after another, and can't be asked for by position.

#ifndef GRAPNEL_DATA_ITERABLE_DATASET_H_
#define GRAPNEL_DATA_ITERABLE_DATASET_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "grapnel/data/sample.h"

namespace grapnel {

// A stream of samples: shards that are read from beginning to end, what a
// simulation or a queue gives. It is gone through in passes; one without an end
// is always in the first.
//
// Used by one thread at a time, though not always the same: a StreamLoader that
// reads ahead does so on a thread of its own. Nobody interrupts a call, and
// whoever destroys the loader waits for it: a stream that waits for others
// gives up by itself, with an error. What is random in it depends on the pass
// and its own state: LibTorch's default generator is nobody's to save.
class IterableDataset {
 public:
  virtual ~IterableDataset() = default;

  // Goes to the beginning of pass `pass`, >= 0, from anywhere, also after an
  // error. Called before all else. A pass may have samples, an order and a
  // length of its own, but the same whenever it is gone through.
  virtual absl::Status BeginPass(int64_t pass) = 0;

  // Sets `*sample`, which is empty, to the next one. False, for as long as it
  // is asked, if the pass has no more. The tensors may share the stream's
  // storage if that isn't written to again.
  virtual absl::StatusOr<bool> Next(Sample* sample) = 0;

  // Whether it can say where it is. If not, a run that is resumed, or repeats a
  // batch that failed, reads the pass again from its beginning up to there,
  // which takes as long as it takes.
  virtual bool has_state() const { return false; }

  // Sets `*state` to where it is in its pass, in bytes of its own. Called after
  // every batch, so it should be cheap, and for a position that is saved:
  // small.
  virtual absl::Status SaveState(std::string* state) {
    return absl::UnimplementedError("the stream has no state");
  }

  // Goes to where SaveState gave `state`, maybe in another process; after
  // BeginPass of that pass.
  virtual absl::Status LoadState(absl::string_view state) {
    return absl::UnimplementedError("the stream has no state");
  }
};

}  // namespace grapnel

#endif  // GRAPNEL_DATA_ITERABLE_DATASET_H_
