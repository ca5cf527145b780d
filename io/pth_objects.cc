#include "grapnel/io/pth_objects.h"

#include <algorithm>
#include <cstddef>
#include <iterator>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/io/safetensors_header.h"

namespace grapnel {
namespace io {
namespace {

using Scalar = c10::ScalarType;

constexpr size_t kMaxDims = 64;  // LibTorch's iterators have no more.
constexpr size_t kMaxKeySize = 255;
constexpr int64_t kMaxUnfolded = 64 << 20;  // Of a tensor, beside the file.

// What a known name is for. Those without a call of their own are only named.
enum class Role {
  kType,
  kStorage,
  kTensor1,
  kTensor2,
  kTensor3,
  kTensorOfType,
  kParameter,
  kOrderedDict,
  kCounter,
  kDefaultDict,
  kSet,
  kBytes,
  kComplex,
  kDevice,
  kLayout,
  kSize,
};

struct Known {
  const char* name;
  Role role;
  const char* type = "";             // Of what it makes, if not its name.
  Scalar dtype = Scalar::Undefined;  // Of a storage's elements.
  int64_t item_size = 1;
};

constexpr Known kKnown[] = {
    {"collections.OrderedDict", Role::kOrderedDict},
    {"torch._utils._rebuild_tensor_v2", Role::kTensor2},
    {"torch._utils._rebuild_tensor_v3", Role::kTensor3},
    {"torch._utils._rebuild_tensor", Role::kTensor1},
    {"torch._utils._rebuild_parameter", Role::kParameter},
    {"torch._utils._rebuild_parameter_with_state", Role::kParameter},
    {"torch._tensor._rebuild_from_type_v2", Role::kTensorOfType},
    {"torch._tensor._rebuild_from_type", Role::kTensorOfType},
    {"torch.Size", Role::kSize},
    {"torch.device", Role::kDevice},
    {"torch.serialization._get_layout", Role::kLayout, "torch.layout"},
    {"collections.Counter", Role::kCounter},
    {"collections.defaultdict", Role::kDefaultDict},
    {"builtins.set", Role::kSet, "set"},
    {"builtins.frozenset", Role::kSet, "frozenset"},
    {"_codecs.encode", Role::kBytes, "bytes"},
    {"builtins.bytes", Role::kBytes, "bytes"},
    {"builtins.bytearray", Role::kBytes, "bytearray"},
    {"builtins.complex", Role::kComplex, "complex"},
    {"builtins.dict", Role::kType},
    {"builtins.float", Role::kType},
    {"builtins.int", Role::kType},
    {"builtins.list", Role::kType},
    {"builtins.str", Role::kType},
    {"builtins.tuple", Role::kType},
    {"torch.Tensor", Role::kType},
    {"torch.nn.parameter.Buffer", Role::kType},
    {"torch.nn.parameter.Parameter", Role::kType},
    {"torch.BFloat16Storage", Role::kStorage, "", Scalar::BFloat16, 2},
    {"torch.BoolStorage", Role::kStorage, "", Scalar::Bool, 1},
    {"torch.ByteStorage", Role::kStorage, "", Scalar::Byte, 1},
    {"torch.CharStorage", Role::kStorage, "", Scalar::Char, 1},
    {"torch.ComplexDoubleStorage", Role::kStorage, "", Scalar::ComplexDouble,
     16},
    {"torch.ComplexFloatStorage", Role::kStorage, "", Scalar::ComplexFloat, 8},
    {"torch.DoubleStorage", Role::kStorage, "", Scalar::Double, 8},
    {"torch.FloatStorage", Role::kStorage, "", Scalar::Float, 4},
    {"torch.HalfStorage", Role::kStorage, "", Scalar::Half, 2},
    {"torch.IntStorage", Role::kStorage, "", Scalar::Int, 4},
    {"torch.LongStorage", Role::kStorage, "", Scalar::Long, 8},
    {"torch.ShortStorage", Role::kStorage, "", Scalar::Short, 2},
    {"torch.storage.UntypedStorage", Role::kStorage},
    {"torch.UntypedStorage", Role::kStorage},
    // Of tensors that only foreign objects can hold here.
    {"torch.QInt32Storage", Role::kStorage, "", Scalar::QInt32, 4},
    {"torch.QInt8Storage", Role::kStorage, "", Scalar::QInt8, 1},
    {"torch.QUInt2x4Storage", Role::kStorage, "", Scalar::QUInt2x4, 1},
    {"torch.QUInt4x2Storage", Role::kStorage, "", Scalar::QUInt4x2, 1},
    {"torch.QUInt8Storage", Role::kStorage, "", Scalar::QUInt8, 1},
};

struct Dtype {
  const char* name;
  Scalar type = Scalar::Undefined;  // Unless tensors of it can be read.
  int64_t size = 0;
};

constexpr Dtype kDtypes[] = {
    {"float32", Scalar::Float, 4},
    {"float16", Scalar::Half, 2},
    {"bfloat16", Scalar::BFloat16, 2},
    {"float64", Scalar::Double, 8},
    {"int64", Scalar::Long, 8},
    {"int32", Scalar::Int, 4},
    {"int16", Scalar::Short, 2},
    {"int8", Scalar::Char, 1},
    {"uint8", Scalar::Byte, 1},
    {"uint16", Scalar::UInt16, 2},
    {"uint32", Scalar::UInt32, 4},
    {"uint64", Scalar::UInt64, 8},
    {"bool", Scalar::Bool, 1},
    {"complex32", Scalar::ComplexHalf, 4},
    {"complex64", Scalar::ComplexFloat, 8},
    {"complex128", Scalar::ComplexDouble, 16},
    {"float8_e4m3fn", Scalar::Float8_e4m3fn, 1},
    {"float8_e4m3fnuz", Scalar::Float8_e4m3fnuz, 1},
    {"float8_e5m2", Scalar::Float8_e5m2, 1},
    {"float8_e5m2fnuz", Scalar::Float8_e5m2fnuz, 1},
    {"float8_e8m0fnu", Scalar::Float8_e8m0fnu, 1},
    {"float4_e2m1fn_x2"},
    {"bits16"},
    {"bits1x8"},
    {"bits2x4"},
    {"bits4x2"},
    {"bits8"},
    {"int1"},
    {"int2"},
    {"int3"},
    {"int4"},
    {"int5"},
    {"int6"},
    {"int7"},
    {"qint32"},
    {"qint8"},
    {"quint2x4"},
    {"quint4x2"},
    {"quint8"},
    {"uint1"},
    {"uint2"},
    {"uint3"},
    {"uint4"},
    {"uint5"},
    {"uint6"},
    {"uint7"},
};

constexpr absl::string_view kLayouts[] = {
    "torch.strided",    "torch.sparse_coo", "torch.sparse_csr",
    "torch.sparse_csc", "torch.sparse_bsr", "torch.sparse_bsc",
    "torch._mkldnn",    "torch.jagged",
};

// Tensors that aren't a view of a storage.
struct UnreadKind {
  const char* function;
  const char* what;
};

constexpr UnreadKind kUnreadKinds[] = {
    {"torch._utils._rebuild_sparse_tensor", "a sparse tensor"},
    {"torch._utils._rebuild_sparse_csr_tensor", "a sparse tensor"},
    {"torch._utils._rebuild_nested_tensor", "a nested tensor"},
    {"torch._utils._rebuild_qtensor", "a quantized tensor"},
    {"torch._utils._rebuild_meta_tensor_no_storage", "a meta tensor"},
    {"torch._utils._rebuild_wrapper_subclass", "a subclass of tensor"},
    {"torch._utils._rebuild_device_tensor_from_numpy", "a device's tensor"},
    {"torch._utils._rebuild_device_tensor_from_cpu_tensor",
     "a device's tensor"},
    {"torch._utils._rebuild_xla_tensor", "a tensor of XLA"},
};

// An entry of the table by its name; null if there is none.
template <typename T, size_t n>
const T* FindName(const T (&table)[n], const char* const T::*name,
                  absl::string_view wanted) {
  const auto found =
      std::find_if(std::begin(table), std::end(table),
                   [&](const T& entry) { return entry.*name == wanted; });
  return found == std::end(table) ? nullptr : found;
}

// Python 2's names, which protocol 2 has, in those of Python 3.
std::string FullName(absl::string_view module, absl::string_view name) {
  if (module == "__builtin__") module = "builtins";
  if (module == "copy_reg") module = "copyreg";
  return absl::StrCat(module, ".", name);
}

absl::Status Invalid(absl::string_view what) {
  return absl::InvalidArgumentError(what);
}

bool IsGoodKey(absl::string_view key) {
  return !key.empty() && key.size() <= kMaxKeySize && key != "." &&
         key != ".." && std::all_of(key.begin(), key.end(), [](char c) {
           return absl::ascii_isalnum(static_cast<unsigned char>(c)) ||
                  c == '_' || c == '-' || c == '.';
         });
}

absl::Status WrongCount(size_t count, absl::string_view wanted) {
  return Invalid(
      absl::StrCat("called with ", count, " arguments, must be ", wanted));
}

}  // namespace

size_t PthObjects::memory_size() const {
  constexpr size_t kKeySize = 64;  // In the map.
  return storages_.capacity() * (sizeof(storages_[0]) + kKeySize) +
         views_.capacity() * sizeof(views_[0]) +
         tensors_.capacity() * sizeof(tensors_[0]);
}

const char* UnreadTensor(absl::string_view function) {
  const UnreadKind* const kind =
      FindName(kUnreadKinds, &UnreadKind::function, function);
  return kind == nullptr ? nullptr : kind->what;
}

absl::StatusOr<PickleId> PthObjects::Global(absl::string_view module,
                                            absl::string_view name) {
  if (module == "torch") {
    const Dtype* const dtype = FindName(kDtypes, &Dtype::name, name);
    if (dtype != nullptr) return tree_.AddText(PickleKind::kDtype, 0, name);
  }
  const std::string full = FullName(module, name);
  const Known* const known = FindName(kKnown, &Known::name, full);
  if (known == nullptr && !allow_foreign_) {
    if (const char* const unread = UnreadTensor(full)) {
      return absl::UnimplementedError(
          absl::StrCat(unread, " (", full, ") can't be read"));
    }
    return Invalid(absl::StrCat(
        QuotedName(full), " is not a type that a checkpoint may hold",
        absl::StartsWith(full, "torch.nn.modules.")
            ? ": a whole module was saved, not its state_dict"
            : ""));
  }
  GRAPNEL_ASSIGN_OR_RETURN(const PickleTypeId type, tree_.Intern(full));
  return tree_.AddNamed(
      PickleKind::kGlobal, type,
      known == nullptr ? 0 : static_cast<uint64_t>(known - kKnown) + 1);
}

absl::StatusOr<PickleId> PthObjects::Call(PickleId callable,
                                          PickleId arguments) {
  const bool is_name = tree_.kind(callable) == PickleKind::kGlobal;
  if (is_name && tree_.number(callable) != 0) {
    const Role role = kKnown[tree_.number(callable) - 1].role;
    if (role != Role::kType && role != Role::kStorage) {
      const Arguments span = tree_.children(arguments);
      // Of its own: what is made lies where the span is a view of.
      const std::vector<PickleId> copy(span.begin(), span.end());
      absl::StatusOr<PickleId> result = CallKnown(callable, copy);
      if (!result.ok()) {
        return WithContext(result.status(), tree_.type_name(callable));
      }
      return result;
    }
  }
  // What a foreign object made may be a function, too; values are none.
  const bool may_be_called =
      is_name || tree_.kind(callable) == PickleKind::kOpaque;
  if (!allow_foreign_ || !may_be_called) {
    return Invalid(
        absl::StrCat("a ", tree_.type_name(callable),
                     " is called, which is no function of torch.save"));
  }
  return tree_.AddOpaque(tree_.type(callable), arguments);
}

absl::StatusOr<PickleId> PthObjects::CallKnown(PickleId callable,
                                               Arguments arguments) {
  const Known& known = kKnown[tree_.number(callable) - 1];
  PickleTypeId type = tree_.type(callable);
  if (known.type[0] != '\0') {
    GRAPNEL_ASSIGN_OR_RETURN(type, tree_.Intern(known.type));
  }
  switch (known.role) {
    case Role::kTensor1:
      return Tensor(1, arguments);
    case Role::kTensor2:
      return Tensor(2, arguments);
    case Role::kTensor3:
      return Tensor(3, arguments);
    case Role::kTensorOfType:
      return TensorOfType(arguments);
    case Role::kParameter:
      return Parameter(arguments);
    case Role::kOrderedDict:
      return OrderedDict(type, arguments);
    case Role::kCounter:
      return Counter(type, arguments);
    case Role::kDefaultDict:
      return DefaultDict(type, arguments);
    case Role::kSet:
      return Set(type, arguments);
    case Role::kBytes:
      return Bytes(type, arguments);
    case Role::kComplex:
      return Complex(arguments);
    case Role::kDevice:
      return Device(arguments);
    case Role::kLayout:
      return Layout(type, arguments);
    case Role::kSize:
      return Size(type, arguments);
    case Role::kType:
    case Role::kStorage:
      break;
  }
  return Invalid("can't be called");
}

absl::Status PthObjects::Expect(PickleId node, PickleKind kind,
                                absl::string_view what) const {
  if (tree_.kind(node) == kind) return absl::OkStatus();
  return Invalid(absl::StrCat(what, " is a ", tree_.type_name(node)));
}

absl::Status PthObjects::CheckInts(PickleId tuple,
                                   absl::string_view what) const {
  GRAPNEL_RETURN_IF_ERROR(Expect(tuple, PickleKind::kTuple, what));
  if (tree_.children(tuple).size() > kMaxDims) {
    return Invalid(absl::StrCat(what, " has ", tree_.children(tuple).size(),
                                " dimensions, may have ", kMaxDims));
  }
  for (const PickleId item : tree_.children(tuple)) {
    GRAPNEL_RETURN_IF_ERROR(
        Expect(item, PickleKind::kInt, absl::StrCat("an item of ", what)));
  }
  return absl::OkStatus();
}

// ------------------------------------------------------------------- tensors

// (storage, offset, size, stride); from version 2 on also requires_grad and
// hooks, then the dtype in version 3, then metadata if there is some.
absl::StatusOr<PickleId> PthObjects::Tensor(int version, Arguments arguments) {
  const size_t fixed = version == 1 ? 4 : version == 2 ? 6 : 7;
  const size_t most = version == 1 ? fixed : fixed + 1;
  if (arguments.size() < fixed || arguments.size() > most) {
    return WrongCount(arguments.size(),
                      fixed == most ? absl::StrCat(fixed)
                                    : absl::StrCat(fixed, " or ", most));
  }
  GRAPNEL_RETURN_IF_ERROR(
      Expect(arguments[0], PickleKind::kStorage, "storage"));
  GRAPNEL_RETURN_IF_ERROR(Expect(arguments[1], PickleKind::kInt, "offset"));
  GRAPNEL_RETURN_IF_ERROR(CheckInts(arguments[2], "size"));
  GRAPNEL_RETURN_IF_ERROR(CheckInts(arguments[3], "stride"));
  const StorageView& view = views_[tree_.number(arguments[0])];
  PthTensor tensor;
  tensor.storage = view.storage;
  tensor.dtype = view.dtype;
  tensor.offset = tree_.int_value(arguments[1]);
  tensor.sizes = arguments[2];
  tensor.strides = arguments[3];
  if (version == 3) {
    GRAPNEL_RETURN_IF_ERROR(Expect(arguments[6], PickleKind::kDtype, "dtype"));
    const absl::string_view name = tree_.text(arguments[6]);
    tensor.dtype = FindName(kDtypes, &Dtype::name, name)->type;
    if (tensor.dtype == Scalar::Undefined) {
      return absl::UnimplementedError(
          absl::StrCat("a tensor of ", name, " can't be read"));
    }
  }
  if (c10::isQIntType(tensor.dtype) || tensor.dtype == Scalar::Undefined) {
    return Invalid(
        absl::StrCat("storage is a ", tree_.type_name(arguments[0])));
  }
  if (arguments.size() == fixed + 1) {
    GRAPNEL_RETURN_IF_ERROR(SetMetadata(arguments[fixed], tensor));
  }
  GRAPNEL_RETURN_IF_ERROR(WithContext(
      CheckExtent(view, tensor),
      absl::StrCat("storage ",
                   QuotedName(tree_.text(storages_[view.storage].key)))));
  tensor.offset +=
      view.begin / static_cast<int64_t>(c10::elementSize(tensor.dtype));
  if (tensor.dtype == Scalar::Bool) storages_[tensor.storage].is_bool = true;
  tensors_.push_back(tensor);
  return tree_.AddNamed(PickleKind::kTensor, 0, tensors_.size() - 1);
}

absl::Status PthObjects::SetMetadata(PickleId metadata,
                                     PthTensor& tensor) const {
  if (tree_.kind(metadata) == PickleKind::kNone) return absl::OkStatus();
  GRAPNEL_RETURN_IF_ERROR(Expect(metadata, PickleKind::kDict, "metadata"));
  const Arguments entries = tree_.children(metadata);
  for (size_t i = 0; i < entries.size(); i += 2) {
    const absl::string_view key = tree_.text(entries[i]);
    GRAPNEL_RETURN_IF_ERROR(Expect(entries[i + 1], PickleKind::kBool,
                                   absl::StrCat("metadata ", QuotedName(key))));
    if (key == "conj" && c10::isComplexType(tensor.dtype)) {
      tensor.conj = tree_.bool_value(entries[i + 1]);
    } else if (key == "neg") {
      tensor.neg = tree_.bool_value(entries[i + 1]);
    } else {
      return Invalid(absl::StrCat("metadata ", QuotedName(key), " of a ",
                                  c10::toString(tensor.dtype), " tensor"));
    }
  }
  return absl::OkStatus();
}

// Proves that every element lies in the view. A dimension of 0 hides nothing:
// LibTorch computes with the others.
absl::Status PthObjects::CheckExtent(const StorageView& view,
                                     const PthTensor& tensor) const {
  const Arguments sizes = tree_.children(tensor.sizes);
  const Arguments strides = tree_.children(tensor.strides);
  if (sizes.size() != strides.size()) {
    return Invalid(absl::StrCat("a tensor of it has ", sizes.size(),
                                " sizes and ", strides.size(), " strides"));
  }
  if (tensor.offset < 0) {
    return Invalid(absl::StrCat("offset is ", tensor.offset));
  }
  const auto item_size = static_cast<int64_t>(c10::elementSize(tensor.dtype));
  if (view.begin % item_size != 0) {
    return Invalid(absl::StrCat("a part of it begins at byte ", view.begin,
                                ", elements have ", item_size));
  }
  const auto inside =
      static_cast<unsigned __int128>(view.num_bytes / item_size);
  unsigned __int128 last = tensor.offset;
  int64_t num_bytes = item_size;
  const bool is_empty =
      std::any_of(sizes.begin(), sizes.end(),
                  [this](PickleId size) { return tree_.int_value(size) == 0; });
  for (size_t i = 0; i < sizes.size(); ++i) {
    const int64_t size = tree_.int_value(sizes[i]);
    const int64_t stride = tree_.int_value(strides[i]);
    if (size < 0 || stride < 0) {
      return Invalid(absl::StrCat("size ", size, " with stride ", stride));
    }
    if (size == 0) continue;
    if (__builtin_mul_overflow(num_bytes, size, &num_bytes)) {
      return Invalid("sizes overflow");
    }
    if (is_empty) continue;
    last += static_cast<unsigned __int128>(size - 1) * stride;
    if (last >= inside) break;  // Before it can overflow.
  }
  if (last > inside || (last == inside && !is_empty)) {
    return Invalid(absl::StrCat("a tensor of it ends behind its ",
                                view.num_bytes, " bytes"));
  }
  if (!is_empty && num_bytes > kMaxUnfolded &&
      num_bytes - kMaxUnfolded > max_storage_size_) {
    return absl::ResourceExhaustedError(
        absl::StrCat("a tensor of it unfolds to ", num_bytes,
                     " bytes, the file has ", max_storage_size_));
  }
  return absl::OkStatus();
}

// (function, type, its arguments, attributes)
absl::StatusOr<PickleId> PthObjects::TensorOfType(Arguments arguments) {
  if (arguments.size() != 4) return WrongCount(arguments.size(), "4");
  const PickleId function = arguments[0];
  const uint64_t number =
      tree_.kind(function) == PickleKind::kGlobal ? tree_.number(function) : 0;
  if (number == 0 || kKnown[number - 1].role == Role::kTensorOfType) {
    // Not one of itself, which would be recursion as deep as a file likes.
    return Invalid(
        absl::StrCat("function is ", QuotedName(tree_.type_name(function))));
  }
  GRAPNEL_RETURN_IF_ERROR(Expect(arguments[1], PickleKind::kGlobal, "type"));
  GRAPNEL_RETURN_IF_ERROR(
      Expect(arguments[2], PickleKind::kTuple, "arguments"));
  const Arguments span = tree_.children(arguments[2]);
  const std::vector<PickleId> copy(span.begin(), span.end());
  GRAPNEL_ASSIGN_OR_RETURN(const PickleId tensor, CallKnown(function, copy));
  GRAPNEL_RETURN_IF_ERROR(Expect(tensor, PickleKind::kTensor, "result"));
  return tensor;
}

// (tensor, requires_grad, hooks), and attributes if there are some.
absl::StatusOr<PickleId> PthObjects::Parameter(Arguments arguments) {
  if (arguments.size() != 3 && arguments.size() != 4) {
    return WrongCount(arguments.size(), "3 or 4");
  }
  GRAPNEL_RETURN_IF_ERROR(Expect(arguments[0], PickleKind::kTensor, "data"));
  return arguments[0];
}

// ------------------------------------------------------------------ storages

// ("storage", type, key, device, number of elements), in legacy files also what
// part of the storage it is.
absl::StatusOr<PickleId> PthObjects::Persistent(PickleId id) {
  GRAPNEL_RETURN_IF_ERROR(Expect(id, PickleKind::kTuple, "persistent id"));
  const Arguments parts = tree_.children(id);
  const absl::string_view what = parts.empty() ? "" : tree_.text(parts[0]);
  if (what == "module" && parts.size() == 4 && allow_foreign_) return parts[1];
  if (what != "storage" || (parts.size() != 5 && parts.size() != 6)) {
    return Invalid(absl::StrCat("persistent id ", QuotedName(what), " of ",
                                parts.size(), " parts"));
  }
  const uint64_t number =
      tree_.kind(parts[1]) == PickleKind::kGlobal ? tree_.number(parts[1]) : 0;
  if (number == 0 || kKnown[number - 1].role != Role::kStorage) {
    return Invalid(absl::StrCat(QuotedName(tree_.type_name(parts[1])),
                                " is no type of storage"));
  }
  const Known& known = kKnown[number - 1];
  GRAPNEL_RETURN_IF_ERROR(Expect(parts[2], PickleKind::kString, "key"));
  GRAPNEL_RETURN_IF_ERROR(Expect(parts[3], PickleKind::kString, "device"));
  GRAPNEL_RETURN_IF_ERROR(
      Expect(parts[4], PickleKind::kInt, "number of elements"));
  if (!IsGoodKey(tree_.text(parts[2]))) {
    return Invalid(
        absl::StrCat("storage has the key ", QuotedName(tree_.text(parts[2]))));
  }
  const int64_t count = tree_.int_value(parts[4]);
  if (count < 0 || count > max_storage_size_ / known.item_size) {
    return Invalid(absl::StrCat("storage ", QuotedName(tree_.text(parts[2])),
                                " has ", count, " elements of ",
                                known.item_size, " bytes, the file ",
                                max_storage_size_, " bytes"));
  }
  PthStorage storage;
  storage.key = parts[2];
  storage.num_bytes = count * known.item_size;
  storage.item_size = known.item_size;
  StorageView view;
  view.dtype = known.dtype;
  view.num_bytes = storage.num_bytes;
  GRAPNEL_ASSIGN_OR_RETURN(view.storage, FindStorage(storage));
  if (parts.size() == 6) {
    GRAPNEL_RETURN_IF_ERROR(TakePart(parts[5], known.item_size, view));
  }
  views_.push_back(view);
  return tree_.AddNamed(PickleKind::kStorage, tree_.type(parts[1]),
                        views_.size() - 1);
}

std::optional<uint32_t> PthObjects::StorageOf(absl::string_view key) const {
  const auto found = storage_by_key_.find(key);
  if (found == storage_by_key_.end()) return std::nullopt;
  return found->second;
}

// The number of the storage with that key; it is added if it is new.
absl::StatusOr<uint32_t> PthObjects::FindStorage(const PthStorage& storage) {
  const absl::string_view key = tree_.text(storage.key);
  const auto [found, is_new] = storage_by_key_.try_emplace(
      std::string(key), static_cast<uint32_t>(storages_.size()));
  if (is_new) {
    storages_.push_back(storage);
  } else if (storages_[found->second].num_bytes != storage.num_bytes) {
    return Invalid(absl::StrCat("storage ", QuotedName(key), " has ",
                                storage.num_bytes, " bytes and ",
                                storages_[found->second].num_bytes));
  }
  return found->second;
}

// None, or (key of the part, offset, number of elements).
absl::Status PthObjects::TakePart(PickleId part, int64_t item_size,
                                  StorageView& view) const {
  if (tree_.kind(part) == PickleKind::kNone) return absl::OkStatus();
  GRAPNEL_RETURN_IF_ERROR(Expect(part, PickleKind::kTuple, "part of storage"));
  const Arguments fields = tree_.children(part);
  if (fields.size() != 3) return WrongCount(fields.size(), "3");
  GRAPNEL_RETURN_IF_ERROR(
      Expect(fields[1], PickleKind::kInt, "offset of part"));
  GRAPNEL_RETURN_IF_ERROR(Expect(fields[2], PickleKind::kInt, "size of part"));
  const int64_t count = view.num_bytes / item_size;
  const int64_t offset = tree_.int_value(fields[1]);
  const int64_t size = tree_.int_value(fields[2]);
  if (offset < 0 || offset > count || size < 0 || size > count - offset) {
    return Invalid(absl::StrCat("part of ", size, " elements at ", offset,
                                " of a storage of ", count));
  }
  view.begin = offset * item_size;
  view.num_bytes = size * item_size;
  return absl::OkStatus();
}

// -------------------------------------------------------------- other objects

absl::StatusOr<PickleId> PthObjects::OrderedDict(PickleTypeId type,
                                                 Arguments arguments) {
  const PickleId dict = tree_.AddContainer(PickleKind::kDict, type);
  if (arguments.empty()) return dict;
  if (arguments.size() != 1) return WrongCount(arguments.size(), "0 or 1");
  GRAPNEL_RETURN_IF_ERROR(Expect(arguments[0], PickleKind::kList, "argument"));
  for (const PickleId pair : tree_.children(arguments[0])) {
    const PickleKind kind = tree_.kind(pair);
    if ((kind != PickleKind::kList && kind != PickleKind::kTuple) ||
        tree_.children(pair).size() != 2) {
      return Invalid("an item is no pair of key and value");
    }
    GRAPNEL_RETURN_IF_ERROR(tree_.SetItems(dict, tree_.children(pair)));
  }
  return dict;
}

absl::StatusOr<PickleId> PthObjects::Counter(PickleTypeId type,
                                             Arguments arguments) {
  const PickleId dict = tree_.AddContainer(PickleKind::kDict, type);
  if (arguments.empty()) return dict;
  if (arguments.size() != 1) return WrongCount(arguments.size(), "0 or 1");
  GRAPNEL_RETURN_IF_ERROR(Expect(arguments[0], PickleKind::kDict, "argument"));
  GRAPNEL_RETURN_IF_ERROR(tree_.SetItems(dict, tree_.children(arguments[0])));
  return dict;
}

// Its argument, which makes missing values, is of no use here.
absl::StatusOr<PickleId> PthObjects::DefaultDict(PickleTypeId type,
                                                 Arguments arguments) {
  if (arguments.size() > 1) return WrongCount(arguments.size(), "0 or 1");
  return tree_.AddContainer(PickleKind::kDict, type);
}

absl::StatusOr<PickleId> PthObjects::Set(PickleTypeId type,
                                         Arguments arguments) {
  const PickleId set = tree_.AddContainer(PickleKind::kSet, type);
  if (arguments.empty()) return set;
  if (arguments.size() != 1) return WrongCount(arguments.size(), "0 or 1");
  GRAPNEL_RETURN_IF_ERROR(Expect(arguments[0], PickleKind::kList, "argument"));
  GRAPNEL_RETURN_IF_ERROR(tree_.Append(set, tree_.children(arguments[0])));
  return set;
}

// (), (bytes), or a text of code points below 256 and the name of that
// encoding.
absl::StatusOr<PickleId> PthObjects::Bytes(PickleTypeId type,
                                           Arguments arguments) {
  if (arguments.empty()) return tree_.AddText(PickleKind::kBytes, type, "");
  if (arguments.size() == 1) {
    GRAPNEL_RETURN_IF_ERROR(
        Expect(arguments[0], PickleKind::kBytes, "argument"));
    return tree_.AddSameText(PickleKind::kBytes, type, arguments[0]);
  }
  if (arguments.size() != 2) return WrongCount(arguments.size(), "0 to 2");
  GRAPNEL_RETURN_IF_ERROR(Expect(arguments[0], PickleKind::kString, "text"));
  const absl::string_view encoding = tree_.text(arguments[1]);
  if (encoding != "latin1" && encoding != "latin-1") {
    return Invalid(absl::StrCat("encoding is ", QuotedName(encoding)));
  }
  return tree_.AddLatin1(type, arguments[0]);
}

absl::StatusOr<PickleId> PthObjects::Complex(Arguments arguments) {
  if (arguments.size() != 2) return WrongCount(arguments.size(), "2");
  GRAPNEL_RETURN_IF_ERROR(
      Expect(arguments[0], PickleKind::kFloat, "real part"));
  GRAPNEL_RETURN_IF_ERROR(
      Expect(arguments[1], PickleKind::kFloat, "imaginary part"));
  return tree_.AddComplex(tree_.float_value(arguments[0]),
                          tree_.float_value(arguments[1]));
}

// (type) or (type, index)
absl::StatusOr<PickleId> PthObjects::Device(Arguments arguments) {
  if (arguments.size() != 1 && arguments.size() != 2) {
    return WrongCount(arguments.size(), "1 or 2");
  }
  GRAPNEL_RETURN_IF_ERROR(Expect(arguments[0], PickleKind::kString, "type"));
  std::string name(tree_.text(arguments[0]));
  if (name.size() > kMaxKeySize) return Invalid("type is too long");
  if (arguments.size() == 2) {
    GRAPNEL_RETURN_IF_ERROR(Expect(arguments[1], PickleKind::kInt, "index"));
    absl::StrAppend(&name, ":", tree_.int_value(arguments[1]));
  }
  return tree_.AddText(PickleKind::kDevice, 0, name);
}

absl::StatusOr<PickleId> PthObjects::Layout(PickleTypeId type,
                                            Arguments arguments) {
  if (arguments.size() != 1) return WrongCount(arguments.size(), "1");
  GRAPNEL_RETURN_IF_ERROR(Expect(arguments[0], PickleKind::kString, "name"));
  const absl::string_view name = tree_.text(arguments[0]);
  const auto* const known =
      std::find(std::begin(kLayouts), std::end(kLayouts), name);
  if (known == std::end(kLayouts)) {
    return Invalid(absl::StrCat(QuotedName(name), " is no layout"));
  }
  // A copy: the text itself may yet be decoded in its place.
  return tree_.AddText(PickleKind::kString, type, *known);
}

absl::StatusOr<PickleId> PthObjects::Size(PickleTypeId type,
                                          Arguments arguments) {
  if (arguments.size() != 1) return WrongCount(arguments.size(), "1");
  GRAPNEL_RETURN_IF_ERROR(CheckInts(arguments[0], "argument"));
  return tree_.AddSameTuple(type, arguments[0]);
}

absl::Status PthObjects::SetState(PickleId object, PickleId state) {
  if (tree_.kind(object) == PickleKind::kOpaque) {
    tree_.SetState(object, state);
    return absl::OkStatus();
  }
  // Attributes of a state_dict: versions of modules, which nothing here reads.
  if (tree_.type_name(object) == "collections.OrderedDict" &&
      tree_.kind(object) == PickleKind::kDict &&
      tree_.kind(state) == PickleKind::kDict) {
    return absl::OkStatus();
  }
  return Invalid(absl::StrCat("gives a ", tree_.type_name(state),
                              " as state to a ", tree_.type_name(object)));
}

}  // namespace io
}  // namespace grapnel
