#include "grapnel/io/safetensors.h"

#include <algorithm>
#include <cstddef>
#include <limits>
#include <memory>
#include <tuple>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "c10/core/ScalarType.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/base/utf8.h"
#include "grapnel/io/digest.h"
#include "grapnel/io/out_of_memory.h"

namespace grapnel {
namespace io {
namespace {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
              "tensors are stored as they are in memory, little-endian");

constexpr int64_t kMaxHeaderSize = 100'000'000;  // The format's own limit.
constexpr size_t kLengthSize = 8;
constexpr size_t kMaxNameSize = 4096;
constexpr size_t kMaxDims = 64;  // LibTorch's iterators have no more.
constexpr int64_t kChunkSize = 1 << 20;
constexpr char kMetadataKey[] = "__metadata__";

struct Dtype {
  const char* name;
  c10::ScalarType type;
  int64_t size;
};

constexpr Dtype kDtypes[] = {
    {"BOOL", c10::ScalarType::Bool, 1},
    {"U8", c10::ScalarType::Byte, 1},
    {"I8", c10::ScalarType::Char, 1},
    {"F8_E4M3", c10::ScalarType::Float8_e4m3fn, 1},
    {"F8_E5M2", c10::ScalarType::Float8_e5m2, 1},
    {"I16", c10::ScalarType::Short, 2},
    {"U16", c10::ScalarType::UInt16, 2},
    {"F16", c10::ScalarType::Half, 2},
    {"BF16", c10::ScalarType::BFloat16, 2},
    {"I32", c10::ScalarType::Int, 4},
    {"U32", c10::ScalarType::UInt32, 4},
    {"F32", c10::ScalarType::Float, 4},
    {"I64", c10::ScalarType::Long, 8},
    {"U64", c10::ScalarType::UInt64, 8},
    {"F64", c10::ScalarType::Double, 8},
};

const Dtype* FindDtype(absl::string_view name) {
  for (const Dtype& dtype : kDtypes) {
    if (name == dtype.name) return &dtype;
  }
  return nullptr;
}

const Dtype* FindDtype(c10::ScalarType type) {
  for (const Dtype& dtype : kDtypes) {
    if (type == dtype.type) return &dtype;
  }
  return nullptr;
}

// A name for a message: nothing in it that a terminal would obey.
std::string Quoted(absl::string_view name) {
  std::string quoted = "\"";
  for (const char c : name.substr(0, 200)) {
    quoted += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '?' : c;
  }
  quoted = EscapeToUtf8(quoted);
  return quoted + (name.size() > 200 ? "...\"" : "\"");
}

absl::Status CheckName(absl::string_view name) {
  const auto error = [&](absl::string_view what) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor ", Quoted(name), ": name ", what));
  };
  if (name.empty()) return error("is empty");
  if (name.size() > kMaxNameSize) {
    return error(absl::StrCat("has more than ", kMaxNameSize, " bytes"));
  }
  if (name == kMetadataKey) return error("is reserved");
  for (const char c : name) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      return error("holds a control character");
    }
  }
  if (!IsUtf8(name)) return error("isn't UTF-8");
  for (const absl::string_view part : absl::StrSplit(name, '/')) {
    if (part == "..") return error("holds \"..\"");
  }
  return absl::OkStatus();
}

// Bytes of a tensor. Zero dimensions don't hide an overflow: LibTorch computes
// strides from the others.
absl::StatusOr<int64_t> ByteSize(const std::vector<int64_t>& shape,
                                 int64_t item_size) {
  int64_t size = item_size;
  bool empty = false;
  for (const int64_t dim : shape) {
    if (dim == 0) {
      empty = true;
    } else if (__builtin_mul_overflow(size, dim, &size)) {
      return absl::InvalidArgumentError(
          absl::StrCat("shape [", absl::StrJoin(shape, ", "), "] overflows"));
    }
  }
  return empty ? 0 : size;
}

// Reads the JSON of a header, of which only one shape is right, without
// recursion. Positions in messages are bytes of the header.
class HeaderParser {
 public:
  explicit HeaderParser(absl::string_view text) : text_(text) {}

