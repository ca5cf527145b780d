#include "grapnel/capi/dlpack.h"

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "ATen/Context.h"
#include "ATen/dlpack.h"
#include "ATen/ops/from_blob.h"
#include "absl/strings/str_cat.h"
#include "c10/core/Device.h"

// ATen/DLConvertor.h includes all of ATen.
namespace at {
TORCH_API DLManagedTensorVersioned* toDLPackVersioned(const Tensor& src);
}  // namespace at

namespace grapnel::capi {
namespace {

// Others mean something that would have to be understood.
constexpr uint64_t kKnownFlags =
    DLPACK_FLAG_BITMASK_READ_ONLY | DLPACK_FLAG_BITMASK_IS_COPIED;

struct Dtype {
  uint8_t code;
  uint8_t bits;
  at::ScalarType type;
};

// Those that the C API has.
constexpr Dtype kDtypes[] = {
    {kDLBool, 8, at::kBool},     {kDLUInt, 8, at::kByte},
    {kDLInt, 8, at::kChar},      {kDLInt, 16, at::kShort},
    {kDLInt, 32, at::kInt},      {kDLInt, 64, at::kLong},
    {kDLFloat, 16, at::kHalf},   {kDLFloat, 32, at::kFloat},
    {kDLFloat, 64, at::kDouble}, {kDLBfloat, 16, at::kBFloat16},
};

absl::Status CheckHead(const DLManagedTensorVersioned& dlpack) {
  if (dlpack.version.major != DLPACK_MAJOR_VERSION) {
    return absl::UnimplementedError(
        absl::StrCat("version: must be ", DLPACK_MAJOR_VERSION, ".x, is ",
                     dlpack.version.major, ".", dlpack.version.minor));
  }
  const uint64_t unknown = dlpack.flags & ~kKnownFlags;
  if (unknown != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("flags: 0x", absl::Hex(unknown), " are not known here"));
  }
  return absl::OkStatus();
}

absl::Status ReadDtype(const DLDataType& dtype, at::ScalarType* type) {
  for (const Dtype& known : kDtypes) {
    if (known.code == dtype.code && known.bits == dtype.bits &&
        dtype.lanes == 1) {
      *type = known.type;
      return absl::OkStatus();
    }
  }
  return absl::UnimplementedError(absl::StrCat(
      "dtype: there is none of code ", static_cast<int>(dtype.code), ", ",
      static_cast<int>(dtype.bits), " bits and ", dtype.lanes, " lanes"));
}

absl::Status ReadDevice(const DLDevice& from, std::optional<at::Device>* out) {
  // Pinned memory is the host's. A host's number is of no importance: some have
  // several.
  if (from.device_type == kDLCPU || from.device_type == kDLCUDAHost) {
    out->emplace(at::kCPU);
    return absl::OkStatus();
  }
  if (from.device_type != kDLCUDA || !at::hasCUDA()) {
    return absl::UnimplementedError(absl::StrCat(
        "device: memory of type ", static_cast<int>(from.device_type),
        " isn't supported",
        from.device_type == kDLCUDA ? ": LibTorch finds no CUDA device" : ""));
  }
  const auto count = static_cast<int64_t>(at::getNumGPUs());
  if (from.device_id < 0 || from.device_id >= count) {
    return absl::InvalidArgumentError(absl::StrCat(
        "device: there is no ", from.device_id, " of ", count, " of CUDA"));
  }
  out->emplace(at::kCUDA, static_cast<at::DeviceIndex>(from.device_id));
  return absl::OkStatus();
}

// Strides in elements, and from the first byte of the first element to behind
// the last byte of the last one.
struct Layout {
  std::vector<int64_t> strides;
  int64_t span = 0;
};

// The shape has been checked. Where a stride says nothing, with one element or
// none on its way, it may be anything, and becomes what it is without gaps.
absl::Status ReadLayout(const DLTensor& tensor, int64_t element_size,
                        int64_t num_bytes, Layout* layout) {
  const auto rank = static_cast<size_t>(tensor.ndim);
  layout->strides.resize(rank);
  int64_t stride = 1;
  for (size_t i = rank; i-- > 0;) {
    layout->strides[i] = stride;
    stride *= tensor.shape[i] > 1 ? tensor.shape[i] : 1;
  }
  layout->span = num_bytes;
  if (tensor.strides == nullptr || num_bytes == 0) return absl::OkStatus();

  int64_t last = 0;
  for (size_t i = 0; i < rank; ++i) {
    if (tensor.shape[i] == 1) continue;
    const int64_t given = tensor.strides[i];
    if (given < 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("strides[", i, "]: must be >= 0, is ", given));
    }
    int64_t way = 0;
    if (__builtin_mul_overflow(tensor.shape[i] - 1, given, &way) ||
        __builtin_add_overflow(last, way, &last)) {
      return absl::InvalidArgumentError(
          absl::StrCat("strides[", i, "]: is ", given, ", too large"));
    }
    layout->strides[i] = given;
  }
  if (__builtin_add_overflow(last, 1, &last) ||
      __builtin_mul_overflow(last, element_size, &layout->span) ||
      layout->span > kMaxTensorBytes) {
    return absl::InvalidArgumentError(
        "strides: the last element is farther away than any memory");
  }
  return absl::OkStatus();
}

