#include "grapnel/io/pth.h"

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/types/span.h"
#include "c10/core/DispatchKeySet.h"
#include "c10/core/Storage.h"
#include "c10/core/TensorImpl.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/io/out_of_memory.h"
#include "grapnel/io/pickle_reader.h"
#include "grapnel/io/pickle_tree.h"
#include "grapnel/io/pth_objects.h"
#include "grapnel/io/read_ranges.h"
#include "grapnel/io/safetensors_header.h"
#include "grapnel/io/tensor_memory.h"
#include "grapnel/io/zip_reader.h"

namespace grapnel {
namespace io {

struct PthContents {
  PickleTree tree;
  PickleId root = 0;
  std::vector<PthTensor> tensors;
  std::vector<c10::Storage> storages;
  bool verified = false;
};

namespace {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
              "storages are in memory as they are in the file");

// The number in front of a legacy file, pickled by protocol 2, and where the
// protocol is.
constexpr absl::string_view kLegacyMagic(
    "\x80\x02\x8a\x0al\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.", 15);
constexpr size_t kProtocolAt = 1;
constexpr int64_t kLegacyVersion = 1001;
constexpr absl::string_view kZipMagic("PK\x03\x04", 4);
constexpr int64_t kNewestZipVersion = 10;
constexpr int64_t kMaxSmallRecord = 64;
constexpr int64_t kFirstWindow = 1 << 20;
constexpr int64_t kMaxPickleSize = (int64_t{1} << 32) - 1;

// What values may need beside the pickle and the storages. With vectors that
// grow, what is needed to check them, and records, it stays below 64 MiB.
size_t MaxTreeMemory(int64_t file_size) {
  return (24 << 20) + static_cast<size_t>(file_size) / 20;
}

absl::Status Invalid(absl::string_view what) {
  return absl::InvalidArgumentError(what);
}

// What a child of a list or a dict is called, for messages.
std::string PartOfName(const PickleTree& tree, PickleId parent, size_t child) {
  constexpr size_t kMaxSize = 256;  // QuotedName shows less.
  if (tree.kind(parent) != PickleKind::kDict) return absl::StrCat(child);
  const PickleId key = tree.children(parent)[child - 1];
  return tree.kind(key) == PickleKind::kInt
             ? absl::StrCat(tree.int_value(key))
             : std::string(tree.text(key).substr(0, kMaxSize));
}

// The name of the first tensor that is a view of `storage`, as attributes of
// modules are named: "state_dict.fc.weight". "" if there is none.
std::string FindTensorOf(const PthContents& contents, uint32_t storage) {
  struct Step {
    PickleId id;
    size_t child;  // Where it goes on.
  };
  const PickleTree& tree = contents.tree;
  const auto is_wanted = [&](PickleId id) {
    return tree.kind(id) == PickleKind::kTensor &&
           contents.tensors[tree.number(id)].storage == storage;
  };
  std::vector<Step> path = {{contents.root, 0}};
  absl::flat_hash_set<PickleId> seen;
  while (!path.empty()) {
    const PickleId id = path.back().id;
    const absl::Span<const PickleId> children = tree.children(id);
    const size_t step = tree.kind(id) == PickleKind::kDict ? 2 : 1;
    const size_t at = path.back().child + step - 1;
    if (at >= children.size()) {
      path.pop_back();
      if (!path.empty()) ++path.back().child;
      continue;
    }
    path.back().child = at;
    const PickleId child = children[at];
    if (is_wanted(child)) {
      std::vector<std::string> parts;
      for (const Step& part : path) {
        parts.push_back(PartOfName(tree, part.id, part.child));
      }
      return absl::StrJoin(parts, ".");
    }
    if (!tree.children(child).empty() && seen.insert(child).second) {
      path.push_back({child, 0});
    } else {
      ++path.back().child;
    }
  }
  return "";
}

// `data/0, which holds "fc.weight"`
std::string DescribeStorage(const PthContents& contents, uint32_t storage,
                            absl::string_view name) {
  const std::string tensor = FindTensorOf(contents, storage);
  return tensor.empty()
             ? std::string(name)
             : absl::StrCat(name, ", which holds ", QuotedName(tensor));
}

// Memory for the storages, with ranges that read it.
absl::Status Allocate(absl::Span<const PthStorage> storages,
                      PthContents& contents, std::vector<ReadRange>& ranges) {
  for (size_t i = 0; i < storages.size(); ++i) {
    GRAPNEL_ASSIGN_OR_RETURN(c10::Storage storage,
                             NewTensorMemory(storages[i].num_bytes));
    ranges[i].buffer = static_cast<char*>(storage.mutable_data());
    contents.storages.push_back(std::move(storage));
  }
  return absl::OkStatus();
}

bool IsNoBool(unsigned char byte) { return byte > 1; }

// Where in its storage the first element is that is no bool; nullopt if there
// is none. Every element that is looked at takes one off `*left`: the search
// ends at 0, and at a byte that the tensor may be no view of.
std::optional<int64_t> FindNoBool(const PickleTree& tree,
                                  const PthTensor& tensor,
                                  const unsigned char* bytes, int64_t* left) {
  struct Dim {
    int64_t size;
    int64_t stride;
    int64_t index;
  };
  std::vector<Dim> dims;
  const absl::Span<const PickleId> sizes = tree.children(tensor.sizes);
  for (size_t i = 0; i < sizes.size(); ++i) {
    const int64_t size = tree.int_value(sizes[i]);
    const int64_t stride = tree.int_value(tree.children(tensor.strides)[i]);
    if (size == 0) return std::nullopt;
    if (size > 1 && stride > 0) dims.push_back({size, stride, 0});
  }
  int64_t at = tensor.offset;
  for (;;) {
    if (IsNoBool(bytes[at]) || --*left <= 0) return at;
    size_t dim = dims.size();
    for (; dim > 0; --dim) {
      Dim& last = dims[dim - 1];
      at += last.stride;
      if (++last.index < last.size) break;
      at -= last.size * last.stride;
      last.index = 0;
    }
    if (dim == 0) return std::nullopt;
  }
}

// A bool is a byte, 0 or 1; what LibTorch computes from another is anything.
// Bytes that no tensor is a view of don't matter: torch.empty leaves them as
// they are.
absl::Status CheckBools(absl::Span<const PthStorage> storages,
                        const PthContents& contents) {
  std::vector<bool> is_suspect(storages.size());
  int64_t left = 64 << 20;
  for (size_t i = 0; i < storages.size(); ++i) {
    if (!storages[i].is_bool) continue;
    const auto* const bytes =
        static_cast<const unsigned char*>(contents.storages[i].data());
    is_suspect[i] = std::any_of(bytes, bytes + storages[i].num_bytes, IsNoBool);
    left += 4 * storages[i].num_bytes;
  }
  for (const PthTensor& tensor : contents.tensors) {
    if (tensor.dtype != c10::ScalarType::Bool) continue;
    if (!is_suspect[tensor.storage]) continue;
    const auto* const bytes = static_cast<const unsigned char*>(
        contents.storages[tensor.storage].data());
    const std::optional<int64_t> bad =
        FindNoBool(contents.tree, tensor, bytes, &left);
    if (!bad.has_value()) continue;
    const std::string name = DescribeStorage(
        contents, tensor.storage,
        absl::StrCat("storage ", QuotedName(contents.tree.text(
                                     storages[tensor.storage].key))));
    if (left <= 0) {
      return absl::ResourceExhaustedError(absl::StrCat(
          name, ": too many views of a storage where some bytes are no bool"));
    }
    return absl::DataLossError(absl::StrCat(name, ": element ", *bad,
                                            " of bool is ",
                                            static_cast<int>(bytes[*bad])));
  }
  return absl::OkStatus();
}

// ------------------------------------------------------------------ ZIP files

absl::StatusOr<std::string> ReadRecord(const RandomAccessFile& file,
                                       const ZipRecord& record) {
  std::string bytes;
  bytes.resize(static_cast<size_t>(record.num_bytes));
  ReadRange range{record.offset, record.num_bytes, &bytes[0]};
  GRAPNEL_RETURN_IF_ERROR(ReadRanges(file, {&range, 1}));
  GRAPNEL_RETURN_IF_ERROR(record.CheckCrc(range.crc32));
  return bytes;
}

// Whether it is one that CheckArchive or ReadZip reads.
bool IsReadFirst(absl::string_view name) {
  return name == "data.pkl" || name == "version" || name == "byteorder";
}

// The text of a small record that a writer may leave out; "" if it did.
absl::StatusOr<std::string> ReadSmallRecord(const RandomAccessFile& file,
                                            const ZipReader& zip,
                                            absl::string_view name) {
  const ZipRecord* const record = zip.Find(name);
  if (record == nullptr) return std::string();
  if (record->num_bytes > kMaxSmallRecord) {
    return Invalid(absl::StrCat(name, ": has ", record->num_bytes, " bytes"));
  }
  absl::StatusOr<std::string> text = ReadRecord(file, *record);
  if (!text.ok()) return WithContext(text.status(), name);
  return text;
}

// That this is a file of torch.save, of a kind that is read.
absl::Status CheckArchive(const RandomAccessFile& file, const ZipReader& zip) {
  const auto is_code = [](const ZipRecord& record) {
    return absl::StartsWith(record.name, "code/");
  };
  const auto records = zip.records();
  if (zip.Find("constants.pkl") != nullptr ||
      std::any_of(records.begin(), records.end(), is_code)) {
    return absl::UnimplementedError(
        "is a TorchScript archive, of torch.jit.save: weights are read from "
        "what torch.save(model.state_dict(), path) writes");
  }
  if (zip.Find("data.pkl") == nullptr) {
    return Invalid("has no data.pkl: not a file of torch.save");
  }
  GRAPNEL_RETURN_IF_ERROR(zip.CheckStored());
  GRAPNEL_ASSIGN_OR_RETURN(const std::string version,
                           ReadSmallRecord(file, zip, "version"));
  int64_t number = 0;
  if (!absl::SimpleAtoi(version, &number) || number < 1) {
    return Invalid(absl::StrCat("version: is ", QuotedName(version),
                                ", must be a number of 1 or more"));
  }
  if (number > kNewestZipVersion) {
    return absl::UnimplementedError(absl::StrCat("version: is ", number, ", ",
                                                 kNewestZipVersion,
                                                 " is the newest known"));
  }
  GRAPNEL_ASSIGN_OR_RETURN(const std::string order,
                           ReadSmallRecord(file, zip, "byteorder"));
  if (order == "big") {
    return absl::UnimplementedError("byteorder: is big, little is read");
  }
  if (!order.empty() && order != "little") {
    return Invalid(absl::StrCat("byteorder: is ", QuotedName(order)));
  }
  return absl::OkStatus();
}

absl::StatusOr<PickleId> ReadWholePickle(PickleTree& tree, PthObjects& objects,
                                         int64_t file_size,
                                         bool allow_foreign) {
  size_t end = 0;
  GRAPNEL_ASSIGN_OR_RETURN(
      const PickleId root,
      ReadPickle(tree, objects, MaxTreeMemory(file_size), &end));
  if (end != tree.source.size()) {
    return Invalid(
        absl::StrCat("ends at byte ", end, " of ", tree.source.size()));
  }
  GRAPNEL_RETURN_IF_ERROR(tree.Finish(root, allow_foreign));
  return root;
}

// Reads storages into their memory, and for their CRC all records but those
// that were checked when they were read.
absl::Status ReadData(const RandomAccessFile& file, const ZipReader& zip,
                      absl::Span<const PthStorage> storages,
                      PthContents& contents) {
  std::vector<ReadRange> ranges;
  std::vector<const ZipRecord*> records;
  for (const PthStorage& storage : storages) {
    const std::string name =
        absl::StrCat("data/", contents.tree.text(storage.key));
    const ZipRecord* const record = zip.Find(name);
    if (record == nullptr) {
      return Invalid(absl::StrCat(name, ": is missing"));
    }
    if (record->num_bytes != storage.num_bytes) {
      return Invalid(absl::StrCat(name, ": has ", record->num_bytes,
                                  " bytes, data.pkl says ", storage.num_bytes));
    }
    ranges.push_back({record->offset, record->num_bytes});
    records.push_back(record);
  }
  GRAPNEL_RETURN_IF_ERROR(Allocate(storages, contents, ranges));
  std::vector<const ZipRecord*> read = records;
  std::sort(read.begin(), read.end());
  contents.verified = true;
  for (const ZipRecord& record : zip.records()) {
    contents.verified = contents.verified && record.has_crc();
    if (std::binary_search(read.begin(), read.end(), &record)) continue;
    if (IsReadFirst(record.name)) continue;
    ranges.push_back({record.offset, record.num_bytes});
    records.push_back(&record);
  }
  GRAPNEL_RETURN_IF_ERROR(ReadRanges(file, absl::MakeSpan(ranges)));
  for (size_t i = 0; i < records.size(); ++i) {
    const absl::Status status = records[i]->CheckCrc(ranges[i].crc32);
    if (status.ok()) continue;
    return WithContext(
        status, i < storages.size()
                    ? DescribeStorage(contents, static_cast<uint32_t>(i),
                                      records[i]->name)
                    : absl::StrCat("record ", QuotedName(records[i]->name)));
  }
  return absl::OkStatus();
}

absl::Status ReadZip(const RandomAccessFile& file, const PthOptions& options,
                     PthContents& contents) {
  GRAPNEL_ASSIGN_OR_RETURN(const ZipReader zip, ZipReader::Open(file));
  GRAPNEL_RETURN_IF_ERROR(CheckArchive(file, zip));
  const ZipRecord& pickle = *zip.Find("data.pkl");
  if (pickle.num_bytes > kMaxPickleSize) {
    return absl::ResourceExhaustedError(
        absl::StrCat("data.pkl: has ", pickle.num_bytes, " bytes"));
  }
  absl::StatusOr<std::string> bytes = ReadRecord(file, pickle);
  if (!bytes.ok()) return WithContext(bytes.status(), "data.pkl");
  contents.tree.source = *std::move(bytes);
  PthObjects objects(contents.tree, options.allow_foreign, file.size());
  absl::StatusOr<PickleId> root = ReadWholePickle(
      contents.tree, objects, file.size(), options.allow_foreign);
  if (absl::IsOutOfRange(root.status())) {
    root = Invalid(root.status().message());  // The record is all there is.
  }
  if (!root.ok()) return WithContext(root.status(), "data.pkl");
  contents.root = *root;
  contents.tensors = objects.TakeTensors();
  GRAPNEL_RETURN_IF_ERROR(ReadData(file, zip, objects.storages(), contents));
  return CheckBools(objects.storages(), contents);
}

// --------------------------------------------------------------- legacy files

// The pickles of a legacy file, one behind the other: magic number, version, a
// description of the system, the values, and the keys of the storages whose
// bytes follow.
struct LegacyPickles {
  PickleId root = 0;
  PickleId keys = 0;
  size_t end = 0;
};

absl::StatusOr<LegacyPickles> ReadPickles(PickleTree& tree, PthObjects& objects,
                                          int64_t file_size) {
  LegacyPickles pickles;
  pickles.end = kLegacyMagic.size();
  const auto next = [&] {
    return ReadPickle(tree, objects, MaxTreeMemory(file_size), &pickles.end);
  };
  GRAPNEL_ASSIGN_OR_RETURN(const PickleId version, next());
  if (tree.kind(version) != PickleKind::kInt ||
      tree.int_value(version) != kLegacyVersion) {
    return Invalid(absl::StrCat("version is ", tree.int_value(version),
                                ", must be ", kLegacyVersion));
  }
  GRAPNEL_ASSIGN_OR_RETURN(const PickleId system, next());
  const absl::Span<const PickleId> entries = tree.children(system);
  for (size_t i = 0; i + 1 < entries.size(); i += 2) {
    if (tree.text(entries[i]) == "little_endian" &&
        !tree.bool_value(entries[i + 1])) {
      return absl::UnimplementedError(
          "was written on a big-endian machine, little-endian is read");
    }
  }
  GRAPNEL_ASSIGN_OR_RETURN(pickles.root, next());
  GRAPNEL_ASSIGN_OR_RETURN(pickles.keys, next());
  if (tree.kind(pickles.keys) != PickleKind::kList) {
    return Invalid("has no list of storages");
  }
  return pickles;
}

// Where the storages' bytes lie: each has its number of elements in front.
absl::StatusOr<std::vector<ReadRange>> FindLegacyStorages(
    const RandomAccessFile& file, const LegacyPickles& pickles,
    const PthObjects& objects, const PickleTree& tree) {
  const absl::Span<const PickleId> keys = tree.children(pickles.keys);
  const std::vector<PthStorage>& storages = objects.storages();
  if (keys.size() != storages.size()) {
    return Invalid(absl::StrCat("has ", keys.size(), " storages, its values ",
                                storages.size()));
  }
  std::vector<ReadRange> ranges(storages.size());
  auto at = static_cast<int64_t>(pickles.end);
  for (const PickleId key : keys) {
    const std::string name =
        absl::StrCat("storage ", QuotedName(tree.text(key)));
    const std::optional<uint32_t> index = objects.StorageOf(tree.text(key));
    if (!index.has_value()) {
      return Invalid(absl::StrCat(name, ": is of no tensor"));
    }
    ReadRange& range = ranges[*index];
    if (range.offset != 0) return Invalid(absl::StrCat(name, ": comes twice"));
    const PthStorage& storage = storages[*index];
    int64_t count = 0;
    if (file.size() - at < static_cast<int64_t>(sizeof(count))) {
      return absl::DataLossError(absl::StrCat(
          name, ": is behind the end of the file: that is cut off"));
    }
    GRAPNEL_RETURN_IF_ERROR(
        file.Read(at, sizeof(count), reinterpret_cast<char*>(&count)));
    at += static_cast<int64_t>(sizeof(count));
    if (count != storage.num_bytes / storage.item_size) {
      return Invalid(absl::StrCat(name, ": has ", count, " elements, must be ",
                                  storage.num_bytes / storage.item_size));
    }
    if (storage.num_bytes > file.size() - at) {
      return absl::DataLossError(absl::StrCat(
          name, ": ends behind the end of the file: that is cut off"));
    }
    range.offset = at;
    range.num_bytes = storage.num_bytes;
    at += storage.num_bytes;
  }
  if (at != file.size()) {
    return absl::DataLossError(
        absl::StrCat(file.size() - at,
                     " bytes behind the last storage, which ends at ", at));
  }
  return ranges;
}

// How long the pickles are isn't written anywhere: they are tried in ever
// larger pieces of the file, and at last in one of their size, so that no more
// is kept.
absl::StatusOr<LegacyPickles> FindPickles(
    const RandomAccessFile& file, const PthOptions& options, PickleTree& tree,
    std::unique_ptr<PthObjects>& objects) {
  const int64_t most = std::min(file.size(), kMaxPickleSize);
  int64_t window = std::min(most, kFirstWindow);
  for (;;) {
    tree = PickleTree();
    tree.source.resize(static_cast<size_t>(window));
    GRAPNEL_RETURN_IF_ERROR(file.Read(0, window, &tree.source[0]));
    objects =
        std::make_unique<PthObjects>(tree, options.allow_foreign, file.size());
    absl::StatusOr<LegacyPickles> pickles =
        ReadPickles(tree, *objects, file.size());
    if (absl::IsOutOfRange(pickles.status())) {
      if (window == most) {
        return absl::DataLossError(
            absl::StrCat(pickles.status().message(), ": cut off"));
      }
      window = window > most / 2 ? most : 2 * window;
      continue;
    }
    if (!pickles.ok() || window <= kFirstWindow ||
        window == static_cast<int64_t>(pickles->end)) {
      return pickles;
    }
    window = static_cast<int64_t>(pickles->end);
  }
}

absl::Status ReadLegacy(const RandomAccessFile& file, const PthOptions& options,
                        PthContents& contents) {
  std::unique_ptr<PthObjects> objects;
  GRAPNEL_ASSIGN_OR_RETURN(const LegacyPickles pickles,
                           FindPickles(file, options, contents.tree, objects));
  GRAPNEL_RETURN_IF_ERROR(
      contents.tree.Finish(pickles.root, options.allow_foreign));
  contents.root = pickles.root;
  contents.tensors = objects->TakeTensors();
  GRAPNEL_ASSIGN_OR_RETURN(
      std::vector<ReadRange> ranges,
      FindLegacyStorages(file, pickles, *objects, contents.tree));
  GRAPNEL_RETURN_IF_ERROR(Allocate(objects->storages(), contents, ranges));
  GRAPNEL_RETURN_IF_ERROR(ReadRanges(file, absl::MakeSpan(ranges)));
  return CheckBools(objects->storages(), contents);
}

// ------------------------------------------------------------------ all files

// The tar files of torch before 0.1.10 say so in the format's usual place; some
// are of an older tar, and begin with the name of their first member.
bool IsTar(absl::string_view head) {
  constexpr size_t kUstarAt = 257;
  if (head.size() < kUstarAt + 5) return false;
  const absl::string_view name = head.substr(0, head.find('\0'));
  return head.substr(kUstarAt, 5) == "ustar" || name == "sys_info" ||
         name == "storages" || name == "tensors" || name == "pickle";
}

absl::Status ReadContents(const RandomAccessFile& file,
                          const PthOptions& options, PthContents& contents) {
  constexpr int64_t kHeadSize = 512;
  std::string head;
  head.resize(static_cast<size_t>(std::min(file.size(), kHeadSize)));
  GRAPNEL_RETURN_IF_ERROR(
      file.Read(0, static_cast<int64_t>(head.size()), &head[0]));
  if (absl::StartsWith(head, kZipMagic))
    return ReadZip(file, options, contents);
  if (absl::StartsWith(head, kLegacyMagic)) {
    return ReadLegacy(file, options, contents);
  }
  if (IsTar(head)) {
    return absl::UnimplementedError(
        "is a tar file, of torch before 0.1.10: load it there, and save it "
        "again");
  }
  if (LooksLikePth(head)) {
    return absl::UnimplementedError(absl::StrCat(
        "is of torch.save with pickle protocol ",
        static_cast<int>(static_cast<unsigned char>(head[kProtocolAt])),
        ", must be 2, which torch.save takes by itself"));
  }
  return Invalid("is not a file of torch.save");
}

}  // namespace

// --------------------------------------------------------------------- values

PthValue::Kind PthValue::kind() const {
  const PickleKind kind = contents_->tree.kind(id_);
  if (kind == PickleKind::kGlobal || kind == PickleKind::kStorage) {
    return Kind::kOpaque;
  }
  static_assert(
      static_cast<int>(PickleKind::kOpaque) == static_cast<int>(Kind::kOpaque),
      "the first kinds are the same");
  return static_cast<Kind>(kind);
}

absl::string_view PthValue::type_name() const {
  return contents_->tree.type_name(id_);
}

bool PthValue::bool_value() const {
  return kind() == Kind::kBool && contents_->tree.bool_value(id_);
}

int64_t PthValue::int_value() const {
  return kind() == Kind::kInt || kind() == Kind::kBool
             ? contents_->tree.int_value(id_)
             : 0;
}

double PthValue::float_value() const {
  return contents_->tree.float_value(id_);
}

double PthValue::imaginary_value() const {
  return kind() == Kind::kComplex ? contents_->tree.complex_value(id_).second
                                  : 0;
}

absl::string_view PthValue::string_value() const {
  return contents_->tree.text(id_);
}

at::Tensor PthValue::tensor() const {
  if (kind() != Kind::kTensor) return at::Tensor();
  const PickleTree& tree = contents_->tree;
  const PthTensor& view = contents_->tensors[tree.number(id_)];
  const auto ints = [&tree](PickleId tuple) {
    std::vector<int64_t> values;
    for (const PickleId item : tree.children(tuple)) {
      values.push_back(tree.int_value(item));
    }
    return values;
  };
  // What at::empty and set_ come to, but for any dtype.
  auto impl = c10::make_intrusive<c10::TensorImpl>(
      c10::Storage(contents_->storages[view.storage]),
      c10::DispatchKeySet(c10::DispatchKey::CPU),
      c10::scalarTypeToTypeMeta(view.dtype));
  impl->set_sizes_and_strides(ints(view.sizes), ints(view.strides),
                              view.offset);
  at::Tensor tensor(std::move(impl));
  if (view.conj) tensor._set_conj(true);
  if (view.neg) tensor._set_neg(true);
  return tensor;
}

int64_t PthValue::size() const {
  const auto children =
      static_cast<int64_t>(contents_->tree.children(id_).size());
  return kind() == Kind::kDict ? children / 2 : children;
}

PthValue PthValue::item(int64_t i) const {
  return PthValue(contents_, contents_->tree.children(id_)[i]);
}

PthValue PthValue::key(int64_t i) const { return item(2 * i); }

PthValue PthValue::value(int64_t i) const { return item(2 * i + 1); }

std::optional<PthValue> PthValue::Find(absl::string_view key) const {
  if (kind() != Kind::kDict) return std::nullopt;
  for (int64_t i = 0; i < size(); ++i) {
    const PthValue candidate = this->key(i);
    if (candidate.kind() == Kind::kString && candidate.string_value() == key) {
      return value(i);
    }
  }
  return std::nullopt;
}

PthFile::PthFile(std::unique_ptr<const PthContents> contents)
    : contents_(std::move(contents)) {}

PthFile::PthFile(PthFile&&) = default;
PthFile& PthFile::operator=(PthFile&&) = default;
PthFile::~PthFile() = default;

absl::StatusOr<PthFile> PthFile::Read(Env& env, const std::string& path,
                                      const PthOptions& options) {
  GRAPNEL_ASSIGN_OR_RETURN(const std::unique_ptr<RandomAccessFile> file,
                           env.NewRandomAccessFile(path));
  auto contents = std::make_unique<PthContents>();
  const absl::Status status = CatchOutOfMemory(
      "values", [&] { return ReadContents(*file, options, *contents); });
  if (!status.ok()) return WithContext(status, path);
  return PthFile(std::move(contents));
}

PthValue PthFile::root() const {
  return PthValue(contents_.get(), contents_->root);
}

bool PthFile::verified() const { return contents_->verified; }

bool LooksLikePth(absl::string_view first_bytes) {
  if (absl::StartsWith(first_bytes, kZipMagic) ||
      absl::StartsWith(first_bytes, kLegacyMagic)) {
    return true;
  }
  // Newer protocols: the magic number, in protocols 4 and 5 behind the size of
  // a frame. A safetensors file may begin with the same two bytes, not with
  // more.
  constexpr absl::string_view kNumber = kLegacyMagic.substr(2, 4);
  if (first_bytes.size() < 2 || first_bytes[0] != kLegacyMagic[0]) return false;
  const char protocol = first_bytes[kProtocolAt];
  const absl::string_view rest = first_bytes.substr(2);
  return (protocol == 3 && absl::StartsWith(rest, kNumber)) ||
         ((protocol == 4 || protocol == 5) && absl::StartsWith(rest, "\x95") &&
          absl::StartsWith(rest.substr(std::min<size_t>(rest.size(), 9)),
                           kNumber));
}

}  // namespace io
}  // namespace grapnel
