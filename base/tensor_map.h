// Tensors with names, in order.

#ifndef GRAPNEL_BASE_TENSOR_MAP_H_
#define GRAPNEL_BASE_TENSOR_MAP_H_

#include <cstddef>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace grapnel {

struct NamedTensor {
  std::string name;
  at::Tensor tensor;
};

// Tensors by unique name, iterated in the order they were added in. Holds
// references: the storage is shared with all others that have the tensor.
// Thread-compatible.
class TensorMap {
 public:
  using const_iterator = std::vector<NamedTensor>::const_iterator;

  // kAlreadyExists if there is a tensor of that name.
  absl::Status Add(std::string name, at::Tensor tensor);

  // The tensor of that name, or null. Valid until the map changes.
  const at::Tensor* Find(absl::string_view name) const;

  bool empty() const { return entries_.empty(); }
  size_t size() const { return entries_.size(); }
  const_iterator begin() const { return entries_.begin(); }
  const_iterator end() const { return entries_.end(); }

 private:
  std::vector<NamedTensor> entries_;
  // By the hash of the name, so that no name is kept twice. absl's containers
  // would cost each file that includes this a tenth more.
  std::unordered_multimap<size_t, size_t> index_;
};

}  // namespace grapnel

#endif  // GRAPNEL_BASE_TENSOR_MAP_H_
