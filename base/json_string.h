// Strings in JSON.

#ifndef GRAPNEL_BASE_JSON_STRING_H_
#define GRAPNEL_BASE_JSON_STRING_H_

#include <string>

#include "absl/strings/string_view.h"

namespace grapnel {

// `text` in JSON's quotes, as UTF-8; what isn't is as EscapeToUtf8 makes it.
std::string JsonString(absl::string_view text);

// Appends the same in ASCII, as Python's json.dumps: "\u00e9" and the like.
void AppendJsonString(absl::string_view text, std::string* json);

}  // namespace grapnel

#endif  // GRAPNEL_BASE_JSON_STRING_H_
