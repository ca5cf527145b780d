#include "grapnel/base/tensor_map.h"

#include "absl/strings/str_cat.h"

namespace grapnel {

absl::Status TensorMap::Add(std::string name, at::Tensor tensor) {
  if (!index_.try_emplace(name, entries_.size()).second) {
    return absl::AlreadyExistsError(
        absl::StrCat("two tensors are called \"", name, "\""));
  }
  entries_.push_back({std::move(name), std::move(tensor)});
  return absl::OkStatus();
}

const at::Tensor* TensorMap::Find(absl::string_view name) const {
  const auto it = index_.find(name);
  return it == index_.end() ? nullptr : &entries_[it->second].tensor;
}

}  // namespace grapnel
