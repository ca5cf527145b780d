// Batches from a stream of samples, read ahead by a thread.

#ifndef GRAPNEL_DATA_STREAM_LOADER_H_
#define GRAPNEL_DATA_STREAM_LOADER_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "c10/core/Device.h"
#include "grapnel/data/iterable_dataset.h"
#include "grapnel/data/sample.h"

namespace grapnel::data::v1 {
class DataLoaderConfig;
class StreamPosition;
}  // namespace grapnel::data::v1

namespace grapnel {

// Stacks the samples of an IterableDataset, in the order in which it gives
// them, pass after pass without an end. Batches are those of a DataLoader that
// goes in order through a Dataset with the same samples: no batch is of two
// passes, the last one of a pass has what is left, or with drop_last is left
// out, and a sample is transformed as the one at its place in the pass is.
//
// A position is that of a batch that Next gave, however far was read ahead.
//
// Thread-compatible. With num_workers: 0 the stream is read by Next itself,
// with 1 by a thread that goes up to prefetch_factor batches ahead; it starts
// at the first Next and ends with the loader.
class StreamLoader {
 public:
  struct Options {
    int64_t seed = 0;  // Of augmentation.

    // Each rank reads the whole stream and takes every world_size-th sample,
    // beginning at the rank-th; what doesn't go round at a pass's end is left
    // out, so that all have as many. With `sharded` the stream gives what is
    // this rank's, and should give all ranks as many.
    int rank = 0;
    int world_size = 1;
    bool sharded = false;

    // See DataLoader::Options.
    c10::Device device = c10::DeviceType::CPU;
  };

  // Of `config`, `sampler` and `dataset` must be unset. Errors name the field.
  static absl::StatusOr<std::unique_ptr<StreamLoader>> Create(
      const data::v1::DataLoaderConfig& config,
      std::unique_ptr<IterableDataset> stream, const Options& options);

  // Waits for the stream if its Next is being called.
  virtual ~StreamLoader() = default;

  // Moves the next batch into `*batch`. Its `indices` count the samples of a
  // pass. Errors name the pass and the sample, the transform, or the batch's
  // tensor and the device, and come when all batches before have; the loader
  // stays at that batch, and the next Next tries again: it goes back to its
  // beginning and reads it again, or only copies it again. A pass without a
  // batch is an error, kInvalidArgument.
  virtual absl::Status Next(Batch* batch) = 0;

  // Behind the batch that Next gave last. Valid until Next or Seek.
  virtual const data::v1::StreamPosition& position() const = 0;

  // The next Next gives the batch behind that position, also with another
  // batch_size. Free if the loader is there: what was read ahead is kept. Else
  // the stream goes there before this returns, by its state or, if it or the
  // position has none, from the beginning of the pass.
  //   kFailedPrecondition: the pass has fewer samples.
  // Other errors are the stream's. The next Next then tries again.
  virtual absl::Status Seek(const data::v1::StreamPosition& position) = 0;

  // Shape of one sample's input, transformed, without N: that of the next
  // batch, which is read for it and kept. Leaves the position alone.
  virtual absl::StatusOr<std::vector<int64_t>> InputShape() = 0;

  // Samples of a batch, but a pass's last.
  virtual int64_t batch_size() const = 0;
};

}  // namespace grapnel

#endif  // GRAPNEL_DATA_STREAM_LOADER_H_
