#include <atomic>
#include <iterator>
#include <limits>

#include "ATen/core/Tensor.h"
#include "absl/hash/hash.h"
#include "absl/strings/str_cat.h"
#include "c10/core/ScalarType.h"
#include "c10/core/ScalarTypeToTypeMeta.h"
#include "c10/core/Storage.h"
#include "c10/core/TensorImpl.h"
#include "c10/util/accumulate.h"
#include "grapnel/capi/handles.h"
#include "grapnel/data/dense_tensor.h"

namespace {

size_t HashOf(absl::string_view name) {
  return absl::Hash<absl::string_view>()(name);
}

bool IsIndex(int64_t index, size_t size) {
  return index >= 0 && static_cast<uint64_t>(index) < size;
}

absl::Status Twice(absl::string_view name) {
  return absl::AlreadyExistsError(
      absl::StrCat("name: \"", name, "\" is there already"));
}

}  // namespace

void grapnel_tensors::Truncate(size_t new_size) {
  for (; size > new_size; --size) {
    slots[size - 1].handle.tensor.reset();
  }
  if (new_size <= kIndexed) {
    index.clear();
    return;
  }
  for (auto it = index.begin(); it != index.end();) {
    it = it->second < new_size ? std::next(it) : index.erase(it);
  }
}

absl::Status grapnel_tensors::Add(absl::string_view name, at::Tensor tensor,
                                  bool read_only) {
  if (Find(name) != nullptr) return Twice(name);
  if (size == slots.size()) slots.emplace_back();
  Slot& slot = slots[size];
  slot.name.assign(name.data(), name.size());
  if (size >= kIndexed) index.emplace(HashOf(name), size);
  slot.handle.tensor = std::move(tensor);
  slot.handle.read_only = read_only;
  ++size;
  return absl::OkStatus();
}

at::Tensor grapnel_tensors::New(at::IntArrayRef sizes, at::ScalarType type) {
  if (!reuses) return grapnel::NewTensor(sizes, type);
  const auto num_bytes = static_cast<size_t>(c10::multiply_integers(sizes)) *
                         c10::elementSize(type);
  auto unused = memory.end();
  for (auto it = memory.begin(); it != memory.end(); ++it) {
    if (it->use_count() > 1) continue;
    if (it->nbytes() == num_bytes) {
      // use_count doesn't order what others did with it before they let go.
      std::atomic_thread_fence(std::memory_order_acquire);
      at::Tensor tensor = at::detail::make_tensor<c10::TensorImpl>(
          c10::Storage(*it), c10::DispatchKeySet(c10::DispatchKey::CPU),
          c10::scalarTypeToTypeMeta(type));
      tensor.unsafeGetTensorImpl()->set_sizes_contiguous(sizes);
      return tensor;
    }
    unused = it;
  }
  // Where sizes vary, no more is kept than was in use at once.
  if (unused != memory.end()) memory.erase(unused);
  at::Tensor tensor = grapnel::NewTensor(sizes, type);
  memory.push_back(tensor.storage());
  return tensor;
}

const grapnel_tensor* grapnel_tensors::Find(absl::string_view name) const {
  for (size_t i = 0; i < size && i < kIndexed; ++i) {
    if (slots[i].name == name) return &slots[i].handle;
  }
  if (size <= kIndexed) return nullptr;
  const auto [begin, end] = index.equal_range(HashOf(name));
  for (auto it = begin; it != end; ++it) {
    const Slot& slot = slots[it->second];
    if (slot.name == name) return &slot.handle;
  }
  return nullptr;
}

absl::Status grapnel_scalars::Add(absl::string_view name, double value) {
  for (size_t i = 0; i < size; ++i) {
    if (slots[i].first == name) return Twice(name);
  }
  if (size == slots.size()) slots.emplace_back();
  slots[size].first.assign(name.data(), name.size());
  slots[size].second = value;
  ++size;
  return absl::OkStatus();
}