  // Offsets of the entries are those of the header, without the header's size.
  absl::StatusOr<std::vector<SafetensorsEntry>> Parse() {
    if (text_.empty() || text_[0] != '{') return Error("must begin with '{'");
    std::vector<SafetensorsEntry> entries;
    absl::flat_hash_set<std::string> names;
    GRAPNEL_RETURN_IF_ERROR(Object([&](std::string key) {
      if (!names.insert(key).second) {
        return Error(absl::StrCat("key ", Quoted(key), " comes twice"));
      }
      if (key == kMetadataKey) return Metadata();
      GRAPNEL_RETURN_IF_ERROR(CheckName(key));
      SafetensorsEntry entry;
      entry.name = std::move(key);
      GRAPNEL_RETURN_IF_ERROR(WithContext(
          Entry(entry), absl::StrCat("tensor ", Quoted(entry.name))));
      entries.push_back(std::move(entry));
      return absl::OkStatus();
    }));
    while (at_ < text_.size() && text_[at_] == ' ') ++at_;
    if (at_ != text_.size()) return Error("text after the object");
    return entries;
  }

 private:
  absl::Status Error(absl::string_view what) const {
    return absl::InvalidArgumentError(
        absl::StrCat("header byte ", at_, ": ", what));
  }

  void SkipSpace() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n' ||
                                  text_[at_] == '\r' || text_[at_] == '\t')) {
      ++at_;
    }
  }

  // Takes `c`, with space in front, if it comes next.
  bool Take(char c) {
    SkipSpace();
    if (at_ == text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }

  absl::Status Expect(char c) {
    if (Take(c)) return absl::OkStatus();
    return Error(absl::StrCat("expected '", std::string(1, c), "'"));
  }

  // An object; calls `member` with each key, which reads the value.
  template <typename F>
  absl::Status Object(F member) {
    GRAPNEL_RETURN_IF_ERROR(Expect('{'));
    if (Take('}')) return absl::OkStatus();
    do {
      std::string key;
      GRAPNEL_RETURN_IF_ERROR(String(&key));
      GRAPNEL_RETURN_IF_ERROR(Expect(':'));
      GRAPNEL_RETURN_IF_ERROR(member(std::move(key)));
    } while (Take(','));
    return Expect('}');
  }

  absl::Status Metadata() {
    absl::flat_hash_set<std::string> keys;
    return Object([&](std::string key) {
      if (!keys.insert(key).second) {
        return Error(absl::StrCat("metadata ", Quoted(key), " comes twice"));
      }
      std::string value;
      return String(&value);
    });
  }

  absl::Status Entry(SafetensorsEntry& entry) {
    bool has_dtype = false, has_shape = false, has_offsets = false;
    std::vector<int64_t> offsets;
    GRAPNEL_RETURN_IF_ERROR(Object([&](std::string key) {
      bool* const seen = key == "dtype"          ? &has_dtype
                         : key == "shape"        ? &has_shape
                         : key == "data_offsets" ? &has_offsets
                                                 : nullptr;
      if (seen == nullptr) {
        return Error(absl::StrCat("unknown field ", Quoted(key)));
      }
      if (std::exchange(*seen, true)) {
        return Error(absl::StrCat(key, " comes twice"));
      }
      if (seen == &has_dtype) return String(&entry.dtype);
      return Integers(seen == &has_shape ? &entry.shape : &offsets);
    }));
    if (!has_dtype) return Error("dtype is missing");
    if (!has_shape) return Error("shape is missing");
    if (!has_offsets) return Error("data_offsets is missing");
    const Dtype* const dtype = FindDtype(entry.dtype);
    if (dtype == nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat("dtype ", Quoted(entry.dtype), " is unknown"));
    }
    if (offsets.size() != 2 || offsets[0] > offsets[1]) {
      return absl::InvalidArgumentError(
          absl::StrCat("data_offsets must be a begin and an end, are [",
                       absl::StrJoin(offsets, ", "), "]"));
    }
    entry.file_offset = offsets[0];
    entry.num_bytes = offsets[1] - offsets[0];
    GRAPNEL_ASSIGN_OR_RETURN(const int64_t size,
                             ByteSize(entry.shape, dtype->size));
    if (size != entry.num_bytes) {
      return absl::InvalidArgumentError(absl::StrCat(
          "shape [", absl::StrJoin(entry.shape, ", "), "] of ", entry.dtype,
          " has ", size, " bytes, data_offsets say ", entry.num_bytes));
    }
    return absl::OkStatus();
  }

  absl::Status Integers(std::vector<int64_t>* values) {
    GRAPNEL_RETURN_IF_ERROR(Expect('['));
    if (Take(']')) return absl::OkStatus();
    do {
      if (values->size() == kMaxDims) {
        return Error(absl::StrCat("more than ", kMaxDims, " numbers"));
      }
      values->emplace_back();
      GRAPNEL_RETURN_IF_ERROR(Integer(&values->back()));
    } while (Take(','));
    return Expect(']');
  }

  absl::Status Integer(int64_t* value) {
    SkipSpace();
    const size_t begin = at_;
    *value = 0;
    while (at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9') {
      if (__builtin_mul_overflow(*value, 10, value) ||
          __builtin_add_overflow(*value, text_[at_] - '0', value)) {
        return Error("number is too large");
      }
      ++at_;
    }
    if (at_ == begin) return Error("expected a whole number >= 0");
    if (text_[begin] == '0' && at_ > begin + 1) {
      return Error("number begins with 0");
    }
    return absl::OkStatus();
  }

  absl::Status String(std::string* value) {
    GRAPNEL_RETURN_IF_ERROR(Expect('"'));
    while (at_ < text_.size() && text_[at_] != '"') {
      const char c = text_[at_];
      if (static_cast<unsigned char>(c) < 0x20) {
        return Error("control character in a string");
      }
      if (c == '\\') {
        GRAPNEL_RETURN_IF_ERROR(Escape(value));
      } else {
        *value += c;
        ++at_;
      }
    }
    GRAPNEL_RETURN_IF_ERROR(Expect('"'));
    if (!IsUtf8(*value)) return Error("string isn't UTF-8");
    return absl::OkStatus();
  }

  absl::Status Escape(std::string* value) {
    constexpr absl::string_view kShort = "\"\\/bfnrt";
    constexpr absl::string_view kMeaning = "\"\\/\b\f\n\r\t";
    ++at_;
    const char c = at_ < text_.size() ? text_[at_] : '\0';
    const size_t i = kShort.find(c);
    if (i != absl::string_view::npos) {
      *value += kMeaning[i];
      ++at_;
      return absl::OkStatus();
    }
    uint32_t code;
    GRAPNEL_RETURN_IF_ERROR(Utf16Unit(&code));
    if (code >> 10 == 0x36) {  // The first half of a pair.
      uint32_t low = 0;
      if (at_ < text_.size() && text_[at_] == '\\') {
        ++at_;
        GRAPNEL_RETURN_IF_ERROR(Utf16Unit(&low));
      }
      if (low >> 10 != 0x37) return Error("half a surrogate pair");
      code = 0x10000 + ((code & 0x3ff) << 10) + (low & 0x3ff);
    }
    // A lone second half makes bytes that IsUtf8 refuses.
    if (code < 0x80) {
      *value += static_cast<char>(code);
      return absl::OkStatus();
    }
    const int more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    constexpr uint32_t kLead[] = {0, 0xc0, 0xe0, 0xf0};
    *value += static_cast<char>(kLead[more] | code >> 6 * more);
    for (int k = more - 1; k >= 0; --k) {
      *value += static_cast<char>(0x80 | (code >> 6 * k & 0x3f));
    }
    return absl::OkStatus();
  }

  // "u00e9", behind the backslash.
  absl::Status Utf16Unit(uint32_t* unit) {
    const absl::string_view rest = text_.substr(std::min(at_, text_.size()));
    if (rest.size() < 5 || rest[0] != 'u') return Error("unknown escape");
    *unit = 0;
    for (const char c : rest.substr(1, 4)) {
      const absl::string_view digits = "0123456789abcdef";
      const size_t digit = digits.find(c >= 'A' && c <= 'F' ? c + 32 : c);
      if (digit == absl::string_view::npos) return Error("unknown escape");
      *unit = *unit << 4 | static_cast<uint32_t>(digit);
    }
    at_ += 5;
    return absl::OkStatus();
  }

  const absl::string_view text_;
  size_t at_ = 0;
};

