// Reports as JSON: an object in one line.

#ifndef GRAPNEL_TOOLS_CKPT_JSON_REPORT_H_
#define GRAPNEL_TOOLS_CKPT_JSON_REPORT_H_

#include <ostream>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "grapnel/base/utf8.h"
#include "grapnel/tools/ckpt/sized_file.h"
#include "nlohmann/json.hpp"

namespace grapnel {

// Keys in the order they were given in; NaN and infinities are null.
using Json = nlohmann::ordered_json;

// A string that others chose, so that any bytes are one of JSON.
inline std::string JsonText(absl::string_view text) {
  return EscapeToUtf8(text);
}

// Null for "".
inline Json TextOrNull(absl::string_view text) {
  return text.empty() ? Json() : Json(JsonText(text));
}

inline Json ToJson(const std::vector<SizedFile>& files) {
  Json json = Json::array();
  for (const SizedFile& file : files) {
    json.push_back({{"path", JsonText(file.path)}, {"bytes", file.bytes}});
  }
  return json;
}

inline void PrintJson(const Json& json, std::ostream& out) {
  out << json.dump(-1, ' ', /*ensure_ascii=*/false,
                   Json::error_handler_t::replace)
      << "\n";
}

}  // namespace grapnel

#endif  // GRAPNEL_TOOLS_CKPT_JSON_REPORT_H_
