#include "grapnel/loggers/record_json.h"

#include <cmath>
#include <cstdint>
#include <variant>

#include "absl/strings/str_cat.h"
#include "grapnel/base/json_string.h"
#include "grapnel/loggers/number_format.h"

namespace grapnel {
namespace {

void AppendItem(absl::string_view name, const Scalar& scalar,
                std::string* json) {
  AppendAsciiJsonString(name, json);
  json->append(": ");
  AppendJsonNumber(scalar, json);
}

}  // namespace

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