struct Header {
  std::string bytes;  // Length and text.
  std::vector<SafetensorsEntry> entries;
};

// The entries' bytes must follow each other from the header to the file's end.
absl::Status CheckCoverage(std::vector<SafetensorsEntry>& entries,
                           int64_t data_size) {
  std::sort(entries.begin(), entries.end(),
            [](const SafetensorsEntry& a, const SafetensorsEntry& b) {
              return std::tie(a.file_offset, a.num_bytes, a.name) <
                     std::tie(b.file_offset, b.num_bytes, b.name);
            });
  int64_t end = 0;
  for (const SafetensorsEntry& entry : entries) {
    if (entry.file_offset != end) {
      return absl::InvalidArgumentError(absl::StrCat(
          "tensor ", Quoted(entry.name), ": begins at ", entry.file_offset,
          entry.file_offset < end
              ? ", overlaps the one before, which ends at "
              : ", leaves a hole after the one that ends at ",
          end));
    }
    end += entry.num_bytes;
    if (end > data_size) {
      return absl::DataLossError(absl::StrCat(
          "tensor ", Quoted(entry.name), ": ends at byte ", end, " of ",
          data_size, " bytes of data: the file is cut off"));
    }
  }
  if (end != data_size) {
    return absl::DataLossError(absl::StrCat(
        data_size - end, " bytes behind the last tensor, which ends at ", end));
  }
  return absl::OkStatus();
}

