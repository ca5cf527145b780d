#include "grapnel/io/pth_writer.h"

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "c10/core/ScalarType.h"
#include "c10/util/strides.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/base/utf8.h"
#include "grapnel/io/safetensors_header.h"
#include "grapnel/io/unique_name.h"
#include "grapnel/io/zip_writer.h"

namespace grapnel {
namespace io {
namespace {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
              "tensors are stored as they are in memory, little-endian");

// What torch.save calls it where there is no name; any does.
constexpr char kFolder[] = "archive/";
constexpr size_t kMaxDepth = 100;              // PthFile's.
constexpr size_t kMaxStringSize = 0xffffffff;  // The opcode's.

// Old dtypes have a class of storage each; for the others the storage is bytes
// and the dtype stands beside it.
struct PthDtype {
  c10::ScalarType type;
  const char* storage;  // Or null.
  const char* name;     // If `storage` is null.
};

constexpr PthDtype kDtypes[] = {
    {c10::ScalarType::Float, "FloatStorage", nullptr},
    {c10::ScalarType::Double, "DoubleStorage", nullptr},
    {c10::ScalarType::Half, "HalfStorage", nullptr},
    {c10::ScalarType::BFloat16, "BFloat16Storage", nullptr},
    {c10::ScalarType::Long, "LongStorage", nullptr},
    {c10::ScalarType::Int, "IntStorage", nullptr},
    {c10::ScalarType::Short, "ShortStorage", nullptr},
    {c10::ScalarType::Char, "CharStorage", nullptr},
    {c10::ScalarType::Byte, "ByteStorage", nullptr},
    {c10::ScalarType::Bool, "BoolStorage", nullptr},
    {c10::ScalarType::ComplexFloat, "ComplexFloatStorage", nullptr},
    {c10::ScalarType::ComplexDouble, "ComplexDoubleStorage", nullptr},
    {c10::ScalarType::ComplexHalf, nullptr, "complex32"},
    {c10::ScalarType::UInt16, nullptr, "uint16"},
    {c10::ScalarType::UInt32, nullptr, "uint32"},
    {c10::ScalarType::UInt64, nullptr, "uint64"},
    {c10::ScalarType::Float8_e4m3fn, nullptr, "float8_e4m3fn"},
    {c10::ScalarType::Float8_e4m3fnuz, nullptr, "float8_e4m3fnuz"},
    {c10::ScalarType::Float8_e5m2, nullptr, "float8_e5m2"},
    {c10::ScalarType::Float8_e5m2fnuz, nullptr, "float8_e5m2fnuz"},
    {c10::ScalarType::Float8_e8m0fnu, nullptr, "float8_e8m0fnu"},
};

const PthDtype* FindDtype(c10::ScalarType type) {
  for (const PthDtype& dtype : kDtypes) {
    if (dtype.type == type) return &dtype;
  }
  return nullptr;
}

absl::Status CannotWrite(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("cannot write ", what));
}

// How many elements the tensor's whole storage has.
int64_t StorageElements(const at::Tensor& tensor) {
  return static_cast<int64_t>(tensor.storage().nbytes() / tensor.itemsize());
}

// Fails for a tensor that is no strided view of memory.
absl::Status CheckTensor(const at::Tensor& tensor) {
  if (!tensor.defined()) return CannotWrite("an undefined tensor");
  if (tensor.is_quantized()) return CannotWrite("a quantized tensor");
  if (tensor.layout() != c10::kStrided || tensor.is_nested()) {
    return CannotWrite("a sparse or nested tensor");
  }
  if (tensor.is_meta() || !tensor.has_storage()) {
    return CannotWrite("a tensor without data");
  }
  if (FindDtype(tensor.scalar_type()) == nullptr) {
    return CannotWrite(absl::StrCat("a tensor of dtype ",
                                    c10::toString(tensor.scalar_type())));
  }
  if (tensor.numel() == 0) return absl::OkStatus();
  int64_t end = tensor.storage_offset() + 1;
  for (int64_t dim = 0; dim < tensor.dim(); ++dim) {
    end += (tensor.size(dim) - 1) * tensor.stride(dim);
  }
  if (end > StorageElements(tensor)) {
    return CannotWrite(absl::StrCat(
        "a tensor that ends at element ", end, " of a storage that has ",
        StorageElements(tensor), ": was it freed?"));
  }
  return absl::OkStatus();
}

void AppendTuple(absl::Span<const int64_t> values, std::string& pickle) {
  pickle += static_cast<char>(PickleOp::kMark);
  for (const int64_t value : values) AppendPickleInt(value, pickle);
  pickle += static_cast<char>(PickleOp::kTuple);
}

}  // namespace

