// Samples to a batch.

#ifndef GRAPNEL_DATA_COLLATE_H_
#define GRAPNEL_DATA_COLLATE_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "grapnel/data/sample.h"

namespace grapnel {

// Stacks `samples`, at least one, into `*batch`; `indices`, as many, are their
// positions in the dataset. All must have the same dtypes, shapes and extras as
// the first: kInvalidArgument names the one that has not, and both tensors.
absl::Status Collate(absl::Span<const Sample> samples,
                     std::vector<int64_t> indices, Batch* batch);

}  // namespace grapnel

#endif  // GRAPNEL_DATA_COLLATE_H_