// Does the work of ReadHeader, below. Throws where memory is short.
absl::StatusOr<Header> TryReadHeader(const RandomAccessFile& file) {
  Header header;
  if (file.size() < static_cast<int64_t>(kLengthSize)) {
    return absl::InvalidArgumentError(
        absl::StrCat("is not a safetensors file: has ", file.size(), " bytes"));
  }
  unsigned char length[kLengthSize];
  GRAPNEL_RETURN_IF_ERROR(
      file.Read(0, kLengthSize, reinterpret_cast<char*>(length)));
  uint64_t size = 0;
  for (size_t i = kLengthSize; i-- > 0;) size = size << 8 | length[i];
  if (size > kMaxHeaderSize) {
    return absl::InvalidArgumentError(
        absl::StrCat("is not a safetensors file: header of ", size,
                     " bytes, may have ", kMaxHeaderSize));
  }
  const int64_t begin = static_cast<int64_t>(kLengthSize + size);
  if (begin > file.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("header of ", size, " bytes in a file of ", file.size(),
                     ": cut off, or not a safetensors file"));
  }
  header.bytes.resize(static_cast<size_t>(begin));
  GRAPNEL_RETURN_IF_ERROR(file.Read(0, begin, &header.bytes[0]));
  const absl::string_view text =
      absl::string_view(header.bytes).substr(kLengthSize);
  GRAPNEL_ASSIGN_OR_RETURN(header.entries, HeaderParser(text).Parse());
  GRAPNEL_RETURN_IF_ERROR(CheckCoverage(header.entries, file.size() - begin));
  for (SafetensorsEntry& entry : header.entries) entry.file_offset += begin;
  return header;
}

absl::StatusOr<Header> ReadHeader(const RandomAccessFile& file,
                                  const std::string& path) {
  absl::StatusOr<Header> header =
      CatchOutOfMemory("header", [&] { return TryReadHeader(file); });
  if (!header.ok()) return WithContext(header.status(), path);
  return header;
}

absl::Status CheckBools(const char* bytes, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    if (static_cast<unsigned char>(bytes[i]) > 1) {
      return absl::DataLossError(
          absl::StrCat("element ", i, " of BOOL is ",
                       static_cast<int>(static_cast<unsigned char>(bytes[i]))));
    }
  }
  return absl::OkStatus();
}