// A storage that one tensor or more is a view of.
struct PthWriter::Storage {
  enum class Part { kAll, kSpan, kCopy };

  at::Tensor first;      // The first of the views.
  std::string place;     // Of it.
  bool one_view = true;  // All are alike.

  // What is written of it. The whole, or of what no other tensor shares with a
  // view that uses less than half: the span of memory that it fills, or its
  // elements in order if they lie apart.
  Part part() const {
    const int64_t all = StorageElements(first);
    if (!one_view || first.numel() >= (all + 1) / 2) return Part::kAll;
    return first.is_non_overlapping_and_dense() ? Part::kSpan : Part::kCopy;
  }

  int64_t num_elements() const {
    return part() == Part::kAll ? StorageElements(first) : first.numel();
  }

  // What is written, flat and on the CPU. Throws as LibTorch does.
  at::Tensor Data() const {
    switch (part()) {
      case Part::kAll:
        return first.as_strided({num_elements()}, {1}, 0).to(at::kCPU);
      case Part::kSpan:
        return first.as_strided({num_elements()}, {1}, first.storage_offset())
            .to(at::kCPU);
      case Part::kCopy:
        break;
    }
    return first.contiguous().to(at::kCPU);
  }
};

// A tensor in the pickle, which lacks what depends on tensors still to come:
// from the storage's number of elements to the strides.
struct PthWriter::View {
  size_t position;  // Of what is lacking.
  size_t storage;
  at::Tensor tensor;

  void AppendTo(std::string& pickle, const Storage& storage) const {
    const Storage::Part part = storage.part();
    AppendPickleInt(
        FindDtype(tensor.scalar_type())->storage == nullptr
            ? storage.num_elements() * static_cast<int64_t>(tensor.itemsize())
            : storage.num_elements(),
        pickle);
    pickle += static_cast<char>(PickleOp::kTuple);
    pickle += static_cast<char>(PickleOp::kPersistentId);
    AppendPickleInt(part == Storage::Part::kAll ? tensor.storage_offset() : 0,
                    pickle);
    AppendTuple(tensor.sizes(), pickle);
    AppendTuple(part == Storage::Part::kCopy
                    ? c10::IntArrayRef(c10::contiguous_strides(tensor.sizes()))
                    : tensor.strides(),
                pickle);
  }
};

absl::StatusOr<std::unique_ptr<PthWriter>> PthWriter::Create(
    Env& env, const std::string& path) {
  if (env.IsDirectory(path)) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": is a directory"));
  }
  const std::string temporary =
      JoinPath(Dirname(path), HiddenName(kTemporary, Basename(path)));
  GRAPNEL_ASSIGN_OR_RETURN(std::unique_ptr<WritableFile> file,
                           env.NewWritableFile(temporary));
  return absl::WrapUnique(new PthWriter(env, path, temporary, std::move(file)));
}

PthWriter::PthWriter(Env& env, std::string path, std::string temporary,
                     std::unique_ptr<WritableFile> file)
    : env_(env),
      path_(std::move(path)),
      temporary_(std::move(temporary)),
      file_(std::move(file)) {}

PthWriter::~PthWriter() {
  if (file_ == nullptr) return;
  file_.reset();
  env_.DeleteFile(temporary_).IgnoreError();
}

void PthWriter::BeginDict() { Begin(Kind::kDict, "a dict"); }
void PthWriter::BeginOrderedDict() {
  Begin(Kind::kOrderedDict, "an OrderedDict");
}
void PthWriter::BeginList() { Begin(Kind::kList, "a list"); }
void PthWriter::BeginTuple() { Begin(Kind::kTuple, "a tuple"); }

void PthWriter::Begin(Kind kind, absl::string_view what) {
  if (!Next(what)) return;
  if (open_.size() == kMaxDepth) {
    return Misuse(absl::StrCat(what, " in ", kMaxDepth, " others"));
  }
  switch (kind) {
    case Kind::kDict:
      pickle_.Op(PickleOp::kEmptyDict);
      break;
    case Kind::kOrderedDict:
      pickle_.Global("collections", "OrderedDict");
      pickle_.Op(PickleOp::kEmptyTuple);
      pickle_.Op(PickleOp::kReduce);
      break;
    case Kind::kList:
      pickle_.Op(PickleOp::kEmptyList);
      break;
    case Kind::kTuple:
      break;  // It is made of its items, at its end.
  }
  open_.push_back(Container{kind, 0, ""});
}

