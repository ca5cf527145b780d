#include "grapnel/base/json_string.h"

#include <algorithm>

#include "grapnel/base/utf8.h"
#include "nlohmann/json.hpp"

namespace grapnel {
namespace {

std::string Dump(absl::string_view text, bool ascii) {
  return nlohmann::json(EscapeToUtf8(text)).dump(-1, ' ', ascii);
}

}  // namespace

std::string JsonString(absl::string_view text) { return Dump(text, false); }

void AppendAsciiJsonString(absl::string_view text, std::string* json) {
  // Nearly all text, and the library takes a thousand instructions for it.
  const bool plain = std::all_of(text.begin(), text.end(), [](char c) {
    return c >= ' ' && c <= '~' && c != '"' && c != '\\';
  });
  if (plain) {
    json->push_back('"');
    json->append(text.data(), text.size());
    json->push_back('"');
  } else {
    json->append(Dump(text, true));
  }
}

}  // namespace grapnel
