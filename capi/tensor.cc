#include <algorithm>
#include <cstring>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/capi/handles.h"
#include "grapnel/data/dense_tensor.h"

namespace grapnel::capi {
namespace {

struct Dtype {
  grapnel_dtype dtype;
  at::ScalarType type;
};

constexpr Dtype kDtypes[] = {
    {GRAPNEL_BOOL, at::kBool},     {GRAPNEL_UINT8, at::kByte},
    {GRAPNEL_INT32, at::kInt},     {GRAPNEL_INT64, at::kLong},
    {GRAPNEL_FLOAT16, at::kHalf},  {GRAPNEL_BFLOAT16, at::kBFloat16},
    {GRAPNEL_FLOAT32, at::kFloat}, {GRAPNEL_FLOAT64, at::kDouble},
    {GRAPNEL_INT8, at::kChar},     {GRAPNEL_INT16, at::kShort},
};

constexpr int32_t kMaxRank = 64;  // LibTorch's iterators have no more.

int64_t NumBytes(const at::Tensor& tensor) {
  return tensor.numel() * static_cast<int64_t>(tensor.itemsize());
}

absl::Status CheckSize(size_t size, int64_t num_bytes, at::IntArrayRef shape,
                       at::ScalarType type) {
  if (size == static_cast<size_t>(num_bytes)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "size: must be ", num_bytes, ", the bytes of [",
      absl::StrJoin(shape, ", "), "] of ", c10::toString(type), ", is ", size));
}

// Any other value of a bool is undefined behaviour in whoever reads it.
absl::Status CheckBools(absl::string_view bytes, at::ScalarType type) {
  if (type != at::kBool) return absl::OkStatus();
  const auto bad = std::find_if(bytes.begin(), bytes.end(), [](char c) {
    return static_cast<unsigned char>(c) > 1;
  });
  if (bad == bytes.end()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "data: element ", bad - bytes.begin(), " must be 0 or 1, is ",
      static_cast<int>(static_cast<unsigned char>(*bad))));
}

// Whether the elements lie in host memory, row-major and without gaps.
bool IsPlain(const at::Tensor& tensor) {
  return tensor.defined() && tensor.device().is_cpu() &&
         tensor.layout() == at::kStrided && !tensor.is_nested() &&
         !tensor.is_conj() && !tensor.is_neg() && tensor.is_contiguous();
}

void CopyFrom(absl::string_view bytes, const at::Tensor& tensor) {
  if (bytes.empty()) return;
  std::memcpy(tensor.data_ptr(), bytes.data(), bytes.size());
}

absl::Status Write(absl::string_view bytes, const at::Tensor& tensor) {
  if (IsPlain(tensor)) {
    CopyFrom(bytes, tensor);
    // Where autograd looks for a change in place.
    if (!tensor.is_inference()) tensor.unsafeGetTensorImpl()->bump_version();
    return absl::OkStatus();
  }
  const at::Tensor host = ops::empty(tensor.sizes(), tensor.scalar_type());
  CopyFrom(bytes, host);
  tensor.detach().copy_(host);
  return absl::OkStatus();
}

}  // namespace

absl::Status ToScalarType(grapnel_dtype dtype, at::ScalarType* out) {
  for (const Dtype& known : kDtypes) {
    if (known.dtype != dtype) continue;
    *out = known.type;
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("dtype: there is no value ", dtype));
}

grapnel_dtype ToDtype(at::ScalarType type) {
  for (const Dtype& known : kDtypes) {
    if (known.type == type) return known.dtype;
  }
  return 0;
}

absl::Status CheckShape(const int64_t* shape, int32_t rank, size_t element_size,
                        int64_t* num_bytes) {
  if (rank < 0 || rank > kMaxRank) {
    return absl::InvalidArgumentError(
        absl::StrCat("rank: must be in [0, ", kMaxRank, "], is ", rank));
  }
  if (rank > 0) GRAPNEL_RETURN_IF_ERROR(NotNull(shape, "shape"));
  // Zeros count as ones: LibTorch multiplies the other sizes for strides.
  auto bytes = static_cast<int64_t>(element_size);
  bool empty = false;
  for (int32_t i = 0; i < rank; ++i) {
    if (shape[i] < 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("shape[", i, "]: must be >= 0, is ", shape[i]));
    }
    empty = empty || shape[i] == 0;
    if (__builtin_mul_overflow(bytes, std::max<int64_t>(shape[i], 1), &bytes) ||
        bytes > kMaxTensorBytes) {
      return absl::InvalidArgumentError(
          absl::StrCat("shape: [", absl::StrJoin(shape, shape + rank, ", "),
                       "] has more elements than any memory"));
    }
  }
  *num_bytes = empty ? 0 : bytes;
  return absl::OkStatus();
}