// Reads one tensor; sets the entry's digest and goes on with the file's if
// `digest` isn't null.
absl::StatusOr<at::Tensor> ReadTensor(const RandomAccessFile& file,
                                      SafetensorsEntry& entry,
                                      Xxh3Hasher128* digest) {
  const Dtype* const dtype = FindDtype(entry.dtype);
  GRAPNEL_RET_CHECK(dtype != nullptr);
  at::Tensor tensor;
  const absl::Status allocated = CatchAsStatus([&] {
    tensor = ops::empty(entry.shape, dtype->type);
    return absl::OkStatus();
  });
  if (!allocated.ok()) {  // The shape was checked: it is the memory.
    return absl::ResourceExhaustedError(absl::StrCat(
        "no memory for ", entry.num_bytes, " bytes: ", allocated.message()));
  }
  GRAPNEL_RET_CHECK(static_cast<int64_t>(tensor.nbytes()) == entry.num_bytes);
  char* const bytes = static_cast<char*>(tensor.data_ptr());
  Xxh3Hasher64 tensor_digest;
  for (int64_t at = 0; at < entry.num_bytes; at += kChunkSize) {
    // In pieces that are still in the cache when they are hashed.
    const int64_t n = std::min(kChunkSize, entry.num_bytes - at);
    GRAPNEL_RETURN_IF_ERROR(file.Read(entry.file_offset + at, n, bytes + at));
    if (digest == nullptr) continue;
    tensor_digest.Update({bytes + at, static_cast<size_t>(n)});
    digest->Update({bytes + at, static_cast<size_t>(n)});
  }
  if (digest != nullptr) entry.xxh3_64 = tensor_digest.Digest();
  if (dtype->type == c10::ScalarType::Bool) {
    GRAPNEL_RETURN_IF_ERROR(CheckBools(bytes, entry.num_bytes));
  }
  return tensor;
}

// A tensor that is to be written.
struct Item {
  const NamedTensor* source;
  const Dtype* dtype;
};

absl::StatusOr<Item> CheckTensor(const NamedTensor& named) {
  GRAPNEL_RETURN_IF_ERROR(CheckName(named.name));
  const auto error = [&](absl::string_view what) {
    return absl::InvalidArgumentError(absl::StrCat(
        "tensor ", Quoted(named.name), ": safetensors has no ", what));
  };
  const at::Tensor& tensor = named.tensor;
  if (!tensor.defined()) return error("undefined tensors");
  if (tensor.layout() != c10::kStrided || tensor.is_nested()) {
    return error("sparse or nested tensors");
  }
  if (tensor.is_meta()) return error("tensors without data");
  const Dtype* const dtype = FindDtype(tensor.scalar_type());
  if (dtype == nullptr) {
    return error(absl::StrCat("dtype ", c10::toString(tensor.scalar_type())));
  }
  if (tensor.sizes().size() > kMaxDims) {
    return error(absl::StrCat("more than ", kMaxDims, " dimensions"));
  }
  return Item{&named, dtype};
}

// `text` in JSON's quotes. Names have no control characters.
std::string JsonString(absl::string_view text) {
  std::string json = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') json += '\\';
    json += c;
  }
  return json + '"';
}

// The header, padded; sets the entries' offsets.
std::string MakeHeader(std::vector<SafetensorsEntry>& entries) {
  std::string text =
      absl::StrCat("{\"", kMetadataKey, "\":{\"format\":\"pt\"}");
  int64_t end = 0;
  for (SafetensorsEntry& entry : entries) {
    entry.file_offset = end;
    end += entry.num_bytes;
    absl::StrAppend(&text, ",", JsonString(entry.name), ":{\"dtype\":\"",
                    entry.dtype, "\",\"shape\":[",
                    absl::StrJoin(entry.shape, ","), "],\"data_offsets\":[",
                    entry.file_offset, ",", end, "]}");
  }
  text += '}';
  const size_t alignment =
      static_cast<int64_t>(text.size()) + end > (1 << 20) ? 4096 : 64;
  while ((kLengthSize + text.size()) % alignment != 0) text += ' ';
  std::string bytes;
  for (size_t i = 0; i < kLengthSize; ++i) {
    bytes += static_cast<char>(static_cast<uint64_t>(text.size()) >> 8 * i);
  }
  bytes += text;
  for (SafetensorsEntry& entry : entries) {
    entry.file_offset += static_cast<int64_t>(bytes.size());
  }
  return bytes;
}

absl::Status WriteTensor(WritableFile& file, const at::Tensor& tensor,
                         SafetensorsEntry& entry, Xxh3Hasher128& digest) {
  at::Tensor plain;
  GRAPNEL_RETURN_IF_ERROR(CatchAsStatus([&] {
    plain = tensor.detach().to(at::kCPU).resolve_neg().contiguous();
    return absl::OkStatus();
  }));
  GRAPNEL_RET_CHECK(static_cast<int64_t>(plain.nbytes()) == entry.num_bytes);
  absl::string_view rest(static_cast<const char*>(plain.const_data_ptr()),
                         plain.nbytes());
  Xxh3Hasher64 tensor_digest;
  while (!rest.empty()) {
    const absl::string_view chunk = rest.substr(0, kChunkSize);
    tensor_digest.Update(chunk);
    digest.Update(chunk);
    GRAPNEL_RETURN_IF_ERROR(file.Append(chunk));
    rest.remove_prefix(chunk.size());
  }
  entry.xxh3_64 = tensor_digest.Digest();
  return absl::OkStatus();
}