namespace grapnel::capi {

absl::Status AddTensors(const TensorMap& from, grapnel_tensors* tensors) {
  for (const NamedTensor& named : from) {
    if (tensors->Find(named.name) != nullptr) return Twice(named.name);
  }
  const size_t before = tensors->size;
  const absl::Status status = CatchAsStatus([&] {
    for (const NamedTensor& named : from) {
      GRAPNEL_RETURN_IF_ERROR(tensors->Add(named.name, named.tensor));
    }
    return absl::OkStatus();
  });
  if (!status.ok()) tensors->Truncate(before);
  return status;
}

absl::Status ToTensorMap(const grapnel_tensors& from, TensorMap* out) {
  for (size_t i = 0; i < from.size; ++i) {
    GRAPNEL_RETURN_IF_ERROR(
        out->Add(from.slots[i].name, from.slots[i].handle.tensor));
  }
  return absl::OkStatus();
}

}  // namespace grapnel::capi

using grapnel::capi::Guard;
using grapnel::capi::NotNull;
using grapnel::capi::ReadName;

grapnel_status* grapnel_tensors_create(grapnel_tensors** out) {
  return Guard([&] {
    GRAPNEL_RETURN_IF_ERROR(NotNull(out, "out"));
    *out = new grapnel_tensors;
    return absl::OkStatus();
  });
}

grapnel_status* grapnel_tensors_add(grapnel_tensors* tensors, const char* name,
                                    size_t name_size, grapnel_tensor* tensor) {
  return Guard([&] {
    GRAPNEL_RETURN_IF_ERROR(NotNull(tensors, "tensors"));
    std::string key;
    GRAPNEL_RETURN_IF_ERROR(ReadName(name, name_size, "name", &key));
    GRAPNEL_RETURN_IF_ERROR(NotNull(tensor, "tensor"));
    GRAPNEL_RETURN_IF_ERROR(
        tensors->Add(key, tensor->tensor, tensor->read_only));
    delete tensor;
    return absl::OkStatus();
  });
}

grapnel_status* grapnel_tensors_add_copy(grapnel_tensors* tensors,
                                         const char* name, size_t name_size,
                                         grapnel_dtype dtype,
                                         const int64_t* shape, int32_t rank,
                                         const void* data, size_t size) {
  return Guard([&] {
    GRAPNEL_RETURN_IF_ERROR(NotNull(tensors, "tensors"));
    std::string key;
    GRAPNEL_RETURN_IF_ERROR(ReadName(name, name_size, "name", &key));
    if (tensors->Find(key) != nullptr) return Twice(key);
    at::Tensor tensor;
    GRAPNEL_RETURN_IF_ERROR(
        grapnel::capi::CopyTensor(dtype, shape, rank, data, size, &tensor));
    return tensors->Add(key, std::move(tensor));
  });
}

grapnel_status* grapnel_tensors_add_new(grapnel_tensors* tensors,
                                        const char* name, size_t name_size,
                                        grapnel_dtype dtype,
                                        const int64_t* shape, int32_t rank,
                                        void** data) {
  return Guard([&] {
    GRAPNEL_RETURN_IF_ERROR(NotNull(tensors, "tensors"));
    std::string key;
    GRAPNEL_RETURN_IF_ERROR(ReadName(name, name_size, "name", &key));
    GRAPNEL_RETURN_IF_ERROR(NotNull(data, "data"));
    at::ScalarType type;
    GRAPNEL_RETURN_IF_ERROR(grapnel::capi::ToScalarType(dtype, &type));
    int64_t num_bytes = 0;
    GRAPNEL_RETURN_IF_ERROR(grapnel::capi::CheckShape(
        shape, rank, c10::elementSize(type), &num_bytes));
    at::Tensor tensor =
        tensors->New(at::IntArrayRef(shape, static_cast<size_t>(rank)), type);
    void* const elements = tensor.mutable_data_ptr();
    GRAPNEL_RETURN_IF_ERROR(tensors->Add(key, std::move(tensor)));
    *data = elements;
    return absl::OkStatus();
  });
}

