#include "grapnel/io/pickle_writer.h"

#include <cstring>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"

namespace grapnel {
namespace io {
namespace {

void AppendLittleEndian(uint64_t value, int n, std::string& bytes) {
  for (int i = 0; i < n; ++i) bytes += static_cast<char>(value >> 8 * i);
}

// An opcode that names a place in the memo: with one byte, or with four.
void AppendMemoOp(char short_op, char long_op, uint32_t index,
                  std::string& bytes) {
  const bool is_short = index < 256;
  bytes += is_short ? short_op : long_op;
  AppendLittleEndian(index, is_short ? 1 : 4, bytes);
}

}  // namespace

PickleWriter::PickleWriter() : bytes_("\x80\x02") {}

void PickleWriter::None() { bytes_ += 'N'; }

void PickleWriter::Bool(bool value) { bytes_ += value ? '\x88' : '\x89'; }

void PickleWriter::Int(int64_t value) { AppendPickleInt(value, bytes_); }

void PickleWriter::Float(double value) {
  uint64_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  bytes_ += 'G';
  for (int i = 7; i >= 0; --i) bytes_ += static_cast<char>(bits >> 8 * i);
}

void PickleWriter::String(absl::string_view value) {
  std::string opcode = "X";
  AppendLittleEndian(value.size(), 4, opcode);
  opcode.append(value.data(), value.size());
  Memoized(std::move(opcode));
}

void PickleWriter::Global(absl::string_view module, absl::string_view name) {
  Memoized(absl::StrCat("c", module, "\n", name, "\n"));
}

void PickleWriter::Memoized(std::string opcode) {
  const auto it = memo_.find(opcode);
  if (it != memo_.end()) return AppendMemoOp('h', 'j', it->second, bytes_);
  bytes_ += opcode;
  const uint32_t index = static_cast<uint32_t>(memo_.size());
  AppendMemoOp('q', 'r', index, bytes_);
  memo_.emplace(std::move(opcode), index);
}

void AppendPickleInt(int64_t value, std::string& bytes) {
  if (value >= 0 && value <= 0xff) {
    bytes += 'K';
    AppendLittleEndian(static_cast<uint64_t>(value), 1, bytes);
  } else if (value >= 0 && value <= 0xffff) {
    bytes += 'M';
    AppendLittleEndian(static_cast<uint64_t>(value), 2, bytes);
  } else if (value >= std::numeric_limits<int32_t>::min() &&
             value <= std::numeric_limits<int32_t>::max()) {
    bytes += 'J';
    AppendLittleEndian(static_cast<uint64_t>(value), 4, bytes);
  } else {
    // Fewer bytes would do for Python; LibTorch reads all 8 or nothing.
    bytes += "\x8a\x08";
    AppendLittleEndian(static_cast<uint64_t>(value), 8, bytes);
  }
}

}  // namespace io
}  // namespace grapnel
