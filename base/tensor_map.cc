#include "grapnel/base/tensor_map.h"

#include "absl/hash/hash.h"
#include "absl/strings/str_cat.h"

namespace grapnel {
namespace {

size_t HashOf(absl::string_view name) {
  return absl::Hash<absl::string_view>()(name);
}

}  // namespace

absl::Status TensorMap::Add(std::string name, at::Tensor tensor) {
  if (Find(name) != nullptr) {
    return absl::AlreadyExistsError(
        absl::StrCat("two tensors are called \"", name, "\""));
  }
  index_.emplace(HashOf(name), entries_.size());
  entries_.push_back({std::move(name), std::move(tensor)});
  return absl::OkStatus();
}

const at::Tensor* TensorMap::Find(absl::string_view name) const {
  const auto [begin, end] = index_.equal_range(HashOf(name));
  for (auto it = begin; it != end; ++it) {
    const NamedTensor& entry = entries_[it->second];
    if (entry.name == name) return &entry.tensor;
  }
  return nullptr;
}

}  // namespace grapnel
