#include "grapnel/io/safetensors_header.h"

#include <limits>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "grapnel/base/control_characters.h"
#include "grapnel/base/json_string.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/utf8.h"
#include "nlohmann/json.hpp"

namespace grapnel {
namespace io {
namespace {

constexpr size_t kMaxNameSize = 4096;
constexpr char kMetadataKey[] = "__metadata__";

constexpr SafetensorsDtype kDtypes[] = {
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

// Takes a header's tokens one by one. Only one shape is right, so that what
// comes next is always known, and nothing wrong gets as far as nesting.
class HeaderReader final : public nlohmann::json_sax<nlohmann::json> {
 public:
  const absl::Status& status() const { return status_; }
  std::vector<SafetensorsEntry>& entries() { return entries_; }

  bool start_object(size_t) override {
    switch (expected_) {
      case Expected::kHeader:
        expected_ = Expected::kTensorName;
        return true;
      case Expected::kTensor:
        fields_ = Fields();
        expected_ = Expected::kField;
        return true;
      case Expected::kMetadata:
        expected_ = Expected::kMetadataName;
        return true;
      default:
        return Unexpected("an object");
    }
  }

  bool key(std::string& name) override {
    switch (expected_) {
      case Expected::kTensorName:
        return TensorName(std::move(name));
      case Expected::kMetadataName:
        if (!metadata_names_.insert(name).second) {
          return Fail(
              absl::StrCat("metadata ", QuotedName(name), " comes twice"));
        }
        expected_ = Expected::kMetadataValue;
        return true;
      default:  // kField: no other object has names.
        return FieldName(name);
    }
  }

  bool string(std::string& text) override {
    switch (expected_) {
      case Expected::kMetadataValue:
        expected_ = Expected::kMetadataName;
        return true;
      case Expected::kDtype:
        entry().dtype = std::move(text);
        expected_ = Expected::kField;
        return true;
      default:
        return Unexpected("a string");
    }
  }

  bool start_array(size_t) override {
    if (expected_ == Expected::kShape) {
      expected_ = Expected::kDim;
    } else if (expected_ == Expected::kOffsets) {
      expected_ = Expected::kOffset;
    } else {
      return Unexpected("an array");
    }
    return true;
  }

  bool number_unsigned(uint64_t value) override {
    if (expected_ != Expected::kDim && expected_ != Expected::kOffset) {
      return Unexpected("a number");
    }
    if (value > std::numeric_limits<int64_t>::max()) {
      return Fail(absl::StrCat("number is too large, ", value));
    }
    std::vector<int64_t>& values =
        expected_ == Expected::kDim ? entry().shape : fields_.offsets;
    if (values.size() == kMaxSafetensorsDims) {
      return Fail(absl::StrCat("more than ", kMaxSafetensorsDims, " numbers"));
    }
    values.push_back(static_cast<int64_t>(value));
    return true;
  }

  bool end_array() override {
    expected_ = Expected::kField;
    return true;
  }

  bool end_object() override {
    switch (expected_) {
      case Expected::kField:
        expected_ = Expected::kTensorName;
        status_ = WithContext(FinishTensor(), Where());
        return status_.ok();
      case Expected::kMetadataName:
        expected_ = Expected::kTensorName;
        return true;
      default:  // kTensorName: the header's own.
        expected_ = Expected::kNothing;
        return true;
    }
  }

  bool number_integer(int64_t) override { return Unexpected("a number < 0"); }
  bool number_float(double, const std::string&) override {
    return Unexpected("a number with a fraction or beyond 64 bits");
  }
  bool boolean(bool) override { return Unexpected("a truth value"); }
  bool null() override { return Unexpected("null"); }
  bool binary(nlohmann::json::binary_t&) override {
    return Unexpected("bytes");
  }

  bool parse_error(size_t position, const std::string& last_token,
                   const nlohmann::detail::exception&) override {
    status_ = absl::InvalidArgumentError(
        absl::StrCat("header byte ", position - 1, ": not JSON at ",
                     QuotedName(last_token)));
    return false;
  }

 private:
  enum class Expected {
    kHeader,
    kTensorName,  // Or the metadata's, or the end.
    kTensor,
    kField,  // Or the end.
    kDtype,
    kShape,
    kDim,  // Or the end.
    kOffsets,
    kOffset,  // Or the end.
    kMetadata,
    kMetadataName,  // Or the end.
    kMetadataValue,
    kNothing,
  };
  struct Fields {
    bool dtype = false;
    bool shape = false;
    bool data_offsets = false;
    std::vector<int64_t> offsets;
  };

  static const char* NameOf(Expected expected) {
    switch (expected) {
      case Expected::kTensor:
      case Expected::kMetadata:
        return "an object";
      case Expected::kDtype:
      case Expected::kMetadataValue:
        return "a string";
      case Expected::kShape:
      case Expected::kOffsets:
        return "an array";
      default:
        return "a whole number >= 0";
    }
  }

  SafetensorsEntry& entry() { return entries_.back(); }

  std::string Where() const {
    return in_metadata_ ? std::string(kMetadataKey)
           : entries_.empty()
               ? std::string("header")
               : absl::StrCat("tensor ", QuotedName(entries_.back().name));
  }

  bool Fail(absl::string_view what) {
    status_ = absl::InvalidArgumentError(absl::StrCat(Where(), ": ", what));
    return false;
  }

  bool Unexpected(absl::string_view what) {
    return Fail(
        absl::StrCat(what, " where ", NameOf(expected_), " is expected"));
  }

  bool TensorName(std::string name) {
    if (!names_.insert(name).second) {
      status_ = absl::InvalidArgumentError(
          absl::StrCat("header: key ", QuotedName(name), " comes twice"));
      return false;
    }
    in_metadata_ = name == kMetadataKey;
    if (in_metadata_) {
      expected_ = Expected::kMetadata;
      return true;
    }
    status_ = CheckTensorName(name);
    if (!status_.ok()) return false;
    entries_.emplace_back();
    entry().name = std::move(name);
    expected_ = Expected::kTensor;
    return true;
  }

  bool FieldName(absl::string_view name) {
    bool* seen = nullptr;
    if (name == "dtype") {
      seen = &fields_.dtype;
      expected_ = Expected::kDtype;
    } else if (name == "shape") {
      seen = &fields_.shape;
      expected_ = Expected::kShape;
    } else if (name == "data_offsets") {
      seen = &fields_.data_offsets;
      expected_ = Expected::kOffsets;
    } else {
      return Fail(absl::StrCat("unknown field ", QuotedName(name)));
    }
    if (std::exchange(*seen, true)) {
      return Fail(absl::StrCat(name, " comes twice"));
    }
    return true;
  }

  absl::Status FinishTensor() {
    const auto missing = [](absl::string_view field) {
      return absl::InvalidArgumentError(absl::StrCat(field, " is missing"));
    };
    if (!fields_.dtype) return missing("dtype");
    if (!fields_.shape) return missing("shape");
    if (!fields_.data_offsets) return missing("data_offsets");
    const SafetensorsDtype* const dtype = FindSafetensorsDtype(entry().dtype);
    if (dtype == nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat("dtype ", QuotedName(entry().dtype), " is unknown"));
    }
    const std::vector<int64_t>& offsets = fields_.offsets;
    if (offsets.size() != 2 || offsets[0] > offsets[1]) {
      return absl::InvalidArgumentError(
          absl::StrCat("data_offsets must be a begin and an end, are [",
                       absl::StrJoin(offsets, ", "), "]"));
    }
    entry().file_offset = offsets[0];
    entry().num_bytes = offsets[1] - offsets[0];
    GRAPNEL_ASSIGN_OR_RETURN(const int64_t size,
                             ByteSize(entry().shape, dtype->size));
    if (size != entry().num_bytes) {
      return absl::InvalidArgumentError(absl::StrCat(
          "shape [", absl::StrJoin(entry().shape, ", "), "] of ", entry().dtype,
          " has ", size, " bytes, data_offsets say ", entry().num_bytes));
    }
    return absl::OkStatus();
  }

  Expected expected_ = Expected::kHeader;
  absl::Status status_;
  std::vector<SafetensorsEntry> entries_;
  absl::flat_hash_set<std::string> names_, metadata_names_;
  bool in_metadata_ = false;
  Fields fields_;  // Of the last entry.
};

}  // namespace

const SafetensorsDtype* FindSafetensorsDtype(absl::string_view name) {
  for (const SafetensorsDtype& dtype : kDtypes) {
    if (name == dtype.name) return &dtype;
  }
  return nullptr;
}

const SafetensorsDtype* FindSafetensorsDtype(c10::ScalarType type) {
  for (const SafetensorsDtype& dtype : kDtypes) {
    if (type == dtype.type) return &dtype;
  }
  return nullptr;
}

std::string QuotedName(absl::string_view name) {
  return absl::StrCat("\"",
                      EscapeToUtf8(MaskControlCharacters(name.substr(0, 200))),
                      name.size() > 200 ? "...\"" : "\"");
}

absl::Status CheckTensorName(absl::string_view name) {
  const auto error = [&](absl::string_view what) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor ", QuotedName(name), ": name ", what));
  };
  if (name.empty()) return error("is empty");
  if (name.size() > kMaxNameSize) {
    return error(absl::StrCat("has more than ", kMaxNameSize, " bytes"));
  }
  if (name == kMetadataKey) return error("is reserved");
  if (HasControlCharacter(name)) return error("holds a control character");
  if (!IsUtf8(name)) return error("isn't UTF-8");
  for (const absl::string_view part : absl::StrSplit(name, '/')) {
    if (part == "..") return error("holds \"..\"");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<SafetensorsEntry>> ParseSafetensorsHeader(
    absl::string_view json) {
  if (json.empty() || json[0] != '{') {
    return absl::InvalidArgumentError("header must begin with '{'");
  }
  // The format pads with spaces alone, and the library takes a NUL for the end.
  const size_t last = json.find_last_not_of(' ');
  if (json[last] != '}' || json.find('\0') != absl::string_view::npos) {
    return absl::InvalidArgumentError(
        "header must end with '}' and spaces, and hold no NUL");
  }
  HeaderReader reader;
  if (!nlohmann::json::sax_parse(json.begin(), json.end(), &reader)) {
    return reader.status();
  }
  return std::move(reader.entries());
}

std::string PrintSafetensorsHeader(
    const std::vector<SafetensorsEntry>& entries) {
  std::string text =
      absl::StrCat("{\"", kMetadataKey, "\":{\"format\":\"pt\"}");
  for (const SafetensorsEntry& entry : entries) {
    absl::StrAppend(&text, ",", JsonString(entry.name), ":{\"dtype\":\"",
                    entry.dtype, "\",\"shape\":[",
                    absl::StrJoin(entry.shape, ","), "],\"data_offsets\":[",
                    entry.file_offset, ",", entry.file_offset + entry.num_bytes,
                    "]}");
  }
  return text + "}";
}

}  // namespace io
}  // namespace grapnel
