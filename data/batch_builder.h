// Batches from a dataset: reads, transforms and stacks samples.

#ifndef GRAPNEL_DATA_BATCH_BUILDER_H_
#define GRAPNEL_DATA_BATCH_BUILDER_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "grapnel/data/dataset.h"
#include "grapnel/data/dense_tensor.h"
#include "grapnel/data/sample.h"
#include "grapnel/data/transform_chain.h"

namespace grapnel::data::v1 {
class DataLoaderConfig;
}  // namespace grapnel::data::v1

namespace grapnel {

// "dataset: idx", or "dataset" if no kind is set: where an error of it is.
std::string DatasetFieldName(const data::v1::DataLoaderConfig& config);

// What a DataLoader does with the indices that its sampler gave. Nothing
// changes after Create, so that many threads may build at once.
class BatchBuilder {
 public:
  // With the transforms of `config`; `seed` is that of their random numbers.
  // Errors name the field.
  static absl::StatusOr<BatchBuilder> Create(
      const data::v1::DataLoaderConfig& config,
      std::unique_ptr<Dataset> dataset, int64_t seed);

  // Replaces `*batch` by the samples of those indices, stacked in `memory`, but
  // for what a dataset gives as a whole batch of its own. pass_of(i): the pass
  // over the data that the i-th is in; random transforms depend on it.
  // kCancelled, at the next sample, once `*cancelled` is set; null if it never
  // is. Errors name the dataset or the transform and the sample's index, and
  // are never kOutOfRange, which would be the end of an epoch: kInternal stands
  // for it.
  absl::Status Build(std::vector<int64_t> indices,
                     absl::FunctionRef<int64_t(size_t)> pass_of,
                     const std::atomic<bool>* cancelled,
                     const PinnedMemory& memory, Batch* batch) const;

  // As DataLoader's.
  absl::StatusOr<std::vector<int64_t>> InputShape() const;
  absl::StatusOr<std::vector<std::string>> Warnings() const;

  const Dataset& dataset() const { return *dataset_; }
  int64_t dataset_size() const { return dataset_size_; }

  // False if a sample is the same in every pass.
  bool depends_on_pass() const { return transforms_.depends_on_pass(); }

 private:
  BatchBuilder() = default;

  absl::Status BuildSample(int64_t pass, int64_t index, Sample* sample) const;

  std::unique_ptr<Dataset> dataset_;
  std::string dataset_name_;  // For messages.
  int64_t dataset_size_ = 0;
  TransformChain transforms_;
};

}  // namespace grapnel

#endif  // GRAPNEL_DATA_BATCH_BUILDER_H_