int64_t grapnel_tensors_size(const grapnel_tensors* tensors) {
  return tensors == nullptr ? 0 : static_cast<int64_t>(tensors->size);
}

const char* grapnel_tensors_name(const grapnel_tensors* tensors,
                                 int64_t index) {
  if (tensors == nullptr || !IsIndex(index, tensors->size)) return nullptr;
  return tensors->slots[static_cast<size_t>(index)].name.c_str();
}

const grapnel_tensor* grapnel_tensors_at(const grapnel_tensors* tensors,
                                         int64_t index) {
  if (tensors == nullptr || !IsIndex(index, tensors->size)) return nullptr;
  return &tensors->slots[static_cast<size_t>(index)].handle;
}

const grapnel_tensor* grapnel_tensors_find(const grapnel_tensors* tensors,
                                           const char* name, size_t name_size) {
  if (tensors == nullptr || name == nullptr ||
      name_size > grapnel::capi::kMaxTextBytes) {
    return nullptr;
  }
  return tensors->Find({name, name_size});
}

void grapnel_tensors_clear(grapnel_tensors* tensors) {
  if (tensors != nullptr) tensors->Clear();
}

void grapnel_tensors_destroy(grapnel_tensors* tensors) { delete tensors; }

grapnel_status* grapnel_scalars_create(grapnel_scalars** out) {
  return Guard([&] {
    GRAPNEL_RETURN_IF_ERROR(NotNull(out, "out"));
    *out = new grapnel_scalars;
    return absl::OkStatus();
  });
}

grapnel_status* grapnel_scalars_add(grapnel_scalars* scalars, const char* name,
                                    size_t name_size, double value) {
  return Guard([&] {
    GRAPNEL_RETURN_IF_ERROR(NotNull(scalars, "scalars"));
    std::string key;
    GRAPNEL_RETURN_IF_ERROR(ReadName(name, name_size, "name", &key));
    return scalars->Add(key, value);
  });
}

int64_t grapnel_scalars_size(const grapnel_scalars* scalars) {
  return scalars == nullptr ? 0 : static_cast<int64_t>(scalars->size);
}

const char* grapnel_scalars_name(const grapnel_scalars* scalars,
                                 int64_t index) {
  if (scalars == nullptr || !IsIndex(index, scalars->size)) return nullptr;
  return scalars->slots[static_cast<size_t>(index)].first.c_str();
}

double grapnel_scalars_value(const grapnel_scalars* scalars, int64_t index) {
  if (scalars == nullptr || !IsIndex(index, scalars->size)) {
    return std::numeric_limits<double>::quiet_NaN();
  }
  return scalars->slots[static_cast<size_t>(index)].second;
}

grapnel_status* grapnel_scalars_find(const grapnel_scalars* scalars,
                                     const char* name, size_t name_size,
                                     double* value) {
  return Guard([&] {
    GRAPNEL_RETURN_IF_ERROR(NotNull(scalars, "scalars"));
    absl::string_view key;
    GRAPNEL_RETURN_IF_ERROR(
        grapnel::capi::ReadText(name, name_size, "name", &key));
    GRAPNEL_RETURN_IF_ERROR(NotNull(value, "value"));
    for (size_t i = 0; i < scalars->size; ++i) {
      if (scalars->slots[i].first != key) continue;
      *value = scalars->slots[i].second;
      return absl::OkStatus();
    }
    return absl::NotFoundError(absl::StrCat("name: there is no \"", key, "\""));
  });
}

void grapnel_scalars_clear(grapnel_scalars* scalars) {
  if (scalars != nullptr) scalars->Clear();
}

void grapnel_scalars_destroy(grapnel_scalars* scalars) { delete scalars; }
