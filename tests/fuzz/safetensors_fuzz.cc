// A safetensors file: its header alone, and all of it.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "grapnel/base/log.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/io/digest.h"
#include "grapnel/io/safetensors.h"
#include "grapnel/io/safetensors_header.h"
#include "grapnel/tests/fuzz/bytes_env.h"
#include "grapnel/tests/fuzz/fuzz_target.h"

namespace grapnel {
namespace {

constexpr size_t kLengthSize = 8;

// A header that is accepted is printed and read as the same.
void TryHeader(absl::string_view json) {
  const auto entries = io::ParseSafetensorsHeader(json);
  if (!entries.ok()) return;
  const auto again =
      io::ParseSafetensorsHeader(io::PrintSafetensorsHeader(*entries));
  GRAPNEL_CHECK(again.ok()) << again.status();
  GRAPNEL_CHECK(again->size() == entries->size());
  for (size_t i = 0; i < entries->size(); ++i) {
    const io::SafetensorsEntry &a = (*entries)[i], &b = (*again)[i];
    GRAPNEL_CHECK(a.name == b.name && a.dtype == b.dtype &&
                  a.shape == b.shape && a.file_offset == b.file_offset &&
                  a.num_bytes == b.num_bytes);
  }
}

// Tensors are those bytes of the file that the entries name.
void CheckTensors(absl::string_view bytes, const TensorMap& tensors,
                  const io::SafetensorsFile& read) {
  GRAPNEL_CHECK(read.num_bytes == static_cast<int64_t>(bytes.size()));
  GRAPNEL_CHECK(read.xxh3_128 == io::Xxh3Digest128(bytes));
  GRAPNEL_CHECK(read.entries.size() == tensors.size());
  auto tensor = tensors.begin();
  for (const io::SafetensorsEntry& entry : read.entries) {
    GRAPNEL_CHECK(entry.file_offset >= 0 && entry.num_bytes >= 0 &&
                  entry.file_offset + entry.num_bytes <= read.num_bytes);
    GRAPNEL_CHECK(tensor->name == entry.name);
    GRAPNEL_CHECK(tensor->tensor.sizes() == at::IntArrayRef(entry.shape));
    GRAPNEL_CHECK(static_cast<int64_t>(tensor->tensor.nbytes()) ==
                  entry.num_bytes);
    const absl::string_view part =
        bytes.substr(entry.file_offset, entry.num_bytes);
    GRAPNEL_CHECK(part.empty() || std::memcmp(tensor->tensor.const_data_ptr(),
                                              part.data(), part.size()) == 0);
    ++tensor;
  }
}

// The length that a file begins with.
size_t HeaderLength(absl::string_view bytes) {
  uint64_t length = 0;
  std::memcpy(&length, bytes.data(), kLengthSize);
  return std::min<uint64_t>(length, bytes.size() - kLengthSize);
}

}  // namespace
}  // namespace grapnel

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace grapnel;
  const absl::string_view bytes(reinterpret_cast<const char*>(data), size);
  if (size > kLengthSize) TryHeader(bytes.substr(kLengthSize));
  const BytesFile file(bytes);
  const auto header = io::ReadSafetensorsHeader(file, "input");
  io::SafetensorsFile read;
  const absl::StatusOr<TensorMap> tensors =
      io::ReadSafetensors(file, "input", &read);
  NoteOutcome(tensors.status());
  if (!tensors.ok()) return 0;
  GRAPNEL_CHECK(header.ok() && header->size() == tensors->size());
  CheckTensors(bytes, *tensors, read);
  return 0;
}

// Changes the header or the data, and mostly makes the lengths fit.
extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size,
                                          size_t max_size, unsigned int seed) {
  using namespace grapnel;
  constexpr size_t kMaxData = 1 << 11;
  if (size < kLengthSize || max_size < 2 * kMaxData || seed % 8 == 0) {
    return LLVMFuzzerMutate(data, size, max_size);
  }
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  const size_t old_length = HeaderLength(bytes);
  std::string header = bytes.substr(kLengthSize, old_length);
  std::string tensors = bytes.substr(kLengthSize + old_length);
  if (seed / 8 % 8 == 0) {
    Mutate(kMaxData, &tensors);
  } else {
    Mutate(max_size - kLengthSize - kMaxData, &header);
  }
  size_t end = 0;
  const auto entries = io::ParseSafetensorsHeader(header);
  if (entries.ok() && seed / 64 % 4 != 0) {
    for (const io::SafetensorsEntry& entry : *entries) {
      end = std::max<size_t>(end, entry.file_offset + entry.num_bytes);
    }
    if (end <= kMaxData) tensors.resize(end);
  }
  tensors.resize(std::min(tensors.size(), kMaxData));
  const uint64_t length = header.size();
  const std::string changed =
      std::string(reinterpret_cast<const char*>(&length), kLengthSize) +
      header + tensors;
  std::memcpy(data, changed.data(), changed.size());
  return changed.size();
}
