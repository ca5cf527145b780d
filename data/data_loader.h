// Batches, read ahead by worker threads.

#ifndef GRAPNEL_DATA_DATA_LOADER_H_
#define GRAPNEL_DATA_DATA_LOADER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "c10/core/Device.h"
#include "grapnel/data/dataset.h"
#include "grapnel/data/sample.h"
#include "grapnel/data/sampler.h"
#include "grapnel/io/env.h"

namespace grapnel::data::v1 {
class DataLoaderConfig;
}  // namespace grapnel::data::v1

namespace grapnel {

// Draws samples in the sampler's order, transforms and stacks them. What it
// gives depends on config, seed and position alone: not on the number of
// workers, nor on how far they have read ahead.
//
// A batch is named by (epoch, batch), both 0-based. Seek is O(1): what is
// skipped is not read. With an infinite sampler `batch` counts on for ever,
// from the beginning of the data's pass `epoch`. What is left of an epoch
// behind some of its samples can be shared out anew, among other ranks or in
// other batches: its batches are counted from there.
//
// Thread-compatible. With num_workers: 0 samples are read by Next itself; else
// the workers start at the first Next and stay until destruction. Workers never
// draw from LibTorch's default generator.
//
// Example:
//
//   GRAPNEL_ASSIGN_OR_RETURN(
//       std::unique_ptr<Dataset> dataset,
//       TensorDataset::Create(torch::rand({10, 3}), torch::arange(10)));
//   data::v1::DataLoaderConfig config;
//   config.set_batch_size(4);
//   config.mutable_sampler()->set_shuffle(true);
//   DataLoader::Options options;
//   options.env = &io::Env::Posix();
//   GRAPNEL_ASSIGN_OR_RETURN(
//       const std::unique_ptr<DataLoader> loader,
//       DataLoader::Create(config, std::move(dataset), options));
//   for (int64_t epoch = 0; epoch < 2; ++epoch) {
//     loader->Seek(epoch, 0);
//     for (int64_t i = 0; i < loader->num_batches(); ++i) {
//       Batch batch;
//       GRAPNEL_RETURN_IF_ERROR(loader->Next(&batch));
//       GRAPNEL_RET_CHECK(batch.size() == (i < 2 ? 4 : 2));
//     }
//   }
class DataLoader {
 public:
  struct Options {
    std::string base_dir;    // See DatasetOptions.
    io::Env* env = nullptr;  // Outlives the loader. Never null.
    int64_t seed = 0;        // Of order and augmentation.
    int rank = 0;
    int world_size = 1;

    // Where batches come out; of `indices`, always on the host. If it isn't the
    // CPU, whoever builds a batch puts it into pinned memory, each of its
    // tensors is copied once, and Next waits for no copy: what the device's
    // current stream is given after Next sees them done. The copy of the next
    // batch, if a worker has built it, is launched before Next returns, on a
    // stream of its own, and takes as much of the device's memory again; behind
    // an epoch's end nothing is copied. Backends without pinned memory, events
    // or streams get plain copies, as far as they need.
    c10::Device device = c10::DeviceType::CPU;
  };

  // Errors name the field: "dataset: idx: images: ...".
  static absl::StatusOr<std::unique_ptr<DataLoader>> Create(
      const data::v1::DataLoaderConfig& config, const Options& options);

  // Over a dataset made by the caller; `config.dataset` must be unset.
  static absl::StatusOr<std::unique_ptr<DataLoader>> Create(
      const data::v1::DataLoaderConfig& config,
      std::unique_ptr<Dataset> dataset, const Options& options);

  virtual ~DataLoader() = default;

  // How many batches an epoch is, or what is left of one.
  struct Split {
    int64_t num_batches = 0;

    // Of the first rank, which has most: the same number on all ranks.
    int64_t most_batches = 0;

    // Samples of the last one. All others, and all of an infinite loader, have
    // batch_size(). 0 if there is none.
    int64_t last_batch_size = 0;

    // Whether all ranks have as many batches. They may not without round_up.
    bool even = true;
  };

  // The next Next gives batch `batch` of `epoch`; 0 <= batch, and <=
  // num_batches() unless infinite. Cheap, and free if the loader would go there
  // anyway: what was read ahead is kept.
  void Seek(int64_t epoch, int64_t batch) { SeekBehind(epoch, 0, batch); }

  // Likewise with batch `batch` of what is left of `epoch` behind its first
  // `samples` samples, of all ranks: the rest of its order, shared out as a
  // whole epoch is. After it comes the next epoch. 0 <= samples <
  // dataset().size(), and `batch` is <= SplitBehind(samples).num_batches unless
  // infinite.
  virtual void SeekBehind(int64_t epoch, int64_t samples, int64_t batch) = 0;

  // Of what is left of an epoch behind its first `samples` samples, of all
  // ranks; of an infinite loader, of a pass. 0 <= samples < dataset().size().
  // There may be no batch, with drop_last or without round_up.
  virtual Split SplitBehind(int64_t samples) const = 0;

  // Moves the next batch into `*batch`. kOutOfRange after the last of an epoch:
  // Seek to go on. Other errors name the dataset or the transform and the
  // sample's index, or the batch's tensor and the device, and are never
  // kOutOfRange (kInternal stands for it); the loader then stays at that batch,
  // and the next Next tries again.
  virtual absl::Status Next(Batch* batch) = 0;

  // Shape of one sample's input, transformed, without N: that of sample 0,
  // which is read for it. Leaves the position alone.
  virtual absl::StatusOr<std::vector<int64_t>> InputShape() const = 0;

  // Batches in one pass over the data; with `drop_last`, without an incomplete
  // one. >= 1. As SplitBehind(0) says.
  virtual int64_t num_batches() const = 0;

  virtual bool infinite() const = 0;
  virtual int64_t batch_size() const = 0;

  virtual const Dataset& dataset() const = 0;

  // The dataset's, with the field in front: "dataset: image_folder: ...".
  virtual absl::StatusOr<std::vector<std::string>> Warnings() const = 0;
};

}  // namespace grapnel

#endif  // GRAPNEL_DATA_DATA_LOADER_H_
