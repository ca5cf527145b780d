#include "grapnel/loggers/record_json.h"

#include <cmath>
#include <cstdint>
#include <optional>
#include <variant>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "grapnel/base/utf8.h"
#include "grapnel/loggers/number_format.h"

namespace grapnel {
namespace {

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
    const auto byte = static_cast<unsigned char>(text[0]);
    const std::optional<char32_t> taken = TakeCodePoint(&text);
    if (!taken.has_value()) {
      absl::StrAppendFormat(json, "\\\\x%02x", byte);
      continue;
    }
    const char32_t point = *taken;
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

}  // namespace grapnel
