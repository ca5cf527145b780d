#include "grapnel/data/tensor_dataset.h"

#include <cstring>
#include <utility>
#include <vector>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/data/dense_tensor.h"

namespace grapnel {
namespace {

// Rows of a contiguous tensor, one after another.
at::Tensor Gather(const at::Tensor& from, absl::Span<const int64_t> rows) {
  std::vector<int64_t> sizes = from.sizes().vec();
  sizes[0] = static_cast<int64_t>(rows.size());
  at::Tensor gathered = NewTensor(sizes, from.scalar_type());
  const size_t row_bytes = from.nbytes() / from.size(0);
  if (row_bytes == 0) return gathered;
  const char* source = static_cast<const char*>(from.const_data_ptr());
  char* to = static_cast<char*>(gathered.mutable_data_ptr());
  for (const int64_t row : rows) {
    std::memcpy(to, source + row * row_bytes, row_bytes);
    to += row_bytes;
  }
  return gathered;
}

absl::Status CheckRows(const at::Tensor& tensor) {
  GRAPNEL_RETURN_IF_ERROR(CheckPlain(tensor));
  if (tensor.dim() < 1 || tensor.size(0) < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("must have at least one row, is ", Describe(tensor)));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<TensorDataset>> TensorDataset::Create(
    at::Tensor inputs, at::Tensor targets) {
  GRAPNEL_RETURN_IF_ERROR(WithContext(CheckRows(inputs), "inputs"));
  if (targets.defined()) {
    GRAPNEL_RETURN_IF_ERROR(WithContext(CheckRows(targets), "targets"));
    if (targets.size(0) != inputs.size(0)) {
      return absl::InvalidArgumentError(
          absl::StrCat("targets: must have as many rows as the inputs, ",
                       inputs.size(0), ", is ", Describe(targets)));
    }
  }
  std::unique_ptr<TensorDataset> dataset;
  GRAPNEL_RETURN_IF_ERROR(CatchAsStatus([&] {
    dataset = absl::WrapUnique(new TensorDataset(
        Dense(inputs).detach(),
        targets.defined() ? Dense(targets).detach() : at::Tensor()));
    return absl::OkStatus();
  }));
  return dataset;
}

TensorDataset::TensorDataset(at::Tensor inputs, at::Tensor targets)
    : inputs_(std::move(inputs)), targets_(std::move(targets)) {}

absl::Status TensorDataset::Get(int64_t index, Sample* sample) const {
  return CatchAsStatus([&] {
    sample->input = inputs_.select(0, index);
    sample->target =
        targets_.defined() ? targets_.select(0, index) : at::Tensor();
    sample->extras.clear();
    return absl::OkStatus();
  });
}

bool TensorDataset::GetBatch(absl::Span<const int64_t> indices,
                             Batch* batch) const {
  return CatchAsStatus([&] {
           at::Tensor inputs = Gather(inputs_, indices);
           at::Tensor targets =
               targets_.defined() ? Gather(targets_, indices) : at::Tensor();
           batch->inputs = std::move(inputs);
           batch->targets = std::move(targets);
           batch->extras.clear();
           return absl::OkStatus();
         })
      .ok();
}

}  // namespace grapnel