void PthWriter::End() {
  if (!status_.ok()) return;
  if (open_.empty()) return Misuse("an End without a Begin");
  if (AtKey()) return Misuse("the key has no value");
  const Container container = std::move(open_.back());
  open_.pop_back();
  const bool empty = container.num_items == 0;
  switch (container.kind) {
    case Kind::kDict:
    case Kind::kOrderedDict:
      if (!empty) pickle_.Op(PickleOp::kSetItems);
      break;
    case Kind::kList:
      if (!empty) pickle_.Op(PickleOp::kAppends);
      break;
    case Kind::kTuple:
      pickle_.Op(empty ? PickleOp::kEmptyTuple : PickleOp::kTuple);
      break;
  }
}

void PthWriter::None() {
  if (Next("None")) pickle_.None();
}

void PthWriter::Bool(bool value) {
  if (Next("a bool")) pickle_.Bool(value);
}

void PthWriter::Int(int64_t value) {
  if (!Next("an int", MayBeKey::kYes)) return;
  if (AtKey()) open_.back().key = absl::StrCat(value);
  pickle_.Int(value);
}

void PthWriter::Float(double value) {
  if (Next("a float")) pickle_.Float(value);
}

void PthWriter::String(absl::string_view value) {
  if (!Next("a string", MayBeKey::kYes)) return;
  if (AtKey()) open_.back().key = QuotedName(value);
  if (value.size() > kMaxStringSize) {
    return Fail(CannotWrite(absl::StrCat("a string of ", value.size(),
                                         " bytes: Python's pickle has less")));
  }
  absl::Status status = CheckUtf8(value);
  if (!status.ok()) return Fail(std::move(status));
  pickle_.String(value);
}

void PthWriter::Tensor(const at::Tensor& tensor) {
  if (!Next("a tensor")) return;
  absl::Status status = AddTensor(tensor);
  if (!status.ok()) Fail(std::move(status));
}

absl::Status PthWriter::AddTensor(const at::Tensor& tensor) {
  at::Tensor plain;
  GRAPNEL_RETURN_IF_ERROR(CatchAsStatus([&]() -> absl::Status {
    GRAPNEL_RETURN_IF_ERROR(CheckTensor(tensor));
    // Elements that are stored as others than they are become so.
    plain = tensor.detach().resolve_conj().resolve_neg();
    return absl::OkStatus();
  }));
  const auto [it, is_new] = storage_index_.try_emplace(
      std::make_pair(plain.storage().unsafeGetStorageImpl(),
                     plain.scalar_type()),
      storages_.size());
  const size_t index = it->second;
  if (is_new) {
    storages_.push_back(Storage{plain, Place()});
  } else {
    Storage& storage = storages_[index];
    storage.one_view &=
        storage.first.sizes() == plain.sizes() &&
        storage.first.strides() == plain.strides() &&
        storage.first.storage_offset() == plain.storage_offset();
  }
  const PthDtype& dtype = *FindDtype(plain.scalar_type());
  const bool typed = dtype.storage != nullptr;
  pickle_.Global("torch._utils",
                 typed ? "_rebuild_tensor_v2" : "_rebuild_tensor_v3");
  pickle_.Op(PickleOp::kMark);
  pickle_.Op(PickleOp::kMark);
  pickle_.String("storage");
  if (typed) {
    pickle_.Global("torch", dtype.storage);
  } else {
    pickle_.Global("torch.storage", "UntypedStorage");
  }
  pickle_.String(absl::StrCat(index));
  pickle_.String("cpu");
  views_.push_back(View{pickle_.bytes().size(), index, std::move(plain)});
  pickle_.Bool(false);                           // requires_grad
  pickle_.Global("collections", "OrderedDict");  // Of hooks.
  pickle_.Op(PickleOp::kEmptyTuple);
  pickle_.Op(PickleOp::kReduce);
  if (!typed) pickle_.Global("torch", dtype.name);
  pickle_.Op(PickleOp::kTuple);
  pickle_.Op(PickleOp::kReduce);
  return absl::OkStatus();
}