// The address of the first element.
absl::Status ReadData(const DLTensor& tensor, int64_t element_size,
                      int64_t num_bytes, int64_t span, void** data) {
  if (num_bytes == 0) {
    *data = tensor.data;  // Never read.
    return absl::OkStatus();
  }
  GRAPNEL_RETURN_IF_ERROR(NotNull(tensor.data, "data"));
  const auto base = reinterpret_cast<uintptr_t>(tensor.data);
  uintptr_t first = 0;
  uintptr_t end = 0;
  if (__builtin_add_overflow(base, tensor.byte_offset, &first) ||
      __builtin_add_overflow(first, static_cast<uintptr_t>(span), &end)) {
    return absl::InvalidArgumentError(
        absl::StrCat("byte_offset: is ", tensor.byte_offset,
                     ": the elements lie behind the end of all memory"));
  }
  if (first % static_cast<uintptr_t>(element_size) != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("data: with byte_offset, which is ", tensor.byte_offset,
                     ", must be aligned to ", element_size, " bytes"));
  }
  *data = reinterpret_cast<void*>(first);
  return absl::OkStatus();
}

// What a tensor keeps of the struct. Until it is armed the caller has it.
struct Lease {
  DLManagedTensorVersioned* dlpack;
  bool armed = false;
};

void EndLease(void* context) {
  const std::unique_ptr<Lease> lease(static_cast<Lease*>(context));
  DLManagedTensorVersioned* const dlpack = lease->dlpack;
  if (lease->armed && dlpack->deleter != nullptr) dlpack->deleter(dlpack);
}

absl::Status TryImport(DLManagedTensorVersioned* dlpack, grapnel_tensor* out) {
  GRAPNEL_RETURN_IF_ERROR(CheckHead(*dlpack));
  const DLTensor& tensor = dlpack->dl_tensor;
  at::ScalarType type = at::kFloat;
  GRAPNEL_RETURN_IF_ERROR(ReadDtype(tensor.dtype, &type));
  std::optional<at::Device> device;
  GRAPNEL_RETURN_IF_ERROR(ReadDevice(tensor.device, &device));
  const auto element_size = static_cast<int64_t>(c10::elementSize(type));
  int64_t num_bytes = 0;
  GRAPNEL_RETURN_IF_ERROR(CheckShape(tensor.shape, tensor.ndim,
                                     c10::elementSize(type), &num_bytes));
  Layout layout;
  GRAPNEL_RETURN_IF_ERROR(ReadLayout(tensor, element_size, num_bytes, &layout));
  void* data = nullptr;
  GRAPNEL_RETURN_IF_ERROR(
      ReadData(tensor, element_size, num_bytes, layout.span, &data));

  // Of memory on a device LibTorch asks the driver if it is there.
  const bool believed = device->is_cpu() || num_bytes == 0;
  auto* const lease = new Lease{dlpack};
  at::Tensor made =
      at::for_blob(
          data, at::IntArrayRef(tensor.shape, static_cast<size_t>(tensor.ndim)))
          .strides(at::IntArrayRef(layout.strides))
          .context(lease, &EndLease)
          .options(at::TensorOptions().dtype(type).device(*device))
          .target_device(believed ? device : std::nullopt)
          .make_tensor();
  // Nothing fails any more.
  lease->armed = true;
  out->tensor = std::move(made);
  out->read_only = (dlpack->flags & DLPACK_FLAG_BITMASK_READ_ONLY) != 0;
  return absl::OkStatus();
}

}  // namespace

absl::Status ImportDlpack(DLManagedTensorVersioned* dlpack,
                          grapnel_tensor* out) {
  return WithContext(CatchAsStatus([&] { return TryImport(dlpack, out); }),
                     "dlpack");
}

absl::Status ExportDlpack(const grapnel_tensor& tensor,
                          DLManagedTensorVersioned** out) {
  return CatchAsStatus([&] {
    // DLPack has no word for values that are negated or conjugated when read.
    const at::Tensor plain =
        tensor.tensor.detach().resolve_conj().resolve_neg();
    DLManagedTensorVersioned* const made = at::toDLPackVersioned(plain);
    if (tensor.read_only) made->flags |= DLPACK_FLAG_BITMASK_READ_ONLY;
    *out = made;
    return absl::OkStatus();
  });
}

}  // namespace grapnel::capi

using grapnel::capi::Guard;
using grapnel::capi::NotNull;

grapnel_status* grapnel_tensor_from_dlpack(DLManagedTensorVersioned* dlpack,
                                           grapnel_tensor** out) {
  return Guard([&] {
    GRAPNEL_RETURN_IF_ERROR(NotNull(dlpack, "dlpack"));
    GRAPNEL_RETURN_IF_ERROR(NotNull(out, "out"));
    auto made = std::make_unique<grapnel_tensor>();
    GRAPNEL_RETURN_IF_ERROR(grapnel::capi::ImportDlpack(dlpack, made.get()));
    *out = made.release();
    return absl::OkStatus();
  });
}

grapnel_status* grapnel_tensor_to_dlpack(const grapnel_tensor* tensor,
                                         DLManagedTensorVersioned** out) {
  return Guard([&] {
    GRAPNEL_RETURN_IF_ERROR(NotNull(tensor, "tensor"));
    GRAPNEL_RETURN_IF_ERROR(NotNull(out, "out"));
    return grapnel::capi::ExportDlpack(*tensor, out);
  });
}
