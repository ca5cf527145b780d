// Samples that are in memory already.

#ifndef GRAPNEL_DATA_TENSOR_DATASET_H_
#define GRAPNEL_DATA_TENSOR_DATASET_H_

#include <cstdint>
#include <memory>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "grapnel/data/dataset.h"
#include "grapnel/data/sample.h"

namespace grapnel {

// Row i of two tensors is sample i. For use in code: give it to
// DataLoader::Create.
class TensorDataset final : public Dataset {
 public:
  // inputs: (N, ...), CPU, N >= 1, any dtype. targets: (N, ...), CPU, or
  // undefined. Contiguous tensors are shared with the caller, who must not
  // change them while the dataset lives; others are copied.
  static absl::StatusOr<std::unique_ptr<TensorDataset>> Create(
      at::Tensor inputs, at::Tensor targets);

  int64_t size() const override { return inputs_.size(0); }
  absl::Status Get(int64_t index, Sample* sample) const override;
  bool GetBatch(absl::Span<const int64_t> indices, Batch* batch) const override;

 private:
  TensorDataset(at::Tensor inputs, at::Tensor targets);

  const at::Tensor inputs_;
  const at::Tensor targets_;
};

}  // namespace grapnel

#endif  // GRAPNEL_DATA_TENSOR_DATASET_H_