absl::Status WriteAll(Env& env, const std::string& path,
                      const std::string& header, const std::vector<Item>& items,
                      SafetensorsFile& result) {
  GRAPNEL_ASSIGN_OR_RETURN(std::unique_ptr<WritableFile> file,
                           env.NewWritableFile(path));
  Xxh3Hasher128 digest;
  digest.Update(header);
  GRAPNEL_RETURN_IF_ERROR(file->Append(header));
  for (size_t i = 0; i < items.size(); ++i) {
    GRAPNEL_RETURN_IF_ERROR(WithContext(
        WriteTensor(*file, items[i].source->tensor, result.entries[i], digest),
        absl::StrCat("tensor ", Quoted(items[i].source->name))));
  }
  result.xxh3_128 = digest.Digest();
  GRAPNEL_RETURN_IF_ERROR(file->Sync());
  return file->Close();
}

}  // namespace

absl::StatusOr<SafetensorsFile> WriteSafetensors(Env& env,
                                                 const std::string& path,
                                                 const TensorMap& tensors) {
  std::vector<Item> items;
  for (const NamedTensor& named : tensors) {
    absl::StatusOr<Item> item = CheckTensor(named);
    if (!item.ok()) return WithContext(item.status(), path);
    items.push_back(*item);
  }
  std::sort(items.begin(), items.end(), [](const Item& a, const Item& b) {
    return std::tie(b.dtype->size, a.source->name) <
           std::tie(a.dtype->size, b.source->name);
  });
  SafetensorsFile result;
  for (const Item& item : items) {
    SafetensorsEntry entry;
    entry.name = item.source->name;
    entry.dtype = item.dtype->name;
    entry.shape = item.source->tensor.sizes().vec();
    entry.num_bytes = item.source->tensor.numel() * item.dtype->size;
    result.num_bytes += entry.num_bytes;
    result.entries.push_back(std::move(entry));
  }
  const std::string header = MakeHeader(result.entries);
  result.num_bytes += static_cast<int64_t>(header.size());
  if (header.size() > kMaxHeaderSize) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": header of ", header.size(), " bytes, may have ",
                     kMaxHeaderSize));
  }
  const absl::Status status = WriteAll(env, path, header, items, result);
  if (!status.ok()) {
    env.DeleteFile(path).IgnoreError();  // The first error is the cause.
    return status;
  }
  return result;
}

absl::StatusOr<TensorMap> ReadSafetensors(Env& env, const std::string& path) {
  GRAPNEL_ASSIGN_OR_RETURN(std::unique_ptr<RandomAccessFile> file,
                           env.NewRandomAccessFile(path));
  return ReadSafetensors(*file, path, nullptr);
}

absl::StatusOr<TensorMap> ReadSafetensors(const RandomAccessFile& file,
                                          const std::string& path,
                                          SafetensorsFile* read) {
  GRAPNEL_ASSIGN_OR_RETURN(Header header, ReadHeader(file, path));
  Xxh3Hasher128 digest;
  digest.Update(header.bytes);
  TensorMap tensors;
  for (SafetensorsEntry& entry : header.entries) {
    absl::StatusOr<at::Tensor> tensor =
        ReadTensor(file, entry, read == nullptr ? nullptr : &digest);
    if (!tensor.ok()) {
      return WithContext(tensor.status(),
                         absl::StrCat(path, ": tensor ", Quoted(entry.name)));
    }
    GRAPNEL_RETURN_IF_ERROR(tensors.Add(entry.name, *std::move(tensor)));
  }
  if (read != nullptr) {
    read->entries = std::move(header.entries);
    read->num_bytes = file.size();
    read->xxh3_128 = digest.Digest();
  }
  return tensors;
}

absl::StatusOr<std::vector<SafetensorsEntry>> ReadSafetensorsHeader(
    const RandomAccessFile& file, const std::string& path) {
  GRAPNEL_ASSIGN_OR_RETURN(Header header, ReadHeader(file, path));
  return std::move(header.entries);
}

}  // namespace io
}  // namespace grapnel
