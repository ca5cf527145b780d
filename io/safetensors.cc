#include "grapnel/io/safetensors.h"

#include <algorithm>
#include <cstddef>
#include <memory>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "c10/core/ScalarType.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/io/digest.h"
#include "grapnel/io/out_of_memory.h"
#include "grapnel/io/read_ranges.h"
#include "grapnel/io/safetensors_header.h"
#include "grapnel/io/tensor_memory.h"
#include "grapnel/io/unique_name.h"

namespace grapnel {
namespace io {
namespace {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
              "tensors are stored as they are in memory, little-endian");

constexpr int64_t kMaxHeaderSize = 100'000'000;  // The format's own limit.
constexpr size_t kLengthSize = 8;
constexpr int64_t kChunkSize = 1 << 20;

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
          "tensor ", QuotedName(entry.name), ": begins at ", entry.file_offset,
          entry.file_offset < end
              ? ", overlaps the one before, which ends at "
              : ", leaves a hole after the one that ends at ",
          end));
    }
    end += entry.num_bytes;
    if (end > data_size) {
      return absl::DataLossError(absl::StrCat(
          "tensor ", QuotedName(entry.name), ": ends at byte ", end, " of ",
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
  GRAPNEL_ASSIGN_OR_RETURN(header.entries, ParseSafetensorsHeader(text));
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

// Memory for the tensors of `entries`, named as these, and where it goes.
absl::Status NewTensors(const std::vector<SafetensorsEntry>& entries,
                        TensorMap& tensors, std::vector<ReadRange>& ranges) {
  for (const SafetensorsEntry& entry : entries) {
    const SafetensorsDtype* const dtype = FindSafetensorsDtype(entry.dtype);
    GRAPNEL_RET_CHECK(dtype != nullptr);
    absl::StatusOr<at::Tensor> tensor = NewTensor(entry.shape, dtype->type);
    if (!tensor.ok()) {
      return WithContext(tensor.status(),
                         absl::StrCat("tensor ", QuotedName(entry.name)));
    }
    GRAPNEL_RET_CHECK(static_cast<int64_t>(tensor->nbytes()) ==
                      entry.num_bytes);
    ranges.push_back({entry.file_offset, entry.num_bytes,
                      static_cast<char*>(tensor->data_ptr())});
    GRAPNEL_RETURN_IF_ERROR(tensors.Add(entry.name, *std::move(tensor)));
  }
  return absl::OkStatus();
}

// Reads the data of a file, and has `digest` go on with it if that isn't null.
absl::StatusOr<TensorMap> ReadTensors(
    const RandomAccessFile& file, const std::vector<SafetensorsEntry>& entries,
    Xxh3Hasher128* digest) {
  TensorMap tensors;
  std::vector<ReadRange> ranges;
  GRAPNEL_RETURN_IF_ERROR(NewTensors(entries, tensors, ranges));
  size_t failed = 0;
  absl::Status status = ReadRangesInOrder(
      file, ranges,
      [digest](absl::string_view bytes) {
        if (digest != nullptr) digest->Update(bytes);
      },
      &failed);
  for (size_t i = 0; status.ok() && i < entries.size(); ++i) {
    if (FindSafetensorsDtype(entries[i].dtype)->type != c10::ScalarType::Bool) {
      continue;
    }
    status = CheckBools(ranges[i].buffer, ranges[i].num_bytes);
    failed = i;
  }
  if (status.ok()) return tensors;
  return WithContext(status,
                     absl::StrCat("tensor ", QuotedName(entries[failed].name)));
}

// A tensor that is to be written.
struct Item {
  const NamedTensor* source;
  const SafetensorsDtype* dtype;
};

absl::StatusOr<Item> CheckTensor(const NamedTensor& named) {
  GRAPNEL_RETURN_IF_ERROR(CheckTensorName(named.name));
  const auto error = [&](absl::string_view what) {
    return absl::InvalidArgumentError(absl::StrCat(
        "tensor ", QuotedName(named.name), ": safetensors has no ", what));
  };
  const at::Tensor& tensor = named.tensor;
  if (!tensor.defined()) return error("undefined tensors");
  if (tensor.layout() != c10::kStrided || tensor.is_nested()) {
    return error("sparse or nested tensors");
  }
  if (tensor.is_meta()) return error("tensors without data");
  const SafetensorsDtype* const dtype =
      FindSafetensorsDtype(tensor.scalar_type());
  if (dtype == nullptr) {
    return error(absl::StrCat("dtype ", c10::toString(tensor.scalar_type())));
  }
  if (tensor.sizes().size() > kMaxSafetensorsDims) {
    return error(
        absl::StrCat("more than ", kMaxSafetensorsDims, " dimensions"));
  }
  return Item{&named, dtype};
}

// The header, padded; sets the entries' offsets.
std::string MakeHeader(std::vector<SafetensorsEntry>& entries) {
  int64_t end = 0;
  for (SafetensorsEntry& entry : entries) {
    entry.file_offset = end;
    end += entry.num_bytes;
  }
  std::string text = PrintSafetensorsHeader(entries);
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
        absl::StrCat("tensor ", QuotedName(items[i].source->name))));
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

absl::Status ReplaceSafetensors(Env& env, const std::string& path,
                                const TensorMap& tensors) {
  const std::string dir = Dirname(path);
  const std::string temporary =
      JoinPath(dir, HiddenName(kTemporary, Basename(path)));
  GRAPNEL_RETURN_IF_ERROR(WriteSafetensors(env, temporary, tensors).status());
  const absl::Status renamed = env.Rename(temporary, path);
  if (!renamed.ok()) {
    env.DeleteFile(temporary).IgnoreError();  // The first error is the cause.
    return renamed;
  }
  return env.SyncDir(dir.empty() ? "." : dir);
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
  // A file may have a million tensors.
  absl::StatusOr<TensorMap> tensors = CatchOutOfMemory("tensors", [&] {
    return ReadTensors(file, header.entries,
                       read == nullptr ? nullptr : &digest);
  });
  if (!tensors.ok()) return WithContext(tensors.status(), path);
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
