#include "grapnel/io/pth_numbers.h"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/string_view.h"
#include "grapnel/base/read_scalars.h"
#include "grapnel/base/torch_status.h"

namespace grapnel {
namespace io {
namespace {

using Kind = PthValue::Kind;

// The bytes that a text stands for, a character a byte.
std::optional<std::string> Latin1(absl::string_view text) {
  std::string bytes;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    if (c < 0x80) {
      bytes.push_back(static_cast<char>(c));
      continue;
    }
    if ((c != 0xC2 && c != 0xC3) || i + 1 == text.size()) return std::nullopt;
    const auto low = static_cast<unsigned char>(text[++i]);
    bytes.push_back(static_cast<char>((c & 0x03) << 6 | (low & 0x3F)));
  }
  return bytes;
}

std::optional<std::string> BytesIn(const PthValue& value) {
  if (value.kind() == Kind::kBytes) return std::string(value.string_value());
  // What protocol 2 makes bytes of.
  if (value.kind() != Kind::kOpaque || value.type_name() != "_codecs.encode" ||
      value.size() < 1 || value.item(0).size() < 1) {
    return std::nullopt;
  }
  return Latin1(value.item(0).item(0).string_value());
}

// "f8"; "" of one that isn't little-endian.
std::string TypeIn(const PthValue& dtype) {
  if (dtype.kind() != Kind::kOpaque || dtype.size() < 1 ||
      dtype.item(0).size() < 1) {
    return "";
  }
  if (dtype.size() > 1 && dtype.item(1).size() > 1 &&
      dtype.item(1).item(1).string_value() == ">") {
    return "";
  }
  return std::string(dtype.item(0).item(0).string_value());
}

template <typename T>
std::vector<double> Decode(const std::string& bytes) {
  std::vector<double> values;
  for (size_t i = 0; i + sizeof(T) <= bytes.size(); i += sizeof(T)) {
    T value;
    std::memcpy(&value, bytes.data() + i, sizeof(T));
    values.push_back(static_cast<double>(value));
  }
  return values;
}

std::optional<std::vector<double>> DecodeAs(const PthValue& dtype,
                                            const PthValue& value) {
  const std::optional<std::string> bytes = BytesIn(value);
  if (!bytes.has_value()) return std::nullopt;
  const std::string type = TypeIn(dtype);
  if (type == "f8") return Decode<double>(*bytes);
  if (type == "f4") return Decode<float>(*bytes);
  if (type == "i8") return Decode<int64_t>(*bytes);
  if (type == "i4") return Decode<int32_t>(*bytes);
  return std::nullopt;
}

std::optional<double> NumberOfTensor(const PthValue& value) {
  std::optional<double> number;
  const absl::Status status = CatchAsStatus([&] {
    if (value.tensor().numel() == 1 && !value.tensor().is_complex()) {
      number = ReadScalars({value.tensor()}).front();
    }
    return absl::OkStatus();
  });
  return status.ok() ? number : std::nullopt;
}

}  // namespace

std::optional<double> NumberIn(const PthValue& value) {
  switch (value.kind()) {
    case Kind::kBool:
    case Kind::kInt:
    case Kind::kFloat:
      return value.float_value();
    case Kind::kTensor:
      return NumberOfTensor(value);
    case Kind::kOpaque: {
      // Made of its dtype and its bytes.
      if (!absl::EndsWith(value.type_name(), "multiarray.scalar") ||
          value.size() < 1 || value.item(0).size() != 2) {
        return std::nullopt;
      }
      const auto numbers =
          DecodeAs(value.item(0).item(0), value.item(0).item(1));
      if (!numbers.has_value() || numbers->size() != 1) return std::nullopt;
      return numbers->front();
    }
    default:
      return std::nullopt;
  }
}

std::optional<std::vector<double>> NumbersIn(const PthValue& value) {
  if (value.kind() == Kind::kList || value.kind() == Kind::kTuple) {
    std::vector<double> values;
    for (int64_t i = 0; i < value.size(); ++i) {
      const std::optional<double> number = NumberIn(value.item(i));
      if (!number.has_value()) return std::nullopt;
      values.push_back(*number);
    }
    return values;
  }
  // Made empty, and then given version, shape, dtype, order and bytes.
  if (value.kind() != Kind::kOpaque ||
      !absl::EndsWith(value.type_name(), "multiarray._reconstruct") ||
      value.size() < 2 || value.item(1).size() != 5 ||
      value.item(1).item(1).size() != 1) {
    return std::nullopt;
  }
  return DecodeAs(value.item(1).item(2), value.item(1).item(4));
}

}  // namespace io
}  // namespace grapnel