absl::Status CopyTensor(grapnel_dtype dtype, const int64_t* shape, int32_t rank,
                        const void* data, size_t size, at::Tensor* out) {
  at::ScalarType type;
  GRAPNEL_RETURN_IF_ERROR(ToScalarType(dtype, &type));
  int64_t num_bytes = 0;
  GRAPNEL_RETURN_IF_ERROR(
      CheckShape(shape, rank, c10::elementSize(type), &num_bytes));
  const at::IntArrayRef sizes(shape, static_cast<size_t>(rank));
  GRAPNEL_RETURN_IF_ERROR(CheckSize(size, num_bytes, sizes, type));
  absl::string_view bytes;
  GRAPNEL_RETURN_IF_ERROR(ReadBytes(data, size, "data", &bytes));
  GRAPNEL_RETURN_IF_ERROR(CheckBools(bytes, type));
  at::Tensor tensor = NewTensor(sizes, type);
  CopyFrom(bytes, tensor);
  *out = std::move(tensor);
  return absl::OkStatus();
}

}  // namespace grapnel::capi

using grapnel::capi::Guard;
using grapnel::capi::GuardValue;
using grapnel::capi::NotNull;

grapnel_status* grapnel_tensor_create(grapnel_dtype dtype, const int64_t* shape,
                                      int32_t rank, const void* data,
                                      size_t size, grapnel_tensor** out) {
  return Guard([&] {
    GRAPNEL_RETURN_IF_ERROR(NotNull(out, "out"));
    auto made = std::make_unique<grapnel_tensor>();
    GRAPNEL_RETURN_IF_ERROR(grapnel::capi::CopyTensor(dtype, shape, rank, data,
                                                      size, &made->tensor));
    *out = made.release();
    return absl::OkStatus();
  });
}

grapnel_status* grapnel_tensor_share(const grapnel_tensor* tensor,
                                     grapnel_tensor** out) {
  return Guard([&] {
    GRAPNEL_RETURN_IF_ERROR(NotNull(tensor, "tensor"));
    GRAPNEL_RETURN_IF_ERROR(NotNull(out, "out"));
    *out = new grapnel_tensor(*tensor);
    return absl::OkStatus();
  });
}

grapnel_status* grapnel_tensor_read(const grapnel_tensor* tensor, void* data,
                                    size_t size) {
  return Guard([&] {
    GRAPNEL_RETURN_IF_ERROR(NotNull(tensor, "tensor"));
    const at::Tensor& from = tensor->tensor;
    GRAPNEL_RETURN_IF_ERROR(grapnel::capi::CheckSize(
        size, grapnel::capi::NumBytes(from), from.sizes(), from.scalar_type()));
    if (size == 0) return absl::OkStatus();
    GRAPNEL_RETURN_IF_ERROR(NotNull(data, "data"));
    const at::Tensor plain =
        from.detach().to(at::kCPU).resolve_conj().resolve_neg().contiguous();
    std::memcpy(data, plain.data_ptr(), size);
    return absl::OkStatus();
  });
}

grapnel_status* grapnel_tensor_write(grapnel_tensor* tensor, const void* data,
                                     size_t size) {
  return Guard([&] {
    GRAPNEL_RETURN_IF_ERROR(NotNull(tensor, "tensor"));
    const at::Tensor& to = tensor->tensor;
    GRAPNEL_RETURN_IF_ERROR(grapnel::capi::CheckSize(
        size, grapnel::capi::NumBytes(to), to.sizes(), to.scalar_type()));
    absl::string_view bytes;
    GRAPNEL_RETURN_IF_ERROR(
        grapnel::capi::ReadBytes(data, size, "data", &bytes));
    GRAPNEL_RETURN_IF_ERROR(grapnel::capi::CheckBools(bytes, to.scalar_type()));
    if (tensor->read_only) {
      return absl::FailedPreconditionError(
          "tensor: its memory is read-only (DLPack)");
    }
    if (size == 0) return absl::OkStatus();
    return grapnel::capi::Write(bytes, to);
  });
}

grapnel_dtype grapnel_tensor_dtype(const grapnel_tensor* tensor) {
  if (tensor == nullptr) return 0;
  return GuardValue<grapnel_dtype>(
      0, [&] { return grapnel::capi::ToDtype(tensor->tensor.scalar_type()); });
}

int32_t grapnel_tensor_rank(const grapnel_tensor* tensor) {
  if (tensor == nullptr) return 0;
  return GuardValue<int32_t>(
      0, [&] { return static_cast<int32_t>(tensor->tensor.dim()); });
}

const int64_t* grapnel_tensor_shape(const grapnel_tensor* tensor) {
  if (tensor == nullptr) return nullptr;
  return GuardValue<const int64_t*>(
      nullptr, [&] { return tensor->tensor.sizes().data(); });
}

int64_t grapnel_tensor_numel(const grapnel_tensor* tensor) {
  if (tensor == nullptr) return 0;
  return GuardValue<int64_t>(0, [&] { return tensor->tensor.numel(); });
}

void* grapnel_tensor_data(const grapnel_tensor* tensor) {
  if (tensor == nullptr) return nullptr;
  return GuardValue<void*>(nullptr, [&]() -> void* {
    const at::Tensor& plain = tensor->tensor;
    return grapnel::capi::IsPlain(plain) ? plain.data_ptr() : nullptr;
  });
}

void grapnel_tensor_destroy(grapnel_tensor* tensor) { delete tensor; }
