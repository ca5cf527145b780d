#include "grapnel/loggers/record_json.h"

#include <cmath>
#include <cstdint>
#include <variant>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "grapnel/loggers/number_format.h"

namespace grapnel {
namespace {

constexpr char32_t kReplacement = 0xfffd;

// Takes one code point of UTF-8 off `*text`, which isn't empty: U+FFFD, and one
// byte, where it isn't UTF-8.
char32_t TakeCodePoint(absl::string_view* text) {
  const auto byte = [text](size_t i) {
    return static_cast<unsigned char>((*text)[i]);
  };
  const unsigned char lead = byte(0);
  const size_t size = lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
  char32_t point = size == 1 ? lead : lead & (0x7f >> size);
  bool valid =
      (lead < 0x80 || (lead >= 0xc2 && lead <= 0xf4)) && text->size() >= size;
  for (size_t i = 1; valid && i < size; ++i) {
    valid = (byte(i) & 0xc0) == 0x80;
    point = point << 6 | (byte(i) & 0x3f);
  }
  // Surrogates, numbers that need fewer bytes, and those past the last plane.
  valid = valid && !(point >= 0xd800 && point <= 0xdfff) &&
          !(size == 3 && point < 0x800) && !(size == 4 && point < 0x10000) &&
          point <= 0x10ffff;
  text->remove_prefix(valid ? size : 1);
  return valid ? point : kReplacement;
}

void AppendItem(absl::string_view name, const Scalar& scalar,
                std::string* json) {
  AppendJsonString(name, json);
  json->append(": ");
  AppendJsonNumber(scalar, json);
}

}  // namespace

void AppendJsonString(absl::string_view text, std::string* json) {
  json->push_back('"');
  while (!text.empty()) {
    const char32_t point = TakeCodePoint(&text);
    switch (point) {
      case '"':
        json->append("\\\"");
        break;
      case '\\':
        json->append("\\\\");
        break;
      case '\n':
        json->append("\\n");
        break;
      case '\r':
        json->append("\\r");
        break;
      case '\t':
        json->append("\\t");
        break;
      case '\b':
        json->append("\\b");
        break;
      case '\f':
        json->append("\\f");
        break;
      default:
        if (point >= 0x20 && point < 0x7f) {
          json->push_back(static_cast<char>(point));
        } else if (point < 0x10000) {
          absl::StrAppendFormat(json, "\\u%04x", static_cast<uint32_t>(point));
        } else {
          const uint32_t rest = point - 0x10000;
          absl::StrAppendFormat(json, "\\u%04x\\u%04x", 0xd800 + (rest >> 10),
                                0xdc00 + (rest & 0x3ff));
        }
    }
  }
  json->push_back('"');
}

void AppendJsonNumber(const Scalar& scalar, std::string* json) {
  if (const int64_t* integer = std::get_if<int64_t>(&scalar)) {
    absl::StrAppend(json, *integer);
    return;
  }
  const double value = std::get<double>(scalar);
  if (std::isnan(value)) {
    json->append("NaN");
  } else if (std::isinf(value)) {
    json->append(value < 0 ? "-Infinity" : "Infinity");
  } else {
    AppendPythonRepr(value, json);
  }
}

void AppendRecordJson(const Record& record, std::string* json) {
  const size_t begin = json->size();
  json->push_back('{');
  bool has_step = record.kind == Record::Kind::kTest;
  for (const auto& [name, scalar] : record.scalars) {
    if (json->size() > begin + 1) json->append(", ");
    AppendItem(name, scalar, json);
    has_step = has_step || name == "step";
  }
  if (!has_step) {
    if (json->size() > begin + 1) json->append(", ");
    AppendItem("step", record.step, json);
  }
  json->push_back('}');
}

std::string RecordToJson(const Record& record) {
  std::string json;
  AppendRecordJson(record, &json);
  return json;
}

std::string ToUtf8(absl::string_view text) {
  std::string valid;
  while (!text.empty()) {
    const absl::string_view before = text;
    const char32_t point = TakeCodePoint(&text);
    const size_t size = before.size() - text.size();
    if (point == kReplacement && size == 1) {
      valid.append("\xef\xbf\xbd");
    } else {
      valid.append(before.data(), size);
    }
  }
  return valid;
}

}  // namespace grapnel
