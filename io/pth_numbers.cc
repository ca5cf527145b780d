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

// `count` of them, in exactly these bytes.
template <typename T>
std::optional<std::vector<double>> Decode(absl::string_view bytes,
                                          uint64_t count) {
  if (bytes.size() % sizeof(T) != 0 || bytes.size() / sizeof(T) != count) {
    return std::nullopt;
  }
  std::vector<double> values;
  for (size_t i = 0; i < bytes.size(); i += sizeof(T)) {
    T value;
    std::memcpy(&value, bytes.data() + i, sizeof(T));
    values.push_back(static_cast<double>(value));
  }
  return values;
}

std::optional<std::vector<double>> DecodeAs(const PthValue& dtype,
                                            const PthValue& bytes,
                                            int64_t count) {
  if (bytes.kind() != Kind::kBytes || count < 0) return std::nullopt;
  const std::string type = TypeIn(dtype);
  const auto decode = [&](auto example) {
    return Decode<decltype(example)>(bytes.string_value(),
                                     static_cast<uint64_t>(count));
  };
  if (type == "f8") return decode(double{});
  if (type == "f4") return decode(float{});
  if (type == "i8") return decode(int64_t{});
  if (type == "i4") return decode(int32_t{});
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
          DecodeAs(value.item(0).item(0), value.item(0).item(1), 1);
      if (!numbers.has_value()) return std::nullopt;
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
      value.size() < 2 || value.item(1).size() != 5) {
    return std::nullopt;
  }
  const PthValue state = value.item(1);
  const PthValue shape = state.item(1);
  if (shape.kind() != Kind::kTuple || shape.size() != 1 ||
      shape.item(0).kind() != Kind::kInt) {
    return std::nullopt;
  }
  return DecodeAs(state.item(2), state.item(4), shape.item(0).int_value());
}

}  // namespace io
}  // namespace grapnel