bool PthWriter::Next(absl::string_view what, MayBeKey may_be_key) {
  if (!status_.ok()) return false;
  if (open_.empty()) {
    if (has_value_) Misuse(absl::StrCat(what, " after the end of the value"));
    has_value_ = true;
    return status_.ok();
  }
  Container& container = open_.back();
  if (container.num_items++ == 0) pickle_.Op(PickleOp::kMark);
  if (AtKey() && may_be_key == MayBeKey::kNo) {
    container.key = "?";
    Misuse(absl::StrCat(what, " where a key, a String or an Int, is expected"));
  }
  return status_.ok();
}

bool PthWriter::AtKey() const {
  if (open_.empty()) return false;
  const Container& container = open_.back();
  return (container.kind == Kind::kDict ||
          container.kind == Kind::kOrderedDict) &&
         container.num_items % 2 == 1;
}

std::string PthWriter::Place() const {
  std::string place;
  for (const Container& container : open_) {
    const bool is_dict =
        container.kind == Kind::kDict || container.kind == Kind::kOrderedDict;
    if (container.num_items == 0) break;
    absl::StrAppend(
        &place, "[",
        is_dict ? container.key : absl::StrCat(container.num_items - 1), "]");
  }
  return place;
}

void PthWriter::Fail(absl::Status status) {
  const std::string place = Place();
  if (!place.empty()) status = WithContext(std::move(status), place);
  status_ = WithContext(std::move(status), path_);
}

void PthWriter::Misuse(absl::string_view what) {
  Fail(absl::FailedPreconditionError(what));
}

absl::Status PthWriter::Write() {
  ZipWriter zip(*file_);
  const auto add = [&](absl::string_view name, absl::string_view data) {
    return zip.Add(absl::StrCat(kFolder, name), data);
  };
  {
    const std::string& lacking = pickle_.bytes();
    std::string pickle;
    size_t at = 0;
    for (const View& view : views_) {
      pickle.append(lacking, at, view.position - at);
      view.AppendTo(pickle, storages_[view.storage]);
      at = view.position;
    }
    pickle.append(lacking, at);
    pickle += static_cast<char>(PickleOp::kStop);
    GRAPNEL_RETURN_IF_ERROR(add("data.pkl", pickle));
  }
  views_.clear();
  GRAPNEL_RETURN_IF_ERROR(add("byteorder", "little"));
  GRAPNEL_RETURN_IF_ERROR(add("version", "3\n"));
  for (size_t i = 0; i < storages_.size(); ++i) {
    at::Tensor data;
    const absl::Status copied = CatchAsStatus([&] {
      data = storages_[i].Data();
      return absl::OkStatus();
    });
    if (!copied.ok()) {
      return WithContext(copied, absl::StrCat(path_, ": ", storages_[i].place));
    }
    storages_[i].first.reset();  // It may be the last to hold it.
    GRAPNEL_RETURN_IF_ERROR(
        add(absl::StrCat("data/", i),
            {static_cast<const char*>(data.const_data_ptr()), data.nbytes()}));
  }
  GRAPNEL_RETURN_IF_ERROR(zip.Finish());
  GRAPNEL_RETURN_IF_ERROR(file_->Sync());
  GRAPNEL_RETURN_IF_ERROR(file_->Close());
  return env_.Rename(temporary_, path_);
}

absl::Status PthWriter::Finish() {
  if (status_.ok() && !open_.empty()) {
    Misuse(absl::StrCat(open_.size(), " containers have no End"));
  } else if (status_.ok() && !has_value_) {
    Misuse("no value was given");
  }
  if (file_ == nullptr) return status_;
  if (status_.ok()) status_ = Write();
  file_.reset();
  if (!status_.ok()) {
    env_.DeleteFile(temporary_).IgnoreError();  // The first error is the cause.
    return status_;
  }
  Misuse("Finish was called already");
  const std::string dir = Dirname(path_);
  return env_.SyncDir(dir.empty() ? "." : dir);
}

absl::Status WritePthWeights(Env& env, const std::string& path,
                             const TensorMap& tensors) {
  GRAPNEL_ASSIGN_OR_RETURN(const std::unique_ptr<PthWriter> writer,
                           PthWriter::Create(env, path));
  writer->BeginOrderedDict();
  for (const NamedTensor& named : tensors) {
    writer->String(named.name);
    writer->Tensor(named.tensor);
  }
  writer->End();
  return writer->Finish();
}

}  // namespace io
}  // namespace grapnel
